//! What each rule does on a dump: how often it speaks, what hangs on it, how often it is right, and what it costs.

use std::cmp::Reverse;
use std::fmt;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use rayon::prelude::*;
use serde::Serialize;

use super::report::{grouped, hours};
use super::table::TextTable;
use super::{BATCH, Dumps, Share, Truth};
use crate::classify::explain::weight;
use crate::classify::{Classifier, RuleInfo, Scratch};
use crate::config::Config;
use crate::ledger::Held;
use crate::pipeline::Pipeline;
use crate::ticket::{Affects, Ticket};
use crate::verdict::{Basis, Findings, Policy, RuleId};

/// How many events are timed: enough for a steady mean, few enough to be done in a moment on one core.
const TIMED: u64 = 20_000;

/// What all rules do.
#[derive(Debug, Serialize)]
pub struct Stats {
    /// Tickets, each as of its last version.
    pub tickets: u64,
    /// The mean time it takes one core to classify one event, in microseconds; `None` where there is no event.
    pub classify_microseconds: Option<f64>,
    /// The events that this was measured on: the first of the dumps.
    pub timed_events: u64,
    /// All matches of all rules in all events, those that do not count included.
    pub matches: u64,
    /// Every rule, by the effort that it decides.
    pub rules: Vec<RuleStats>,
}

/// What one rule does.
#[derive(Clone, Debug, Serialize)]
pub struct RuleStats {
    /// Its full name.
    pub rule: String,
    /// Where it is written.
    pub place: String,
    /// The side it speaks for; `None` where it only swallows.
    pub affects: Option<Affects>,
    /// Its points: above 0 for the customer.
    pub weight: f64,
    /// Tickets in which it speaks.
    pub tickets: u64,
    /// Of these, the share in which no other rule or service speaks for its side.
    pub sole: Option<f64>,
    /// Tickets that patterns decide and that would have the other tag without it.
    pub decided: Share,
    /// How often it is right, where a truth is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// Its matches in all events, those that do not count included.
    pub matches: u64,
    /// Their share of all matches.
    pub match_share: Option<f64>,
}

/// A share with the interval in which it lies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Precision {
    /// Tickets with a truth in which the rule speaks.
    pub tickets: u64,
    /// Those that truly belong to its side.
    pub right: u64,
    /// The share.
    pub value: f64,
    /// The lower end of its 95 % interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Precision {
    /// A share with its 95 % score interval; `None` of nothing. The interval holds for few tickets and for shares at 0 or
    /// 1, too. E. B. Wilson, *Probable inference, the law of succession, and statistical inference*, Journal of the
    /// American Statistical Association 22 (1927), 209-212, <https://doi.org/10.1080/01621459.1927.10502953>.
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
    pub fn wilson(right: u64, tickets: u64) -> Option<Self> {
        /// The two-sided 95 % quantile of the normal distribution.
        const Z: f64 = 1.959_963_985;
        if tickets == 0 {
            return None;
        }
        let n = tickets as f64;
        let value = right as f64 / n;
        let scale = 1.0 + Z * Z / n;
        let centre = (value + Z * Z / (2.0 * n)) / scale;
        let half = Z / scale * (value * (1.0 - value) / n + Z * Z / (4.0 * n * n)).sqrt();
        Some(Self { tickets, right, value, low: (centre - half).max(0.0), high: (centre + half).min(1.0) })
    }
}

/// What is counted of one rule.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    tickets: u64,
    sole: u64,
    decided: Share,
    with_truth: u64,
    right: u64,
}

impl Stats {
    /// What the rules of a pipeline did to the tickets that it holds; what they cost is measured on the same dumps, which
    /// are read once more.
    ///
    /// # Errors
    /// When a dump cannot be read.
    pub fn new(pipeline: &Pipeline, truth: Option<&Truth>, dumps: Dumps<'_>, config: &Config) -> anyhow::Result<Self> {
        let classifier = pipeline.classifier();
        let mut counts: HashMap<RuleId, Count> = HashMap::new();
        let mut tickets = 0;
        for held in pipeline.ledger().tickets() {
            tickets += 1;
            count(held, truth.and_then(|truth| truth.of(held)), classifier.policy(), &mut counts);
        }
        let cost = Cost::measure(classifier, dumps, config)?;
        let matches = cost.matches.values().sum();
        let rules = classifier.rules().filter(|info| info.path.is_empty());
        let mut rules: Vec<RuleStats> = rules
            .map(|info| {
                let count = counts.get(&info.id).copied().unwrap_or_default();
                RuleStats::new(info, count, cost.matches.get(&info.name).copied().unwrap_or_default(), matches)
            })
            .collect();
        rules.sort_by_key(|rule| Reverse((rule.decided.effort_seconds, rule.decided.tickets, rule.tickets)));
        Ok(Self { tickets, classify_microseconds: cost.microseconds(), timed_events: cost.timed, matches, rules })
    }

    /// The rules that never count, nor swallow anything.
    pub fn idle(&self) -> impl Iterator<Item = &RuleStats> {
        self.rules.iter().filter(|rule| rule.is_idle())
    }
}

/// Counts one ticket under every rule that speaks in it.
fn count(held: &Held, truth: Option<Affects>, policy: Policy, counts: &mut HashMap<RuleId, Count>) {
    for evidence in held.findings.counting() {
        let count = counts.entry(evidence.rule).or_default();
        count.tickets += 1;
        let same_side = held.findings.counting().filter(|other| (other.weight > 0) == (evidence.weight > 0));
        count.sole += u64::from(same_side.count() == 1);
        if held.verdict.basis == Basis::Pattern && is_needed(evidence.rule, held, policy) {
            count.decided.add(held);
        }
        if let Some(truth) = truth {
            count.with_truth += 1;
            count.right += u64::from((truth == Affects::Customer) == (evidence.weight > 0));
        }
    }
}

/// Whether the ticket would have the other tag without the rule.
fn is_needed(rule: RuleId, held: &Held, policy: Policy) -> bool {
    let others = held.findings.evidence.iter().filter(|evidence| evidence.rule != rule).copied();
    let without = Findings { evidence: others.collect(), ..held.findings.clone() };
    without.decide(policy).affects != held.verdict.affects
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

impl RuleStats {
    fn new(info: &RuleInfo, count: Count, matches: u64, all_matches: u64) -> Self {
        Self {
            rule: info.name.clone(),
            place: info.place.to_string(),
            affects: info.affects,
            weight: weight(info.weight),
            tickets: count.tickets,
            sole: share(count.sole, count.tickets),
            decided: count.decided,
            precision: Precision::wilson(count.right, count.with_truth),
            matches,
            match_share: share(matches, all_matches),
        }
    }

    fn is_idle(&self) -> bool {
        let swallows = self.affects.is_none() && self.matches > 0;
        self.tickets == 0 && !swallows
    }
}

/// What classifying costs.
#[derive(Debug, Default)]
struct Cost {
    timed: u64,
    elapsed: Duration,
    matches: HashMap<String, u64>,
}

impl Cost {
    fn measure(classifier: &Classifier, dumps: Dumps<'_>, config: &Config) -> anyhow::Result<Self> {
        let (mut cost, mut scratch, mut batch) = (Self::default(), classifier.scratch(), Vec::new());
        dumps.tickets(config, |_, ticket| {
            if cost.timed < TIMED {
                cost.time(classifier, &ticket, &mut scratch);
            }
            batch.push(ticket);
            if batch.len() == BATCH {
                cost.count(classifier, &batch);
                batch.clear();
            }
        })?;
        cost.count(classifier, &batch);
        Ok(cost)
    }

    fn time(&mut self, classifier: &Classifier, ticket: &Ticket, scratch: &mut Scratch) {
        let start = Instant::now();
        std::hint::black_box(classifier.classify(ticket, scratch));
        self.elapsed += start.elapsed();
        self.timed += 1;
    }

    fn count(&mut self, classifier: &Classifier, batch: &[Ticket]) {
        let explain = |ticket| classifier.explain(ticket).fields;
        let rules: Vec<String> = batch
            .par_iter()
            .flat_map_iter(|ticket| explain(ticket).into_iter().flat_map(|field| field.matches))
            .map(|found| found.rule)
            .collect();
        for rule in rules {
            *self.matches.entry(rule).or_default() += 1;
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a mean needs no more than 53 bits")]
    fn microseconds(&self) -> Option<f64> {
        (self.timed > 0).then(|| self.elapsed.as_secs_f64() * 1e6 / self.timed as f64)
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.classify_microseconds.map_or("–".to_owned(), |time| format!("{time:.1} µs"));
        writeln!(
            f,
            "{} tickets; classifying takes {time} an event (mean of {} on one core); {} matches\n",
            grouped(self.tickets),
            grouped(self.timed_events),
            grouped(self.matches)
        )?;
        let mut table =
            TextTable::new(2, &["rule", "side", "tickets", "sole", "decided", "effort", "precision (95 %)", "matches"]);
        self.rules.iter().filter(|rule| !rule.is_idle()).for_each(|rule| table.push(rule.row()));
        writeln!(f, "{table}")?;
        let idle = self.idle().count();
        writeln!(f, "{} of {} rules never hit{}", idle, self.rules.len(), if idle > 0 { ":" } else { "" })?;
        for rule in self.idle() {
            let note = if rule.matches > 0 { ", found but swallowed, cancelled or unmet each time" } else { "" };
            writeln!(f, "  {} ({}{note})", rule.rule, rule.place)?;
        }
        Ok(())
    }
}

impl RuleStats {
    fn row(&self) -> Vec<String> {
        let percent = |share: Option<f64>| share.map_or("–".to_owned(), |share| format!("{:.1} %", share * 100.0));
        let precision = self.precision.map_or("–".to_owned(), |found| {
            format!("{:.2} ({:.2}-{:.2}, n {})", found.value, found.low, found.high, found.tickets)
        });
        vec![
            self.rule.clone(),
            self.affects.map_or("none", Affects::as_str).to_owned(),
            grouped(self.tickets),
            percent(self.sole),
            grouped(self.decided.tickets),
            hours(self.decided.effort_seconds),
            precision,
            percent(self.match_share),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Site;
    use super::*;

    const RULES: &str = r#"
        [[rule]]
        id = "shop"
        affects = "customer"
        weight = 5
        phrases = ["webshop"]
        [[rule]]
        id = "pay"
        affects = "customer"
        weight = 4
        phrases = ["pay*"]
        [[rule]]
        id = "test"
        affects = "internal"
        weight = 7
        phrases = ["rehearsal"]
        [[rule]]
        id = "payroll"
        affects = "none"
        phrases = ["payroll late"]
        [[rule]]
        id = "queue"
        affects = "internal"
        weight = 1
        phrases = ["print queue"]
    "#;

    const DUMP: &str = "id,summary,description,effort_seconds,version,affects\n\
        1,webshop down,,3600,1,customer\n\
        2,webshop payment fails,,1800,1,customer\n\
        3,webshop rehearsal,webshop,600,1,internal\n\
        4,payroll late,,60,1,internal\n\
        5,payment fails,,300,1,\n\
        5,payment fails,,900,2,\n";

    fn stats(truth: Option<&Truth>) -> Stats {
        let site = Site::new(DUMP, RULES);
        Stats::new(&site.replayed(truth), truth, site.dumps(), &site.config).unwrap()
    }

    fn rule<'a>(stats: &'a Stats, name: &str) -> &'a RuleStats {
        stats.rules.iter().find(|rule| rule.rule == name).unwrap()
    }

    #[test]
    fn a_rule_decides_where_the_tag_would_change_without_it() {
        let stats = stats(Some(&Truth::Declared));
        let names: Vec<_> = stats.rules.iter().map(|rule| rule.rule.as_str()).collect();
        assert_eq!(names, ["own/shop", "own/pay", "own/test", "own/payroll", "own/queue"], "by the effort they decide");
        let shop = rule(&stats, "own/shop");
        assert_eq!((shop.tickets, shop.sole), (3, Some(2.0 / 3.0)), "beside `pay` in 2, alone for its side in 1 and 3");
        let only_in_1 = Share { tickets: 1, effort_seconds: 3600, touches: 1 };
        assert_eq!(shop.decided, only_in_1, "in 2 `pay` would do as well");
        assert_eq!(rule(&stats, "own/pay").decided, Share { tickets: 1, effort_seconds: 900, touches: 2 });
        let test = rule(&stats, "own/test");
        assert_eq!((test.decided.tickets, test.decided.effort_seconds), (1, 600));
    }

    #[test]
    fn precision_counts_the_tickets_whose_truth_is_known() {
        let stats = stats(Some(&Truth::Declared));
        let shop = rule(&stats, "own/shop").precision.unwrap();
        assert_eq!((shop.right, shop.tickets), (2, 3));
        assert_eq!(rule(&stats, "own/pay").precision.unwrap().tickets, 1, "5 has no truth");
        assert!(rule(&self::stats(None), "own/shop").precision.is_none());
    }

    #[test]
    fn matches_are_counted_per_event_and_idle_rules_named() {
        let stats = stats(None);
        assert_eq!((stats.tickets, stats.timed_events, stats.matches), (5, 6, 10));
        assert_eq!(rule(&stats, "own/shop").matches, 4, "one of them in a description");
        assert_eq!(rule(&stats, "own/pay").match_share, Some(0.4), "one of them swallowed by `payroll`");
        let idle: Vec<_> = stats.idle().map(|rule| rule.rule.as_str()).collect();
        assert_eq!(idle, ["own/queue"]);
        let text = stats.to_string();
        assert!(text.contains("1 of 5 rules never hit:\n  own/queue ("), "{text}");
    }

    #[test]
    fn the_interval_is_that_of_wilson() {
        let eight = Precision::wilson(8, 10).unwrap();
        assert!((eight.low - 0.490_162).abs() < 1e-6 && (eight.high - 0.943_318).abs() < 1e-6, "{eight:?}");
        let all = Precision::wilson(3, 3).unwrap();
        assert!((all.low - 3.0 / (3.0 + 1.96 * 1.96)).abs() < 1e-4 && all.high <= 1.0, "n / (n + z²): {all:?}");
        assert_eq!(Precision::wilson(0, 0), None);
    }
}
