//! The journal that moves with its partitions: a compacted topic beside each input, with as many partitions.
//!
//! A commit is one Kafka transaction (KIP-98, KIP-447): the entries that changed, tagged tickets, dead letters, and the
//! group's offsets. The order in it matters. Everything is acknowledged before the offsets are sent, and the offsets carry
//! the generation of the group in which the partitions were assigned: brokers refuse them from a member that has lost its
//! partitions, and where they were taken, all entries stand before the end that the next owner reads to.

mod restore;
pub mod topics;

use std::path::Path;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use rdkafka::error::{KafkaError, RDKafkaError};
use rdkafka::producer::Producer as _;
use rdkafka::{Offset, TopicPartitionList};

pub use restore::{Restored, Restorer, snapshot};
pub use topics::{JournalTopics, TopicError, TopicKeeper};

use super::Commit;
use super::codec::CodecError;
use super::entry::{Damage, Written};
use crate::config::{Config, Kafka};
use crate::ledger::Ledger;
use crate::record::Partition;
use crate::sink::{DeliveryError, Outgoing, Producer};
use crate::source::kafka::{Membership, SourceError};

/// How long one request of a transaction may take before it is looked at again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long brokers wait for the end of a transaction before they abort it. A batch takes far less; whoever takes over
/// from an instance that was killed waits this long, and up to 10 s more for the brokers to look.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// The file that names the instance, and that it locks.
const INSTANCE: &str = "instance";
/// What the group's positions say of who committed them.
pub const CLAIM: &str = "kafka";

/// What goes wrong with the journal's topics.
#[derive(Debug, thiserror::Error)]
pub enum KafkaJournalError {
    /// The transaction was aborted, and nothing of it is written; it can be tried again.
    #[error("the transaction was aborted: {0}")]
    Aborted(String),
    /// It is not known whether the transaction was committed, or another process took this one's place.
    #[error("the transaction's end is not known: {0}; everything is read back from the journal")]
    Lost(String),
    /// This process owns no partitions at the moment.
    #[error("this instance is not a member of the consumer group at the moment")]
    NoMember,
    /// librdkafka does not take the settings.
    #[error("the Kafka settings are not accepted: {0}; see `[kafka]` and `[kafka.librdkafka]`")]
    Settings(String),
    /// A topic is not as it must be.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// An entry is damaged or missing.
    #[error(
        "the journal {journal} is damaged and is not used: {damage}; delete the topic and the group's offsets to count anew \
         from the start of `{input}`, or fill it from an export with `customer-reach journal import`"
    )]
    Damaged {
        /// The journal's partition.
        journal: Partition,
        /// The input.
        input: String,
        /// What is wrong.
        damage: Damage,
    },
    /// A transaction is open for longer than any may be.
    #[error(
        "a transaction in {journal} has not ended within {seconds} s; brokers can lose its end when they are killed. If it \
         stays so:\n  kafka-transactions.sh --bootstrap-server {brokers} abort --topic {topic} --partition {number} \
         --start-offset {offset}",
        topic = journal.topic, number = journal.number
    )]
    Hanging {
        /// The journal's partition.
        journal: Partition,
        /// The brokers.
        brokers: String,
        /// Where it begins, at the latest.
        offset: i64,
        /// How long it was waited for.
        seconds: u64,
    },
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] SourceError),
    /// The folder that names this instance.
    #[error("the folder {path} cannot be used: {cause}; give a folder that this user may write as `[journal] path`")]
    Folder {
        /// The folder.
        path: String,
        /// The system's answer.
        cause: std::io::Error,
    },
    /// Another process runs as this instance.
    #[error(
        "the folder {path} is in use by another instance; give each instance on this machine a folder of its own as \
         `[journal] path`"
    )]
    InUse {
        /// The folder.
        path: String,
    },
    /// A value that cannot be written.
    #[error("an entry cannot be encoded: {0}")]
    Encode(#[from] CodecError),
}

impl KafkaJournalError {
    /// Whether it is not known what is committed.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost(_))
    }
}

/// Which instance this process is: the same after a restart in the same folder, so that it takes its partitions back
/// at once (KIP-345), and no other at the same time.
#[derive(Debug)]
pub struct Instance {
    /// Random, made with the folder.
    pub id: String,
    /// Held for as long as the process runs.
    _lock: std::fs::File,
}

impl Instance {
    /// The instance of a folder, which is made if need be.
    ///
    /// # Errors
    /// When the folder cannot be used, or another process runs as this instance.
    pub fn of(folder: &Path) -> Result<Self, KafkaJournalError> {
        let path = folder.display().to_string();
        let folder_error = |cause| KafkaJournalError::Folder { path: path.clone(), cause };
        let lock = super::lock(folder, &format!("{INSTANCE}.lock")).map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => KafkaJournalError::InUse { path: path.clone() },
            std::fs::TryLockError::Error(cause) => folder_error(cause),
        })?;
        let file = folder.join(INSTANCE);
        let id = match std::fs::read_to_string(&file) {
            Ok(id) if !id.trim().is_empty() => id.trim().to_owned(),
            _ => {
                let id = format!("{:016x}", random());
                std::fs::write(&file, &id).map_err(folder_error)?;
                id
            }
        };
        Ok(Self { id, _lock: lock })
    }
}

/// From the seeds that the standard library takes from the system.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

/// The journal as one instance writes it.
#[derive(Debug)]
pub struct KafkaJournal {
    kafka: Kafka,
    instance: Instance,
    topics: JournalTopics,
    membership: Membership,
    /// Made when it is first needed, and anew after an error from which it cannot recover.
    producer: Option<Producer>,
    written: HashMap<Partition, Written>,
}

impl KafkaJournal {
    /// A journal in topics that are there; `membership` is kept up to date by whoever lets partitions go.
    pub fn new(kafka: Kafka, instance: Instance, topics: JournalTopics, membership: Membership) -> Self {
        Self { kafka, instance, topics, membership, producer: None, written: HashMap::new() }
    }

    /// Takes notice of what is written of a partition.
    pub fn take_over(&mut self, partition: &Partition, ledger: &Ledger) {
        self.written.insert(partition.clone(), Written::all(ledger));
    }

    /// Connects, and ends what an earlier process left open under this instance's name.
    ///
    /// # Errors
    /// When the brokers do not answer in time; it can be tried again.
    pub fn connect(&mut self) -> Result<(), KafkaJournalError> {
        if self.producer.is_some() {
            return Ok(());
        }
        let id = format!("{}-{}", self.kafka.group, self.instance.id);
        let producer = Producer::transactional(&self.kafka, &id, TRANSACTION_TIMEOUT)
            .map_err(|error| KafkaJournalError::Settings(error.to_string()))?;
        producer.client().init_transactions(REQUEST_TIMEOUT).map_err(|error| aborted(&error))?;
        self.producer = Some(producer);
        Ok(())
    }

    /// Ends a transaction of an earlier process of this instance whose end the brokers have lost: they take the end of a
    /// later one for it. Nothing of either counts.
    ///
    /// # Errors
    /// When that fails; it can be tried again.
    pub fn end_hanging(&mut self, partition: &Partition) -> Result<(), KafkaJournalError> {
        self.connect()?;
        let Some(producer) = &self.producer else { return Ok(()) };
        let mut record = Outgoing::new(&self.topics.of(&partition.topic), Vec::new(), Vec::new());
        record.partition = Some(partition.number);
        let nobody = Membership::default();
        let transaction = Transaction { producer, membership: &nobody };
        let send = || {
            producer.send(&record);
            Ok(())
        };
        match transaction.run(send, &[(partition.clone(), 0)]) {
            Err(KafkaJournalError::NoMember) | Ok(()) => Ok(()),
            Err(error) => {
                self.producer = None;
                Err(error)
            }
        }
    }

    /// Commits everything in one transaction.
    ///
    /// # Errors
    /// When the transaction was aborted, or its end is not known.
    pub fn commit(&mut self, commit: Commit<'_>) -> Result<(), KafkaJournalError> {
        if commit.positions.is_empty() {
            return Ok(());
        }
        self.connect()?;
        let Some(producer) = &self.producer else { return Ok(()) };
        let transaction = Transaction { producer, membership: &self.membership };
        let ended = transaction.run(|| self.send(producer, commit), commit.positions);
        match ended {
            Ok(()) => {
                for ledger in commit.ledgers.iter() {
                    self.note_written(ledger);
                }
                Ok(())
            }
            Err(error) => {
                if error.is_lost() {
                    self.producer = None;
                }
                Err(error)
            }
        }
    }

    fn note_written(&mut self, ledger: &Ledger) {
        let Some(state) = ledger.partitions().first() else { return };
        if !ledger.changed_partitions().is_empty() {
            self.written.insert(state.partition.clone(), Written::all(ledger));
        }
    }

    fn send(&self, producer: &Producer, commit: Commit<'_>) -> Result<(), KafkaJournalError> {
        let nothing = Written::default();
        for ledger in commit.ledgers.iter().filter(|ledger| !ledger.changed_partitions().is_empty()) {
            let Some(state) = ledger.partitions().first() else { continue };
            let written = self.written.get(&state.partition).unwrap_or(&nothing);
            let topic = self.topics.of(&state.partition.topic);
            written.missing(ledger, |key, value| {
                let mut record = Outgoing::new(&topic, key.to_bytes(), value);
                record.partition = Some(state.partition.number);
                producer.send(&record);
                Ok::<_, CodecError>(())
            })?;
        }
        commit.outgoing.iter().copied().for_each(|record| producer.send(record));
        Ok(())
    }
}

/// The partitions whose records go into ledgers: those of the inputs and, where an input has a keyed copy, of that.
///
/// # Errors
/// When the brokers do not say, or a topic is not there.
pub fn journalled(config: &Config) -> Result<Vec<Partition>, KafkaJournalError> {
    let keeper = TopicKeeper::new(&config.kafka)?;
    let topics = JournalTopics::new(&config.kafka);
    let mut all = Vec::new();
    for input in &config.input {
        let topic = if input.rekey { topics.keyed(&input.topic) } else { input.topic.as_str().into() };
        let count = keeper.partitions(&topic)?;
        all.extend((0..count).map(|number| Partition { topic: topic.clone(), number }));
    }
    Ok(all)
}

/// One transaction from its begin to its end.
struct Transaction<'a> {
    producer: &'a Producer,
    membership: &'a Membership,
}

impl Transaction<'_> {
    fn run(
        &self,
        send: impl FnOnce() -> Result<(), KafkaJournalError>,
        positions: &[(Partition, i64)],
    ) -> Result<(), KafkaJournalError> {
        let client = self.producer.client();
        // It only fails where the one before has not ended.
        client.begin_transaction().map_err(|error| KafkaJournalError::Lost(error.to_string()))?;
        let sent = send().and_then(|()| self.producer.settle().map_err(|error| undelivered(&error)));
        let offsets = sent.and_then(|()| self.send_offsets(positions));
        match offsets {
            Ok(()) => self.end(),
            Err(error) => Err(self.abort(error)),
        }
    }

    fn send_offsets(&self, positions: &[(Partition, i64)]) -> Result<(), KafkaJournalError> {
        let offsets = offsets(positions)?;
        let group = self.membership.get().ok_or(KafkaJournalError::NoMember)?;
        retried(|| self.producer.client().send_offsets_to_transaction(&offsets, &group, REQUEST_TIMEOUT))
            .map_err(|error| failed(&error))
    }

    fn end(&self) -> Result<(), KafkaJournalError> {
        match retried(|| self.producer.client().commit_transaction(REQUEST_TIMEOUT)) {
            Ok(()) => Ok(()),
            Err(error) if requires_abort(&error) => Err(self.abort(aborted(&error))),
            Err(error) => Err(KafkaJournalError::Lost(error.to_string())),
        }
    }

    /// Aborts after an error, and says what is known then.
    fn abort(&self, error: KafkaJournalError) -> KafkaJournalError {
        if error.is_lost() {
            return error;
        }
        match retried(|| self.producer.client().abort_transaction(REQUEST_TIMEOUT)) {
            Ok(()) => error,
            Err(failed) => KafkaJournalError::Lost(format!("{error}; {failed}")),
        }
    }
}

fn failed(error: &KafkaError) -> KafkaJournalError {
    match transaction_error(error).is_some_and(RDKafkaError::is_fatal) {
        true => KafkaJournalError::Lost(error.to_string()),
        false => aborted(error),
    }
}

/// The group's positions with the mark of this kind of journal.
fn offsets(positions: &[(Partition, i64)]) -> Result<TopicPartitionList, KafkaJournalError> {
    let mut list = TopicPartitionList::new();
    for (partition, position) in positions {
        let mut element = list.add_partition(&partition.topic, partition.number);
        element.set_metadata(crate::source::kafka::claim(CLAIM));
        element.set_offset(Offset::Offset(*position)).map_err(|error| aborted(&error))?;
    }
    Ok(list)
}

/// Makes a request again for as long as librdkafka says that this may help, but not for ever.
fn retried(mut request: impl FnMut() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    let end = Instant::now() + TRANSACTION_TIMEOUT + REQUEST_TIMEOUT;
    loop {
        match request() {
            Err(error) if transaction_error(&error).is_some_and(RDKafkaError::is_retriable) && Instant::now() < end => {
            }
            other => return other,
        }
    }
}

fn transaction_error(error: &KafkaError) -> Option<&RDKafkaError> {
    match error {
        KafkaError::Transaction(error) => Some(error),
        _ => None,
    }
}

fn requires_abort(error: &KafkaError) -> bool {
    transaction_error(error).is_some_and(RDKafkaError::txn_requires_abort)
}

fn aborted(error: &KafkaError) -> KafkaJournalError {
    KafkaJournalError::Aborted(error.to_string())
}

fn undelivered(error: &DeliveryError) -> KafkaJournalError {
    KafkaJournalError::Aborted(error.to_string())
}
