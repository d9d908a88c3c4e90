//! What readiness says when nothing goes on.

use crate::support::*;

#[test]
fn records_that_wait_without_progress_make_it_not_ready_and_say_why() {
    let Some(broker) = Broker::shared() else { return };
    let [topic, tagged] = ["stuck", "stuck-tagged"].map(unique);
    broker.create_topic(&topic, 2);
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), &broker.address, &topic, &topic);
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text
        .replace("[journal]\n", "[journal]\nkind = \"kafka\"\n")
        .replace("[http]\n", "[http]\nstuck_after = \"1s\"\n");
    std::fs::write(&config, format!("{text}[output]\ntagged = {tagged:?}\n")).unwrap();
    let instance = Instance::start(&config, &["kafka.librdkafka.session.timeout.ms=6000"]);
    until("it is ready while nothing waits", || instance.get("/readyz").filter(|(status, _)| *status == 200));
    let messages = invented(71, 500);
    broker.produce(&topic, &messages);
    // The topic for tagged tickets is missing, so that no transaction can be committed.
    until("readiness says what waits, and for what", || {
        let (status, reason) = instance.get("/readyz")?;
        (status == 503 && reason.contains("500 records wait") && reason.contains(&tagged)).then_some(())
    });
    assert_eq!(instance.get("/livez").map(|(status, _)| status), Some(200), "a restart would not help");
    broker.create_topic(&tagged, 1);
    instance.wait_for_records(&topic, messages.len());
    until("it is ready again", || instance.get("/readyz").filter(|(status, _)| *status == 200));
    let (_, page) = instance.get("/status.json").unwrap();
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    let [error, seen, progress] = ["last_error", "last_error_at", "last_progress"].map(|name| page[name].as_str());
    assert!(error.unwrap().contains(&tagged) && seen.unwrap() <= progress.unwrap(), "it is shown as past: {page}");
    assert_exact(&config, &messages);
    assert!(instance.terminate());
}
