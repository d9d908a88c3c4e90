//! The tools of the tests: brokers, instances of the binary, scrapes, and invented tickets with an independent recount.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};

use crate::proxy::Proxy;

/// A port that nobody listens on at the moment, and which Linux gives no outgoing connection (those are 32768 and up).
pub fn listening_port() -> u16 {
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let mut random = Random::new(RandomState::new().build_hasher().finish());
    std::iter::repeat_with(|| 20_000 + random.below(12_000) as u16).find(is_free).unwrap()
}

/// How long anything may take before a test fails.
pub const LIMIT: Duration = Duration::from_secs(180);

/// A variable that `tests/run` sets; without it the test is left out, except in CI, where that would hide it.
pub fn given(variable: &str) -> Option<String> {
    let value = std::env::var(variable).ok();
    assert!(value.is_some() || std::env::var("CI").is_err(), "{variable} is not set; run tests/run");
    if value.is_none() {
        eprintln!("left out: {variable} is not set; tests/run sets it");
    }
    value
}

/// Looks again and again until `found` gives a value.
pub fn until<T>(what: &str, found: impl FnMut() -> Option<T>) -> T {
    until_within(LIMIT, what, found)
}

/// The same for what may take longer.
pub fn until_within<T>(limit: Duration, what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(Instant::now() < end, "not within {} s: {what}", limit.as_secs());
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// A broker of the run, or one of the test's own.
pub struct Broker {
    pub address: String,
    own: Option<PathBuf>,
    tools: PathBuf,
}

impl Broker {
    /// The broker that all tests share; it must not be stopped.
    pub fn shared() -> Option<Self> {
        Self::at(&given("CUSTOMER_REACH_TEST_BROKER")?)
    }

    /// Brokers that run already.
    pub fn at(address: &str) -> Option<Self> {
        Some(Self { address: address.to_owned(), own: None, tools: given("CUSTOMER_REACH_TEST_KAFKA")?.into() })
    }

    /// A broker that the test may stop.
    pub fn own(folder: &Path) -> Option<Self> {
        Self::with(folder, &[])
    }

    /// A broker that the test may stop, with settings as `KEY=VALUE`.
    pub fn with(folder: &Path, settings: &[&str]) -> Option<Self> {
        let tools = PathBuf::from(given("CUSTOMER_REACH_TEST_KAFKA")?);
        let mut broker = Self { address: String::new(), own: Some(folder.join("broker")), tools };
        broker.address = broker.run("start", settings);
        Some(broker)
    }

    /// A broker that the test may stop, and that instances reach through proxies, each by one of them alone.
    pub fn behind(folder: &Path, proxies: &[Proxy]) -> Option<Self> {
        let with = |of: &dyn Fn(usize, &Proxy) -> String| -> String {
            proxies.iter().enumerate().map(|(number, proxy)| of(number, proxy)).collect()
        };
        let settings = [
            format!(
                "listeners=PLAINTEXT://127.0.0.1:{{port}},CONTROLLER://127.0.0.1:{{controller}}{}",
                with(&|number, _| format!(",PROXIED{number}://127.0.0.1:{{free}}"))
            ),
            format!(
                "advertised.listeners=PLAINTEXT://127.0.0.1:{{port}}{}",
                with(&|number, proxy| format!(",PROXIED{number}://127.0.0.1:{}", proxy.port))
            ),
            format!(
                "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{}",
                with(&|number, _| format!(",PROXIED{number}:PLAINTEXT"))
            ),
        ];
        let broker = Self::with(folder, &settings.each_ref().map(String::as_str))?;
        for (number, proxy) in proxies.iter().enumerate() {
            proxy.lead_to(broker.port_of(&format!("PROXIED{number}")));
        }
        Some(broker)
    }

    /// Runs one of the broker script's commands and gives what it prints.
    pub fn control(&self, command: &str) -> String {
        self.run(command, &[])
    }

    /// Whether it has forgotten a transaction that it had acknowledged. A lone broker that was killed may: until its old
    /// session is over it writes the ends of transactions; then its partitions have no leader for a moment, count as
    /// deleted, and those transactions as ended.
    pub fn has_lost_a_transaction(&self) -> bool {
        let log = std::fs::read_to_string(self.folder().join("broker.log")).unwrap();
        log.contains("Couldn't find leader endpoint for partitions")
    }

    fn run(&self, command: &str, settings: &[&str]) -> String {
        let mut script = Command::new(self.tools.join("broker"));
        script.arg(command).arg(self.folder()).args(settings);
        let output = script.stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "broker {command} failed");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn folder(&self) -> &Path {
        self.own.as_ref().expect("only a broker of the test's own is controlled")
    }

    fn port_of(&self, listener: &str) -> u16 {
        let settings = std::fs::read_to_string(self.folder().join("server.properties")).unwrap();
        let listeners = settings.lines().rev().find_map(|line| line.strip_prefix("listeners=")).unwrap();
        let found = listeners.split(',').find_map(|one| one.strip_prefix(&format!("{listener}://127.0.0.1:")));
        found.unwrap().parse().unwrap()
    }

    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address).set("message.max.bytes", "100000000");
        config
    }

    /// A producer of which nothing is there twice that is sent again because a broker died.
    pub fn producer(&self) -> BaseProducer {
        self.config().set("enable.idempotence", "true").create().unwrap()
    }

    fn admin(&self) -> (AdminClient<DefaultClientContext>, tokio::runtime::Runtime) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        (self.config().create().unwrap(), runtime)
    }

    /// Makes a topic.
    pub fn create_topic(&self, topic: &str, partitions: i32) {
        self.create_topic_with(topic, partitions, &[]);
    }

    /// Makes a topic that takes records of any time, and keeps them.
    pub fn create_timeless_topic(&self, topic: &str, partitions: i32) {
        let forever = i64::MAX.to_string();
        self.create_topic_with(
            topic,
            partitions,
            &[("retention.ms", "-1"), ("message.timestamp.after.max.ms", &forever)],
        );
    }

    /// Makes a topic that takes records of several megabytes.
    pub fn create_roomy_topic(&self, topic: &str, partitions: i32) {
        self.create_topic_with(topic, partitions, &[("max.message.bytes", "8000000")]);
    }

    /// Makes a topic that keeps the last record of each key.
    pub fn create_compacted_topic(&self, topic: &str, partitions: i32) {
        self.create_topic_with(topic, partitions, &[("cleanup.policy", "compact")]);
    }

    fn create_topic_with(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let (admin, runtime) = self.admin();
        // As many copies as the brokers have by default.
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
        let new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
        let made = runtime.block_on(admin.create_topics([&new], &AdminOptions::new())).unwrap();
        assert!(made.iter().all(Result::is_ok), "{made:?}");
    }

    /// Gives a topic more partitions, and waits until brokers say so.
    pub fn grow_topic(&self, topic: &str, partitions: usize) {
        let (admin, runtime) = self.admin();
        let grown =
            runtime.block_on(admin.create_partitions([&NewPartitions::new(topic, partitions)], &AdminOptions::new()));
        assert!(grown.unwrap().iter().all(Result::is_ok));
        until("the partitions are there", || {
            let metadata = admin.inner().fetch_metadata(Some(topic), LIMIT).unwrap();
            metadata.topics().iter().any(|found| found.partitions().len() == partitions).then_some(())
        });
    }

    /// The topics that are not Kafka's own, with how many partitions they have.
    pub fn topics(&self) -> Vec<(String, usize)> {
        let metadata = self.admin().0.inner().fetch_metadata(None, LIMIT).unwrap();
        let own = metadata.topics().iter().filter(|topic| !topic.name().starts_with("__"));
        let mut all: Vec<_> = own.map(|topic| (topic.name().to_owned(), topic.partitions().len())).collect();
        all.sort();
        all
    }

    /// Whether every partition of every topic has so many copies that are not behind.
    pub fn has_copies(&self, copies: usize) -> bool {
        let metadata = self.admin().0.inner().fetch_metadata(None, LIMIT).unwrap();
        metadata.topics().iter().flat_map(|topic| topic.partitions()).all(|partition| partition.isr().len() == copies)
    }

    /// Deletes a topic and waits until it is gone.
    pub fn delete_topic(&self, topic: &str) {
        let (admin, runtime) = self.admin();
        let gone = runtime.block_on(admin.delete_topics(&[topic], &AdminOptions::new())).unwrap();
        assert!(gone.iter().all(Result::is_ok), "{gone:?}");
        until("the topic is gone", || {
            let metadata = admin.inner().fetch_metadata(None, LIMIT).unwrap();
            metadata.topics().iter().all(|found| found.name() != topic).then_some(())
        });
    }

    /// Deletes the records of a partition below an offset, as a topic's retention does.
    pub fn delete_records(&self, topic: &str, partition: i32, below: i64) {
        let (admin, runtime) = self.admin();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(below)).unwrap();
        runtime.block_on(admin.delete_records(&list, &AdminOptions::new())).unwrap();
    }

    /// How many records of a topic the group has committed, as Kafka itself says; `None` before it has any.
    pub fn committed(&self, group: &str, topic: &str) -> Option<i64> {
        let consumer: BaseConsumer = self.config().set("group.id", group).create().unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), LIMIT).unwrap();
        let mut list = TopicPartitionList::new();
        metadata.topics()[0].partitions().iter().for_each(|partition| _ = list.add_partition(topic, partition.id()));
        let committed = consumer.committed_offsets(list, LIMIT).ok()?;
        committed.elements().iter().map(|element| element.offset().to_raw().filter(|offset| *offset >= 0)).sum()
    }

    /// How many members a consumer group has.
    pub fn members_of(&self, group: &str) -> usize {
        let consumer: BaseConsumer = self.config().create().unwrap();
        let groups = consumer.fetch_group_list(Some(group), LIMIT).unwrap();
        groups.groups().iter().map(|group| group.members().len()).sum()
    }

    /// Whether a transaction has written to a topic and has not ended.
    pub fn has_open_transaction(&self, topic: &str, partitions: i32) -> bool {
        let end = |isolation: &str, partition: i32| {
            let mut config = self.config();
            let consumer: BaseConsumer = config.set("isolation.level", isolation).create().unwrap();
            consumer.fetch_watermarks(topic, partition, LIMIT).unwrap().1
        };
        (0..partitions).any(|partition| end("read_committed", partition) < end("read_uncommitted", partition))
    }

    /// Produces messages with our own client library.
    pub fn produce(&self, topic: &str, messages: &[Message]) {
        let producer = self.producer();
        for message in messages {
            let mut record = BaseRecord::to(topic).key(message.key.as_bytes());
            if let Some(value) = &message.value {
                record = record.payload(value);
            }
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(LIMIT).unwrap();
    }

    /// Produces records as they are: key and value.
    pub fn produce_bytes(&self, topic: &str, records: &[KeyAndValue]) {
        send_bytes(&self.producer(), topic, records);
    }

    /// Produces every record of a topic with one partition once more, as a commit does that is tried again.
    pub fn produce_again(&self, topic: &str) {
        let producer = self.producer();
        for Bytes { timestamp, key, headers, value } in self.read_bytes(topic) {
            let headers = headers
                .iter()
                .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value) }));
            let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).headers(headers);
            (record.timestamp, record.key, record.payload) = (timestamp, key.as_deref(), value.as_deref());
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(LIMIT).unwrap();
    }

    /// Produces records in a transaction that the caller ends.
    pub fn produce_unended(&self, topic: &str, records: &[KeyAndValue]) -> BaseProducer {
        let mut config = self.config();
        let lasting = config.set("transactional.id", topic).set("transaction.timeout.ms", "900000");
        let producer: BaseProducer = lasting.create().unwrap();
        producer.init_transactions(LIMIT).unwrap();
        producer.begin_transaction().unwrap();
        send_bytes(&producer, topic, records);
        producer
    }

    /// Sets the group's position in a topic's first partition, in a transaction that the caller ends.
    pub fn commit_unended(&self, group: &str, topic: &str, position: i64) -> BaseProducer {
        let producer = self.produce_unended(topic, &[]);
        let consumer: BaseConsumer = self.config().set("group.id", group).create().unwrap();
        let mut positions = TopicPartitionList::new();
        positions.add_partition_offset(topic, 0, Offset::Offset(position)).unwrap();
        producer.send_offsets_to_transaction(&positions, &consumer.group_metadata().unwrap(), LIMIT).unwrap();
        producer
    }

    /// Produces records with their time and, where it is given, to their partition.
    pub fn produce_timed(&self, topic: &str, records: &[(Option<i32>, i64, Message)]) {
        let producer = self.producer();
        for (partition, time, message) in records {
            let mut record = BaseRecord::to(topic).key(&message.key).timestamp(*time);
            (record.partition, record.payload) = (*partition, message.value.as_ref());
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(LIMIT).unwrap();
    }

    /// All committed records of a topic with one partition, as they are.
    pub fn read_bytes(&self, topic: &str) -> Vec<Bytes> {
        self.read_bytes_of(topic, 0)
    }

    /// All committed records of a partition, as they are.
    pub fn read_bytes_of(&self, topic: &str, partition: i32) -> Vec<Bytes> {
        let mut config = self.config();
        let consumer: BaseConsumer = config
            .set("group.id", topic)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let mut all = Vec::new();
        loop {
            let message = match until("the next message is there", || consumer.poll(LIMIT)) {
                Ok(message) => message,
                Err(KafkaError::PartitionEOF(_)) => return all,
                Err(error) => panic!("{error}"),
            };
            let headers = message.headers().map(|all| {
                all.iter().map(|h| (h.key.to_owned(), String::from_utf8_lossy(h.value.unwrap()).into_owned())).collect()
            });
            let [key, value] = [message.key(), message.payload()].map(|bytes| bytes.map(<[u8]>::to_vec));
            let timestamp = message.timestamp().to_millis();
            all.push(Bytes { timestamp, key, headers: headers.unwrap_or_default(), value });
        }
    }

    /// All messages of a topic with one partition: key, headers, value.
    pub fn read_all(&self, topic: &str) -> Vec<Received> {
        let mut config = self.config();
        let consumer: BaseConsumer = config.set("group.id", topic).set("enable.auto.commit", "false").create().unwrap();
        let (start, end) = consumer.fetch_watermarks(topic, 0, LIMIT).unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Offset(start)).unwrap();
        consumer.assign(&list).unwrap();
        let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap();
        (start..end)
            .map(|_| {
                let message = until("the next message is there", || consumer.poll(LIMIT)).unwrap();
                let headers =
                    message.headers().map(|all| all.iter().map(|h| (h.key.to_owned(), text(h.value))).collect());
                (text(message.key()), headers.unwrap_or_default(), text(message.payload()))
            })
            .collect()
    }

    /// Runs one of Kafka's own tools, whatever comes of it.
    pub fn tool<'a>(&self, class: &str, arguments: impl IntoIterator<Item = &'a str>) {
        let ran = Command::new(self.tools.join("tool")).arg(class).args(arguments).status().unwrap();
        println!("{class}: {ran}");
    }

    /// Produces lines `key<TAB>value` with Kafka's own console producer.
    pub fn console_produce(&self, topic: &str, lines: &str) {
        let mut child = Command::new(self.tools.join("tool"))
            .args([
                "ConsoleProducer",
                "--bootstrap-server",
                &self.address,
                "--topic",
                topic,
                "--reader-property",
                "parse.key=true",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.own.is_some() && !std::thread::panicking() {
            self.control("kill");
        }
    }
}

fn send_bytes(producer: &BaseProducer, topic: &str, records: &[KeyAndValue]) {
    for (key, value) in records {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic);
        (record.key, record.payload) = (key.as_deref(), value.as_deref());
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(LIMIT).unwrap();
}

/// Key and value of a record, as they are.
pub type KeyAndValue = (Option<Vec<u8>>, Option<Vec<u8>>);

/// A record that was read, as it is.
pub struct Bytes {
    pub timestamp: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub headers: Vec<(String, String)>,
    pub value: Option<Vec<u8>>,
}

impl Bytes {
    /// One of our own headers.
    pub fn header(&self, name: &str) -> String {
        let found = self.headers.iter().find(|(key, _)| key.strip_prefix("customer-reach.") == Some(name));
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }
}

/// A message that was read: key, headers, value.
pub type Received = (String, Vec<(String, String)>, String);

/// One message to be produced.
#[derive(Clone, Debug)]
pub struct Message {
    pub key: String,
    pub value: Option<String>,
}

/// A name that no other test uses.
pub fn unique(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

/// What `audit` says, with its exit code.
pub fn audit(config: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output = binary().args(["audit", "--config"]).arg(config).args(args).output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code(), stdout, stderr)
}

/// Fails unless an audit finds that everything was counted exactly once.
pub fn assert_exact(config: &Path, messages: &[Message]) -> Value {
    let (code, report, log) = audit(config, &["--format", "json"]);
    assert_eq!(code, Some(0), "{report}{log}");
    let report: Value = report.parse().unwrap();
    assert_eq!(report["exact"], true, "{report:#}");
    let expected = Recount::of(messages);
    assert_eq!(report["tickets"].as_f64(), Some(expected.tickets));
    assert_eq!(report["effort_seconds"].as_f64(), Some(expected.customer_effort + expected.internal_effort));
    report
}

/// The same with the journal in topics, and with more lines of the input.
pub fn write_kafka_config(folder: &Path, broker: &str, topic: &str, group: &str, more: &str) -> PathBuf {
    let path = write_config(folder, broker, topic, group);
    let text = std::fs::read_to_string(&path).unwrap().replace("[journal]\n", "[journal]\nkind = \"kafka\"\n");
    std::fs::write(&path, text.replace("[[input]]\n", &format!("[[input]]\n{more}"))).unwrap();
    path
}

/// Runs `journal …` and gives how it ended, with what it said.
pub fn journal(command: &str, config: &Path, file: &Path, set: &[&str]) -> (bool, String) {
    let mut binary = binary();
    binary.args(["journal", command, "--config"]).arg(config).arg(file);
    set.iter().for_each(|setting| _ = binary.args(["--set", setting]));
    let output = binary.output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

/// Imports a journal. Until the session of the instance before is over, the group has a member.
pub fn import_when_free(config: &Path, file: &Path, set: &[&str]) {
    until("the group is free and the journal is imported", || {
        let (done, said) = journal("import", config, file, set);
        assert!(done || said.contains("instances read with the consumer group"), "{said}");
        done.then_some(())
    });
}

/// A configuration for the generic profile in a folder of its own.
pub fn write_config(folder: &Path, broker: &str, topic: &str, group: &str) -> PathBuf {
    let (path, state) = (folder.join("customer-reach.toml"), folder.join("state"));
    let text = format!(
        "[kafka]\nbrokers = {broker:?}\ngroup = {group:?}\n[[input]]\ntopic = {topic:?}\nprofile = \"generic\"\n\
         [journal]\npath = {state:?}\n[http]\nlisten = \"127.0.0.1:0\"\n[metrics]\nzero_hold = \"0s\"\n"
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// A running instance of the binary.
pub struct Instance {
    child: Child,
    pub address: String,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

/// The binary under test, or the one that CUSTOMER_REACH_TEST_PROGRAM names in its place.
pub fn binary() -> Command {
    let built = env!("CARGO_BIN_EXE_customer-reach").to_owned();
    let mut command = Command::new(std::env::var("CUSTOMER_REACH_TEST_PROGRAM").unwrap_or(built));
    command.env_remove("CUSTOMER_REACH_LOG");
    command
}

impl Instance {
    /// Starts `serve` and waits until it listens.
    pub fn start(config: &Path, set: &[&str]) -> Self {
        let mut instance = Self::spawn(config, set, &[]);
        instance.address = instance.listening();
        instance
    }

    /// Starts `serve`, which may be refused before it listens.
    pub fn spawn(config: &Path, set: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = binary();
        command.args(["serve", "--config"]).arg(config).envs(environment.iter().copied());
        set.iter().for_each(|setting| {
            command.args(["--set", setting]);
        });
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let (stderr, lines) = (BufReader::new(child.stderr.take().unwrap()), log.clone());
        let reader = std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).for_each(|line| lines.lock().unwrap().push(line));
        });
        Self { child, address: String::new(), log, reader: Some(reader) }
    }

    /// Waits until it listens, or ends before: then its exit code is given.
    pub fn listens_or_ends(&mut self) -> Option<Option<i32>> {
        let ended = until("the instance listens or ends", || match self.child.try_wait().unwrap() {
            Some(status) => Some(Some(status.code())),
            None => self.log().contains("address=").then_some(None),
        });
        if ended.is_none() {
            self.address = self.listening();
        }
        ended
    }

    fn listening(&mut self) -> String {
        until("the instance listens", || {
            let log = self.log();
            assert!(self.child.try_wait().unwrap().is_none(), "the instance does not listen:\n{log}");
            let (_, rest) = log.split_once("address=")?;
            Some(rest.lines().next()?.trim().to_owned())
        })
    }

    /// What it has said up to now.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Waits until it has said this.
    pub fn says(&self, text: &str) {
        until(&format!("the instance says: {text}"), || self.log().contains(text).then_some(()));
    }

    /// The body of a page, with its status.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        get(&format!("http://{}{path}", self.address))
    }

    /// The series on /metrics by their name and labels.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        until("/metrics answers", || self.scrape())
    }

    /// The same once; `None` when it does not answer.
    pub fn scrape(&self) -> Option<BTreeMap<String, f64>> {
        let (status, text) = self.get("/metrics")?;
        assert_eq!(status, 200, "{text}");
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let parsed = samples.map(|line| line.rsplit_once(' ').unwrap());
        Some(parsed.map(|(series, value)| (series.to_owned(), value.parse().unwrap())).collect())
    }

    /// Only the ledger's series: those with a partition, less the process's own.
    pub fn ledger_metrics(&self) -> BTreeMap<String, f64> {
        ledgers_of(self.metrics())
    }

    /// Waits until this many records of a topic are committed.
    pub fn wait_for_records(&self, topic: &str, count: usize) {
        until(&format!("{count} records of {topic} are committed"), || {
            let taken = sum(&self.metrics(), "customer_reach_records_total", &[&format!("topic=\"{topic}\"")]);
            assert!(taken <= count as f64, "{taken} records were counted, there are only {count}");
            (taken == count as f64).then_some(())
        });
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Ends it as `kill -9` does.
    pub fn kill(mut self) {
        assert!(!self.has_ended(), "the instance has ended by itself:\n{}", self.log());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Asks it to load packs anew.
    pub fn hang_up(&self) {
        self.signal("-HUP");
    }

    /// Ends it with SIGTERM and says whether it ended well.
    pub fn terminate(mut self) -> bool {
        self.signal("-TERM");
        self.wait_for_exit()
    }

    /// Ends it with SIGTERM and gives what it said since it began to listen.
    pub fn stopped(self) -> (bool, String) {
        self.signal("-TERM");
        self.ended()
    }

    fn wait_for_exit(&mut self) -> bool {
        until("the instance ends", || self.child.try_wait().unwrap()).success()
    }

    /// Waits until it ends by itself and gives what it said.
    pub fn ended(mut self) -> (bool, String) {
        let success = self.wait_for_exit();
        self.reader.take().unwrap().join().unwrap();
        (success, self.log())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // It has ended already where the test came to its end.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the log of the instance at {}:\n{}", self.address, self.log());
        }
    }
}

/// The body of a page with its status; `None` when nobody answers.
pub fn get(url: &str) -> Option<(u16, String)> {
    let limit = Some(Duration::from_secs(5));
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(limit);
    let agent: ureq::Agent = config.build().into();
    let mut response = agent.get(url).call().ok()?;
    Some((response.status().as_u16(), response.body_mut().read_to_string().ok()?))
}

/// The ledger's series: those with a partition, less the process's own.
pub fn ledgers_of(metrics: BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let own = |series: &str| series.contains("partition=") && !series.contains("consumer_lag");
    metrics.into_iter().filter(|(series, _)| own(series)).collect()
}

/// The sum of all series of a metric that carry all these labels.
pub fn sum(metrics: &BTreeMap<String, f64>, name: &str, labels: &[&str]) -> f64 {
    let of = |series: &str| series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label));
    metrics.iter().filter(|(series, _)| of(series)).map(|(_, value)| value).sum()
}

/// Small, repeatable randomness.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Bytes that no compression makes shorter.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.below(256) as u8).take(length).collect()
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Invented tickets: versions, corrections downwards, changes of the declared tag, repeats, stale versions, and records
/// that are none.
pub fn invented(seed: u64, count: usize) -> Vec<Message> {
    let mut random = Random::new(seed);
    let mut versions: HashMap<u64, u64> = HashMap::new();
    let message = |key: String, value: String| Message { key, value: Some(value) };
    (0..count)
        .map(|_| {
            let ticket = random.below(1 + count as u64 / 5);
            let key = format!("T{ticket}");
            match random.below(50) {
                0 => message(key, "{\"id\": \"broken".to_owned()),
                1 => Message { key, value: None },
                kind => {
                    let version = versions.entry(ticket).or_default();
                    if kind > 8 {
                        *version += 1;
                    } else if kind > 5 {
                        *version = version.saturating_sub(1).max(1);
                    }
                    message(key, event(ticket, (*version).max(1)))
                }
            }
        })
        .collect()
}

/// One version of an invented ticket; everything follows from its number and version.
fn event(ticket: u64, version: u64) -> String {
    let mut random = Random::new(ticket * 1000 + version);
    let mut one_of = |names: &[&str]| names[random.below(names.len() as u64) as usize].to_owned();
    let (kind, state) =
        (one_of(&["incident", "request", "change"]), one_of(&["open", "pending", "resolved", "closed"]));
    let affects = one_of(&["customer", "internal"]);
    json!({
        "id": format!("T{ticket}"),
        "kind": kind,
        "state": state,
        "summary": format!("Something about thing {ticket}"),
        "group": format!("Team {}", random.below(5)),
        "service": format!("Service {}", random.below(4)),
        "version": version,
        "effort_seconds": random.below(20) * 300,
        "affects": affects,
    })
    .to_string()
}

/// What the counters must say of messages, found in the slow and obvious way: the highest version of each ticket.
#[derive(Debug, Default, PartialEq)]
pub struct Recount {
    pub tickets: f64,
    pub customer_effort: f64,
    pub internal_effort: f64,
    pub customer_tickets: f64,
}

impl Recount {
    pub fn of(messages: &[Message]) -> Self {
        let mut newest: HashMap<String, Value> = HashMap::new();
        for message in messages {
            let Some(event) = message.value.as_ref().and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
                continue;
            };
            let id = event["id"].as_str().unwrap().to_owned();
            let held = newest.get(&id).map_or(0, |held| held["version"].as_u64().unwrap());
            if event["version"].as_u64().unwrap() > held {
                newest.insert(id, event);
            }
        }
        let effort = |tag: &str| {
            newest.values().filter(|e| e["affects"] == tag).map(|e| e["effort_seconds"].as_f64().unwrap()).sum()
        };
        Self {
            tickets: newest.len() as f64,
            customer_effort: effort("customer"),
            internal_effort: effort("internal"),
            customer_tickets: newest.values().filter(|e| e["affects"] == "customer").count() as f64,
        }
    }

    /// The same from the counters of a topic, by the rule for net figures.
    pub fn shown(metrics: &BTreeMap<String, f64>, topic: &str) -> Self {
        let topic = format!("topic=\"{topic}\"");
        let total = |name: &str, label: &str| sum(metrics, &format!("customer_reach_{name}"), &[&topic, label]);
        let net = |tag: &str| {
            total("effort_seconds_total", &format!("affects=\"{tag}\""))
                - total("corrected_effort_seconds_total", &format!("affects=\"{tag}\""))
                + total("reclassified_effort_seconds_total", &format!("to=\"{tag}\""))
                - total("reclassified_effort_seconds_total", &format!("from=\"{tag}\""))
        };
        Self {
            tickets: total("tickets_total", ""),
            customer_effort: net("customer"),
            internal_effort: net("internal"),
            customer_tickets: total("tickets_total", "affects=\"customer\"")
                + total("reclassified_tickets_total", "to=\"customer\"")
                - total("reclassified_tickets_total", "from=\"customer\""),
        }
    }
}
