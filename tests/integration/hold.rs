//! New series begin at 0 before a scraper's eyes, also when the process dies while they do.

use crate::prometheus::Server;
use crate::support::*;

#[test]
fn the_increase_over_the_whole_run_is_the_true_total_although_the_process_was_killed_at_the_start_with_sqlite() {
    increase_is_true("sqlite");
}

#[test]
fn the_increase_over_the_whole_run_is_the_true_total_although_the_process_was_killed_at_the_start_with_kafka() {
    increase_is_true("kafka");
}

/// Without the hold the increase lacked what each series showed first. Where the hold was kept in memory only, it lacked
/// what was counted before the kill.
fn increase_is_true(journal: &str) {
    let (Some(broker), Some(program)) = (Broker::shared(), given("CUSTOMER_REACH_TEST_PROMETHEUS")) else { return };
    let topic = unique(&format!("hold-{journal}"));
    broker.create_topic(&topic, 2);
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), &broker.address, &topic, &topic);
    let port = listening_port();
    let settings = [
        format!("journal.kind={journal}"),
        format!("http.listen=127.0.0.1:{port}"),
        "metrics.zero_hold=8s".to_owned(),
        "kafka.librdkafka.session.timeout.ms=6000".to_owned(),
    ];
    let settings = settings.each_ref().map(String::as_str);
    let messages = invented(41, 1_000);
    // All of it is counted at once, and nobody has scraped anything when the process dies.
    broker.produce(&topic, &messages);
    let first = Instance::start(&config, &settings);
    until("all is committed", || broker.committed(&topic, &topic).filter(|count| *count == messages.len() as i64));
    assert_eq!(sum(&first.ledger_metrics(), "customer_reach_records_total", &[]), 0.0, "held at zero");
    first.kill();
    let server = Server::start(&program, folder.path(), &[&format!("127.0.0.1:{port}")]);
    let second = Instance::start(&config, &settings);
    second.wait_for_records(&topic, messages.len());
    let applied = sum(&second.metrics(), "customer_reach_records_total", &["outcome=\"applied\""]);
    let expected = Recount::of(&messages);
    let effort = |metric: &str| sum(&second.metrics(), &format!("customer_reach_{metric}"), &[]);
    for (query, truth) in [
        ("customer_reach_tickets_total", expected.tickets),
        ("customer_reach_records_total{outcome=\"applied\"}", applied),
        ("customer_reach_effort_seconds_total", effort("effort_seconds_total")),
        ("customer_reach_team_effort_seconds_total", effort("team_effort_seconds_total")),
        ("customer_reach_service_effort_seconds_total", effort("service_effort_seconds_total")),
    ] {
        // What Prometheus adds: `increase` goes on from the last sample for as long as samples are apart, at the most. The
        // series was scraped at 0 for the time of the hold, and nothing is added before that.
        let raw = until(&format!("{query} has risen"), || {
            let risen = server.value(&format!("sum(max_over_time({query}[5m]) - min_over_time({query}[5m]))"))?;
            (risen == truth).then_some(risen)
        });
        let increase = server.value(&format!("sum(increase({query}[1m]))")).unwrap();
        assert!(increase >= raw && increase <= raw * 1.3, "{query}: {increase} of {truth}");
    }
    assert!(second.terminate());
}
