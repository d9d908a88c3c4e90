//! The two threads behind the source: one prepares batches, one takes them into the ledgers and commits them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::{DRAIN, LOOK};
use crate::journal::kafka::{Found, Restored, Restorer, Wanted};
use crate::journal::{Journal, KafkaJournalError};
use crate::pipeline::Pipeline;
use crate::prepare::{Batch, Preparer, Route};
use crate::record::Partition;
use crate::source::kafka::{Epoch, Fetched, Fetches, KafkaSource, Membership, Rebalance, SourceError};
use crate::status::Status;

/// How long an instance tries to end what it left open before anything else: one journal that takes no records must not hold
/// up all others for ever.
const END_OWN: Duration = Duration::from_secs(30);
/// How long to wait before a commit that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The thread that gathers records and prepares them, while those before are committed.
pub(super) struct Feeder {
    pub(super) preparer: Preparer,
    pub(super) fetches: Fetches,
    pub(super) status: Arc<Status>,
    pub(super) batches: Sender<Batch>,
    pub(super) records: usize,
    pub(super) linger: Duration,
}

impl Feeder {
    pub(super) fn run(&mut self) {
        while !self.fetches.is_finished() {
            let fetched = self.next();
            // After the records have come, so that none is tagged by older rules than were in use then.
            if let Some(rules) = self.status.take_offered() {
                self.preparer.rules = rules;
            }
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
pub(super) struct Worker {
    pub(super) pipeline: Pipeline,
    pub(super) source: KafkaSource,
    pub(super) membership: Membership,
    pub(super) restorer: Option<Restorer>,
    pub(super) batches: Receiver<Batch>,
    pub(super) status: Arc<Status>,
}

impl Worker {
    pub(super) fn run(mut self) -> anyhow::Result<()> {
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
                self.end_own();
                let Some(restorer) = &self.restorer else { return };
                let inputs = &self.pipeline.preparer().inputs;
                let is_copied = |topic: &str| inputs.get(topic).is_some_and(|i| matches!(i.route, Route::Copy(_)));
                for (partition, epoch) in partitions {
                    let wanted = if is_copied(&partition.topic) { Wanted::Position } else { Wanted::Ledger };
                    restorer.request(partition, epoch, wanted);
                }
            }
            Rebalance::Revoked(partitions, done) => {
                self.pipeline.let_go(&partitions);
                // Nobody may wait for it.
                done.try_send(()).unwrap_or_default();
            }
        }
    }

    /// Ends transactions of this instance that are still open: those of a process before this one are in the way of its
    /// restores, and those whose end was lost in the way of others', who have the partitions now.
    fn end_own(&mut self) {
        let Journal::Kafka(journal) = self.pipeline.journal_mut() else { return };
        let end = Instant::now() + END_OWN;
        while let Err(error) = journal.end_hanging() {
            self.status.source.note_error(&error);
            if self.status.source.is_stopped() || !self.source.rebalances().is_empty() || Instant::now() >= end {
                return;
            }
            std::thread::park_timeout(LOOK);
        }
    }

    fn take_over(&mut self, restored: Restored) {
        let Restored { partition, epoch, found, took } = restored;
        let ledger = match found {
            Ok(Found::Ledger(ledger)) => *ledger,
            Ok(Found::Position(position)) => return self.source.begin(partition, epoch, position),
            Err(error @ KafkaJournalError::Hanging { .. }) => return self.restore_again(partition, epoch, &error),
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

    /// Restores again after a transaction was in the way, which may be this instance's own.
    fn restore_again(&mut self, partition: Partition, epoch: Epoch, reason: &KafkaJournalError) {
        self.status.source.note_error(reason);
        self.end_own();
        if let Some(restorer) = &self.restorer {
            restorer.request(partition, epoch, Wanted::Ledger);
        }
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
                    self.status.note_progress();
                    return self.source.committed(positions);
                }
                Err(error) => {
                    self.status.note_error(&error);
                    if error.is_lost() {
                        tracing::warn!(%error, "everything is read back from the journal");
                        return self.go_back();
                    }
                    if error.is_final() {
                        return self.status.source.fail(SourceError::Journal(error.to_string()));
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
