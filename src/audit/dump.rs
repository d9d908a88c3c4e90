//! Records of Kafka in files, as `kcat -C -J` writes them: one JSON object a line, with topic, partition and offset.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;

use crate::record::{Partition, Record};
use crate::source::dump::{Dump, Format};

/// One line.
#[derive(Deserialize)]
struct Line {
    topic: String,
    partition: i32,
    offset: i64,
    #[serde(default)]
    ts: Option<i64>,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    payload: Option<String>,
    /// Names and values by turns.
    #[serde(default)]
    headers: Vec<String>,
}

/// All records of all dumps, in order; one that is there twice is there once.
///
/// # Errors
/// When a dump cannot be read, or a line is not what kcat writes.
pub fn records(dumps: &[PathBuf]) -> anyhow::Result<BTreeMap<(Partition, i64), Record>> {
    let mut records = BTreeMap::new();
    for path in dumps {
        read(path, &mut records).with_context(|| path.display().to_string())?;
    }
    Ok(records)
}

fn read(path: &Path, records: &mut BTreeMap<(Partition, i64), Record>) -> anyhow::Result<()> {
    for row in Dump::open(path, Some(Format::Ndjson))? {
        let row = row?;
        let line: Line = serde_json::from_slice(row.value.as_deref().unwrap_or_default()).with_context(|| {
            format!(
                "row {} does not say which record it is: an audit needs topic, partition and offset of each, as \
                 `kcat -C -J -e -t TOPIC` writes them",
                row.offset
            )
        })?;
        let record = line.record();
        records.insert((record.partition.clone(), record.offset), record);
    }
    Ok(())
}

impl Line {
    fn record(self) -> Record {
        let header = |pair: &[String]| match pair {
            [name, value] => Some((name.clone(), value.clone().into_bytes())),
            _ => None,
        };
        Record {
            partition: Partition { topic: self.topic.into(), number: self.partition },
            offset: self.offset,
            timestamp: self.ts,
            key: self.key.map(String::into_bytes),
            headers: self.headers.chunks(2).filter_map(header).collect(),
            value: self.payload.map(String::into_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(lines: &str) -> anyhow::Result<BTreeMap<(Partition, i64), Record>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("dump.ndjson");
        std::fs::write(&path, lines)?;
        records(&[path.clone(), path])
    }

    #[test]
    fn records_stand_where_they_stood_in_kafka() {
        let records = dump(concat!(
            r#"{"topic":"t","partition":1,"offset":7,"tstype":"create","ts":5,"broker":0,"headers":["a","b"],"key":"k","payload":"{}"}"#,
            "\n",
            r#"{"topic":"t","partition":0,"offset":9,"tstype":"create","ts":6,"broker":0,"key":null,"payload":null}"#,
            "\n"
        ));
        let records: Vec<Record> = records.unwrap().into_values().collect();
        let [tombstone, event] = &records[..] else { panic!("{records:?}") };
        assert_eq!((tombstone.offset, tombstone.partition.number, &tombstone.value), (9, 0, &None));
        assert_eq!(
            (event.timestamp, event.key.as_deref(), event.header("A")),
            (Some(5), Some(&b"k"[..]), Some(&b"b"[..]))
        );
        assert_eq!(event.value.as_deref(), Some(&b"{}"[..]));
    }

    #[test]
    fn a_row_without_its_position_is_refused_with_the_way_out() {
        let error = dump("{\"id\":\"INC1\"}\n").unwrap_err();
        assert!(format!("{error:#}").contains("kcat -C -J -e -t TOPIC"), "{error:#}");
    }
}
