//! The sqlite journal as versions before 0.2 wrote it (record format 1), read and rewritten as entries; and as it was before
//! tickets had a table of their own.

use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::types::Type;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::codec;
use super::entry;
use super::tables::{Insertion, has_table};
use crate::ledger::{Counters, Fresh, Ledger, PartitionState, Settings, Slot, TicketKey};
use crate::record::Partition;

/// The format of its records.
const FORMAT: u8 = 1;

/// What it stored of a partition besides its name.
#[derive(Deserialize)]
struct StoredPartition {
    next_offset: i64,
    watermark: i64,
    counters: Counters,
}

/// Rewrites a journal of either kind in one transaction; leaves any other as it is.
pub fn upgrade(connection: &mut Connection) -> rusqlite::Result<()> {
    let Some(ledger) = read(connection, Settings::default())? else { return number_tickets(connection) };
    let transaction = connection.transaction()?;
    let mut insertion = Insertion::new(&transaction)?;
    entry::all(&ledger, |entry| insertion.insert(entry).map_err(Failed::from)).map_err(|Failed(error)| error)?;
    drop(insertion);
    transaction.execute_batch("DROP TABLE ticket; DROP TABLE partition; DROP TABLE label;")?;
    transaction.commit()?;
    tracing::info!(tickets = ledger.slot_count(), "the journal of an earlier version was rewritten");
    Ok(())
}

/// Gives tickets that stand among the other entries a table of their own.
fn number_tickets(connection: &mut Connection) -> rusqlite::Result<()> {
    const TICKETS: &str = "FROM entry WHERE key >= x'6b' AND key < x'6c'";
    if !connection.query_row(&format!("SELECT EXISTS (SELECT 1 {TICKETS})"), [], |row| row.get(0))? {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    transaction.execute_batch(&format!(
        "INSERT INTO ticket_entry (key, value) SELECT key, value {TICKETS}; DELETE {TICKETS}"
    ))?;
    transaction.commit()
}

/// The ledger of a journal of record format 1; `None` for any other.
pub fn read(connection: &Connection, settings: Settings) -> rusqlite::Result<Option<Ledger>> {
    if !has_table(connection, "partition")? {
        return Ok(None);
    }
    let mut ledger = Ledger::new(settings);
    ledger.restore_labels(&labels(connection, "team")?, &labels(connection, "service")?);
    let mut partitions = connection.prepare("SELECT topic, partition, record FROM partition ORDER BY number")?;
    let mut rows = partitions.query([])?;
    while let Some(row) = rows.next()? {
        let stored: StoredPartition = decode(row.get_ref(2)?.as_blob()?)?;
        ledger.restore_partition(PartitionState {
            partition: Partition { topic: row.get::<_, String>(0)?.into(), number: row.get(1)? },
            next_offset: stored.next_offset,
            watermark: stored.watermark,
            counters: Arc::new(stored.counters),
            fresh: Arc::new(Fresh::default()),
        });
    }
    let mut tickets = connection.prepare("SELECT key, record FROM ticket")?;
    let slots = tickets.query_map([], |row| {
        let key = TicketKey(u128::from_be_bytes(row.get(0)?));
        let slot = match row.get_ref(1)?.as_blob_or_null()? {
            None => Slot::Retired,
            Some(record) => Slot::Held(decode(record)?),
        };
        Ok((key, slot))
    })?;
    ledger.restore_tickets(slots.collect::<rusqlite::Result<_>>()?);
    Ok(Some(ledger))
}

fn labels(connection: &Connection, dimension: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT name FROM label WHERE dimension = ? ORDER BY number")?;
    statement.query_map([dimension], |row| row.get(0))?.collect()
}

/// A value of format 1. What today's types have besides stands at their end and is one number, which postcard writes as
/// the byte 0 when it is 0.
fn decode<T: DeserializeOwned>(record: &[u8]) -> rusqlite::Result<T> {
    let read = || match codec::checked(b"", record)? {
        (FORMAT, body) => Ok(postcard::from_bytes(&[body, &[0]].concat())?),
        (found, _) => Err(codec::CodecError::Format { found }),
    };
    read().map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, Box::new(error)))
}

/// Either error of writing an entry, as SQLite's.
struct Failed(rusqlite::Error);

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Self(error)
    }
}

impl From<codec::CodecError> for Failed {
    fn from(error: codec::CodecError) -> Self {
        Self(rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
    }
}
