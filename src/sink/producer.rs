//! Records to Kafka, delivered before the call returns.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};

use crate::config::Kafka;

/// How long one look for delivery reports waits; `flush` would wait in steps of 100 ms.
const POLL: Duration = Duration::from_millis(1);

/// Records that could not be delivered.
#[derive(Debug, thiserror::Error)]
#[error("{count} records for the topic `{topic}` could not be delivered: {cause}")]
pub struct DeliveryError {
    topic: String,
    count: usize,
    cause: String,
}

/// Notes the failures among the delivery reports.
#[derive(Debug, Default)]
struct Reports {
    failures: Mutex<Vec<String>>,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(error.to_string());
        }
    }
}

/// A producer for one topic.
pub struct Producer {
    producer: BaseProducer<Reports>,
    topic: String,
}

/// One record to be produced.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// The key, which decides the partition.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in order.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Producer {
    /// A producer for a topic, with the connection settings of `[kafka]`.
    ///
    /// # Errors
    /// When librdkafka does not take the settings.
    pub fn new(kafka: &Kafka, topic: &str) -> Result<Self, KafkaError> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &kafka.brokers).set("enable.idempotence", "true").set("linger.ms", "5");
        let connection = ["security.", "ssl.", "sasl.", "socket.", "broker.", "client."];
        for (property, value) in &kafka.librdkafka {
            if connection.iter().any(|prefix| property.starts_with(prefix)) {
                config.set(property, value.reveal());
            }
        }
        Ok(Self { producer: config.create_with_context(Reports::default())?, topic: topic.to_owned() })
    }

    /// Delivers all records, or says how many could not be.
    ///
    /// # Errors
    /// When a record was refused or not acknowledged in time; the others are delivered all the same.
    pub fn deliver(&self, records: &[Outgoing]) -> Result<(), DeliveryError> {
        for record in records {
            self.send(record);
        }
        while self.producer.in_flight_count() > 0 {
            self.producer.poll(POLL);
        }
        let failures = std::mem::take(&mut *self.failures());
        match failures.first() {
            None => Ok(()),
            Some(cause) => {
                Err(DeliveryError { topic: self.topic.clone(), count: failures.len(), cause: cause.clone() })
            }
        }
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.producer.context().failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, record: &Outgoing) {
        loop {
            match self.producer.send(self.message(record)) {
                Ok(()) => return,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    self.producer.poll(POLL);
                }
                Err((error, _)) => {
                    self.failures().push(error.to_string());
                    return;
                }
            }
        }
    }

    fn message<'a>(&'a self, record: &'a Outgoing) -> BaseRecord<'a, [u8], [u8]> {
        let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(rdkafka::message::Header { key, value: Some(value) })
        });
        let mut message = BaseRecord::to(&self.topic).headers(headers);
        if let Some(key) = &record.key {
            message = message.key(key.as_slice());
        }
        if let Some(value) = &record.value {
            message = message.payload(value.as_slice());
        }
        message
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("topic", &self.topic).finish_non_exhaustive()
    }
}
