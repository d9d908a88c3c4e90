//! One ticket's life, from its first event to its last, and what it adds to the figures.
//!
//! Written from the contract and not from the ledger: nothing is kept that a figure does not need, what is open now is
//! only looked at in the end, and every rule stands where its sentence says it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::figure::{Figures, signed};
use crate::ledger::{Labels, Ledgers, RESOLUTION_BUCKETS, Settings};
use crate::outcome::Outcome;
use crate::record::Partition;
use crate::ticket::{Affects, Kind, State, Ticket, Version};
use crate::verdict::{Findings, Verdict};

/// One ticket in one record.
#[derive(Clone, Debug)]
pub struct Event {
    /// The number of its record among those that hold several tickets, if it is one.
    pub record: Option<usize>,
    /// The partition of the record.
    pub partition: Partition,
    /// The offset of the record.
    pub offset: i64,
    /// The record's time in milliseconds since 1970, or the ticket's own where it has none.
    pub time: i64,
    /// The newest time among the records before it in its partition.
    pub watermark: i64,
    /// The same with its own.
    pub reached: i64,
    /// What it says.
    pub ticket: Ticket,
    /// What was found in it.
    pub findings: Findings,
}

/// Which teams or services have a label of their own.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// `None`: all of them, the cap is not reached.
    own: Option<BTreeSet<String>>,
}

impl Names {
    /// Those that the journal gave one. Below the cap every name has its own, whatever the journal says; which names
    /// were there before it was reached depends on the order in which partitions were read, and only the journal knows.
    pub fn of(labels: &Labels, cap: usize) -> Self {
        let full = labels.names().len() >= Labels::new(cap).names().len().saturating_add(cap);
        Self { own: full.then(|| labels.names().iter().map(|name| (**name).to_owned()).collect()) }
    }

    fn label(&self, name: &str) -> String {
        match name.trim() {
            "" => "none".to_owned(),
            name if self.own.as_ref().is_none_or(|own| own.contains(name)) => name.to_owned(),
            _ => "other".to_owned(),
        }
    }
}

/// What applies to all tickets.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Policy and retention.
    pub settings: Settings,
    /// The teams and the services with a label of their own, by the partition in which they are counted.
    pub names: BTreeMap<Partition, (Names, Names)>,
}

impl Rules {
    /// Those of a journal.
    pub fn of(ledgers: &Ledgers, settings: Settings) -> Self {
        let mut names = BTreeMap::new();
        for ledger in ledgers.iter() {
            let teams = Names::of(ledger.teams(), settings.team_cap);
            let services = Names::of(ledger.services(), settings.service_cap);
            for state in ledger.partitions() {
                names.insert(state.partition.clone(), (teams.clone(), services.clone()));
            }
        }
        Self { settings, names }
    }

    fn team(&self, partition: &Partition, name: &str) -> String {
        self.names.get(partition).map_or_else(|| Names::default().label(name), |(teams, _)| teams.label(name))
    }

    fn service(&self, partition: &Partition, name: &str) -> String {
        self.names.get(partition).map_or_else(|| Names::default().label(name), |(_, services)| services.label(name))
    }

    /// Whether a closed ticket that changed last at `changed` has left memory when its partition has come to `now`.
    fn is_over(&self, changed: i64, now: i64) -> bool {
        let Some(retention) = self.settings.retention else { return false };
        let retention = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        changed < now.saturating_sub(retention)
    }
}

/// A piece of logged work.
#[derive(Clone, Copy, Debug)]
struct Piece {
    version: Version,
    seconds: u64,
}

/// A ticket so far.
#[derive(Clone, Debug)]
pub struct Life {
    /// The partition of its first event.
    pub home: Partition,
    /// The newest version taken.
    pub version: Option<Version>,
    /// Its tag.
    pub verdict: Verdict,
    /// What sort of work it is.
    pub kind: Kind,
    /// Where it is in its life.
    pub state: State,
    /// The vendor deleted it.
    pub deleted: bool,
    /// Updates made by people.
    pub touches: u32,
    /// When it was opened.
    pub opened_at: Option<Timestamp>,
    /// It was closed, and its retention is over.
    pub retired: bool,
    findings: Findings,
    resolved_at: Option<Timestamp>,
    resolution_counted: bool,
    changed: i64,
    team: String,
    service: String,
    total: Option<u64>,
    pieces: BTreeMap<String, Piece>,
    by_team: Shares,
    by_service: Shares,
}

impl Life {
    /// The life that begins with an event, which is still to be taken. The ticket is counted here, once, under its
    /// first verdict.
    pub fn begin(event: &Event, rules: &Rules, figures: &mut Figures) -> Self {
        let verdict = event.findings.decide(rules.settings.policy);
        let kind = event.ticket.kind.unwrap_or(Kind::Incident);
        let labels = [
            ("affects", verdict.affects.as_str()),
            ("basis", verdict.basis.as_str()),
            ("certainty", verdict.certainty.as_str()),
            ("kind", kind.as_str()),
        ];
        figures.add(&event.partition, "tickets_total", &labels, 1);
        Self {
            home: event.partition.clone(),
            version: None,
            verdict,
            kind,
            state: State::New,
            deleted: false,
            touches: 0,
            opened_at: None,
            retired: false,
            findings: Findings::default(),
            resolved_at: None,
            resolution_counted: false,
            changed: event.time,
            team: rules.team(&event.partition, ""),
            service: rules.service(&event.partition, ""),
            total: None,
            pieces: BTreeMap::new(),
            by_team: Shares::default(),
            by_service: Shares::default(),
        }
    }

    /// All effort logged, in seconds: the vendor's own total where there is one, else the pieces.
    pub fn effort(&self) -> u64 {
        self.total.unwrap_or_else(|| self.pieces.values().fold(0, |sum, piece| sum.saturating_add(piece.seconds)))
    }

    /// Whether somebody still has to do something.
    pub fn is_open(&self) -> bool {
        !self.deleted && matches!(self.state, State::New | State::Open | State::Pending)
    }

    /// Takes the next event.
    pub fn take(&mut self, event: &Event, rules: &Rules, figures: &mut Figures) -> Outcome {
        self.pass_time(event.watermark, rules);
        if self.retired {
            return Outcome::Late;
        }
        let before = self.effort();
        let view = self.view_is(&event.ticket);
        let work = self.take_work(&event.ticket);
        let outcome = best(view.into_iter().chain(work));
        if outcome != Outcome::Applied {
            return outcome;
        }
        self.changed = self.changed.max(event.time);
        if view == Some(Outcome::Applied) {
            self.take_view(&event.ticket, &event.partition, rules);
            self.judge(event, before, rules, figures);
        }
        let Verdict { affects, certainty, .. } = self.verdict;
        let labels = [("affects", affects.as_str()), ("certainty", certainty.as_str()), ("kind", self.kind.as_str())];
        if event.ticket.by_person {
            self.touches += 1;
            figures.add(&event.partition, "touches_total", &labels, 1);
        }
        let after = self.effort();
        if after > before {
            figures.add(&event.partition, "effort_seconds_total", &labels, signed(after - before));
            self.log(after - before, &event.partition, figures);
        }
        if after < before {
            figures.add(&event.partition, "corrected_effort_seconds_total", &labels, signed(before - after));
            self.take_back(before - after, &event.partition, figures);
        }
        self.resolve(&event.partition, figures);
        outcome
    }

    /// Ends the recount at the newest time of its home partition: only what is open now counts as open.
    pub fn end(&mut self, watermark: i64, rules: &Rules, figures: &mut Figures) {
        self.pass_time(watermark, rules);
        if !self.is_open() {
            return;
        }
        let (affects, kind) = (self.verdict.affects, self.kind);
        figures.add(&self.home, "open_tickets", &[("affects", affects.as_str()), ("kind", kind.as_str())], 1);
        if affects == Affects::Customer && kind == Kind::Incident {
            figures.add(&self.home, "open_customer_incidents", &[("service", &self.service)], 1);
        }
    }

    fn pass_time(&mut self, now: i64, rules: &Rules) {
        self.retired |= !self.is_open() && rules.is_over(self.changed, now);
    }

    /// What becomes of the event's view of the ticket; `None` for an event that only logs work.
    fn view_is(&self, ticket: &Ticket) -> Option<Outcome> {
        match (ticket.version, self.version) {
            (None, _) if !ticket.worklogs.is_empty() => None,
            (None, _) | (_, None) => Some(Outcome::Applied),
            (Some(new), Some(held)) => Some(against(new, held)),
        }
    }

    /// Takes each piece of work that is new, or newer than what is known of it.
    fn take_work(&mut self, ticket: &Ticket) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for work in &ticket.worklogs {
            let held = self.pieces.get(work.id.as_str());
            let outcome = held.map_or(Outcome::Applied, |held| against(work.version, held.version));
            if outcome == Outcome::Applied {
                self.pieces.insert(work.id.to_string(), Piece { version: work.version, seconds: work.seconds });
            }
            outcomes.push(outcome);
        }
        outcomes
    }

    /// Lays the event's fields over those held: absent is not cleared.
    fn take_view(&mut self, ticket: &Ticket, partition: &Partition, rules: &Rules) {
        let first_view = self.version.is_none();
        if let Some(kind) = ticket.kind
            && (first_view || !ticket.kind_assumed)
        {
            self.kind = kind;
        }
        if let Some(state) = ticket.state {
            self.state = state;
        }
        if ticket.merged_into.is_some() {
            self.state = State::Closed;
        }
        if let Some(team) = &ticket.group {
            self.team = rules.team(partition, team);
        }
        if let Some(service) = ticket.service.as_ref().or(ticket.ci.as_ref()) {
            self.service = rules.service(partition, service);
        }
        self.version = ticket.version.or(self.version);
        self.opened_at = ticket.opened_at.or(self.opened_at);
        self.resolved_at = ticket.resolved_at.or(self.resolved_at);
        self.total = ticket.effort_seconds.or(self.total);
        self.deleted = ticket.deleted;
    }

    /// Tags the ticket anew. Where its class changes, it moves, with all touches and all effort logged so far.
    fn judge(&mut self, event: &Event, effort: u64, rules: &Rules, figures: &mut Figures) {
        let old = self.verdict;
        self.findings = event.findings.clone().over(&self.findings);
        self.verdict = self.findings.decide(rules.settings.policy);
        let new = self.verdict;
        if old.class() != new.class() {
            let moved = [("from", old.class().as_str()), ("to", new.class().as_str())];
            figures.add(&event.partition, "reclassified_tickets_total", &moved, 1);
            figures.add(&event.partition, "reclassified_touches_total", &moved, self.touches.into());
            figures.add(&event.partition, "reclassified_effort_seconds_total", &moved, signed(effort));
        }
        if old.affects != new.affects {
            let moved = [("from", old.affects.as_str()), ("to", new.affects.as_str())];
            for (name, shares) in [("team", &self.by_team), ("service", &self.by_service)] {
                let metric = format!("{name}_reclassified_effort_seconds_total");
                for (label, seconds) in &shares.0 {
                    figures.add(&event.partition, &metric, &[&moved[..], &[(name, label)]].concat(), signed(*seconds));
                }
            }
        }
    }

    /// Effort goes to the team and the service of the moment.
    fn log(&mut self, seconds: u64, partition: &Partition, figures: &mut Figures) {
        let affects = self.verdict.affects.as_str();
        for (name, label, shares) in
            [("team", &self.team, &mut self.by_team), ("service", &self.service, &mut self.by_service)]
        {
            shares.log(label, seconds);
            let metric = format!("{name}_effort_seconds_total");
            figures.add(partition, &metric, &[("affects", affects), (name, label)], signed(seconds));
        }
    }

    /// What is taken back is taken from who logged last, then from who logged before.
    fn take_back(&mut self, seconds: u64, partition: &Partition, figures: &mut Figures) {
        let affects = self.verdict.affects.as_str();
        for (name, shares) in [("team", &mut self.by_team), ("service", &mut self.by_service)] {
            let metric = format!("{name}_corrected_effort_seconds_total");
            for (label, part) in shares.take_back(seconds) {
                figures.add(partition, &metric, &[("affects", affects), (name, &label)], signed(part));
            }
        }
    }

    /// The time from opening to the first resolution counts once, as soon as both times are known.
    fn resolve(&mut self, partition: &Partition, figures: &mut Figures) {
        let resolved = matches!(self.state, State::Resolved | State::Closed);
        let (true, Some(opened), Some(end)) = (resolved, self.opened_at, self.resolved_at) else { return };
        if std::mem::replace(&mut self.resolution_counted, true) {
            return;
        }
        let seconds = (end.as_second() - opened.as_second()).max(0);
        let labels = [("affects", self.verdict.affects.as_str()), ("kind", self.kind.as_str())];
        figures.add(partition, "resolution_seconds_sum", &labels, seconds);
        figures.add(partition, "resolution_seconds_count", &labels, 1);
        for bound in RESOLUTION_BUCKETS.into_iter().filter(|bound| seconds <= *bound) {
            let bound = bound.to_string();
            let within = [&labels[..], &[("le", &bound)]].concat();
            figures.add(partition, "resolution_seconds_bucket", &within, 1);
        }
    }
}

/// Who logged how many seconds of a ticket; who logged last stands last.
#[derive(Clone, Debug, Default)]
struct Shares(Vec<(String, u64)>);

impl Shares {
    fn log(&mut self, label: &str, seconds: u64) {
        let before: u64 = self.0.iter().filter(|(held, _)| held == label).map(|(_, seconds)| seconds).sum();
        self.0.retain(|(held, _)| held != label);
        self.0.push((label.to_owned(), before.saturating_add(seconds)));
    }

    fn take_back(&mut self, mut seconds: u64) -> Vec<(String, u64)> {
        let mut parts = Vec::new();
        for (label, held) in self.0.iter_mut().rev() {
            let part = seconds.min(*held);
            (*held, seconds) = (*held - part, seconds - part);
            parts.push((label.clone(), part));
        }
        self.0.retain(|(_, held)| *held > 0);
        parts.retain(|(_, part)| *part > 0);
        parts
    }
}

/// What becomes of a version when another is held: the count decides where both have one, else the time where both have
/// one, else arrival.
fn against(new: Version, held: Version) -> Outcome {
    let (new, held) = match (new, held) {
        (Version { count: Some(new), .. }, Version { count: Some(held), .. })
        | (Version { time: Some(new), .. }, Version { time: Some(held), .. }) => (new, held),
        _ => return Outcome::Applied,
    };
    if new > held {
        Outcome::Applied
    } else if new == held {
        Outcome::Repeated
    } else {
        Outcome::Stale
    }
}

/// Of the outcomes of an event's or a record's parts, the one to report: what changed most; a record without a part
/// carries no ticket.
pub fn best(outcomes: impl IntoIterator<Item = Outcome>) -> Outcome {
    let all: Vec<Outcome> = outcomes.into_iter().collect();
    let order = [Outcome::Applied, Outcome::Stale, Outcome::Repeated, Outcome::Late];
    order.into_iter().find(|outcome| all.contains(outcome)).unwrap_or(Outcome::Ignored)
}
