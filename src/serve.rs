//! The service's life: load, restore, listen, read, drain.
//!
//! Three threads carry the data: one polls Kafka, one prepares batches, one takes them into the ledgers and commits them;
//! a fourth restores partitions. The server and the signals live on a small tokio runtime beside them.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::classify::Classifier;
use crate::config::{self, Config, JournalKind};
use crate::diagnostic::Problems;
use crate::journal::kafka::{self, Instance, JournalTopics, Restored, Restorer, TopicError, TopicKeeper};
use crate::journal::{Journal, KafkaJournal, KafkaJournalError, SqliteJournal};
use crate::ledger::{Ledger, Ledgers};
use crate::metrics::Metrics;
use crate::pipeline::{Parts, Pipeline};
use crate::prepare::{Batch, Input, KeyedCopy, Preparer, Route, Rules};
use crate::profile::{Decoder, Profile};
use crate::record::Partition;
use crate::server;
use crate::sink::{DEAD_LETTERS, DeadLetters, Producer};
use crate::source::kafka::{
    Epoch, Fetched, Fetches, KafkaSource, Membership, Prepare, Rebalance, SourceError, SourceOptions, Start, Unready,
};
use crate::status::Status;

/// How long the drain after a stop may take: fetched records are taken, committed, and the group is left.
const DRAIN: Duration = Duration::from_secs(20);
/// How long to wait before a commit that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often to look whether something has come, or ended by itself.
const LOOK: Duration = Duration::from_millis(50);

/// Everything loaded from files, or all problems of all of them.
pub struct Loaded {
    /// What finds the evidence.
    pub rules: Rules,
    /// By topic.
    pub inputs: Inputs,
}

/// Inputs by topic.
pub type Inputs = Arc<HashMap<String, Arc<Input>>>;

impl Loaded {
    /// Loads packs, service maps and profiles.
    ///
    /// # Errors
    /// All problems of all files.
    pub fn load(config: &Config) -> Result<Self, Problems> {
        let mut problems = Problems::new();
        let mut inputs = HashMap::new();
        for input in &config.input {
            let options = config.profile.get(&input.profile);
            match Profile::load(&input.profile, &config.patterns.profiles, options, None) {
                Ok(profile) => inputs.extend(routed(config, input, Arc::new(Decoder::new(profile)))),
                Err(found) => problems.extend(found),
            }
        }
        match load_rules(config) {
            Ok(rules) => problems.into_result(Self { rules, inputs: Arc::new(inputs) }),
            Err(found) => {
                problems.extend(found);
                Err(problems)
            }
        }
    }
}

/// An input and, where its records are copied, the copy as another.
fn routed(config: &Config, input: &config::Input, decoder: Arc<Decoder>) -> Vec<(String, Arc<Input>)> {
    let source: Arc<str> = input.source.as_str().into();
    let made = |route| Arc::new(Input { decoder: decoder.clone(), source: source.clone(), route });
    if !input.rekey {
        return vec![(input.topic.clone(), made(Route::Ledger))];
    }
    let topic = JournalTopics::new(&config.kafka).keyed(&input.topic);
    let copy = Arc::new(KeyedCopy { topic: topic.clone(), partitions: AtomicI32::new(0) });
    vec![(input.topic.clone(), made(Route::Copy(copy.clone()))), (topic.to_string(), made(Route::FromCopy(copy)))]
}

/// Loads packs and service maps, those of the shadow included.
fn load_rules(config: &Config) -> Result<Rules, Problems> {
    let mut problems = Problems::new();
    let mut load = |options| Classifier::load(&options).map(Arc::new).map_err(|found| problems.extend(found)).ok();
    let own = load(config.classifier_options());
    let shadow = config.shadow_options().and_then(&mut load);
    match own {
        Some(own) if problems.is_empty() => Ok(Rules { own, shadow }),
        _ => Err(problems),
    }
}

/// A service that runs.
pub struct Service {
    runtime: tokio::runtime::Runtime,
    pipeline: JoinHandle<anyhow::Result<()>>,
    status: Arc<Status>,
    address: SocketAddr,
}

impl Service {
    /// Loads, restores, listens and begins to read.
    ///
    /// # Errors
    /// When a file has problems, the journal or the address cannot be used, or Kafka's settings are not accepted.
    pub fn start(config: &Config) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind(config.http.listen)).with_context(|| {
            format!("cannot listen on {}; choose another address with `[http] listen`", config.http.listen)
        })?;
        let address = listener.local_addr()?;
        let Loaded { rules, inputs } = Loaded::load(config)?;
        let metrics = Arc::new(Metrics::new()?);
        let membership = Membership::default();
        let opened = open(config, &inputs, &membership, &metrics)?;
        let status =
            Arc::new(Status::new(rules.own.clone(), opened.journal.kind(), metrics.clone(), config.http.stuck_after));
        let restorer = match &opened.journal {
            Journal::Kafka(_) => {
                let settings = config.ledger_settings();
                Some(Restorer::start(config.kafka.clone(), settings, status.source.clone())?)
            }
            Journal::Sqlite(..) | Journal::None(_) => None,
        };
        let preparer = Preparer { inputs, rules, max_record_bytes: config.batch.max_record_bytes };
        let options = SourceOptions {
            kafka: config.kafka.clone(),
            topics: config.input.iter().map(|input| input.topic.clone()).collect(),
            added: opened.added,
            prepare: opened.prepare,
            start: opened.start,
        };
        let (source, fetches) = KafkaSource::start(options, &status.source)?;
        let pipeline = Pipeline::new(Parts {
            preparer: preparer.clone(),
            journal: opened.journal,
            ledgers: opened.ledgers,
            dead_letters: Some(dead_letters(config)?),
            tagged: config.output.tagged.as_deref().map(Into::into),
            metrics,
            zero_hold: config.metrics.zero_hold,
        });
        runtime.spawn(server::serve(listener, status.clone(), server::Explainer::new(config)?));
        // None waits between the two: while a batch is committed the next one is prepared, and grows if that takes long.
        let (batches, prepared) = bounded(0);
        let (records, linger) = (config.batch.records, config.batch.linger);
        let feeder = Feeder { preparer, fetches, status: status.clone(), batches, records, linger };
        std::thread::Builder::new().name("prepare".into()).spawn(move || feeder.run())?;
        let worker = Worker { pipeline, source, membership, restorer, batches: prepared, status: status.clone() };
        let pipeline = std::thread::Builder::new().name("pipeline".into()).spawn(move || worker.run())?;
        Ok(Self { runtime, pipeline, status, address })
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the server knows.
    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// Runs until a signal to end comes or the source ends by itself, then drains. SIGHUP loads packs and service maps
    /// anew.
    ///
    /// # Errors
    /// When the source ended by itself, or the drain did not end in time.
    pub fn run_until_signal(self, config: &Config) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            let mut signals = Signals::new()?;
            loop {
                tokio::select! {
                    wish = signals.next() => match wish {
                        Wish::End => break anyhow::Ok(()),
                        Wish::Reload => tokio::task::block_in_place(|| reload(config, &self.status)),
                    },
                    () = tokio::time::sleep(LOOK) => if self.pipeline.is_finished() { break Ok(()) },
                }
            }
        })?;
        self.stop()
    }

    /// Takes and commits what is fetched, leaves the group and ends.
    ///
    /// # Errors
    /// When the source ended by itself, or the drain did not end in time.
    pub fn stop(self) -> anyhow::Result<()> {
        self.status.source.stop();
        let end = Instant::now() + DRAIN;
        while !self.pipeline.is_finished() && Instant::now() < end {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        anyhow::ensure!(
            self.pipeline.is_finished(),
            "the drain took longer than {} s; what was not committed is read again at the next start",
            DRAIN.as_secs()
        );
        let result = self.pipeline.join();
        self.runtime.shutdown_timeout(Duration::from_secs(1));
        result.unwrap_or_else(|_| {
            Err(anyhow::anyhow!("the pipeline panicked; what was not committed is read again at the next start"))
        })
    }
}

/// The signals that a service obeys.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let [terminate, interrupt, hangup] =
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
        Ok(Self { terminate: terminate?, interrupt: interrupt?, hangup: hangup? })
    }

    async fn next(&mut self) -> Wish {
        let (name, wish) = tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", Wish::End),
            _ = self.interrupt.recv() => ("SIGINT", Wish::End),
            _ = self.hangup.recv() => ("SIGHUP", Wish::Reload),
        };
        tracing::info!(signal = name, "{wish}");
        wish
    }
}

/// What a signal asks for.
enum Wish {
    End,
    Reload,
}

impl std::fmt::Display for Wish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::End => "draining",
            Self::Reload => "loading packs and services anew",
        })
    }
}

/// Loads packs and service maps aside and runs the packs' examples. The pipeline takes them before its next batch; or they
/// are refused with the reason, and those in use stay.
fn reload(config: &Config, status: &Status) {
    let loaded = load_rules(config).map_err(|problems| problems.to_string());
    let checked = loaded.and_then(|rules| match rules.own.failing_example() {
        None => Ok(rules),
        Some(failure) => Err(failure),
    });
    let result = match checked {
        Ok(rules) => {
            tracing::info!(hash = rules.own.hash(), "packs and services loaded anew");
            status.offer(rules);
            "done"
        }
        Err(reason) => {
            tracing::error!("packs and services not loaded anew, those in use stay:\n{reason}");
            status.note_error(Some(format!("reload refused: {reason}")));
            "refused"
        }
    };
    status.metrics.reloads.with_label_values(&[result]).inc();
}

/// What is needed of the journal to start.
struct Opened {
    journal: Journal,
    ledgers: Ledgers,
    /// Where the source begins.
    start: Start,
    /// Makes the topics ready.
    prepare: Option<Prepare>,
    /// Topics that are read besides the inputs.
    added: Vec<String>,
}

/// Opens the journal and, where it is here, reads the ledger back.
fn open(config: &Config, inputs: &Inputs, membership: &Membership, metrics: &Metrics) -> anyhow::Result<Opened> {
    let began = Instant::now();
    let settings = config.ledger_settings();
    let outputs = config.output.tagged.is_some() || config.output.dead_letters.is_some();
    let producer = || outputs.then(|| Producer::new(&config.kafka)).transpose();
    let opened = match config.journal.kind {
        JournalKind::Sqlite => {
            let mut journal = SqliteJournal::open(&config.journal.path)?;
            let ledger = journal.restore(settings)?;
            tracing::info!(tickets = ledger.slot_count(), seconds = began.elapsed().as_secs_f64(), "restored");
            let start = Start::Known { positions: positions(&ledger), journal: Some(journal.id().to_owned()) };
            let (journal, ledgers) = (Journal::Sqlite(Box::new(journal), producer()?), Ledgers::one(ledger));
            Opened { journal, ledgers, start, prepare: None, added: Vec::new() }
        }
        JournalKind::None => {
            let start = Start::Known { positions: HashMap::new(), journal: None };
            let (journal, ledgers) = (Journal::None(producer()?), Ledgers::one(Ledger::new(settings)));
            Opened { journal, ledgers, start, prepare: None, added: Vec::new() }
        }
        JournalKind::Kafka => {
            let instance = Instance::of(&config.journal.path)?;
            let stored = config.input.iter().filter(|input| input.rekey).map(|input| input.topic.as_str().into());
            let start = Start::Told { instance: instance.id.clone(), claim: kafka::CLAIM, stored: stored.collect() };
            let topics = JournalTopics::new(&config.kafka);
            let added = config.input.iter().filter(|i| i.rekey).map(|i| topics.keyed(&i.topic).to_string()).collect();
            let journal = KafkaJournal::new(config.kafka.clone(), instance, topics, membership.clone());
            let (journal, ledgers) = (Journal::Kafka(Box::new(journal)), Ledgers::Each(BTreeMap::new()));
            Opened { journal, ledgers, start, prepare: Some(prepare(config, inputs)), added }
        }
    };
    metrics.restore_seconds.set(began.elapsed().as_secs_f64());
    Ok(opened)
}

/// Where nothing was taken yet, the group's position counts, if it has one.
fn positions(ledger: &Ledger) -> HashMap<Partition, i64> {
    let taken = ledger.partitions().iter().filter(|state| state.next_offset > 0);
    taken.map(|state| (state.partition.clone(), state.next_offset)).collect()
}

/// Makes sure that every input has its journal and, where it is to have one, its keyed copy.
fn prepare(config: &Config, inputs: &Inputs) -> Prepare {
    let (kafka, inputs) = (config.kafka.clone(), inputs.clone());
    Box::new(move |partitions| {
        let keeper = TopicKeeper::new(&kafka).map_err(unready)?;
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        partitions.iter().for_each(|partition| *counts.entry(&partition.topic).or_default() += 1);
        for (topic, count) in counts {
            match inputs.get(topic).map(|input| &input.route) {
                Some(Route::Copy(copy)) => {
                    let count = keeper.ensure_keyed(topic).map_err(unready)?;
                    copy.partitions.store(i32::try_from(count).unwrap_or(i32::MAX), Ordering::Relaxed);
                    keeper.ensure_journal(&copy.topic, count).map_err(unready)?;
                }
                _ => keeper.ensure_journal(topic, count).map_err(unready)?,
            }
        }
        Ok(())
    })
}

fn unready(error: TopicError) -> Unready {
    match error.is_passing() {
        true => Unready::NotYet(error.to_string()),
        false => Unready::Never(error.to_string()),
    }
}

fn dead_letters(config: &Config) -> anyhow::Result<DeadLetters> {
    if let Some(topic) = &config.output.dead_letters {
        return Ok(DeadLetters::Topic(topic.as_str().into()));
    }
    std::fs::create_dir_all(&config.journal.path)?;
    let path = config.journal.path.join(DEAD_LETTERS);
    DeadLetters::file(&path).with_context(|| format!("cannot write {}", path.display()))
}

/// The thread that gathers records and prepares them, while those before are committed.
struct Feeder {
    preparer: Preparer,
    fetches: Fetches,
    status: Arc<Status>,
    batches: Sender<Batch>,
    records: usize,
    linger: Duration,
}

impl Feeder {
    fn run(mut self) {
        while !self.fetches.is_finished() {
            if let Some(rules) = self.status.take_offered() {
                self.preparer.rules = rules;
            }
            let fetched = self.next();
            if !fetched.is_empty() && self.batches.send(self.preparer.prepare(fetched)).is_err() {
                break;
            }
        }
    }

    /// What has come: as much as is there, up to a full batch; one that is not full waits for the linger.
    fn next(&self) -> Vec<Fetched> {
        let mut batch = Vec::new();
        let mut deadline = Instant::now() + LOOK;
        while batch.len() < self.records {
            let Some(fetched) = self.fetches.next(deadline) else { break };
            if batch.is_empty() {
                deadline = Instant::now() + self.linger;
            }
            batch.push(fetched);
        }
        batch
    }
}

/// The thread of the ledgers: it takes what is prepared, commits it, and follows the group's decisions.
struct Worker {
    pipeline: Pipeline,
    source: KafkaSource,
    membership: Membership,
    restorer: Option<Restorer>,
    batches: Receiver<Batch>,
    status: Arc<Status>,
}

impl Worker {
    fn run(mut self) -> anyhow::Result<()> {
        let restored = self.restorer.as_ref().map_or_else(crossbeam_channel::never, |r| r.restored().clone());
        let mut rebalances = self.source.rebalances().clone();
        loop {
            crossbeam_channel::select_biased! {
                recv(rebalances) -> rebalance => match rebalance {
                    Ok(rebalance) => self.rebalance(rebalance),
                    // The source has ended by itself, and would be looked at before what it has fetched for ever.
                    Err(_) => rebalances = crossbeam_channel::never(),
                },
                recv(restored) -> restored => if let Ok(restored) = restored { self.take_over(restored) },
                recv(self.batches) -> batch => match batch {
                    Ok(batch) => self.take(batch),
                    Err(_) => break,
                },
                default(LOOK) => if self.pipeline.release(Instant::now()) { self.commit() },
            }
        }
        let failure = self.source.failure();
        self.source.close(DRAIN / 2);
        failure.map_or(Ok(()), |error| Err(error.into()))
    }

    fn rebalance(&mut self, rebalance: Rebalance) {
        match rebalance {
            Rebalance::Member(generation) => self.membership.set(generation),
            Rebalance::Assigned(partitions) => {
                self.pipeline.own(&partitions);
                if self.restorer.is_none() {
                    self.pipeline.catch_up(self.status.source.state().committed_before);
                }
                // What a process before this one left open is in the way of the restore.
                self.connect();
                let Some(restorer) = &self.restorer else { return };
                let inputs = &self.pipeline.preparer().inputs;
                let is_copied = |topic: &str| inputs.get(topic).is_some_and(|i| matches!(i.route, Route::Copy(_)));
                for (partition, epoch) in partitions.into_iter().filter(|(p, _)| !is_copied(&p.topic)) {
                    restorer.request(partition, epoch);
                }
            }
            Rebalance::Revoked(partitions, done) => {
                self.pipeline.let_go(&partitions);
                // Nobody may wait for it.
                done.try_send(()).unwrap_or_default();
            }
        }
    }

    fn connect(&mut self) {
        let Journal::Kafka(journal) = self.pipeline.journal_mut() else { return };
        while let Err(error) = journal.connect() {
            self.status.source.note_error(&error);
            if self.status.source.is_stopped() {
                return;
            }
        }
    }

    fn take_over(&mut self, restored: Restored) {
        let Restored { partition, epoch, ledger, took } = restored;
        let ledger = match ledger {
            Ok(ledger) => ledger,
            Err(error @ KafkaJournalError::Hanging { .. }) => return self.end_hanging(partition, epoch, &error),
            Err(error) => return self.status.source.fail(SourceError::Journal(error.to_string())),
        };
        let (tickets, seconds) = (ledger.slot_count(), took.as_secs_f64());
        let position = ledger.state(&partition).map(|state| state.next_offset).filter(|position| *position > 0);
        if self.pipeline.take_over(&partition, epoch, ledger) {
            tracing::info!(%partition, tickets, seconds, "restored");
            self.status.metrics.restore_seconds.set(seconds);
            self.source.begin(partition, epoch, position);
        }
    }

    /// Ends a transaction that is in the way of a restore if it is this instance's own, and restores again.
    fn end_hanging(&mut self, partition: Partition, epoch: Epoch, reason: &KafkaJournalError) {
        let (Journal::Kafka(journal), Some(restorer)) = (self.pipeline.journal_mut(), &self.restorer) else { return };
        self.status.source.note_error(reason);
        if let Err(error) = journal.end_hanging(&partition) {
            self.status.source.note_error(error);
        }
        restorer.request(partition, epoch);
    }

    fn take(&mut self, batch: Batch) {
        let (began, oldest) = (batch.began, batch.oldest());
        self.pipeline.apply(batch);
        if self.pipeline.is_torn() {
            return self.go_back();
        }
        self.pipeline.release(Instant::now());
        self.commit();
        let metrics = &self.status.metrics;
        metrics.batch_seconds.observe(began.elapsed().as_secs_f64());
        if let Some(oldest) = oldest {
            #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are exact in a double")]
            metrics.end_to_end_seconds.observe((crate::metrics::unix_seconds() - oldest as f64 / 1000.0).max(0.0));
        }
    }

    /// Back to the last commit, from where everything is read again.
    fn go_back(&mut self) {
        match self.pipeline.go_back() {
            Ok(()) => self.source.begin_again(),
            Err(error) => self.status.source.fail(SourceError::Journal(error.to_string())),
        }
    }

    /// Commits, trying again until it is committed, what was to be committed is no longer this process's, or the
    /// drain's time is over.
    fn commit(&mut self) {
        loop {
            match self.pipeline.commit() {
                Ok(positions) => {
                    self.status.note_error(None);
                    self.status.note_progress();
                    return self.source.committed(positions);
                }
                Err(error) => {
                    self.status.note_error(Some(error.to_string()));
                    if error.is_lost() {
                        tracing::warn!(%error, "everything is read back from the journal");
                        return self.go_back();
                    }
                    tracing::warn!(%error, "a batch could not be committed; trying again");
                    if self.status.source.is_stopped() {
                        return;
                    }
                    if let Ok(rebalance) = self.source.rebalances().recv_timeout(RETRY) {
                        self.rebalance(rebalance);
                    }
                }
            }
        }
    }
}
