//! Records that are deleted before they were read.

use crate::fleet::{Fleet, Journal};
use crate::support::*;

#[test]
fn an_instance_with_a_file_goes_on_where_the_topic_begins_and_says_what_it_missed() {
    deleted_while_stopped(Journal::Sqlite);
}

#[test]
fn an_instance_with_topics_goes_on_where_the_topic_begins_and_says_what_it_missed() {
    deleted_while_stopped(Journal::Kafka);
}

fn deleted_while_stopped(journal: Journal) {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique(&format!("retention-{}", journal.name()));
    broker.create_topic(&topic, 1);
    let messages = invented(91, 1_000);
    let mut fleet = Fleet::new(&broker.address, &topic, journal, 1);
    fleet.start(0);
    broker.produce(&topic, &messages[..400]);
    fleet.assert_counted(&messages[..400]);
    fleet.terminate(0);
    broker.produce(&topic, &messages[400..800]);
    broker.delete_records(&topic, 0, 600);

    fleet.start(0);
    fleet
        .instance(0)
        .says(&format!("{topic}[0]: the records from offset 400 to 600 were deleted before they were read"));
    broker.produce(&topic, &messages[800..]);
    fleet.wait_for_at_least(800);
    let counted = [&messages[..400], &messages[600..]].concat();
    assert_eq!(Recount::shown(&fleet.look(), &topic), Recount::of(&counted));
    let (code, report, log) = audit(fleet.config(0), &[]);
    assert_eq!(code, Some(0), "{report}{log}");
    let gone = format!("{topic}[0]: 400 records that were counted are gone from the topic; it begins at offset 600, ");
    assert!(report.starts_with("no difference in what can be vouched for: ") && report.contains(&gone), "{report}");
    fleet.end();
}
