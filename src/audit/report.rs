//! What an audit says: exact, or where the journal and the recount differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::copies::CopyCheck;
use super::coverage::Coverage;
use super::figure::Figures;
use super::life::Life;
use super::recount::{Name, Recounted, Totals};
use crate::ledger::{Held, Ledger, Ledgers, Slot, TicketKey};
use crate::record::Partition;
use crate::replay::grouped;
use crate::ticket::Version;

/// How many counters the text lists.
const LISTED: usize = 20;

/// What was compared, and what differs.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Nothing differs, and everything is vouched for.
    pub exact: bool,
    /// How many counters were compared.
    pub counters: usize,
    /// How many tickets were recomputed.
    pub tickets: usize,
    /// Their logged effort.
    pub effort_seconds: u64,
    /// The partitions, and how much of each is still there.
    pub partitions: Vec<Covered>,
    /// Tickets that came by several partitions: the order in which their events were taken is not known.
    pub tickets_of_several_partitions: usize,
    /// Tickets that may have begun among records that are gone.
    pub tickets_cut_off: usize,
    /// Counters that differ although all they count is vouched for, or count less than what is.
    pub differences: Vec<Difference>,
    /// Counters that differ, and count tickets that are not vouched for.
    pub not_vouched_for: Vec<Difference>,
    /// How many tickets differ that are vouched for.
    pub tickets_that_differ: usize,
    /// The first of them, by topic, partition and offset of its last event.
    pub first_ticket: Option<TicketDifference>,
    /// Whether records that go through a keyed copy were copied once; none where no input does.
    pub copies: Option<CopyCheck>,
}

/// One partition.
#[derive(Debug, Serialize)]
pub struct Covered {
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: i32,
    /// The journal's position.
    pub position: i64,
    /// Records that were counted again.
    pub records: i64,
    /// Records that the journal counted, and that are gone from the topic.
    pub gone: i64,
    /// The first offset that is there.
    pub first_offset: Option<i64>,
    /// Where records are gone: tickets opened after this are vouched for, none if absent.
    pub vouched_since: Option<String>,
}

/// One counter with two values.
#[derive(Debug, Serialize)]
pub struct Difference {
    /// Metric and labels, as `/metrics` shows them.
    pub counter: String,
    /// What the journal holds.
    pub journal: i64,
    /// What the records give.
    pub recomputed: i64,
    /// The first less the second.
    pub difference: i64,
}

/// One ticket with two views.
#[derive(Debug, Serialize)]
pub struct TicketDifference {
    /// The source.
    pub source: String,
    /// The vendor's identity.
    pub key: String,
    /// The topic of its last event; none if no record speaks of it.
    pub topic: Option<String>,
    /// The partition of its last event.
    pub partition: Option<i32>,
    /// The offset of its last event.
    pub offset: Option<i64>,
    /// The journal's view; none if it does not know the ticket.
    pub journal: Option<View>,
    /// That of the recount; none if no record speaks of it.
    pub recomputed: Option<View>,
}

/// A ticket as both sides know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum View {
    /// It is in memory.
    #[serde(rename = "held")]
    Held {
        /// The tag.
        affects: &'static str,
        /// What decided.
        basis: &'static str,
        /// How far it can be trusted.
        certainty: &'static str,
        /// What sort of work it is.
        kind: &'static str,
        /// Where it is in its life.
        state: &'static str,
        /// The vendor deleted it.
        deleted: bool,
        /// Logged effort.
        effort_seconds: u64,
        /// Updates made by people.
        touches: u32,
        /// The newest version: count, then time in milliseconds since 1970.
        version: (Option<i64>, Option<i64>),
    },
    /// It has left memory.
    #[serde(rename = "retired")]
    Retired,
}

impl View {
    fn of_journal(slot: &Slot) -> Self {
        let Slot::Held(held) = slot else { return Self::Retired };
        Self::Held {
            affects: held.verdict.affects.as_str(),
            basis: held.verdict.basis.as_str(),
            certainty: held.verdict.certainty.as_str(),
            kind: held.kind.as_str(),
            state: held.state.as_str(),
            deleted: held.deleted,
            effort_seconds: held.effort.seconds(),
            touches: held.touches,
            version: parts(held.version),
        }
    }

    fn of_life(life: &Life) -> Self {
        if life.retired {
            return Self::Retired;
        }
        Self::Held {
            affects: life.verdict.affects.as_str(),
            basis: life.verdict.basis.as_str(),
            certainty: life.verdict.certainty.as_str(),
            kind: life.kind.as_str(),
            state: life.state.as_str(),
            deleted: life.deleted,
            effort_seconds: life.effort(),
            touches: life.touches,
            version: parts(life.version),
        }
    }
}

fn parts(version: Option<Version>) -> (Option<i64>, Option<i64>) {
    version.map_or((None, None), |version| (version.count, version.time))
}

impl Report {
    /// Compares what the journal holds with what the records give.
    pub fn new(ledgers: &Ledgers, totals: &Totals, coverage: &BTreeMap<Partition, Coverage>) -> Self {
        let journal = Figures::shown(ledgers);
        let names: BTreeSet<_> = journal.names().chain(totals.all.names()).collect();
        let counters = names.len();
        let unsure = unsure_partitions(totals, coverage);
        let (mut differences, mut not_vouched_for) = (Vec::new(), Vec::new());
        for figure in names {
            let (held, recomputed) = (journal.get(figure), totals.all.get(figure));
            if held == recomputed {
                continue;
            }
            let found =
                Difference { counter: figure.to_string(), journal: held, recomputed, difference: held - recomputed };
            // No figure falls below what is sure: whatever tickets that are not vouched for do, they only add.
            match unsure.contains(&figure.partition) && held >= totals.sure.get(figure) {
                true => not_vouched_for.push(found),
                false => differences.push(found),
            }
        }
        let tickets = differing_tickets(ledgers, totals, coverage);
        let unvouched = totals.tickets.values().filter(|ticket| !ticket.vouched);
        let (cut_off, several): (Vec<_>, Vec<_>) = unvouched.partition(|ticket| ticket.partitions.len() == 1);
        let vouched = cut_off.is_empty() && several.is_empty() && coverage.values().all(|covered| covered.gone() == 0);
        Self {
            exact: vouched && differences.is_empty() && tickets.is_empty(),
            counters,
            tickets: totals.tickets.len(),
            effort_seconds: totals.tickets.values().fold(0, |sum, t| t.life.effort().saturating_add(sum)),
            partitions: coverage.values().map(Covered::of).collect(),
            tickets_of_several_partitions: several.len(),
            tickets_cut_off: cut_off.len(),
            differences,
            not_vouched_for,
            tickets_that_differ: tickets.len(),
            first_ticket: tickets.into_iter().next(),
            copies: None,
        }
    }

    /// The same with what was found of copies.
    #[must_use]
    pub fn with_copies(self, copies: Option<CopyCheck>) -> Self {
        let exact = self.exact && !copies.as_ref().is_some_and(CopyCheck::found);
        Self { exact, copies, ..self }
    }

    /// Whether the journal is wrong for certain.
    pub fn found(&self) -> bool {
        let copies = self.copies.as_ref().is_some_and(CopyCheck::found);
        !self.differences.is_empty() || self.tickets_that_differ > 0 || copies
    }
}

/// Partitions whose counters hold more than what is vouched for.
fn unsure_partitions(totals: &Totals, coverage: &BTreeMap<Partition, Coverage>) -> BTreeSet<Partition> {
    let gone = coverage.values().filter(|covered| covered.gone() > 0).map(|covered| covered.partition.clone());
    let unvouched = totals.tickets.values().filter(|ticket| !ticket.vouched);
    gone.chain(unvouched.flat_map(|ticket| ticket.partitions.iter().cloned())).collect()
}

/// Tickets that are vouched for and that the journal sees otherwise, by the place of their last event.
fn differing_tickets(
    ledgers: &Ledgers,
    totals: &Totals,
    coverage: &BTreeMap<Partition, Coverage>,
) -> Vec<TicketDifference> {
    let mut found: Vec<(&(Partition, i64), TicketDifference)> = Vec::new();
    for ((source, key), ticket) in totals.tickets.iter().filter(|(_, ticket)| ticket.vouched) {
        let ledger = ledgers.of(&ticket.life.home);
        let journal = ledger.and_then(|ledger| ledger.ticket(TicketKey::of(source, key))).map(View::of_journal);
        let recomputed = Some(View::of_life(&ticket.life));
        if journal != recomputed {
            found.push((&ticket.last, TicketDifference::new(source, key, Some(ticket), journal, recomputed)));
        }
    }
    found.sort_by_key(|(last, _)| *last);
    let is_unknown = |(ledger, held): &(&Ledger, &Held)| {
        !totals.tickets.contains_key(&name(held)) && nothing_is_gone(held, ledger, coverage, totals.keyed)
    };
    let held = ledgers.iter().flat_map(|ledger| ledger.tickets().map(move |held| (ledger, held)));
    let unknown = held.filter(is_unknown).map(|(_, held)| {
        let journal = Some(View::of_journal(&Slot::Held(Box::new(held.clone()))));
        TicketDifference::new(&held.source, &held.key, None, journal, None)
    });
    found.into_iter().map(|(_, difference)| difference).chain(unknown).collect()
}

fn name(held: &Held) -> Name {
    (held.source.to_string(), held.key.to_string())
}

/// Whether a ticket that only the journal knows cannot have come by records that are gone.
fn nothing_is_gone(held: &Held, ledger: &Ledger, coverage: &BTreeMap<Partition, Coverage>, keyed: bool) -> bool {
    let home = ledger.partitions().get(held.home as usize).map(|state| &state.partition);
    let matters = |partition: &Partition| !keyed || home == Some(partition);
    coverage.values().filter(|covered| matters(&covered.partition)).all(|covered| covered.gone() == 0)
}

impl TicketDifference {
    fn new(
        source: &str,
        key: &str,
        recounted: Option<&Recounted>,
        journal: Option<View>,
        recomputed: Option<View>,
    ) -> Self {
        let last = recounted.map(|ticket| &ticket.last);
        Self {
            source: source.to_owned(),
            key: key.to_owned(),
            topic: last.map(|(partition, _)| partition.topic.to_string()),
            partition: last.map(|(partition, _)| partition.number),
            offset: last.map(|(_, offset)| *offset),
            journal,
            recomputed,
        }
    }
}

impl Covered {
    fn of(covered: &Coverage) -> Self {
        let gone = covered.gone();
        Self {
            topic: covered.partition.topic.to_string(),
            partition: covered.partition.number,
            position: covered.position,
            records: covered.records,
            gone,
            first_offset: covered.first.map(|(offset, _)| offset),
            vouched_since: covered.since().filter(|_| gone > 0).map(|since| since.to_string()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (self.exact, self.found()) {
            (true, _) => "exact",
            (_, true) => "not exact",
            (_, false) => "no difference in what can be vouched for",
        };
        writeln!(
            f,
            "{verdict}: {} counters of {} partitions, {} tickets, {} seconds of effort",
            grouped(self.counters as u64),
            self.partitions.len(),
            grouped(self.tickets as u64),
            grouped(self.effort_seconds)
        )?;
        list(f, "counters differ", &self.differences)?;
        if let Some(ticket) = &self.first_ticket {
            write!(f, "\n{} tickets differ, first:\n{ticket}", self.tickets_that_differ)?;
        }
        if let Some(copies) = &self.copies {
            write!(f, "{copies}")?;
        }
        self.write_reservations(f)?;
        list(f, "counters differ and cannot be vouched for", &self.not_vouched_for)
    }
}

impl Report {
    fn write_reservations(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Covered { topic, partition, gone, first_offset, vouched_since, .. } in &self.partitions {
            if *gone == 0 {
                continue;
            }
            write!(f, "\n{topic}[{partition}]: {gone} records that were counted are gone from the topic; ")?;
            match (first_offset, vouched_since) {
                (Some(offset), Some(since)) => writeln!(
                    f,
                    "it begins at offset {offset}, {since}: tickets opened an hour after that and later are vouched for"
                )?,
                _ => writeln!(f, "which ones cannot be told: nothing of it is vouched for")?,
            }
        }
        if self.tickets_cut_off > 0 {
            writeln!(f, "{} tickets may have begun among records that are gone", self.tickets_cut_off)?;
        }
        if self.tickets_of_several_partitions > 0 {
            writeln!(
                f,
                "\n{} tickets came by several partitions; the order in which their events were taken is not kept, and is \
                 guessed from the times of the records. A topic that is keyed by ticket can be audited to the unit",
                self.tickets_of_several_partitions
            )?;
        }
        Ok(())
    }
}

fn list(f: &mut fmt::Formatter<'_>, title: &str, differences: &[Difference]) -> fmt::Result {
    if differences.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{} {title}:", differences.len())?;
    for Difference { counter, journal, recomputed, difference } in differences.iter().take(LISTED) {
        writeln!(f, "{counter}: journal {journal}, recomputed {recomputed}, difference {difference:+}")?;
    }
    if differences.len() > LISTED {
        writeln!(f, "… and {} more; --format json lists all", differences.len() - LISTED)?;
    }
    Ok(())
}

impl fmt::Display for TicketDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.key, self.source)?;
        match (&self.topic, self.partition, self.offset) {
            (Some(topic), Some(partition), Some(offset)) => {
                writeln!(f, ", last at {topic}[{partition}] offset {offset}")?
            }
            _ => writeln!(f, ", of which no record speaks")?,
        }
        for (who, view) in [("journal", &self.journal), ("recomputed", &self.recomputed)] {
            match view {
                Some(view) => writeln!(f, "{who:<11} {view}")?,
                None => writeln!(f, "{who:<11} unknown")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Held { affects, basis, certainty, kind, state, deleted, effort_seconds, touches, version } = self
        else {
            return f.write_str("closed, has left memory");
        };
        let deleted = if *deleted { ", deleted" } else { "" };
        write!(
            f,
            "{affects} ({basis}, {certainty}), {kind}, {state}{deleted}, {effort_seconds} s, {touches} touches, "
        )?;
        match version {
            (Some(count), _) => write!(f, "version {count}"),
            (None, Some(time)) => write!(f, "version of {time} ms"),
            (None, None) => f.write_str("no version"),
        }
    }
}
