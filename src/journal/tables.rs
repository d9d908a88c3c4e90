//! The tables of the sqlite journal.

use rusqlite::{CachedStatement, Connection, Transaction, params};

use super::entry::Entry;

/// Makes those that are not there.
pub const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS entry (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS ticket_entry (number INTEGER PRIMARY KEY, key BLOB NOT NULL, value BLOB NOT NULL);
";

/// Writes entries, each in place of the one that has the key. Tickets go by their number: those that change together are
/// then few pages, and to find one takes no comparing of keys.
pub struct Insertion<'t> {
    entry: CachedStatement<'t>,
    ticket: CachedStatement<'t>,
}

impl<'t> Insertion<'t> {
    /// Into the tables, as part of a transaction.
    ///
    /// # Errors
    /// SQLite's.
    pub fn new(transaction: &'t Transaction<'_>) -> rusqlite::Result<Self> {
        let entry = transaction.prepare_cached("INSERT OR REPLACE INTO entry VALUES (?, ?)")?;
        let ticket = transaction.prepare_cached("INSERT OR REPLACE INTO ticket_entry VALUES (?, ?, ?)")?;
        Ok(Self { entry, ticket })
    }

    /// Writes one.
    ///
    /// # Errors
    /// SQLite's.
    pub fn insert(&mut self, Entry { key, value, ticket }: Entry<'_>) -> rusqlite::Result<()> {
        let inserted = match ticket {
            Some(number) => self.ticket.execute(params![number, key, value]),
            None => self.entry.execute(params![key, value]),
        };
        inserted.map(drop)
    }
}

/// Whether the journal has a table; those of earlier versions have others.
///
/// # Errors
/// SQLite's.
pub fn has_table(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    let found = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?";
    connection.query_row(found, [name], |row| row.get(0))
}
