//! Ledgers that move from one kind of journal to another: many made one, one made many. Every series keeps its sum.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{
    Counters, Effort, Fresh, Held, Label, Labels, Ledger, PartitionState, Series, Settings, Slot, TicketKey, Tickets,
};
use crate::record::Partition;
use crate::ticket::{Affects, Kind};

/// A ticket that two ledgers hold: there is no telling which of them is right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the ticket {ticket} is held under two partitions, {first} and {second}: the input is not keyed by ticket, and it was counted twice"
)]
pub struct Clash {
    ticket: String,
    first: Partition,
    second: Partition,
}

/// One ledger that holds what all of these hold.
///
/// # Errors
/// When two of them hold the same ticket.
pub fn merged(ledgers: Vec<Ledger>, settings: Settings) -> Result<Ledger, Clash> {
    let mut whole = Ledger::new(settings);
    let mut tickets = Tickets::default();
    for mut ledger in ledgers {
        let teams = taken_over(&ledger.teams, Arc::make_mut(&mut whole.teams));
        let services = taken_over(&ledger.services, Arc::make_mut(&mut whole.services));
        let (team, service) = (|l: Label| named(&teams, l), |l: Label| named(&services, l));
        let relabelled = |series: Series| series.relabelled(team, service);
        let numbers: Vec<u32> = ledger
            .partitions
            .drain(..)
            .map(|state| {
                let counted = state.counters.iter().map(|(series, value)| (relabelled(series), value));
                let series = state.fresh.series.iter().map(|series| relabelled(*series)).collect();
                whole.restore_partition(PartitionState {
                    counters: Arc::new(counted.collect()),
                    fresh: Arc::new(Fresh { fixed: state.fresh.fixed, series }),
                    ..state
                })
            })
            .collect();
        for (key, mut slot) in ledger.tickets.drain() {
            if let Slot::Held(held) = &mut slot {
                held.home = numbers.get(held.home as usize).copied().unwrap_or_default();
                relabel(held, team, service);
            }
            match tickets.get(key) {
                Some(Slot::Held(before)) if matches!(slot, Slot::Held(_)) => return Err(clash(&whole, before, &slot)),
                Some(Slot::Held(_)) => {}
                Some(Slot::Retired) | None => tickets.insert(key, slot),
            }
        }
    }
    whole.restore_tickets(tickets);
    Ok(whole)
}

fn clash(whole: &Ledger, before: &Held, slot: &Slot) -> Clash {
    let home = |held: &Held| whole.partitions.get(held.home as usize).map(|state| state.partition.clone());
    let nowhere = || Partition { topic: "?".into(), number: 0 };
    let second = if let Slot::Held(held) = slot { home(held) } else { None };
    Clash {
        ticket: before.id.to_string(),
        first: home(before).unwrap_or_else(nowhere),
        second: second.unwrap_or_else(nowhere),
    }
}

/// A ledger for each partition: a ticket goes to the partition by which it came first.
pub fn split(whole: &Ledger) -> BTreeMap<Partition, Ledger> {
    let mut parts: Vec<Ledger> = whole.partitions.iter().map(|state| part(whole, state.clone())).collect();
    let mut tickets: Vec<Tickets> = parts.iter().map(|_| Tickets::default()).collect();
    for (key, slot) in whole.tickets.iter() {
        match slot {
            Slot::Held(held) => {
                if let Some(tickets) = tickets.get_mut(held.home as usize) {
                    tickets.insert(key, Slot::Held(Box::new(Held { home: 0, ..(**held).clone() })));
                }
            }
            // By which it came is not kept: an event of it is late whichever way it comes.
            Slot::Retired => tickets.iter_mut().for_each(|tickets| tickets.insert(key, Slot::Retired)),
        }
    }
    parts.iter_mut().zip(tickets).for_each(|(part, tickets)| part.restore_tickets(tickets));
    parts.into_iter().zip(&whole.partitions).map(|(part, state)| (state.partition.clone(), part)).collect()
}

/// A ledger for each partition of a keyed copy with the tickets that belong there. The counters of each partition are
/// taken over by one of the copy's; what is open is counted where the ticket is.
pub fn spread(
    whole: &Ledger,
    copy: &Arc<str>,
    count: i32,
    of: impl Fn(TicketKey) -> i32,
) -> BTreeMap<Partition, Ledger> {
    let mut parts: Vec<(PartitionState, Tickets)> = (0..count)
        .map(|number| {
            let partition = Partition { topic: copy.clone(), number };
            (PartitionState::new(partition, false), Tickets::default())
        })
        .collect();
    let all = parts.len().max(1);
    for (number, state) in whole.partitions.iter().enumerate() {
        let Some((part, _)) = parts.get_mut(number % all) else { continue };
        let counted = state.counters.iter().filter(|(series, _)| !series.is_gauge());
        counted.for_each(|(series, value)| Arc::make_mut(&mut part.counters).add(series, value));
        part.watermark = part.watermark.max(state.watermark);
    }
    for (key, slot) in whole.tickets.iter() {
        let number = usize::try_from(of(key)).unwrap_or_default();
        let Some((part, tickets)) = parts.get_mut(number) else { continue };
        let slot = match slot {
            Slot::Retired => Slot::Retired,
            Slot::Held(held) => {
                count_open(held, Arc::make_mut(&mut part.counters));
                Slot::Held(Box::new(Held { home: 0, ..(**held).clone() }))
            }
        };
        tickets.insert(key, slot);
    }
    let made = |(state, tickets): (PartitionState, Tickets)| {
        let partition = state.partition.clone();
        let mut ledger = part(whole, state);
        ledger.restore_tickets(tickets);
        (partition, ledger)
    };
    parts.into_iter().map(made).collect()
}

/// A ledger with one partition and the labels of another ledger.
fn part(whole: &Ledger, state: PartitionState) -> Ledger {
    let mut ledger = Ledger::new(whole.settings);
    (ledger.teams, ledger.services) = (whole.teams.clone(), whole.services.clone());
    ledger.restore_partition(state);
    ledger
}

fn count_open(held: &Held, counters: &mut Counters) {
    if !held.is_open() {
        return;
    }
    let (affects, kind) = (held.verdict.affects, held.kind);
    counters.add(Series::OpenTickets { affects, kind }, 1);
    if (affects, kind) == (Affects::Customer, Kind::Incident) {
        counters.add(Series::OpenCustomerIncidents { service: held.service }, 1);
    }
}

/// The labels of names in another table, in which they are new if need be.
fn taken_over(names: &Labels, table: &mut Labels) -> Vec<Label> {
    names.names().iter().map(|name| table.taken_over(name)).collect()
}

fn named(labels: &[Label], label: Label) -> Label {
    labels.get(label.0 as usize).copied().unwrap_or(Label::OTHER)
}

fn relabel(held: &mut Held, team: impl Fn(Label) -> Label, service: impl Fn(Label) -> Label) {
    (held.team, held.service) = (team(held.team), service(held.service));
    let Effort { by_team, by_service, .. } = &mut held.effort;
    by_team.iter_mut().for_each(|(label, _)| *label = team(*label));
    by_service.iter_mut().for_each(|(label, _)| *label = service(*label));
}
