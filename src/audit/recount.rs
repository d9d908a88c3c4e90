//! All records of all partitions, in order; from them every ticket's life, and from that the figures.

use std::collections::{BTreeMap, BTreeSet};

use super::coverage::Coverage;
use super::figure::Figures;
use super::life::{Event, Life, Rules, best};
use crate::outcome::Outcome;
use crate::record::Partition;
use crate::ticket::Ticket;
use crate::verdict::Findings;

/// What is in a record.
#[derive(Clone, Debug)]
pub enum Content {
    /// It could not be taken.
    Refused,
    /// No ticket, by design.
    Ignored,
    /// Tickets of this source, and what was found in each.
    Tickets(String, Vec<(Ticket, Findings)>),
}

/// A ticket's identity: source and key.
pub type Name = (String, String);

/// What the records that were seen add up to.
///
/// A ticket lives on with each event as it comes, so that only tickets are kept, not events. That is not right for one
/// whose events come by several partitions: those are taken in the order of time, in a second pass over all records
/// ([`Recount::again`]) which collects them.
#[derive(Clone, Debug)]
pub struct Recount {
    rules: Rules,
    lives: BTreeMap<Name, Lived>,
    /// The events of tickets that are known to come by several partitions.
    scattered: BTreeMap<Name, Vec<Event>>,
    watermarks: BTreeMap<Partition, i64>,
    /// Of records without tickets.
    figures: Figures,
    /// The partition of each record that holds several tickets.
    shared: Vec<Partition>,
}

/// A ticket so far.
#[derive(Clone, Debug)]
struct Lived {
    life: Life,
    figures: Figures,
    last: (Partition, i64),
    partitions: BTreeSet<Partition>,
    /// What became of its events in records that hold several tickets.
    shared: Vec<(usize, Outcome)>,
}

/// A ticket in the end.
#[derive(Debug)]
pub struct Recounted {
    /// What became of it.
    pub life: Life,
    /// Where its last event lies.
    pub last: (Partition, i64),
    /// All partitions that it came by.
    pub partitions: BTreeSet<Partition>,
    /// Whether all its events are sure to be there, in the order in which they were taken.
    pub vouched: bool,
}

/// The outcome of a recount.
#[derive(Debug, Default)]
pub struct Totals {
    /// All figures.
    pub all: Figures,
    /// The part of them that comes from tickets and records that are vouched for.
    pub sure: Figures,
    /// All tickets.
    pub tickets: BTreeMap<Name, Recounted>,
    /// Whether all events of each ticket came by one partition.
    pub keyed: bool,
}

impl Recount {
    /// A recount that has seen nothing.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            lives: BTreeMap::new(),
            scattered: BTreeMap::new(),
            watermarks: BTreeMap::new(),
            figures: Figures::default(),
            shared: Vec::new(),
        }
    }

    /// The recount that must see all records a second time, if there are tickets that came by several partitions.
    pub fn again(&self) -> Option<Self> {
        let scattered = self.lives.iter().filter(|(_, lived)| lived.partitions.len() > 1);
        let scattered: BTreeMap<Name, Vec<Event>> = scattered.map(|(name, _)| (name.clone(), Vec::new())).collect();
        (!scattered.is_empty()).then(|| Self { scattered, ..Self::new(self.rules.clone()) })
    }

    /// Takes the next record of a partition; `time` is its time in milliseconds since 1970, where it has one.
    pub fn see(&mut self, partition: &Partition, offset: i64, time: Option<i64>, content: Content) {
        let watermark = self.watermarks.get(partition).copied().unwrap_or(i64::MIN);
        let is_time = |time: &i64| jiff::Timestamp::from_millisecond(*time).is_ok();
        let reached = watermark.max(time.filter(is_time).unwrap_or(i64::MIN));
        self.watermarks.insert(partition.clone(), reached);
        let (source, tickets) = match content {
            Content::Refused => return count_record(&mut self.figures, partition, Outcome::DeadLetter),
            Content::Ignored => return count_record(&mut self.figures, partition, Outcome::Ignored),
            Content::Tickets(source, tickets) => (source, tickets),
        };
        let record = (tickets.len() != 1).then_some(self.shared.len());
        if record.is_some() {
            self.shared.push(partition.clone());
        }
        for (ticket, findings) in tickets {
            let own_time = ticket.updated_at.map(jiff::Timestamp::as_millisecond);
            let name = (source.clone(), ticket.key.to_string());
            let event = Event {
                record,
                partition: partition.clone(),
                offset,
                time: time.or(own_time).unwrap_or_default(),
                watermark,
                reached,
                ticket,
                findings,
            };
            match self.scattered.get_mut(&name) {
                Some(events) => events.push(event),
                None => self.live(name, &event),
            }
        }
    }

    fn live(&mut self, name: Name, event: &Event) {
        let rules = &self.rules;
        self.lives.entry(name).or_insert_with(|| Lived::begin(event, rules)).take(event, rules);
    }

    /// Counts everything. Events of one partition are taken in their order; those of one ticket that came by several
    /// partitions in the order of time, which is the best guess.
    pub fn count(mut self, coverage: &BTreeMap<Partition, Coverage>) -> Totals {
        for (name, mut events) in std::mem::take(&mut self.scattered) {
            events.sort_by_key(|event| (event.reached, event.partition.clone(), event.offset));
            events.iter().for_each(|event| self.live(name.clone(), event));
        }
        let keyed = self.lives.values().all(|lived| lived.partitions.len() == 1);
        let mut totals = Totals { keyed, all: self.figures.clone(), sure: self.figures, ..Totals::default() };
        let mut outcomes: Vec<Vec<(Outcome, bool)>> = vec![Vec::new(); self.shared.len()];
        for (name, Lived { mut life, mut figures, last, partitions, shared }) in self.lives {
            let watermark = self.watermarks.get(&life.home).copied().unwrap_or(i64::MIN);
            life.end(watermark, &self.rules, &mut figures);
            let vouched = partitions.len() == 1 && is_vouched(&life, coverage, keyed);
            for (record, outcome) in shared {
                outcomes[record].push((outcome, vouched));
            }
            totals.all.add_all(&figures);
            if vouched {
                totals.sure.add_all(&figures);
            }
            totals.tickets.insert(name, Recounted { life, last, partitions, vouched });
        }
        // A record of several tickets counts once, under the best of their outcomes.
        for (partition, outcomes) in self.shared.iter().zip(outcomes) {
            let outcome = best(outcomes.iter().map(|(outcome, _)| *outcome));
            count_record(&mut totals.all, partition, outcome);
            if outcomes.iter().all(|(_, vouched)| *vouched) {
                count_record(&mut totals.sure, partition, outcome);
            }
        }
        totals
    }
}

impl Lived {
    /// The life that begins with an event, which is still to be taken.
    fn begin(event: &Event, rules: &Rules) -> Self {
        let mut figures = Figures::default();
        let life = Life::begin(event, rules, &mut figures);
        let last = (event.partition.clone(), event.offset);
        Self { life, figures, last, partitions: BTreeSet::new(), shared: Vec::new() }
    }

    fn take(&mut self, event: &Event, rules: &Rules) {
        let outcome = self.life.take(event, rules, &mut self.figures);
        match event.record {
            Some(record) => self.shared.push((record, outcome)),
            None => count_record(&mut self.figures, &event.partition, outcome),
        }
        self.last = (event.partition.clone(), event.offset);
        if !self.partitions.contains(&event.partition) {
            self.partitions.insert(event.partition.clone());
        }
    }
}

fn count_record(figures: &mut Figures, partition: &Partition, outcome: Outcome) {
    figures.add(partition, "records_total", &[("outcome", outcome.as_str())], 1);
}

/// Whether no event of a ticket can be among the records that are gone: those of its own partition, or those of all
/// where tickets change partitions.
fn is_vouched(life: &Life, coverage: &BTreeMap<Partition, Coverage>, keyed: bool) -> bool {
    let matters = |partition: &Partition| !keyed || *partition == life.home;
    coverage.iter().filter(|(partition, _)| matters(partition)).all(|(_, covered)| covered.vouches(life.opened_at))
}
