//! The service's life: load, restore, listen, read, drain.
//!
//! Three threads carry the data: one polls Kafka, one prepares batches, one takes them into the ledgers and commits them;
//! a fourth restores partitions. The server and the signals live on a small tokio runtime beside them.

mod loaded;
mod opened;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use crossbeam_channel::bounded;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::loaded::load_rules;
pub use self::loaded::{Inputs, Loaded};
use self::opened::{dead_letters, open};
use self::worker::{Feeder, Worker};
use crate::config::Config;
use crate::journal::Journal;
use crate::journal::kafka::Restorer;
use crate::metrics::Metrics;
use crate::pipeline::{Parts, Pipeline};
use crate::prepare::Preparer;
use crate::server;
use crate::source::kafka::{KafkaSource, Membership, SourceOptions};
use crate::status::Status;

/// How long the drain after a stop may take: the batch in hand is committed, and the group is left.
const DRAIN: Duration = Duration::from_secs(20);
/// How often to look whether something has come, or ended by itself.
const LOOK: Duration = Duration::from_millis(50);

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
                Some(Restorer::start(&config.kafka, settings, &status.source)?)
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
        let mut feeder = Feeder { preparer, fetches, status: status.clone(), batches, records, linger };
        status.source.spawn("prepare", move || feeder.run())?;
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

    /// Commits the batch in hand, leaves the group and ends.
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
            status.note_error(format_args!("reload refused: {reason}"));
            "refused"
        }
    };
    status.metrics.reloads.with_label_values(&[result]).inc();
}
