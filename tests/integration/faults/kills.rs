//! `kill -9`, again and again.

use crate::fleet::{Fleet, Journal, Shown};
use crate::support::*;

/// How often.
const KILLS: usize = 50;

#[test]
fn a_journal_in_topics_counts_what_a_recount_says_with_one_instance_and_with_three() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("several");
    broker.create_topic(&topic, 4);
    let messages = invented(21, 4_000);
    let mut fleet = Fleet::new(&broker.address, &topic, Journal::Kafka, 3);
    fleet.start(0);
    broker.produce(&topic, &messages[..2_000]);
    fleet.assert_counted(&messages[..2_000]);

    fleet.start(1);
    fleet.start(2);
    fleet.wait_for_partitions(&[1, 1, 2]);
    broker.produce(&topic, &messages[2_000..]);
    let shared = fleet.assert_counted(&messages);
    fleet.end();
    assert_eq!(shared, undisturbed(&broker, &topic, Journal::Kafka, messages.len()));
}

#[test]
fn an_instance_killed_fifty_times_counts_what_an_undisturbed_one_counts() {
    killed_fifty_times(Journal::Sqlite, 1);
}

#[test]
fn three_instances_killed_fifty_times_count_what_an_undisturbed_one_counts() {
    killed_fifty_times(Journal::Kafka, 3);
}

fn killed_fifty_times(journal: Journal, instances: usize) {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique(&format!("killed-{}", journal.name()));
    broker.create_topic(&topic, 4);
    let messages = invented(2, 200 * KILLS);
    let mut fleet = Fleet::new(&broker.address, &topic, journal, instances);
    fleet.start_all();
    let mut random = Random::new(3);
    for part in messages.chunks(messages.len() / KILLS) {
        let before = fleet.records();
        broker.produce(&topic, part);
        fleet.wait_for_at_least(before + random.below(part.len() as u64) as usize);
        let victim = random.below(instances as u64) as usize;
        fleet.kill(victim);
        fleet.start(victim);
    }
    let shown = fleet.assert_counted(&messages);
    fleet.end();
    assert_eq!(shown, undisturbed(&broker, &topic, journal, messages.len()));
}

/// What an instance shows that reads the topic for itself, from its beginning to its end.
fn undisturbed(broker: &Broker, topic: &str, journal: Journal, count: usize) -> Shown {
    let fleet = Fleet::new(&broker.address, topic, journal, 1);
    let group = format!("kafka.group={topic}-undisturbed");
    let instance = Instance::start(fleet.config(0), &[&group]);
    instance.wait_for_records(topic, count);
    let shown = instance.ledger_metrics();
    assert!(instance.terminate());
    shown
}
