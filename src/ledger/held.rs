//! What is held of one ticket, and the one transition that an event makes on it.

use compact_str::CompactString;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::series::{Label, RESOLUTION_BUCKETS, Series};
use crate::outcome::Outcome;
use crate::ticket::{Affects, Kind, State, Ticket, Version, Worklog};
use crate::verdict::{Findings, Policy, Verdict};

/// A ticket as the ledger holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// The source it came from, usually the profile's name.
    pub source: CompactString,
    /// The vendor's lasting identity.
    pub key: CompactString,
    /// What people see; the key until an event says more.
    pub id: CompactString,
    /// The newest version applied; `None` while only increments of effort have come.
    pub version: Option<Version>,
    /// What was found in all versions so far.
    pub findings: Findings,
    /// The tag that follows.
    pub verdict: Verdict,
    /// What sort of work it is; an incident until an event says otherwise.
    pub kind: Kind,
    /// Where it is in its life.
    pub state: State,
    /// The team that has it.
    pub team: Label,
    /// The service it is about.
    pub service: Label,
    /// The service as sent.
    pub service_name: CompactString,
    /// When it was opened.
    pub opened_at: Option<Timestamp>,
    /// When it was resolved, as last sent.
    pub resolved_at: Option<Timestamp>,
    /// The time of the newest record that changed it, in milliseconds since 1970; retention counts from here.
    pub changed_at: i64,
    /// Logged effort.
    pub effort: Effort,
    /// Updates made by people.
    pub touches: u32,
    /// How often it was re-opened: as seen here, or as the vendor says if that is more.
    pub reopened: u32,
    /// Whether the time to its first resolution was counted.
    pub resolution_counted: bool,
    /// The vendor deleted it.
    pub deleted: bool,
    /// Merged into this ticket.
    pub merged_into: Option<CompactString>,
    /// Continues this ticket.
    pub follows: Option<CompactString>,
    /// Where its open state is counted: the partition of its first event.
    pub home: u32,
    /// A hash of the key of the record that it came by last; 0 where that had none or is not known.
    pub record_key: u32,
}

/// Logged effort: a total or single pieces of work, never both, and under whom it was counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Effort {
    /// The vendor's own total in seconds; wins over the pieces once it is there.
    pub total: Option<u64>,
    /// Single pieces of work.
    pub pieces: SmallVec<[Piece; 0]>,
    /// How much was counted under which team.
    pub by_team: SmallVec<[(Label, u64); 1]>,
    /// How much was counted under which service.
    pub by_service: SmallVec<[(Label, u64); 1]>,
}

/// One piece of logged work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// A hash of the vendor's identity of it.
    pub id: u64,
    /// Work in seconds; 0 when deleted.
    pub seconds: u64,
    /// Which of two versions is newer.
    pub version: Version,
}

impl Effort {
    /// All effort logged, in seconds.
    pub fn seconds(&self) -> u64 {
        self.total.unwrap_or_else(|| self.pieces.iter().fold(0, |sum, piece| sum.saturating_add(piece.seconds)))
    }

    /// Takes one piece of work; says what became of it.
    fn take(&mut self, worklog: &Worklog) -> Outcome {
        let id = xxhash_rust::xxh3::xxh3_64(worklog.id.as_bytes());
        let piece = Piece { id, seconds: worklog.seconds, version: worklog.version };
        match self.pieces.iter_mut().find(|held| held.id == id) {
            None => self.pieces.push(piece),
            Some(held) => match compare(worklog.version, held.version) {
                Outcome::Applied => *held = piece,
                other => return other,
            },
        }
        Outcome::Applied
    }
}

/// Whether a version is newer than the one held, the same, or older. What both have decides, the count before the time;
/// where they have nothing in common, arrival decides.
pub fn compare(new: Version, held: Version) -> Outcome {
    let ordering = match (new.count.zip(held.count), new.time.zip(held.time)) {
        (Some((new, held)), _) | (None, Some((new, held))) => new.cmp(&held),
        (None, None) => std::cmp::Ordering::Greater,
    };
    match ordering {
        std::cmp::Ordering::Greater => Outcome::Applied,
        std::cmp::Ordering::Equal => Outcome::Repeated,
        std::cmp::Ordering::Less => Outcome::Stale,
    }
}

/// What an event brings besides the ticket.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The partition it came by.
    pub partition: u32,
    /// The record's time, in milliseconds since 1970.
    pub time: i64,
    /// The label of the team the event names, if it names one.
    pub team: Option<Label>,
    /// The label of the service the event names, if it names one.
    pub service: Option<Label>,
}

/// One change of one series of one partition.
pub type Delta = (u32, Series, i64);

impl Held {
    /// A ticket of which nothing is known yet but whose it is.
    pub fn new(source: &str, ticket: &Ticket, findings: &Findings, policy: Policy, arrival: Arrival) -> Self {
        Self {
            source: source.into(),
            key: ticket.key.clone(),
            id: ticket.key.clone(),
            version: None,
            findings: Findings::default(),
            verdict: findings.decide(policy),
            kind: ticket.kind.unwrap_or(Kind::Incident),
            state: State::New,
            team: Label::NONE,
            service: Label::NONE,
            service_name: CompactString::default(),
            opened_at: None,
            resolved_at: None,
            changed_at: arrival.time,
            effort: Effort::default(),
            touches: 0,
            reopened: 0,
            resolution_counted: false,
            deleted: false,
            merged_into: None,
            follows: None,
            home: arrival.partition,
            record_key: 0,
        }
    }

    /// Whether somebody still has to do something.
    pub fn is_open(&self) -> bool {
        self.state.is_open() && !self.deleted
    }

    /// Counts a ticket that is seen for the first time: once, under its first verdict.
    pub fn count_first(&self, arrival: Arrival, deltas: &mut Vec<Delta>) {
        let Verdict { affects, basis, certainty, .. } = self.verdict;
        deltas.push((arrival.partition, Series::Tickets { affects, basis, certainty, kind: self.kind }, 1));
        self.count_open([None; 2], deltas);
    }

    /// Takes one event.
    ///
    /// | the event's version | ticket part | pieces of work |
    /// |---|---|---|
    /// | newer than held | applied | each applied if it is newer than its own held version |
    /// | the one held | unchanged, `repeated` | likewise |
    /// | older | unchanged, `stale` | likewise |
    /// | none, with work | unchanged | likewise |
    /// | none, without work | applied | none |
    ///
    /// The outcome is `applied` if anything was. Deltas are exact: what a counter of a class shows, less what was
    /// corrected and moved out, plus what was moved in, is what tickets of that class hold.
    pub fn apply(
        &mut self,
        ticket: &Ticket,
        findings: Findings,
        policy: Policy,
        arrival: Arrival,
        deltas: &mut Vec<Delta>,
    ) -> Outcome {
        let seconds_before = self.effort.seconds();
        let version = match (ticket.version, self.version) {
            (None, _) if !ticket.worklogs.is_empty() => None,
            (None, _) | (Some(_), None) => Some(Outcome::Applied),
            (Some(new), Some(held)) => Some(compare(new, held)),
        };
        let pieces = ticket.worklogs.iter().map(|worklog| self.effort.take(worklog)).reduce(best);
        let outcome = version.into_iter().chain(pieces).reduce(best).unwrap_or(Outcome::Repeated);
        if outcome != Outcome::Applied {
            return outcome;
        }
        let open = self.open_series();
        self.changed_at = self.changed_at.max(arrival.time);
        if version == Some(Outcome::Applied) {
            self.take_fields(ticket, arrival);
            self.reclassify(findings, policy, seconds_before, arrival, deltas);
        }
        if ticket.by_person {
            self.touches += 1;
            let Verdict { affects, certainty, .. } = self.verdict;
            deltas.push((arrival.partition, Series::Touches { affects, certainty, kind: self.kind }, 1));
        }
        self.count_effort(seconds_before, arrival, deltas);
        self.count_resolution(arrival, deltas);
        self.count_open(open, deltas);
        outcome
    }

    /// Lays the event's fields over those held; what the event does not carry stays.
    fn take_fields(&mut self, ticket: &Ticket, arrival: Arrival) {
        let first = self.version.is_none();
        self.version = ticket.version.or(self.version);
        if let Some(id) = &ticket.id {
            self.id.clone_from(id);
        }
        self.kind = ticket.kind.filter(|_| first || !ticket.kind_assumed).unwrap_or(self.kind);
        if let Some(state) = ticket.state {
            self.reopened += u32::from(state.is_open() && !self.state.is_open());
            self.state = state;
        }
        self.reopened = self.reopened.max(ticket.reopened.unwrap_or_default());
        self.team = arrival.team.unwrap_or(self.team);
        if let Some(service) = arrival.service {
            self.service = service;
            self.service_name = ticket.service.clone().or_else(|| ticket.ci.clone()).unwrap_or_default();
        }
        self.opened_at = ticket.opened_at.or(self.opened_at);
        self.resolved_at = ticket.resolved_at.or(self.resolved_at);
        self.effort.total = ticket.effort_seconds.or(self.effort.total);
        self.deleted = ticket.deleted;
        if ticket.merged_into.is_some() {
            self.merged_into.clone_from(&ticket.merged_into);
            self.state = State::Closed;
        }
        if ticket.follows.is_some() {
            self.follows.clone_from(&ticket.follows);
        }
    }

    /// Takes the new findings; where the class changes, everything counted so far moves along.
    fn reclassify(
        &mut self,
        findings: Findings,
        policy: Policy,
        seconds: u64,
        arrival: Arrival,
        deltas: &mut Vec<Delta>,
    ) {
        let before = self.verdict;
        self.findings = findings.over(&self.findings);
        self.verdict = self.findings.decide(policy);
        let (from, to) = (before.class(), self.verdict.class());
        if from == to {
            return;
        }
        let mut move_along = |series, amount| deltas.push((arrival.partition, series, amount));
        move_along(Series::ReclassifiedTickets { from, to }, 1);
        move_along(Series::ReclassifiedEffort { from, to }, signed(seconds));
        move_along(Series::ReclassifiedTouches { from, to }, i64::from(self.touches));
        let (from, to) = (before.affects, self.verdict.affects);
        if from == to {
            return;
        }
        for &(team, seconds) in &self.effort.by_team {
            move_along(Series::TeamReclassifiedEffort { team, from, to }, signed(seconds));
        }
        for &(service, seconds) in &self.effort.by_service {
            move_along(Series::ServiceReclassifiedEffort { service, from, to }, signed(seconds));
        }
    }

    /// Counts what was logged, or taken back, since `before`.
    fn count_effort(&mut self, before: u64, arrival: Arrival, deltas: &mut Vec<Delta>) {
        let after = self.effort.seconds();
        let Verdict { affects, certainty, .. } = self.verdict;
        let kind = self.kind;
        let mut count = |series, seconds| deltas.push((arrival.partition, series, signed(seconds)));
        if after > before {
            let more = after - before;
            count(Series::Effort { affects, certainty, kind }, more);
            count(Series::TeamEffort { affects, team: self.team }, more);
            count(Series::ServiceEffort { affects, service: self.service }, more);
            put(&mut self.effort.by_team, self.team, more);
            put(&mut self.effort.by_service, self.service, more);
        } else if after < before {
            let less = before - after;
            count(Series::CorrectedEffort { affects, certainty, kind }, less);
            for (team, part) in take_back(&mut self.effort.by_team, less) {
                count(Series::TeamCorrectedEffort { affects, team }, part);
            }
            for (service, part) in take_back(&mut self.effort.by_service, less) {
                count(Series::ServiceCorrectedEffort { affects, service }, part);
            }
        }
    }

    /// Counts the time from opening to the first resolution, once.
    fn count_resolution(&mut self, arrival: Arrival, deltas: &mut Vec<Delta>) {
        if self.resolution_counted || !matches!(self.state, State::Resolved | State::Closed) {
            return;
        }
        let (Some(opened), Some(resolved)) = (self.opened_at, self.resolved_at) else { return };
        self.resolution_counted = true;
        let seconds = (resolved.as_second() - opened.as_second()).max(0);
        let bucket = RESOLUTION_BUCKETS.partition_point(|bound| *bound < seconds);
        let bucket = u8::try_from(bucket).unwrap_or(u8::MAX);
        let (affects, kind) = (self.verdict.affects, self.kind);
        deltas.push((arrival.partition, Series::ResolutionBucket { affects, kind, bucket }, 1));
        deltas.push((arrival.partition, Series::ResolutionSum { affects, kind }, seconds));
    }

    /// The figures of what is open now that the ticket is part of.
    fn open_series(&self) -> [Option<Series>; 2] {
        if !self.is_open() {
            return [None; 2];
        }
        let (affects, kind, service) = (self.verdict.affects, self.kind, self.service);
        let is_customer_incident = (affects, kind) == (Affects::Customer, Kind::Incident);
        [
            Some(Series::OpenTickets { affects, kind }),
            is_customer_incident.then_some(Series::OpenCustomerIncidents { service }),
        ]
    }

    /// Moves the ticket among the figures of what is open now, from those that it was part of before.
    fn count_open(&self, before: [Option<Series>; 2], deltas: &mut Vec<Delta>) {
        let now = self.open_series();
        if now != before {
            deltas.extend(before.into_iter().flatten().map(|series| (self.home, series, -1)));
            deltas.extend(now.into_iter().flatten().map(|series| (self.home, series, 1)));
        }
    }
}

/// Of the outcomes of the parts of one event, the one to report: applied if anything was, else stale if anything was.
pub fn best(a: Outcome, b: Outcome) -> Outcome {
    let rank = |outcome| match outcome {
        Outcome::Applied => 5,
        Outcome::Stale => 4,
        Outcome::Repeated => 3,
        Outcome::Late => 2,
        Outcome::Ignored => 1,
        Outcome::DeadLetter => 0,
    };
    if rank(b) > rank(a) { b } else { a }
}

/// Seconds as counted; more than fit (292 billion years) count as the most that do.
fn signed(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

fn put(split: &mut SmallVec<[(Label, u64); 1]>, label: Label, seconds: u64) {
    match split.iter().position(|(held, _)| *held == label) {
        Some(at) => {
            let (label, held) = split.remove(at);
            split.push((label, held.saturating_add(seconds)));
        }
        None => split.push((label, seconds)),
    }
}

/// Takes seconds back from whoever logged last; says from whom how much.
fn take_back(split: &mut SmallVec<[(Label, u64); 1]>, mut seconds: u64) -> Vec<(Label, u64)> {
    let mut parts = Vec::new();
    while let Some((label, held)) = split.pop() {
        let part = held.min(seconds);
        seconds -= part;
        if part > 0 {
            parts.push((label, part));
        }
        if held > part {
            split.push((label, held - part));
            break;
        }
    }
    parts
}
