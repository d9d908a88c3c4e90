//! Records and positions that are committed together or not at all (KIP-98, KIP-447).

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaError};
use rdkafka::producer::Producer as _;
use rdkafka::{Offset, TopicPartitionList};

use super::producer::{DeliveryError, Producer};
use crate::config::Kafka;
use crate::record::Partition;
use crate::source::kafka::{claim, partitions_of};

/// How long one request of a transaction may take before it is looked at again.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request is made again where librdkafka says that this may help.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long to wait before that, for librdkafka may refuse at once.
const PAUSE: Duration = Duration::from_millis(50);

/// Why a transaction did not come about.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// librdkafka does not take the settings.
    #[error("the Kafka settings are not accepted: {0}; see `[kafka]` and `[kafka.librdkafka]`")]
    Settings(String),
    /// It was aborted, and nothing of it is written; it can be tried again.
    #[error("the transaction was aborted: {0}")]
    Aborted(String),
    /// It was aborted, since records could not be delivered.
    #[error("the transaction was aborted: {0}")]
    Undelivered(#[from] DeliveryError),
    /// It is not known whether it was committed, or another process took this one's place. The producer is of no use any
    /// more.
    #[error("the transaction's end is not known: {0}")]
    Lost(String),
}

impl TransactionError {
    /// Aborted, with the reason.
    pub fn aborted(reason: impl ToString) -> Self {
        Self::Aborted(reason.to_string())
    }

    fn of(error: &KafkaError) -> Self {
        match transaction_error(error).is_some_and(RDKafkaError::is_fatal) {
            true => Self::Lost(error.to_string()),
            false => Self::aborted(error),
        }
    }
}

/// The positions of a group that go with a transaction.
pub struct Positions<'a> {
    /// Who sets them; brokers refuse a member that has lost its partitions.
    pub group: Arc<ConsumerGroupMetadata>,
    /// The offset of the next record to take.
    pub offsets: &'a [(Partition, i64)],
    /// The mark of the journal that they belong to.
    pub journal: &'a str,
}

impl Producer {
    /// A producer whose records belong to transactions of this id. What an earlier one of the same id left open has ended
    /// when this returns, and that one can do nothing more.
    ///
    /// # Errors
    /// When librdkafka does not take the settings, or the brokers do not answer in time.
    pub fn of_transactions(kafka: &Kafka, id: &str, timeout: Duration) -> Result<Self, TransactionError> {
        let producer =
            Self::transactional(kafka, id, timeout).map_err(|error| TransactionError::Settings(error.to_string()))?;
        producer.client().init_transactions(REQUEST_TIMEOUT).map_err(TransactionError::aborted)?;
        Ok(producer)
    }

    /// Commits what `send` sends, and the positions, in one transaction. Everything is acknowledged before the positions
    /// are sent: where they are taken, all records stand before the end that whoever takes over reads to.
    ///
    /// # Errors
    /// When the transaction was aborted, or its end is not known.
    pub fn transact<E: From<TransactionError> + Display>(
        &self,
        positions: &Positions<'_>,
        send: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        // It only fails where the one before has not ended.
        self.client().begin_transaction().map_err(|error| TransactionError::Lost(error.to_string()))?;
        let error = match send().and_then(|()| Ok(self.settle().map_err(TransactionError::from)?)) {
            Ok(()) => match self.send_positions(positions) {
                Ok(()) => return Ok(self.end()?),
                Err(lost @ TransactionError::Lost(_)) => return Err(lost.into()),
                Err(error) => error.into(),
            },
            Err(error) => error,
        };
        match self.abort() {
            Ok(()) => Err(error),
            Err(failed) => Err(TransactionError::Lost(format!("{error}; {failed}")).into()),
        }
    }

    /// Begins a transaction with an empty record in each of these partitions and with positions of the group, and aborts
    /// it: brokers end with it, in the partitions and among the group's positions, what stands before it under the same id.
    ///
    /// # Errors
    /// When that fails.
    pub fn abort_with(&self, partitions: &[Partition], positions: &Positions<'_>) -> Result<(), TransactionError> {
        self.client().begin_transaction().map_err(|error| TransactionError::Lost(error.to_string()))?;
        partitions.iter().for_each(|partition| self.send_to(partition, &[], &[]));
        let sent = self.settle().map_err(TransactionError::from).and_then(|()| self.send_positions(positions));
        if !matches!(sent, Err(TransactionError::Lost(_))) {
            self.abort()?;
        }
        sent
    }

    fn send_positions(&self, positions: &Positions<'_>) -> Result<(), TransactionError> {
        let offsets = marked(positions.offsets, positions.journal).map_err(TransactionError::aborted)?;
        if offsets.count() == 0 {
            return Ok(());
        }
        let (client, group) = (self.client().clone(), positions.group.clone());
        let sent = within(REQUEST_TIMEOUT, move || {
            retried(|| client.send_offsets_to_transaction(&offsets, &group, REQUEST_TIMEOUT))
        });
        match sent {
            Some(sent) => sent.map_err(|error| TransactionError::of(&error)),
            None => Err(TransactionError::Lost("the group's coordinator does not answer".to_owned())),
        }
    }

    fn end(&self) -> Result<(), TransactionError> {
        match retried(|| self.client().commit_transaction(REQUEST_TIMEOUT)) {
            Ok(()) => Ok(()),
            Err(error) if transaction_error(&error).is_some_and(RDKafkaError::txn_requires_abort) => {
                self.abort()?;
                Err(TransactionError::aborted(error))
            }
            Err(error) => Err(TransactionError::Lost(error.to_string())),
        }
    }

    fn abort(&self) -> Result<(), TransactionError> {
        let aborted = retried(|| self.client().abort_transaction(REQUEST_TIMEOUT));
        // What belongs to it fails with it, and that is no news.
        self.settle().unwrap_or_default();
        aborted.map_err(|error| TransactionError::Lost(error.to_string()))
    }
}

/// The positions with the mark of a journal.
///
/// # Errors
/// When librdkafka does not take one.
pub fn marked(positions: &[(Partition, i64)], journal: &str) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    for (partition, position) in positions {
        let mut element = list.add_partition(&partition.topic, partition.number);
        element.set_metadata(claim(journal));
        element.set_offset(Offset::Offset(*position))?;
    }
    Ok(list)
}

/// A consumer that never joins its group. It asks for topics without having brokers make them, as a producer does that asks.
pub struct Standalone(BaseConsumer);

impl Standalone {
    /// A consumer of `[kafka] group`.
    ///
    /// # Errors
    /// When librdkafka does not take the settings.
    pub fn new(kafka: &Kafka) -> Result<Self, TransactionError> {
        let mut config = ClientConfig::new();
        kafka.properties(&[]).for_each(|(property, value)| _ = config.set(property, value));
        let consumer = config
            .set("bootstrap.servers", &kafka.brokers)
            .set("group.id", &kafka.group)
            .set("enable.auto.commit", "false")
            .create();
        consumer.map(Self).map_err(|error: KafkaError| TransactionError::Settings(error.to_string()))
    }

    /// librdkafka's consumer.
    pub fn consumer(&self) -> &BaseConsumer {
        &self.0
    }

    /// The group as one names it who is no member of it, to set positions in a transaction.
    ///
    /// # Errors
    /// When librdkafka gives nothing.
    pub fn group(&self) -> Result<Arc<ConsumerGroupMetadata>, TransactionError> {
        self.0.group_metadata().map(Arc::new).ok_or_else(|| TransactionError::aborted("a consumer without a group"))
    }

    /// A topic's partitions; none where it does not exist.
    ///
    /// # Errors
    /// When the brokers do not say.
    pub fn partitions_of(&self, topic: &Arc<str>) -> Result<Vec<Partition>, KafkaError> {
        // What librdkafka has to say of connections is kept until it is taken.
        while self.0.poll(Duration::ZERO).is_some() {}
        partitions_of(self.0.client(), topic)
    }
}

impl std::fmt::Debug for Standalone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Standalone").finish_non_exhaustive()
    }
}

/// Makes a request again for as long as librdkafka says that this may help, but not for ever.
fn retried(mut request: impl FnMut() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    let end = Instant::now() + PATIENCE;
    loop {
        match request() {
            Err(error) if transaction_error(&error).is_some_and(RDKafkaError::is_retriable) && Instant::now() < end => {
                std::thread::park_timeout(PAUSE);
            }
            other => return other,
        }
    }
}

/// The answer of a request, if it comes in time; the request is left to itself otherwise. librdkafka waits without end, and
/// whatever timeout it is given, for a coordinator that died with a request under way
/// (<https://github.com/confluentinc/librdkafka/issues/5456>).
fn within<T: Send + 'static>(limit: Duration, request: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, answer) = crossbeam_channel::bounded(1);
    std::thread::Builder::new().name("transaction".into()).spawn(move || sender.send(request())).ok()?;
    answer.recv_timeout(limit).ok()
}

fn transaction_error(error: &KafkaError) -> Option<&RDKafkaError> {
    match error {
        KafkaError::Transaction(error) => Some(error),
        _ => None,
    }
}
