//! A ledger as entries: keys and values, the same in every kind of journal.
//!
//! One entry for each ticket, for each block of a partition's counters, for a partition's position, and for the name of
//! each team and service. The newest value of a key counts; their order does not matter. What changes in a batch is a few
//! entries, however large the ledger.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::codec::{self, CodecError};
use crate::ledger::{Counters, Fresh, Held, Label, Ledger, PartitionState, Series, Settings, Slot, TicketKey, Tickets};
use crate::record::Partition;

/// Teams or services whose counters share a block.
const LABELS_PER_BLOCK: u32 = 16;

/// What an entry is about. Partitions go by their number in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// A partition: its name, position and how much there is of it.
    Partition(u32),
    /// A block of a partition's counters.
    Counters(u32, u32),
    /// The name of a team.
    Team(u32),
    /// The name of a service.
    Service(u32),
    /// A ticket.
    Ticket(TicketKey),
}

impl Key {
    /// One letter, then numbers with the highest byte first.
    pub fn to_bytes(self) -> SmallVec<[u8; 17]> {
        let mut bytes = SmallVec::new();
        let mut write = |letter, numbers: &[&[u8]]| {
            bytes.push(letter);
            numbers.iter().for_each(|number| bytes.extend_from_slice(number));
        };
        match self {
            Self::Partition(number) => write(b'p', &[&number.to_be_bytes()]),
            Self::Counters(number, block) => write(b'c', &[&number.to_be_bytes(), &block.to_be_bytes()]),
            Self::Team(number) => write(b't', &[&number.to_be_bytes()]),
            Self::Service(number) => write(b's', &[&number.to_be_bytes()]),
            Self::Ticket(key) => write(b'k', &[&key.0.to_be_bytes()]),
        }
        bytes
    }

    /// The key that [`Key::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let number = |bytes: &[u8]| Some(u32::from_be_bytes(bytes.try_into().ok()?));
        let (letter, rest) = bytes.split_first()?;
        match letter {
            b'p' => number(rest).map(Self::Partition),
            b'c' => {
                let (partition, block) = rest.split_at_checked(4)?;
                Some(Self::Counters(number(partition)?, number(block)?))
            }
            b't' => number(rest).map(Self::Team),
            b's' => number(rest).map(Self::Service),
            b'k' => Some(Self::Ticket(TicketKey(u128::from_be_bytes(rest.try_into().ok()?)))),
            _ => None,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition(number) => write!(f, "partition {number}"),
            Self::Counters(number, block) => write!(f, "counters {block:#x} of partition {number}"),
            Self::Team(number) => write!(f, "team {number}"),
            Self::Service(number) => write!(f, "service {number}"),
            Self::Ticket(key) => write!(f, "ticket {:032x}", key.0),
        }
    }
}

/// One entry, as it is written.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'e> {
    /// What it is about: [`Key::to_bytes`].
    pub key: &'e [u8],
    /// What is kept of that.
    pub value: &'e [u8],
    /// The number of the ticket in its ledger, where it is about one.
    pub ticket: Option<u32>,
}

/// A partition's entry.
#[derive(Debug, Serialize, Deserialize)]
struct StoredPartition {
    topic: String,
    number: i32,
    next_offset: i64,
    watermark: i64,
    fresh: Fresh,
    /// How many series the partition counts, to notice a block that is missing.
    series: u64,
    /// How many tickets the ledger had, to notice one that is missing. They never become fewer.
    tickets: u64,
}

/// Why entries do not make a ledger.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {cause}")]
pub struct Damage {
    what: String,
    cause: Cause,
}

/// What is wrong with entries.
#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("no entry of this program has such a key")]
    Key,
    #[error("{found} are there, {expected} were written: entries are missing")]
    Missing { found: u64, expected: u64 },
    #[error("it is not there, although others name it")]
    Absent,
}

impl Damage {
    fn new(what: impl fmt::Display, cause: impl Into<Cause>) -> Self {
        Self { what: what.to_string(), cause: cause.into() }
    }
}

/// What of a ledger is written, so that only what differs has to be.
#[derive(Clone, Debug, Default)]
pub struct Written {
    counters: Vec<Arc<Counters>>,
    teams: usize,
    services: usize,
}

impl Written {
    /// Everything that a ledger holds.
    pub fn all(ledger: &Ledger) -> Self {
        Self {
            counters: ledger.partitions().iter().map(|state| state.counters.clone()).collect(),
            teams: ledger.teams().names().len(),
            services: ledger.services().names().len(),
        }
    }

    /// Shows every entry of a ledger that is not written yet; tickets in the order of their numbers.
    ///
    /// # Errors
    /// When a value cannot be encoded, or `see` fails.
    pub fn missing<E: From<CodecError>>(
        &self,
        ledger: &Ledger,
        see: impl FnMut(Entry<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut entries = Entries { ledger, buffer: Vec::new(), see };
        entries.show_counts(self)?;
        entries.show_tickets(ledger.changed_tickets().iter().copied())
    }
}

/// Shows every entry of a ledger, as [`Written::missing`] does.
///
/// # Errors
/// When a value cannot be encoded, or `see` fails.
pub fn all<E: From<CodecError>>(ledger: &Ledger, see: impl FnMut(Entry<'_>) -> Result<(), E>) -> Result<(), E> {
    let mut entries = Entries { ledger, buffer: Vec::new(), see };
    entries.show_counts(&Written::default())?;
    entries.show_tickets(ledger.slots().map(|(ticket, _)| ticket))
}

/// The entries of a ledger, encoded one after the other in the same place.
struct Entries<'l, F> {
    ledger: &'l Ledger,
    buffer: Vec<u8>,
    see: F,
}

impl<E: From<CodecError>, F: FnMut(Entry<'_>) -> Result<(), E>> Entries<'_, F> {
    fn show<T: Serialize>(&mut self, key: Key, value: &T, ticket: Option<u32>) -> Result<(), E> {
        let key = key.to_bytes();
        self.buffer = codec::encode(&key, value, std::mem::take(&mut self.buffer))?;
        (self.see)(Entry { key: &key, value: &self.buffer, ticket })
    }

    /// All but the tickets.
    fn show_counts(&mut self, written: &Written) -> Result<(), E> {
        let ledger = self.ledger;
        // Partitions that counted nothing yet as well: tickets name their partition by its number, and a number that is
        // left out would be another partition's after a restart.
        for (number, state) in (0_u32..).zip(ledger.partitions()) {
            let counters = written.counters.get(number as usize);
            if counters.is_none() || ledger.changed_partitions().contains(&number) {
                self.show(Key::Partition(number), &StoredPartition::of(state, ledger), None)?;
            }
            for (block, series) in changed_blocks(counters, &state.counters) {
                self.show(Key::Counters(number, block), &series, None)?;
            }
        }
        for (names, from, key) in [
            (ledger.teams().names(), written.teams, Key::Team as fn(u32) -> Key),
            (ledger.services().names(), written.services, Key::Service as fn(u32) -> Key),
        ] {
            for (number, name) in (0..).zip(names).skip(from.max(Label::FIXED)) {
                self.show(key(number), &&**name, None)?;
            }
        }
        Ok(())
    }

    fn show_tickets(&mut self, tickets: impl Iterator<Item = TicketKey>) -> Result<(), E> {
        let numbered = |key| self.ledger.numbered(key).map(|(number, slot)| (number, key, slot));
        let mut tickets: Vec<(u32, TicketKey, &Slot)> = tickets.filter_map(numbered).collect();
        // A file has them in this order, so that each of its pages is visited once.
        tickets.sort_unstable_by_key(|(number, ..)| *number);
        for (number, key, slot) in tickets {
            // Nothing is kept of one that has left memory.
            let held: Option<&Held> = match slot {
                Slot::Held(held) => Some(held),
                Slot::Retired => None,
            };
            self.show(Key::Ticket(key), &held, Some(number))?;
        }
        Ok(())
    }
}

impl StoredPartition {
    fn of(state: &PartitionState, ledger: &Ledger) -> Self {
        Self {
            topic: state.partition.topic.to_string(),
            number: state.partition.number,
            next_offset: state.next_offset,
            watermark: state.watermark,
            fresh: (*state.fresh).clone(),
            series: state.counters.len() as u64,
            tickets: ledger.slot_count() as u64,
        }
    }
}

/// The block of counters that a series is written with: one for each metric, those of teams and services by groups.
fn block(series: Series) -> u32 {
    let metric = match series {
        Series::Tickets { .. } => 0,
        Series::Effort { .. } => 1,
        Series::CorrectedEffort { .. } => 2,
        Series::Touches { .. } => 3,
        Series::TeamEffort { .. } => 4,
        Series::TeamCorrectedEffort { .. } => 5,
        Series::ServiceEffort { .. } => 6,
        Series::ServiceCorrectedEffort { .. } => 7,
        Series::ReclassifiedTickets { .. } => 8,
        Series::ReclassifiedEffort { .. } => 9,
        Series::ReclassifiedTouches { .. } => 10,
        Series::TeamReclassifiedEffort { .. } => 11,
        Series::ServiceReclassifiedEffort { .. } => 12,
        Series::OpenTickets { .. } => 13,
        Series::OpenCustomerIncidents { .. } => 14,
        Series::ResolutionBucket { .. } => 15,
        Series::ResolutionSum { .. } => 16,
        Series::Records { .. } => 17,
    };
    let group = series.label().map_or(0, |Label(number)| number / LABELS_PER_BLOCK);
    (group << 8) | metric
}

/// The blocks in which something differs from what is written, each whole.
fn changed_blocks(written: Option<&Arc<Counters>>, counters: &Arc<Counters>) -> BTreeMap<u32, Vec<(Series, i64)>> {
    if written.is_some_and(|written| Arc::ptr_eq(written, counters)) {
        return BTreeMap::new();
    }
    let mut blocks: BTreeMap<u32, (bool, Vec<(Series, i64)>)> = BTreeMap::new();
    for (series, value) in counters.iter() {
        let (changed, block) = blocks.entry(block(series)).or_default();
        block.push((series, value));
        *changed |= written.is_none_or(|written| written.find(series) != Some(value));
    }
    let changed = blocks.into_iter().filter(|(_, (changed, _))| *changed);
    changed.map(|(block, (_, series))| (block, series)).collect()
}

/// A ledger that is put together from its entries.
#[derive(Debug)]
pub struct Restoring {
    settings: Settings,
    partitions: BTreeMap<u32, StoredPartition>,
    counters: BTreeMap<(u32, u32), Vec<(Series, i64)>>,
    teams: BTreeMap<u32, String>,
    services: BTreeMap<u32, String>,
    tickets: Tickets,
}

impl Restoring {
    /// Nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            partitions: BTreeMap::new(),
            counters: BTreeMap::new(),
            teams: BTreeMap::new(),
            services: BTreeMap::new(),
            tickets: Tickets::default(),
        }
    }

    /// Makes room for tickets to come, so that no single insert has to.
    pub fn reserve(&mut self, tickets: usize) {
        self.tickets.reserve(tickets);
    }

    /// Takes one entry, in place of an earlier one with the same key.
    ///
    /// # Errors
    /// When the key or the value is none of ours.
    pub fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Damage> {
        let known = Key::from_bytes(key).ok_or_else(|| Damage::new(format_args!("key {key:02x?}"), Cause::Key))?;
        let damage = |error: CodecError| Damage::new(known, error);
        match known {
            Key::Partition(number) => _ = self.partitions.insert(number, codec::decode(key, value).map_err(damage)?),
            Key::Counters(number, block) => {
                self.counters.insert((number, block), codec::decode(key, value).map_err(damage)?);
            }
            Key::Team(number) => _ = self.teams.insert(number, codec::decode(key, value).map_err(damage)?),
            Key::Service(number) => _ = self.services.insert(number, codec::decode(key, value).map_err(damage)?),
            Key::Ticket(ticket) => {
                let held: Option<Box<Held>> = codec::decode(key, value).map_err(damage)?;
                self.tickets.insert(ticket, held.map_or(Slot::Retired, Slot::Held));
            }
        }
        Ok(())
    }

    /// Takes the entry of a ticket, from the first to the last in number.
    ///
    /// # Errors
    /// As [`Restoring::take`], and when one is left out or comes twice.
    pub fn take_ticket(&mut self, number: i64, key: &[u8], value: &[u8]) -> Result<(), Damage> {
        self.take(key, value)?;
        let (found, expected) = (self.tickets.count() as u64, u64::try_from(number).unwrap_or_default());
        if found == expected { Ok(()) } else { Err(Damage::new("the tickets", Cause::Missing { found, expected })) }
    }

    /// The ledger.
    ///
    /// # Errors
    /// When entries are missing.
    pub fn finish(self) -> Result<Ledger, Damage> {
        let mut ledger = Ledger::new(self.settings);
        let most = |expected: u64| move |stored: &StoredPartition| stored.tickets.max(expected);
        let expected = self.partitions.values().map(most(0)).max().unwrap_or_default();
        expect("the tickets", self.tickets.count() as u64, expected)?;
        ledger.restore_labels(&all_names("team", self.teams)?, &all_names("service", self.services)?);
        let mut counters: BTreeMap<u32, Counters> = BTreeMap::new();
        for ((number, _), block) in self.counters {
            let counters = counters.entry(number).or_default();
            block.into_iter().for_each(|(series, value)| counters.add(series, value));
        }
        for (expected, (number, stored)) in (0_u32..).zip(self.partitions) {
            if number != expected {
                return Err(Damage::new(Key::Partition(expected), Cause::Absent));
            }
            let counters = counters.remove(&number).unwrap_or_default();
            let partition = Partition { topic: stored.topic.into(), number: stored.number };
            expect(format_args!("the series of {partition}"), counters.len() as u64, stored.series)?;
            ledger.restore_partition(PartitionState {
                partition,
                next_offset: stored.next_offset,
                watermark: stored.watermark,
                counters: Arc::new(counters),
                fresh: Arc::new(stored.fresh),
            });
        }
        if let Some(number) = counters.keys().next() {
            return Err(Damage::new(Key::Partition(*number), Cause::Absent));
        }
        self.tickets.iter().try_for_each(|(ticket, slot)| check_ticket(ticket, slot, &ledger))?;
        ledger.restore_tickets(self.tickets);
        Ok(ledger)
    }
}

fn expect(what: impl fmt::Display, found: u64, expected: u64) -> Result<(), Damage> {
    match found < expected {
        true => Err(Damage::new(what, Cause::Missing { found, expected })),
        false => Ok(()),
    }
}

fn all_names(what: &str, names: BTreeMap<u32, String>) -> Result<Vec<String>, Damage> {
    for (expected, number) in (0..).skip(Label::FIXED).zip(names.keys()) {
        if *number != expected {
            return Err(Damage::new(format_args!("{what} {expected}"), Cause::Absent));
        }
    }
    Ok(names.into_values().collect())
}

/// Everything that a ticket names must be there.
fn check_ticket(ticket: TicketKey, slot: &Slot, ledger: &Ledger) -> Result<(), Damage> {
    let Slot::Held(held) = slot else { return Ok(()) };
    let known = |number: u32, count: usize| (number as usize) < count;
    let labels = [(held.team, ledger.teams().names().len()), (held.service, ledger.services().names().len())];
    if !known(held.home, ledger.partitions().len()) || labels.iter().any(|(label, count)| !known(label.0, *count)) {
        return Err(Damage::new(format_args!("what {} names", Key::Ticket(ticket)), Cause::Absent));
    }
    Ok(())
}
