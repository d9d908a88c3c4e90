//! Writes whole ledgers into the journal's topics, for a group that nobody reads with.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::Producer as _;

use super::{
    CLAIM, JournalTopics, KafkaJournalError, REQUEST_TIMEOUT, aborted, failed, marked_offsets, retried, undelivered,
};
use crate::config::Kafka;
use crate::journal::codec::CodecError;
use crate::journal::entry;
use crate::ledger::Ledger;
use crate::record::Partition;
use crate::sink::{Outgoing, Producer};
use crate::source::kafka::RangeReader;

/// How long the whole may take: the most that brokers allow by default.
const TIMEOUT: Duration = Duration::from_mins(15);

/// Makes sure that no instance reads with the group.
///
/// # Errors
/// When one does, or the brokers do not say.
pub fn check_idle(kafka: &Kafka) -> Result<(), KafkaJournalError> {
    let consumer = consumer(kafka)?;
    let groups = consumer.fetch_group_list(Some(&kafka.group), REQUEST_TIMEOUT).map_err(|error| aborted(&error))?;
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
    let list = marked_offsets(positions, journal)?;
    consumer(kafka)?.commit(&list, CommitMode::Sync).map_err(|error| aborted(&error))
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
    let reader = RangeReader::new(kafka)?;
    for partition in ledgers.keys() {
        let journal = Partition { topic: topics.of(&partition.topic), number: partition.number };
        let (start, end) = reader.ends(&journal)?;
        if start < end {
            return Err(KafkaJournalError::Occupied { journal });
        }
    }
    let settings = |error: KafkaError| KafkaJournalError::Settings(error.to_string());
    let producer = Producer::transactional(kafka, &format!("{}-import", kafka.group), TIMEOUT).map_err(settings)?;
    let client = producer.client();
    retried(|| client.init_transactions(REQUEST_TIMEOUT)).map_err(|error| aborted(&error))?;
    client.begin_transaction().map_err(|error| failed(&error))?;
    let written = write(&producer, &topics, ledgers).and_then(|()| {
        let consumer = consumer(kafka)?;
        let group = consumer.group_metadata().ok_or(KafkaJournalError::NoMember)?;
        let offsets = marked_offsets(positions, CLAIM)?;
        if positions.is_empty() {
            return Ok(());
        }
        retried(|| client.send_offsets_to_transaction(&offsets, &group, REQUEST_TIMEOUT)).map_err(|e| failed(&e))
    });
    match written {
        Ok(()) => retried(|| client.commit_transaction(REQUEST_TIMEOUT)).map_err(|error| aborted(&error)),
        Err(error) => {
            retried(|| client.abort_transaction(REQUEST_TIMEOUT)).map_err(|error| aborted(&error))?;
            Err(error)
        }
    }
}

fn write(
    producer: &Producer,
    topics: &JournalTopics,
    ledgers: &BTreeMap<Partition, Ledger>,
) -> Result<(), KafkaJournalError> {
    for (partition, ledger) in ledgers {
        let topic = topics.of(&partition.topic);
        entry::all(ledger, |key, value| {
            let record = Outgoing { partition: Some(partition.number), ..Outgoing::new(&topic, key.to_bytes(), value) };
            producer.send(&record);
            Ok::<_, CodecError>(())
        })?;
    }
    producer.settle().map_err(|error| undelivered(&error))
}

/// A consumer that never joins the group.
fn consumer(kafka: &Kafka) -> Result<BaseConsumer, KafkaJournalError> {
    let mut config = ClientConfig::new();
    for (property, value) in &kafka.librdkafka {
        config.set(property, value.reveal());
    }
    config.remove("group.instance.id");
    config
        .set("bootstrap.servers", &kafka.brokers)
        .set("group.id", &kafka.group)
        .set("enable.auto.commit", "false")
        .create()
        .map_err(|error: KafkaError| KafkaJournalError::Settings(error.to_string()))
}
