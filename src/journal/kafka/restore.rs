//! Reads the ledger of a partition back from the journal's topic, on a thread of its own.

use std::cell::LazyCell;
use std::ops::Range;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::{JournalTopics, KafkaJournalError, TRANSACTION_TIMEOUT};
use crate::config::Kafka;
use crate::journal::entry::Restoring;
use crate::ledger::{Ledger, PartitionState, Settings};
use crate::record::Partition;
use crate::source::kafka::{Epoch, RangeReader, SourceError, SourceWatch};

/// How often to look whether a transaction that is in the way has ended.
const LOOK: Duration = Duration::from_millis(20);
/// How long to wait before the brokers are asked again that gave no answer.
const RETRY: Duration = Duration::from_secs(1);
/// How long it may be in the way: the time of a transaction, and that in which brokers look for those whose time is over.
const PATIENCE: Duration = TRANSACTION_TIMEOUT.saturating_add(Duration::from_secs(10));

/// A partition that was read back.
#[derive(Debug)]
pub struct Restored {
    /// Which one.
    pub partition: Partition,
    /// For which assignment.
    pub epoch: Epoch,
    /// Its ledger, or why there is none.
    pub ledger: Result<Ledger, KafkaJournalError>,
    /// How long it took.
    pub took: Duration,
}

/// The thread that restores.
#[derive(Debug)]
pub struct Restorer {
    requests: Sender<(Partition, Epoch)>,
    restored: Receiver<Restored>,
    _thread: JoinHandle<()>,
}

impl Restorer {
    /// Starts the thread. It gives up a partition that is no longer assigned.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(kafka: Kafka, settings: Settings, watch: SourceWatch) -> std::io::Result<Self> {
        let (requests, requested) = unbounded::<(Partition, Epoch)>();
        let (sender, restored) = unbounded();
        let thread = std::thread::Builder::new().name("restore".into()).spawn(move || {
            let reader = LazyCell::new(|| Reader::new(&kafka, settings));
            for (partition, epoch) in requested {
                let began = Instant::now();
                let is_wanted = || !watch.is_stopped() && watch.epoch(&partition) == Some(epoch);
                let restored = match &*reader {
                    Ok(reader) => reader.restore(&partition, &is_wanted, &watch),
                    Err(error) => Err(KafkaJournalError::Unreadable(error.clone())),
                };
                let Some(ledger) = restored.transpose() else { continue };
                if sender.send(Restored { partition, epoch, ledger, took: began.elapsed() }).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { requests, restored, _thread: thread })
    }

    /// Asks for a partition as of now.
    pub fn request(&self, partition: Partition, epoch: Epoch) {
        if self.requests.send((partition, epoch)).is_err() {
            tracing::error!("the thread that restores has ended");
        }
    }

    /// Where partitions come that were restored.
    pub fn restored(&self) -> &Receiver<Restored> {
        &self.restored
    }
}

/// What reads a journal's topics.
struct Reader {
    topics: JournalTopics,
    brokers: String,
    settings: Settings,
    written: RangeReader,
    committed: RangeReader,
}

impl Reader {
    fn new(kafka: &Kafka, settings: Settings) -> Result<Self, SourceError> {
        let topics = JournalTopics::new(kafka);
        let (written, committed) = (RangeReader::uncommitted(kafka)?, RangeReader::new(kafka)?);
        Ok(Self { topics, brokers: kafka.brokers.clone(), settings, written, committed })
    }

    /// The ledger of a partition with everything that was written before now; `None` if it is no longer wanted.
    ///
    /// Entries of a transaction that has not ended may still come to count. Whoever wrote them is fenced, or is this
    /// process before its restart; brokers end the transaction, and that is waited for.
    fn restore(
        &self,
        partition: &Partition,
        is_wanted: &dyn Fn() -> bool,
        watch: &SourceWatch,
    ) -> Result<Option<Ledger>, KafkaJournalError> {
        let journal = Partition { topic: self.topics.of(&partition.topic), number: partition.number };
        let Some((_, end)) = patiently(is_wanted, watch, || self.written.ends(&journal)) else { return Ok(None) };
        let began = Instant::now();
        let start = loop {
            match patiently(is_wanted, watch, || self.committed.ends(&journal)) {
                None => return Ok(None),
                Some((start, stable)) if stable >= end => break start,
                Some((_, offset)) if began.elapsed() > PATIENCE => {
                    let (brokers, seconds) = (self.brokers.clone(), PATIENCE.as_secs());
                    return Err(KafkaJournalError::Hanging { journal, brokers, offset, seconds });
                }
                Some(_) => std::thread::park_timeout(LOOK),
            }
        };
        loop {
            match read(&self.committed, &journal, partition, start..end, self.settings, is_wanted) {
                Ok(restoring) => return restoring.map(|found| finish(found, &journal, partition)).transpose(),
                // Brokers that go away in the middle come back.
                Err(KafkaJournalError::Unreadable(error)) if is_wanted() => watch.note_error(error),
                Err(KafkaJournalError::Unreadable(_)) => return Ok(None),
                Err(error) => return Err(error),
            }
            std::thread::park_timeout(RETRY);
        }
    }
}

/// Asks again until the brokers answer; `None` if the answer is no longer wanted.
fn patiently<T>(
    is_wanted: &dyn Fn() -> bool,
    watch: &SourceWatch,
    mut ask: impl FnMut() -> Result<T, SourceError>,
) -> Option<T> {
    while is_wanted() {
        match ask() {
            Ok(answer) => return Some(answer),
            Err(error) => {
                watch.note_error(error);
                std::thread::park_timeout(RETRY);
            }
        }
    }
    None
}

/// Takes every entry between these offsets; `None` if they are no longer wanted.
fn read(
    reader: &RangeReader,
    journal: &Partition,
    input: &Partition,
    offsets: Range<i64>,
    settings: Settings,
    is_wanted: &dyn Fn() -> bool,
) -> Result<Option<Restoring>, KafkaJournalError> {
    let mut restoring = Restoring::new(settings);
    let (mut taken, mut wanted, mut damage) = (0_u64, true, None);
    reader.read(journal, offsets.start, offsets.end, |record| {
        taken += 1;
        if taken.is_multiple_of(1000) {
            wanted = is_wanted();
        }
        let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
        damage = restoring.take(&key, &value).err();
        wanted && damage.is_none()
    })?;
    match damage {
        Some(damage) => Err(damaged(journal, &input.topic, damage)),
        None => Ok(wanted.then_some(restoring)),
    }
}

fn finish(restoring: Restoring, journal: &Partition, input: &Partition) -> Result<Ledger, KafkaJournalError> {
    let mut ledger = restoring.finish().map_err(|damage| damaged(journal, &input.topic, damage))?;
    if ledger.partitions().is_empty() {
        ledger.restore_partition(PartitionState::new(input.clone(), ledger.settings().holds));
    }
    Ok(ledger)
}

fn damaged(journal: &Partition, input: &str, damage: crate::journal::entry::Damage) -> KafkaJournalError {
    KafkaJournalError::Damaged { journal: journal.clone(), input: input.to_owned(), damage }
}

/// The ledger of a partition as of its last transaction that has ended, whoever writes it meanwhile.
///
/// # Errors
/// When it cannot be read, or is damaged.
pub fn snapshot(kafka: &Kafka, settings: Settings, partition: &Partition) -> Result<Ledger, KafkaJournalError> {
    let journal = Partition { topic: JournalTopics::new(kafka).of(&partition.topic), number: partition.number };
    let reader = RangeReader::new(kafka)?;
    let (start, end) = reader.ends(&journal)?;
    let restoring = read(&reader, &journal, partition, start..end, settings, &|| true)?;
    finish(restoring.unwrap_or_else(|| Restoring::new(settings)), &journal, partition)
}
