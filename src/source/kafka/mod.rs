//! Records from Kafka, in order of each partition, from the positions that the journal holds.
//!
//! The consumer lives on an OS thread of its own which polls it without pause: rebalances are served there, and when the
//! pipeline falls behind, partitions are paused instead of the polling. Offsets in Kafka and here are those of the
//! *next* record.
//!
//! Each assignment has an [`Epoch`], and each record that of the assignment by which it came, so that what was fetched
//! before a partition was given up is told from what is fetched after it came back.

mod context;
mod group;
mod membership;
mod range;
mod reader;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

pub use membership::{Generation, Membership};
pub use range::RangeReader;

use self::context::Context;
use self::reader::{Reader, Reading};
use crate::config::Kafka;
use crate::record::{Partition, Record};

/// Beyond this much unprocessed text nothing more is taken from the client: several batches, yet little beside librdkafka's own queue.
const BUFFER_BYTES: usize = 64 * 1024 * 1024;
/// Beyond this many unprocessed records likewise, so that small records do not make a long queue.
const BUFFER_RECORDS: usize = 50_000;
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

/// What stops the source for good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// librdkafka does not take the settings.
    #[error("the Kafka settings are not accepted: {0}; see `[kafka]` and `[kafka.librdkafka]`")]
    Settings(String),
    /// Another journal reads with the same group.
    #[error(
        "the consumer group `{group}` belongs to another journal ({other}, here {own}): each would count a part; give this \
         instance a group of its own, or start it with the journal of the other one, or move that journal with \
         `customer-reach journal export` and `import`, or reset the group's offsets if the other journal is gone"
    )]
    ForeignJournal {
        /// The group.
        group: String,
        /// Whose positions stand there.
        other: String,
        /// This journal.
        own: String,
    },
    /// Another consumer got some of the partitions.
    #[error(
        "the consumer group `{group}` has another member: {assigned} of {all} partitions are assigned here, and the \
         sqlite journal would count a part only; stop the other member, or give this instance a group of its own"
    )]
    SharedGroup {
        /// The group.
        group: String,
        /// Partitions assigned here.
        assigned: usize,
        /// Partitions there are.
        all: usize,
    },
    /// The journal is ahead of the topic.
    #[error(
        "{partition} ends at offset {end}, but the journal has read up to {position}: the topic was deleted and made anew, \
         has lost records, or these are other brokers than before; everything up to there would be taken for read. Check \
         `[kafka] brokers`; if the topic is new on purpose, give it another name, or start with a new journal folder and group"
    )]
    AheadOfTopic {
        /// The partition.
        partition: Partition,
        /// The offset behind its last record.
        end: i64,
        /// The journal's position.
        position: i64,
    },
    /// The records before the journal's position are not those that were counted.
    #[error(
        "the record before offset {position} of {partition} is of {found}, but nothing newer than {newest} was counted up to \
         there: the topic was deleted and made anew, or these are other brokers than before; everything up to there would be \
         taken for read. Check `[kafka] brokers`; if the topic is new on purpose, give it another name, or start with a new \
         journal folder and group"
    )]
    OtherRecords {
        /// The partition.
        partition: Partition,
        /// The journal's position.
        position: i64,
        /// The time of the newest record that was counted.
        newest: jiff::Timestamp,
        /// The time of the record that is there.
        found: jiff::Timestamp,
    },
    /// A partition cannot be read at all.
    #[error(
        "{partition} cannot be read from {brokers}: {cause}; check `[kafka]`, and whether the topic is still there"
    )]
    Unreadable {
        /// The partition.
        partition: Partition,
        /// The brokers asked.
        brokers: String,
        /// What they say, or that they say nothing.
        cause: String,
    },
    /// The journal cannot be used, or does not fit to the topics.
    #[error("{0}")]
    Journal(String),
    /// Somebody else is this member of the group, again and again.
    #[error(
        "another process with a copy of this journal's folder joins the group in its place, again and again; run only one \
         of them"
    )]
    Fenced,
    /// An error from which the client cannot recover.
    #[error("the Kafka client cannot go on: {0}")]
    Fatal(String),
}

/// What is known of the source at the moment.
#[derive(Clone, Debug, Default)]
pub struct SourceState {
    /// The partitions that are this process's, with the epoch of their assignment.
    pub assigned: BTreeMap<Partition, Epoch>,
    /// Those of them that are read; the others are still being restored.
    pub running: BTreeSet<Partition>,
    /// The offset behind the last record of each partition, as the broker last said.
    pub ends: BTreeMap<Partition, i64>,
    /// The offset of the next record to be committed, by partition.
    pub positions: HashMap<Partition, i64>,
    /// How far this journal had come by the group's positions when it was opened. It is behind them where it was put back
    /// from a backup.
    pub committed_before: HashMap<Partition, i64>,
    /// How many partitions no member of the group owned when that was last looked at.
    pub without_owner: usize,
    /// When nothing waited to be committed, as far as known.
    pub caught_up: Option<Instant>,
    /// The last error, which may have passed.
    pub last_error: Option<String>,
    /// Why the source ended, if it ended by itself.
    pub failed: Option<SourceError>,
}

impl SourceState {
    /// Records behind the end, by assigned partition; never below 0, as positions may be newer than ends.
    pub fn lag(&self) -> impl Iterator<Item = (&Partition, i64)> {
        self.assigned.keys().map(|partition| {
            let end = self.ends.get(partition).copied().unwrap_or_default();
            let position = self.positions.get(partition).copied().unwrap_or_default();
            (partition, (end - position).max(0))
        })
    }
}

/// What pipeline, server and consumer thread share.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<SourceState>,
    /// The offset that comes next, at least; known for partitions that are read.
    next: Mutex<hashbrown::HashMap<Partition, i64>>,
    buffered_bytes: AtomicUsize,
    buffered_records: AtomicUsize,
    /// The newest epoch.
    epoch: AtomicU64,
    /// Whether the group has given this process its share, however small; not so when that was lost with the session.
    joined: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, SourceState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> MutexGuard<'_, hashbrown::HashMap<Partition, i64>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_error(&self, error: impl fmt::Display) {
        let text = error.to_string();
        tracing::warn!(error = text, "Kafka");
        self.state().last_error = Some(text);
    }

    fn next_epoch(&self) -> Epoch {
        self.epoch.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Counts a record into what is fetched and not taken yet.
    fn fill(&self, record: &Record) {
        self.buffered_bytes.fetch_add(weight(record), Ordering::Relaxed);
        self.buffered_records.fetch_add(1, Ordering::Relaxed);
    }

    fn is_full(&self, share: usize) -> bool {
        self.buffered_bytes.load(Ordering::Relaxed) > BUFFER_BYTES / share
            || self.buffered_records.load(Ordering::Relaxed) > BUFFER_RECORDS / share
    }
}

/// A handle on what is known of the source, for the server and the journal.
#[derive(Clone, Debug)]
pub struct SourceWatch(Arc<Shared>);

impl SourceWatch {
    /// A watch on a source that does not exist yet.
    pub fn idle() -> Self {
        Self(Arc::default())
    }

    /// What is known now.
    pub fn state(&self) -> SourceState {
        self.0.state().clone()
    }

    /// Whether the group has given this process its share, which may be nothing.
    pub fn has_joined(&self) -> bool {
        self.0.joined.load(Ordering::Relaxed)
    }

    /// The epoch in which a partition is this process's, if it is.
    pub fn epoch(&self, partition: &Partition) -> Option<Epoch> {
        self.0.state().assigned.get(partition).copied()
    }

    /// Takes notice of an error that may pass.
    pub fn note_error(&self, error: impl fmt::Display) {
        self.0.note_error(error);
    }

    /// Ends the source for good, with the reason.
    pub fn fail(&self, reason: SourceError) {
        tracing::error!(error = %reason, "the Kafka source is ended");
        self.0.state().failed.get_or_insert(reason);
        self.stop();
    }

    /// Ends the source: nothing more is fetched, what is fetched can still be taken.
    pub fn stop(&self) {
        self.0.stop();
    }

    /// Whether the source was told to end.
    pub fn is_stopped(&self) -> bool {
        self.0.stopped()
    }
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
    },
    /// Where the pipeline says, as soon as it has restored the partition.
    Told {
        /// The identity of this instance.
        instance: String,
        /// The mark of the group's positions.
        claim: &'static str,
        /// Topics without a journal of their own, which are read from the group's positions.
        stored: Vec<Arc<str>>,
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
        let reader = Reader {
            consumer,
            options,
            shared: shared.clone(),
            records,
            rebalances: sender,
            commands: commanded,
            topics: hashbrown::HashMap::new(),
            reading: Reading::default(),
        };
        let thread = std::thread::Builder::new()
            .name("kafka".into())
            .spawn(move || reader.run())
            .map_err(|e| SourceError::Settings(e.to_string()))?;
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
        if self.thread.is_finished() && self.thread.join().is_err() {
            tracing::error!("the Kafka thread panicked");
        }
    }
}

impl Fetches {
    /// Waits for the next record, at most until `deadline`; `None` when there is none by then.
    pub fn next(&self, deadline: Instant) -> Option<Fetched> {
        let fetched = self.records.recv_deadline(deadline).ok()?;
        self.shared.buffered_records.fetch_sub(1, Ordering::Relaxed);
        self.shared.buffered_bytes.fetch_sub(weight(&fetched.record), Ordering::Relaxed);
        Some(fetched)
    }

    /// Whether nothing more will come.
    pub fn is_finished(&self) -> bool {
        (self.shared.stopped() || self.shared.state().failed.is_some()) && self.records.is_empty()
    }
}

fn weight(record: &Record) -> usize {
    record.value.as_ref().map_or(0, Vec::len) + 256
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

fn own(message: &BorrowedMessage<'_>, topics: &mut hashbrown::HashMap<String, Arc<str>>) -> Record {
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
