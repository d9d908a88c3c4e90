//! What `/metrics` and the status page show.
//!
//! The ledger's metrics ([`Shown`]) are exact and survive restarts; those in [`Metrics`] are the process's own and start
//! with it.

mod net;
mod shown;

use arc_swap::ArcSwap;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
    exponential_buckets,
};

pub use net::{ByTag, net_effort, net_services, net_teams, net_tickets, net_touches};
pub use shown::{Shown, ShownPartition};

use crate::language::Language;
use crate::ledger::{Ledgers, PartitionState};
use crate::outcome::Reason;
use crate::ticket::Affects;

/// Everything that a scrape shows.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    shown: ArcSwap<Shown>,
    /// Refused records by reason.
    pub dead_letters: IntCounterVec,
    /// How often each rule spoke, by `pack` and `rule`.
    pub rule_matches: IntCounterVec,
    /// Tickets that ended with a declared tag: by what the classifier would have said, `declared` and `language`.
    pub agreement: IntCounterVec,
    /// The effort logged on them, in seconds.
    pub agreement_effort: IntCounterVec,
    /// Tickets by their tag, `live`, and that of the shadow's rules, `shadow`; empty without a shadow.
    pub shadow_tickets: IntCounterVec,
    /// Effort logged, in seconds, by both tags of that moment.
    pub shadow_effort: IntCounterVec,
    /// The hash of the shadow's packs, always 1.
    pub shadow_set: IntGaugeVec,
    /// Records behind the end of each partition.
    pub lag: IntGaugeVec,
    /// When records were last committed, in seconds since 1970.
    pub last_progress: Gauge,
    /// Attempts to load packs and service maps anew, by `result`.
    pub reloads: IntCounterVec,
    /// The hash of the packs and services in use, always 1.
    pub pattern_set: IntGaugeVec,
    /// Tickets that show that an input is not keyed by ticket, by `topic` and `sign`; only where each partition has its
    /// own ledger.
    pub unkeyed: IntCounterVec,
    /// Records that were copied to the partition of their ticket, by `topic` and `partition`.
    pub rekeyed: IntCounterVec,
    /// Time to restore the state at the start, or of the partition that was restored last.
    pub restore_seconds: Gauge,
    /// Time to take one batch.
    pub batch_seconds: Histogram,
    /// Time of it that the journal's commit took.
    pub commit_seconds: Histogram,
    /// From the broker's time of a batch's oldest record to its commit.
    pub end_to_end_seconds: Histogram,
}

impl Metrics {
    /// The metrics of a process that has just started.
    ///
    /// # Errors
    /// When two metrics have the same name.
    pub fn new() -> prometheus::Result<Self> {
        let counters = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(options(name, help), labels);
        let metrics = Self {
            registry: Registry::new(),
            shown: ArcSwap::default(),
            dead_letters: counters("dead_letters_total", "Refused records by reason.", &["reason"])?,
            rule_matches: counters(
                "rule_matches_total",
                "Tickets' versions in which a rule spoke.",
                &["pack", "rule"],
            )?,
            agreement: counters(
                "agreement_total",
                "Tickets that ended with a declared tag, by what the classifier would have said.",
                &["predicted", "declared", "language"],
            )?,
            agreement_effort: counters(
                "agreement_effort_seconds_total",
                "Effort of tickets that ended with a declared tag, by what the classifier would have said.",
                &["predicted", "declared", "language"],
            )?,
            shadow_tickets: counters(
                "shadow_tickets_total",
                "Tickets by their tag and that of the shadow's rules, as both were first.",
                &["live", "shadow"],
            )?,
            shadow_effort: counters(
                "shadow_effort_seconds_total",
                "Logged effort by the ticket's tag and that of the shadow's rules at that moment.",
                &["live", "shadow"],
            )?,
            shadow_set: IntGaugeVec::new(
                options("shadow_pattern_set_info", "The packs and services of the shadow, always 1."),
                &["hash"],
            )?,
            lag: IntGaugeVec::new(
                options("consumer_lag", "Records behind the end of the partition."),
                &["topic", "partition"],
            )?,
            reloads: counters("reloads_total", "Attempts to load packs and service maps anew.", &["result"])?,
            pattern_set: IntGaugeVec::new(
                options("pattern_set_info", "The packs and services in use, always 1."),
                &["hash", "version"],
            )?,
            last_progress: Gauge::with_opts(options(
                "last_progress_timestamp_seconds",
                "When records were last committed.",
            ))?,
            unkeyed: counters(
                "unkeyed_records_total",
                "Records that show that their topic is not keyed by ticket.",
                &["topic", "sign"],
            )?,
            rekeyed: counters(
                "rekeyed_records_total",
                "Records copied to the partition of their ticket.",
                &["topic", "partition"],
            )?,
            restore_seconds: Gauge::with_opts(options(
                "restore_seconds",
                "Time to restore the ledger at the start, or of the partition that was restored last.",
            ))?,
            batch_seconds: histogram("batch_seconds", "Time to take one batch of records.", 0.001)?,
            commit_seconds: histogram("commit_seconds", "Time the journal takes to commit one batch.", 0.001)?,
            end_to_end_seconds: histogram(
                "end_to_end_seconds",
                "From the broker's time of the oldest record of a batch to its commit.",
                0.01,
            )?,
        };
        metrics.register()?;
        Ok(metrics)
    }

    fn register(&self) -> prometheus::Result<()> {
        for reason in Reason::ALL {
            self.dead_letters.with_label_values(&[reason.as_str()]);
        }
        for result in ["done", "refused"] {
            self.reloads.with_label_values(&[result]);
        }
        for predicted in Affects::NAMES {
            for (declared, language) in Affects::NAMES.iter().flat_map(|d| Language::NAMES.iter().map(move |l| (d, l)))
            {
                self.agreement.with_label_values(&[*predicted, *declared, *language]);
                self.agreement_effort.with_label_values(&[*predicted, *declared, *language]);
            }
        }
        self.registry.register(Box::new(self.dead_letters.clone()))?;
        self.registry.register(Box::new(self.rule_matches.clone()))?;
        for counters in [&self.agreement, &self.agreement_effort, &self.shadow_tickets, &self.shadow_effort] {
            self.registry.register(Box::new(counters.clone()))?;
        }
        self.registry.register(Box::new(self.shadow_set.clone()))?;
        self.registry.register(Box::new(self.reloads.clone()))?;
        self.registry.register(Box::new(self.pattern_set.clone()))?;
        self.registry.register(Box::new(self.lag.clone()))?;
        self.registry.register(Box::new(self.unkeyed.clone()))?;
        self.registry.register(Box::new(self.rekeyed.clone()))?;
        self.registry.register(Box::new(self.restore_seconds.clone()))?;
        self.registry.register(Box::new(self.last_progress.clone()))?;
        self.registry.register(Box::new(self.batch_seconds.clone()))?;
        self.registry.register(Box::new(self.commit_seconds.clone()))?;
        self.registry.register(Box::new(self.end_to_end_seconds.clone()))?;
        self.register_fact("build_info", "The program, always 1.", &[("version", env!("CARGO_PKG_VERSION"))], 1.0)
    }

    /// Shows a figure that does not change while the process runs.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn register_fact(&self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) -> prometheus::Result<()> {
        let (names, values): (Vec<&str>, Vec<&str>) = labels.iter().copied().unzip();
        let fact = GaugeVec::new(options(name, help), &names)?;
        fact.with_label_values(&values).set(value);
        self.registry.register(Box::new(fact))
    }

    /// Shows which packs and services are in use.
    pub fn use_patterns(&self, hash: &str) {
        self.pattern_set.reset();
        self.pattern_set.with_label_values(&[hash, env!("CARGO_PKG_VERSION")]).set(1);
    }

    /// Shows which packs the shadow uses, and its counters from 0.
    pub fn use_shadow(&self, hash: &str) {
        self.shadow_set.reset();
        self.shadow_set.with_label_values(&[hash]).set(1);
        for (live, shadow) in Affects::NAMES.iter().flat_map(|live| Affects::NAMES.iter().map(move |s| (live, s))) {
            self.shadow_tickets.with_label_values(&[*live, *shadow]);
            self.shadow_effort.with_label_values(&[*live, *shadow]);
        }
    }

    /// Shows what is committed, of these partitions: of one that has changes which are not, what was shown before.
    pub fn publish(&self, ledgers: &Ledgers, is_shown: impl Fn(&PartitionState) -> bool) {
        let shown = Shown::of(ledgers.iter(), is_shown).committed(ledgers.iter(), &self.shown.load());
        self.shown.store(std::sync::Arc::new(shown));
    }

    /// What is committed.
    pub fn shown(&self) -> std::sync::Arc<Shown> {
        self.shown.load_full()
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// When a metric cannot be encoded.
    pub fn render(&self) -> prometheus::Result<String> {
        let mut families = self.shown.load().families();
        families.extend(self.registry.gather().into_iter().filter(|family| !family.get_metric().is_empty()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("customer_reach")
}

/// Fourteen buckets, each twice as wide as the one before.
fn histogram(name: &str, help: &str, first: f64) -> prometheus::Result<Histogram> {
    let options = HistogramOpts { common_opts: options(name, help), buckets: exponential_buckets(first, 2.0, 14)? };
    Histogram::with_opts(options)
}

/// The wall clock in seconds since 1970, for ages and lags; the ledger's time is the tickets' own.
#[expect(clippy::disallowed_methods, reason = "ages of records are measured against the wall clock")]
pub fn unix_seconds() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0.0, |since| since.as_secs_f64())
}
