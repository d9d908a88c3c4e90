//! What makes the ledger durable.
//!
//! A commit holds tickets, counters and positions together, or nothing; what is shown is only what is committed. Every
//! kind of journal keeps the same [`entry`]s.

pub mod codec;
mod earlier;
pub mod entry;
pub mod export;
pub mod import;
mod inspect;
pub mod kafka;
mod sqlite;
mod tables;

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::Path;

pub use inspect::{Inspected, Inspection};
pub use kafka::{KafkaJournal, KafkaJournalError};
pub use sqlite::{SqliteError, SqliteJournal};

use crate::config::{Config, JournalKind};
use crate::ledger::{Ledgers, Settings};
use crate::record::Partition;
use crate::sink::{DeliveryError, Outgoing, Producer, TransactionError};

/// A journal of one kind or another.
#[derive(Debug)]
pub enum Journal {
    /// One file, and what goes to topics beside it.
    Sqlite(Box<SqliteJournal>, Option<Producer>),
    /// Compacted topics.
    Kafka(Box<KafkaJournal>),
    /// Nothing is kept: for replays, which begin at the beginning.
    None(Option<Producer>),
}

/// What is to be made durable in one step.
#[derive(Clone, Copy, Debug)]
pub struct Commit<'a> {
    /// The ledgers with their changes.
    pub ledgers: &'a Ledgers,
    /// What goes out.
    pub outgoing: &'a [&'a Outgoing],
    /// The offset of the next record to take, by partition.
    pub positions: &'a [(Partition, i64)],
}

/// Why a commit did not come about.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The file did not take it; nothing of it is written, and it can be tried again.
    #[error(transparent)]
    Sqlite(#[from] SqliteError),
    /// The topics did not take it.
    #[error(transparent)]
    Kafka(#[from] KafkaJournalError),
    /// What goes out was not taken.
    #[error(transparent)]
    Outgoing(#[from] DeliveryError),
}

impl CommitError {
    /// Whether it is not known what is committed, so that all has to be restored.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Kafka(error) if error.is_lost())
    }

    /// Whether it stays so until somebody does something.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Kafka(error) if error.is_final())
    }

    /// Bytes of key and value of the largest record that is larger than its topic takes, if that is the reason.
    pub fn too_large(&self) -> Option<usize> {
        match self {
            Self::Outgoing(error)
            | Self::Kafka(KafkaJournalError::Transaction(TransactionError::Undelivered(error))) => error.too_large,
            Self::Sqlite(_) | Self::Kafka(_) => None,
        }
    }
}

impl Journal {
    /// Makes changes durable, all or none. What goes to topics beside a file is delivered before, so that none is missing;
    /// after a crash some may be there twice.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn commit(&mut self, commit: Commit<'_>) -> Result<(), CommitError> {
        match self {
            Self::Sqlite(journal, producer) => {
                deliver(producer.as_ref(), commit.outgoing)?;
                Ok(commit.ledgers.iter().try_for_each(|ledger| journal.commit(ledger))?)
            }
            Self::Kafka(journal) => Ok(journal.commit(commit)?),
            Self::None(producer) => Ok(deliver(producer.as_ref(), commit.outgoing)?),
        }
    }

    /// Whether it was put back from a backup and has not caught up yet.
    pub fn is_behind(&self) -> bool {
        matches!(self, Self::Sqlite(journal, _) if journal.is_behind())
    }

    /// The name of its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite(..) => "sqlite",
            Self::Kafka(_) => "kafka",
            Self::None(_) => "none",
        }
    }
}

fn deliver(producer: Option<&Producer>, outgoing: &[&Outgoing]) -> Result<(), DeliveryError> {
    producer.map_or(Ok(()), |producer| producer.deliver(outgoing.iter().copied()))
}

/// The ledgers of a journal as of its last commit, whoever writes it meanwhile. With topics, a ledger for each partition of
/// the inputs.
///
/// # Errors
/// When there is no journal, or it cannot be read.
pub fn read(config: &Config, settings: Settings) -> Result<Ledgers, ReadError> {
    match config.journal.kind {
        JournalKind::Sqlite => Ok(Ledgers::one(SqliteJournal::read(&config.journal.path, settings)?)),
        JournalKind::None => Err(ReadError::None),
        JournalKind::Kafka => {
            let mut ledgers = BTreeMap::new();
            for partition in kafka::journalled(config)? {
                let ledger = kafka::snapshot(&config.kafka, settings, &partition)?;
                ledgers.insert(partition, ledger);
            }
            Ok(Ledgers::Each(ledgers))
        }
    }
}

/// Why a journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file.
    #[error(transparent)]
    Sqlite(#[from] SqliteError),
    /// The topics.
    #[error(transparent)]
    Kafka(#[from] KafkaJournalError),
    /// There is none.
    #[error("`[journal] kind` is `none`: nothing is kept that could be read")]
    None,
}

/// Locks a file in a folder, which is made if need be, for as long as the result lives.
///
/// # Errors
/// When another process has it, or the folder cannot be used.
pub fn lock(folder: &Path, name: &str) -> Result<File, TryLockError> {
    let open = || {
        std::fs::create_dir_all(folder)?;
        File::options().create(true).truncate(false).write(true).open(folder.join(name))
    };
    let file = open().map_err(TryLockError::Error)?;
    file.try_lock()?;
    Ok(file)
}
