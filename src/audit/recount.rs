//! All records of all partitions, in order; from them every ticket's list of events, and from that the figures.

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

/// Records as they are collected.
#[derive(Clone, Debug, Default)]
pub struct Recount {
    /// Of each record its partition, and its outcome where that does not depend on tickets.
    records: Vec<(Partition, Option<Outcome>)>,
    events: BTreeMap<Name, Vec<Event>>,
    watermarks: BTreeMap<Partition, i64>,
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
    /// Takes the next record of a partition; `time` is its time in milliseconds since 1970, where it has one.
    pub fn see(&mut self, partition: &Partition, offset: i64, time: Option<i64>, content: Content) {
        let watermark = self.watermarks.get(partition).copied().unwrap_or(i64::MIN);
        let reached = watermark.max(time.unwrap_or(i64::MIN));
        self.watermarks.insert(partition.clone(), reached);
        let fixed = match content {
            Content::Refused => Some(Outcome::DeadLetter),
            Content::Ignored => Some(Outcome::Ignored),
            Content::Tickets(source, tickets) => {
                for (ticket, findings) in tickets {
                    let own_time = ticket.updated_at.map(jiff::Timestamp::as_millisecond);
                    let name = (source.clone(), ticket.key.to_string());
                    let event = Event {
                        record: self.records.len(),
                        partition: partition.clone(),
                        offset,
                        time: time.or(own_time).unwrap_or_default(),
                        watermark,
                        reached,
                        ticket,
                        findings,
                    };
                    self.events.entry(name).or_default().push(event);
                }
                None
            }
        };
        self.records.push((partition.clone(), fixed));
    }

    /// Counts everything. Events of one partition are taken in their order; those of one ticket that came by several
    /// partitions in the order of time, which is the best guess.
    pub fn count(mut self, rules: &Rules, coverage: &BTreeMap<Partition, Coverage>) -> Totals {
        for events in self.events.values_mut() {
            events.sort_by_key(|event| (event.reached, event.partition.clone(), event.offset));
        }
        let keyed = self.events.values().all(|events| partitions(events).len() == 1);
        let mut totals = Totals { keyed, ..Totals::default() };
        let mut outcomes: Vec<Vec<(Outcome, bool)>> = vec![Vec::new(); self.records.len()];
        for (name, events) in &self.events {
            let Some(Lived { life, figures, outcomes: found }) = self.live(events, rules) else { continue };
            let partitions = partitions(events);
            let vouched = partitions.len() == 1 && is_vouched(&life, coverage, keyed);
            for (event, outcome) in events.iter().zip(found) {
                outcomes[event.record].push((outcome, vouched));
            }
            totals.all.add_all(&figures);
            if vouched {
                totals.sure.add_all(&figures);
            }
            if let Some(last) = events.last().map(|event| (event.partition.clone(), event.offset)) {
                totals.tickets.insert(name.clone(), Recounted { life, last, partitions, vouched });
            }
        }
        self.count_records(&outcomes, &mut totals);
        totals
    }

    /// Counts each record under its one outcome.
    fn count_records(&self, outcomes: &[Vec<(Outcome, bool)>], totals: &mut Totals) {
        for ((partition, fixed), outcomes) in self.records.iter().zip(outcomes) {
            let outcome = fixed.unwrap_or_else(|| best(outcomes.iter().map(|(outcome, _)| *outcome)));
            let labels = [("outcome", outcome.as_str())];
            totals.all.add(partition, "records_total", &labels, 1);
            if outcomes.iter().all(|(_, vouched)| *vouched) {
                totals.sure.add(partition, "records_total", &labels, 1);
            }
        }
    }

    fn live(&self, events: &[Event], rules: &Rules) -> Option<Lived> {
        let mut figures = Figures::default();
        let mut life = Life::begin(events.first()?, rules, &mut figures);
        let outcomes = events.iter().map(|event| life.take(event, rules, &mut figures)).collect();
        let watermark = self.watermarks.get(&life.home).copied().unwrap_or(i64::MIN);
        life.end(watermark, rules, &mut figures);
        Some(Lived { life, figures, outcomes })
    }
}

/// One ticket's end, its figures, and what became of each of its events.
struct Lived {
    life: Life,
    figures: Figures,
    outcomes: Vec<Outcome>,
}

fn partitions(events: &[Event]) -> BTreeSet<Partition> {
    events.iter().map(|event| event.partition.clone()).collect()
}

/// Whether no event of a ticket can be among the records that are gone: those of its own partition, or those of all
/// where tickets change partitions.
fn is_vouched(life: &Life, coverage: &BTreeMap<Partition, Coverage>, keyed: bool) -> bool {
    let matters = |partition: &Partition| !keyed || *partition == life.home;
    coverage.iter().filter(|(partition, _)| matters(partition)).all(|(_, covered)| covered.vouches(life.opened_at))
}
