//! What makes the ledger durable.
//!
//! A commit holds tickets, counters and positions together, or nothing; what is shown is only what is committed.

pub mod codec;
mod sqlite;

pub use sqlite::{JournalError, SqliteJournal};

use crate::ledger::{Changes, Ledger, Settings};

/// A journal of one kind or another.
#[derive(Debug)]
pub enum Journal {
    /// One file.
    Sqlite(Box<SqliteJournal>),
    /// Nothing is kept: for replays, which begin at the beginning.
    None,
}

impl Journal {
    /// The ledger as of the last commit.
    ///
    /// # Errors
    /// When what is stored cannot be read.
    pub fn restore(&mut self, settings: Settings) -> Result<Ledger, JournalError> {
        match self {
            Self::Sqlite(journal) => journal.restore(settings),
            Self::None => Ok(Ledger::new(settings)),
        }
    }

    /// Makes the changes durable, all or none.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn commit(&mut self, ledger: &Ledger, changes: &Changes) -> Result<(), JournalError> {
        match self {
            Self::Sqlite(journal) => journal.commit(ledger, changes),
            Self::None => Ok(()),
        }
    }

    /// The name of its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::None => "none",
        }
    }

    /// Its lasting identity, where it has one.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Sqlite(journal) => Some(journal.id()),
            Self::None => None,
        }
    }
}
