//! Single partitions from their beginning up to a position, without joining a group or committing anything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::{Counted, IDLE, REQUEST_TIMEOUT, SourceError, ends_of, list_of, own, partitions_of, position_of};
use crate::config::Kafka;
use crate::record::{Partition, Record};

/// A consumer that reads what is there, as often as it is asked.
pub struct RangeReader {
    consumer: BaseConsumer<Quiet>,
    brokers: String,
}

/// Leaves it to the reader to say what goes wrong: an end that was reached is no error.
struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "Kafka");
    }
}

impl ConsumerContext for Quiet {}

impl RangeReader {
    /// A reader of inputs: to it those records count that the user has count.
    ///
    /// # Errors
    /// When librdkafka does not take the settings.
    pub fn new(kafka: &Kafka) -> Result<Self, SourceError> {
        Self::with(kafka, &[])
    }

    /// A reader to whom the records of transactions count that were committed.
    ///
    /// # Errors
    /// When librdkafka does not take the settings.
    pub fn committed(kafka: &Kafka) -> Result<Self, SourceError> {
        Self::with(kafka, &[("isolation.level", "read_committed")])
    }

    /// A reader to whom the records of transactions count that have not ended.
    ///
    /// # Errors
    /// When librdkafka does not take the settings.
    pub fn uncommitted(kafka: &Kafka) -> Result<Self, SourceError> {
        Self::with(kafka, &[("isolation.level", "read_uncommitted")])
    }

    fn with(kafka: &Kafka, own: &[(&str, &str)]) -> Result<Self, SourceError> {
        let mut config = client_config(kafka);
        own.iter().for_each(|(property, value)| _ = config.set(*property, *value));
        let consumer = config.create_with_context(Quiet).map_err(|e| SourceError::Settings(e.to_string()))?;
        Ok(Self { consumer, brokers: kafka.brokers.clone() })
    }

    /// The first offset that a partition still holds, and the one behind the last.
    ///
    /// # Errors
    /// When the brokers do not say.
    pub fn ends(&self, partition: &Partition) -> Result<(i64, i64), SourceError> {
        ends_of(self.consumer.client(), partition).map_err(|error| self.unreadable(partition, error.to_string()))
    }

    /// The first offset that a partition still holds.
    ///
    /// # Errors
    /// When the brokers do not say, or the partition ends before `position`.
    pub fn start(&self, partition: &Partition, position: i64) -> Result<i64, SourceError> {
        let (start, end) = self.ends(partition)?;
        match position > end {
            true => Err(SourceError::AheadOfTopic { partition: partition.clone(), end, position }),
            false => Ok(start),
        }
    }

    /// Makes sure that the record before the position is one that was counted, as far as its time can tell; it may be gone.
    /// `ends` are those of the partition.
    ///
    /// # Errors
    /// When it is not, or the brokers do not say.
    pub fn check_counted(&self, partition: &Partition, counted: Counted, ends: (i64, i64)) -> Result<(), SourceError> {
        let Counted { position, newest } = counted;
        let (start, end) = ends;
        let Ok(newest) = Timestamp::from_millisecond(newest) else { return Ok(()) };
        if !(start..end).contains(&(position - 1)) {
            return Ok(());
        }
        let mut time = None;
        self.read(partition, position - 1, position, |record| {
            time = record.timestamp;
            false
        })?;
        match time.and_then(|time| Timestamp::from_millisecond(time).ok()).filter(|found| *found > newest) {
            None => Ok(()),
            Some(found) => Err(SourceError::OtherRecords { partition: partition.clone(), position, newest, found }),
        }
    }

    /// All partitions of a topic.
    ///
    /// # Errors
    /// When it is not there, or the brokers do not say.
    pub fn partitions(&self, topic: &str) -> Result<Vec<Partition>, SourceError> {
        let name: Arc<str> = topic.into();
        let trouble = |cause| self.unreadable(&Partition { topic: name.clone(), number: 0 }, cause);
        let mut all = partitions_of(self.consumer.client(), &name).map_err(|error| trouble(error.to_string()))?;
        all.sort();
        if all.is_empty() { Err(trouble("it does not exist".to_owned())) } else { Ok(all) }
    }

    /// The group's position in each partition of a topic in which it has one.
    ///
    /// # Errors
    /// When the brokers do not say.
    pub fn positions(&self, topic: &str) -> Result<Vec<(Partition, i64)>, SourceError> {
        let partitions = self.partitions(topic)?;
        let name: Arc<str> = topic.into();
        let committed = self
            .group_positions(&partitions)
            .map_err(|error| self.unreadable(&Partition { topic: name.clone(), number: 0 }, error.to_string()))?;
        let position = |element: TopicPartitionListElem<'_>| match element.offset() {
            Offset::Offset(offset) => Some((Partition { topic: name.clone(), number: element.partition() }, offset)),
            _ => None,
        };
        Ok(committed.elements().into_iter().filter_map(position).collect())
    }

    /// The group's position in a partition, if it has one. Of a reader to whom only transactions count that have ended, the
    /// answer waits for those that would change it.
    ///
    /// # Errors
    /// When the brokers do not say.
    pub fn position(&self, partition: &Partition) -> Result<Option<i64>, SourceError> {
        position_of(&self.consumer, partition).map_err(|error| self.unreadable(partition, error.to_string()))
    }

    /// The group's positions in these partitions, with what was noted beside them.
    pub(super) fn group_positions(&self, partitions: &[Partition]) -> KafkaResult<TopicPartitionList> {
        self.consumer.committed_offsets(list_of(partitions), REQUEST_TIMEOUT)
    }

    /// Shows every committed record of a partition from `start` on whose offset is below `position`, for as long as
    /// `see` wants more.
    ///
    /// # Errors
    /// When the brokers give nothing more for as long as a request may take.
    pub fn read(
        &self,
        partition: &Partition,
        start: i64,
        position: i64,
        mut see: impl FnMut(Record) -> bool,
    ) -> Result<(), SourceError> {
        if start >= position {
            return Ok(());
        }
        self.assign(partition, start).map_err(|error| self.unreadable(partition, error.to_string()))?;
        let mut topics = hashbrown::HashMap::new();
        let mut trouble = format!("no answer within {} s", REQUEST_TIMEOUT.as_secs());
        let mut deadline = Instant::now() + REQUEST_TIMEOUT;
        let (mut next, mut ended) = (start, false);
        while Instant::now() < deadline {
            match self.consumer.poll(Duration::ZERO) {
                None => std::thread::park_timeout(IDLE / 5),
                // The offsets below the position that were not seen are those of transactions.
                Some(Err(KafkaError::PartitionEOF(_))) if ended => return Ok(()),
                // Or the leader has just changed and does not know yet how far all have come; it says no end before it does
                // (KIP-207).
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.ends(partition)?;
                    self.assign(partition, next).map_err(|error| self.unreadable(partition, error.to_string()))?;
                    ended = true;
                }
                Some(Err(error)) => trouble = error.to_string(),
                Some(Ok(message)) if message.offset() >= position => return Ok(()),
                Some(Ok(message)) => {
                    if !see(own(&message, &mut topics)) || message.offset() + 1 == position {
                        return Ok(());
                    }
                    (next, ended) = (message.offset() + 1, false);
                    deadline = Instant::now() + REQUEST_TIMEOUT;
                }
            }
        }
        Err(self.unreadable(partition, trouble))
    }

    fn assign(&self, partition: &Partition, start: i64) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&partition.topic, partition.number, Offset::Offset(start))?;
        self.consumer.assign(&list)
    }

    fn unreadable(&self, partition: &Partition, cause: String) -> SourceError {
        SourceError::Unreadable { partition: partition.clone(), brokers: self.brokers.clone(), cause }
    }
}

/// What the user sets, such as TLS and the isolation level, and above it what keeps the reader from leaving traces.
fn client_config(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("isolation.level", "read_committed")
        .set("fetch.queue.backoff.ms", "5")
        // How long brokers wait for more at the end, where none is waited for.
        .set("fetch.wait.max.ms", "10")
        .set("queued.max.messages.kbytes", "32768");
    for (property, value) in &kafka.librdkafka {
        config.set(property, value.reveal());
    }
    config.remove("group.instance.id");
    // A follower may be behind the end that the leader gave, and would be read as if nothing came after its own.
    config.remove("client.rack");
    config
        .set("bootstrap.servers", &kafka.brokers)
        // Named for the brokers' access rules only: partitions are assigned here, so nothing is joined.
        .set("group.id", &kafka.group)
        .set("client.id", format!("customer-reach-audit-{}", std::process::id()))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .set("allow.auto.create.topics", "false");
    config
}
