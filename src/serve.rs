//! The service's life: load, restore, listen, read, drain.
//!
//! Two threads carry the data: one polls Kafka, one takes batches and commits them. The server and the signals live on a
//! small tokio runtime beside them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::classify::Classifier;
use crate::config::{Config, JournalKind};
use crate::diagnostic::Problems;
use crate::journal::{Journal, SqliteJournal};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::pipeline::{Input, Parts, Pipeline, Preparer, Shadow};
use crate::profile::{Decoder, Profile};
use crate::record::{Partition, Record};
use crate::server;
use crate::sink::{DeadLetters, Producer, Tagger};
use crate::source::kafka::{Event, KafkaSource, SourceOptions};
use crate::status::{Rules, Status};

/// How long the drain after a stop may take: fetched records are taken, committed, and the group is left.
const DRAIN: Duration = Duration::from_secs(20);
/// How long to wait before a commit that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often to look whether the pipeline has ended by itself.
const LOOK: Duration = Duration::from_millis(50);

/// Everything loaded from files, or all problems of all of them.
pub struct Loaded {
    /// What finds the evidence.
    pub rules: Rules,
    /// By topic.
    pub inputs: HashMap<String, Input>,
}

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
                Ok(profile) => {
                    let source = input.source.as_str().into();
                    inputs.insert(input.topic.clone(), Input { decoder: Decoder::new(profile), source });
                }
                Err(found) => problems.extend(found),
            }
        }
        match load_rules(config) {
            Ok(rules) => problems.into_result(Self { rules, inputs }),
            Err(found) => {
                problems.extend(found);
                Err(problems)
            }
        }
    }
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
        let loaded = Loaded::load(config)?;
        let (journal, ledger, metrics) = restore(config)?;
        let status = Arc::new(Status::new(loaded.rules.own.clone(), journal.kind(), metrics));
        let source = KafkaSource::start(source_options(config, &journal, &ledger), &status.source)?;
        let pipeline = pipeline(config, loaded, journal, ledger, status.metrics.clone())?;
        runtime.spawn(server::serve(listener, status.clone(), server::Explainer::new(config)?));
        let (records, linger) = (config.batch.records, config.batch.linger);
        let worker = Worker { pipeline, source, status: status.clone(), records, linger };
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

/// Opens the journal and reads the ledger back.
fn restore(config: &Config) -> anyhow::Result<(Journal, Ledger, Arc<Metrics>)> {
    let mut journal = match config.journal.kind {
        JournalKind::Sqlite => Journal::Sqlite(Box::new(SqliteJournal::open(&config.journal.path)?)),
        JournalKind::None => Journal::None,
    };
    let began = Instant::now();
    let ledger = journal.restore(config.ledger_settings())?;
    let seconds = began.elapsed().as_secs_f64();
    tracing::info!(tickets = ledger.tickets().count(), seconds, "restored");
    let metrics = Metrics::new(&ledger, config.metrics.zero_hold)?;
    metrics.register_fact("restore_seconds", "Time to restore the ledger at the start.", &[], seconds)?;
    Ok((journal, ledger, Arc::new(metrics)))
}

fn source_options(config: &Config, journal: &Journal, ledger: &Ledger) -> SourceOptions {
    // Where nothing was taken yet, the group's position counts, if it has one.
    let taken = ledger.partitions().iter().filter(|state| state.next_offset > 0);
    SourceOptions {
        kafka: config.kafka.clone(),
        topics: config.input.iter().map(|input| input.topic.clone()).collect(),
        positions: taken.map(|state| (state.partition.clone(), state.next_offset)).collect(),
        journal: journal.id().map(str::to_owned),
    }
}

fn pipeline(
    config: &Config,
    loaded: Loaded,
    journal: Journal,
    ledger: Ledger,
    metrics: Arc<Metrics>,
) -> anyhow::Result<Pipeline> {
    let Loaded { rules, inputs } = loaded;
    let tagged = config.output.tagged.as_ref().map(|topic| Producer::new(&config.kafka, topic)).transpose()?;
    let mut pipeline = Pipeline::new(Parts {
        preparer: Preparer { inputs, classifier: rules.own, max_record_bytes: config.batch.max_record_bytes },
        dead_letters: Some(dead_letters(config)?),
        tagger: tagged.map(Tagger::new),
        journal,
        ledger,
        metrics,
    });
    if let Some(classifier) = rules.shadow {
        pipeline.set_shadow(Shadow { classifier, ledger: Ledger::new(config.ledger_settings()) });
    }
    Ok(pipeline)
}

fn dead_letters(config: &Config) -> anyhow::Result<DeadLetters> {
    if let Some(topic) = &config.output.dead_letters {
        return Ok(DeadLetters::Topic(Box::new(Producer::new(&config.kafka, topic)?)));
    }
    std::fs::create_dir_all(&config.journal.path)?;
    let path = config.journal.path.join("dead-letters.ndjson");
    DeadLetters::file(&path).with_context(|| format!("cannot write {}", path.display()))
}

/// The pipeline's thread.
struct Worker {
    pipeline: Pipeline,
    source: KafkaSource,
    status: Arc<Status>,
    records: usize,
    linger: Duration,
}

impl Worker {
    fn run(mut self) -> anyhow::Result<()> {
        loop {
            let stopping = self.status.source.is_stopped();
            let (assigned, batch) = self.next_batch();
            if !assigned.is_empty() {
                self.pipeline.assign(&assigned);
            }
            if let Some(rules) = self.status.take_offered() {
                self.pipeline.replace_rules(rules.own, rules.shadow);
            }
            if !batch.is_empty() {
                self.take(batch);
            } else if self.source.is_finished() || (stopping && assigned.is_empty()) {
                break;
            }
        }
        let failure = self.source.failure();
        self.source.close(DRAIN / 2);
        failure.map_or(Ok(()), |error| Err(error.into()))
    }

    /// What has come: as much as is there, up to a full batch; one that is not full waits for the linger.
    fn next_batch(&self) -> (Vec<Partition>, Vec<Record>) {
        let (mut assigned, mut batch) = (Vec::new(), Vec::new());
        let mut deadline = Instant::now() + Duration::from_millis(100);
        while batch.len() < self.records {
            match self.source.next(deadline) {
                None => break,
                Some(Event::Assigned(partitions)) => {
                    assigned.extend(partitions);
                    break;
                }
                Some(Event::Record(record)) => {
                    if batch.is_empty() {
                        deadline = Instant::now() + self.linger;
                    }
                    batch.push(record);
                }
            }
        }
        (assigned, batch)
    }

    /// Takes a batch and commits it, trying again until it is committed or the drain's time is over.
    fn take(&mut self, batch: Vec<Record>) {
        let began = Instant::now();
        let oldest = batch.iter().filter_map(|record| record.timestamp).min();
        self.pipeline.take(batch);
        let positions = loop {
            match self.pipeline.commit() {
                Ok(positions) => break positions,
                Err(error) => {
                    tracing::error!(%error, "a batch could not be committed; trying again");
                    self.status.note_error(Some(error.to_string()));
                    if self.status.source.is_stopped() {
                        return;
                    }
                    std::thread::park_timeout(RETRY);
                }
            }
        };
        self.status.note_error(None);
        self.status.note_progress();
        self.source.committed(positions);
        let metrics = &self.status.metrics;
        metrics.batch_seconds.observe(began.elapsed().as_secs_f64());
        if let Some(oldest) = oldest {
            #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are exact in a double")]
            metrics.end_to_end_seconds.observe((crate::metrics::unix_seconds() - oldest as f64 / 1000.0).max(0.0));
        }
    }
}
