//! A journal that an earlier version wrote.
//!
//! `tests/fixtures/journal-0.1/` holds one, of invented records, with the records as `kcat -C -J` shows them. The ignored
//! test below wrote it, with the program of a version that still had record format 1:
//!
//!     CUSTOMER_REACH_TEST_PROGRAM=EARLIER tests/run --test integration writes_the_fixture -- --ignored

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::fleet::{Fleet, Journal};
use crate::support::*;

const TOPIC: &str = "upgrade";
const PARTITIONS: i32 = 2;
/// Records in the fixture.
const COUNT: usize = 400;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/journal-0.1")
}

#[test]
fn the_journal_of_an_earlier_version_is_rewritten_audited_and_goes_on() {
    let Some(broker) = Broker::shared() else { return };
    let messages = invented(151, COUNT + 200);
    broker.create_timeless_topic(TOPIC, PARTITIONS);
    let mut fleet = Fleet::new(&broker.address, TOPIC, Journal::Sqlite, 1);
    std::fs::create_dir(fleet.state(0)).unwrap();
    std::fs::copy(fixture().join("journal.sqlite"), fleet.state(0).join("journal.sqlite")).unwrap();

    // It can be audited as it is, without the topic.
    let dump = fixture().join("records.ndjson");
    let (code, report, log) = audit(fleet.config(0), &["--format", "json", dump.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{report}{log}");
    assert_eq!(report.parse::<Value>().unwrap()["exact"], true, "{report}");

    // The topic as it was then.
    let mut records: Vec<_> = std::fs::read_to_string(dump).unwrap().lines().map(record_of).collect();
    records.sort_by_key(|(offset, _)| *offset);
    let records: Vec<_> = records.into_iter().map(|(_, record)| record).collect();
    broker.produce_timed(TOPIC, &records);
    fleet.start(0);
    fleet.instance(0).says("the journal of an earlier version was rewritten");
    fleet.assert_counted(&messages[..COUNT]);
    // What comes then comes soon after, whenever this runs: no ticket has left memory meanwhile.
    let last = records.iter().map(|(_, time, _)| *time).max().unwrap();
    let later: Vec<_> = messages[COUNT..].iter().map(|message| (None, last + 1, message.clone())).collect();
    broker.produce_timed(TOPIC, &later);
    fleet.assert_counted(&messages);
    fleet.end();
}

/// The offset of a record in the dump, and the record.
fn record_of(line: &str) -> (i64, (Option<i32>, i64, Message)) {
    let line: Value = line.parse().unwrap();
    let number = |name: &str| line[name].as_i64().unwrap();
    let message =
        Message { key: line["key"].as_str().unwrap().to_owned(), value: line["payload"].as_str().map(str::to_owned) };
    (number("offset"), (Some(number("partition") as i32), number("ts"), message))
}

#[test]
#[ignore = "only to write the fixture, with the program of an earlier version"]
fn writes_the_fixture() {
    let Some(broker) = Broker::shared() else { return };
    broker.create_timeless_topic(TOPIC, PARTITIONS);
    let mut fleet = Fleet::new(&broker.address, TOPIC, Journal::Sqlite, 1);
    fleet.start(0);
    broker.produce(TOPIC, &invented(151, COUNT + 200)[..COUNT]);
    fleet.wait_for_at_least(COUNT);
    fleet.terminate(0);
    let mut lines = String::new();
    for partition in 0..PARTITIONS {
        for (record, offset) in broker.read_bytes_of(TOPIC, partition).iter().zip(0..) {
            let text = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| String::from_utf8(bytes.clone()).unwrap());
            let (key, payload) = (text(&record.key), text(&record.value));
            let line = json!({
                "topic": TOPIC, "partition": partition, "offset": offset, "tstype": "create", "ts": record.timestamp,
                "key": key, "payload": payload,
            });
            writeln!(lines, "{line}").unwrap();
        }
    }
    std::fs::create_dir_all(fixture()).unwrap();
    std::fs::write(fixture().join("records.ndjson"), lines).unwrap();
    std::fs::copy(fleet.state(0).join("journal.sqlite"), fixture().join("journal.sqlite")).unwrap();
}
