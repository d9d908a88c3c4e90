//! Topics that get more partitions.

use crate::fleet::{Fleet, Journal};
use crate::support::*;

/// New partitions are noticed soon.
const OFTEN: &str = "\"topic.metadata.refresh.interval.ms\" = 500";

/// Tried without: when it did not ask for them, it ended 10 s after its restart and blamed another member.
#[test]
fn partitions_that_are_added_are_counted_with_a_journal_in_a_file() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("grown-file");
    broker.create_topic(&topic, 2);
    let messages = invented(81, 1_500);
    let mut fleet = Fleet::with(&broker.address, &topic, Journal::Sqlite, 1, OFTEN);
    fleet.start(0);
    broker.produce(&topic, &messages[..500]);
    fleet.assert_counted(&messages[..500]);
    // While it runs, and then while it is stopped. Tickets change their partitions; the one ledger does not mind.
    broker.grow_topic(&topic, 3);
    broker.produce(&topic, &messages[500..1_000]);
    fleet.wait_for_at_least(1_000);
    fleet.terminate(0);
    broker.grow_topic(&topic, 5);
    broker.produce(&topic, &messages[1_000..]);
    fleet.start(0);
    fleet.wait_for_at_least(1_500);
    let shown = fleet.look();
    assert_eq!(Recount::shown(&shown, &topic), Recount::of(&messages));
    // An audit vouches for tickets that came by one partition; of the others it compares what is left.
    let (code, report, log) = audit(fleet.config(0), &[]);
    assert_eq!(code, Some(0), "{report}{log}");
    fleet.end();
}

/// Tried with a look at the metadata that librdkafka refreshes alone, by default every five minutes: what came meanwhile was
/// counted, and the audit was not exact.
#[test]
fn nothing_is_counted_that_came_after_partitions_were_added_with_a_journal_in_topics() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("grown-moved");
    broker.create_topic(&topic, 2);
    let messages = invented(84, 1_500);
    let mut fleet = Fleet::new(&broker.address, &topic, Journal::Kafka, 1);
    fleet.start(0);
    broker.produce(&topic, &messages[..1_000]);
    fleet.assert_counted(&messages[..1_000]);
    broker.grow_topic(&topic, 3);
    broker.produce(&topic, &messages[1_000..]);
    let log = fleet.ended(0);
    assert!(log.contains("has 3 partitions, its journal") && log.contains("rekey = true"), "{log}");
    assert_exact(fleet.config(0), &messages[..1_000]);
}

#[test]
fn partitions_that_are_added_while_stopped_are_refused_with_a_journal_in_topics() {
    grown(true);
}

#[test]
fn partitions_that_are_added_while_running_are_refused_with_a_journal_in_topics() {
    grown(false);
}

fn grown(while_stopped: bool) {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique(if while_stopped { "grown-stopped" } else { "grown-running" });
    broker.create_topic(&topic, 2);
    let messages = invented(82, 1_000);
    let mut fleet = Fleet::with(&broker.address, &topic, Journal::Kafka, 2, OFTEN);
    fleet.start_all();
    broker.produce(&topic, &messages);
    fleet.assert_counted(&messages);
    if while_stopped {
        fleet.terminate(0);
        fleet.terminate(1);
    }
    broker.grow_topic(&topic, 4);
    broker.produce(&topic, &invented(83, 100));
    if while_stopped {
        fleet.start_all();
    }
    for number in 0..2 {
        let log = fleet.ended(number);
        let reason = format!("`{topic}` has 4 partitions, its journal `{topic}-{topic}-journal` has 2");
        assert!(log.contains(&reason) && log.contains("rekey = true"), "{log}");
    }
}
