//! `serve` against a real Apache Kafka.

use std::collections::BTreeMap;

use crate::support::*;

#[test]
fn what_another_client_produces_is_counted_as_an_independent_recount_says() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("recount");
    broker.create_topic(&topic, 3);
    let messages = invented(1, 3_000);
    let folder = tempfile::tempdir().unwrap();
    let instance = Instance::start(&write_config(folder.path(), &broker.address, &topic, &topic), &[]);
    // The console producer cannot send a null value for an empty one, so tombstones are left to the other tests.
    let lines: Vec<_> = messages.iter().filter_map(|m| Some(format!("{}\t{}\n", m.key, m.value.as_ref()?))).collect();
    broker.console_produce(&topic, &lines.concat());
    instance.wait_for_records(&topic, lines.len());
    let metrics = instance.metrics();
    assert_eq!(Recount::shown(&metrics, &topic), Recount::of(&messages));
    let broken = messages.iter().filter(|m| m.value.as_ref().is_some_and(|v| v.ends_with("broken"))).count();
    assert!(broken > 0);
    assert_eq!(sum(&metrics, "customer_reach_dead_letters_total", &["reason=\"undecodable\""]), broken as f64);
    let dead = std::fs::read_to_string(folder.path().join("state/dead-letters.ndjson")).unwrap();
    assert_eq!(dead.lines().count(), broken);
    assert!(dead.lines().all(|line| line.contains(r#""value":"{\"id\": \"broken""#)), "original bytes are kept");
    assert!(instance.terminate(), "the drain ends well");
}

#[test]
fn an_audit_reads_beside_the_service_and_says_what_is_gone_and_what_still_agrees() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("audit");
    broker.create_topic(&topic, 2);
    let messages = invented(14, 1_000);
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), &broker.address, &topic, &topic);
    let instance = Instance::start(&config, &[]);
    broker.produce(&topic, &messages);
    instance.wait_for_records(&topic, messages.len());
    assert_exact(&config, &messages);
    assert!(instance.terminate());

    // Later records are not the journal's, so they do not matter.
    broker.produce(&topic, &invented(15, 100));
    assert_exact(&config, &messages);

    broker.delete_records(&topic, 0, 100);
    let (code, report, log) = audit(&config, &[]);
    assert_eq!(code, Some(0), "{report}{log}");
    assert!(report.starts_with("no difference in what can be vouched for: "), "{report}");
    let gone = format!("{topic}[0]: 100 records that were counted are gone from the topic; it begins at offset 100, ");
    assert!(report.contains(&gone), "{report}");
    assert!(!report.contains(&format!("{topic}[1]:")), "nothing of the other partition is gone: {report}");
}

#[test]
fn a_killed_process_counts_again_without_waiting_for_its_session_to_end_with_a_journal_in_a_file() {
    counts_again_without_waiting_for_its_session_to_end("sqlite");
}

#[test]
fn a_killed_process_counts_again_without_waiting_for_its_session_to_end_with_a_journal_in_topics() {
    counts_again_without_waiting_for_its_session_to_end("kafka");
}

fn counts_again_without_waiting_for_its_session_to_end(journal: &str) {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique(&format!("again-{journal}"));
    broker.create_topic(&topic, 2);
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), &broker.address, &topic, &topic);
    // Longer than any wait of these tests: only a member that takes its own place back can go on in time.
    let journal = format!("journal.kind={journal}");
    let long_session = ["kafka.librdkafka.session.timeout.ms=300000", &journal];
    let messages = invented(4, 200);
    let first = Instance::start(&config, &long_session);
    broker.produce(&topic, &messages[..100]);
    first.wait_for_records(&topic, 100);
    first.kill();
    broker.produce(&topic, &messages[100..]);
    let second = Instance::start(&config, &long_session);
    second.wait_for_records(&topic, 200);
    assert_eq!(Recount::shown(&second.metrics(), &topic), Recount::of(&messages));
    assert!(second.terminate());
}

#[test]
fn a_second_instance_is_refused_and_the_first_goes_on() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("second");
    broker.create_topic(&topic, 2);
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [config, other] = folders.each_ref().map(|folder| write_config(folder.path(), &broker.address, &topic, &topic));
    let first = Instance::start(&config, &[]);
    broker.produce(&topic, &invented(5, 50));
    first.wait_for_records(&topic, 50);

    let output = binary().args(["serve", "--config"]).arg(&config).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        message.contains("in use by another process") && message.contains("a folder and a consumer group of its own"),
        "{message}"
    );

    let (success, log) = Instance::start(&other, &[]).ended();
    assert!(!success);
    assert!(
        log.contains("belongs to another journal") && log.contains("give this instance a group of its own"),
        "{log}"
    );

    broker.produce(&topic, &invented(6, 50));
    first.wait_for_records(&topic, 100);
    assert!(first.terminate());
}

#[test]
fn a_broker_that_goes_away_and_comes_back_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = Broker::own(folder.path()) else { return };
    let topic = "restart";
    broker.create_topic(topic, 2);
    let messages = invented(7, 2_000);
    let instance = Instance::start(&write_config(folder.path(), &broker.address, topic, topic), &[]);
    broker.produce(topic, &messages[..1_000]);
    instance.wait_for_records(topic, 1_000);
    broker.control("kill");
    until("the error is shown", || instance.get("/status.json").filter(|(_, page)| page.contains("\"last_error\":\"")));
    assert_eq!(
        instance.get("/livez").map(|(status, _)| status),
        Some(200),
        "an absent broker is no reason to be restarted"
    );
    broker.control("restart");
    broker.produce(topic, &messages[1_000..]);
    instance.wait_for_records(topic, 2_000);
    assert_eq!(Recount::shown(&instance.metrics(), topic), Recount::of(&messages));
    assert!(instance.terminate());
}

#[test]
fn a_topic_that_does_not_exist_is_waited_for_and_named() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("late");
    let folder = tempfile::tempdir().unwrap();
    let instance = Instance::start(&write_config(folder.path(), &broker.address, &topic, &topic), &[]);
    until("readiness names the topic", || {
        instance
            .get("/readyz")
            .filter(|(status, text)| *status == 503 && text.contains(&format!("the topic `{topic}` does not exist")))
    });
    broker.create_topic(&topic, 1);
    broker.produce(&topic, &invented(8, 10));
    instance.wait_for_records(&topic, 10);
    assert!(instance.terminate());
}

#[test]
fn tagged_tickets_and_dead_letters_go_to_their_topics() {
    let Some(broker) = Broker::shared() else { return };
    let names = ["in", "tagged", "dead"].map(|name| unique(&format!("output-{name}")));
    let [topic, tagged, dead] = &names;
    names.iter().for_each(|name| broker.create_topic(name, 1));
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), &broker.address, topic, topic);
    let set = [format!("output.tagged={tagged}"), format!("output.dead_letters={dead}")];
    let instance = Instance::start(&config, &set.each_ref().map(String::as_str));
    let broken = Message { key: "b".into(), value: Some("{broken".into()) };
    let mut messages = invented(9, 100);
    messages.push(broken);
    broker.produce(topic, &messages);
    instance.wait_for_records(topic, messages.len());
    let letters = broker.read_all(dead);
    let (_, headers, value) = letters.iter().find(|(key, _, _)| key == "b").expect("the dead letter is there");
    assert_eq!(value, "{broken");
    assert!(headers.contains(&("customer-reach.reason".into(), "undecodable".into())), "{headers:?}");
    assert!(headers.contains(&("customer-reach.topic".into(), topic.clone())));
    let lines = broker.read_all(tagged);
    let ids: std::collections::BTreeSet<_> = lines.iter().map(|(key, _, _)| key.clone()).collect();
    assert_eq!(ids.len() as f64, Recount::of(&messages).tickets);
    let line: serde_json::Value = serde_json::from_str(&lines[0].2).unwrap();
    assert_eq!((&line["basis"], &line["certainty"]), (&"declared".into(), &"clear".into()));
    assert!(instance.terminate());
}

#[test]
fn on_sighup_good_packs_are_taken_and_bad_ones_refused_with_the_reason() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("reload");
    broker.create_topic(&topic, 1);
    let folder = tempfile::tempdir().unwrap();
    let site = folder.path().join("site");
    std::fs::create_dir(&site).unwrap();
    let write = |text: &str| std::fs::write(site.join("site.toml"), text).unwrap();
    let rule = |phrase: &str, example: &str| {
        format!(
            "[[rule]]\nid = \"a\"\naffects = \"customer\"\nweight = 5\nphrases = [{phrase:?}]\nexamples = [{example:?}]\n"
        )
    };
    write(&rule("dealernet", "DealerNet is down"));
    let packs = format!("patterns.packs=[{site:?}]");
    let config = write_config(folder.path(), &broker.address, &topic, &topic);
    let instance = Instance::start(&config, &[&packs, "kafka.librdkafka.session.timeout.ms=6000"]);
    let event = |id: &str| Message {
        key: id.into(),
        value: Some(format!("{{\"id\":{id:?},\"summary\":\"boatyard closed\"}}")),
    };
    let reloads =
        |result: &str| sum(&instance.metrics(), "customer_reach_reloads_total", &[&format!("result=\"{result}\"")]);
    broker.produce(&topic, &[event("1")]);
    instance.wait_for_records(&topic, 1);

    write(&rule("boatyard", "DealerNet is down"));
    instance.hang_up();
    until("the failing example is refused", || (reloads("refused") == 1.0).then_some(()));
    assert!(instance.get("/status.json").unwrap().1.contains("reload refused"));

    write(&rule("boatyard", "the boatyard is down"));
    instance.hang_up();
    until("the good pack is taken", || (reloads("done") == 1.0).then_some(()));
    broker.produce(&topic, &[event("2")]);
    instance.wait_for_records(&topic, 2);
    let metrics = instance.metrics();
    assert_eq!(sum(&metrics, "customer_reach_tickets_total", &["affects=\"customer\"", "basis=\"pattern\""]), 1.0);
    assert_eq!(sum(&metrics, "customer_reach_tickets_total", &["affects=\"internal\"", "basis=\"default\""]), 1.0);
    assert_eq!(sum(&metrics, "customer_reach_pattern_set_info", &[]), 1.0, "one set is in use");
    assert!(instance.terminate());
}

#[test]
fn a_topic_that_was_made_anew_is_not_taken_for_read() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("anew");
    broker.create_topic(&topic, 1);
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), &broker.address, &topic, &topic);
    let first = Instance::start(&config, &[]);
    broker.produce(&topic, &invented(12, 50));
    first.wait_for_records(&topic, 50);
    assert!(first.terminate());
    broker.delete_topic(&topic);
    broker.create_topic(&topic, 1);
    broker.produce(&topic, &invented(13, 10));
    let (success, log) = Instance::start(&config, &[]).ended();
    assert!(!success);
    assert!(log.contains("ends at offset 10, but the journal has read up to 50"), "{log}");
    assert!(log.contains("start with another `[kafka] group` and `[journal] path`"), "{log}");
}

/// Tried with claims at offset 0: the second start read the partition from its beginning that had got nothing.
#[test]
fn a_partition_of_which_nothing_was_read_begins_at_its_end_again_where_the_user_says_latest() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("latest");
    broker.create_topic(&topic, 2);
    let to = |partition: i32, messages: &[Message]| {
        let records: Vec<_> = messages.iter().map(|message| (Some(partition), 1, message.clone())).collect();
        broker.produce_timed(&topic, &records);
    };
    let messages = invented(6, 200);
    (0..2).for_each(|partition| to(partition, &messages[..100]));
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), &broker.address, &topic, &topic);
    let latest = ["kafka.librdkafka.auto.offset.reset=latest"];
    let mut before = 0.0;
    for part in messages[100..].chunks(50) {
        let instance = Instance::start(&config, &latest);
        let counted = |partition: &str| {
            let label = format!("partition=\"{partition}\"");
            sum(&instance.metrics(), "customer_reach_records_total", &[&label])
        };
        before = until("some more is counted", || {
            // Of what is produced before it has begun, nothing is taken.
            to(0, part);
            Some(counted("0")).filter(|now| *now > before)
        });
        assert_eq!(counted("1"), 0.0);
        assert!(instance.terminate());
    }
}

#[test]
fn two_instances_share_inputs_with_different_numbers_of_partitions() {
    let Some(broker) = Broker::shared() else { return };
    let topics = [("wide", 5), ("narrow", 1), ("scattered", 3)].map(|(name, partitions)| (unique(name), partitions));
    topics.iter().for_each(|(topic, partitions)| broker.create_topic(topic, *partitions));
    let [(wide, _), (narrow, _), (scattered, _)] = &topics;
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let configs = folders.each_ref().map(|folder| {
        let config = write_kafka_config(folder.path(), &broker.address, wide, wide, "");
        let input = |topic: &str, source: &str, more: &str| {
            format!("[[input]]\ntopic = {topic:?}\nprofile = \"generic\"\nsource = {source:?}\n{more}")
        };
        let others = [input(narrow, "other", ""), input(scattered, "third", "rekey = true\n")].concat();
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replacen("[[input]]\n", &format!("{others}[[input]]\n"), 1)).unwrap();
        config
    });
    let settings = ["kafka.librdkafka.session.timeout.ms=6000", "batch.records=50", "batch.linger=1ms"];
    let instances = configs.each_ref().map(|config| Instance::start(config, &settings));
    let all: Vec<Vec<Message>> = (7..10).map(|seed| invented(seed, 1_000)).collect();
    topics.iter().zip(&all).for_each(|((topic, _), messages)| broker.produce(topic, messages));
    let shown = || instances.iter().flat_map(Instance::ledger_metrics).collect::<BTreeMap<_, _>>();
    let records = |shown: &BTreeMap<String, f64>| sum(shown, "customer_reach_records_total", &[]);
    let shown = until("all of it is counted", || Some(shown()).filter(|shown| records(shown) == 3_000.0));
    let counted = [wide.clone(), narrow.clone(), format!("{wide}-{scattered}-keyed")];
    for (topic, messages) in counted.iter().zip(&all) {
        assert_eq!(Recount::shown(&shown, topic), Recount::of(messages), "{topic}");
    }
    until("both have a share", || {
        instances.iter().all(|instance| records(&instance.ledger_metrics()) > 0.0).then_some(())
    });
    let (code, report, log) = audit(&configs[0], &[]);
    assert_eq!(code, Some(0), "{report}{log}");
    instances.into_iter().for_each(|instance| assert!(instance.terminate()));
}

/// By default brokers make a topic that a producer asks about, with their own settings: not those that a journal needs.
#[test]
fn brokers_that_make_topics_by_themselves_are_left_no_occasion() {
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = Broker::with(folder.path(), &["auto.create.topics.enable=true"]) else { return };
    let topic = "made";
    broker.create_topic(topic, 3);
    let messages = invented(11, 300);
    for more in ["", "rekey = true\n"] {
        let group = format!("group{}", more.len());
        let config = write_kafka_config(folder.path(), &broker.address, topic, &group, more);
        let instance = Instance::start(&config, &["kafka.librdkafka.session.timeout.ms=6000"]);
        broker.produce(topic, &messages);
        let records = || sum(&instance.ledger_metrics(), "customer_reach_records_total", &[]);
        until("all of it is counted", || (records() >= 300.0).then_some(()));
        assert!(instance.terminate());
    }
    let made = broker.topics();
    let expected = ["group0-made-journal", "group13-group13-made-keyed-journal", "group13-made-keyed", "made"];
    assert_eq!(made, expected.map(|topic| (topic.to_owned(), 3)));
}
