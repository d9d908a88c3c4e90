//! The journal of a configuration, opened and made ready.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::Context as _;
use hashbrown::HashMap;

use super::Inputs;
use crate::config::{Config, JournalKind};
use crate::journal::kafka::{self, Instance, JournalTopics, TopicError, TopicKeeper};
use crate::journal::{Journal, KafkaJournal, SqliteJournal};
use crate::ledger::{Ledger, Ledgers, PartitionState};
use crate::metrics::Metrics;
use crate::prepare::Route;
use crate::record::Partition;
use crate::sink::{DEAD_LETTERS, DeadLetters, Producer};
use crate::source::kafka::{Counted, Membership, Prepare, Start, Unready};

/// What is needed of the journal to start.
pub(super) struct Opened {
    pub(super) journal: Journal,
    pub(super) ledgers: Ledgers,
    /// Where the source begins.
    pub(super) start: Start,
    /// Makes the topics ready.
    pub(super) prepare: Option<Prepare>,
    /// Topics that are read besides the inputs.
    pub(super) added: Vec<String>,
}

/// Opens the journal and, where it is here, reads the ledger back.
pub(super) fn open(
    config: &Config,
    inputs: &Inputs,
    membership: &Membership,
    metrics: &Metrics,
) -> anyhow::Result<Opened> {
    let began = Instant::now();
    let settings = config.ledger_settings();
    let outputs = config.output.tagged.is_some() || config.output.dead_letters.is_some();
    let producer = || outputs.then(|| Producer::new(&config.kafka)).transpose();
    let opened = match config.journal.kind {
        JournalKind::Sqlite => {
            let mut journal = SqliteJournal::open(&config.journal.path)?;
            let ledger = journal.restore(settings)?;
            tracing::info!(tickets = ledger.slot_count(), seconds = began.elapsed().as_secs_f64(), "restored");
            let (id, is_behind) = (Some(journal.id().to_owned()), journal.is_behind());
            let start = Start::Known { counted: counted(&ledger), journal: id, is_behind };
            let (journal, ledgers) = (Journal::Sqlite(Box::new(journal), producer()?), Ledgers::one(ledger));
            Opened { journal, ledgers, start, prepare: None, added: Vec::new() }
        }
        JournalKind::None => {
            let start = Start::Known { counted: HashMap::new(), journal: None, is_behind: false };
            let (journal, ledgers) = (Journal::None(producer()?), Ledgers::one(Ledger::new(settings)));
            Opened { journal, ledgers, start, prepare: None, added: Vec::new() }
        }
        JournalKind::Kafka => {
            let instance = Instance::of(&config.journal.path)?;
            let start = Start::Told { instance: instance.id.clone(), claim: kafka::CLAIM };
            let topics = JournalTopics::new(&config.kafka);
            let added = config.input.iter().filter(|i| i.rekey).map(|i| topics.keyed(&i.topic).to_string()).collect();
            let journal = KafkaJournal::new(config, instance, membership.clone())?;
            let (journal, ledgers) = (Journal::Kafka(Box::new(journal)), Ledgers::Each(BTreeMap::new()));
            Opened { journal, ledgers, start, prepare: Some(prepare(config, inputs)), added }
        }
    };
    metrics.restore_seconds.set(began.elapsed().as_secs_f64());
    Ok(opened)
}

/// Where nothing was taken yet, the group's position counts, if it has one.
fn counted(ledger: &Ledger) -> HashMap<Partition, Counted> {
    let taken = ledger.partitions().iter().filter(|state| state.next_offset > 0);
    let counted = |state: &PartitionState| Counted { position: state.next_offset, newest: state.watermark };
    taken.map(|state| (state.partition.clone(), counted(state))).collect()
}

/// Makes sure that every input has its journal and, where it is to have one, its keyed copy.
fn prepare(config: &Config, inputs: &Inputs) -> Prepare {
    let (kafka, inputs) = (config.kafka.clone(), inputs.clone());
    Box::new(move |partitions| {
        let keeper = TopicKeeper::new(&kafka).map_err(unready)?;
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        partitions.iter().for_each(|partition| *counts.entry(&partition.topic).or_default() += 1);
        for (topic, count) in counts {
            let copy = inputs.get(topic).and_then(|input| match &input.route {
                Route::Copy(copy) => Some(copy),
                Route::Ledger | Route::FromCopy(_) => None,
            });
            keeper.check_way(topic, copy.is_some()).map_err(unready)?;
            match copy {
                Some(copy) => {
                    let count = keeper.ensure_keyed(topic).map_err(unready)?;
                    copy.partitions.store(i32::try_from(count).unwrap_or(i32::MAX), Ordering::Relaxed);
                    keeper.ensure_journal(&copy.topic, count).map_err(unready)?;
                }
                None => keeper.ensure_journal(topic, count).map_err(unready)?,
            }
        }
        Ok(())
    })
}

fn unready(error: TopicError) -> Unready {
    match error.is_passing() {
        true => Unready::NotYet(error.to_string()),
        false => Unready::Never(error.to_string()),
    }
}

/// Where refused records go.
pub(super) fn dead_letters(config: &Config) -> anyhow::Result<DeadLetters> {
    if let Some(topic) = &config.output.dead_letters {
        return Ok(DeadLetters::Topic(topic.as_str().into()));
    }
    std::fs::create_dir_all(&config.journal.path)?;
    let path = config.journal.path.join(DEAD_LETTERS);
    DeadLetters::file(&path).with_context(|| format!("cannot write {}", path.display()))
}
