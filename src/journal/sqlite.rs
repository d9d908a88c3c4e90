//! The embedded journal: one file, states, counters and positions in one transaction.
//!
//! A commit is on disk before it returns (`synchronous = FULL`), so what is shown afterwards can not be lost by a crash
//! of the process or the machine. The file is locked for one process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};

use super::codec::{self, CodecError};
use crate::ledger::{Changes, Counters, Held, Labels, Ledger, PartitionState, Settings, Slot, TicketKey};
use crate::record::Partition;

/// The name of the file in its folder.
const FILE: &str = "journal.sqlite";

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS ticket (key BLOB PRIMARY KEY, record BLOB) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS partition (number INTEGER PRIMARY KEY, topic TEXT NOT NULL, partition INTEGER NOT NULL, record BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS label (dimension TEXT NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL, PRIMARY KEY (dimension, number)) WITHOUT ROWID;
";

/// What goes wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The folder cannot be made or written.
    #[error("the journal's folder {path} cannot be used: {cause}; give a folder that this user may write as `[journal] path`", path = path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's answer.
        cause: std::io::Error,
    },
    /// Another process holds it.
    #[error(
        "the journal {path} is in use by another process; the sqlite journal serves one instance: stop the other one, \
         or give this one a folder and a consumer group of its own",
        path = path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A service writes it, and it is only to be read.
    #[error(
        "the journal {path} is in use by a running service; stop the service for as long as the journal is read, or read a \
         snapshot of its folder (one that the file system makes in one step; a plain copy of a journal in use is torn) with \
         `--set journal.path=FOLDER`",
        path = path.display()
    )]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing to be read.
    #[error("there is no journal {path}; check `[journal] path`, which is relative to the working directory", path = path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A record in it is damaged or of another version.
    #[error(
        "the journal {path} cannot be used: {what}: {cause}; restore the file from a backup, or move it away to count anew \
         from the start of the topics",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which record.
        what: String,
        /// What is wrong with it.
        cause: CodecError,
    },
    /// Everything else that SQLite says.
    #[error("the journal {path}: {cause}", path = path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// SQLite's own words.
        cause: rusqlite::Error,
    },
    /// A value that cannot be written.
    #[error("a record cannot be encoded: {0}")]
    Encode(#[from] CodecError),
}

/// What is stored of a partition besides its name.
#[derive(Serialize, Deserialize)]
struct StoredPartition {
    next_offset: i64,
    watermark: i64,
    counters: Counters,
}

/// An open journal.
#[derive(Debug)]
pub struct SqliteJournal {
    connection: Connection,
    path: PathBuf,
    id: String,
    labels_written: (usize, usize),
    partitions_written: usize,
}

impl SqliteJournal {
    /// Opens the journal in a folder, or makes it.
    ///
    /// # Errors
    /// When the folder cannot be used or the file is in use or damaged.
    pub fn open(folder: &Path) -> Result<Self, JournalError> {
        std::fs::create_dir_all(folder).map_err(|cause| JournalError::Folder { path: folder.to_owned(), cause })?;
        let path = folder.join(FILE);
        let opened = connect(&path).and_then(|connection| Ok((journal_id(&connection)?, connection)));
        let (id, connection) = opened.map_err(|cause| at(&path, cause))?;
        Ok(Self { connection, path, id, labels_written: (0, 0), partitions_written: 0 })
    }

    /// Reads the ledger of a journal that is there, and leaves the journal as it is.
    ///
    /// # Errors
    /// When there is none, a service writes it, or it cannot be read.
    pub fn read(folder: &Path, settings: Settings) -> Result<Ledger, JournalError> {
        let path = folder.join(FILE);
        if !path.exists() {
            return Err(JournalError::Missing { path });
        }
        let opened = connect_to_read(&path).and_then(|connection| Ok((journal_id(&connection)?, connection)));
        let (id, connection) = opened.map_err(|cause| match at(&path, cause) {
            JournalError::InUse { path } => JournalError::Busy { path },
            other => other,
        })?;
        Self { connection, path, id, labels_written: (0, 0), partitions_written: 0 }.restore(settings)
    }

    /// The journal's lasting identity.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Reads everything back.
    ///
    /// # Errors
    /// When a record is damaged, or the file cannot be read.
    pub fn restore(&mut self, settings: Settings) -> Result<Ledger, JournalError> {
        let mut ledger = Ledger::new(settings);
        let teams = self.labels("team")?;
        let services = self.labels("service")?;
        ledger.restore_labels(&teams, &services);
        self.labels_written = (ledger.teams().names().len(), ledger.services().names().len());
        self.restore_partitions(&mut ledger)?;
        self.partitions_written = ledger.partitions().len();
        self.restore_tickets(&mut ledger)?;
        Ok(ledger)
    }

    fn labels(&self, dimension: &str) -> Result<Vec<String>, JournalError> {
        let read = || -> rusqlite::Result<Vec<String>> {
            let mut statement =
                self.connection.prepare("SELECT name FROM label WHERE dimension = ? ORDER BY number")?;
            statement.query_map([dimension], |row| row.get(0))?.collect()
        };
        read().map_err(|cause| at(&self.path, cause))
    }

    fn restore_partitions(&self, ledger: &mut Ledger) -> Result<(), JournalError> {
        let read = || -> rusqlite::Result<Vec<(String, i32, Vec<u8>)>> {
            let mut statement =
                self.connection.prepare("SELECT topic, partition, record FROM partition ORDER BY number")?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
        };
        for (topic, number, record) in read().map_err(|cause| at(&self.path, cause))? {
            let what = || format!("partition {topic}[{number}]");
            let stored: StoredPartition = self.decode(&record, what)?;
            ledger.restore_partition(PartitionState {
                partition: Partition { topic: topic.into(), number },
                next_offset: stored.next_offset,
                watermark: stored.watermark,
                counters: Arc::new(stored.counters),
            });
        }
        Ok(())
    }

    fn restore_tickets(&self, ledger: &mut Ledger) -> Result<(), JournalError> {
        let sqlite = |cause| at(&self.path, cause);
        let count: i64 =
            self.connection.query_row("SELECT count(*) FROM ticket", [], |row| row.get(0)).map_err(sqlite)?;
        ledger.reserve(usize::try_from(count).unwrap_or_default());
        let mut statement = self.connection.prepare("SELECT key, record FROM ticket").map_err(sqlite)?;
        let mut rows = statement.query([]).map_err(sqlite)?;
        while let Some(row) = rows.next().map_err(sqlite)? {
            let key: [u8; 16] = row.get(0).map_err(sqlite)?;
            let record: Option<Vec<u8>> = row.get(1).map_err(sqlite)?;
            let slot = match record {
                None => Slot::Retired,
                Some(record) => Slot::Held(self.decode(&record, || format!("ticket {:x}", u128::from_be_bytes(key)))?),
            };
            ledger.restore_ticket(TicketKey(u128::from_be_bytes(key)), slot);
        }
        Ok(())
    }

    fn decode<T: serde::de::DeserializeOwned>(
        &self,
        record: &[u8],
        what: impl Fn() -> String,
    ) -> Result<T, JournalError> {
        codec::decode(record).map_err(|cause| JournalError::Damaged { path: self.path.clone(), what: what(), cause })
    }

    /// Writes what changed, in one transaction that is on disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written; nothing of it is then.
    pub fn commit(&mut self, ledger: &Ledger, changes: &Changes) -> Result<(), JournalError> {
        let mut write = || -> Result<(), WriteError> {
            let transaction = self.connection.transaction()?;
            write_labels(&transaction, "team", ledger.teams(), self.labels_written.0)?;
            write_labels(&transaction, "service", ledger.services(), self.labels_written.1)?;
            write_partitions(&transaction, ledger, &changes.partitions, self.partitions_written)?;
            write_tickets(&transaction, ledger, &changes.tickets)?;
            Ok(transaction.commit()?)
        };
        write().map_err(|error| match error {
            WriteError::Sqlite(cause) => at(&self.path, cause),
            WriteError::Encode(cause) => JournalError::Encode(cause),
        })?;
        self.labels_written = (ledger.teams().names().len(), ledger.services().names().len());
        self.partitions_written = ledger.partitions().len();
        Ok(())
    }
}

/// What can go wrong inside a transaction.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Encode(#[from] CodecError),
}

fn write_labels(
    transaction: &Transaction<'_>,
    dimension: &str,
    labels: &Labels,
    written: usize,
) -> Result<(), WriteError> {
    let mut insert = transaction.prepare_cached("INSERT OR REPLACE INTO label VALUES (?, ?, ?)")?;
    for (number, name) in (0_i64..).zip(labels.names()).skip(written) {
        insert.execute(params![dimension, number, &**name])?;
    }
    Ok(())
}

/// Writes the partitions that changed, and those that were never written, even if they counted nothing yet: tickets
/// name their partition by its number, and a number that is left out would be another partition's after a restart.
fn write_partitions(
    transaction: &Transaction<'_>,
    ledger: &Ledger,
    changed: &[u32],
    written: usize,
) -> Result<(), WriteError> {
    let mut insert = transaction.prepare_cached("INSERT OR REPLACE INTO partition VALUES (?, ?, ?, ?)")?;
    for (at, (number, state)) in (0_u32..).zip(ledger.partitions()).enumerate() {
        if at < written && !changed.contains(&number) {
            continue;
        }
        let record = StoredPartition {
            next_offset: state.next_offset,
            watermark: state.watermark,
            counters: (*state.counters).clone(),
        };
        let Partition { topic, number: partition } = &state.partition;
        insert.execute(params![number, &**topic, partition, codec::encode(&record)?])?;
    }
    Ok(())
}

fn write_tickets(transaction: &Transaction<'_>, ledger: &Ledger, keys: &[TicketKey]) -> Result<(), WriteError> {
    let mut insert = transaction.prepare_cached("INSERT OR REPLACE INTO ticket VALUES (?, ?)")?;
    for key in keys {
        let record = match ledger.ticket(*key) {
            Some(Slot::Held(held)) => Some(codec::encode::<Held>(held)?),
            Some(Slot::Retired) | None => None,
        };
        insert.execute(params![key.0.to_be_bytes(), record])?;
    }
    Ok(())
}

/// Opens the file for this process alone.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_millis(500))?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch(&format!("BEGIN EXCLUSIVE; {SCHEMA} COMMIT;"))?;
    Ok(connection)
}

/// Opens the file beside others that only read.
fn connect_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(Duration::from_millis(500))?;
    Ok(connection)
}

/// The identity written when the journal was made: random, since two journals must never be taken for one.
fn journal_id(connection: &Connection) -> rusqlite::Result<String> {
    let held: Option<String> =
        connection.query_row("SELECT value FROM meta WHERE name = 'id'", [], |row| row.get(0)).optional()?;
    if let Some(id) = held {
        return Ok(id);
    }
    connection
        .query_row("INSERT INTO meta VALUES ('id', lower(hex(randomblob(8)))) RETURNING value", [], |row| row.get(0))
}

fn at(path: &Path, cause: rusqlite::Error) -> JournalError {
    let path = path.to_owned();
    match cause.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => JournalError::InUse { path },
        _ => JournalError::Sqlite { path, cause },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;
    use crate::ticket::{State, Ticket, Version};
    use crate::verdict::Findings;

    fn ticket(key: &str, version: i64, state: State) -> Ticket {
        Ticket {
            key: key.into(),
            version: Some(Version { count: Some(version), time: None }),
            state: Some(state),
            group: Some(format!("team of {key}").into()),
            effort_seconds: Some(60),
            ..Ticket::default()
        }
    }

    fn fill(ledger: &mut Ledger) {
        let number = ledger.partition(&Partition { topic: "t".into(), number: 3 });
        for (offset, key) in ["a", "b", "c"].into_iter().enumerate() {
            let outcome = ledger.apply("s", number, 5, &ticket(key, 1, State::Closed), Findings::default());
            ledger.finish_record(number, i64::try_from(offset).unwrap(), Some(5), outcome);
        }
    }

    fn all(ledger: &Ledger) -> Vec<Held> {
        let mut held: Vec<_> = ledger.tickets().cloned().collect();
        held.sort_by(|a, b| a.key.cmp(&b.key));
        held
    }

    #[test]
    fn a_restored_ledger_is_the_one_that_was_committed() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = SqliteJournal::open(folder.path()).unwrap();
        let id = journal.id().to_owned();
        let mut ledger = journal.restore(Settings::default()).unwrap();
        fill(&mut ledger);
        let changes = ledger.take_changes();
        journal.commit(&ledger, &changes).unwrap();
        let number = ledger.partition(&Partition { topic: "t".into(), number: 3 });
        ledger.apply("s", number, 9, &ticket("uncommitted", 1, State::Open), Findings::default());
        drop(journal);

        let mut journal = SqliteJournal::open(folder.path()).unwrap();
        assert_eq!(journal.id(), id);
        let restored = journal.restore(Settings::default()).unwrap();
        let committed: Vec<_> = all(&ledger).into_iter().filter(|t| t.key != "uncommitted").collect();
        assert_eq!(all(&restored), committed);
        assert_eq!(restored.partitions()[0].next_offset, 3);
        assert_eq!(
            restored.partitions()[0].counters.get(crate::ledger::Series::Records { outcome: Outcome::Applied }),
            3
        );
        assert_eq!(restored.teams().names()[2..], ["team of a", "team of b", "team of c"].map(Into::into));
    }

    #[test]
    fn partitions_that_counted_nothing_before_a_restart_do_not_shift_those_that_did() {
        let folder = tempfile::tempdir().unwrap();
        let partition = |number| Partition { topic: "t".into(), number };
        let mut journal = SqliteJournal::open(folder.path()).unwrap();
        let mut ledger = journal.restore(Settings::default()).unwrap();
        for (key, busy) in [("a", 2), ("b", 1)] {
            // All are assigned, one has records.
            (0..3).for_each(|number| _ = ledger.partition(&partition(number)));
            let number = ledger.partition(&partition(busy));
            let outcome = ledger.apply("s", number, 5, &ticket(key, 1, State::Open), Findings::default());
            ledger.finish_record(number, 0, Some(5), outcome);
            let changes = ledger.take_changes();
            journal.commit(&ledger, &changes).unwrap();
            ledger = journal.restore(Settings::default()).unwrap();
        }
        let position = |state: &PartitionState| (state.partition.number, state.next_offset);
        let mut positions: Vec<_> = ledger.partitions().iter().map(position).filter(|(_, next)| *next > 0).collect();
        positions.sort_unstable();
        assert_eq!(positions, [(1, 1), (2, 1)], "each once, where it ended");
        for (key, home) in [("a", 2), ("b", 1)] {
            let Some(Slot::Held(held)) = ledger.ticket(TicketKey::of("s", key)) else { panic!("{key} is held") };
            assert_eq!(ledger.partitions()[held.home as usize].partition, partition(home), "{key}");
        }
    }

    #[test]
    fn a_journal_is_read_without_being_changed_and_not_while_a_service_writes_it() {
        let folder = tempfile::tempdir().unwrap();
        let read = || SqliteJournal::read(folder.path(), Settings::default());
        assert!(read().unwrap_err().to_string().contains("check `[journal] path`"));
        let mut journal = SqliteJournal::open(folder.path()).unwrap();
        let mut ledger = journal.restore(Settings::default()).unwrap();
        fill(&mut ledger);
        let changes = ledger.take_changes();
        journal.commit(&ledger, &changes).unwrap();
        let error = read().unwrap_err();
        assert!(error.to_string().contains("stop the service for as long as the journal is read"), "{error}");
        drop(journal);
        assert_eq!(all(&read().unwrap()), all(&ledger));
        assert_eq!(all(&read().unwrap()), all(&ledger), "a second time as well");
    }

    #[test]
    fn a_retired_ticket_stays_retired_over_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { retention: Some(std::time::Duration::from_millis(1)), ..Settings::default() };
        let mut journal = SqliteJournal::open(folder.path()).unwrap();
        let mut ledger = journal.restore(settings).unwrap();
        fill(&mut ledger);
        let number = ledger.partition(&Partition { topic: "t".into(), number: 3 });
        ledger.finish_record(number, 3, Some(100), Outcome::Ignored);
        ledger.retire();
        let changes = ledger.take_changes();
        journal.commit(&ledger, &changes).unwrap();
        let mut restored = journal.restore(settings).unwrap();
        let outcome = restored.apply("s", number, 101, &ticket("a", 2, State::Open), Findings::default());
        assert_eq!(outcome, Outcome::Late);
    }

    #[test]
    fn a_second_process_is_refused_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let _first = SqliteJournal::open(folder.path()).unwrap();
        let error = SqliteJournal::open(folder.path()).unwrap_err();
        assert!(matches!(error, JournalError::InUse { .. }), "{error}");
        assert!(error.to_string().contains("a folder and a consumer group of its own"));
    }

    #[test]
    fn a_damaged_record_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = SqliteJournal::open(folder.path()).unwrap();
        let mut ledger = journal.restore(Settings::default()).unwrap();
        fill(&mut ledger);
        let changes = ledger.take_changes();
        journal.commit(&ledger, &changes).unwrap();
        let damage = "UPDATE ticket SET record = CAST(substr(record, 1, 6) || x'00' || substr(record, 8) AS BLOB)";
        journal.connection.execute(damage, []).unwrap();
        let error = journal.restore(Settings::default()).unwrap_err();
        assert!(error.to_string().contains("checksum"), "{error}");
    }
}
