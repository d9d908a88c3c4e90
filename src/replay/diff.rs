//! What if: the same records tagged by two sets of rules, and what moves between customer and internal.
//!
//! *Before* are the rules that count, *after* those of the shadow. A ticket flips when its tag changes; that its class
//! only becomes more or less sure shows in the two reports.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::report::{grouped, hours};
use super::table::TextTable;
use super::{Report, Share, Truth};
use crate::classify::Classifier;
use crate::ledger::{Held, Ledger, Slot, TicketKey};
use crate::pipeline::Pipeline;
use crate::ticket::{Affects, names};
use crate::verdict::{Basis, Certainty, Class, Findings, Points, RuleId, Verdict};

/// How many rows of each table people get to see.
const ROWS: usize = 10;

/// What moves in one direction and back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// Internal before, customer after.
    pub to_customer: Share,
    /// Customer before, internal after.
    pub to_internal: Share,
}

impl Moved {
    fn add(&mut self, to: Affects, held: &Held) {
        match to {
            Affects::Customer => self.to_customer.add(held),
            Affects::Internal => self.to_internal.add(held),
        }
    }

    /// Effort that moves either way, in seconds.
    fn effort_seconds(&self) -> u64 {
        self.to_customer.effort_seconds.saturating_add(self.to_internal.effort_seconds)
    }

    fn tickets(&self) -> u64 {
        self.to_customer.tickets + self.to_internal.tickets
    }
}

/// A ticket's tag on one side.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Tag {
    /// The class that its effort counts under.
    pub class: Class,
    /// What decided.
    pub basis: Basis,
    /// How far the tag can be trusted.
    pub certainty: Certainty,
    /// Customer weights less internal weights, in points.
    pub score: f64,
}

impl From<Verdict> for Tag {
    fn from(verdict: Verdict) -> Self {
        let Verdict { basis, certainty, score, .. } = verdict;
        Self { class: verdict.class(), basis, certainty, score: f64::from(score) / 100.0 }
    }
}

names! {
    /// What became of the rule that turned a tag.
    How {
        /// It counts now, and did not before.
        New = "new",
        /// It counted before, and does no longer.
        Gone = "gone",
        /// It counts on both sides, with another weight.
        Reweighted = "reweighted",
    }
}

/// The rule that did most to turn a tag.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Through {
    /// Its full name.
    pub rule: String,
    /// What became of it.
    pub how: How,
    /// By how much it moved the score, in points; above 0 towards the customer.
    pub points: f64,
}

/// A ticket whose tag changes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flip {
    /// What people see.
    pub id: String,
    /// Its tag before.
    pub before: Tag,
    /// Its tag after.
    pub after: Tag,
    /// The rule that did most.
    pub through: Option<Through>,
    /// Its team.
    pub team: String,
    /// Its service.
    pub service: String,
    /// When it was opened.
    pub opened_at: Option<Timestamp>,
    /// Effort that moves, in seconds.
    pub effort_seconds: u64,
    /// Touches that move.
    pub touches: u32,
}

/// Two sets of rules on the same records.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// The net figures before.
    pub before: Report,
    /// The net figures after.
    pub after: Report,
    /// All that moves.
    pub moved: Moved,
    /// By team.
    pub by_team: BTreeMap<String, Moved>,
    /// By service.
    pub by_service: BTreeMap<String, Moved>,
    /// By the month in which the ticket was opened, in UTC (`2026-03`); `unknown` where that is not known.
    pub by_month: BTreeMap<String, Moved>,
    /// Every ticket whose tag changes, the most effort first.
    pub flips: Vec<Flip>,
}

impl Comparison {
    /// Compares the tickets of a pipeline with those of its shadow; `None` where it has none.
    pub fn new(pipeline: &Pipeline, truth: Option<&Truth>) -> Option<Self> {
        let (ledger, shadow) = (pipeline.ledger(), pipeline.shadow()?);
        let mut comparison = Self {
            before: Report::new(ledger, truth),
            after: Report::new(shadow.ledger, truth),
            moved: Moved::default(),
            by_team: BTreeMap::new(),
            by_service: BTreeMap::new(),
            by_month: BTreeMap::new(),
            flips: Vec::new(),
        };
        for before in ledger.tickets() {
            let key = TicketKey::of(&before.source, &before.key);
            let Some(Slot::Held(after)) = shadow.ledger.ticket(key) else { continue };
            if before.verdict.affects != after.verdict.affects {
                let through = Through::of(&before.findings, &after.findings, after.verdict.affects, |rule| {
                    name(rule, [shadow.classifier, pipeline.classifier()])
                });
                comparison.add(before, after, through, ledger);
            }
        }
        comparison
            .flips
            .sort_by(|a, b| (b.effort_seconds, b.touches, &a.id).cmp(&(a.effort_seconds, a.touches, &b.id)));
        Some(comparison)
    }

    fn add(&mut self, before: &Held, after: &Held, through: Option<Through>, ledger: &Ledger) {
        let team = ledger.teams().name(before.team).to_owned();
        let service = ledger.services().name(before.service).to_owned();
        let month = before.opened_at.map_or("unknown".to_owned(), |time| time.strftime("%Y-%m").to_string());
        let to = after.verdict.affects;
        self.moved.add(to, before);
        self.by_team.entry(team.clone()).or_default().add(to, before);
        self.by_service.entry(service.clone()).or_default().add(to, before);
        self.by_month.entry(month).or_default().add(to, before);
        self.flips.push(Flip {
            id: before.id.to_string(),
            before: before.verdict.into(),
            after: after.verdict.into(),
            through,
            team,
            service,
            opened_at: before.opened_at,
            effort_seconds: before.effort.seconds(),
            touches: before.touches,
        });
    }

    /// For people: the figures, what moves by team, service and month, and at most `show` flips.
    ///
    /// # Errors
    /// None but those of the formatter.
    pub fn text(&self, show: usize) -> Result<String, fmt::Error> {
        let mut text = String::new();
        let Moved { to_customer, to_internal } = self.moved;
        writeln!(text, "{} of {} tickets change their tag.\n", grouped(self.moved.tickets()), grouped(self.tickets()))?;
        let mut moved = TextTable::new(1, &["", "tickets", "effort", "touches"]);
        for (direction, share) in [("internal → customer", to_customer), ("customer → internal", to_internal)] {
            let Share { tickets, effort_seconds, touches } = share;
            moved.push(vec![direction.to_owned(), grouped(tickets), hours(effort_seconds), grouped(touches)]);
        }
        writeln!(text, "{moved}")?;
        for (side, report) in [("before", &self.before), ("after", &self.after)] {
            writeln!(text, "{side:<6}  {}", headline(report))?;
        }
        if self.flips.is_empty() {
            return Ok(text);
        }
        for (title, rows) in [("team", &self.by_team), ("service", &self.by_service), ("month opened", &self.by_month)]
        {
            write!(text, "\n{}", moved_table(title, rows))?;
        }
        write!(text, "\n{}", self.flips_table(show))?;
        let more = self.flips.len().saturating_sub(show);
        if more > 0 {
            writeln!(text, "{more} more; `--show {}` or `--format json` shows them all", self.flips.len())?;
        }
        Ok(text)
    }

    fn tickets(&self) -> u64 {
        self.before.classes.values().map(|share| share.tickets).sum()
    }

    fn flips_table(&self, show: usize) -> TextTable {
        let mut table = TextTable::new(5, &["ticket", "from", "to", "decided by", "through", "effort"]);
        for flip in self.flips.iter().take(show) {
            let decided = |tag: &Tag| format!("{} ({})", tag.basis, tag.certainty);
            let through = flip.through.as_ref().map_or(String::new(), Through::to_string);
            table.push(vec![
                flip.id.clone(),
                flip.before.class.to_string(),
                flip.after.class.to_string(),
                format!("{} → {}", decided(&flip.before), decided(&flip.after)),
                through,
                hours(flip.effort_seconds),
            ]);
        }
        table
    }
}

/// Effort and tickets that reach the customer and, with a truth, how good the tags are.
fn headline(report: &Report) -> String {
    let band = |band: Option<super::Band>| band.map_or("unknown".to_owned(), |band| band.to_string());
    let truth = report.agreement.as_ref().map(|compared| {
        let shown = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.3}"));
        format!("; precision {}, recall {}", shown(compared.precision), shown(compared.recall))
    });
    let (effort, tickets) = (band(report.effort), band(report.tickets));
    format!("customer's share of effort {effort}, of tickets {tickets}{}", truth.unwrap_or_default())
}

/// The rows that move most, and how many more there are.
fn moved_table(title: &str, rows: &BTreeMap<String, Moved>) -> String {
    let mut sorted: Vec<_> = rows.iter().collect();
    let size = |moved: &Moved| (moved.effort_seconds(), moved.tickets());
    sorted.sort_by_key(|(_, moved)| std::cmp::Reverse(size(moved)));
    let mut table = TextTable::new(1, &[title, "→ customer", "tickets", "→ internal", "tickets"]);
    for (name, Moved { to_customer, to_internal }) in sorted.iter().take(ROWS) {
        table.push(vec![
            (*name).clone(),
            hours(to_customer.effort_seconds),
            grouped(to_customer.tickets),
            hours(to_internal.effort_seconds),
            grouped(to_internal.tickets),
        ]);
    }
    match sorted.len().saturating_sub(ROWS) {
        0 => table.to_string(),
        more => format!("{table}and {more} more\n"),
    }
}

/// The name of a rule in the first classifier that knows it.
fn name(rule: RuleId, classifiers: [&Classifier; 2]) -> String {
    let known = classifiers.iter().find_map(|classifier| classifier.rule(rule));
    known.map_or("(unknown)".to_owned(), |info| info.name.clone())
}

impl Through {
    /// The rule that moved the score furthest towards the side that won.
    fn of(before: &Findings, after: &Findings, to: Affects, name: impl Fn(RuleId) -> String) -> Option<Self> {
        let towards = |points: Points| if to == Affects::Customer { points } else { -points };
        let weight =
            |findings: &Findings, rule| findings.counting().find(|evidence| evidence.rule == rule).map(|e| e.weight);
        let shifts = after.counting().chain(before.counting()).map(|evidence| {
            let (old, new) = (weight(before, evidence.rule), weight(after, evidence.rule));
            let how = match (old, new) {
                (None, _) => How::New,
                (_, None) => How::Gone,
                _ => How::Reweighted,
            };
            (evidence.rule, how, new.unwrap_or_default() - old.unwrap_or_default())
        });
        // What counts now comes first, so that it explains more than what is gone.
        let (rule, how, points) = shifts.min_by_key(|(_, _, points)| std::cmp::Reverse(towards(*points)))?;
        (towards(points) > 0).then(|| Self { rule: name(rule), how, points: f64::from(points) / 100.0 })
    }
}

impl fmt::Display for Through {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:+.2} ({})", self.rule, self.points, self.how)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Replay;
    use super::super::testing::Site;
    use super::*;
    use crate::ticket::TextField;
    use crate::verdict::Evidence;

    fn findings(rules: &[(&str, Points)]) -> Findings {
        let evidence = |(rule, weight): &(&str, Points)| Evidence {
            rule: RuleId::of(rule),
            field: TextField::Summary,
            start: 0,
            end: 1,
            weight: *weight,
        };
        Findings { evidence: rules.iter().map(evidence).collect(), ..Findings::default() }
    }

    fn through(before: &[(&str, Points)], after: &[(&str, Points)], to: Affects) -> Option<(How, f64)> {
        let found = Through::of(&findings(before), &findings(after), to, |_| String::new());
        found.map(|through| (through.how, through.points))
    }

    #[test]
    fn the_other_side_is_what_a_replay_with_those_packs_gives() {
        let rule = |id: &str, affects: &str, phrase: &str| {
            format!("[[rule]]\nid = '{id}'\naffects = '{affects}'\nweight = 5\nphrases = ['{phrase}']\n")
        };
        let dump = "id,summary,description,effort_seconds,version\n\
            1,webshop down,on the gate,60,1\n1,gate open,,90,2\n2,webshop down,,60,1\n2,webshop,gate,30,1\n3,lift,,5,\n";
        let mut site = Site::new(dump, &rule("shop", "customer", "webshop"));
        let other = site.path().join("other");
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join("a.toml"), rule("gate", "internal", "gate")).unwrap();
        let against = [other.clone()];
        let replay = Replay { dumps: site.dumps(), tagged: None, dead_letters: None, truth: None, against: &against };
        let comparison = Comparison::new(&replay.run(&site.config).unwrap(), None).unwrap();
        let json = |report: &Report| serde_json::to_value(report).unwrap();
        assert_eq!(json(&comparison.before), json(&Report::new(site.replayed(None).ledger(), None)));
        site.config.patterns.packs.push(other);
        assert_eq!(json(&comparison.after), json(&Report::new(site.replayed(None).ledger(), None)));
        assert_ne!(json(&comparison.before), json(&comparison.after));
        assert!(Comparison::new(&site.replayed(None), None).is_none(), "nothing to compare with");
    }

    #[test]
    fn a_flip_goes_back_to_the_rule_that_moved_the_score_furthest() {
        let old = [("a", -300), ("b", 200)];
        assert_eq!(through(&old, &[("a", -300), ("b", 200), ("c", 500)], Affects::Customer), Some((How::New, 5.0)));
        assert_eq!(through(&old, &[("b", 200)], Affects::Customer), Some((How::Gone, 3.0)));
        assert_eq!(through(&old, &[("a", -100), ("b", 200)], Affects::Customer), Some((How::Reweighted, 2.0)));
        assert_eq!(
            through(&old, &[("b", 200), ("c", 300)], Affects::Customer),
            Some((How::New, 3.0)),
            "new before gone"
        );
        assert_eq!(through(&[("b", 200)], &[], Affects::Internal), Some((How::Gone, -2.0)));
        assert_eq!(through(&old, &old, Affects::Customer), None);
    }
}
