//! The journal that moves with its partitions: a compacted topic beside each input, with as many partitions.
//!
//! A commit is one Kafka transaction: the entries that changed, tagged tickets, dead letters, and the group's offsets with
//! the generation in which the partitions were assigned. Brokers refuse those of a member that has lost its partitions,
//! and where they were taken, all entries stand before the end that the next owner reads to.

mod fill;
mod restore;
pub mod topics;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use fill::{check_idle, fill, set_positions};
use hashbrown::HashMap;
pub use restore::{Found, Restored, Restorer, Wanted, snapshot};
pub use topics::{JournalTopics, TopicError, TopicKeeper};

use super::Commit;
use super::codec::CodecError;
use super::entry::{Damage, Written};
use crate::config::{Config, Kafka};
use crate::ledger::Ledger;
use crate::record::Partition;
use crate::sink::{Positions, Producer, Standalone, TransactionError};
use crate::source::kafka::{Membership, SourceError};

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
    /// The transaction did not come about.
    #[error(transparent)]
    Transaction(#[from] TransactionError),
    /// This process owns no partitions at the moment.
    #[error("this instance is not a member of the consumer group at the moment")]
    NoMember,
    /// Instances read with the group.
    #[error(
        "{members} instances read with the consumer group `{group}`; stop them, and wait until their session is over"
    )]
    GroupInUse {
        /// The group.
        group: String,
        /// How many.
        members: usize,
    },
    /// There is something where nothing may be.
    #[error("the journal {journal} holds something already; delete its topic, or give another `[kafka] group`")]
    Occupied {
        /// The journal's partition.
        journal: Partition,
    },
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
        matches!(self, Self::Transaction(TransactionError::Lost(_)))
    }

    /// Whether it stays so until somebody does something.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Topic(error) if !error.is_passing())
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
    /// Asks for topics.
    standalone: Standalone,
    /// The topics whose records go into ledgers.
    journalled: Vec<Arc<str>>,
    membership: Membership,
    /// Made when it is first needed, and anew after an error from which it cannot recover.
    producer: Option<Producer>,
    written: HashMap<Partition, Written>,
    /// Partitions of each journal, by the topic that it belongs to.
    sizes: HashMap<Arc<str>, usize>,
}

impl KafkaJournal {
    /// A journal in topics that are there; `membership` is kept up to date by whoever lets partitions go.
    ///
    /// # Errors
    /// When librdkafka does not take the settings.
    pub fn new(config: &Config, instance: Instance, membership: Membership) -> Result<Self, KafkaJournalError> {
        let (kafka, topics) = (config.kafka.clone(), JournalTopics::new(&config.kafka));
        let journalled = config.input.iter().map(|input| topics.journalled(input)).collect();
        let (standalone, written, sizes) = (Standalone::new(&kafka)?, HashMap::new(), HashMap::new());
        Ok(Self { kafka, instance, topics, standalone, journalled, membership, producer: None, written, sizes })
    }

    /// Takes notice of what is written of a partition.
    pub fn take_over(&mut self, partition: &Partition, ledger: &Ledger) {
        self.written.insert(partition.clone(), Written::all(ledger));
    }

    /// Connects, and aborts what this instance may have left open, in the journals of all partitions and among the group's
    /// positions. A broker that is killed can lose the end of a transaction; whoever reads committed records stops there,
    /// also in partitions that others own by now, until a later transaction of the same id ends.
    ///
    /// # Errors
    /// When the brokers do not answer in time, or a journal takes no records; it can be tried again.
    pub fn end_hanging(&mut self) -> Result<(), KafkaJournalError> {
        let producer = match self.producer.take() {
            Some(producer) => producer,
            None => {
                let id = format!("{}-{}", self.kafka.group, self.instance.id);
                Producer::of_transactions(&self.kafka, &id, TRANSACTION_TIMEOUT)?
            }
        };
        let mut partitions = Vec::new();
        for topic in &self.journalled {
            let journal = self.partitions_of(&self.topics.of(topic))?;
            self.sizes.insert(topic.clone(), journal.len());
            partitions.extend(journal);
        }
        let group = self.standalone.group()?;
        // A position that nobody reads, should the end of this be lost as well.
        let position: Vec<_> = partitions.first().map(|journal| (journal.clone(), 0)).into_iter().collect();
        let ended = producer.abort_with(&partitions, &Positions { group, offsets: &position, journal: CLAIM });
        if !matches!(ended, Err(TransactionError::Lost(_))) {
            self.producer = Some(producer);
        }
        Ok(ended?)
    }

    /// One journal that takes no records, of a partition that may be another's, keeps nobody from writing to the others.
    fn connect(&mut self) -> Result<(), KafkaJournalError> {
        if self.producer.is_some() {
            return Ok(());
        }
        match self.end_hanging() {
            Err(error) if self.producer.is_some() => {
                tracing::warn!(%error, "what this instance left open could not be ended in every journal");
                Ok(())
            }
            ended => ended,
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
        self.check_sizes(commit.positions)?;
        let group = self.membership.get().ok_or(KafkaJournalError::NoMember)?;
        let positions = Positions { group, offsets: commit.positions, journal: CLAIM };
        match producer.transact(&positions, || self.send(producer, commit)) {
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

    /// Makes sure that the inputs have no more partitions than their journals. Asked after the records have come and before
    /// they count: none of them can be one that was produced since, and by another partition than its ticket's before.
    fn check_sizes(&self, positions: &[(Partition, i64)]) -> Result<(), KafkaJournalError> {
        let moved: BTreeSet<&Arc<str>> = positions.iter().map(|(partition, _)| &partition.topic).collect();
        for (topic, found) in moved.into_iter().filter_map(|topic| Some((topic, *self.sizes.get(topic)?))) {
            let partitions = self.partitions_of(topic)?.len();
            if partitions > found {
                let (topic, input) = (self.topics.of(topic).to_string(), topic.to_string());
                return Err(TopicError::Grown { topic, input, partitions, found }.into());
            }
        }
        Ok(())
    }

    fn partitions_of(&self, topic: &Arc<str>) -> Result<Vec<Partition>, KafkaJournalError> {
        Ok(self.standalone.partitions_of(topic).map_err(TransactionError::aborted)?)
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
            let journal = self.topics.beside(&state.partition);
            written.missing(ledger, |entry| {
                producer.send_to(&journal, entry.key, entry.value);
                Ok::<_, CodecError>(())
            })?;
        }
        commit.outgoing.iter().copied().for_each(|record| producer.send(record));
        Ok(())
    }
}

/// The partitions whose records go into ledgers: those of the inputs and, where an input has a keyed copy, of that. As many
/// as their journals have, for an input may have got more.
///
/// # Errors
/// When the brokers do not say, or a topic is not there.
pub fn journalled(config: &Config) -> Result<Vec<Partition>, KafkaJournalError> {
    let keeper = TopicKeeper::new(&config.kafka)?;
    let topics = JournalTopics::new(&config.kafka);
    let mut all = Vec::new();
    for input in &config.input {
        let topic = topics.journalled(input);
        let count = keeper.partitions(&topics.of(&topic))?;
        all.extend((0..count).map(|number| Partition { topic: topic.clone(), number }));
    }
    Ok(all)
}
