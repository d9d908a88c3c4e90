//! The ledger's metrics: what is committed, as Prometheus metric families.
//!
//! [`Shown`] is replaced after each commit; a scrape reads it and changes nothing, so it can be repeated.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::ledger::{Counters, Fresh, Label, Labels, Ledger, PartitionState, RESOLUTION_BUCKETS, Series};
use crate::record::Partition;
use crate::ticket::{Affects, Kind};

/// The committed counters of all partitions.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// In order of topic and number.
    pub partitions: Vec<ShownPartition>,
}

/// The committed counters of one partition.
#[derive(Clone, Debug)]
pub struct ShownPartition {
    /// Which one.
    pub partition: Partition,
    /// What it has counted.
    pub counters: Arc<Counters>,
    /// What of it is shown at 0.
    pub fresh: Arc<Fresh>,
    /// The names behind team labels.
    pub teams: Arc<Labels>,
    /// The names behind service labels.
    pub services: Arc<Labels>,
}

impl ShownPartition {
    fn of(state: &PartitionState, ledger: &Ledger) -> Self {
        Self {
            partition: state.partition.clone(),
            counters: state.counters.clone(),
            fresh: state.fresh.clone(),
            teams: ledger.teams().clone(),
            services: ledger.services().clone(),
        }
    }
}

impl Shown {
    /// What is to be shown of ledgers that are committed, of these partitions.
    pub fn of<'a>(ledgers: impl IntoIterator<Item = &'a Ledger>, is_shown: impl Fn(&PartitionState) -> bool) -> Self {
        let mut partitions = Vec::new();
        for ledger in ledgers {
            let states = ledger.partitions().iter().filter(|state| is_shown(state));
            partitions.extend(states.map(|state| ShownPartition::of(state, ledger)));
        }
        partitions.sort_by(|a, b| a.partition.cmp(&b.partition));
        Self { partitions }
    }

    /// The same with what was shown `before` in place of partitions that have changes which are not committed.
    pub fn committed<'a>(mut self, ledgers: impl IntoIterator<Item = &'a Ledger>, before: &Self) -> Self {
        for ledger in ledgers {
            let changed = ledger.changed_partitions().iter().filter_map(|n| ledger.partitions().get(*n as usize));
            for PartitionState { partition, .. } in changed {
                let shown = before.partitions.iter().find(|shown| shown.partition == *partition);
                let place = self.partitions.iter_mut().find(|shown| shown.partition == *partition);
                match (shown, place) {
                    (Some(shown), Some(place)) => place.clone_from(shown),
                    _ => self.partitions.retain(|shown| shown.partition != *partition),
                }
            }
        }
        self
    }

    /// What will be shown of them as soon as nothing is fresh any more.
    pub fn unheld<'a>(ledgers: impl IntoIterator<Item = &'a Ledger>) -> Self {
        let mut shown = Self::of(ledgers, |_| true);
        shown.partitions.iter_mut().for_each(|partition| partition.fresh = Arc::default());
        shown
    }

    /// The sum of a figure over all partitions.
    pub fn sum(&self, matches: impl Fn(Series) -> bool) -> i64 {
        let all = self.partitions.iter().flat_map(|shown| shown.counters.iter());
        all.filter(|(series, _)| matches(*series)).map(|(_, value)| value).sum()
    }

    /// All metric families, sorted by name. Series that are fresh show 0, so that a scraper sees where they start.
    pub fn families(&self) -> Vec<MetricFamily> {
        let mut metrics: BTreeMap<&'static str, (&'static Shape, Vec<Metric>)> = BTreeMap::new();
        for shown in &self.partitions {
            let counters = &shown.counters;
            let value = |series: Series| match !series.is_gauge() && shown.fresh.holds(series) {
                true => 0,
                false => counters.get(series),
            };
            let dynamic = counters.iter().map(|(series, _)| series).filter(|series| !series.is_fixed());
            for series in Series::fixed().into_iter().chain(dynamic) {
                let Some(shape) = Shape::of(series) else { continue };
                let mut metric = Metric::from_label(shown.labels(series));
                match series {
                    Series::ResolutionSum { affects, kind } => metric.set_histogram(resolution(affects, kind, value)),
                    _ if series.is_gauge() => metric.set_gauge(gauge(value(series))),
                    _ => metric.set_counter(counter(value(series))),
                }
                metrics.entry(shape.name).or_insert((shape, Vec::new())).1.push(metric);
            }
        }
        metrics.into_values().map(|(shape, metrics)| shape.family(metrics)).collect()
    }
}

impl ShownPartition {
    fn labels(&self, series: Series) -> Vec<LabelPair> {
        let number = self.partition.number.to_string();
        let mut labels = vec![("partition", number.as_str()), ("topic", &*self.partition.topic)];
        let team = |label: Label| self.teams.name(label);
        let service = |label: Label| self.services.name(label);
        match series {
            Series::Tickets { affects, basis, certainty, kind } => labels.extend([
                ("affects", affects.as_str()),
                ("basis", basis.as_str()),
                ("certainty", certainty.as_str()),
                ("kind", kind.as_str()),
            ]),
            Series::Effort { affects, certainty, kind }
            | Series::CorrectedEffort { affects, certainty, kind }
            | Series::Touches { affects, certainty, kind } => {
                labels.extend([
                    ("affects", affects.as_str()),
                    ("certainty", certainty.as_str()),
                    ("kind", kind.as_str()),
                ]);
            }
            Series::TeamEffort { affects, team: label } | Series::TeamCorrectedEffort { affects, team: label } => {
                labels.extend([("affects", affects.as_str()), ("team", team(label))]);
            }
            Series::ServiceEffort { affects, service: label }
            | Series::ServiceCorrectedEffort { affects, service: label } => {
                labels.extend([("affects", affects.as_str()), ("service", service(label))]);
            }
            Series::ReclassifiedTickets { from, to }
            | Series::ReclassifiedEffort { from, to }
            | Series::ReclassifiedTouches { from, to } => labels.extend([("from", from.as_str()), ("to", to.as_str())]),
            Series::TeamReclassifiedEffort { team: label, from, to } => {
                labels.extend([("team", team(label)), ("from", from.as_str()), ("to", to.as_str())]);
            }
            Series::ServiceReclassifiedEffort { service: label, from, to } => {
                labels.extend([("service", service(label)), ("from", from.as_str()), ("to", to.as_str())]);
            }
            Series::OpenTickets { affects, kind }
            | Series::ResolutionSum { affects, kind }
            | Series::ResolutionBucket { affects, kind, .. } => {
                labels.extend([("affects", affects.as_str()), ("kind", kind.as_str())]);
            }
            Series::OpenCustomerIncidents { service: label } => labels.push(("service", service(label))),
            Series::Records { outcome } => labels.push(("outcome", outcome.as_str())),
        }
        labels.sort_unstable();
        labels.into_iter().map(pair).collect()
    }
}

/// The name, help text and type that a series is shown with.
struct Shape {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
}

macro_rules! shape {
    ($name:literal, $kind:ident, $help:literal) => {{
        const SHAPE: &Shape = &Shape { name: concat!("customer_reach_", $name), help: $help, kind: MetricType::$kind };
        Some(SHAPE)
    }};
}

impl Shape {
    /// `None` for a part of a series that is shown with another.
    fn of(series: Series) -> Option<&'static Self> {
        match series {
            Series::Tickets { .. } => {
                shape!("tickets_total", COUNTER, "Tickets, each counted once under its first verdict.")
            }
            Series::Effort { .. } => {
                shape!("effort_seconds_total", COUNTER, "Logged effort under the tag its ticket had then.")
            }
            Series::CorrectedEffort { .. } => {
                shape!("corrected_effort_seconds_total", COUNTER, "Logged effort that was taken back later.")
            }
            Series::Touches { .. } => shape!("touches_total", COUNTER, "Updates made by people."),
            Series::TeamEffort { .. } => shape!("team_effort_seconds_total", COUNTER, "Logged effort by team."),
            Series::TeamCorrectedEffort { .. } => shape!(
                "team_corrected_effort_seconds_total",
                COUNTER,
                "Logged effort by team that was taken back later."
            ),
            Series::ServiceEffort { .. } => {
                shape!("service_effort_seconds_total", COUNTER, "Logged effort by service.")
            }
            Series::ServiceCorrectedEffort { .. } => shape!(
                "service_corrected_effort_seconds_total",
                COUNTER,
                "Logged effort by service that was taken back later."
            ),
            Series::ReclassifiedTickets { .. } => {
                shape!("reclassified_tickets_total", COUNTER, "Tickets that moved from one class to another.")
            }
            Series::ReclassifiedEffort { .. } => shape!(
                "reclassified_effort_seconds_total",
                COUNTER,
                "Effort that moved with tickets from one class to another."
            ),
            Series::ReclassifiedTouches { .. } => shape!(
                "reclassified_touches_total",
                COUNTER,
                "Touches that moved with tickets from one class to another."
            ),
            Series::TeamReclassifiedEffort { .. } => shape!(
                "team_reclassified_effort_seconds_total",
                COUNTER,
                "Effort by team that moved with tickets from one tag to the other."
            ),
            Series::ServiceReclassifiedEffort { .. } => shape!(
                "service_reclassified_effort_seconds_total",
                COUNTER,
                "Effort by service that moved with tickets from one tag to the other."
            ),
            Series::OpenTickets { .. } => shape!("open_tickets", GAUGE, "Tickets open now."),
            Series::OpenCustomerIncidents { .. } => {
                shape!("open_customer_incidents", GAUGE, "Incidents open now that reach the customer.")
            }
            Series::ResolutionSum { .. } => {
                shape!("resolution_seconds", HISTOGRAM, "Time from opening a ticket to its first resolution.")
            }
            Series::Records { .. } => shape!("records_total", COUNTER, "Records taken, by what became of them."),
            Series::ResolutionBucket { .. } => None,
        }
    }

    fn family(&self, metrics: Vec<Metric>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(self.kind);
        family.set_metric(metrics);
        family
    }
}

fn pair((name, value): (&str, &str)) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53: 285 million years of effort")]
fn float(value: i64) -> f64 {
    value as f64
}

fn counter(value: i64) -> Counter {
    let mut counter = Counter::default();
    counter.set_value(float(value));
    counter
}

fn gauge(value: i64) -> Gauge {
    let mut gauge = Gauge::default();
    gauge.set_value(float(value));
    gauge
}

fn resolution(affects: Affects, kind: Kind, value: impl Fn(Series) -> i64) -> Histogram {
    let mut total = 0;
    let mut buckets = Vec::new();
    for bucket in 0..=u8::try_from(RESOLUTION_BUCKETS.len()).unwrap_or(u8::MAX) {
        total += value(Series::ResolutionBucket { affects, kind, bucket });
        if let Some(bound) = RESOLUTION_BUCKETS.get(usize::from(bucket)) {
            let mut cumulative = Bucket::default();
            cumulative.set_upper_bound(float(*bound));
            cumulative.set_cumulative_count(total.unsigned_abs());
            buckets.push(cumulative);
        }
    }
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(total.unsigned_abs());
    histogram.set_sample_sum(float(value(Series::ResolutionSum { affects, kind })));
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Settings;
    use crate::outcome::Outcome;
    use crate::ticket::{Ticket, Version};
    use crate::verdict::Findings;

    fn count_one(ledger: &mut Ledger, team: &str) {
        let number = ledger.partition(&Partition { topic: "t".into(), number: 0 });
        let ticket = Ticket {
            key: team.into(),
            version: Some(Version { count: Some(1), time: None }),
            group: Some(team.into()),
            effort_seconds: Some(60),
            ..Ticket::default()
        };
        let outcome = ledger.apply("s", number, 0, &ticket, Findings::default());
        ledger.finish_record(number, 0, None, outcome);
    }

    fn text(ledger: &Ledger) -> String {
        prometheus::TextEncoder::new().encode_to_string(&all(ledger).families()).unwrap()
    }

    const TEAM: &str =
        "customer_reach_team_effort_seconds_total{affects=\"internal\",partition=\"0\",team=\"late\",topic=\"t\"}";

    fn all(ledger: &Ledger) -> Shown {
        Shown::of([ledger], |_| true)
    }

    #[test]
    fn what_is_not_committed_is_not_shown_whoever_asks() {
        let mut ledger = Ledger::new(Settings::default());
        count_one(&mut ledger, "early");
        ledger.settle();
        let committed = all(&ledger);
        count_one(&mut ledger, "late");
        let shown = all(&ledger).committed([&ledger], &committed);
        let efforts = |shown: &Shown| shown.sum(|series| matches!(series, Series::TeamEffort { .. }));
        assert_eq!((efforts(&shown), efforts(&all(&ledger))), (60, 120));
        assert!(all(&ledger).committed([&ledger], &Shown::default()).partitions.is_empty());
        ledger.settle();
        assert_eq!(efforts(&all(&ledger).committed([&ledger], &committed)), 120);
    }

    fn holding() -> Ledger {
        Ledger::new(Settings { holds: true, ..Settings::default() })
    }

    #[test]
    fn a_new_series_shows_zero_first_and_its_value_after_it_was_released() {
        let mut ledger = holding();
        count_one(&mut ledger, "early");
        let release = |ledger: &mut Ledger| {
            let state = ledger.partitions()[0].clone();
            ledger.release(&state.partition, &state.fresh);
        };
        release(&mut ledger);
        count_one(&mut ledger, "late");
        assert!(text(&ledger).contains("team=\"early\",topic=\"t\"} 60"));
        assert!(text(&ledger).contains(&format!("{TEAM} 0\n")));
        release(&mut ledger);
        assert!(text(&ledger).contains(&format!("{TEAM} 60\n")));
    }

    #[test]
    fn a_histogram_of_a_new_partition_shows_zero_in_its_buckets_too() {
        let at = |second| jiff::Timestamp::from_second(second).ok();
        let mut ledger = holding();
        let partition = Partition { topic: "t".into(), number: 0 };
        let number = ledger.partition(&partition);
        let state = Some(crate::ticket::State::Resolved);
        let ticket = Ticket { key: "a".into(), state, opened_at: at(0), resolved_at: at(60), ..Ticket::default() };
        ledger.apply("s", number, 0, &ticket, Findings::default());
        let counted =
            |text: &str| text.lines().any(|line| line.contains("resolution_seconds_count") && line.ends_with(" 1"));
        assert!(!counted(&text(&ledger)));
        ledger.release(&partition, &Fresh { fixed: true, ..Fresh::default() });
        assert!(counted(&text(&ledger)));
    }

    #[test]
    fn every_fixed_series_is_there_from_the_start() {
        let mut ledger = Ledger::new(Settings::default());
        ledger.partition(&Partition { topic: "t".into(), number: 0 });
        let text = text(&ledger);
        let lines = text.lines().filter(|line| !line.starts_with('#')).count();
        let histogram_extra = 2 * Kind::ALL.len() * (RESOLUTION_BUCKETS.len() + 2);
        assert_eq!(lines, Series::fixed().len() + histogram_extra);
        assert!(text.contains("customer_reach_records_total{outcome=\"dead_letter\",partition=\"0\",topic=\"t\"} 0\n"));
        assert_eq!(all(&ledger).sum(|s| matches!(s, Series::Records { outcome: Outcome::Applied })), 0);
    }
}
