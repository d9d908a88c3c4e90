//! The embedded journal: one file, states, counters and positions in one transaction.
//!
//! A commit is on disk before it returns (`synchronous = FULL`), so what is shown afterwards can not be lost by a crash
//! of the process or the machine. One process writes, which a lock on a file of its own makes sure of; others may read or
//! copy what is committed at the same time.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};

use super::codec::CodecError;
use super::earlier;
use super::entry::{self, Damage, Restoring, Written};
use super::tables::{Insertion, SCHEMA, has_table};
use crate::ledger::{Ledger, Settings};

/// The name of the file in its folder.
pub const FILE: &str = "journal.sqlite";
/// The file that the writing process locks.
const LOCK: &str = "journal.lock";

/// What marks a copy of a journal.
const BACKUP: &str = "backup";

/// How much of the file is held in memory.
const CACHE_KIB: i64 = 64 * 1024;
/// After how many pages the write-ahead log is worked into the file: 16 MiB. What is worked in more often is written more
/// often.
const CHECKPOINT_PAGES: i64 = 4096;

/// What goes wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    /// The folder cannot be made or written.
    #[error("the journal's folder {path} cannot be used: {cause}; give a folder that this user may write as `[journal] path`", path = path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's answer.
        cause: std::io::Error,
    },
    /// Another process writes it.
    #[error(
        "the journal {path} is in use by another process; the sqlite journal serves one instance: stop the other one, \
         or give this one a folder and a consumer group of its own",
        path = path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing to be read.
    #[error("there is no journal {path}; check `[journal] path`, which is relative to the working directory", path = path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// There is something where nothing may be.
    #[error("{path} is there already, and is not overwritten; give the name of a new file, or move it away", path = path.display())]
    Occupied {
        /// The file.
        path: PathBuf,
    },
    /// An entry in it is damaged, missing or of another version.
    #[error("the journal {path} is damaged and is not used: {what}; {REPAIR}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
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
    #[error("an entry cannot be encoded: {0}")]
    Encode(#[from] CodecError),
}

impl SqliteError {
    fn is_disk_full(&self) -> bool {
        let Self::Sqlite { cause, .. } = self else { return false };
        cause.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
    }
}

/// The ways out of a damaged journal.
const REPAIR: &str = "put a backup of the folder in its place (`customer-reach journal backup` makes them): it catches up \
                      from Kafka by itself; or move the folder away and give another `[kafka] group`, to count anew from \
                      the start of the topics";

/// A journal that this process writes.
#[derive(Debug)]
pub struct SqliteJournal {
    connection: Connection,
    path: PathBuf,
    id: String,
    is_behind: bool,
    written: Written,
    /// Held for as long as the journal is open.
    _lock: File,
}

impl SqliteJournal {
    /// Opens the journal in a folder, or makes it.
    ///
    /// # Errors
    /// When the folder cannot be used or the file is in use or damaged.
    pub fn open(folder: &Path) -> Result<Self, SqliteError> {
        let path = folder.join(FILE);
        let lock = super::lock(folder, LOCK).map_err(|error| match error {
            std::fs::TryLockError::Error(cause) => SqliteError::Folder { path: folder.to_owned(), cause },
            std::fs::TryLockError::WouldBlock => SqliteError::InUse { path: path.clone() },
        })?;
        let open = || -> rusqlite::Result<(String, bool, Connection)> {
            let mut connection = connect(&path)?;
            earlier::upgrade(&mut connection)?;
            let marks = "SELECT count(*) FROM meta WHERE name = ?";
            let is_behind = connection.query_row(marks, [BACKUP], |row| row.get(0))?;
            Ok((journal_id(&connection)?, is_behind, connection))
        };
        let (id, is_behind, connection) = open().map_err(|cause| at(&path, cause))?;
        Ok(Self { connection, path, id, is_behind, written: Written::default(), _lock: lock })
    }

    /// Reads the ledger of a journal that is there, as of its last commit, and leaves the journal as it is.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn read(folder: &Path, settings: Settings) -> Result<Ledger, SqliteError> {
        let (path, connection) = connect_to_read(folder)?;
        // One snapshot for all that is read.
        connection.execute_batch("BEGIN").map_err(|cause| at(&path, cause))?;
        restore(&connection, &path, settings)
    }

    /// Copies the journal as of its last commit into a new folder, whether or not a process writes it.
    ///
    /// # Errors
    /// When there is no journal, the folder has one already, or cannot be written.
    pub fn backup(folder: &Path, target: &Path) -> Result<PathBuf, SqliteError> {
        let (_, connection) = connect_to_read(folder)?;
        std::fs::create_dir_all(target).map_err(|cause| SqliteError::Folder { path: target.to_owned(), cause })?;
        let copy = target.join(FILE);
        if copy.exists() {
            return Err(SqliteError::Occupied { path: copy });
        }
        let write = || -> rusqlite::Result<()> {
            connection.execute("VACUUM INTO ?", [copy.to_string_lossy()])?;
            Connection::open(&copy)?.execute("INSERT OR REPLACE INTO meta VALUES (?, '')", [BACKUP])?;
            Ok(())
        };
        write().map_err(|cause| at(&copy, cause))?;
        Ok(copy)
    }

    /// The journal's lasting identity.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether it was put back from a backup and has not caught up yet: more may have been shown than it holds.
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Takes notice that it holds all that was ever shown.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn catch_up(&mut self) -> Result<(), SqliteError> {
        if self.is_behind {
            let removed = self.connection.execute("DELETE FROM meta WHERE name = ?", [BACKUP]);
            removed.map_err(|cause| at(&self.path, cause))?;
            self.is_behind = false;
        }
        Ok(())
    }

    /// Reads everything back.
    ///
    /// # Errors
    /// When an entry is damaged or missing, or the file cannot be read.
    pub fn restore(&mut self, settings: Settings) -> Result<Ledger, SqliteError> {
        let ledger = restore(&self.connection, &self.path, settings)?;
        self.written = Written::all(&ledger);
        Ok(ledger)
    }

    /// Writes what changed, in one transaction that is on disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written; nothing of it is then.
    pub fn commit(&mut self, ledger: &Ledger) -> Result<(), SqliteError> {
        if let Err(error) = self.write(ledger) {
            if error.is_disk_full() {
                self.give_back();
            }
            return Err(error);
        }
        self.written = Written::all(ledger);
        Ok(())
    }

    fn write(&mut self, ledger: &Ledger) -> Result<(), SqliteError> {
        let sqlite = |cause| at(&self.path, cause);
        let transaction = self.connection.transaction().map_err(sqlite)?;
        let mut insertion = Insertion::new(&transaction).map_err(sqlite)?;
        self.written.missing(ledger, |entry| insertion.insert(entry).map_err(sqlite))?;
        drop(insertion);
        transaction.commit().map_err(sqlite)
    }

    /// Works the write-ahead log into the file and truncates it, so that a full disk has room again.
    fn give_back(&self) {
        let checkpoint = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = checkpoint {
            tracing::warn!(%error, journal = %self.path.display(), "the write-ahead log cannot be truncated");
        }
    }

    /// Writes everything that a ledger holds into a journal that is empty, if `agree`, called at last, succeeds as well.
    ///
    /// # Errors
    /// When the journal holds something or cannot be written, and that of `agree`; nothing is written then.
    pub fn fill<E: From<SqliteError>>(
        &mut self,
        ledger: &Ledger,
        agree: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let sqlite = |cause| at(&self.path, cause);
        let entries: i64 =
            self.connection.query_row("SELECT count(*) FROM entry", [], |row| row.get(0)).map_err(sqlite)?;
        if entries > 0 {
            return Err(SqliteError::Occupied { path: self.path.clone() }.into());
        }
        let transaction = self.connection.transaction().map_err(sqlite)?;
        let mut insertion = Insertion::new(&transaction).map_err(sqlite)?;
        entry::all(ledger, |entry| insertion.insert(entry).map_err(sqlite))?;
        drop(insertion);
        // A full disk shows itself before the others agree.
        transaction.cache_flush().map_err(sqlite)?;
        agree()?;
        Ok(transaction.commit().map_err(sqlite)?)
    }
}

fn restore(connection: &Connection, path: &Path, settings: Settings) -> Result<Ledger, SqliteError> {
    let sqlite = |cause| at(path, cause);
    if let Some(ledger) = earlier::read(connection, settings).map_err(sqlite)? {
        return Ok(ledger);
    }
    check(connection, path)?;
    let mut restoring = Restoring::new(settings);
    each_row(connection, path, "SELECT key, value FROM entry", |row| Ok(restoring.take(blob(row, 0)?, blob(row, 1)?)))?;
    if has_table(connection, "ticket_entry").map_err(sqlite)? {
        // Not by the highest number, which may be damaged.
        let count: i64 =
            connection.query_row("SELECT count(*) FROM ticket_entry", [], |row| row.get(0)).map_err(sqlite)?;
        restoring.reserve(usize::try_from(count).unwrap_or_default());
        each_row(connection, path, "SELECT number, key, value FROM ticket_entry ORDER BY number", |row| {
            Ok(restoring.take_ticket(row.get(0)?, blob(row, 1)?, blob(row, 2)?))
        })?;
    }
    restoring.finish().map_err(|damage| damaged(path, &damage))
}

/// Shows the rows of a query one after the other, up to the first that is damaged.
fn each_row(
    connection: &Connection,
    path: &Path,
    query: &str,
    mut take: impl FnMut(&Row<'_>) -> rusqlite::Result<Result<(), Damage>>,
) -> Result<(), SqliteError> {
    let sqlite = |cause| at(path, cause);
    let mut statement = connection.prepare(query).map_err(sqlite)?;
    let mut rows = statement.query([]).map_err(sqlite)?;
    while let Some(row) = rows.next().map_err(sqlite)? {
        take(row).map_err(sqlite)?.map_err(|damage| damaged(path, &damage))?;
    }
    Ok(())
}

fn damaged(path: &Path, damage: &Damage) -> SqliteError {
    SqliteError::Damaged { path: path.to_owned(), what: damage.to_string() }
}

fn blob<'r>(row: &'r Row<'_>, column: usize) -> rusqlite::Result<&'r [u8]> {
    Ok(row.get_ref(column)?.as_blob()?)
}

/// Looks whether the file holds together: an entry that a damaged page no longer leads to would go unnoticed.
fn check(connection: &Connection, path: &Path) -> Result<(), SqliteError> {
    let found: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(|cause| at(path, cause))?;
    match found.as_str() {
        "ok" => Ok(()),
        what => Err(SqliteError::Damaged { path: path.to_owned(), what: what.replace('\n', " ") }),
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}

/// Opens the file to read it beside a process that writes it.
fn connect_to_read(folder: &Path) -> Result<(PathBuf, Connection), SqliteError> {
    let path = folder.join(FILE);
    if !path.exists() {
        return Err(SqliteError::Missing { path });
    }
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        Ok(connection)
    };
    let connection = open().map_err(|cause| at(&path, cause))?;
    Ok((path, connection))
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

fn at(path: &Path, cause: rusqlite::Error) -> SqliteError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    let path = path.to_owned();
    match cause.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => SqliteError::Damaged { path, what: cause.to_string() },
        _ => SqliteError::Sqlite { path, cause },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Held, PartitionState, Slot, TicketKey};
    use crate::outcome::Outcome;
    use crate::record::Partition;
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
    fn a_journal_is_filled_once_and_only_with_everybodys_consent() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = SqliteJournal::open(folder.path()).unwrap();
        let mut ledger = Ledger::new(Settings::default());
        fill(&mut ledger);
        let refused = || Err(SqliteError::Occupied { path: "elsewhere".into() });
        assert!(journal.fill(&ledger, refused).unwrap_err().to_string().contains("elsewhere"));
        assert_eq!(all(&journal.restore(Settings::default()).unwrap()), []);
        journal.fill(&ledger, || Ok::<_, SqliteError>(())).unwrap();
        assert_eq!(all(&journal.restore(Settings::default()).unwrap()), all(&ledger));
        assert!(matches!(journal.fill(&ledger, || Ok(())), Err(SqliteError::Occupied { .. })));
    }

    #[test]
    fn a_restored_ledger_is_the_one_that_was_committed() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = SqliteJournal::open(folder.path()).unwrap();
        let id = journal.id().to_owned();
        let mut ledger = journal.restore(Settings::default()).unwrap();
        fill(&mut ledger);
        journal.commit(&ledger).unwrap();
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
    fn a_journal_whose_tickets_stood_among_the_other_entries_is_read_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = SqliteJournal::open(folder.path()).unwrap();
        let mut ledger = journal.restore(Settings::default()).unwrap();
        fill(&mut ledger);
        journal.commit(&ledger).unwrap();
        let before = "INSERT INTO entry SELECT key, value FROM ticket_entry; DROP TABLE ticket_entry";
        journal.connection.execute_batch(before).unwrap();
        drop(journal);
        assert_eq!(all(&SqliteJournal::read(folder.path(), Settings::default()).unwrap()), all(&ledger));

        let mut journal = SqliteJournal::open(folder.path()).unwrap();
        let mut ledger = journal.restore(Settings::default()).unwrap();
        let number = ledger.partition(&Partition { topic: "t".into(), number: 3 });
        for (offset, key) in [(3, "new"), (4, "b")] {
            let outcome = ledger.apply("s", number, 9, &ticket(key, 2, State::Open), Findings::default());
            ledger.finish_record(number, offset, Some(9), outcome);
        }
        journal.commit(&ledger).unwrap();
        let restored = journal.restore(Settings::default()).unwrap();
        assert_eq!(all(&restored), all(&ledger));
        assert_eq!(restored.slot_count(), 4);
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
            journal.commit(&ledger).unwrap();
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
    fn a_journal_is_read_and_copied_as_of_its_last_commit_while_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let read = |folder: &Path| SqliteJournal::read(folder, Settings::default());
        assert!(read(folder.path()).unwrap_err().to_string().contains("check `[journal] path`"));
        let mut journal = SqliteJournal::open(folder.path()).unwrap();
        let mut ledger = journal.restore(Settings::default()).unwrap();
        fill(&mut ledger);
        journal.commit(&ledger).unwrap();
        assert_eq!(all(&read(folder.path()).unwrap()), all(&ledger));
        let copy = folder.path().join("copy");
        SqliteJournal::backup(folder.path(), &copy).unwrap();
        assert!(SqliteJournal::backup(folder.path(), &copy).unwrap_err().to_string().contains("not overwritten"));

        let number = ledger.partition(&Partition { topic: "t".into(), number: 3 });
        ledger.apply("s", number, 9, &ticket("later", 1, State::Open), Findings::default());
        journal.commit(&ledger).unwrap();
        assert_eq!(all(&read(folder.path()).unwrap()).len(), 4);
        let restored = SqliteJournal::open(&copy).unwrap().restore(Settings::default()).unwrap();
        assert_eq!(all(&restored).len(), 3);
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
        journal.commit(&ledger).unwrap();
        let mut restored = journal.restore(settings).unwrap();
        let outcome = restored.apply("s", number, 101, &ticket("a", 2, State::Open), Findings::default());
        assert_eq!(outcome, Outcome::Late);
    }

    #[test]
    fn a_second_process_is_refused_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let _first = SqliteJournal::open(folder.path()).unwrap();
        let error = SqliteJournal::open(folder.path()).unwrap_err();
        assert!(matches!(error, SqliteError::InUse { .. }), "{error}");
        assert!(error.to_string().contains("a folder and a consumer group of its own"));
    }

    #[test]
    fn damage_stops_the_start_with_the_way_out() {
        let damages = [
            ("checksum", "UPDATE entry SET value = CAST(substr(value, 1, 6) || x'00' || substr(value, 8) AS BLOB)"),
            ("checksum", "UPDATE ticket_entry SET key = x'6b0102030405060708090a0b0c0d0e0f10' WHERE number = 3"),
            ("the tickets: 2 are there, 3 were written", "DELETE FROM ticket_entry WHERE number = 3"),
            ("the tickets: 1 are there, 2 were written", "DELETE FROM ticket_entry WHERE number = 1"),
            (
                "the tickets: 3 are there, 4294967296 were written",
                "UPDATE ticket_entry SET number = 4294967296 WHERE number = 3",
            ),
            ("the tickets: 1 are there, 0 were written", "UPDATE ticket_entry SET number = -1 WHERE number = 1"),
            (
                "the tickets: 3 are there, 4 were written",
                "INSERT INTO ticket_entry SELECT 4, key, value FROM ticket_entry WHERE number = 1",
            ),
            (
                "the series of t[3]",
                "DELETE FROM entry WHERE key = (SELECT min(key) FROM entry WHERE substr(key, 1, 1) = x'63')",
            ),
            ("partition 0", "DELETE FROM entry WHERE substr(key, 1, 1) = x'70'"),
            ("team 2", "DELETE FROM entry WHERE key = x'7400000002'"),
        ];
        for (expected, damage) in damages {
            let folder = tempfile::tempdir().unwrap();
            let mut journal = SqliteJournal::open(folder.path()).unwrap();
            let mut ledger = journal.restore(Settings::default()).unwrap();
            fill(&mut ledger);
            journal.commit(&ledger).unwrap();
            assert!(journal.connection.execute(damage, []).unwrap() > 0, "{damage}");
            let error = journal.restore(Settings::default()).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("put a backup of the folder in its place"), "{error}");
        }
    }
}
