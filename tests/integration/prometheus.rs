//! A real Prometheus beside a real run.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::fleet::{Fleet, Journal};
use crate::support::*;

/// A running Prometheus.
pub struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// Starts Prometheus with the shipped rules, and returns when it scrapes instances every second, running or not. It
    /// is ready some seconds before that: it looks for new targets every 5 s.
    pub fn start(program: &str, folder: &Path, targets: &[&str]) -> Self {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/customer-reach.rules.yml");
        let rules = folder.join("rules.yml");
        // A minute of recordings is enough for every query, but not at the shipped intervals.
        let text = std::fs::read_to_string(shipped).unwrap();
        let often = text.lines().map(|line| match line.trim_start().starts_with("interval: ") {
            true => "    interval: 1s\n".to_owned(),
            false => format!("{line}\n"),
        });
        std::fs::write(&rules, often.collect::<String>()).unwrap();
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [{rules:?}]\n\
             scrape_configs:\n  - job_name: customer-reach\n    static_configs: [{{ targets: {targets:?} }}]\n"
        );
        std::fs::write(folder.join("prometheus.yml"), config).unwrap();
        let address = format!("127.0.0.1:{}", listening_port());
        let child = Command::new(program)
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()))
            .arg(format!("--web.listen-address={address}"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, address };
        until("Prometheus is ready", || {
            get(&format!("http://{}/-/ready", server.address)).filter(|(status, _)| *status == 200)
        });
        until("Prometheus scrapes", || server.value("count(up)").filter(|scraped| *scraped == targets.len() as f64));
        server
    }

    /// The result of an instant query; fails when the query is wrong.
    fn query(&self, query: &str) -> Vec<Value> {
        let url = format!("http://{}/api/v1/query?query={}", self.address, percent_encoded(query));
        let (status, body) = get(&url).unwrap();
        assert_eq!(status, 200, "{query}: {body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        answer["data"]["result"].as_array().unwrap().clone()
    }

    pub fn value(&self, query: &str) -> Option<f64> {
        self.query(query).first()?["value"][1].as_str()?.parse().ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Every query of the dashboard, with the variables that Grafana would fill in.
fn dashboard_queries() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/grafana/dashboards/customer-reach.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut queries = Vec::new();
    collect_expressions(&dashboard, &mut queries);
    let filled = [
        ("$job", ".*"),
        ("$__rate_interval", "1h"),
        ("$__range", "1h"),
        ("$__interval", "1h"),
        ("${__range_s}", "3600"),
        ("$__range_s", "3600"),
    ];
    queries
        .into_iter()
        .map(|query| filled.iter().fold(query, |query, (name, value)| query.replace(name, value)))
        .collect()
}

fn collect_expressions(value: &Value, queries: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(query)) = map.get("expr") {
                queries.push(query.clone());
            }
            map.values().for_each(|inner| collect_expressions(inner, queries));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_expressions(item, queries)),
        _ => {}
    }
}

#[test]
fn recording_rules_give_the_net_figures_and_every_query_of_the_dashboard_has_data() {
    let (Some(broker), Some(program)) = (Broker::shared(), given("CUSTOMER_REACH_TEST_PROMETHEUS")) else { return };
    let topic = format!("prometheus-{}", std::process::id());
    broker.create_topic(&topic, 2);
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), &broker.address, &topic, &topic);
    // Series of teams and services must be scraped at 0 before they count, or their increase is not seen.
    let instance = Instance::start(&config, &["metrics.zero_hold=5s"]);
    until("the partitions are assigned", || instance.get("/readyz").filter(|(status, _)| *status == 200));
    let server = Server::start(&program, folder.path(), &[&instance.address]);
    // Recorded, not only scraped: the increase of what the rules record is asked for, too.
    until("the start at 0 is recorded", || {
        server
            .value("sum(topic_partition_class:customer_reach_effort_seconds:added) == bool 0")
            .filter(|zero| *zero == 1.0)
    });
    let messages = invented(11, 2_000);
    broker.produce(&topic, &messages);
    instance.wait_for_records(&topic, messages.len());
    let expected = Recount::of(&messages);
    until("the net figures are recorded", || {
        let customer = server.value("sum(class:customer_reach_effort_seconds:net{class=\"customer\"})")?;
        let internal = server.value("sum(class:customer_reach_effort_seconds:net{class=\"internal\"})")?;
        (customer == expected.customer_effort && internal == expected.internal_effort).then_some(())
    });
    for query in dashboard_queries() {
        until(&format!("the dashboard's query has data: {query}"), || (!server.query(&query).is_empty()).then_some(()));
    }
    assert!(instance.terminate());
}

/// Tried with sums over instances in the rules: after the partitions had changed hands the net figures did not become right.
#[test]
fn recorded_series_rise_without_a_reset_while_partitions_change_hands() {
    let (Some(broker), Some(program)) = (Broker::shared(), given("CUSTOMER_REACH_TEST_PROMETHEUS")) else { return };
    let topic = unique("prometheus-hands");
    broker.create_topic(&topic, 4);
    let mut fleet = Fleet::new(&broker.address, &topic, Journal::Kafka, 2);
    fleet.start_all();
    fleet.wait_for_partitions(&[2, 2]);
    let folder = tempfile::tempdir().unwrap();
    let targets = [0, 1].map(|number| fleet.instance(number).address.clone());
    let server = Server::start(&program, folder.path(), &targets.each_ref().map(String::as_str));
    let messages = invented(12, 2_000);
    let recorded = |count: usize| {
        let expected = Recount::of(&messages[..count]);
        until(&format!("{count} events are recorded"), || {
            let net = |class: &str| {
                server.value(&format!("sum(class:customer_reach_effort_seconds:net{{class=\"{class}\"}})"))
            };
            (net("customer")? == expected.customer_effort && net("internal")? == expected.internal_effort).then_some(())
        });
    };
    broker.produce(&topic, &messages[..1_000]);
    recorded(1_000);
    fleet.kill(0);
    broker.produce(&topic, &messages[1_000..]);
    fleet.wait_for_partitions(&[0, 4]);
    recorded(2_000);
    for name in ["effort_seconds:added", "effort_seconds:removed", "tickets:added", "tickets:removed"] {
        let resets = format!("sum(resets(topic_partition_class:customer_reach_{name}[10m]))");
        assert_eq!(server.value(&resets), Some(0.0), "{name}");
    }
    fleet.end();
}
