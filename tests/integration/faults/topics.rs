//! Topics that are deleted and made anew.

use std::ops::RangeInclusive;

use crate::fleet::{Fleet, Journal};
use crate::support::*;

#[test]
fn a_topic_made_anew_while_stopped_is_refused_with_a_journal_in_topics_as_well() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("anew-stopped");
    broker.create_topic(&topic, 1);
    let mut fleet = Fleet::new(&broker.address, &topic, Journal::Kafka, 1);
    fleet.start(0);
    broker.produce(&topic, &invented(71, 50));
    fleet.wait_for_at_least(50);
    fleet.terminate(0);
    make_anew(&broker, &topic, 10);
    fleet.start(0);
    assert_refused(&fleet.ended(0), &topic, 10..=10);
}

#[test]
fn a_topic_made_anew_that_has_grown_past_the_position_is_refused_with_a_file() {
    made_anew_and_grown(Journal::Sqlite);
}

#[test]
fn a_topic_made_anew_that_has_grown_past_the_position_is_refused_with_topics() {
    made_anew_and_grown(Journal::Kafka);
}

fn made_anew_and_grown(journal: Journal) {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique(&format!("anew-grown-{}", journal.name()));
    broker.create_topic(&topic, 1);
    let mut fleet = Fleet::new(&broker.address, &topic, journal, 1);
    fleet.start(0);
    broker.produce(&topic, &invented(74, 50));
    fleet.wait_for_at_least(50);
    fleet.terminate(0);
    make_anew(&broker, &topic, 60);
    fleet.start(0);
    let log = fleet.ended(0);
    let reason = format!("the record before offset 50 of {topic}[0] is of ");
    assert!(log.contains(&reason) && log.contains("start with another `[kafka] group` and `[journal] path`"), "{log}");
}

#[test]
fn a_topic_made_anew_under_a_running_instance_with_a_file_is_refused() {
    made_anew_while_running(Journal::Sqlite);
}

#[test]
fn a_topic_made_anew_under_a_running_instance_with_topics_is_refused() {
    made_anew_while_running(Journal::Kafka);
}

fn made_anew_while_running(journal: Journal) {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique(&format!("anew-{}", journal.name()));
    broker.create_topic(&topic, 1);
    let often = "\"topic.metadata.refresh.interval.ms\" = 500";
    let mut fleet = Fleet::with(&broker.address, &topic, journal, 1, often);
    fleet.start(0);
    broker.produce(&topic, &invented(72, 50));
    fleet.wait_for_at_least(50);
    make_anew(&broker, &topic, 10);
    // It may be looked at before all of the new records are there.
    assert_refused(&fleet.ended(0), &topic, 0..=10);
}

fn make_anew(broker: &Broker, topic: &str, records: usize) {
    broker.delete_topic(topic);
    broker.create_topic(topic, 1);
    broker.produce(topic, &invented(73, records));
}

/// `ends` are those that the topic may have had when it was looked at.
fn assert_refused(log: &str, topic: &str, mut ends: RangeInclusive<i64>) {
    let is_given = |end| log.contains(&format!("{topic}[0] ends at offset {end}, but the journal has read up to 50"));
    let way_out = "start with another `[kafka] group` and `[journal] path`";
    assert!(ends.any(is_given) && log.contains(way_out), "{log}");
}
