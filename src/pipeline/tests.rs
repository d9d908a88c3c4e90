//! The pipeline from records to what is shown.

use std::time::Duration;

use super::*;
use crate::classify::{ClassifierOptions, PackSource};
use crate::profile::{Decoder, Profile};

const RULES: &str = "[[rule]]\nid = 'pay'\naffects = 'customer'\nweight = 5\nphrases = ['nobody can pay']\n";
const OTHER_RULES: &str = "[[rule]]\nid = 'shop'\naffects = 'internal'\nweight = 5\nphrases = ['shop']\n";

fn classifier(rules: &str) -> Arc<Classifier> {
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("fr");
    std::fs::create_dir(&pack).unwrap();
    std::fs::write(pack.join("rules.toml"), rules).unwrap();
    let packs = vec![PackSource::Folder(pack)];
    Arc::new(Classifier::load(&ClassifierOptions { packs, ..ClassifierOptions::default() }).unwrap())
}

fn pipeline() -> Pipeline {
    with_shadow(None)
}

fn with_shadow(shadow: Option<Arc<Classifier>>) -> Pipeline {
    let decoder = Arc::new(Decoder::new(Profile::load("generic", &[], None, None).unwrap()));
    let input = Input { decoder, source: "s".into(), route: Route::Ledger };
    let inputs = Arc::new(HashMap::from([("t".to_owned(), Arc::new(input))]));
    let rules = Rules { own: classifier(RULES), shadow };
    Pipeline::new(Parts {
        preparer: Preparer { inputs, rules, max_record_bytes: 1 << 20 },
        journal: Journal::None(None),
        ledgers: Ledgers::one(Ledger::new(Settings::default())),
        dead_letters: None,
        tagged: None,
        metrics: Arc::new(Metrics::new().unwrap()),
        zero_hold: Duration::ZERO,
    })
}

/// Takes one event of a ticket after the other.
fn take(pipeline: &mut Pipeline, events: &[&str]) {
    let first = pipeline.ledger().partitions().first().map_or(0, |partition| partition.next_offset);
    let record = |(event, offset): (&&str, i64)| Record {
        partition: Partition { topic: "t".into(), number: 0 },
        offset,
        timestamp: Some(offset),
        key: None,
        headers: Vec::new(),
        value: Some(format!("{{\"version\":{offset},{event}}}").into_bytes()),
    };
    pipeline.take(events.iter().zip(first..).map(record).collect());
    pipeline.commit().unwrap();
}

/// The lines of a metric that are not 0, without its prefix.
fn shown(pipeline: &Pipeline, metric: &str) -> Vec<String> {
    let text = pipeline.parts.metrics.render().unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("customer_reach_"));
    lines.filter(|line| line.starts_with(metric) && !line.ends_with(" 0")).map(str::to_owned).collect()
}

/// A file of dead letters as JSON.
fn letters(path: &std::path::Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn a_record_that_makes_the_program_panic_is_a_dead_letter_with_the_backtrace_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dead.ndjson");
    let mut pipeline = pipeline();
    pipeline.parts.dead_letters = Some(DeadLetters::NewFile(path.clone()));
    let event = |id: &str| format!(r#"{{"id":"{id}","version":1}}"#);
    let record = |offset, key: Option<&str>, id: &str| Record {
        partition: Partition { topic: "t".into(), number: 0 },
        offset,
        timestamp: None,
        key: key.map(|key| key.as_bytes().to_vec()),
        headers: Vec::new(),
        value: Some(event(id).into_bytes()),
    };
    let records = vec![record(0, None, "1"), record(1, Some("a defect of decoding"), "2"), record(2, None, "3")];
    pipeline.take(records);
    pipeline.commit().unwrap();
    let keys: Vec<_> = pipeline.ledger().tickets().map(|held| held.key.to_string()).collect();
    assert!(keys.len() == 2 && !keys.contains(&"2".to_owned()), "{keys:?}");
    let [letter] = &letters(&path)[..] else { panic!("one letter") };
    assert_eq!((&letter["reason"], &letter["value"]), (&"panic".into(), &event("2").into()));
    assert!(letter["backtrace"].as_str().unwrap().contains("customer_reach::prepare"), "{letter}");
}

#[test]
fn a_record_that_tears_the_ledger_takes_it_back_to_the_last_commit_and_is_refused_when_it_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dead.ndjson");
    let mut pipeline = pipeline();
    pipeline.parts.dead_letters = Some(DeadLetters::NewFile(path.clone()));
    let mut journal = crate::journal::SqliteJournal::open(folder.path()).unwrap();
    journal.restore(Settings::default()).unwrap();
    pipeline.parts.journal = Journal::Sqlite(Box::new(journal), None);
    take(&mut pipeline, &["\"id\":\"1\",\"effort_seconds\":60"]);
    let record = |offset, id: &str| Record {
        partition: Partition { topic: "t".into(), number: 0 },
        offset,
        timestamp: None,
        key: None,
        headers: Vec::new(),
        value: Some(format!(r#"{{"id":"{id}","version":1,"effort_seconds":5}}"#).into_bytes()),
    };
    let defect = "a defect of the ledger";
    let records = vec![record(1, "2"), record(2, defect), record(3, "3"), record(4, defect)];
    for _ in 0..2 {
        pipeline.take(records.clone());
        assert!(pipeline.is_torn());
        pipeline.go_back().unwrap();
        assert_eq!(pipeline.ledger().tickets().count(), 1, "as of the last commit");
    }
    pipeline.take(records);
    assert!(!pipeline.is_torn(), "both are known by now");
    pipeline.commit().unwrap();
    assert!(pipeline.defects.is_empty());
    assert_eq!(pipeline.ledger().tickets().count(), 3);
    let counted = |outcome| pipeline.parts.metrics.shown().sum(|s| s == crate::ledger::Series::Records { outcome });
    assert_eq!((counted(Outcome::Applied), counted(Outcome::DeadLetter)), (3, 2));
    assert_eq!([0, 1].map(|number| letters(&path)[number]["offset"].clone()), [2, 4]);
}

#[test]
fn what_was_taken_of_a_partition_before_it_is_given_up_is_committed_with_its_dead_letters() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dead.ndjson");
    let mut pipeline = pipeline();
    pipeline.parts.dead_letters = Some(DeadLetters::NewFile(path.clone()));
    let partition = Partition { topic: "t".into(), number: 0 };
    let (key, headers, value) = (None, Vec::new(), Some(b"broken".to_vec()));
    let record = Record { partition: partition.clone(), offset: 0, timestamp: None, key, headers, value };
    pipeline.take(vec![record]);
    pipeline.let_go(std::slice::from_ref(&partition));
    assert_eq!(pipeline.commit().unwrap(), [(partition, 1)], "so that it does not come again");
    assert_eq!(letters(&path)[0]["value"], "broken");
}

#[test]
fn a_partition_that_was_shown_further_is_shown_from_there_on_and_holds_nothing_at_0() {
    let mut pipeline = pipeline();
    pipeline.parts.ledgers = Ledgers::one(Ledger::new(Settings { holds: true, ..Settings::default() }));
    pipeline.holds = Holds::new(Duration::from_secs(3600));
    pipeline.catch_up(HashMap::from([(Partition { topic: "t".into(), number: 0 }, 3)]));
    let effort = |version| format!("\"id\":\"1\",\"effort_seconds\":{version},\"group\":\"shop\"");
    let value = |pipeline: &Pipeline, team: &str| {
        let shown = shown(pipeline, "team_effort_seconds_total");
        let line = shown.iter().find(|line| line.contains(team));
        line.and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
    };
    for (version, shown_effort) in [(10, None), (20, None), (30, Some("30")), (40, Some("40"))] {
        pipeline.release(Instant::now());
        take(&mut pipeline, &[&effort(version)]);
        assert_eq!(value(&pipeline, "shop").as_deref(), shown_effort);
    }
    // What is new from there on is held at 0 as ever, also after the next assignment.
    take(&mut pipeline, &["\"id\":\"2\",\"effort_seconds\":5,\"group\":\"new\""]);
    pipeline.catch_up(HashMap::from([(Partition { topic: "t".into(), number: 0 }, 3)]));
    pipeline.release(Instant::now());
    pipeline.commit().unwrap();
    assert_eq!((value(&pipeline, "shop").as_deref(), value(&pipeline, "new")), (Some("40"), None));
}

#[test]
fn agreement_is_counted_once_when_a_declared_ticket_ends() {
    let mut pipeline = pipeline();
    let text = "\"summary\":\"Since this morning nobody can pay in the shop, the page shows an error\"";
    let open = format!("\"id\":\"1\",\"state\":\"open\",{text},\"affects\":\"internal\",\"effort_seconds\":60");
    take(&mut pipeline, &[&open]);
    assert!(shown(&pipeline, "agreement").is_empty());
    let closed = format!("\"id\":\"1\",\"state\":\"closed\",{text},\"affects\":\"internal\",\"effort_seconds\":90");
    let reopened = open.replace("60", "95");
    take(&mut pipeline, &[&closed, &reopened, &closed, "\"id\":\"2\",\"state\":\"closed\""]);
    let labels = "{declared=\"internal\",language=\"en\",predicted=\"customer\"}";
    assert_eq!(
        shown(&pipeline, "agreement"),
        [format!("agreement_effort_seconds_total{labels} 90"), format!("agreement_total{labels} 1")]
    );
}

#[test]
fn a_text_too_short_to_tell_has_the_language_of_the_pack_that_spoke() {
    let mut pipeline = pipeline();
    let closed = "\"state\":\"closed\",\"affects\":\"customer\"";
    let spoken = format!("\"id\":\"1\",\"summary\":\"POS: nobody can pay\",{closed}");
    take(&mut pipeline, &[&spoken, &format!("\"id\":\"2\",\"summary\":\"ORA-00600\",{closed}")]);
    let shown = shown(&pipeline, "agreement_total");
    assert_eq!(shown.len(), 2, "{shown:?}");
    assert!(shown.iter().any(|line| line.contains("language=\"fr\",predicted=\"customer\"")), "{shown:?}");
    assert!(shown.iter().any(|line| line.contains("language=\"other\",predicted=\"internal\"")), "{shown:?}");
}

#[test]
fn a_shadow_shows_what_other_rules_would_move_and_changes_nothing() {
    let events = [
        "\"id\":\"1\",\"summary\":\"nobody can pay in the shop\",\"effort_seconds\":60",
        "\"id\":\"2\",\"summary\":\"shop\",\"effort_seconds\":5",
        "\"id\":\"1\",\"effort_seconds\":100",
    ];
    let rules = format!("{RULES}{}", OTHER_RULES.replace("= 5", "= 7"));
    let (mut alone, mut beside) = (pipeline(), with_shadow(Some(classifier(&rules))));
    take(&mut alone, &events);
    take(&mut beside, &events);
    assert!(shown(&alone, "shadow").is_empty());
    assert_eq!(shown(&alone, "effort_seconds_total"), shown(&beside, "effort_seconds_total"));
    let hash = beside.shadow().unwrap().classifier.hash();
    assert_eq!(
        shown(&beside, "shadow"),
        [
            "shadow_effort_seconds_total{live=\"customer\",shadow=\"internal\"} 100".to_owned(),
            "shadow_effort_seconds_total{live=\"internal\",shadow=\"internal\"} 5".to_owned(),
            format!("shadow_pattern_set_info{{hash=\"{hash}\"}} 1"),
            "shadow_tickets_total{live=\"customer\",shadow=\"internal\"} 1".to_owned(),
            "shadow_tickets_total{live=\"internal\",shadow=\"internal\"} 1".to_owned(),
        ]
    );
}
