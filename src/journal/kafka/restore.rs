//! Reads the ledgers of partitions back from the journal's topics, on threads of their own.

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
use crate::source::kafka::{Counted, Epoch, RangeReader, SourceError, SourceWatch};

/// How many partitions are restored at a time.
const THREADS: usize = 2;
/// How often to look whether a transaction that is in the way has ended.
const LOOK: Duration = Duration::from_millis(20);
/// How long to wait before the brokers are asked again that gave no answer.
const RETRY: Duration = Duration::from_secs(1);
/// How long it may be in the way: the time of a transaction, and that in which brokers look for those whose time is over.
const PATIENCE: Duration = TRANSACTION_TIMEOUT.saturating_add(Duration::from_secs(10));

/// What is asked of a partition.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    /// Its ledger.
    Ledger,
    /// Where to go on, of one that is only copied and has no journal.
    Position,
}

/// What is known of a partition, as it was asked.
#[derive(Debug)]
pub enum Found {
    /// Its ledger.
    Ledger(Box<Ledger>),
    /// The group's position, once no transaction can change it any more; none where nothing was copied yet.
    Position(Option<i64>),
}

/// A partition that was read back.
#[derive(Debug)]
pub struct Restored {
    /// Which one.
    pub partition: Partition,
    /// For which assignment.
    pub epoch: Epoch,
    /// What was asked of it, or why that is not known.
    pub found: Result<Found, KafkaJournalError>,
    /// How long it took.
    pub took: Duration,
}

/// The threads that restore, each a partition at a time.
#[derive(Debug)]
pub struct Restorer {
    requests: Sender<(Partition, Epoch, Wanted)>,
    restored: Receiver<Restored>,
    _threads: Vec<JoinHandle<()>>,
}

impl Restorer {
    /// Starts the threads. They give up a partition that is no longer assigned.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(kafka: &Kafka, settings: Settings, watch: &SourceWatch) -> std::io::Result<Self> {
        let (requests, requested) = unbounded();
        let (sender, restored) = unbounded();
        let start = |_| {
            let (kafka, watch, requested, sender) = (kafka.clone(), watch.clone(), requested.clone(), sender.clone());
            watch.clone().spawn("restore", move || restore_all(&kafka, settings, &watch, &requested, &sender))
        };
        let threads = (0..THREADS).map(start).collect::<std::io::Result<_>>()?;
        Ok(Self { requests, restored, _threads: threads })
    }

    /// Asks for a partition as of now.
    pub fn request(&self, partition: Partition, epoch: Epoch, wanted: Wanted) {
        if self.requests.send((partition, epoch, wanted)).is_err() {
            tracing::error!("the threads that restore have ended");
        }
    }

    /// Where partitions come that were restored.
    pub fn restored(&self) -> &Receiver<Restored> {
        &self.restored
    }
}

/// Restores what is requested, until nobody requests anything more.
fn restore_all(
    kafka: &Kafka,
    settings: Settings,
    watch: &SourceWatch,
    requested: &Receiver<(Partition, Epoch, Wanted)>,
    restored: &Sender<Restored>,
) {
    let reader = LazyCell::new(|| Reader::new(kafka, settings));
    for (partition, epoch, wanted) in requested {
        let began = Instant::now();
        let assigned = Assigned { input: &partition, epoch, watch };
        let found = match (&*reader, wanted) {
            (Ok(reader), Wanted::Ledger) => {
                reader.restore(&assigned).map(|ledger| ledger.map(|ledger| Found::Ledger(Box::new(ledger))))
            }
            (Ok(reader), Wanted::Position) => {
                assigned.persistently(|| Ok(Found::Position(reader.committed.position(&partition)?)))
            }
            (Err(error), _) => Err(KafkaJournalError::Unreadable(error.clone())),
        };
        let Some(found) = found.transpose() else { continue };
        if restored.send(Restored { partition, epoch, found, took: began.elapsed() }).is_err() {
            break;
        }
    }
}

/// A partition of an input, for as long as one assignment lasts.
struct Assigned<'a> {
    input: &'a Partition,
    epoch: Epoch,
    watch: &'a SourceWatch,
}

impl Assigned<'_> {
    /// Whether the assignment still holds.
    fn holds(&self) -> bool {
        !self.watch.is_stopped() && self.watch.epoch(self.input) == Some(self.epoch)
    }

    /// Does it again until the brokers answer, for those that go away come back; `None` once the assignment is over.
    fn persistently<T>(
        &self,
        mut go: impl FnMut() -> Result<T, KafkaJournalError>,
    ) -> Result<Option<T>, KafkaJournalError> {
        while self.holds() {
            match go() {
                Err(KafkaJournalError::Unreadable(error @ SourceError::Unreadable { .. })) => {
                    self.watch.note_error(error);
                }
                done => return done.map(Some),
            }
            std::thread::park_timeout(RETRY);
        }
        Ok(None)
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
        let (written, committed) = (RangeReader::uncommitted(kafka)?, RangeReader::committed(kafka)?);
        Ok(Self { topics, brokers: kafka.brokers.clone(), settings, written, committed })
    }

    /// The ledger of a partition with everything that is written; `None` if its assignment is over.
    ///
    /// What others write meanwhile is read on to, since a member that is cut off may be told late that it has lost its place,
    /// and would show what the new owner has long left behind.
    fn restore(&self, assigned: &Assigned<'_>) -> Result<Option<Ledger>, KafkaJournalError> {
        let journal = self.topics.beside(assigned.input);
        let mut restoring = Restoring::new(self.settings);
        let mut read_to = None;
        while let Some((start, end)) = self.ended(&journal, assigned)? {
            if read_to == Some(end) {
                return self.checked(finish(restoring, &journal, assigned.input)?, assigned);
            }
            let offsets = read_to.unwrap_or(start)..end;
            assigned.persistently(|| {
                let goes_on = || assigned.holds();
                read(&self.committed, &journal, assigned.input, offsets.clone(), &mut restoring, goes_on)
            })?;
            read_to = Some(end);
        }
        Ok(None)
    }

    /// Where the journal begins and ends, once all transactions have ended that were written to before now.
    ///
    /// Their entries may still come to count. Whoever wrote them is fenced, or is this process before its restart; brokers
    /// end the transaction, and that is waited for.
    fn ended(&self, journal: &Partition, assigned: &Assigned<'_>) -> Result<Option<(i64, i64)>, KafkaJournalError> {
        let ends = |reader: &RangeReader| assigned.persistently(|| Ok(reader.ends(journal)?));
        let Some((_, end)) = ends(&self.written)? else { return Ok(None) };
        let mut waiting = None;
        loop {
            let Some((start, stable)) = ends(&self.committed)? else { return Ok(None) };
            if stable >= end {
                return Ok(Some((start, end)));
            }
            let since = waiting.get_or_insert_with(|| {
                tracing::info!(%journal, offset = stable, "waiting for the end of a transaction");
                Instant::now()
            });
            if since.elapsed() > PATIENCE {
                let (journal, brokers, seconds) = (journal.clone(), self.brokers.clone(), PATIENCE.as_secs());
                return Err(KafkaJournalError::Hanging { journal, brokers, offset: stable, seconds });
            }
            std::thread::park_timeout(LOOK);
        }
    }

    /// The ledger, if the input still holds what it has counted; `None` if the assignment is over.
    fn checked(&self, ledger: Ledger, assigned: &Assigned<'_>) -> Result<Option<Ledger>, KafkaJournalError> {
        let Assigned { input, watch, .. } = assigned;
        let Some(state) = ledger.state(input).filter(|state| state.next_offset > 0) else { return Ok(Some(ledger)) };
        let counted = Counted { position: state.next_offset, newest: state.watermark };
        let checked = assigned.persistently(|| {
            let ends = self.written.ends(input)?;
            watch.check_position(input, counted.position, ends)?;
            Ok(self.written.check_counted(input, counted, ends)?)
        })?;
        Ok(checked.map(|()| ledger))
    }
}

/// Takes every entry between these offsets, for as long as that goes on.
fn read(
    reader: &RangeReader,
    journal: &Partition,
    input: &Partition,
    offsets: Range<i64>,
    restoring: &mut Restoring,
    goes_on: impl Fn() -> bool,
) -> Result<(), KafkaJournalError> {
    let (mut taken, mut damage) = (0_u64, None);
    reader.read(journal, offsets.start, offsets.end, |record| {
        taken += 1;
        let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
        damage = restoring.take(&key, &value).err();
        damage.is_none() && (!taken.is_multiple_of(1000) || goes_on())
    })?;
    damage.map_or(Ok(()), |damage| Err(damaged(journal, &input.topic, damage)))
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
    let journal = JournalTopics::new(kafka).beside(partition);
    let reader = RangeReader::committed(kafka)?;
    let (start, end) = reader.ends(&journal)?;
    let mut restoring = Restoring::new(settings);
    read(&reader, &journal, partition, start..end, &mut restoring, || true)?;
    finish(restoring, &journal, partition)
}
