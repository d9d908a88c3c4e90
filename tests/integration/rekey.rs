//! Inputs that are not keyed by ticket: they are noticed, and with `rekey = true` exact.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rdkafka::producer::{BaseRecord, Producer};

use tempfile::TempDir;

use crate::support::*;

/// Spreads messages over the partitions of a topic without regard to their tickets: some have no key, the others one that
/// changes during the ticket's life.
fn scatter(broker: &Broker, topic: &str, partitions: i32, messages: &[Message]) {
    let producer = broker.producer();
    let mut random = Random::new(5);
    for message in messages {
        let partition = random.below(partitions as u64) as i32;
        let key = format!("{}-{}", message.key, random.below(3));
        let mut record = BaseRecord::<str, str>::to(topic).partition(partition);
        if random.below(3) > 0 {
            record = record.key(&key);
        }
        if let Some(value) = &message.value {
            record = record.payload(value);
        }
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(LIMIT).unwrap();
}

fn shown(instances: &[&Instance]) -> BTreeMap<String, f64> {
    instances.iter().flat_map(|instance| instance.ledger_metrics()).collect()
}

/// A configuration that reads a topic through its keyed copy.
fn rekeyed_config(folder: &TempDir, broker: &Broker, topic: &str) -> PathBuf {
    write_kafka_config(folder.path(), &broker.address, topic, topic, "rekey = true\n")
}

const KAFKA: [&str; 2] = ["journal.kind=kafka", "kafka.librdkafka.session.timeout.ms=6000"];

/// With every second record copied twice, or with copies outside of the transaction, the audit said so.
#[test]
fn an_input_without_useful_keys_is_exact_through_its_keyed_copy() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("rekey");
    broker.create_topic(&topic, 3);
    let messages = invented(31, 6_000);
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let configs = folders.each_ref().map(|folder| rekeyed_config(folder, &broker, &topic));
    let small = [&KAFKA[..], &["batch.records=200", "batch.linger=1ms"]].concat();
    let start = |at: usize| Instance::start(&configs[at], &small);
    let copied = |instances: &[&Instance]| sum(&shown(instances), "customer_reach_records_total", &[]);
    let (first, second) = (start(0), start(1));
    scatter(&broker, &topic, 3, &messages[..3_000]);
    until("half of it is on its way", || (copied(&[&first, &second]) > 1_500.0).then_some(()));
    first.kill();
    let first = start(0);
    scatter(&broker, &topic, 3, &messages[3_000..]);
    until("some more is on its way", || (copied(&[&first, &second]) > 4_000.0).then_some(()));
    second.kill();
    until("all of it is counted", || (copied(&[&first]) == messages.len() as f64).then_some(()));
    let keyed = format!("{topic}-{topic}-keyed");
    assert_eq!(Recount::shown(&first.metrics(), &keyed), Recount::of(&messages));
    assert_eq!(sum(&first.metrics(), "customer_reach_unkeyed_records_total", &[]), 0.0);
    let report = assert_exact(&configs[0], &messages);
    assert_eq!(report["copies"]["records"], messages.len());
    assert!(first.terminate());
}

#[test]
fn an_input_without_useful_keys_is_noticed() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("unkeyed");
    broker.create_topic(&topic, 2);
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), &broker.address, &topic, &topic);
    let instance = Instance::start(&config, &KAFKA);
    let messages = invented(32, 500);
    scatter(&broker, &topic, 2, &messages);
    instance.wait_for_records(&topic, messages.len());
    let metrics = instance.metrics();
    for sign in ["no_key", "changed_key", "two_partitions"] {
        let seen = sum(&metrics, "customer_reach_unkeyed_records_total", &[&format!("sign=\"{sign}\"")]);
        assert!(seen > 0.0, "{sign}");
    }
    let (success, log) = instance.stopped();
    assert!(success);
    assert!(log.contains("is not keyed by ticket") && log.contains("rekey = true"), "{log}");
}

#[test]
fn a_record_of_several_megabytes_goes_through_the_keyed_copy() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("rekey-large");
    broker.create_roomy_topic(&topic, 2);
    let folder = tempfile::tempdir().unwrap();
    let config = rekeyed_config(&folder, &broker, &topic);
    let instance = Instance::start(&config, &KAFKA);
    let noise: String = Random::new(33).bytes(3_000_000).iter().map(|byte| char::from(b'!' + byte % 90)).collect();
    let value = serde_json::json!({"id": "L", "effort_seconds": 60, "description": noise});
    broker.produce(&topic, &[Message { key: "other".into(), value: Some(value.to_string()) }]);
    instance.wait_for_records(&format!("{topic}-{topic}-keyed"), 1);
    assert_eq!(sum(&instance.metrics(), "customer_reach_tickets_total", &[]), 1.0);
    assert!(instance.terminate());
}

/// The way out for an input that has got more partitions, as well. Tried without a look at the other journal: the
/// start was not refused, and counted from 0 beside what was there.
#[test]
fn an_input_is_rekeyed_later_only_with_what_was_counted_before() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("rekey-later");
    broker.create_topic(&topic, 2);
    let messages = invented(34, 600);
    let folder = tempfile::tempdir().unwrap();
    let direct = write_kafka_config(folder.path(), &broker.address, &topic, &topic, "");
    let text = std::fs::read_to_string(&direct).unwrap();
    let rekeyed = folder.path().join("rekeyed.toml");
    std::fs::write(&rekeyed, text.replace("[[input]]\n", "[[input]]\nrekey = true\n")).unwrap();
    let count = |config: &Path, from: usize, to: usize| {
        let instance = Instance::start(config, &KAFKA);
        broker.produce(&topic, &messages[from..to]);
        until("it is counted", || {
            (sum(&instance.ledger_metrics(), "customer_reach_records_total", &[]) == to as f64).then_some(())
        });
        let metrics = instance.metrics();
        assert!(instance.terminate());
        metrics
    };
    let refused = |config: &Path, reason: &str| {
        let (success, log) = Instance::start(config, &KAFKA).ended();
        assert!(!success && log.contains(reason), "{log}");
    };
    count(&direct, 0, 300);
    broker.grow_topic(&topic, 3);
    refused(&direct, "let `[[input]] rekey = true` give it a keyed copy");
    refused(&rekeyed, "was counted without `rekey = true`");

    let state = folder.path().join("state.ndjson");
    assert!(journal("export", &direct, &state, &[]).0);
    import_when_free(&rekeyed, &state, &[]);
    let metrics = count(&rekeyed, 300, 600);
    assert_eq!(Recount::shown(&metrics, &format!("{topic}-{topic}-keyed")), Recount::of(&messages));

    broker.delete_topic(&format!("{topic}-{topic}-{topic}-keyed-journal"));
    until("the group is free and the import is refused", || {
        let (done, said) = journal("import", &rekeyed, &state, &[]);
        assert!(!done);
        said.contains("holds records already").then_some(())
    });
}

#[test]
fn tickets_that_share_a_record_each_count_in_the_partition_of_their_own() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("rekey-shared");
    broker.create_topic(&topic, 3);
    let folder = tempfile::tempdir().unwrap();
    let config = rekeyed_config(&folder, &broker, &topic);
    let instance = Instance::start(&config, &KAFKA);
    let tickets = |version: usize| -> Vec<_> {
        let ticket =
            |id| serde_json::json!({"id": format!("S{id}"), "version": version, "effort_seconds": 60 * version});
        (0..12).map(ticket).collect()
    };
    let record = |version| serde_json::json!({"records": tickets(version)}).to_string();
    let messages = [1, 2].map(|version| Message { key: format!("any-{version}"), value: Some(record(version)) });
    broker.produce(&topic, &messages);
    let partitions = ["0", "1", "2"].map(|number| format!("partition=\"{number}\""));
    let shown = until("both are counted in every partition", || {
        let shown = instance.ledger_metrics();
        let records = |label: &String| sum(&shown, "customer_reach_records_total", &[label]);
        partitions.iter().all(|label| records(label) == 2.0).then_some(shown)
    });
    assert_eq!(sum(&shown, "customer_reach_tickets_total", &[]), 12.0);
    assert_eq!(sum(&shown, "customer_reach_effort_seconds_total", &[]), 12.0 * 120.0);
    let (code, report, log) = audit(&config, &[]);
    assert_eq!(code, Some(0), "{report}{log}");
    assert!(instance.terminate());
}
