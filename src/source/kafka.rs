//! Records from Kafka, in order of each partition, from the positions that the journal holds.
//!
//! The consumer lives on an OS thread of its own which polls it without pause: rebalances are served there, and when the
//! pipeline falls behind, partitions are paused instead of the polling. Offsets in Kafka and here are those of the
//! *next* record.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use serde::Deserialize;

use crate::config::Kafka;
use crate::record::{Partition, Record};

mod range;

pub use range::RangeReader;

/// Beyond this much unprocessed text the partitions are paused: several batches, yet little beside librdkafka's own queue.
const BUFFER_BYTES: usize = 64 * 1024 * 1024;
/// Beyond this many unprocessed records likewise, so that small records do not make a long queue.
const BUFFER_RECORDS: usize = 50_000;
/// How long one poll waits; commits and pauses wait at most as long.
const POLL: Duration = Duration::from_millis(20);
/// How long a request to the brokers may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long after a rebalance another member of the group must have gone again before it counts as one.
const SETTLE: Duration = Duration::from_secs(10);
/// What a position in the group says of who committed it, before the journal's id.
const CLAIM: &str = "customer-reach journal ";

/// What the source hands to the pipeline.
#[derive(Debug)]
pub enum Event {
    /// These partitions are read from now on.
    Assigned(Vec<Partition>),
    /// The next record of a partition.
    Record(Record),
}

/// What stops the source for good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// librdkafka does not take the settings.
    #[error("the Kafka settings are not accepted: {0}; see `[kafka]` and `[kafka.librdkafka]`")]
    Settings(String),
    /// Another journal reads with the same group.
    #[error(
        "the consumer group `{group}` belongs to another journal ({other}, here {own}): two sqlite journals would each \
         count a part; give this instance a group of its own, or start it with the journal folder of the other one, \
         or reset the group's offsets if the other journal is gone"
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
    /// An error from which the client cannot recover.
    #[error("the Kafka client cannot go on: {0}")]
    Fatal(String),
}

/// What is known of the source at the moment.
#[derive(Clone, Debug, Default)]
pub struct SourceState {
    /// The partitions that are read.
    pub assigned: BTreeSet<Partition>,
    /// The offset behind the last record of each partition, as the broker last said.
    pub ends: BTreeMap<Partition, i64>,
    /// The offset of the next record to be committed, by partition.
    pub positions: HashMap<Partition, i64>,
    /// The last error, which may have passed.
    pub last_error: Option<String>,
    /// Why the source ended, if it ended by itself.
    pub failed: Option<SourceError>,
}

impl SourceState {
    /// Records behind the end, by assigned partition; never below 0, as positions may be newer than ends.
    pub fn lag(&self) -> impl Iterator<Item = (&Partition, i64)> {
        self.assigned.iter().map(|partition| {
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
    buffered_bytes: AtomicUsize,
    buffered_records: AtomicUsize,
    stop: AtomicBool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, SourceState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_error(&self, error: impl fmt::Display) {
        let text = error.to_string();
        tracing::warn!(error = text, "Kafka");
        self.state().last_error = Some(text);
    }

    fn is_full(&self, share: usize) -> bool {
        self.buffered_bytes.load(Ordering::Relaxed) > BUFFER_BYTES / share
            || self.buffered_records.load(Ordering::Relaxed) > BUFFER_RECORDS / share
    }
}

/// A handle on what is known of the source, for the server.
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

    /// Ends the source: nothing more is fetched, what is fetched can still be taken.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the source was told to end.
    pub fn is_stopped(&self) -> bool {
        self.0.stop.load(Ordering::Relaxed)
    }
}

/// The source as the pipeline holds it.
#[derive(Debug)]
pub struct KafkaSource {
    events: Receiver<Event>,
    commits: Sender<Vec<(Partition, i64)>>,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// How the source is to read.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// `[kafka]`.
    pub kafka: Kafka,
    /// The topics.
    pub topics: Vec<String>,
    /// The positions that the journal holds; they win over the group's.
    pub positions: HashMap<Partition, i64>,
    /// The journal's identity, if it serves one instance only.
    pub journal: Option<String>,
}

impl KafkaSource {
    /// Starts to read.
    ///
    /// # Errors
    /// When librdkafka does not take the settings. Brokers that cannot be reached are no error: they are tried again.
    pub fn start(options: SourceOptions, watch: &SourceWatch) -> Result<Self, SourceError> {
        let shared = watch.0.clone();
        shared.state().positions.clone_from(&options.positions);
        let (event_sender, events) = unbounded();
        let context = Context { shared: shared.clone(), events: event_sender.clone(), claim: options.claim() };
        let consumer: BaseConsumer<Context> =
            client_config(&options).create_with_context(context).map_err(|e| SourceError::Settings(e.to_string()))?;
        let (commits, commit_requests) = unbounded();
        let reader = Reader {
            consumer,
            options,
            shared: shared.clone(),
            events: event_sender,
            commit_requests,
            topics: HashMap::new(),
        };
        let thread = std::thread::Builder::new()
            .name("kafka".into())
            .spawn(move || reader.run())
            .map_err(|e| SourceError::Settings(e.to_string()))?;
        Ok(Self { events, commits, shared, thread })
    }

    /// Waits for the next event, at most until `deadline`; `None` when there is none by then.
    pub fn next(&self, deadline: Instant) -> Option<Event> {
        let event = self.events.recv_deadline(deadline).ok()?;
        if let Event::Record(record) = &event {
            self.shared.buffered_records.fetch_sub(1, Ordering::Relaxed);
            self.shared.buffered_bytes.fetch_sub(weight(record), Ordering::Relaxed);
        }
        Some(event)
    }

    /// Whether the source has ended and all it had fetched is taken.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished() && self.events.is_empty()
    }

    /// Says how far records are committed in the journal, so that the group's positions follow.
    pub fn committed(&self, positions: Vec<(Partition, i64)>) {
        self.shared.state().positions.extend(positions.iter().cloned());
        if self.commits.send(positions).is_err() {
            tracing::debug!("the Kafka thread has ended; the group's positions stay behind the journal's");
        }
    }

    /// Why the source ended, if it ended by itself.
    pub fn failure(&self) -> Option<SourceError> {
        self.shared.state().failed.clone()
    }

    /// Ends the source and leaves the group, waiting at most `limit` for it.
    pub fn close(self, limit: Duration) {
        self.shared.stop.store(true, Ordering::Relaxed);
        drop(self.commits);
        let end = Instant::now() + limit;
        while !self.thread.is_finished() && Instant::now() < end {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        if self.thread.is_finished() && self.thread.join().is_err() {
            tracing::error!("the Kafka thread panicked");
        }
    }
}

fn weight(record: &Record) -> usize {
    record.value.as_ref().map_or(0, Vec::len) + 256
}

impl SourceOptions {
    fn claim(&self) -> Option<String> {
        self.journal.as_ref().map(|id| format!("{CLAIM}{id}"))
    }
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
        .set("statistics.interval.ms", "1000");
    if let Some(id) = &options.journal {
        // A restarted process takes its partitions back at once instead of after the session timeout (KIP-345).
        config.set("group.instance.id", format!("customer-reach-{id}"));
    }
    for (property, value) in &options.kafka.librdkafka {
        config.set(property, value.reveal());
    }
    config
}

/// What librdkafka calls back on the polling thread.
struct Context {
    shared: Arc<Shared>,
    events: Sender<Event>,
    claim: Option<String>,
}

/// The few figures wanted of librdkafka's statistics.
#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    topics: HashMap<String, TopicStatistics>,
}

#[derive(Deserialize)]
struct TopicStatistics {
    #[serde(default)]
    partitions: HashMap<String, PartitionStatistics>,
}

#[derive(Deserialize)]
struct PartitionStatistics {
    #[serde(default)]
    ls_offset: i64,
}

impl ClientContext for Context {
    fn stats_raw(&self, statistics: &[u8]) {
        let Ok(statistics) = serde_json::from_slice::<Statistics>(statistics) else { return };
        let mut state = self.shared.state();
        for (topic, TopicStatistics { partitions }) in statistics.topics {
            for (number, PartitionStatistics { ls_offset }) in partitions {
                if let Ok(number @ 0..) = number.parse::<i32>()
                    && ls_offset >= 0
                {
                    state.ends.insert(Partition { topic: topic.as_str().into(), number }, ls_offset);
                }
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.shared.note_error(format_args!("{error}: {reason}"));
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let result = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                let claims = self.start_where_the_journal_ends(list);
                let assigned = if cooperative { consumer.incremental_assign(list) } else { consumer.assign(list) };
                self.assigned(partitions(list));
                assigned.and_then(|()| commit(consumer, &claims))
            }
            _ => {
                self.revoked(&partitions(list));
                if cooperative { consumer.incremental_unassign(list) } else { consumer.unassign() }
            }
        };
        if let Err(error) = result {
            self.shared.note_error(format_args!("rebalance: {error}"));
        }
    }
}

impl Context {
    /// Sets each partition's offset to the journal's position and returns the positions to claim in the group.
    fn start_where_the_journal_ends(&self, list: &mut TopicPartitionList) -> TopicPartitionList {
        let mut claims = TopicPartitionList::new();
        for partition in partitions(list) {
            let position = self.shared.state().positions.get(&partition).copied();
            if let Some(position) = position {
                let set = list.set_partition_offset(&partition.topic, partition.number, Offset::Offset(position));
                if let Err(error) = set {
                    self.shared.note_error(format_args!("cannot start {partition} at {position}: {error}"));
                }
            }
            if let Some(claim) = &self.claim {
                claim_position(&mut claims, &partition, position.unwrap_or_default(), claim);
            }
        }
        claims
    }

    fn assigned(&self, partitions: Vec<Partition>) {
        tracing::info!(partitions = partitions.len(), "assigned");
        self.shared.state().assigned.extend(partitions.iter().cloned());
        if self.events.send(Event::Assigned(partitions)).is_err() {
            self.shared.stop.store(true, Ordering::Relaxed);
        }
    }

    fn revoked(&self, partitions: &[Partition]) {
        tracing::info!(partitions = partitions.len(), "revoked");
        let mut state = self.shared.state();
        partitions.iter().for_each(|partition| {
            state.assigned.remove(partition);
        });
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<Partition> {
    let named = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| Partition {
        topic: element.topic().into(),
        number: element.partition(),
    };
    list.elements().iter().map(named).collect()
}

fn claim_position(list: &mut TopicPartitionList, partition: &Partition, position: i64, claim: &str) {
    let mut element = list.add_partition(&partition.topic, partition.number);
    element.set_metadata(claim);
    if let Err(error) = element.set_offset(Offset::Offset(position)) {
        tracing::warn!(%error, %partition, position, "a position cannot be committed to the group");
    }
}

fn commit(consumer: &BaseConsumer<Context>, positions: &TopicPartitionList) -> KafkaResult<()> {
    if positions.count() == 0 { Ok(()) } else { consumer.commit(positions, CommitMode::Async) }
}

/// The consumer thread.
struct Reader {
    consumer: BaseConsumer<Context>,
    options: SourceOptions,
    shared: Arc<Shared>,
    events: Sender<Event>,
    commit_requests: Receiver<Vec<(Partition, i64)>>,
    topics: HashMap<String, Arc<str>>,
}

impl Reader {
    fn run(mut self) {
        if let Err(error) = self.read() {
            tracing::error!(%error, "the Kafka source ends");
            self.shared.state().failed = Some(error);
        }
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    fn read(&mut self) -> Result<(), SourceError> {
        let Some(all) = self.wait_for_topics() else { return Ok(()) };
        self.check_group(&all)?;
        self.check_positions(&all)?;
        let topics: Vec<&str> = self.options.topics.iter().map(String::as_str).collect();
        self.consumer.subscribe(&topics).map_err(|e| SourceError::Settings(e.to_string()))?;
        let mut paused = false;
        let mut sole = SoleMember::default();
        while !self.stopped() {
            self.commit_requested();
            paused = self.hold_back(paused);
            match self.consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => {
                    let record = own(&message, &mut self.topics);
                    self.shared.buffered_bytes.fetch_add(weight(&record), Ordering::Relaxed);
                    self.shared.buffered_records.fetch_add(1, Ordering::Relaxed);
                    if self.events.send(Event::Record(record)).is_err() {
                        break;
                    }
                }
                Some(Err(error)) => self.take_error(&error)?,
            }
            if self.options.journal.is_some() {
                sole.check(self)?;
            }
        }
        self.drain();
        Ok(())
    }

    /// All partitions of the topics, as soon as every topic is there; `None` when stopped before.
    fn wait_for_topics(&self) -> Option<Vec<Partition>> {
        while !self.stopped() {
            match self.all_partitions() {
                Ok(all) => return Some(all),
                Err(error) => self.shared.note_error(error),
            }
            self.consumer.poll(Duration::from_secs(1));
        }
        None
    }

    fn all_partitions(&self) -> Result<Vec<Partition>, String> {
        let mut all = Vec::new();
        for topic in &self.options.topics {
            let brokers = &self.options.kafka.brokers;
            let metadata = self
                .consumer
                .fetch_metadata(Some(topic), REQUEST_TIMEOUT)
                .map_err(|e| format!("the brokers at {brokers} cannot be asked: {e}"))?;
            let found = metadata.topics().iter().find(|t| t.name() == topic && !t.partitions().is_empty());
            let found =
                found.ok_or_else(|| format!("the topic `{topic}` does not exist at {brokers}; it is waited for"))?;
            let name: Arc<str> = topic.as_str().into();
            all.extend(found.partitions().iter().map(|p| Partition { topic: name.clone(), number: p.id() }));
        }
        Ok(all)
    }

    /// Refuses to join a group that another journal reads with, and takes over positions of the group where the journal
    /// has none, so that a group whose offsets were set by hand starts there.
    fn check_group(&self, all: &[Partition]) -> Result<(), SourceError> {
        let Some(own) = &self.options.journal else { return Ok(()) };
        let mut list = TopicPartitionList::new();
        all.iter().for_each(|p| {
            list.add_partition(&p.topic, p.number);
        });
        let committed = loop {
            match self.consumer.committed_offsets(list.clone(), REQUEST_TIMEOUT) {
                Ok(committed) => break committed,
                Err(_) if self.stopped() => return Ok(()),
                Err(error) => self.shared.note_error(format_args!("the group's positions cannot be read: {error}")),
            }
        };
        for element in committed.elements() {
            if let Some(other) = element.metadata().strip_prefix(CLAIM)
                && other != own
            {
                let group = self.options.kafka.group.clone();
                return Err(SourceError::ForeignJournal { group, other: other.to_owned(), own: own.clone() });
            }
            if let Offset::Offset(offset) = element.offset() {
                let partition = Partition { topic: element.topic().into(), number: element.partition() };
                self.shared.state().positions.entry(partition).or_insert(offset);
            }
        }
        Ok(())
    }

    /// Refuses to read a topic that ends before the journal's position, and says where records are gone that were never
    /// read.
    fn check_positions(&self, all: &[Partition]) -> Result<(), SourceError> {
        for partition in all {
            let Some(position) = self.options.positions.get(partition).copied() else { continue };
            let Some((start, end)) = self.watermarks(partition) else { return Ok(()) };
            if position > end {
                return Err(SourceError::AheadOfTopic { partition: partition.clone(), end, position });
            }
            if position < start {
                self.shared.note_error(format_args!(
                    "{partition}: the records from offset {position} to {start} were deleted before they were read; \
                     counting goes on at {start}, and a longer retention of the topic avoids this"
                ));
            }
        }
        Ok(())
    }

    /// The first offset and the one behind the last; `None` when stopped before the brokers answer.
    fn watermarks(&self, partition: &Partition) -> Option<(i64, i64)> {
        loop {
            match self.consumer.fetch_watermarks(&partition.topic, partition.number, REQUEST_TIMEOUT) {
                Ok(watermarks) => return Some(watermarks),
                Err(_) if self.stopped() => return None,
                Err(error) => self.shared.note_error(format_args!("the ends of {partition} cannot be read: {error}")),
            }
        }
    }

    fn take_error(&self, error: &KafkaError) -> Result<(), SourceError> {
        match error {
            KafkaError::MessageConsumptionFatal(code) => Err(SourceError::Fatal(fatal(*code))),
            KafkaError::MessageConsumption(RDKafkaErrorCode::FencedInstanceId) => {
                Err(SourceError::Fatal(fatal(RDKafkaErrorCode::FencedInstanceId)))
            }
            other => {
                self.shared.note_error(other);
                Ok(())
            }
        }
    }

    /// Moves the group's positions to where the journal's are.
    fn commit_requested(&self) {
        let Some(newest) = self.commit_requests.try_iter().reduce(newest_positions) else { return };
        self.commit_positions(&newest, CommitMode::Async);
    }

    fn commit_positions(&self, positions: &[(Partition, i64)], mode: CommitMode) {
        let claim = self.options.claim().unwrap_or_default();
        let mut list = TopicPartitionList::new();
        positions.iter().for_each(|(partition, position)| claim_position(&mut list, partition, *position, &claim));
        if list.count() > 0
            && let Err(error) = self.consumer.commit(&list, mode)
        {
            self.shared.note_error(format_args!("the group's positions cannot be committed: {error}"));
        }
    }

    /// Pauses when the pipeline is behind, resumes when it has caught up by half.
    fn hold_back(&self, paused: bool) -> bool {
        let pause = self.shared.is_full(if paused { 2 } else { 1 });
        if pause == paused {
            return paused;
        }
        let switched = self.consumer.assignment().and_then(|all| match pause {
            true => self.consumer.pause(&all),
            false => self.consumer.resume(&all),
        });
        match switched {
            Ok(()) => pause,
            Err(error) => {
                self.shared.note_error(error);
                paused
            }
        }
    }

    /// After the stop: the pipeline still commits what it has taken.
    fn drain(&self) {
        while let Ok(positions) = self.commit_requests.recv() {
            self.commit_positions(&positions, CommitMode::Sync);
        }
    }
}

fn newest_positions(mut older: Vec<(Partition, i64)>, newer: Vec<(Partition, i64)>) -> Vec<(Partition, i64)> {
    older.retain(|(partition, _)| !newer.iter().any(|(p, _)| p == partition));
    older.extend(newer);
    older
}

fn fatal(code: RDKafkaErrorCode) -> String {
    match code {
        RDKafkaErrorCode::FencedInstanceId => {
            "another process with a copy of this journal has joined the group in its place; run only one of them"
                .to_owned()
        }
        other => other.to_string(),
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

/// Notices another member of the group by the partitions that are missing here for longer than a rebalance takes.
#[derive(Default)]
struct SoleMember {
    assigned: usize,
    check_at: Option<Instant>,
}

impl SoleMember {
    fn check(&mut self, reader: &Reader) -> Result<(), SourceError> {
        let assigned = reader.shared.state().assigned.len();
        if assigned != self.assigned {
            self.assigned = assigned;
            self.check_at = Some(Instant::now() + SETTLE);
        }
        if self.check_at.is_none_or(|at| Instant::now() < at) {
            return Ok(());
        }
        self.check_at = None;
        match reader.all_partitions() {
            Ok(all) if assigned < all.len() => {
                let group = reader.options.kafka.group.clone();
                Err(SourceError::SharedGroup { group, assigned, all: all.len() })
            }
            Ok(_) => Ok(()),
            Err(error) => {
                reader.shared.note_error(error);
                self.check_at = Some(Instant::now() + SETTLE);
                Ok(())
            }
        }
    }
}
