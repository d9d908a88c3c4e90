//! Fills the journal of a configuration from ledgers that another journal held.

use std::collections::BTreeMap;

use super::kafka::{self, JournalTopics, TopicKeeper};
use super::{KafkaJournalError, SqliteError, SqliteJournal};
use crate::config::{Config, JournalKind};
use crate::ledger::moved::{Clash, merged, split, spread};
use crate::ledger::{Ledger, Settings};
use crate::prepare::partition_of;
use crate::record::Partition;

/// Why a journal cannot be filled; nothing is written then.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A ticket would be there twice.
    #[error("{0}; what was counted twice cannot be moved: count anew from the start of the topics")]
    Clash(#[from] Clash),
    /// The file.
    #[error(transparent)]
    Sqlite(#[from] SqliteError),
    /// The topics.
    #[error(transparent)]
    Kafka(#[from] KafkaJournalError),
    /// There is none.
    #[error("`[journal] kind` is `none`: there is nothing to be filled")]
    None,
    /// Topics of the file that the configuration does not name.
    #[error(
        "the file counts `{0}`, which is neither an `[[input]]` of the configuration nor the keyed copy of one in its group: its \
         counters would be lost. Add the input, with `rekey = true` and the same `[kafka] group` if it was copied"
    )]
    Topic(String),
}

/// What was imported.
#[derive(Debug, Default)]
pub struct Imported {
    /// Tickets, those included that have left memory.
    pub tickets: usize,
    /// Partitions.
    pub partitions: usize,
}

/// Fills an empty journal, and sets the group's positions to those of the ledgers.
///
/// # Errors
/// When the journal is not empty, the group has members, or something cannot be written.
pub fn import(config: &Config, ledgers: Vec<Ledger>, settings: Settings) -> Result<Imported, ImportError> {
    check_topics(config, &ledgers)?;
    let whole = merged(ledgers, settings)?;
    let positions = positions(&whole);
    let imported = Imported { tickets: whole.slot_count(), partitions: whole.partitions().len() };
    match config.journal.kind {
        JournalKind::None => return Err(ImportError::None),
        JournalKind::Sqlite => {
            let positions = positions.iter().filter(|(partition, _)| is_input(config, partition));
            let positions: Vec<_> = positions.cloned().collect();
            kafka::check_idle(&config.kafka)?;
            let mut journal = SqliteJournal::open(&config.journal.path)?;
            let id = journal.id().to_owned();
            let set_positions = || Ok::<_, ImportError>(kafka::set_positions(&config.kafka, &positions, &id)?);
            journal.fill(&whole, set_positions)?;
        }
        JournalKind::Kafka => {
            kafka::check_idle(&config.kafka)?;
            let (parts, positions) = parts(config, &whole, positions)?;
            kafka::fill(&config.kafka, &parts, &positions)?;
        }
    }
    Ok(imported)
}

fn check_topics(config: &Config, ledgers: &[Ledger]) -> Result<(), ImportError> {
    let topics = JournalTopics::new(&config.kafka);
    let known = |partition: &Partition| {
        let keyed = |input: &crate::config::Input| input.rekey && topics.keyed(&input.topic) == partition.topic;
        is_input(config, partition) || config.input.iter().any(keyed)
    };
    let states = ledgers.iter().flat_map(|ledger| ledger.partitions());
    match states.map(|state| &state.partition).find(|partition| !known(partition)) {
        Some(partition) => Err(ImportError::Topic(partition.topic.to_string())),
        None => Ok(()),
    }
}

fn is_input(config: &Config, partition: &Partition) -> bool {
    config.input.iter().any(|input| *input.topic == *partition.topic)
}

fn positions(ledger: &Ledger) -> Vec<(Partition, i64)> {
    let taken = ledger.partitions().iter().filter(|state| state.next_offset > 0);
    taken.map(|state| (state.partition.clone(), state.next_offset)).collect()
}

/// Ledgers by partition, and where the group goes on.
type Parts = (BTreeMap<Partition, Ledger>, Vec<(Partition, i64)>);

/// A ledger for each partition. What came by an input that is copied from now on goes to the partitions of its copy; the
/// group goes on where it was, and the copy begins there.
fn parts(config: &Config, whole: &Ledger, positions: Vec<(Partition, i64)>) -> Result<Parts, KafkaJournalError> {
    let keeper = TopicKeeper::new(&config.kafka)?;
    let topics = JournalTopics::new(&config.kafka);
    let mut parts = split(whole);
    for input in &config.input {
        let count = keeper.partitions(&input.topic)?;
        if !input.rekey {
            keeper.ensure_journal(&input.topic, usize::try_from(count).unwrap_or_default())?;
            continue;
        }
        let count = keeper.ensure_keyed(&input.topic)?;
        let keyed = topics.keyed(&input.topic);
        keeper.ensure_journal(&keyed, count)?;
        let (own, others): (BTreeMap<_, _>, _) =
            parts.into_iter().partition(|(partition, _)| *partition.topic == *input.topic);
        parts = others;
        let own = merged(own.into_values().collect(), whole.settings());
        if let Some(own) = own.ok().filter(|own| !own.partitions().is_empty()) {
            keeper.check_uncopied(&keyed)?;
            let count = i32::try_from(count).unwrap_or(i32::MAX);
            parts.extend(spread(&own, &keyed, count, |ticket| partition_of(ticket, count)));
        }
    }
    Ok((parts, positions))
}
