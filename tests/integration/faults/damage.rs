//! Journals in files that are truncated or have a wrong bit somewhere.

use std::path::Path;

use crate::fleet::{Fleet, Journal, Shown};
use crate::support::*;

const FILE: &str = "journal.sqlite";

/// Tried without: when the checksum was not looked at, damage went unnoticed.
#[test]
fn a_damaged_file_is_refused_with_the_way_out_or_shows_what_was_committed() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("damage");
    broker.create_topic(&topic, 2);
    let messages = invented(131, 600);
    let mut fleet = Fleet::new(&broker.address, &topic, Journal::Sqlite, 1);
    fleet.start(0);
    broker.produce(&topic, &messages);
    let shown = fleet.assert_counted(&messages);
    fleet.terminate(0);
    let good = std::fs::read(fleet.state(0).join(FILE)).unwrap();
    assert!(!fleet.state(0).join(format!("{FILE}-wal")).exists(), "an orderly end leaves one file");

    let (mut refused, mut harmless) = (0, 0);
    let mut try_it = |what: String, bytes: &[u8]| {
        for extra in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(fleet.state(0).join(format!("{FILE}{extra}")));
        }
        std::fs::write(fleet.state(0).join(FILE), bytes).unwrap();
        match outcome(fleet.config(0), &shown) {
            Outcome::Refused(message) => {
                let named = message.contains(FILE) && message.contains("put a backup of the folder in its place");
                assert!(named, "{what}: {message}");
                refused += 1;
            }
            Outcome::Same => harmless += 1,
        }
    };
    for part in 1..8 {
        try_it(format!("truncated to {part} eighths"), &good[..good.len() * part / 8]);
    }
    // The file's head and first page byte by byte in steps, and then everywhere.
    let mut random = Random::new(132);
    let places = (0..100).step_by(9).chain((0..50).map(|_| random.below(good.len() as u64) as usize));
    for place in places.collect::<Vec<_>>() {
        let mut bytes = good.clone();
        bytes[place] ^= 0x10;
        try_it(format!("byte {place} of {}", good.len()), &bytes);
    }
    // An empty file is what SQLite makes first: it is a new journal, and the group belongs to the one that is gone.
    std::fs::write(fleet.state(0).join(FILE), b"").unwrap();
    fleet.start(0);
    let log = fleet.ended(0);
    assert!(log.contains("belongs to another journal"), "{log}");
    assert!(refused > 20, "{refused} were refused, {harmless} were harmless");
}

enum Outcome {
    Refused(String),
    Same,
}

/// Starts an instance that reaches no brokers: what it shows is what it has read.
fn outcome(config: &Path, expected: &Shown) -> Outcome {
    let mut instance = Instance::spawn(config, &["kafka.brokers=127.0.0.1:1"], &[]);
    match instance.listens_or_ends() {
        Some(code) => {
            let (_, log) = instance.ended();
            assert_eq!(code, Some(1), "{log}");
            Outcome::Refused(log)
        }
        None => {
            assert_eq!(&instance.ledger_metrics(), expected, "damage went unnoticed");
            instance.kill();
            Outcome::Same
        }
    }
}
