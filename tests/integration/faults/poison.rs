//! Records that are none, of every kind, in between good ones.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::fleet::{Fleet, Journal};
use crate::support::*;

/// Every good record is followed by one of these.
const EVERY: usize = 3;

/// What is wrong, the value, and why it is refused; `None` where it is no dead letter.
type Poison = (&'static str, Option<Vec<u8>>, Option<&'static str>);

fn poison() -> Vec<Poison> {
    let text = |text: &str| Some(text.as_bytes().to_vec());
    let nested = |depth: usize| Some(["[".repeat(depth), "]".repeat(depth)].concat().into_bytes());
    vec![
        ("null", None, None),
        ("empty", text(""), Some("undecodable")),
        ("too long", Some(vec![b' '; 10_001]), Some("too_long")),
        ("not UTF-8", Some(b"{\"id\":\"P\",\"summary\":\"\xff\xfe\"}".to_vec()), Some("undecodable")),
        ("cut off", text("{\"id\":\"P\",\"summary\":\"cut o"), Some("undecodable")),
        ("no object", text("17"), Some("undecodable")),
        ("no id", text("{\"summary\":\"nobody's\"}"), Some("unmappable")),
        ("a broken change", text("{\"op\":\"u\",\"before\":null,\"after\":7}"), Some("bad_envelope")),
        ("deep lists", nested(5_000), Some("bad_envelope")),
        ("a lone surrogate", text("{\"id\":\"\\ud800\",\"summary\":\"\\udc00\"}"), Some("undecodable")),
        ("zero bytes", Some(vec![0; 64]), Some("undecodable")),
        ("effort without an end", text("{\"id\":\"P\",\"effort_seconds\":1e999}"), Some("undecodable")),
        // A ticket, whose effort is not known.
        ("effort below zero", text("{\"id\":\"negative\",\"effort_seconds\":-5}"), None),
    ]
}

#[test]
fn poison_of_every_kind_ends_in_one_outcome_with_a_journal_in_a_file() {
    ends_in_one_outcome(Journal::Sqlite);
}

#[test]
fn poison_of_every_kind_ends_in_one_outcome_with_a_journal_in_topics() {
    ends_in_one_outcome(Journal::Kafka);
}

fn ends_in_one_outcome(journal: Journal) {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique(&format!("poison-{}", journal.name()));
    let dead = format!("{topic}-dead");
    broker.create_topic(&topic, 1);
    broker.create_topic(&dead, 1);
    let mut fleet = Fleet::with(&broker.address, &topic, journal, 1, &format!("[output]\ndead_letters = {dead:?}"));
    fleet.start(0);

    let mut records = Vec::new();
    let mut expected = Vec::new();
    let (messages, poison) = (invented(121, 300), poison());
    for (number, message) in messages.iter().enumerate() {
        records.push((Some(message.key.clone().into_bytes()), message.value.clone().map(String::into_bytes)));
        if number % EVERY == 0 {
            let (_, value, reason) = &poison[(number / EVERY) % poison.len()];
            let key = (number % 2 == 0).then(|| vec![0xff, number as u8]);
            expected.extend(reason.map(|reason| (records.len(), key.clone(), value.clone(), reason)));
            records.push((key, value.clone()));
        }
    }
    // A good ticket without a key.
    records.push((None, Some(b"{\"id\":\"keyless\"}".to_vec())));
    broker.produce_bytes(&topic, &records);
    fleet.wait_for_at_least(records.len());
    let shown = fleet.look();
    assert_eq!(sum(&shown, "customer_reach_records_total", &[]), records.len() as f64, "each has one outcome");
    assert_eq!(sum(&shown, "customer_reach_tickets_total", &[]), Recount::of(&messages).tickets + 2.0);

    let letters = broker.read_bytes(&dead);
    assert_eq!(sum(&shown, "customer_reach_records_total", &["outcome=\"dead_letter\""]), letters.len() as f64);
    for (offset, key, value, reason) in &expected {
        let name = poison.iter().find(|(_, of, _)| of == value).unwrap().0;
        let letter = letters.iter().find(|letter| letter.header("offset") == offset.to_string());
        let letter = letter.unwrap_or_else(|| panic!("{name}: no dead letter"));
        assert_eq!((&letter.key, &letter.value), (key, value), "{name}: the bytes are those that came");
        assert_eq!(letter.header("reason"), *reason, "{name}");
        assert_eq!((letter.header("topic"), letter.header("partition")), (topic.clone(), "0".to_owned()), "{name}");
    }
    let broken = messages.iter().filter(|m| m.value.as_ref().is_some_and(|v| v.ends_with("broken"))).count();
    assert_eq!(letters.len(), expected.len() + broken, "nothing else is refused");

    let (code, report, log) = audit(fleet.config(0), &["--format", "json"]);
    assert_eq!(code, Some(0), "{report}{log}");
    assert_eq!(report.parse::<Value>().unwrap()["exact"], true, "{report}");
    fleet.end();
}

#[test]
fn a_dead_letter_larger_than_its_topic_takes_stops_nothing_with_a_journal_in_a_file() {
    goes_without_its_record_where_that_is_too_large(Journal::Sqlite);
}

#[test]
fn a_dead_letter_larger_than_its_topic_takes_stops_nothing_with_a_journal_in_topics() {
    goes_without_its_record_where_that_is_too_large(Journal::Kafka);
}

/// Tried with letters that stay whole: the batch was refused again and again, and nothing behind it was counted.
fn goes_without_its_record_where_that_is_too_large(journal: Journal) {
    let Some(broker) = Broker::shared() else { return };
    let [topic, small, roomy] =
        ["large", "large-small", "large-roomy"].map(|name| unique(&[name, journal.name()].join("-")));
    [&topic, &roomy].iter().for_each(|topic| broker.create_roomy_topic(topic, 1));
    broker.create_topic(&small, 1);
    let good = |id: &str| (Some(id.into()), Some(format!("{{\"id\":\"{id}\",\"effort_seconds\":60}}").into_bytes()));
    let large = |length: usize| (Some(b"large".to_vec()), Some(Random::new(122).bytes(length)));
    broker.produce_bytes(&topic, &[good("A"), large(2_000_000), large(3_000_000), large(500), good("B")]);
    for (dead, kept) in [(&small, [None, None, Some(500)]), (&roomy, [2_000_000, 3_000_000, 500].map(Some))] {
        let mut fleet = Fleet::with(&broker.address, &topic, journal, 1, &format!("[output]\ndead_letters = {dead:?}"));
        fleet.join(0, dead);
        fleet.start(0);
        fleet.wait_for_at_least(5);
        // Beside a file, what is sent again is there twice.
        let letters: BTreeMap<String, Bytes> =
            broker.read_bytes(dead).into_iter().map(|letter| (letter.header("offset"), letter)).collect();
        let lengths: Vec<_> = letters.values().map(|letter| letter.value.as_ref().map(Vec::len)).collect();
        assert_eq!((letters.keys().map(String::as_str).collect(), lengths), (vec!["1", "2", "3"], kept.to_vec()));
        if kept[0].is_none() {
            assert_eq!(letters["1"].header("left-out-bytes"), "2000005");
            fleet.instance(0).says("is larger than its topic takes");
        }
        let (code, report, log) = audit(fleet.config(0), &[]);
        assert_eq!(code, Some(0), "{report}{log}");
        fleet.end();
    }
}
