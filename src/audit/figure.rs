//! What is compared: every series of the ledger, by the name and labels with which `/metrics` shows it.

use std::collections::BTreeMap;
use std::fmt;

use prometheus::proto::{Histogram, Metric, MetricFamily, MetricType};

use crate::ledger::Ledgers;
use crate::metrics::Shown;
use crate::record::Partition;

/// The name of one series.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Figure {
    /// The partition that counted.
    pub partition: Partition,
    /// The metric, without the prefix that all have.
    pub metric: String,
    /// Its labels besides topic and partition.
    pub labels: BTreeMap<String, String>,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{{", self.metric)?;
        self.labels.iter().try_for_each(|(name, value)| write!(f, "{name}={value:?},"))?;
        write!(f, "partition=\"{}\",topic={:?}}}", self.partition.number, &*self.partition.topic)
    }
}

/// Values by series; one that is not there is 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures(BTreeMap<Figure, i64>);

impl Figures {
    /// Adds to a series.
    pub fn add(&mut self, partition: &Partition, metric: &str, labels: &[(&str, &str)], amount: i64) {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.add_to(Figure { partition: partition.clone(), metric: metric.to_owned(), labels }, amount);
    }

    fn add_to(&mut self, figure: Figure, amount: i64) {
        let value = self.0.entry(figure).or_default();
        *value = value.saturating_add(amount);
    }

    /// Adds every series of others.
    pub fn add_all(&mut self, others: &Self) {
        others.0.iter().for_each(|(figure, amount)| self.add_to(figure.clone(), *amount));
    }

    /// The value of a series.
    pub fn get(&self, figure: &Figure) -> i64 {
        self.0.get(figure).copied().unwrap_or_default()
    }

    /// The names of all series that are there, in order.
    pub fn names(&self) -> impl Iterator<Item = &Figure> {
        self.0.keys()
    }

    /// The sum of all series of a metric in a partition.
    pub fn sum(&self, partition: &Partition, metric: &str) -> i64 {
        let of = |figure: &Figure| figure.partition == *partition && figure.metric == metric;
        self.0.iter().filter(|(figure, _)| of(figure)).map(|(_, value)| value).sum()
    }

    /// What `/metrics` shows of ledgers, as soon as nothing is held at zero any more.
    pub fn shown(ledgers: &Ledgers) -> Self {
        let mut figures = Self::default();
        for family in Shown::unheld(ledgers.iter()).families() {
            for metric in family.get_metric() {
                figures.take_shown(&family, metric);
            }
        }
        figures
    }

    fn take_shown(&mut self, family: &MetricFamily, metric: &Metric) {
        let mut labels: BTreeMap<String, String> =
            metric.get_label().iter().map(|pair| (pair.name().to_owned(), pair.value().to_owned())).collect();
        let topic = labels.remove("topic").unwrap_or_default();
        let number = labels.remove("partition").and_then(|number| number.parse().ok()).unwrap_or_default();
        let partition = Partition { topic: topic.into(), number };
        let name = family.name().trim_start_matches("customer_reach_");
        let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        match family.get_field_type() {
            MetricType::HISTOGRAM => self.take_histogram(&partition, name, &labels, metric.get_histogram()),
            MetricType::GAUGE => self.add(&partition, name, &labels, whole(metric.get_gauge().get_value())),
            _ => self.add(&partition, name, &labels, whole(metric.get_counter().get_value())),
        }
    }

    fn take_histogram(&mut self, partition: &Partition, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        for bucket in histogram.get_bucket() {
            let bound = bucket.upper_bound().to_string();
            let count = signed(bucket.cumulative_count());
            self.add(partition, &format!("{name}_bucket"), &[labels, &[("le", &bound)]].concat(), count);
        }
        self.add(partition, &format!("{name}_count"), labels, signed(histogram.get_sample_count()));
        self.add(partition, &format!("{name}_sum"), labels, whole(histogram.get_sample_sum()));
    }
}

/// A number as counted; more than fit count as the most that do.
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_possible_truncation, reason = "figures are whole numbers, exact up to 2^53")]
fn whole(value: f64) -> i64 {
    value as i64
}
