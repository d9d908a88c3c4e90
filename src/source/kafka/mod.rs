//! Records from Kafka, in order of each partition, from the positions that the journal holds.
//!
//! The consumer lives on an OS thread of its own which polls it without pause: rebalances are served there, and when the
//! pipeline falls behind, partitions are paused instead of the polling. Offsets in Kafka and here are those of the
//! *next* record.
//!
//! Each assignment has an [`Epoch`], and each record that of the assignment by which it came, so that what was fetched
//! before a partition was given up is told from what is fetched after it came back.

mod context;
mod error;
mod group;
mod membership;
mod range;
mod reader;
mod state;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use hashbrown::HashMap;
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

pub use error::SourceError;
pub use membership::{Generation, Membership};
pub use range::RangeReader;
pub use state::{Noted, SourceState, SourceWatch};

use self::context::Context;
use self::reader::{Reader, Reading};
use self::state::Shared;
use crate::config::Kafka;
use crate::record::{Partition, Record};

/// How long to wait where there is nothing to poll; commands wait at most as long. Not by a poll that waits, which spins for
/// the last millisecond.
const IDLE: Duration = Duration::from_millis(5);
/// How long a request to the brokers may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// What a position in the group says of who committed it, before the journal's id.
const CLAIM: &str = "customer-reach journal ";

/// The number of an assignment: a later one is higher.
pub type Epoch = u64;

/// The mark with which positions in the group are committed for this journal.
pub fn claim(journal: &str) -> String {
    format!("{CLAIM}{journal}")
}

/// A record with the assignment by which it came.
#[derive(Debug)]
pub struct Fetched {
    /// The record.
    pub record: Record,
    /// The epoch of the assignment.
    pub epoch: Epoch,
}

/// What the group has decided.
#[derive(Debug)]
pub enum Rebalance {
    /// What holds for the group's offsets from now on.
    Member(Generation),
    /// These partitions are this process's from now on.
    Assigned(Vec<(Partition, Epoch)>),
    /// These are no longer; whoever has let them go says so.
    Revoked(Vec<Partition>, Sender<()>),
}

/// What the pipeline tells the source.
#[derive(Debug)]
enum Command {
    /// The journal holds everything before these positions.
    Committed(Vec<(Partition, i64)>),
    /// The partition is restored and to be read from there, or from where the group or the topic begins.
    Start(Partition, Epoch, Option<i64>),
    /// Everything is to be restored again.
    Again,
}

/// The source as the pipeline holds it.
#[derive(Debug)]
pub struct KafkaSource {
    rebalances: Receiver<Rebalance>,
    commands: Sender<Command>,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// What the source has fetched.
#[derive(Clone, Debug)]
pub struct Fetches {
    records: Receiver<Fetched>,
    shared: Arc<Shared>,
}

/// Why the journal is not ready for the topics.
#[derive(Debug)]
pub enum Unready {
    /// It may become so by itself.
    NotYet(String),
    /// Somebody has to do something.
    Never(String),
}

/// Makes the journal ready for the partitions of the topics.
pub type Prepare = Box<dyn Fn(&[Partition]) -> Result<(), Unready> + Send>;

/// How far a partition is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The offset of the next record.
    pub position: i64,
    /// The time of the newest record up to there, in milliseconds since 1970; `i64::MIN` where no record had one.
    pub newest: i64,
}

/// Where a partition is begun when it is assigned.
#[derive(Clone, Debug)]
pub enum Start {
    /// Where the journal was at the start and since; that wins over the group's positions.
    Known {
        /// What was counted before the start.
        counted: HashMap<Partition, Counted>,
        /// The journal's identity, if it serves one instance only.
        journal: Option<String>,
        /// Whether the journal was put back from a backup, and counted more before.
        is_behind: bool,
    },
    /// Where the pipeline says, as soon as it has restored the partition or knows the group's position in it. librdkafka, left to
    /// itself, begins anywhere when rebalances come while it asks for that.
    Told {
        /// The identity of this instance.
        instance: String,
        /// The mark of the group's positions.
        claim: &'static str,
    },
}

/// How the source is to read.
pub struct SourceOptions {
    /// `[kafka]`.
    pub kafka: Kafka,
    /// The inputs.
    pub topics: Vec<String>,
    /// Topics that are read besides, once the journal is ready.
    pub added: Vec<String>,
    /// Called with the partitions of the inputs before the group is joined, until it succeeds.
    pub prepare: Option<Prepare>,
    /// Where to begin.
    pub start: Start,
}

impl SourceOptions {
    fn all_topics(&self) -> Vec<String> {
        [&self.topics[..], &self.added].concat()
    }
}

impl KafkaSource {
    /// Starts to read.
    ///
    /// # Errors
    /// When librdkafka does not take the settings. Brokers that cannot be reached are no error: they are tried again.
    pub fn start(options: SourceOptions, watch: &SourceWatch) -> Result<(Self, Fetches), SourceError> {
        let shared = watch.0.clone();
        let (sender, rebalances) = unbounded();
        if let Start::Known { counted, .. } = &options.start {
            let positions = counted.iter().map(|(partition, counted)| (partition.clone(), counted.position));
            shared.state().positions.extend(positions);
        }
        let context = Context { shared: shared.clone(), rebalances: sender.clone(), start: options.start.clone() };
        let consumer = consumer(&options, context)?;
        let (commands, commanded) = unbounded();
        let (records, fetched) = unbounded();
        let mut reader = Reader {
            consumer,
            options,
            shared: shared.clone(),
            records,
            rebalances: sender,
            commands: commanded,
            topics: HashMap::new(),
            reading: Reading::default(),
        };
        let thread = watch.spawn("kafka", move || reader.run()).map_err(|e| SourceError::Settings(e.to_string()))?;
        let fetches = Fetches { records: fetched, shared: shared.clone() };
        Ok((Self { rebalances, commands, shared, thread }, fetches))
    }

    /// What the group has decided since.
    pub fn rebalances(&self) -> &Receiver<Rebalance> {
        &self.rebalances
    }

    /// Says how far records are committed in the journal, so that the group's positions follow.
    pub fn committed(&self, positions: Vec<(Partition, i64)>) {
        self.shared.state().positions.extend(positions.iter().cloned());
        self.tell(Command::Committed(positions));
    }

    /// Says where to read a partition that was restored; `None` for one that has no journal yet.
    pub fn begin(&self, partition: Partition, epoch: Epoch, position: Option<i64>) {
        self.tell(Command::Start(partition, epoch, position));
    }

    /// Has every partition assigned anew, since the pipeline has lost its state.
    pub fn begin_again(&self) {
        self.tell(Command::Again);
    }

    fn tell(&self, command: Command) {
        if self.commands.send(command).is_err() {
            tracing::debug!("the Kafka thread has ended");
        }
    }

    /// Why the source ended, if it ended by itself.
    pub fn failure(&self) -> Option<SourceError> {
        self.shared.state().failed.clone()
    }

    /// Ends the source and leaves the group, waiting at most `limit` for it.
    pub fn close(self, limit: Duration) {
        self.shared.stop();
        drop(self.commands);
        let end = Instant::now() + limit;
        while !self.thread.is_finished() && Instant::now() < end {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

impl Fetches {
    /// Waits for the next record, at most until `deadline`; `None` when there is none by then.
    pub fn next(&self, deadline: Instant) -> Option<Fetched> {
        let fetched = self.records.recv_deadline(deadline).ok()?;
        self.shared.drain(&fetched.record);
        Some(fetched)
    }

    /// Whether nothing more is to be taken; what is fetched all the same is read again at the next start.
    pub fn is_finished(&self) -> bool {
        self.shared.stopped() || self.shared.state().failed.is_some()
    }
}

fn consumer(options: &SourceOptions, context: Context) -> Result<BaseConsumer<Context>, SourceError> {
    client_config(options).create_with_context(context).map_err(|e| SourceError::Settings(e.to_string()))
}

/// librdkafka's settings: what this service needs, then what the user sets.
fn client_config(options: &SourceOptions) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &options.kafka.brokers)
        .set("group.id", &options.kafka.group)
        .set("client.id", format!("customer-reach-{}", std::process::id()))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("allow.auto.create.topics", "false")
        // With the default of a second, a consumer that does work gets a fifth of the throughput.
        .set("fetch.queue.backoff.ms", "5")
        .set("queued.max.messages.kbytes", "32768")
        // Brokers answer the requests of a connection one after the other: for so long partitions that are begun wait for a
        // fetch that finds nothing.
        .set("fetch.wait.max.ms", "100")
        // By its heartbeat a member hears that partitions are to be had, and its session begins with the last one.
        .set("heartbeat.interval.ms", "1000")
        .set("statistics.interval.ms", "1000");
    let instance = match &options.start {
        Start::Known { journal, .. } => journal.as_ref(),
        Start::Told { instance, .. } => Some(instance),
    };
    if let Some(id) = instance {
        // A restarted process takes its partitions back at once instead of after the session timeout (KIP-345).
        config.set("group.instance.id", format!("customer-reach-{id}"));
    }
    for (property, value) in &options.kafka.librdkafka {
        config.set(property, value.reveal());
    }
    config
}

/// The partitions of a topic; none where it does not exist.
///
/// # Errors
/// When the brokers do not say.
pub fn partitions_of<C: ClientContext>(client: &Client<C>, topic: &Arc<str>) -> KafkaResult<Vec<Partition>> {
    let metadata = client.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
    let found = metadata.topics().iter().filter(|found| found.name() == &**topic).flat_map(|found| found.partitions());
    Ok(found.map(|partition| Partition { topic: topic.clone(), number: partition.id() }).collect())
}

/// The first offset that a partition still holds, and the one behind the last.
///
/// # Errors
/// When the brokers do not say.
pub fn ends_of<C: ClientContext>(client: &Client<C>, partition: &Partition) -> KafkaResult<(i64, i64)> {
    let ends = || client.fetch_watermarks(&partition.topic, partition.number, REQUEST_TIMEOUT);
    ends().or_else(|_| {
        // librdkafka goes on asking the leader that it knows, away or not; who leads now it learns from the topic's metadata.
        partitions_of(client, &partition.topic)?;
        ends()
    })
}

/// The group's position in a partition, if it has one.
fn position_of<C: ConsumerContext>(consumer: &BaseConsumer<C>, partition: &Partition) -> KafkaResult<Option<i64>> {
    let committed = consumer.committed_offsets(list_of(std::slice::from_ref(partition)), REQUEST_TIMEOUT)?;
    let Some(element) = committed.elements().into_iter().next() else { return Ok(None) };
    element.error()?;
    Ok(element.offset().to_raw().filter(|offset| *offset >= 0))
}

fn partitions(list: &TopicPartitionList) -> Vec<Partition> {
    let named = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| Partition {
        topic: element.topic().into(),
        number: element.partition(),
    };
    list.elements().iter().map(named).collect()
}

fn list_of(partitions: &[Partition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(&partition.topic, partition.number);
    }
    list
}

fn claim_position(list: &mut TopicPartitionList, partition: &Partition, position: i64, journal: &str) {
    let mut element = list.add_partition(&partition.topic, partition.number);
    if !journal.is_empty() {
        element.set_metadata(claim(journal));
    }
    if let Err(error) = element.set_offset(Offset::Offset(position)) {
        tracing::warn!(%error, %partition, position, "a position cannot be committed to the group");
    }
}

fn own(message: &BorrowedMessage<'_>, topics: &mut HashMap<String, Arc<str>>) -> Record {
    let topic = match topics.get(message.topic()) {
        Some(topic) => topic.clone(),
        None => topics.entry(message.topic().to_owned()).or_insert_with(|| message.topic().into()).clone(),
    };
    let headers = message
        .headers()
        .map(|headers| headers.iter().map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec())).collect());
    Record {
        partition: Partition { topic, number: message.partition() },
        offset: message.offset(),
        timestamp: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
        value: message.payload().map(<[u8]>::to_vec),
    }
}
