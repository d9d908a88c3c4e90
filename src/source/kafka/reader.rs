//! The consumer's thread: it polls without pause, stamps records with the epoch of their assignment, holds back when the
//! pipeline is behind, and does what the pipeline tells it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use hashbrown::HashMap;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::context::Context;
use super::group::{Growth, Owners, SoleMember};
use super::state::Shared;
use super::{
    Command, Epoch, Fetched, IDLE, REQUEST_TIMEOUT, RangeReader, Rebalance, SourceError, SourceOptions, Start, Unready,
    claim_position, ends_of, list_of, own, partitions_of, position_of,
};
use crate::record::Partition;

/// A process that was fenced this often within that time is not alone.
const FENCED_AT_MOST: usize = 5;
const FENCED_WITHIN: Duration = Duration::from_secs(120);
/// How long nothing at all may be polled while the pipeline is behind; so long may a rebalance wait.
const PATIENCE: Duration = Duration::from_millis(500);

/// How many records are taken before commands are looked at again.
const ROUND: usize = 100;

/// The consumer thread.
pub(super) struct Reader {
    pub(super) consumer: BaseConsumer<Context>,
    pub(super) options: SourceOptions,
    pub(super) shared: Arc<Shared>,
    pub(super) records: Sender<Fetched>,
    pub(super) rebalances: Sender<Rebalance>,
    pub(super) commands: Receiver<Command>,
    pub(super) topics: HashMap<String, Arc<str>>,
    pub(super) reading: Reading,
}

/// What is read at the moment.
#[derive(Default)]
pub(super) struct Reading {
    /// The newest epoch that is known here.
    known: Epoch,
    epochs: HashMap<Partition, Epoch>,
    /// Partitions that the pipeline has told where to begin, and that could not be moved there yet.
    starting: Vec<(Partition, Epoch, Option<i64>)>,
    /// Since when the pipeline takes nothing more.
    full_since: Option<Instant>,
    /// Whether the partitions are held back.
    paused: bool,
    /// Whether there are partitions of which that is not true yet.
    unequal: bool,
}

impl Reader {
    pub(super) fn run(&mut self) {
        let mut fenced = Vec::new();
        while let Err(error) = self.read() {
            let now = Instant::now();
            fenced.retain(|before| now.duration_since(*before) < FENCED_WITHIN);
            fenced.push(now);
            let again = match error {
                SourceError::Fenced if fenced.len() <= FENCED_AT_MOST && !self.shared.stopped() => self.join_anew(),
                error => Err(error),
            };
            if let Err(error) = again {
                tracing::error!(%error, "the Kafka source ends");
                self.shared.state().failed = Some(error);
                // A commit that is tried again waits for nothing else.
                return self.shared.stop();
            }
        }
    }

    /// Lets everything go and joins the group with a new client. A member that asks a second time, since the answer to the
    /// first was lost with a connection, is fenced by itself, and librdkafka does not recover from that.
    fn join_anew(&mut self) -> Result<(), SourceError> {
        self.shared.note_error("fenced by another member of the same name, or by a request of its own; joining anew");
        let context = self.consumer.context();
        let lost: Vec<Partition> = self.shared.state().assigned.keys().cloned().collect();
        context.lose(&lost);
        self.consumer = super::consumer(&self.options, context.as_ref().clone())?;
        Ok(())
    }

    fn read(&mut self) -> Result<(), SourceError> {
        let Some(inputs) = self.wait_for_topics(&self.options.topics) else { return Ok(()) };
        if !self.prepare(&inputs)? {
            return Ok(());
        }
        let Some(all) = self.wait_for_topics(&self.options.all_topics()) else { return Ok(()) };
        self.check_group(&all)?;
        self.check_positions(&all)?;
        self.subscribe()?;
        let (mut sole, mut owners, mut growth) = (SoleMember::default(), Owners::default(), Growth::default());
        while !self.shared.stopped() {
            self.obey();
            if !self.fetch()? {
                break;
            }
            match &self.options.start {
                Start::Known { journal: Some(_), .. } => sole.check(self)?,
                Start::Known { journal: None, .. } => {}
                Start::Told { .. } => owners.check(self)?,
            }
            growth.check(self, inputs.len())?;
        }
        self.drain();
        Ok(())
    }

    /// Takes the records that are there, or waits for some; false when the pipeline has ended.
    fn fetch(&mut self) -> Result<bool, SourceError> {
        for _ in 0..ROUND {
            let polled = if self.has_room() { self.consumer.poll(Duration::ZERO) } else { None };
            match polled {
                None => {
                    std::thread::park_timeout(IDLE);
                    break;
                }
                Some(Ok(message)) => {
                    let record = own(&message, &mut self.topics);
                    drop(message);
                    if !self.take(record)? {
                        return Ok(false);
                    }
                }
                Some(Err(error)) => self.take_error(&error)?,
            }
        }
        Ok(true)
    }

    /// Hands a record to the pipeline; false when that has ended.
    fn take(&mut self, record: crate::record::Record) -> Result<bool, SourceError> {
        self.learn();
        let Some(epoch) = self.reading.epochs.get(&record.partition).copied() else { return Ok(true) };
        if let Some(position) = self.shared.pass(&record) {
            self.go_back_to(&record.partition, position)?;
            return Ok(true);
        }
        self.shared.fill(&record);
        Ok(self.records.send(Fetched { record, epoch }).is_ok())
    }

    /// Goes back to the position after a record that stands before it. Either the topic no longer reaches up to the position,
    /// and the consumer was set back; or librdkafka has given a record twice, as it does with one that is taken in the moment
    /// in which a rebalance pauses its partition.
    fn go_back_to(&self, partition: &Partition, position: i64) -> Result<(), SourceError> {
        let Some(ends) = self.watermarks(partition) else { return Ok(()) };
        self.shared.check_position(partition, position, ends)?;
        let sought = self.consumer.seek(&partition.topic, partition.number, Offset::Offset(position), REQUEST_TIMEOUT);
        if let Err(error) = sought {
            self.shared.note_error(format_args!("{partition} cannot be read on from offset {position}: {error}"));
        }
        Ok(())
    }

    /// Takes notice of rebalances since the last time.
    fn learn(&mut self) {
        let newest = self.shared.epoch.load(Ordering::Relaxed);
        if newest == self.reading.known {
            return;
        }
        self.reading.known = newest;
        let state = self.shared.state();
        let is_new = |(partition, epoch): &(&Partition, &Epoch)| self.reading.epochs.get(*partition) != Some(*epoch);
        for (partition, _) in state.assigned.iter().filter(is_new) {
            let position = state.positions.get(partition).filter(|_| state.running.contains(partition));
            self.shared.next().insert(partition.clone(), position.copied().unwrap_or(i64::MIN));
        }
        self.reading.epochs = state.assigned.iter().map(|(partition, epoch)| (partition.clone(), *epoch)).collect();
        self.reading.unequal = true;
    }

    /// All partitions of the topics, as soon as every topic is there; `None` when stopped before.
    fn wait_for_topics(&self, topics: &[String]) -> Option<Vec<Partition>> {
        while !self.shared.stopped() {
            match self.partitions_of(topics) {
                Ok(all) => return Some(all),
                Err(error) => self.shared.note_error(error),
            }
            self.consumer.poll(Duration::from_secs(1));
        }
        None
    }

    pub(super) fn partitions_of(&self, topics: &[String]) -> Result<Vec<Partition>, String> {
        let brokers = &self.options.kafka.brokers;
        let mut all = Vec::new();
        for topic in topics {
            let found = partitions_of(self.consumer.client(), &topic.as_str().into());
            let found = found.map_err(|error| format!("the brokers at {brokers} cannot be asked: {error}"))?;
            if found.is_empty() {
                return Err(format!("the topic `{topic}` does not exist at {brokers}; it is waited for"));
            }
            all.extend(found);
        }
        Ok(all)
    }

    /// Has the journal make ready for these partitions; false when stopped before it could.
    fn prepare(&self, inputs: &[Partition]) -> Result<bool, SourceError> {
        let Some(prepare) = &self.options.prepare else { return Ok(true) };
        while !self.shared.stopped() {
            match prepare(inputs) {
                Ok(()) => return Ok(true),
                Err(Unready::Never(reason)) => return Err(SourceError::Journal(reason)),
                Err(Unready::NotYet(reason)) => self.shared.note_error(reason),
            }
            self.consumer.poll(Duration::from_secs(1));
        }
        Ok(false)
    }

    /// Refuses to join a group that another journal reads with, and takes over positions of the group where the journal
    /// has none, so that a group whose offsets were set by hand starts there.
    fn check_group(&self, all: &[Partition]) -> Result<(), SourceError> {
        let (own, is_behind) = match &self.options.start {
            Start::Known { journal: None, .. } => return Ok(()),
            Start::Known { journal: Some(id), is_behind, .. } => (id.as_str(), *is_behind),
            Start::Told { claim, .. } => (*claim, false),
        };
        // Not the stable ones: a broker that is killed can lose the end of a transaction, and until whoever began it has joined
        // again there are none.
        let reader = RangeReader::uncommitted(&self.options.kafka)?;
        let asked = || reader.group_positions(all).map_err(|e| format!("the group's positions cannot be read: {e}"));
        let Some(committed) = self.shared.until_answered(asked) else { return Ok(()) };
        for element in committed.elements() {
            let claimed = element.metadata().strip_prefix(super::CLAIM);
            if let Some(other) = claimed
                && other != own
            {
                return Err(SourceError::ForeignJournal {
                    group: self.options.kafka.group.clone(),
                    other: other.to_owned(),
                    own: own.to_owned(),
                });
            }
            if let Offset::Offset(offset) = element.offset() {
                let partition = Partition { topic: element.topic().into(), number: element.partition() };
                let mut state = self.shared.state();
                let mut first = offset;
                if claimed.is_some() {
                    state.committed_before.insert(partition.clone(), offset);
                    if is_behind && !state.positions.contains_key(&partition) {
                        tracing::warn!(%partition, "the backup knows nothing of it, so it is counted from its beginning");
                        first = 0;
                    }
                }
                state.positions.entry(partition).or_insert(first);
            }
        }
        Ok(())
    }

    /// Refuses to read a topic that ends before the journal's position or holds other records before it, and says where
    /// records are gone that were never read.
    fn check_positions(&self, all: &[Partition]) -> Result<(), SourceError> {
        let Start::Known { counted, .. } = &self.options.start else { return Ok(()) };
        if counted.is_empty() {
            return Ok(());
        }
        let range = RangeReader::new(&self.options.kafka)?;
        for (partition, counted) in all.iter().filter_map(|partition| Some((partition, *counted.get(partition)?))) {
            let Some(ends) = self.watermarks(partition) else { return Ok(()) };
            self.shared.check_position(partition, counted.position, ends)?;
            let checked = self.shared.until_answered(|| match range.check_counted(partition, counted, ends) {
                Err(error @ SourceError::Unreadable { .. }) => Err(error),
                checked => Ok(checked),
            });
            checked.unwrap_or(Ok(()))?;
        }
        Ok(())
    }

    /// The first offset and the one behind the last; `None` when stopped before the brokers answer.
    fn watermarks(&self, partition: &Partition) -> Option<(i64, i64)> {
        self.shared.until_answered(|| {
            ends_of(self.consumer.client(), partition)
                .map_err(|error| format!("the ends of {partition} cannot be read: {error}"))
        })
    }

    fn take_error(&self, error: &KafkaError) -> Result<(), SourceError> {
        match error {
            KafkaError::MessageConsumption(RDKafkaErrorCode::FencedInstanceId)
            | KafkaError::MessageConsumptionFatal(RDKafkaErrorCode::FencedInstanceId) => Err(SourceError::Fenced),
            KafkaError::MessageConsumptionFatal(code) => Err(SourceError::Fatal(code.to_string())),
            other => {
                self.shared.note_error(other);
                Ok(())
            }
        }
    }

    fn subscribe(&self) -> Result<(), SourceError> {
        let topics = self.options.all_topics();
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        self.consumer.subscribe(&topics).map_err(|e| SourceError::Settings(e.to_string()))
    }

    /// Has the group give out the partitions anew. A static member that was restarted gets what it had before, and as long
    /// as it is known nobody gives out more.
    pub(super) fn ask_anew(&self) -> Result<(), SourceError> {
        self.consumer.unsubscribe();
        self.subscribe()
    }

    /// Does what the pipeline has told since the last time.
    fn obey(&mut self) {
        let mut committed = BTreeMap::new();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Committed(positions) => committed.extend(positions),
                Command::Start(partition, epoch, position) => self.reading.starting.push((partition, epoch, position)),
                Command::Again => self.begin_again(),
            }
        }
        self.commit_positions(&committed, CommitMode::Async);
        let starting = std::mem::take(&mut self.reading.starting);
        for (partition, epoch, position) in starting {
            if self.shared.state().assigned.get(&partition) != Some(&epoch) {
                continue;
            }
            if let Err(error) = self.start(&partition, position) {
                self.shared.note_error(format_args!("{partition} cannot be started: {error}"));
                self.reading.starting.push((partition, epoch, position));
            }
        }
    }

    /// Reads a partition from where its journal ends, or from where the group was set or the topic begins.
    fn start(&mut self, partition: &Partition, position: Option<i64>) -> Result<(), String> {
        let offset = match position {
            Some(position) => Offset::Offset(position),
            None => self.first_offset(partition).map_err(|error| error.to_string())?,
        };
        let go = || -> KafkaResult<()> {
            self.consumer.seek(&partition.topic, partition.number, offset, REQUEST_TIMEOUT)?;
            self.consumer.resume(&list_of(std::slice::from_ref(partition)))
        };
        go().map_err(|error| error.to_string())?;
        self.learn();
        self.shared.next().insert(partition.clone(), position.unwrap_or(i64::MIN));
        self.reading.unequal = true;
        let mut state = self.shared.state();
        state.running.insert(partition.clone());
        state.positions.extend(position.map(|position| (partition.clone(), position)));
        Ok(())
    }

    /// Where to begin a partition that has no journal yet.
    fn first_offset(&self, partition: &Partition) -> KafkaResult<Offset> {
        let reset = self.options.kafka.librdkafka.get("auto.offset.reset");
        Ok(match (position_of(&self.consumer, partition)?, reset.map(|reset| reset.reveal())) {
            (Some(position), _) => Offset::Offset(position),
            (_, Some("latest" | "largest" | "end")) => Offset::End,
            _ => Offset::Beginning,
        })
    }

    /// The pipeline has gone back to the last commit: every partition is assigned anew. Where it is not known here where to
    /// begin, they wait until the pipeline says so.
    fn begin_again(&mut self) {
        let is_known = matches!(self.options.start, Start::Known { .. });
        let epoch = self.shared.next_epoch();
        let all: Vec<Partition> = {
            let mut state = self.shared.state();
            state.assigned.values_mut().for_each(|assigned| *assigned = epoch);
            state.running.clear();
            for partition in state.assigned.keys().filter(|_| is_known) {
                let position = state.positions.get(partition).copied();
                self.reading.starting.push((partition.clone(), epoch, position));
            }
            state.assigned.keys().cloned().collect()
        };
        if let Err(error) = self.consumer.pause(&list_of(&all)) {
            self.shared.note_error(error);
        }
        let again = all.into_iter().map(|partition| (partition, epoch)).collect();
        if self.rebalances.send(Rebalance::Assigned(again)).is_err() {
            self.shared.stop();
        }
    }

    /// Moves the group's positions to where the journal's are.
    fn commit_positions(&self, positions: &BTreeMap<Partition, i64>, mode: CommitMode) {
        let Start::Known { journal, .. } = &self.options.start else { return };
        let id = journal.as_deref().unwrap_or_default();
        let mut list = TopicPartitionList::new();
        for (partition, position) in positions {
            if !self.shared.state().is_behind(partition, *position) {
                claim_position(&mut list, partition, *position, id);
            }
        }
        if list.count() == 0 {
            return;
        }
        if let Err(error) = self.consumer.commit(&list, mode) {
            self.shared.note_error(format_args!("the group's positions cannot be committed: {error}"));
        }
    }

    /// Whether the pipeline takes more. Where it is behind for long, the partitions are paused and everything else is
    /// polled; not at once, since librdkafka throws away what it has fetched when it pauses.
    fn has_room(&mut self) -> bool {
        self.learn();
        let paused = self.reading.paused;
        let full = self.shared.is_full(if paused { 2 } else { 1 });
        let pause = full && self.reading.full_since.get_or_insert_with(Instant::now).elapsed() >= PATIENCE;
        if !full {
            self.reading.full_since = None;
        }
        if pause != paused || self.reading.unequal {
            self.pause(pause);
        }
        !full || self.reading.paused
    }

    fn pause(&mut self, pause: bool) {
        let running: Vec<Partition> = self.shared.state().running.iter().cloned().collect();
        let switched = match pause {
            true => self.consumer.pause(&list_of(&running)),
            false => self.consumer.resume(&list_of(&running)),
        };
        match switched {
            Ok(()) => (self.reading.paused, self.reading.unequal) = (pause, false),
            Err(error) => self.shared.note_error(error),
        }
    }

    /// After the stop: the pipeline still commits what it has taken.
    fn drain(&self) {
        while let Ok(command) = self.commands.recv() {
            if let Command::Committed(positions) = command {
                self.commit_positions(&positions.into_iter().collect(), CommitMode::Sync);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crossbeam_channel::unbounded;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

    use super::*;
    use crate::config::Kafka;
    use crate::record::Record;

    /// A reader that is assigned a partition, as librdkafka's rebalance does it, and where its records go.
    fn assigned(brokers: String, partition: &Partition) -> (Reader, Receiver<Fetched>) {
        let kafka = Kafka { brokers, group: "group".to_owned(), librdkafka: BTreeMap::new() };
        let start = Start::Known { counted: HashMap::new(), journal: None, is_behind: false };
        let options = SourceOptions { kafka, topics: vec![], added: vec![], prepare: None, start: start.clone() };
        let shared: Arc<Shared> = Arc::default();
        let (rebalances, _) = unbounded();
        let context = Context { shared: shared.clone(), rebalances: rebalances.clone(), start };
        let consumer = super::super::consumer(&options, context).unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&partition.topic, partition.number, Offset::Offset(0)).unwrap();
        consumer.assign(&list).unwrap();
        shared.assign(vec![partition.clone()], &[]);
        let ((records, fetched), (_, commands)) = (unbounded(), unbounded());
        let (topics, reading) = (HashMap::new(), Reading::default());
        (Reader { consumer, options, shared, records, rebalances, commands, topics, reading }, fetched)
    }

    fn poll(reader: &mut Reader) -> Record {
        let message = loop {
            if let Some(message) = reader.consumer.poll(Duration::from_secs(1)) {
                break message.unwrap();
            }
        };
        own(&message, &mut reader.topics)
    }

    #[test]
    fn a_record_that_comes_twice_is_taken_once_and_a_topic_that_ends_before_the_position_ends_the_source() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t", 1, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        let producer: BaseProducer = rdkafka::ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
        for value in ["a", "b", "c"] {
            producer.send(BaseRecord::<(), _>::to("t").payload(value)).unwrap();
        }
        producer.flush(Duration::from_secs(10)).unwrap();
        let partition = Partition { topic: "t".into(), number: 0 };
        let (mut reader, fetched) = assigned(brokers, &partition);

        let (first, second) = (poll(&mut reader), poll(&mut reader));
        for record in [first.clone(), second.clone(), second, first.clone()] {
            assert!(reader.take(record).unwrap());
        }
        let third = poll(&mut reader);
        assert!(reader.take(third).unwrap());
        assert_eq!(fetched.try_iter().map(|fetched| fetched.record.offset).collect::<Vec<_>>(), [0, 1, 2]);

        reader.shared.next().insert(partition.clone(), 9);
        assert_eq!(reader.take(first).unwrap_err(), SourceError::AheadOfTopic { partition, end: 3, position: 9 });
    }
}
