//! Journals that are moved, copied and put back.

use crate::support::*;

const SHORT: &str = "kafka.librdkafka.session.timeout.ms=6000";

#[test]
fn a_journal_moves_from_a_file_to_topics_and_back_and_every_counter_stays() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("moves");
    broker.create_topic(&topic, 3);
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), &broker.address, &topic, &topic);
    let messages = invented(61, 3_000);
    let path = |name: &str| format!("journal.path={}", folder.path().join(name).display());
    let stations = [
        ["journal.kind=sqlite".to_owned(), path("first")],
        ["journal.kind=kafka".to_owned(), path("second")],
        ["journal.kind=sqlite".to_owned(), path("third")],
    ];
    let mut shown = None;
    for (number, station) in stations.iter().enumerate() {
        let set: Vec<&str> = station.iter().map(String::as_str).chain([SHORT]).collect();
        let before = folder.path().join(format!("{number}.ndjson"));
        if number > 0 {
            import_when_free(&config, &before, &set);
        }
        let instance = Instance::start(&config, &set);
        if let Some(shown) = shown {
            until("every counter is there as it was", || (instance.ledger_metrics() == shown).then_some(()));
        }
        let until_now = (number + 1) * 1_000;
        broker.produce(&topic, &messages[number * 1_000..until_now]);
        instance.wait_for_records(&topic, until_now);
        shown = Some(instance.ledger_metrics());
        assert_eq!(Recount::shown(&instance.metrics(), &topic), Recount::of(&messages[..until_now]));
        assert!(instance.terminate());
        let (done, said) = journal("export", &config, &folder.path().join(format!("{}.ndjson", number + 1)), &set);
        assert!(done, "{said}");
        let text = std::fs::read_to_string(&config).unwrap();
        let (head, _) = text.split_once("[journal]").unwrap();
        let kind = station[0].strip_prefix("journal.kind=").unwrap();
        let path = station[1].strip_prefix("journal.path=").unwrap();
        let audited = folder.path().join("audited.toml");
        std::fs::write(&audited, format!("{head}[journal]\nkind = {kind:?}\npath = {path:?}\n")).unwrap();
        assert_exact(&audited, &messages[..until_now]);
    }

    let cut = folder.path().join("cut.ndjson");
    let whole = std::fs::read(folder.path().join("3.ndjson")).unwrap();
    std::fs::write(&cut, &whole[..whole.len() - 2_000]).unwrap();
    let (done, said) = journal("import", &config, &cut, &[]);
    assert!(!done && (said.contains("is damaged") || said.contains("cut off")), "{said}");
}

/// Where it was shown at once, the counters fell to those of the backup, and Prometheus took that for a restart from 0.
#[test]
fn a_backup_of_a_running_journal_is_put_back_and_not_shown_before_it_has_caught_up() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("backup");
    broker.create_topic(&topic, 3);
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), &broker.address, &topic, &topic);
    let late = |id: usize| Message {
        key: format!("late {id}"),
        value: Some(format!(
            r#"{{"id":"late {id}","version":1,"effort_seconds":60,"affects":"internal","group":"late"}}"#
        )),
    };
    let messages: Vec<Message> = invented(62, 4_000).into_iter().chain((0..100).map(late)).collect();
    // Nothing of the last partition is counted before the backup.
    let partition = |message: &Message| match message.key.starts_with("late") {
        true => 2,
        false => i32::from(message.key.bytes().fold(0_u8, u8::wrapping_add) % 2),
    };
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let timed: Vec<_> = messages.iter().map(|message| (Some(partition(message)), now, message.clone())).collect();
    let instance = Instance::start(&config, &[SHORT]);
    broker.produce_timed(&topic, &timed[..1_000]);
    instance.wait_for_records(&topic, 1_000);
    let copy = folder.path().join("copy");
    let (done, said) = journal("backup", &config, &copy, &[]);
    assert!(done, "{said}");
    broker.produce_timed(&topic, &timed[1_000..]);
    instance.wait_for_records(&topic, messages.len());
    let shown = instance.ledger_metrics();
    assert!(instance.terminate());

    std::fs::remove_dir_all(folder.path().join("state")).unwrap();
    std::fs::rename(&copy, folder.path().join("state")).unwrap();
    let slow = ["batch.records=20", "batch.linger=1ms", SHORT];
    let look = |instance: &Instance| {
        let now = instance.ledger_metrics();
        for (series, value) in now.iter().filter(|(series, _)| !series.contains("_open_")) {
            assert!(shown.get(series).is_none_or(|before| value >= before), "{series} fell to {value}");
        }
        now
    };
    // Before it can know how far it was, and once more after it was ended on the way.
    let unreachable = Instance::start(&config, &[slow[0], slow[1], "kafka.brokers=127.0.0.1:1"]);
    assert!(look(&unreachable).is_empty());
    assert!(unreachable.terminate());
    let instance = Instance::start(&config, &slow);
    until("records are taken", || {
        look(&instance);
        instance.get("/status.json").filter(|(_, page)| page.contains("\"last_progress\":\"")).map(|_| ())
    });
    assert!(instance.terminate());
    let instance = Instance::start(&config, &slow);
    until("it has caught up", || (look(&instance) == shown).then_some(()));
    assert!(instance.terminate());
    let instance = Instance::start(&config, &["kafka.brokers=127.0.0.1:1"]);
    assert_eq!(look(&instance), shown, "what has caught up is shown at once");
    assert!(instance.terminate());
    assert_exact(&config, &messages);
}
