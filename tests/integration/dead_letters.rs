//! Refused records that are taken again after a fix.

use crate::support::*;

#[test]
fn dead_letters_are_sent_again_and_counted_once() {
    let Some(broker) = Broker::shared() else { return };
    let [topic, dead] = ["resent", "resent-dead"].map(unique);
    broker.create_topic(&topic, 2);
    broker.create_topic(&dead, 1);
    let folder = tempfile::tempdir().unwrap();
    let config = write_kafka_config(folder.path(), &broker.address, &topic, &topic, "");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}[output]\ndead_letters = {dead:?}\n")).unwrap();
    let long = |id: usize| Message {
        key: format!("L{id}"),
        value: Some(format!(
            r#"{{"id":"L{id}","version":1,"effort_seconds":60,"affects":"customer","description":"{}"}}"#,
            "x".repeat(2_000)
        )),
    };
    // A record that is broken in earnest would be a dead letter again, and sent again.
    let is_sound = |message: &Message| !message.value.as_ref().is_some_and(|value| value.ends_with("broken"));
    let messages: Vec<Message> = invented(52, 400).into_iter().filter(is_sound).chain((0..1_100).map(long)).collect();
    let small = ["kafka.librdkafka.session.timeout.ms=6000", "batch.max_record_bytes=1000"];
    let first = Instance::start(&config, &small);
    broker.produce(&topic, &messages);
    first.wait_for_records(&topic, messages.len());
    let too_long = "outcome=\"dead_letter\"";
    let refused = sum(&first.metrics(), "customer_reach_records_total", &[too_long]);
    assert_eq!(refused, 1_100.0);
    assert!(first.terminate());
    broker.produce_again(&dead);

    let fixed = Instance::start(&config, &small[..1]);
    let replay = || {
        let output = binary().args(["replay", "--dead-letters", &dead, "--config"]).arg(&config).output().unwrap();
        let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(output.status.success(), "{stderr}");
        stdout
    };
    let (first, second) = (replay(), replay());
    let sent: f64 = first
        .lines()
        .map(|line| line.split(": ").nth(1).unwrap().split(' ').next().unwrap())
        .map(|count| count.parse::<f64>().unwrap())
        .sum();
    assert_eq!(sent, refused, "{first}");
    fixed.wait_for_records(&topic, messages.len() + refused as usize);
    assert!(second.starts_with("no dead letters"), "{second}");
    let expected = Recount::of(&messages);
    assert_eq!(Recount::shown(&fixed.metrics(), &topic), expected);
    assert_exact(&config, &messages);
    assert!(fixed.terminate());
}
