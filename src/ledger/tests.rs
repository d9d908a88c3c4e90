//! The ledger's behaviour: stories of single tickets, and properties over random ones.

use proptest::prelude::*;

use super::*;
use crate::ticket::{Affects, Kind, State, Version, Worklog};
use crate::verdict::Class;

fn partition() -> Partition {
    Partition { topic: "itsm".into(), number: 0 }
}

fn event(key: &str, version: i64) -> Ticket {
    Ticket {
        key: key.into(),
        version: Some(Version { count: Some(version), time: None }),
        by_person: true,
        ..Ticket::default()
    }
}

fn declared(affects: Affects) -> Findings {
    Findings { declared: Some(affects), ..Findings::default() }
}

struct Story {
    ledger: Ledger,
    offset: i64,
}

impl Story {
    fn new() -> Self {
        Self { ledger: Ledger::new(Settings::default()), offset: 0 }
    }

    fn apply(&mut self, ticket: &Ticket, findings: Findings) -> Outcome {
        let number = self.ledger.partition(&partition());
        let outcome = self.ledger.apply("itsm", number, self.offset, ticket, findings);
        self.ledger.finish_record(number, self.offset, Some(self.offset), outcome);
        self.offset += 1;
        outcome
    }

    fn sum(&self, matches: impl Fn(Series) -> bool) -> i64 {
        let all = self.ledger.partitions().iter().flat_map(|p| p.counters.iter());
        all.filter(|(series, _)| matches(*series)).map(|(_, value)| value).sum()
    }

    /// Counted, less corrected and moved out, plus moved in.
    fn net_effort(&self, class: Class) -> i64 {
        let of = |affects, certainty| Class::of(affects, certainty) == class;
        self.sum(|s| matches!(s, Series::Effort { affects, certainty, .. } if of(affects, certainty)))
            - self.sum(|s| matches!(s, Series::CorrectedEffort { affects, certainty, .. } if of(affects, certainty)))
            - self.sum(|s| matches!(s, Series::ReclassifiedEffort { from, .. } if from == class))
            + self.sum(|s| matches!(s, Series::ReclassifiedEffort { to, .. } if to == class))
    }

    fn net_team(&self, team: &str, affects: Affects) -> i64 {
        let team = self.ledger.teams().find(team);
        let of = |label: Label| Some(label) == team;
        self.sum(|s| matches!(s, Series::TeamEffort { affects: a, team } if a == affects && of(team)))
            - self.sum(|s| matches!(s, Series::TeamCorrectedEffort { affects: a, team } if a == affects && of(team)))
            - self
                .sum(|s| matches!(s, Series::TeamReclassifiedEffort { team, from, .. } if from == affects && of(team)))
            + self.sum(|s| matches!(s, Series::TeamReclassifiedEffort { team, to, .. } if to == affects && of(team)))
    }
}

#[test]
fn a_ticket_is_counted_once_and_its_effort_moves_with_it() {
    let mut story = Story::new();
    let first = Ticket { effort_seconds: Some(600), group: Some("Desk".into()), ..event("a", 1) };
    assert_eq!(story.apply(&first, Findings::default()), Outcome::Applied);
    assert_eq!(story.net_effort(Class::InternalUnsure), 600);
    let second = Ticket { effort_seconds: Some(1000), group: Some("Shop".into()), ..event("a", 2) };
    story.apply(&second, declared(Affects::Customer));
    assert_eq!(story.net_effort(Class::InternalUnsure), 0);
    assert_eq!(story.net_effort(Class::Customer), 1000);
    assert_eq!(story.net_team("Desk", Affects::Customer), 600);
    assert_eq!(story.net_team("Shop", Affects::Customer), 400);
    assert_eq!(story.net_team("Desk", Affects::Internal), 0);
    assert_eq!(story.sum(|s| matches!(s, Series::Tickets { .. })), 1);
    assert_eq!(story.sum(|s| matches!(s, Series::ReclassifiedTickets { .. })), 1);
    assert_eq!(story.sum(|s| matches!(s, Series::ReclassifiedTouches { .. })), 1);
}

#[test]
fn the_order_is_by_version_not_by_arrival() {
    let mut story = Story::new();
    let at = |version, seconds| Ticket { effort_seconds: Some(seconds), ..event("a", version) };
    assert_eq!(story.apply(&at(2, 100), Findings::default()), Outcome::Applied);
    assert_eq!(story.apply(&at(1, 50), Findings::default()), Outcome::Stale);
    assert_eq!(story.apply(&at(2, 100), Findings::default()), Outcome::Repeated);
    assert_eq!(story.net_effort(Class::InternalUnsure), 100);
}

#[test]
fn effort_that_is_taken_back_is_counted_as_corrected() {
    let mut story = Story::new();
    let at = |version, seconds, team: &str| Ticket {
        effort_seconds: Some(seconds),
        group: Some(team.into()),
        ..event("a", version)
    };
    story.apply(&at(1, 100, "A"), declared(Affects::Customer));
    story.apply(&at(2, 300, "B"), Findings::default());
    story.apply(&at(3, 50, "B"), Findings::default());
    assert_eq!(story.net_effort(Class::Customer), 50);
    assert_eq!((story.net_team("A", Affects::Customer), story.net_team("B", Affects::Customer)), (50, 0));
    assert_eq!(story.sum(|s| matches!(s, Series::Effort { .. })), 300);
}

#[test]
fn pieces_of_work_are_counted_by_their_own_version_and_the_total_wins() {
    let mut story = Story::new();
    let work = |id: &str, seconds, version| Worklog {
        id: id.into(),
        seconds,
        version: Version { count: None, time: Some(version) },
    };
    let with = |worklog| Ticket { key: "a".into(), worklogs: vec![worklog], ..Ticket::default() };
    assert_eq!(story.apply(&with(work("w1", 60, 1)), Findings::default()), Outcome::Applied);
    assert_eq!(story.apply(&with(work("w1", 60, 1)), Findings::default()), Outcome::Repeated);
    assert_eq!(story.apply(&with(work("w2", 40, 1)), Findings::default()), Outcome::Applied);
    assert_eq!(story.apply(&with(work("w1", 0, 3)), Findings::default()), Outcome::Applied);
    assert_eq!(story.apply(&with(work("w1", 30, 2)), Findings::default()), Outcome::Stale);
    assert_eq!(story.net_effort(Class::InternalUnsure), 40);
    story.apply(&Ticket { effort_seconds: Some(500), ..event("a", 1) }, Findings::default());
    story.apply(&with(work("w3", 7, 9)), Findings::default());
    assert_eq!(story.net_effort(Class::InternalUnsure), 500);
}

#[test]
fn absent_is_not_cleared() {
    let mut story = Story::new();
    let full = Ticket { state: Some(State::Open), kind: Some(Kind::Change), group: Some("A".into()), ..event("a", 1) };
    story.apply(&full, declared(Affects::Customer));
    story.apply(&event("a", 2), Findings::default());
    let held = story.ledger.tickets().next().unwrap();
    assert_eq!((held.kind, held.state, held.verdict.affects), (Kind::Change, State::Open, Affects::Customer));
    assert_eq!(story.ledger.teams().name(held.team), "A");
}

#[test]
fn open_tickets_and_reopening() {
    let mut story = Story::new();
    let in_state = |version, state| Ticket { state: Some(state), ..event("a", version) };
    let incidents = |story: &Story| story.sum(|s| matches!(s, Series::OpenCustomerIncidents { .. }));
    story.apply(&in_state(1, State::Open), declared(Affects::Customer));
    assert_eq!(incidents(&story), 1);
    story.apply(&in_state(2, State::Resolved), Findings::default());
    assert_eq!(incidents(&story), 0);
    story.apply(&in_state(3, State::Open), Findings::default());
    assert_eq!(incidents(&story), 1);
    story.apply(&in_state(4, State::Open), declared(Affects::Internal));
    assert_eq!(incidents(&story), 0);
    assert_eq!(story.sum(|s| matches!(s, Series::OpenTickets { .. })), 1);
    assert_eq!(story.ledger.tickets().next().unwrap().reopened, 1);
}

#[test]
fn the_first_resolution_is_timed_once() {
    let mut story = Story::new();
    let at = |second| Some(jiff::Timestamp::from_second(second).unwrap());
    let base = Ticket { opened_at: at(0), resolved_at: at(3600), ..event("a", 1) };
    story.apply(&Ticket { state: Some(State::Open), ..base.clone() }, Findings::default());
    assert_eq!(story.sum(|s| matches!(s, Series::ResolutionBucket { .. })), 0);
    story.apply(&Ticket { state: Some(State::Resolved), ..event("a", 2) }, Findings::default());
    story.apply(&Ticket { state: Some(State::Closed), resolved_at: at(9999), ..event("a", 3) }, Findings::default());
    assert_eq!(story.sum(|s| matches!(s, Series::ResolutionBucket { bucket: 1, .. })), 1);
    assert_eq!(story.sum(|s| matches!(s, Series::ResolutionSum { .. })), 3600);
}

#[test]
fn a_closed_ticket_leaves_after_its_retention_and_later_events_are_late() {
    let settings = Settings { retention: Some(Duration::from_secs(10)), ..Settings::default() };
    let mut ledger = Ledger::new(settings);
    let number = ledger.partition(&partition());
    let closed = Ticket { state: Some(State::Closed), ..event("a", 1) };
    assert_eq!(ledger.apply("itsm", number, 1_000, &closed, Findings::default()), Outcome::Applied);
    ledger.finish_record(number, 0, Some(11_000), Outcome::Applied);
    ledger.retire();
    assert_eq!(ledger.tickets().count(), 1, "not yet over");
    ledger.finish_record(number, 1, Some(1_795_955_017_588_000), Outcome::Ignored);
    ledger.retire();
    assert_eq!(ledger.tickets().count(), 1, "that is no time");
    ledger.finish_record(number, 2, Some(11_001), Outcome::Ignored);
    ledger.retire();
    assert_eq!(ledger.tickets().count(), 0);
    assert_eq!(ledger.apply("itsm", number, 12_000, &event("a", 2), Findings::default()), Outcome::Late);
}

#[test]
fn whether_an_event_is_late_does_not_depend_on_where_batches_end() {
    let settings = Settings { retention: Some(Duration::from_secs(10)), ..Settings::default() };
    for retired_between in [false, true] {
        let mut ledger = Ledger::new(settings);
        let number = ledger.partition(&partition());
        let closed = Ticket { state: Some(State::Closed), ..event("a", 1) };
        ledger.apply("itsm", number, 1_000, &closed, Findings::default());
        ledger.finish_record(number, 0, Some(11_001), Outcome::Applied);
        if retired_between {
            ledger.retire();
        }
        let outcome = ledger.apply("itsm", number, 11_001, &event("a", 2), Findings::default());
        assert_eq!(outcome, Outcome::Late, "retired at the end of a batch before: {retired_between}");
        assert_eq!(ledger.tickets().count(), 0);
    }
}

#[test]
fn names_beyond_the_cap_share_a_label() {
    let mut labels = Labels::new(2);
    let [a, b, c] = ["A", "B", "C"].map(|name| labels.label(name));
    assert_eq!([labels.name(a), labels.name(b), labels.name(c)], ["A", "B", "other"]);
    assert_eq!(labels.label(" A "), a);
    assert_eq!(labels.label(" "), Label::NONE);
}

/// One event of a random story: ticket, version, effort, tag, state, team.
type Step = (u8, i64, u64, Option<bool>, u8, u8);

fn step(story: &mut Story, (key, version, seconds, customer, state, team): Step) {
    let state = State::ALL[usize::from(state) % State::ALL.len()];
    let ticket = Ticket {
        effort_seconds: Some(seconds),
        state: Some(state),
        group: Some(format!("team {team}").into()),
        ..event(&format!("t{key}"), version)
    };
    let affects = customer.map(|yes| if yes { Affects::Customer } else { Affects::Internal });
    story.apply(&ticket, Findings { declared: affects, ..Findings::default() });
}

proptest! {
    #[test]
    fn net_figures_are_what_the_tickets_hold(steps in prop::collection::vec((0u8..6, 0i64..9, 0u64..5000, any::<Option<bool>>(), any::<u8>(), 0u8..4), 0..80)) {
        let mut story = Story::new();
        let mut shown: HashMap<Series, i64> = HashMap::new();
        for one in steps {
            step(&mut story, one);
            for (series, value) in story.ledger.partitions()[0].counters.iter() {
                let before = shown.insert(series, value).unwrap_or_default();
                prop_assert!(series.is_gauge() || value >= before, "{series:?} fell from {before} to {value}");
            }
        }
        for &class in Class::ALL {
            let held: u64 = story.ledger.tickets().filter(|t| t.verdict.class() == class).map(|t| t.effort.seconds()).sum();
            prop_assert_eq!(story.net_effort(class), signed(held));
        }
        let open = story.ledger.tickets().filter(|t| t.is_open()).count();
        prop_assert_eq!(story.sum(|s| matches!(s, Series::OpenTickets { .. })), signed(open as u64));
        for team in 0..4 {
            let name = format!("team {team}");
            for &affects in Affects::ALL {
                let tickets = story.ledger.tickets().filter(|t| t.verdict.affects == affects);
                let label = story.ledger.teams().find(&name);
                let held: u64 = tickets.flat_map(|t| t.effort.by_team.iter()).filter(|(l, _)| Some(*l) == label).map(|(_, s)| s).sum();
                prop_assert_eq!(story.net_team(&name, affects), signed(held));
            }
        }
    }

    #[test]
    fn what_is_held_does_not_depend_on_the_order_of_arrival(versions in Just((0i64..7).collect::<Vec<_>>()).prop_shuffle()) {
        let mut story = Story::new();
        for version in &versions {
            let customer = version % 2 == 0;
            step(&mut story, (0, *version, 100 * version.unsigned_abs(), Some(customer), 1, 0));
            step(&mut story, (0, *version, 0, Some(!customer), 1, 0));
        }
        let held = story.ledger.tickets().next().unwrap();
        prop_assert_eq!(held.effort.seconds(), 600);
        prop_assert_eq!(held.verdict.affects, Affects::Customer);
        prop_assert_eq!(story.net_effort(Class::Customer), 600);
        prop_assert_eq!(story.net_effort(Class::Internal), 0);
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap()
}

#[test]
fn the_form_of_a_tickets_identity_never_changes() {
    assert_eq!(TicketKey::of("servicenow", "INC0012345").0, 0xad8c7907_e20aca54_a3694b84_e9c2688b);
    assert_eq!(TicketKey::of("servicenow", &"k".repeat(300)).0, 0x57a97885_016e288b_583387f3_7f2dcef5);
}
