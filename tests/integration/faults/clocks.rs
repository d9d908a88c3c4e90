//! Clocks that are set back.

use crate::fleet::{Fleet, Journal};
use crate::support::*;

#[test]
fn times_of_records_that_go_backwards_change_nothing_with_a_journal_in_a_file() {
    times_go_backwards(Journal::Sqlite);
}

#[test]
fn times_of_records_that_go_backwards_change_nothing_with_a_journal_in_topics() {
    times_go_backwards(Journal::Kafka);
}

fn times_go_backwards(journal: Journal) {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique(&format!("backwards-{}", journal.name()));
    broker.create_timeless_topic(&topic, 2);
    let messages = invented(161, 600);
    let mut fleet = Fleet::new(&broker.address, &topic, journal, 1);
    fleet.start(0);
    // Each record is from a minute before the one that stands before it, and now and then from 1970.
    let start: i64 = 1_800_000_000_000;
    let time = |number: usize| if number % 50 == 49 { 0 } else { start - number as i64 * 60_000 };
    let timed: Vec<_> = messages.iter().cloned().enumerate().map(|(n, message)| (None, time(n), message)).collect();
    broker.produce_timed(&topic, &timed[..300]);
    fleet.wait_for_at_least(300);
    fleet.kill(0);
    fleet.start(0);
    broker.produce_timed(&topic, &timed[300..]);
    fleet.assert_counted(&messages);
    fleet.end();
}

/// The wall clock is the process's own, by libfaketime; how long something took is measured as ever. The ledger's time
/// comes with the tickets, so there is nothing that could be switched off. With the journal in topics it cannot be tried so:
/// libfaketime does not know C11's `cnd_timedwait`, so that each of librdkafka's waits for a transaction is over at once.
#[test]
fn a_process_whose_clock_is_set_back_counts_on() {
    let Some(broker) = Broker::shared() else { return };
    let Some(library) = given("CUSTOMER_REACH_TEST_FAKETIME") else { return };
    let topic = unique("clock");
    broker.create_topic(&topic, 2);
    let messages = invented(162, 900);
    let mut fleet = Fleet::new(&broker.address, &topic, Journal::Sqlite, 1);
    let offset = fleet.config(0).with_file_name("offset");
    let set_clock = |to: &str| {
        let new = offset.with_extension("new");
        std::fs::write(&new, to).unwrap();
        std::fs::rename(&new, &offset).unwrap();
    };
    set_clock("+0");
    fleet.set_environment(vec![
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", offset.to_string_lossy().into_owned()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]);
    fleet.start(0);
    broker.produce(&topic, &messages[..300]);
    fleet.wait_for_at_least(300);
    let clock = |fleet: &Fleet| fleet.instance(0).metrics()["customer_reach_last_progress_timestamp_seconds"];
    let before = clock(&fleet);
    set_clock("-2h");
    broker.produce(&topic, &messages[300..600]);
    fleet.wait_for_at_least(600);
    assert!(clock(&fleet) < before - 7_000.0, "it takes the time from the clock that is set back");
    set_clock("-30d");
    fleet.kill(0);
    fleet.start(0);
    broker.produce(&topic, &messages[600..]);
    fleet.assert_counted(&messages);
    fleet.end();
}
