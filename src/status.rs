//! What pipeline, signals and server know of the running service.

use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::classify::Classifier;
use crate::metrics::Metrics;
use crate::prepare::Rules;
use crate::source::kafka::{Noted, SourceWatch};

/// What the server knows of the service.
#[derive(Debug)]
pub struct Status {
    /// What is shown.
    pub metrics: Arc<Metrics>,
    /// What is known of the source.
    pub source: SourceWatch,
    /// The name of the journal's kind.
    pub journal: &'static str,
    rules: ArcSwap<Classifier>,
    /// Packs and services that wait for the next batch.
    reloaded: Mutex<Option<Rules>>,
    last_error: Mutex<Option<Noted>>,
    last_progress: Mutex<Instant>,
    stuck_after: Duration,
}

impl Status {
    /// The status of a service that has just restored its ledger.
    /// It is not ready when records have waited for `stuck_after` and none was committed.
    pub fn new(
        classifier: Arc<Classifier>,
        journal: &'static str,
        metrics: Arc<Metrics>,
        stuck_after: Duration,
    ) -> Self {
        Self {
            metrics,
            source: SourceWatch::idle(),
            journal,
            rules: ArcSwap::new(classifier),
            reloaded: Mutex::default(),
            last_error: Mutex::default(),
            last_progress: Mutex::new(Instant::now()),
            stuck_after,
        }
    }

    /// The packs and services in use.
    pub fn rules(&self) -> Arc<Classifier> {
        self.rules.load_full()
    }

    /// The last error of the pipeline or the source, which may have passed.
    pub fn last_error(&self) -> Option<Noted> {
        let own = lock(&self.last_error).clone();
        own.into_iter().chain(self.source.state().last_error).max_by_key(|noted| noted.at)
    }

    /// Why the service is not ready; `None` when it is.
    pub fn not_ready(&self) -> Option<String> {
        let state = self.source.state();
        if let Some(failed) = state.failed {
            return Some(failed.to_string());
        }
        if !self.source.has_joined() {
            let cause = self.last_error().map_or(String::new(), |error| format!(": {}", error.text));
            return Some(format!("no partition is assigned yet{cause}"));
        }
        let waiting = state.assigned.len() - state.running.len();
        if waiting > 0 {
            return Some(format!("{waiting} of {} partitions are being restored", state.assigned.len()));
        }
        if state.without_owner > 0 {
            let missing = state.without_owner;
            return Some(format!(
                "{missing} partitions are owned by no instance of the group; they are being asked for"
            ));
        }
        let progress = *lock(&self.last_progress);
        let waiting = state.caught_up.map_or(progress, |caught_up| caught_up.max(progress)).elapsed();
        let lag: i64 = state.lag().map(|(_, lag)| lag).sum();
        let since = self.last_error().filter(|error| error.at > progress);
        let cause = since.map_or(String::new(), |error| format!(": {}", error.text));
        (lag > 0 && waiting > self.stuck_after)
            .then(|| format!("{lag} records wait and none was committed for {} s{cause}", waiting.as_secs()))
    }

    /// Takes notice of an error.
    pub fn note_error(&self, error: impl Display) {
        *lock(&self.last_error) = Some(Noted::now(error));
    }

    /// Offers packs and services that were loaded anew to the pipeline.
    pub fn offer(&self, rules: Rules) {
        *lock(&self.reloaded) = Some(rules);
    }

    /// Takes what was offered; it is in use from now on.
    pub fn take_offered(&self) -> Option<Rules> {
        let offered = lock(&self.reloaded).take()?;
        self.rules.store(offered.own.clone());
        Some(offered)
    }

    /// Takes notice of a commit.
    pub fn note_progress(&self) {
        *lock(&self.last_progress) = Instant::now();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
