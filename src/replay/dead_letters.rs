//! Dead letters that go back to the partitions they came from, each once.
//!
//! What is sent again and how far the letters are taken is one transaction: whoever runs this twice, or is killed in
//! between, sends none twice. The service takes them like any other record, and one that is refused again is a new dead
//! letter.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashSet;
use rdkafka::consumer::ConsumerGroupMetadata;
use serde::Serialize;

use crate::config::{Config, Kafka};
use crate::record::{Partition, Record};
use crate::sink::{Origin, Outgoing, Positions, Producer, Standalone, TransactionError, foreign_headers, is_cut};
use crate::source::kafka::{RangeReader, SourceError};

/// Letters that are sent again in one transaction.
const BATCH: usize = 1_000;
/// How long brokers wait for the end of a transaction.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The mark of the positions in the topic of dead letters.
const MARK: &str = "dead letters";

/// A dead letter, and whether it is the first of its record: a commit that is tried again writes all of its letters again.
type Letter = (Record, bool);

/// What became of dead letters.
#[derive(Debug, Default, Serialize)]
pub struct Resent {
    /// How many went back, by the partition of the input.
    pub sent: BTreeMap<String, u64>,
    /// How many were left: they come from no input of the configuration, or were too large for their topic to be whole.
    pub left: u64,
}

/// Why dead letters could not be sent again.
#[derive(Debug, thiserror::Error)]
pub enum ResendError {
    /// They cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// They cannot be sent.
    #[error(transparent)]
    Transaction(#[from] TransactionError),
}

/// Sends every dead letter of a topic that was not sent again before.
///
/// # Errors
/// When the topic cannot be read, or the letters cannot be sent; those before are sent.
pub fn resend(config: &Config, topic: &str) -> Result<Resent, ResendError> {
    // A group of its own, in which only the positions matter.
    let kafka = Kafka { group: format!("{}-dead-letters", config.kafka.group), ..config.kafka.clone() };
    // Whoever else does the same is fenced from here on.
    let producer = Producer::of_transactions(&kafka, &kafka.group, TIMEOUT)?;
    let group = Standalone::new(&kafka)?.group()?;
    let reader = RangeReader::committed(&kafka)?;
    let positions: BTreeMap<Partition, i64> = reader.positions(topic)?.into_iter().collect();
    let mut seen = HashSet::new();
    let mut resent = Resent::default();
    for partition in reader.partitions(topic)? {
        let (first, end) = reader.ends(&partition)?;
        let start = positions.get(&partition).copied().unwrap_or(first).max(first);
        let mut letters: Vec<Letter> = Vec::new();
        reader.read(&partition, start, end, |letter| {
            // The time as well: a topic that was made anew has the same offsets again.
            let record = Origin::written(&letter).zip(Some(letter.timestamp));
            let is_first = is_cut(&letter) || record.is_none_or(|record| seen.insert(record));
            letters.push((letter, is_first));
            true
        })?;
        for batch in letters.chunks(BATCH) {
            send(&producer, &group, config, batch, &mut resent)?;
        }
    }
    Ok(resent)
}

fn send(
    producer: &Producer,
    group: &Arc<ConsumerGroupMetadata>,
    config: &Config,
    letters: &[Letter],
    resent: &mut Resent,
) -> Result<(), ResendError> {
    let Some((last, _)) = letters.last() else { return Ok(()) };
    let first: Vec<&Record> = letters.iter().filter(|(_, is_first)| *is_first).map(|(letter, _)| letter).collect();
    let records: Vec<(Partition, Outgoing)> = first.iter().filter_map(|letter| original(letter, config)).collect();
    let offsets = [(last.partition.clone(), last.offset + 1)];
    producer.transact(&Positions { group: group.clone(), offsets: &offsets, journal: MARK }, || {
        records.iter().for_each(|(_, record)| producer.send(record));
        Ok::<_, ResendError>(())
    })?;
    resent.left += (first.len() - records.len()) as u64;
    records.iter().for_each(|(partition, _)| *resent.sent.entry(partition.to_string()).or_default() += 1);
    Ok(())
}

/// The record as it came, for the partition it came by; `None` where that is no input, or the letter is without its record.
fn original(letter: &Record, config: &Config) -> Option<(Partition, Outgoing)> {
    if is_cut(letter) {
        return None;
    }
    let Origin { partition, .. } = Origin::written(letter)?;
    config.input.iter().find(|input| *input.topic == *partition.topic)?;
    let record = Outgoing {
        topic: partition.topic.clone(),
        partition: Some(partition.number),
        timestamp: None,
        key: letter.key.clone(),
        value: letter.value.clone(),
        headers: foreign_headers(letter).cloned().collect(),
    };
    Some((partition, record))
}

impl fmt::Display for Resent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (partition, count) in &self.sent {
            writeln!(f, "{partition}: {count} dead letters sent again")?;
        }
        if self.sent.is_empty() {
            writeln!(f, "no dead letters that were not sent again before")?;
        }
        if self.left > 0 {
            let reasons = "they do not come from an input of the configuration, or are without their record";
            writeln!(f, "{} left where they are: {reasons}", self.left)?;
        }
        Ok(())
    }
}
