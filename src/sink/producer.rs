//! Records to Kafka, delivered before the call returns.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};

use crate::config::Kafka;
use crate::record::Partition;

/// How long to wait between two looks for delivery reports. Not by `flush`, which waits in steps of 100 ms, and not by a
/// `poll` that waits, which spins for the last millisecond.
const LOOK: Duration = Duration::from_micros(500);

/// How long brokers wait for the end of a transaction.
const TRANSACTION_TIMEOUT: &str = "transaction.timeout.ms";

/// Records that could not be delivered.
#[derive(Debug, thiserror::Error)]
#[error("{count} records could not be delivered: {cause}")]
pub struct DeliveryError {
    count: usize,
    cause: String,
    /// Bytes of key and value of the largest among them that are larger than their topic takes, if some are.
    pub too_large: Option<usize>,
}

/// Notes the failures among the delivery reports.
#[derive(Debug, Default)]
pub struct Reports {
    failures: Mutex<Option<DeliveryError>>,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let Err((error, message)) = result else { return };
        let topic = message.topic();
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                let length = message.key().map_or(0, <[u8]>::len) + message.payload_len();
                let cause =
                    format_args!("{topic}: a record of {length} bytes is more than the topic's max.message.bytes");
                self.note(cause, Some(length));
            }
            Some(RDKafkaErrorCode::MessageTimedOut) => {
                let way_out = "if that stays so, set a longer `\"transaction.timeout.ms\"` under `[kafka.librdkafka]`, or fewer \
                               `[batch] records`";
                self.note(format_args!("{topic}: no acknowledgement in time; {way_out}"), None);
            }
            _ => self.note(format_args!("{topic}: {error}"), None),
        }
    }
}

impl Reports {
    fn failures(&self) -> MutexGuard<'_, Option<DeliveryError>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, cause: impl std::fmt::Display, too_large: Option<usize>) {
        let mut failures = self.failures();
        let first = || DeliveryError { count: 0, cause: cause.to_string(), too_large };
        let error = failures.get_or_insert_with(first);
        error.count += 1;
        error.too_large = error.too_large.max(too_large);
    }
}

/// A producer for any topics.
pub struct Producer(Arc<BaseProducer<Reports>>);

/// One record to be produced.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition; by the key where there is none.
    pub partition: Option<i32>,
    /// Its time in milliseconds since 1970; that of sending where there is none.
    pub timestamp: Option<i64>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in order.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Outgoing {
    /// A record with a key and a value.
    pub fn new(topic: &Arc<str>, key: Vec<u8>, value: Vec<u8>) -> Self {
        Self {
            topic: topic.clone(),
            partition: None,
            timestamp: None,
            key: Some(key),
            value: Some(value),
            headers: Vec::new(),
        }
    }

    /// Bytes of key and value.
    pub fn length(&self) -> usize {
        [&self.key, &self.value].into_iter().flatten().map(Vec::len).sum()
    }
}

impl Producer {
    /// A producer with the connection settings of `[kafka]`.
    ///
    /// # Errors
    /// When librdkafka does not take the settings.
    pub fn new(kafka: &Kafka) -> Result<Self, KafkaError> {
        Self::with(kafka, &[])
    }

    /// A producer whose records belong to transactions of this id (KIP-98).
    ///
    /// # Errors
    /// When librdkafka does not take the settings.
    pub fn transactional(kafka: &Kafka, id: &str, timeout: Duration) -> Result<Self, KafkaError> {
        let set = kafka.librdkafka.get(TRANSACTION_TIMEOUT).and_then(|set| set.reveal().parse().ok());
        let timeout: u128 = set.unwrap_or(timeout.as_millis());
        // Shorter, so that records which nobody takes abort the transaction before the brokers do, and are the reason.
        let (timeout, message) = (timeout.to_string(), (timeout * 4 / 5).max(1).to_string());
        let own = [("transactional.id", id), (TRANSACTION_TIMEOUT, &timeout), ("message.timeout.ms", &message)];
        Self::with(kafka, &own)
    }

    fn with(kafka: &Kafka, own: &[(&str, &str)]) -> Result<Self, KafkaError> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &kafka.brokers)
            .set("enable.idempotence", "true")
            .set("delivery.report.only.error", "true")
            .set("queue.buffering.max.messages", "1000000")
            .set("compression.type", "lz4")
            // The topics say what they take.
            .set("message.max.bytes", "1000000000")
            .set("linger.ms", "2");
        own.iter().for_each(|(property, value)| _ = config.set(*property, *value));
        let passed = kafka.properties(&["transaction.", "compression."]);
        passed.for_each(|(property, value)| _ = config.set(property, value));
        Ok(Self(Arc::new(config.create_with_context(Reports::default())?)))
    }

    /// librdkafka's producer, for its transactions.
    pub fn client(&self) -> &Arc<BaseProducer<Reports>> {
        &self.0
    }

    /// Delivers all records, or says how many could not be.
    ///
    /// # Errors
    /// When a record was refused or not acknowledged in time; the others are delivered all the same.
    pub fn deliver<'a>(&self, records: impl IntoIterator<Item = &'a Outgoing>) -> Result<(), DeliveryError> {
        records.into_iter().for_each(|record| self.send(record));
        self.settle()
    }

    /// Waits until every record that was sent is acknowledged.
    ///
    /// # Errors
    /// When a record was refused or not acknowledged in time.
    pub fn settle(&self) -> Result<(), DeliveryError> {
        while self.0.in_flight_count() > 0 {
            self.look();
        }
        self.0.context().failures().take().map_or(Ok(()), Err)
    }

    /// Takes the delivery reports that are there, and waits a little for others.
    fn look(&self) {
        self.0.poll(Duration::ZERO);
        std::thread::park_timeout(LOOK);
    }

    /// Sends one record, waiting for room where there is none; what goes wrong with it is said by [`Producer::settle`].
    pub fn send(&self, record: &Outgoing) {
        self.produce(message(record));
    }

    /// Sends a key and a value to a partition, as [`Producer::send`] does.
    pub fn send_to(&self, partition: &Partition, key: &[u8], value: &[u8]) {
        self.produce(BaseRecord::to(&partition.topic).partition(partition.number).key(key).payload(value));
    }

    fn produce(&self, mut record: BaseRecord<'_, [u8], [u8]>) {
        loop {
            record = match self.0.send(record) {
                Ok(()) => return,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => refused,
                Err((error, refused)) => {
                    return self.0.context().note(format_args!("{}: {error}", refused.topic), None);
                }
            };
            self.look();
        }
    }
}

fn message(record: &Outgoing) -> BaseRecord<'_, [u8], [u8]> {
    let mut message = BaseRecord::to(&record.topic);
    if !record.headers.is_empty() {
        let headers = OwnedHeaders::new_with_capacity(record.headers.len());
        message = message.headers(record.headers.iter().fold(headers, |headers, (key, value)| {
            headers.insert(rdkafka::message::Header { key, value: Some(value) })
        }));
    }
    if let Some(partition) = record.partition {
        message = message.partition(partition);
    }
    if let Some(timestamp) = record.timestamp {
        message = message.timestamp(timestamp);
    }
    if let Some(key) = &record.key {
        message = message.key(key.as_slice());
    }
    if let Some(value) = &record.value {
        message = message.payload(value.as_slice());
    }
    message
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}
