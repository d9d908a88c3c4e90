//! Writes whole ledgers into the journal's topics, for a group that nobody reads with.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer};

use super::{CLAIM, JournalTopics, KafkaJournalError};
use crate::config::Kafka;
use crate::journal::codec::CodecError;
use crate::journal::entry;
use crate::ledger::Ledger;
use crate::record::Partition;
use crate::sink::{Positions, Producer, REQUEST_TIMEOUT, Standalone, TransactionError, marked};
use crate::source::kafka::RangeReader;

/// How long the whole may take: the most that brokers allow by default.
const TIMEOUT: Duration = Duration::from_mins(15);

/// Makes sure that no instance reads with the group.
///
/// # Errors
/// When one does, or the brokers do not say.
pub fn check_idle(kafka: &Kafka) -> Result<(), KafkaJournalError> {
    let groups = Standalone::new(kafka)?.consumer().fetch_group_list(Some(&kafka.group), REQUEST_TIMEOUT);
    let groups = groups.map_err(TransactionError::aborted)?;
    let members = groups.groups().iter().map(|group| group.members().len()).sum();
    match members {
        0 => Ok(()),
        members => Err(KafkaJournalError::GroupInUse { group: kafka.group.clone(), members }),
    }
}

/// Sets the group's positions, with the mark of a journal.
///
/// # Errors
/// When the brokers refuse, as they do while an instance reads with the group.
pub fn set_positions(kafka: &Kafka, positions: &[(Partition, i64)], journal: &str) -> Result<(), KafkaJournalError> {
    if positions.is_empty() {
        return Ok(());
    }
    let list = marked(positions, journal).map_err(TransactionError::aborted)?;
    Ok(Standalone::new(kafka)?.consumer().commit(&list, CommitMode::Sync).map_err(TransactionError::aborted)?)
}

/// Writes the ledgers of partitions into their journals, which must be empty, and sets the group's positions, all in one
/// transaction.
///
/// # Errors
/// When a journal is not empty, or something cannot be written; nothing is then.
pub fn fill(
    kafka: &Kafka,
    ledgers: &BTreeMap<Partition, Ledger>,
    positions: &[(Partition, i64)],
) -> Result<(), KafkaJournalError> {
    let topics = JournalTopics::new(kafka);
    let reader = RangeReader::committed(kafka)?;
    for partition in ledgers.keys() {
        let journal = topics.beside(partition);
        let (start, end) = reader.ends(&journal)?;
        if start < end {
            return Err(KafkaJournalError::Occupied { journal });
        }
    }
    let producer = Producer::of_transactions(kafka, &format!("{}-import", kafka.group), TIMEOUT)?;
    let group = Standalone::new(kafka)?.group()?;
    let positions = Positions { group, offsets: positions, journal: CLAIM };
    producer.transact(&positions, || write(&producer, &topics, ledgers))
}

fn write(
    producer: &Producer,
    topics: &JournalTopics,
    ledgers: &BTreeMap<Partition, Ledger>,
) -> Result<(), KafkaJournalError> {
    for (partition, ledger) in ledgers {
        let journal = topics.beside(partition);
        entry::all(ledger, |entry| {
            producer.send_to(&journal, entry.key, entry.value);
            Ok::<_, CodecError>(())
        })?;
    }
    Ok(())
}
