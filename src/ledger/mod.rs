//! The per-ticket state machine: (state, ticket, findings) → (state', deltas).
//!
//! Pure and in memory: no I/O, no clock. A [`Ledger`] is one unit of independent state: tickets, counters of the
//! partitions they came by, the labels those use, and the next position of each partition. What changed since the last
//! [`Ledger::settle`] is what a journal has to write. [`Ledgers`] are those of a process.

mod held;
mod ledgers;
pub mod moved;
mod series;
#[cfg(test)]
mod tests;
mod tickets;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use held::{Arrival, Delta, Effort, Held, Piece, best, compare};
pub use ledgers::Ledgers;
pub use series::{Counters, Label, Labels, RESOLUTION_BUCKETS, Series};
pub use tickets::{Slot, TicketKey, Tickets};

use crate::outcome::Outcome;
use crate::record::Partition;
use crate::ticket::Ticket;
use crate::verdict::{Findings, Policy};

/// The settings of a ledger.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How findings become a verdict.
    pub policy: Policy,
    /// How many teams get a label of their own.
    pub team_cap: usize,
    /// How many services get a label of their own.
    pub service_cap: usize,
    /// How long a closed ticket is held after its last change; `None` for ever.
    pub retention: Option<Duration>,
    /// Whether new series are fresh at first, and shown at 0 until they are released.
    pub holds: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            team_cap: 200,
            service_cap: 200,
            retention: Some(Duration::from_secs(90 * 86_400)),
            holds: false,
        }
    }
}

/// Series of a partition that were never shown with a value. They are shown at 0, and since a journal keeps that as it
/// keeps the counters, no crash can show a first value that no scraper saw begin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fresh {
    /// All series of closed label sets: the partition itself is new.
    pub fixed: bool,
    /// Series of teams and services.
    pub series: BTreeSet<Series>,
}

impl Fresh {
    /// Whether a series is to be shown at 0.
    pub fn holds(&self, series: Series) -> bool {
        if series.is_fixed() { self.fixed } else { self.series.contains(&series) }
    }

    /// Whether every series may be shown.
    pub fn is_empty(&self) -> bool {
        !self.fixed && self.series.is_empty()
    }

    /// Takes away what was released.
    fn release(&mut self, released: &Self) {
        self.fixed &= !released.fixed;
        self.series.retain(|series| !released.series.contains(series));
    }
}

/// One partition: how far it is read and what it has counted.
#[derive(Clone, Debug, PartialEq)]
pub struct PartitionState {
    /// Which one.
    pub partition: Partition,
    /// The offset of the next record to take.
    pub next_offset: i64,
    /// The newest record time seen, in milliseconds since 1970; retention is measured against it.
    pub watermark: i64,
    /// What it has counted.
    pub counters: Arc<Counters>,
    /// What of it was never shown.
    pub fresh: Arc<Fresh>,
}

impl PartitionState {
    /// A partition of which nothing was taken yet.
    pub fn new(partition: Partition, holds: bool) -> Self {
        let fresh = Fresh { fixed: holds, series: BTreeSet::new() };
        Self { partition, next_offset: 0, watermark: i64::MIN, counters: Arc::default(), fresh: Arc::new(fresh) }
    }
}

/// Tickets, counters, labels and positions.
#[derive(Debug)]
pub struct Ledger {
    settings: Settings,
    tickets: Tickets,
    partitions: Vec<PartitionState>,
    numbers: HashMap<Partition, u32>,
    teams: Arc<Labels>,
    services: Arc<Labels>,
    /// Closed tickets by home partition and time of their last change.
    closed: BTreeSet<(u32, i64, TicketKey)>,
    changed_tickets: HashSet<TicketKey>,
    changed_partitions: BTreeSet<u32>,
    deltas: Vec<Delta>,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            tickets: Tickets::default(),
            partitions: Vec::new(),
            numbers: HashMap::new(),
            teams: Arc::new(Labels::new(settings.team_cap)),
            services: Arc::new(Labels::new(settings.service_cap)),
            closed: BTreeSet::new(),
            changed_tickets: HashSet::new(),
            changed_partitions: BTreeSet::new(),
            deltas: Vec::new(),
        }
    }

    /// The number of a partition in this ledger, new if need be.
    pub fn partition(&mut self, partition: &Partition) -> u32 {
        if let Some(number) = self.numbers.get(partition) {
            return *number;
        }
        self.restore_partition(PartitionState::new(partition.clone(), self.settings.holds))
    }

    /// Takes one ticket of a record, with what was found in it.
    pub fn apply(&mut self, source: &str, partition: u32, time: i64, ticket: &Ticket, findings: Findings) -> Outcome {
        #[cfg(test)]
        assert_ne!(ticket.key, "a defect of the ledger");
        let arrival = self.arrival(partition, time, ticket);
        let key = TicketKey::of(source, &ticket.key);
        let policy = self.settings.policy;
        let deltas = &mut self.deltas;
        let slot = self.tickets.get_or_insert_with(key, || {
            let held = Held::new(source, ticket, &findings, policy, arrival);
            held.count_first(arrival, deltas);
            Slot::Held(Box::new(held))
        });
        let Slot::Held(held) = slot else { return Outcome::Late };
        if !held.is_open() && held.changed_at < retention_end(self.settings, self.partitions.get(held.home as usize)) {
            // Not only where a batch ends: what is late must not depend on how the records came in batches.
            self.closed.remove(&(held.home, held.changed_at, key));
            *slot = Slot::Retired;
            self.changed_tickets.insert(key);
            return Outcome::Late;
        }
        let closed_before = (!held.is_open()).then_some((held.home, held.changed_at, key));
        let outcome = held.apply(ticket, findings, policy, arrival, deltas);
        if outcome == Outcome::Applied {
            let closed_now = (!held.is_open()).then_some((held.home, held.changed_at, key));
            if let Some(before) = closed_before {
                self.closed.remove(&before);
            }
            self.closed.extend(closed_now);
            self.changed_tickets.insert(key);
        }
        self.count_deltas();
        outcome
    }

    fn arrival(&mut self, partition: u32, time: i64, ticket: &Ticket) -> Arrival {
        let service = ticket.service.as_ref().or(ticket.ci.as_ref());
        Arrival {
            partition,
            time,
            team: ticket.group.as_ref().map(|name| label(&mut self.teams, name)),
            service: service.map(|name| label(&mut self.services, name)),
        }
    }

    fn count_deltas(&mut self) {
        for (partition, series, amount) in self.deltas.drain(..) {
            if let Some(state) = self.partitions.get_mut(partition as usize) {
                if self.settings.holds && !series.is_fixed() && !series.is_gauge() && !state.counters.has(series) {
                    Arc::make_mut(&mut state.fresh).series.insert(series);
                }
                Arc::make_mut(&mut state.counters).add(series, amount);
                self.changed_partitions.insert(partition);
            }
        }
    }

    /// Ends a record: counts its outcome and moves the position past it.
    pub fn finish_record(&mut self, partition: u32, offset: i64, time: Option<i64>, outcome: Outcome) {
        let Some(state) = self.partitions.get_mut(partition as usize) else { return };
        state.next_offset = state.next_offset.max(offset + 1);
        // What no calendar has, such as microseconds that were taken for milliseconds, would end every retention at once.
        let time = time.filter(|time| Timestamp::from_millisecond(*time).is_ok());
        state.watermark = state.watermark.max(time.unwrap_or(i64::MIN));
        Arc::make_mut(&mut state.counters).add(Series::Records { outcome }, 1);
        self.changed_partitions.insert(partition);
    }

    /// Lets closed tickets go whose retention is over.
    pub fn retire(&mut self) {
        for (number, state) in (0_u32..).zip(&self.partitions) {
            let end = retention_end(self.settings, Some(state));
            let first = (number, i64::MIN, TicketKey(0));
            let due: Vec<_> = self.closed.range(first..(number, end, TicketKey(0))).copied().collect();
            for entry in due {
                self.closed.remove(&entry);
                self.tickets.insert(entry.2, Slot::Retired);
                self.changed_tickets.insert(entry.2);
            }
        }
    }

    /// Tickets that changed since [`Ledger::settle`].
    pub fn changed_tickets(&self) -> &HashSet<TicketKey> {
        &self.changed_tickets
    }

    /// Partitions whose counters or positions changed since [`Ledger::settle`], by number in [`Ledger::partitions`].
    pub fn changed_partitions(&self) -> &BTreeSet<u32> {
        &self.changed_partitions
    }

    /// Takes notice that all changes are durable.
    pub fn settle(&mut self) {
        self.changed_tickets.clear();
        self.changed_partitions.clear();
    }

    /// Takes back a partition that a journal held.
    pub fn restore_partition(&mut self, state: PartitionState) -> u32 {
        let number = u32::try_from(self.partitions.len()).unwrap_or(u32::MAX);
        self.numbers.insert(state.partition.clone(), number);
        self.partitions.push(state);
        number
    }

    /// Takes back labels that a journal held, in the order in which they were met.
    pub fn restore_labels(&mut self, teams: &[String], services: &[String]) {
        teams.iter().for_each(|name| _ = Arc::make_mut(&mut self.teams).taken_over(name));
        services.iter().for_each(|name| _ = Arc::make_mut(&mut self.services).taken_over(name));
    }

    /// Takes back the tickets that a journal held, in place of all that are there.
    pub fn restore_tickets(&mut self, tickets: Tickets) {
        self.closed = tickets.iter().filter_map(|(key, slot)| closed_entry(key, slot)).collect();
        self.tickets = tickets;
    }

    /// From the next commit on these series are shown with their values.
    pub fn release(&mut self, partition: &Partition, released: &Fresh) {
        let Some(number) = self.numbers.get(partition) else { return };
        if let Some(state) = self.partitions.get_mut(*number as usize) {
            Arc::make_mut(&mut state.fresh).release(released);
            self.changed_partitions.insert(*number);
        }
    }

    /// Takes notice of the key of the record that a ticket came by, as a hash; says whether an earlier one had another.
    pub fn note_record_key(&mut self, ticket: TicketKey, hash: u32) -> bool {
        let Some(Slot::Held(held)) = self.tickets.get_mut(ticket) else { return false };
        let before = std::mem::replace(&mut held.record_key, hash);
        before != 0 && before != hash
    }

    /// What is kept of a ticket.
    pub fn ticket(&self, key: TicketKey) -> Option<&Slot> {
        self.tickets.get(key)
    }

    /// The how-manieth ticket of this ledger it is, from 1, with what is kept of it.
    pub fn numbered(&self, key: TicketKey) -> Option<(u32, &Slot)> {
        self.tickets.numbered(key)
    }

    /// A ticket that is held.
    pub fn held(&self, key: TicketKey) -> Option<&Held> {
        match self.ticket(key) {
            Some(Slot::Held(held)) => Some(held),
            Some(Slot::Retired) | None => None,
        }
    }

    /// Every ticket with what is kept of it, in no order.
    pub fn slots(&self) -> impl Iterator<Item = (TicketKey, &Slot)> {
        self.tickets.iter()
    }

    /// How many tickets there are, those included that have left memory.
    pub fn slot_count(&self) -> usize {
        self.tickets.count()
    }

    /// All tickets held, in no order.
    pub fn tickets(&self) -> impl Iterator<Item = &Held> {
        self.tickets.iter().filter_map(|(_, slot)| match slot {
            Slot::Held(held) => Some(&**held),
            Slot::Retired => None,
        })
    }

    /// The settings.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// What is kept of a partition.
    pub fn state(&self, partition: &Partition) -> Option<&PartitionState> {
        self.partitions.get(*self.numbers.get(partition)? as usize)
    }

    /// All partitions, by their number here.
    pub fn partitions(&self) -> &[PartitionState] {
        &self.partitions
    }

    /// The names behind team labels.
    pub fn teams(&self) -> &Arc<Labels> {
        &self.teams
    }

    /// The names behind service labels.
    pub fn services(&self) -> &Arc<Labels> {
        &self.services
    }
}

/// A closed ticket as it stands among those that are to leave memory one day.
fn closed_entry(key: TicketKey, slot: &Slot) -> Option<(u32, i64, TicketKey)> {
    match slot {
        Slot::Held(held) if !held.is_open() => Some((held.home, held.changed_at, key)),
        Slot::Held(_) | Slot::Retired => None,
    }
}

/// The closed tickets of a partition that changed last before this time have left memory.
fn retention_end(settings: Settings, home: Option<&PartitionState>) -> i64 {
    let Some((retention, home)) = settings.retention.zip(home) else { return i64::MIN };
    home.watermark.saturating_sub(i64::try_from(retention.as_millis()).unwrap_or(i64::MAX))
}

/// The label of a name; the table is only copied (from what is shown) when the name is new.
fn label(labels: &mut Arc<Labels>, name: &str) -> Label {
    match labels.find(name) {
        Some(label) => label,
        None => Arc::make_mut(labels).label(name),
    }
}
