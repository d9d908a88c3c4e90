//! What `serve` takes from a real Apache Kafka with each kind of journal: throughput and CPU at saturation, the time from
//! produce to `/metrics` at ten events a second, how soon a killed instance counts again, and what a million open tickets
//! cost to hold and to restore.
//!
//!     tests/prepare && cargo bench --bench kafka              all of it
//!     cargo bench --bench kafka -- throughput|latency|restart|restore
//!     cargo bench --bench kafka -- soak 30                    three instances at half load for 30 minutes, one of them killed
//!                                                             every 20 seconds; ends with an audit
//!
//! It starts a broker of its own on the same machine, which takes part of the cores.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on ends")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

/// Events of 3.3 KB, of so many tickets.
const EVENTS: usize = 600_000;
const TICKETS: usize = 35_000;
const PARTITIONS: i32 = 4;
/// Open tickets to be held and restored.
const OPEN: usize = 1_000_000;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let runs = |name: &str| wanted.is_empty() && name != "soak" || wanted.iter().any(|arg| arg == name);
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path());
    std::fs::create_dir(folder.path().join("rules")).unwrap();
    std::fs::write(folder.path().join("rules/pack.toml"), support::pack(200, 20)).unwrap();
    if runs("throughput") {
        throughput(&broker, folder.path());
    }
    if runs("latency") {
        latency(&broker, folder.path());
    }
    if runs("restart") {
        restart(&broker, folder.path());
    }
    if runs("restore") {
        restore(&broker, folder.path());
    }
    if runs("soak") {
        let minutes = wanted.iter().find_map(|arg| arg.parse().ok()).unwrap_or(30);
        soak(&broker, folder.path(), Duration::from_secs(minutes * 60));
    }
}

/// A broker that lives as long as this.
struct Broker {
    address: String,
    folder: PathBuf,
}

fn tool() -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka/broker"))
}

impl Broker {
    fn start(folder: &Path) -> Self {
        let folder = folder.join("broker");
        let output = tool()
            .arg("start")
            .arg(&folder)
            .envs([("KAFKA_HEAP_OPTS", "-Xmx1g"), ("KAFKA_JVM_PERFORMANCE_OPTS", "-XX:+UseG1GC")])
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "run tests/prepare first");
        let address = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        Self { address, folder }
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address).set("linger.ms", "5").set("compression.type", "lz4");
        config
    }

    fn create(&self, topic: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let admin: AdminClient<DefaultClientContext> = self.config().create().unwrap();
        let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
        runtime.block_on(admin.create_topics([&new], &AdminOptions::new())).unwrap();
    }

    fn produce(&self, topic: &str, events: impl Iterator<Item = (String, String)>) {
        let producer: BaseProducer = self.config().create().unwrap();
        for (key, value) in events {
            loop {
                match producer.send(BaseRecord::to(topic).key(&key).payload(&value)) {
                    Ok(()) => break,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                        producer.poll(Duration::from_millis(5));
                    }
                    Err((error, _)) => panic!("{error}"),
                }
            }
        }
        producer.flush(Duration::from_secs(60)).unwrap();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        tool().arg("kill").arg(&self.folder).status().unwrap();
    }
}

/// What all instances of a run have in common.
fn settings(broker: &Broker, folder: &Path, group: &str, journal: &str, topic: &str, profile: &str) -> Vec<String> {
    vec![
        format!("kafka.brokers={}", broker.address),
        format!("kafka.group={group}"),
        format!("input=[{{topic={topic:?}, profile={profile:?}}}]"),
        format!("journal.kind={journal}"),
        "metrics.zero_hold=0s".to_owned(),
        format!("patterns.packs=[{:?}]", folder.join("rules")),
    ]
}

fn command(name: &str, settings: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_customer-reach"));
    command.args(["--log", "warn", name]);
    settings.iter().for_each(|setting| _ = command.args(["--set", setting]));
    command
}

/// CPU seconds of user and system of a process so far.
fn cpu(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

/// What a service has counted and used at a moment.
struct Look {
    records: f64,
    at: Instant,
    cpu: f64,
}

/// A running service.
struct Service {
    child: Child,
    address: String,
}

impl Service {
    fn start(broker: &Broker, folder: &Path, name: &str, journal: &str, topic: &str, profile: &str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let mut settings = settings(broker, folder, name, journal, topic, profile);
        settings.push(format!("journal.path={}", folder.join(name).display()));
        settings.push(format!("http.listen={address}"));
        Self { child: command("serve", &settings).spawn().unwrap(), address }
    }

    fn metrics(&self) -> Option<String> {
        let mut response = ureq::get(format!("http://{}/metrics", self.address)).call().ok()?;
        response.body_mut().with_config().limit(1 << 30).read_to_string().ok()
    }

    /// The sum of a metric; none while the service does not answer.
    fn sum(&self, metric: &str) -> Option<f64> {
        let text = self.metrics()?;
        let lines =
            text.lines().filter(|line| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' '])));
        Some(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    }

    fn records(&self) -> f64 {
        self.sum("customer_reach_records_total").unwrap_or_default()
    }

    /// Waits until so many records are counted.
    fn wait(&self, records: f64, look: Duration) -> Instant {
        while self.records() < records {
            std::thread::park_timeout(look);
        }
        Instant::now()
    }

    fn look(&self) -> Look {
        Look { records: self.records(), at: Instant::now(), cpu: cpu(self.child.id()) }
    }

    /// The last look at which fewer records were counted: what comes after it is not work alone. Seldom, since to show
    /// takes CPU too.
    fn last_look_before(&self, records: f64) -> Look {
        let looks = std::iter::repeat_with(|| {
            std::thread::park_timeout(Duration::from_secs(1));
            self.look()
        });
        looks.take_while(|look| look.records < records).last().unwrap()
    }

    /// Resident memory in MB.
    fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn throughput(broker: &Broker, folder: &Path) {
    broker.create("incidents");
    broker.produce("incidents", (0..EVENTS).map(incident));
    println!("| journal | events/s | CPU seconds per million events | batches of |");
    println!("|---|---|---|---|");
    for round in 1..=3 {
        floor(broker, &format!("floor-{round}"), "a consumer that looks at nothing", |_| {});
        floor(broker, &format!("floor-four-{round}"), "a consumer that reads four fields", |value| {
            std::hint::black_box(serde_json::from_slice::<FourFields<'_>>(value).unwrap());
        });
        for journal in ["none", "sqlite", "kafka"] {
            let name = format!("throughput-{journal}-{round}");
            let service = Service::start(broker, folder, &name, journal, "incidents", "servicenow");
            service.wait(1.0, Duration::from_millis(10));
            let (first, last) = (service.look(), service.last_look_before(EVENTS as f64));
            let batches = service.sum("customer_reach_batch_seconds_count").unwrap();
            let events = last.records - first.records;
            println!(
                "| {journal} | {:.0} | {:.1} | {:.0} events |",
                events / last.at.duration_since(first.at).as_secs_f64(),
                (last.cpu - first.cpu) * 1e6 / events,
                EVENTS as f64 / batches
            );
        }
    }
}

/// What the least does that can be called reading tickets.
#[derive(serde::Deserialize)]
#[expect(dead_code, reason = "they are read, and that is all")]
struct FourFields<'a> {
    sys_id: std::borrow::Cow<'a, str>,
    state: std::borrow::Cow<'a, str>,
    short_description: std::borrow::Cow<'a, str>,
    description: std::borrow::Cow<'a, str>,
}

/// What it costs to do this with each event, in this process: what others can be compared with on the same machine.
fn floor(broker: &Broker, group: &str, name: &str, look: impl Fn(&[u8])) {
    let settings =
        [("auto.offset.reset", "earliest"), ("fetch.queue.backoff.ms", "5"), ("queued.max.messages.kbytes", "32768")];
    let mut config = broker.config();
    settings.iter().for_each(|(key, value)| _ = config.set(*key, *value));
    let consumer: BaseConsumer = config.set("group.id", group).create().unwrap();
    consumer.subscribe(&["incidents"]).unwrap();
    let mut messages = consumer.iter().map(Result::unwrap);
    look(messages.next().unwrap().payload().unwrap());
    let (began, idle) = (Instant::now(), cpu(std::process::id()));
    messages.take(EVENTS - 1).for_each(|message| look(message.payload().unwrap()));
    let (took, used) = (began.elapsed().as_secs_f64(), cpu(std::process::id()) - idle);
    println!("| {name} | {:.0} | {:.1} | |", EVENTS as f64 / took, used * 1e6 / EVENTS as f64);
}

/// One version of an invented incident.
fn incident(at: usize) -> (String, String) {
    let (ticket, version) = (at * 7919 % TICKETS, at / TICKETS);
    let event = support::incident(ticket);
    let (head, rest) = event.split_once("\"sys_mod_count\":\"").unwrap();
    let (_, tail) = rest.split_once('"').unwrap();
    (format!("{ticket:032x}"), format!("{head}\"sys_mod_count\":\"{version}\"{tail}"))
}

fn latency(broker: &Broker, folder: &Path) {
    println!("\n| journal | produce to /metrics, median of 100 | 95 of 100 below |");
    println!("|---|---|---|");
    for journal in ["sqlite", "kafka"] {
        let topic = format!("latency-{journal}");
        broker.create(&topic);
        broker.produce(&topic, std::iter::once(incident(0)));
        let service = Service::start(broker, folder, &topic, journal, &topic, "servicenow");
        service.wait(1.0, Duration::from_millis(10));
        let producer: BaseProducer = broker.config().set("linger.ms", "0").create().unwrap();
        let mut times: Vec<Duration> = (1_u32..=100)
            .map(|at| {
                let (key, value) = incident(at as usize);
                let began = Instant::now();
                producer.send(BaseRecord::to(&topic).key(&key).payload(&value)).unwrap();
                producer.flush(Duration::from_secs(5)).unwrap();
                let took = service.wait(f64::from(at + 1), Duration::from_millis(2)).duration_since(began);
                std::thread::park_timeout(Duration::from_millis(100).saturating_sub(took));
                took
            })
            .collect();
        times.sort_unstable();
        println!("| {journal} | {} ms | {} ms |", times[50].as_millis(), times[95].as_millis());
    }
}

/// How often an instance is killed and started again.
const RESTARTS: usize = 10;

fn restart(broker: &Broker, folder: &Path) {
    println!("\n| journal | killed and started again until it counts, median of {RESTARTS} | longest |");
    println!("|---|---|---|");
    for journal in ["sqlite", "kafka"] {
        let topic = format!("restart-{journal}");
        let start = || Service::start(broker, folder, &topic, journal, &topic, "servicenow");
        let produce = |from, to| broker.produce(&topic, (from..to).map(incident));
        broker.create(&topic);
        produce(0, 1_000);
        let mut service = start();
        service.wait(1_000.0, Duration::from_millis(10));
        let mut times: Vec<Duration> = (1_000..1_000 + RESTARTS)
            .map(|at| {
                service.child.kill().unwrap();
                let began = Instant::now();
                produce(at, at + 1);
                service = start();
                service.wait(at as f64 + 1.0, Duration::from_millis(5)).duration_since(began)
            })
            .collect();
        times.sort_unstable();
        let milliseconds = |at: usize| times[at].as_millis();
        println!("| {journal} | {} ms | {} ms |", milliseconds(RESTARTS / 2), milliseconds(RESTARTS - 1));
    }
}

fn restore(broker: &Broker, folder: &Path) {
    broker.create("open");
    let event = |at: usize| {
        let texts =
            ["Customers cannot pay since nine", "the label printer jams", "error after login", "queue is stuck"];
        let value = format!(
            r#"{{"id":"INC{at:07}","kind":"incident","state":"open","summary":"{}","group":"Team {}","service":"Service {}","opened_at":"2026-03-02T08:14:00Z","updated_at":"2026-03-02T09:31:27Z","effort_seconds":{},"version":1}}"#,
            texts[at % 4],
            at % 50,
            at % 70,
            at % 100 * 60
        );
        (format!("INC{at:07}"), value)
    };
    broker.produce("open", (0..OPEN).map(event));
    println!("\n| journal | memory with a million open tickets | memory without | restored in | on disk |");
    println!("|---|---|---|---|---|");
    for journal in ["sqlite", "kafka"] {
        let name = format!("open-{journal}");
        let service = Service::start(broker, folder, &name, journal, "open", "generic");
        while service.metrics().is_none() {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        let empty = service.memory();
        service.wait(OPEN as f64, Duration::from_millis(200));
        drop(service);
        let began = Instant::now();
        let service = Service::start(broker, folder, &name, journal, "open", "generic");
        let took = service.wait(OPEN as f64, Duration::from_millis(50)).duration_since(began);
        let disk = match journal {
            "sqlite" => size(&folder.join(&name)),
            _ => size_of_topics(&broker.folder, &format!("{name}-open-journal-")),
        };
        println!(
            "| {journal} | {:.0} MB | {empty:.0} MB | {:.1} s | {:.0} MB |",
            service.memory(),
            took.as_secs_f64(),
            disk as f64 / 1e6
        );
    }
}

fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| if entry.path().is_dir() { size(&entry.path()) } else { entry.metadata().unwrap().len() }).sum()
}

fn size_of_topics(broker: &Path, prefix: &str) -> u64 {
    let entries = std::fs::read_dir(broker.join("data")).unwrap().map(|entry| entry.unwrap());
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)).map(|e| size(&e.path())).sum()
}

/// How often an instance is killed, and after how long every second of them is started again; the others are at once.
const KILL: Duration = Duration::from_secs(20);
const AWAY: Duration = Duration::from_secs(40);
/// The session of the instances: `session.timeout.ms`.
const SESSION: Duration = Duration::from_secs(30);
/// How much later than the session's end somebody must have taken over.
const GRACE: Duration = Duration::from_secs(5);

/// Three instances, of which one is down now and then.
struct Fleet<'a> {
    folder: &'a Path,
    settings: Vec<String>,
    running: Vec<Option<Service>>,
    back: Vec<Instant>,
}

impl<'a> Fleet<'a> {
    fn new(broker: &Broker, folder: &'a Path, topic: &str) -> Self {
        let mut settings = settings(broker, folder, topic, "kafka", topic, "servicenow");
        settings.push(format!("kafka.librdkafka.session.timeout.ms={}", SESSION.as_millis()));
        let running = (0..3).map(|_| None).collect();
        Self { folder, settings, running, back: vec![Instant::now(); 3] }
    }

    /// Starts every instance whose time has come.
    fn start_due(&mut self) {
        for number in 0..self.running.len() {
            if self.running[number].is_none() && Instant::now() >= self.back[number] {
                let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
                let address = format!("127.0.0.1:{port}");
                let mut settings = self.settings.clone();
                settings.push(format!("journal.path={}", self.folder.join(format!("soak-{number}")).display()));
                settings.push(format!("http.listen={address}"));
                self.running[number] = Some(Service { child: command("serve", &settings).spawn().unwrap(), address });
            }
        }
    }

    fn kill(&mut self, number: usize, away: Duration) {
        let running = self.running[number].take();
        let ended = running.and_then(|mut service| service.child.try_wait().unwrap());
        assert_eq!(ended, None, "instance {number} has ended by itself");
        self.back[number] = Instant::now() + away;
    }

    /// The records of each partition, as the instance says that shows most.
    fn records(&self) -> Vec<Option<f64>> {
        let texts: Vec<String> = self.running.iter().flatten().filter_map(Service::metrics).collect();
        let of = |text: &String, number: i32| {
            let here = format!("partition=\"{number}\"");
            let lines = text.lines().filter(|l| l.starts_with("customer_reach_records_total{") && l.contains(&here));
            let counts: Vec<f64> = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse().ok()).collect();
            (!counts.is_empty()).then(|| counts.iter().sum::<f64>())
        };
        (0..PARTITIONS).map(|number| texts.iter().filter_map(|text| of(text, number)).reduce(f64::max)).collect()
    }

    fn total(&self) -> f64 {
        self.records().into_iter().flatten().sum()
    }
}

fn soak(broker: &Broker, folder: &Path, length: Duration) {
    broker.create("soak");
    let mut fleet = Fleet::new(broker, folder, "soak");
    broker.produce("soak", (0..EVENTS).map(incident));
    fleet.start_due();
    let began = Instant::now();
    while fleet.total() < EVENTS as f64 {
        std::thread::park_timeout(Duration::from_millis(100));
    }
    let half = EVENTS as f64 / began.elapsed().as_secs_f64() / 2.0;
    println!("\nthree instances took {:.0} events/s; half of that for {} minutes", 2.0 * half, length.as_secs() / 60);
    let (produced, longest, fell) = std::thread::scope(|scope| {
        let producer = scope.spawn(|| produce_for(broker, half, length));
        let (longest, fell) = disturb(&mut fleet, length);
        (EVENTS + producer.join().unwrap(), longest, fell)
    });
    fleet.back.fill(Instant::now());
    fleet.start_due();
    while fleet.total() < produced as f64 {
        std::thread::park_timeout(Duration::from_millis(500));
    }
    println!(
        "{produced} events; no partition was without an owner for longer than {:.1} s (session {} s); {fell} counters fell",
        longest.as_secs_f64(),
        SESSION.as_secs()
    );
    let began = Instant::now();
    let audit = command("audit", &fleet.settings).output().unwrap();
    println!("audit ({:.0} s): {}", began.elapsed().as_secs_f64(), String::from_utf8_lossy(&audit.stdout));
    assert!(audit.status.success() && longest <= SESSION + GRACE && fell == 0);
}

/// Events at a steady rate; says how many.
fn produce_for(broker: &Broker, rate: f64, length: Duration) -> usize {
    let producer: BaseProducer = broker.config().create().unwrap();
    let began = Instant::now();
    let mut sent = 0;
    while began.elapsed() < length {
        let due = began.elapsed().min(length).as_secs_f64() * rate;
        while (sent as f64) < due {
            let (key, value) = incident(EVENTS + sent);
            match producer.send(BaseRecord::to("soak").key(&key).payload(&value)) {
                Ok(()) => sent += 1,
                Err(_) => {
                    producer.poll(Duration::from_millis(5));
                }
            }
        }
        producer.poll(Duration::from_millis(10));
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    sent
}

/// Kills one instance after the other; says how long a partition was shown by nobody at most, and how many counts fell.
fn disturb(fleet: &mut Fleet<'_>, length: Duration) -> (Duration, usize) {
    let began = Instant::now();
    let (mut kills, mut longest, mut fell) = (0, Duration::ZERO, 0);
    let mut seen = vec![(Instant::now(), 0.0); fleet.records().len()];
    while began.elapsed() < length {
        if began.elapsed() > KILL * (kills + 1) {
            fleet.kill(kills as usize % 3, if kills % 2 == 0 { Duration::ZERO } else { AWAY });
            kills += 1;
        }
        fleet.start_due();
        for ((last, most), now) in seen.iter_mut().zip(fleet.records()) {
            let Some(now) = now else {
                longest = longest.max(last.elapsed());
                continue;
            };
            fell += usize::from(now < *most);
            (*last, *most) = (Instant::now(), now);
        }
        std::thread::park_timeout(Duration::from_millis(200));
    }
    (longest, fell)
}
