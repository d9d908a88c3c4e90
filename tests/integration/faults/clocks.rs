//! Clocks that are set back. The process's own does not matter: but for two figures about itself, no code reads it, which
//! `clippy.toml` makes sure of.

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
