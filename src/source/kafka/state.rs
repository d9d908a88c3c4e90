//! What is known of the source, and shared by pipeline, server and consumer thread.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::{Epoch, SourceError};
use crate::panic::{Caught, caught};
use crate::record::{Partition, Record};

/// Beyond this much unprocessed text nothing more is taken from the client: several batches, yet little beside librdkafka's own queue.
const BUFFER_BYTES: usize = 64 * 1024 * 1024;
/// Beyond this many unprocessed records likewise, so that small records do not make a long queue.
const BUFFER_RECORDS: usize = 50_000;

/// How long to wait before brokers are asked again that did not answer, or did not know yet.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// For how long an error that stays the same is not logged again: a client that has lost its brokers says so many times in a
/// millisecond.
const SAID_ONCE: Duration = Duration::from_secs(30);

/// An error that may have passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// What went wrong.
    pub text: String,
    /// When it was last seen.
    pub at: Instant,
}

impl Noted {
    /// An error of this moment.
    pub fn now(error: impl fmt::Display) -> Self {
        Self { text: error.to_string(), at: Instant::now() }
    }
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
    pub last_error: Option<Noted>,
    /// When that was logged.
    said: Option<Instant>,
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

    /// Whether this journal had come further before it was opened: then the group's position stays, as what is left of that.
    pub(super) fn is_behind(&self, partition: &Partition, position: i64) -> bool {
        self.committed_before.get(partition).is_some_and(|before| position < *before)
    }
}

/// What pipeline, server and consumer thread share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<SourceState>,
    /// The offset that comes next, at least; known for partitions that are read.
    next: Mutex<HashMap<Partition, i64>>,
    buffered_bytes: AtomicUsize,
    buffered_records: AtomicUsize,
    /// The newest epoch.
    pub(super) epoch: AtomicU64,
    /// Whether the group has given this process its share, however small; not so when that was lost with the session.
    pub(super) joined: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, SourceState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn next(&self) -> MutexGuard<'_, HashMap<Partition, i64>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a record as the next of its partition; the position that it stands before, if it does.
    pub(super) fn pass(&self, record: &Record) -> Option<i64> {
        let mut next = self.next();
        match next.get_mut(&record.partition) {
            Some(position) if record.offset < *position => return Some(*position),
            Some(position) => *position = record.offset + 1,
            None => _ = next.insert(record.partition.clone(), record.offset + 1),
        }
        None
    }

    /// Refuses a position that a partition with these ends does not reach, and says where records are gone that were never
    /// read.
    pub(super) fn check_position(
        &self,
        partition: &Partition,
        position: i64,
        ends: (i64, i64),
    ) -> Result<(), SourceError> {
        let (start, end) = ends;
        if position > end {
            return Err(SourceError::AheadOfTopic { partition: partition.clone(), end, position });
        }
        if position < start {
            self.note_error(format_args!(
                "{partition}: the records from offset {position} to {start} were deleted before they were read; \
                 counting goes on at {start}, and a longer retention of the topic avoids this"
            ));
        }
        Ok(())
    }

    pub(super) fn note_error(&self, error: impl fmt::Display) {
        let noted = Noted::now(error);
        if self.is_news(&noted) {
            tracing::warn!(error = noted.text, "Kafka");
        }
    }

    /// Takes notice of an error; says whether it is another one than the last, or that was logged some time ago.
    fn is_news(&self, error: &Noted) -> bool {
        let mut state = self.state();
        let last = state.last_error.replace(error.clone());
        let same = last.is_some_and(|last| last.text == error.text);
        let is_news = !same || state.said.is_none_or(|said| error.at.duration_since(said) >= SAID_ONCE);
        if is_news {
            state.said = Some(error.at);
        }
        is_news
    }

    /// Asks again until there is an answer; `None` when the source is to end before.
    pub(super) fn until_answered<T, E: fmt::Display>(&self, mut ask: impl FnMut() -> Result<T, E>) -> Option<T> {
        loop {
            match ask() {
                Ok(answer) => return Some(answer),
                Err(_) if self.stopped() => return None,
                Err(error) => self.note_error(error),
            }
            std::thread::park_timeout(ASK_AGAIN);
        }
    }

    pub(super) fn next_epoch(&self) -> Epoch {
        self.epoch.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Takes notice of an assignment and gives each partition its epoch.
    pub(super) fn assign(&self, partitions: Vec<Partition>, waiting: &[Partition]) -> Vec<(Partition, Epoch)> {
        let epoch = self.next_epoch();
        self.joined.store(true, Ordering::Relaxed);
        let mut state = self.state();
        for partition in &partitions {
            state.assigned.insert(partition.clone(), epoch);
            if !waiting.contains(partition) {
                state.running.insert(partition.clone());
            }
        }
        partitions.into_iter().map(|partition| (partition, epoch)).collect()
    }

    /// Takes notice that partitions are no longer this process's.
    pub(super) fn revoke(&self, partitions: &[Partition]) {
        self.next_epoch();
        let mut state = self.state();
        for partition in partitions {
            state.assigned.remove(partition);
            state.running.remove(partition);
        }
    }

    /// Counts a record into what is fetched and not taken yet.
    pub(super) fn fill(&self, record: &Record) {
        self.buffered_bytes.fetch_add(weight(record), Ordering::Relaxed);
        self.buffered_records.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a record that was taken out again.
    pub(super) fn drain(&self, record: &Record) {
        self.buffered_bytes.fetch_sub(weight(record), Ordering::Relaxed);
        self.buffered_records.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn is_full(&self, share: usize) -> bool {
        self.buffered_bytes.load(Ordering::Relaxed) > BUFFER_BYTES / share
            || self.buffered_records.load(Ordering::Relaxed) > BUFFER_RECORDS / share
    }
}

/// A handle on what is known of the source, for the server and the journal.
#[derive(Clone, Debug)]
pub struct SourceWatch(pub(super) Arc<Shared>);

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

    /// Refuses a position that a partition with these ends does not reach.
    ///
    /// # Errors
    /// When it does not.
    pub fn check_position(&self, partition: &Partition, position: i64, ends: (i64, i64)) -> Result<(), SourceError> {
        self.0.check_position(partition, position, ends)
    }

    /// Ends the source for good, with the reason.
    pub fn fail(&self, reason: SourceError) {
        tracing::error!(error = %reason, "the Kafka source is ended");
        self.0.state().failed.get_or_insert(reason);
        self.stop();
    }

    /// Starts a thread without which the source is of no use: should it panic, the source ends, with the reason.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn spawn(
        &self,
        thread: &'static str,
        mut body: impl FnMut() + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        let watch = self.clone();
        std::thread::Builder::new().name(thread.into()).spawn(move || {
            // What the body owns lives on until the reason is known, for others see by its end that something has ended.
            if let Err(Caught { place, .. }) = caught(&mut body) {
                watch.fail(SourceError::Panicked { thread, place });
            }
        })
    }

    /// Ends the source: nothing more is fetched or taken.
    pub fn stop(&self) {
        self.0.stop();
    }

    /// Whether the source was told to end.
    pub fn is_stopped(&self) -> bool {
        self.0.stopped()
    }
}

fn weight(record: &Record) -> usize {
    record.value.as_ref().map_or(0, Vec::len) + 256
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_stays_the_same_is_logged_once() {
        let shared = Shared::default();
        let begin = Instant::now();
        let said = [("no broker", 0), ("no broker", 29), ("no broker", 31), ("no topic", 32), ("no broker", 33)];
        let said = said.map(|(text, seconds)| {
            let noted = Noted { at: begin + Duration::from_secs(seconds), ..Noted::now(text) };
            let is_news = shared.is_news(&noted);
            assert_eq!(shared.state().last_error, Some(noted), "shown with the time at which it was last seen");
            is_news
        });
        assert_eq!(said, [true, false, true, true, true]);
    }

    #[test]
    fn a_thread_that_panics_ends_the_source_with_the_place_alone_before_what_it_owns_is_dropped() {
        struct Owned(SourceWatch, crossbeam_channel::Sender<bool>);
        impl Drop for Owned {
            fn drop(&mut self) {
                self.1.send(self.0.state().failed.is_some()).unwrap();
            }
        }
        let (watch, (sender, known)) = (SourceWatch::idle(), crossbeam_channel::unbounded());
        let owned = Owned(watch.clone(), sender);
        let thread = watch.spawn("prepare", move || panic!("text of a ticket, {}", owned.0.is_stopped())).unwrap();
        thread.join().unwrap();
        assert_eq!(known.recv(), Ok(true));
        let failed = watch.state().failed.unwrap().to_string();
        assert!(failed.contains("`prepare` at src/source/kafka/state.rs:") && !failed.contains("ticket,"), "{failed}");
        assert!(watch.is_stopped());
    }
}
