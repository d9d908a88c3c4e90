//! `demo`: an invented company's week through the code that `serve` runs, with a broker inside this process.
//!
//! The broker is librdkafka's mock cluster: good for a demo, not for keeping anything (5 MiB a partition, no compaction,
//! no transactions).

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use serde::Deserialize;

use crate::config::{Config, Overrides};
use crate::ledger::Series;
use crate::metrics::Shown;
use crate::replay::Report;
use crate::serve::Service;
use crate::status::Status;

/// The week: one record a line, in the order of arrival.
const WEEK: &str = include_str!("week.ndjson");
/// The company's services and which of them customers meet.
const SERVICES: &str = include_str!("services.toml");
/// The company's topics with their profiles and partitions.
const TOPICS: [(&str, &str, i32); 3] =
    [("itsm.servicenow", "servicenow", 4), ("itsm.jira", "jira", 2), ("itsm.zendesk", "zendesk", 2)];
/// How often the live summary is drawn and the end is looked for.
const REFRESH: Duration = Duration::from_millis(200);

/// `demo …`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Events a second; 0 for as fast as they go [default: 20, or 0 with --once]
    #[arg(long)]
    speed: Option<u32>,
    /// Ends when the week is consumed, and prints the summary
    #[arg(long)]
    once: bool,
    /// Where the status page and /metrics are
    #[arg(long, default_value = "127.0.0.1:9464", value_name = "ADDRESS")]
    listen: String,
}

/// One line of the week.
#[derive(Deserialize)]
struct Line {
    topic: String,
    partition: i32,
    at: jiff::Timestamp,
    key: Option<String>,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
    value: Option<String>,
    value_base64: Option<String>,
}

/// Runs the demo.
///
/// # Errors
/// When the address is taken, or this machine does not allow a broker on the loopback interface.
pub fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let cluster = MockCluster::new(1).context("the embedded broker does not start")?;
    for (topic, _, partitions) in TOPICS {
        cluster.create_topic(topic, partitions, 1)?;
    }
    let folder = Folder::new()?;
    let config = config(args, &cluster.bootstrap_servers(), &folder)?;
    let service = Service::start(&config)?;
    eprintln!("The embedded broker is at {}.", cluster.bootstrap_servers());
    eprintln!("The status page is at http://{0}/, the metrics are at http://{0}/metrics.", service.address());
    let week = lines()?;
    let total = i64::try_from(week.len())?;
    let stop = Arc::new(AtomicBool::new(false));
    let speed = args.speed.unwrap_or(if args.once { 0 } else { 20 });
    let producer = produce(week, cluster.bootstrap_servers(), speed, stop.clone())?;
    let done = watch(args.once, total, service.status().clone(), stop.clone())?;
    if !args.once {
        service.run_until_signal(&config)?;
        stop.store(true, Ordering::Relaxed);
        done.join().map_err(|_| anyhow::anyhow!("the summary's thread panicked"))?;
    } else {
        done.join().map_err(|_| anyhow::anyhow!("the summary's thread panicked"))?;
        let shown = service.status().metrics.shown();
        service.stop()?;
        print!("{}", Report::from_shown(&shown));
    }
    producer.join().map_err(|_| anyhow::anyhow!("the producer's thread panicked"))?
}

/// A temporary folder for the journal and the service map.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("customer-reach-demo-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        std::fs::write(path.join("services.toml"), SERVICES)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, folder = %self.0.display(), "the demo's folder cannot be removed");
        }
    }
}

fn config(args: &DemoArgs, brokers: &str, folder: &Folder) -> anyhow::Result<Config> {
    let path = |name: &str| serde_json::to_string(&folder.0.join(name));
    let inputs: Vec<String> =
        TOPICS.map(|(topic, profile, _)| format!("{{ topic = {topic:?}, profile = {profile:?} }}")).into();
    let set = vec![
        format!("kafka.brokers={brokers}"),
        format!("input=[{}]", inputs.join(", ")),
        format!("journal.path={}", path("state")?),
        format!("patterns.services=[{}]", path("services.toml")?),
        format!("http.listen={}", args.listen),
        "metrics.zero_hold=0s".to_owned(),
        "classify.own_domains=[\"farnwald.example.com\"]".to_owned(),
        "profile.zendesk.total_time_field=\"360001\"".to_owned(),
        "profile.zendesk.requesters_external=true".to_owned(),
    ];
    Ok(Config::load(None, &Overrides { environment: Vec::new(), set })?.0)
}

fn lines() -> serde_json::Result<Vec<Line>> {
    WEEK.lines().map(serde_json::from_str).collect()
}

impl Line {
    fn value(&self) -> anyhow::Result<Option<Vec<u8>>> {
        match (&self.value, &self.value_base64) {
            (Some(text), _) => Ok(Some(text.clone().into_bytes())),
            (None, Some(encoded)) => Ok(Some(STANDARD.decode(encoded)?)),
            (None, None) => Ok(None),
        }
    }
}

/// Produces the week on a thread of its own.
fn produce(
    week: Vec<Line>,
    brokers: String,
    speed: u32,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<std::thread::JoinHandle<anyhow::Result<()>>> {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("linger.ms", "0").create()?;
    let pause = Duration::from_secs(1).checked_div(speed).unwrap_or_default();
    Ok(std::thread::Builder::new().name("week".into()).spawn(move || {
        let began = Instant::now();
        for (line, number) in week.iter().zip(0..) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            send(&producer, line)?;
            producer.poll(pause.saturating_mul(number).saturating_sub(began.elapsed()));
        }
        Ok(producer.flush(Duration::from_secs(10))?)
    })?)
}

fn send(producer: &BaseProducer<DefaultProducerContext>, line: &Line) -> anyhow::Result<()> {
    let value = line.value()?;
    let headers = line
        .headers
        .iter()
        .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value) }));
    let mut record = BaseRecord::<[u8], [u8]>::to(&line.topic)
        .partition(line.partition)
        .timestamp(line.at.as_millisecond())
        .headers(headers);
    if let Some(key) = &line.key {
        record = record.key(key.as_bytes());
    }
    if let Some(value) = &value {
        record = record.payload(value);
    }
    producer.send(record).map_err(|(error, _)| error.into())
}

/// Draws the live summary until the week is over (with `once`) or the demo is stopped.
fn watch(
    once: bool,
    total: i64,
    status: Arc<Status>,
    stop: Arc<AtomicBool>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let live = std::io::stderr().is_terminal();
    std::thread::Builder::new().name("summary".into()).spawn(move || {
        let mut over = false;
        while !stop.load(Ordering::Relaxed) {
            let shown = status.metrics.shown();
            let taken = taken(&shown);
            if live {
                eprint!("\r\x1b[K{taken} of {total} events; {}", headline(&shown));
                let _not_worth_failing = std::io::stderr().flush();
            }
            if taken >= total && !over {
                over = true;
                if live {
                    eprintln!();
                }
                if once {
                    return;
                }
                eprintln!("The week is over; {}. The page stays until Ctrl-C.", headline(&shown));
            }
            std::thread::park_timeout(REFRESH);
        }
    })
}

fn taken(shown: &Shown) -> i64 {
    shown.sum(|series| matches!(series, Series::Records { .. }))
}

fn headline(shown: &Shown) -> String {
    Report::from_shown(shown)
        .effort
        .map_or("no effort logged yet".to_owned(), |band| format!("effort that reaches the customer: {band}"))
}
