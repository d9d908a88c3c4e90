//! The ledger alone, and everything between Kafka and `/metrics` together, on one thread: events of 3.3 KB, batches of
//! 10,000, five events a ticket. Run with `cargo bench --bench pipeline`.

mod support;

use std::sync::Arc;
use std::time::Duration;

use customer_reach::classify::{Classifier, ClassifierOptions, PackSource};
use customer_reach::journal::{Journal, SqliteJournal};
use customer_reach::ledger::{Ledger, Ledgers, Settings};
use customer_reach::metrics::Metrics;
use customer_reach::pipeline::{Parts, Pipeline};
use customer_reach::prepare::{Input, Preparer, Route, Rules};
use customer_reach::profile::{Decoded, Decoder, Profile};
use customer_reach::record::Record;
use customer_reach::verdict::Findings;
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use hashbrown::HashMap;

/// As many records as `[batch] records` allows by default.
const BATCH: usize = 10_000;

fn main() {
    divan::main();
}

fn decoder() -> Decoder {
    Decoder::new(Profile::load("servicenow", &[], None, None).expect("the built-in profile is sound"))
}

/// A batch in which each ticket has five versions.
fn batch() -> Vec<Record> {
    let documents = support::records(|row| row);
    let of = |at: usize| documents.get(at % documents.len()).cloned().expect("there are documents");
    (0..BATCH).map(|at| numbered(of(at), at)).collect()
}

/// The record with its own offset, ticket and version.
fn numbered(mut record: Record, at: usize) -> Record {
    record.offset = i64::try_from(at).expect("few records");
    let text = String::from_utf8(record.value.take().expect("a value")).expect("UTF-8");
    let ticket = at % (BATCH / 5);
    let (_, rest) = text.split_once("\"short_description\"").expect("every document has one");
    let (middle, end) = rest.split_once("\"sys_mod_count\":\"").expect("every document has one");
    let (_, end) = end.split_once('"').expect("a number");
    let head =
        format!(r#"{{"sys_id":"{ticket:032x}","number":"INC{ticket:07}","sys_class_name":"incident","state":"2","#);
    let version = at / (BATCH / 5);
    record.value =
        Some(format!("{head}\"short_description\"{middle}\"sys_mod_count\":\"{version}\"{end}").into_bytes());
    record
}

fn pipeline(classifier: Classifier, mut journal: Journal) -> Pipeline {
    let ledger = match &mut journal {
        Journal::Sqlite(journal, _) => journal.restore(Settings::default()).expect("a new journal"),
        _ => Ledger::new(Settings::default()),
    };
    let input = Input { decoder: decoder().into(), source: "servicenow".into(), route: Route::Ledger };
    let inputs = Arc::new(HashMap::from([("itsm.incidents".to_owned(), input.into())]));
    let rules = Rules { own: classifier.into(), shadow: None };
    Pipeline::new(Parts {
        preparer: Preparer { inputs, rules, max_record_bytes: 1 << 20 },
        journal,
        ledgers: Ledgers::one(ledger),
        dead_letters: None,
        tagged: None,
        metrics: Arc::new(Metrics::new().expect("names are distinct")),
        zero_hold: Duration::ZERO,
    })
}

/// One batch from bytes to committed counters on a pool of one thread; a new pipeline each time.
fn run(bencher: Bencher<'_, '_>, classifier: impl Fn() -> Classifier + Sync, journal: impl Fn() -> Journal + Sync) {
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread");
    let batch = batch();
    let bytes: usize = batch.iter().filter_map(|record| record.value.as_ref()).map(Vec::len).sum();
    bencher
        .counter(ItemsCount::new(BATCH))
        .counter(BytesCount::new(bytes))
        .with_inputs(|| (pipeline(classifier(), journal()), batch.clone()))
        .bench_local_values(|(mut pipeline, batch)| {
            one.install(|| pipeline.take(batch));
            pipeline.commit().expect("nothing is in the way");
            assert_eq!(pipeline.ledger().tickets().count(), BATCH / 5);
            pipeline
        });
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn all_with_200_phrases_and_20_regexes(bencher: Bencher<'_, '_>) {
    run(bencher, || support::classifier(200, 20), || Journal::None(None));
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn all_with_200_phrases_and_20_regexes_and_sqlite(bencher: Bencher<'_, '_>) {
    let folder = tempfile::tempdir().expect("a folder for the journals");
    let number = std::sync::atomic::AtomicUsize::new(0);
    let journal = || {
        let name = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string();
        Journal::Sqlite(Box::new(SqliteJournal::open(&folder.path().join(name)).expect("a new journal")), None)
    };
    run(bencher, || support::classifier(200, 20), journal);
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn all_with_the_shipped_packs(bencher: Bencher<'_, '_>) {
    let options = ClassifierOptions { packs: vec![PackSource::BuiltIn], ..ClassifierOptions::default() };
    run(bencher, || Classifier::load(&options).expect("the shipped packs are sound"), || Journal::None(None));
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn ledger(bencher: Bencher<'_, '_>) {
    let decoder = decoder();
    let tickets: Vec<_> = batch()
        .iter()
        .filter_map(|record| match decoder.decode(record) {
            Ok(Decoded::Tickets(tickets)) => tickets.into_iter().next(),
            _ => None,
        })
        .collect();
    assert_eq!(tickets.len(), BATCH);
    bencher.counter(ItemsCount::new(BATCH)).with_inputs(|| Ledger::new(Settings::default())).bench_local_values(
        |mut ledger| {
            let partition = ledger.partition(&customer_reach::record::Partition { topic: "t".into(), number: 0 });
            for ticket in &tickets {
                ledger.apply("servicenow", partition, 0, ticket, Findings::default());
            }
            ledger
        },
    );
}
