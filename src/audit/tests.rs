//! The ledger and the recount see the same records and must say the same.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use rusqlite::{Connection, params};

use super::*;
use crate::journal::{SqliteJournal, codec};
use crate::ledger::{Ledger, Series, Settings, best};
use crate::outcome::Outcome;
use crate::ticket::{Affects, Kind, State, Version, Worklog};

/// A ledger and a recount that see the same records.
struct Both {
    ledgers: Ledgers,
    settings: Settings,
    records: Vec<(Partition, i64, i64, Content)>,
}

fn partition(number: i32) -> Partition {
    Partition { topic: "itsm".into(), number }
}

impl Both {
    fn new(settings: Settings) -> Self {
        Self::with(Ledgers::one(Ledger::new(settings)), settings)
    }

    fn with(ledgers: Ledgers, settings: Settings) -> Self {
        Self { ledgers, settings, records: Vec::new() }
    }

    fn ledger(&mut self, of: &Partition) -> &mut Ledger {
        if self.ledgers.of(of).is_none() {
            self.ledgers.insert(of, Ledger::new(self.settings));
        }
        self.ledgers.of_mut(of).unwrap()
    }

    fn see(&mut self, partition: &Partition, time: i64, content: Content) -> Outcome {
        let ledger = self.ledger(partition);
        let number = ledger.partition(partition);
        let offset = ledger.partitions()[number as usize].next_offset;
        let outcome = match &content {
            Content::Refused => Outcome::DeadLetter,
            Content::Ignored => Outcome::Ignored,
            Content::Tickets(source, tickets) => tickets
                .iter()
                .map(|(ticket, findings)| ledger.apply(source, number, time, ticket, findings.clone()))
                .reduce(best)
                .unwrap_or(Outcome::Ignored),
        };
        ledger.finish_record(number, offset, Some(time), outcome);
        self.records.push((partition.clone(), offset, time, content));
        outcome
    }

    fn ticket(&mut self, time: i64, ticket: Ticket, findings: Findings) -> Outcome {
        self.see(&partition(0), time, Content::Tickets("s".to_owned(), vec![(ticket, findings)]))
    }

    fn coverage(&self) -> BTreeMap<Partition, Coverage> {
        let mut coverage = uncovered(&self.ledgers);
        for (partition, offset, time, _) in &self.records {
            coverage.get_mut(partition).unwrap().see(*offset, Some(*time));
        }
        coverage
    }

    fn recount(&self) -> Recount {
        let see_all = |mut recount: Recount| {
            for (partition, offset, time, content) in &self.records {
                recount.see(partition, *offset, Some(*time), content.clone());
            }
            recount
        };
        let first = see_all(Recount::new(Rules::of(&self.ledgers, self.settings)));
        first.again().map_or(first, see_all)
    }

    fn report(self) -> Report {
        compare(&self.ledgers, self.recount(), &self.coverage())
    }

    fn assert_exact(self) -> Report {
        let report = self.report();
        assert!(report.exact, "{report}");
        report
    }
}

fn event(key: &str, version: i64) -> Ticket {
    let version = Some(Version { count: Some(version), time: None });
    Ticket { key: key.into(), version, by_person: true, ..Ticket::default() }
}

fn declared(affects: Affects) -> Findings {
    Findings { declared: Some(affects), ..Findings::default() }
}

fn work(id: &str, seconds: u64, time: i64) -> Worklog {
    Worklog { id: id.into(), seconds, version: Version { count: None, time: Some(time) } }
}

fn at(second: i64) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_second(second).ok()
}

#[test]
fn repeats_stale_versions_and_corrections_agree() {
    let mut both = Both::new(Settings::default());
    let logged = |version, seconds, team: &str| Ticket {
        effort_seconds: Some(seconds),
        group: Some(team.into()),
        ..event("a", version)
    };
    for (version, seconds, team) in
        [(1, 100, "A"), (3, 400, "B"), (2, 50, "C"), (3, 400, "B"), (4, 450, "A"), (5, 30, "B")]
    {
        both.ticket(version, logged(version, seconds, team), declared(Affects::Customer));
    }
    let report = both.assert_exact();
    assert_eq!((report.tickets, report.effort_seconds), (1, 30));
    assert!(report.to_string().starts_with("exact: "), "{report}");
}

#[test]
fn a_ticket_that_moves_to_another_class_and_team_agrees() {
    let mut both = Both::new(Settings::default());
    let logged = |version, seconds, team: &str| Ticket {
        effort_seconds: Some(seconds),
        group: Some(team.into()),
        service: Some(team.into()),
        ..event("a", version)
    };
    both.ticket(1, logged(1, 100, "A"), Findings::default());
    both.ticket(2, logged(2, 300, "B"), declared(Affects::Customer));
    both.ticket(3, logged(3, 300, "C"), declared(Affects::Internal));
    both.ticket(4, logged(4, 120, "C"), declared(Affects::Customer));
    both.assert_exact();
}

#[test]
fn pieces_of_work_agree_until_the_total_wins() {
    let mut both = Both::new(Settings::default());
    let with = |worklogs: Vec<Worklog>| Ticket { key: "a".into(), worklogs, ..Ticket::default() };
    for worklogs in [
        vec![work("w1", 60, 1), work("w2", 40, 1)],
        vec![work("w1", 60, 1)],
        vec![work("w1", 0, 3)],
        vec![work("w1", 30, 2), work("w3", 7, 1)],
    ] {
        both.ticket(1, with(worklogs), Findings::default());
    }
    both.ticket(2, Ticket { effort_seconds: Some(500), ..event("a", 1) }, Findings::default());
    both.ticket(3, with(vec![work("w4", 9, 9)]), Findings::default());
    assert_eq!(both.assert_exact().effort_seconds, 500);
}

#[test]
fn reopened_deleted_and_merged_tickets_agree() {
    let mut both = Both::new(Settings::default());
    let in_state = |key: &str, version, state| Ticket {
        state: Some(state),
        opened_at: at(0),
        resolved_at: at(4_000),
        service: Some("shop".into()),
        ..event(key, version)
    };
    for (version, state) in [(1, State::Open), (2, State::Resolved), (3, State::Open), (4, State::Closed)] {
        both.ticket(version, in_state("reopened", version, state), declared(Affects::Customer));
    }
    both.ticket(5, in_state("deleted", 1, State::Open), declared(Affects::Customer));
    both.ticket(6, Ticket { deleted: true, ..event("deleted", 2) }, Findings::default());
    both.ticket(7, in_state("merged", 1, State::Pending), Findings::default());
    both.ticket(8, Ticket { merged_into: Some("deleted".into()), ..event("merged", 2) }, Findings::default());
    both.ticket(9, in_state("open", 1, State::Open), declared(Affects::Customer));
    both.assert_exact();
}

#[test]
fn late_events_and_retired_tickets_agree() {
    let settings = Settings { retention: Some(Duration::from_millis(10)), ..Settings::default() };
    let mut both = Both::new(settings);
    both.ticket(0, Ticket { state: Some(State::Closed), ..event("a", 1) }, Findings::default());
    both.ticket(10, event("b", 1), Findings::default());
    both.ticket(1_795_955_017_588_000, event("c", 1), Findings::default());
    assert_eq!(both.ticket(10, event("a", 2), Findings::default()), Outcome::Applied, "not yet over");
    both.ticket(21, event("b", 2), Findings::default());
    assert_eq!(both.ticket(21, event("a", 3), Findings::default()), Outcome::Late);
    both.ledgers.retire();
    both.assert_exact();
}

#[test]
fn names_beyond_the_cap_agree() {
    let mut both = Both::new(Settings { team_cap: 2, ..Settings::default() });
    for (version, team) in [(1_i64, "A"), (2, "B"), (3, "C"), (4, " A "), (5, " ")] {
        let ticket = Ticket {
            group: Some(team.into()),
            effort_seconds: Some(version.unsigned_abs() * 60),
            ..event("a", version)
        };
        both.ticket(version, ticket, Findings::default());
    }
    both.assert_exact();
}

#[test]
fn a_ticket_of_several_partitions_is_said_not_to_be_vouched_for() {
    let mut both = Both::new(Settings::default());
    let content = |version, affects| {
        Content::Tickets(
            "s".to_owned(),
            vec![(Ticket { effort_seconds: Some(60), ..event("a", version) }, declared(affects))],
        )
    };
    // Taken in another order than the times say: the journal counts a move that the recount does not see.
    both.see(&partition(0), 9, content(1, Affects::Customer));
    both.see(&partition(1), 5, content(2, Affects::Internal));
    let report = both.report();
    assert!(!report.exact && !report.found(), "{report}");
    assert!(!report.not_vouched_for.is_empty());
    assert!(report.to_string().contains("1 tickets came by several partitions"), "{report}");
}

#[test]
fn records_that_are_gone_are_named_and_what_came_later_is_still_compared() {
    let mut both = Both::new(Settings::default());
    let hour = 3_600_000;
    let old = |version| Ticket { opened_at: at(0), effort_seconds: Some(60), ..event("old", version) };
    let new = Ticket { opened_at: at(4 * 3_600), effort_seconds: Some(60), ..event("new", 1) };
    both.ticket(hour, old(1), Findings::default());
    both.records.clear();
    both.ticket(2 * hour, old(2), Findings::default());
    both.ticket(5 * hour, new, declared(Affects::Customer));
    let mut coverage = both.coverage();
    coverage.get_mut(&partition(0)).unwrap().start = 1;
    let report = compare(&both.ledgers, both.recount(), &coverage);
    assert!(!report.exact && !report.found(), "{report}");
    assert_eq!(report.tickets_cut_off, 1);
    let text = report.to_string();
    assert!(
        text.contains(
            "1 records that were counted are gone from the topic; it begins at offset 1, 1970-01-01T02:00:00Z"
        ),
        "{text}"
    );
    assert!(text.contains("counters differ and cannot be vouched for"), "{text}");
}

#[test]
fn a_record_that_the_journal_lost_is_found_with_its_ticket() {
    let mut both = Both::new(Settings::default());
    both.ticket(1, event("a", 1), Findings::default());
    let ticket = Ticket { effort_seconds: Some(60), ..event("b", 1) };
    let content = Content::Tickets("s".to_owned(), vec![(ticket, Findings::default())]);
    both.records.push((partition(0), 1, 2, content));
    let report = both.report();
    assert!(report.found());
    let text = report.to_string();
    assert!(
        text.contains(
            "records_total{outcome=\"applied\",partition=\"0\",topic=\"itsm\"}: journal 1, recomputed 2, difference -1"
        ),
        "{text}"
    );
    assert!(text.contains("b of s, last at itsm[0] offset 1\njournal     unknown\nrecomputed  internal (default, none), incident, new, 60 s, 1 touches, version 1"), "{text}");
}

/// Adds 1 to one counter of a journal's only partition, with a right checksum.
fn tamper(folder: &Path, series: Series) {
    let connection = Connection::open(folder.join("journal.sqlite")).unwrap();
    let blocks: Vec<(Vec<u8>, Vec<u8>)> = connection
        .prepare("SELECT key, value FROM entry WHERE substr(key, 1, 1) = x'63'")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for (key, value) in blocks {
        let mut block: Vec<(Series, i64)> = codec::decode(&key, &value).unwrap();
        if let Some((_, count)) = block.iter_mut().find(|(counted, _)| *counted == series) {
            *count += 1;
            let value = codec::encode(&key, &block, Vec::new()).unwrap();
            connection.execute("UPDATE entry SET value = ? WHERE key = ?", params![value, key]).unwrap();
        }
    }
}

#[test]
fn a_counter_that_was_changed_in_the_journal_is_found_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = SqliteJournal::open(folder.path()).unwrap();
    let mut both = Both::new(Settings::default());
    for version in 1_i64..9 {
        let ticket = Ticket { effort_seconds: Some(version.unsigned_abs() * 60), ..event("a", version) };
        both.ticket(version, ticket, declared(Affects::Customer));
    }
    let ledger = both.ledger(&partition(0));
    journal.commit(ledger).unwrap();
    let read = || Ledgers::one(SqliteJournal::read(folder.path(), Settings::default()).unwrap());
    let coverage = both.coverage();
    let before = compare(&read(), both.recount(), &coverage);
    let (affects, certainty) = (Affects::Customer, crate::verdict::Certainty::Clear);
    tamper(folder.path(), Series::Effort { affects, certainty, kind: Kind::Incident });
    let after = compare(&read(), both.recount(), &coverage);
    assert!(before.exact, "{before}");
    let [difference] = &after.differences[..] else { panic!("{after}") };
    assert_eq!((difference.journal, difference.recomputed, difference.difference), (481, 480, 1));
    let name = "effort_seconds_total{affects=\"customer\",certainty=\"clear\",kind=\"incident\",partition=\"0\",topic=\"itsm\"}";
    assert_eq!(difference.counter, name);
    assert!(after.found());
}

/// One random event: ticket, version, effort, tag, state, team, time, and what is special about it.
type Step = ((u8, Option<i64>, Option<u64>, Option<bool>), (u8, u8, i64, u8));

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let what = (0u8..5, prop::option::weighted(0.9, 0i64..8), prop::option::of(0u64..5000), any::<Option<bool>>());
    let how = (any::<u8>(), 0u8..5, 0i64..40, any::<u8>());
    prop::collection::vec((what, how), 0..80)
}

fn content(((key, version, seconds, customer), (state, team, time, special)): Step) -> Content {
    let ticket = Ticket {
        version: version.map(|count| Version {
            count: (special % 7 != 0).then_some(count),
            time: (special % 3 != 0).then_some(count * 10),
        }),
        kind: Kind::ALL.get(usize::from(special % 9)).copied(),
        kind_assumed: special % 5 == 0,
        state: State::ALL.get(usize::from(state % 8)).copied(),
        group: (team > 0).then(|| format!("team {team}").into()),
        service: (special % 4 > 0).then(|| format!("service {}", special % 4).into()),
        ci: (special % 4 == 1).then(|| "host".into()),
        effort_seconds: seconds.filter(|_| special % 2 == 0),
        worklogs: seconds.iter().filter(|_| special % 6 == 1).map(|s| work(&format!("w{team}"), *s, time)).collect(),
        opened_at: at(1_000).filter(|_| special % 3 == 0),
        resolved_at: at(1_000 + 4_000 * time).filter(|_| state % 2 == 0),
        by_person: special % 8 < 5,
        deleted: special % 31 == 0,
        merged_into: (special % 29 == 0).then(|| "other".into()),
        ..event(&format!("t{key}"), 0)
    };
    let affects = customer.map(|yes| if yes { Affects::Customer } else { Affects::Internal });
    let findings = Findings {
        declared: affects.filter(|_| special % 2 == 0),
        requester_external: customer.filter(|_| special % 5 == 1),
        ..Findings::default()
    };
    match special % 40 {
        38 => Content::Refused,
        39 => Content::Ignored,
        37 => {
            let other = Ticket { key: "t0".into(), ..ticket.clone() };
            Content::Tickets("s".to_owned(), vec![(ticket, findings.clone()), (other, findings)])
        }
        _ => Content::Tickets("s".to_owned(), vec![(ticket, findings)]),
    }
}

proptest! {
    #[test]
    fn any_history_gives_the_same_figures_and_tickets(steps in steps(), batch in 1usize..10, cap in 0usize..4, retention in 5u64..60, each: bool) {
        let retention = Some(Duration::from_millis(retention));
        let settings = Settings { team_cap: cap, service_cap: cap, retention, ..Settings::default() };
        let ledgers = if each { Ledgers::Each(BTreeMap::new()) } else { Ledgers::one(Ledger::new(settings)) };
        let mut both = Both::with(ledgers, settings);
        let mut now = 0;
        for (at, step) in steps.into_iter().enumerate() {
            now += step.1.2 / 8;
            let content = content(step);
            both.see(&partition(i32::from(step.0.0 % 2)), now - step.1.2 % 5, content);
            if at % batch == 0 {
                both.ledgers.retire();
            }
        }
        both.ledgers.retire();
        let report = both.report();
        prop_assert!(report.exact || report.tickets_of_several_partitions > 0, "{}", report);
        prop_assert!(!report.found(), "{}", report);
    }
}
