//! What a replay says at its end: how much of the effort reaches the customer, and how far the tags can be trusted.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::Serialize;

use super::Truth;
use crate::ledger::{Held, Ledger, Series};
use crate::metrics::{Shown, net_effort, net_tickets, net_touches};
use crate::outcome::Outcome;
use crate::ticket::Affects;
use crate::verdict::{Basis, Certainty, Class};

/// Tickets, effort and touches of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Tickets.
    pub tickets: u64,
    /// Logged effort in seconds.
    pub effort_seconds: u64,
    /// Updates made by people.
    pub touches: u64,
}

impl Share {
    /// Takes notice of one ticket.
    pub fn add(&mut self, held: &Held) {
        self.tickets += 1;
        self.effort_seconds = self.effort_seconds.saturating_add(held.effort.seconds());
        self.touches += u64::from(held.touches);
    }
}

/// The share that reaches the customer: at least, at best knowledge, at most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Band {
    /// Customer, clear.
    pub lower: f64,
    /// Customer.
    pub best: f64,
    /// Everything that is not clearly internal.
    pub upper: f64,
}

impl Band {
    /// The band of a figure given by class; `None` where the total is 0.
    pub fn of(value: impl Fn(Class) -> u64) -> Option<Self> {
        let sum = |classes: &[Class]| classes.iter().map(|class| value(*class)).sum::<u64>();
        let total = sum(Class::ALL);
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
        let share = |classes: &[Class]| sum(classes) as f64 / total as f64;
        (total > 0).then(|| Self {
            lower: share(&[Class::Customer]),
            best: share(&[Class::Customer, Class::CustomerUnsure]),
            upper: share(&[Class::Customer, Class::CustomerUnsure, Class::InternalUnsure]),
        })
    }
}

impl fmt::Display for Band {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.1} % (at least {:.1} %, at most {:.1} %)",
            self.best * 100.0,
            self.lower * 100.0,
            self.upper * 100.0
        )
    }
}

/// How predictions of `customer` compare with a truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Agreement {
    /// Customer, and said so.
    pub true_customer: u64,
    /// Internal, but said to be customer.
    pub false_customer: u64,
    /// Customer, but said to be internal.
    pub false_internal: u64,
    /// Internal, and said so.
    pub true_internal: u64,
}

impl Agreement {
    /// Takes notice of one ticket.
    pub fn add(&mut self, predicted: Affects, truth: Affects) {
        match (predicted, truth) {
            (Affects::Customer, Affects::Customer) => self.true_customer += 1,
            (Affects::Customer, Affects::Internal) => self.false_customer += 1,
            (Affects::Internal, Affects::Customer) => self.false_internal += 1,
            (Affects::Internal, Affects::Internal) => self.true_internal += 1,
        }
    }

    /// Of those said to be customer, the share that is; `None` if none was said to be.
    pub fn precision(&self) -> Option<f64> {
        ratio(self.true_customer, self.true_customer + self.false_customer)
    }

    /// Of those that are customer, the share that was said to be; `None` if none is.
    pub fn recall(&self) -> Option<f64> {
        ratio(self.true_customer, self.true_customer + self.false_internal)
    }

    /// The harmonic mean of precision and recall.
    pub fn f1(&self) -> Option<f64> {
        ratio(2 * self.true_customer, 2 * self.true_customer + self.false_customer + self.false_internal)
    }

    fn total(&self) -> u64 {
        self.true_customer + self.false_customer + self.false_internal + self.true_internal
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The whole report.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Records by what became of them.
    pub records: BTreeMap<&'static str, i64>,
    /// Tickets, effort and touches by class.
    pub classes: BTreeMap<&'static str, Share>,
    /// Tickets by what decided.
    pub bases: BTreeMap<&'static str, u64>,
    /// The share of effort that reaches the customer.
    pub effort: Option<Band>,
    /// The share of tickets that reach the customer.
    pub tickets: Option<Band>,
    /// The comparison with the truth, where one was given: all tickets that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<Compared>,
}

/// The comparison with a truth, also by certainty.
#[derive(Debug, Default, Serialize)]
pub struct Compared {
    /// All tickets with a truth.
    pub all: Agreement,
    /// By the certainty of the verdict.
    pub by_certainty: BTreeMap<&'static str, Agreement>,
    /// Precision of `customer`.
    pub precision: Option<f64>,
    /// Recall of `customer`.
    pub recall: Option<f64>,
    /// F1 of `customer`.
    pub f1: Option<f64>,
}

impl Compared {
    fn add(&mut self, predicted: Affects, certainty: Certainty, truth: Affects) {
        self.all.add(predicted, truth);
        self.by_certainty.entry(certainty.as_str()).or_default().add(predicted, truth);
        (self.precision, self.recall, self.f1) = (self.all.precision(), self.all.recall(), self.all.f1());
    }
}

impl Report {
    /// Adds up what the ledger holds; `truth` gives a ticket's true tag where there is one.
    pub fn new(ledger: &Ledger, truth: Option<&Truth>) -> Self {
        let mut classes: BTreeMap<&'static str, Share> =
            Class::NAMES.iter().map(|name| (*name, Share::default())).collect();
        let mut bases: BTreeMap<&'static str, u64> = Basis::NAMES.iter().map(|name| (*name, 0)).collect();
        let mut compared = Compared::default();
        for held in ledger.tickets() {
            classes.entry(held.verdict.class().as_str()).or_default().add(held);
            *bases.entry(held.verdict.basis.as_str()).or_default() += 1;
            if let Some(truth) = truth.and_then(|truth| truth.of(held)) {
                compared.add(held.verdict.affects, held.verdict.certainty, truth);
            }
        }
        Self { agreement: truth.is_some().then_some(compared), ..Self::assemble(records(ledger), classes, bases) }
    }

    /// Adds up what is shown: net figures of tickets as they are now, what decided as it was first.
    pub fn from_shown(shown: &Shown) -> Self {
        let share = |class: &Class| Share {
            tickets: net_tickets(shown, *class).unsigned_abs(),
            effort_seconds: net_effort(shown, *class).unsigned_abs(),
            touches: net_touches(shown, *class).unsigned_abs(),
        };
        let decided =
            |by: &Basis| shown.sum(|s| matches!(s, Series::Tickets { basis, .. } if basis == *by)).unsigned_abs();
        let records = Outcome::ALL
            .iter()
            .copied()
            .map(|outcome| (outcome.as_str(), shown.sum(|s| s == Series::Records { outcome })));
        Self::assemble(
            records.collect(),
            Class::ALL.iter().map(|class| (class.as_str(), share(class))).collect(),
            Basis::ALL.iter().map(|basis| (basis.as_str(), decided(basis))).collect(),
        )
    }

    fn assemble(
        records: BTreeMap<&'static str, i64>,
        classes: BTreeMap<&'static str, Share>,
        bases: BTreeMap<&'static str, u64>,
    ) -> Self {
        let of = |class: Class| classes.get(class.as_str()).copied().unwrap_or_default();
        let (effort, tickets) = (Band::of(|class| of(class).effort_seconds), Band::of(|class| of(class).tickets));
        Self { records, effort, tickets, agreement: None, classes, bases }
    }

    /// Refused records.
    pub fn dead_letters(&self) -> i64 {
        self.records.get(Outcome::DeadLetter.as_str()).copied().unwrap_or_default()
    }
}

fn records(ledger: &Ledger) -> BTreeMap<&'static str, i64> {
    let count = |outcome| ledger.partitions().iter().map(|p| p.counters.get(Series::Records { outcome })).sum();
    Outcome::ALL.iter().copied().map(|outcome| (outcome.as_str(), count(outcome))).collect()
}

/// Hours and minutes, `1,251:01 h`, as people read them.
pub(crate) fn hours(seconds: u64) -> String {
    format!("{}:{:02} h", grouped(seconds / 3600), seconds % 3600 / 60)
}

/// `12,345` as people read it.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.effort {
            Some(band) => writeln!(f, "Effort that reaches the customer: {band}")?,
            None => writeln!(f, "Effort that reaches the customer: unknown, no effort is logged")?,
        }
        match self.tickets {
            Some(band) => writeln!(f, "Tickets that reach the customer: {band}")?,
            None => writeln!(f, "There are no tickets.")?,
        }
        writeln!(f, "\n{:<18} {:>10} {:>14} {:>10}", "class", "tickets", "effort", "touches")?;
        for class in Class::ALL {
            let share = self.classes.get(class.as_str()).copied().unwrap_or_default();
            let Share { tickets, effort_seconds, touches } = share;
            writeln!(f, "{class:<18} {:>10} {:>14} {:>10}", grouped(tickets), hours(effort_seconds), grouped(touches))?;
        }
        let listed = |pairs: &mut dyn Iterator<Item = (&str, u64)>| {
            pairs.filter(|(_, count)| *count > 0).fold(String::new(), |mut text, (name, count)| {
                let separator = if text.is_empty() { "" } else { ", " };
                let _infallible = write!(text, "{separator}{name} {}", grouped(count));
                text
            })
        };
        writeln!(f, "\nDecided by: {}", listed(&mut self.bases.iter().map(|(name, count)| (*name, *count))))?;
        let records = listed(&mut self.records.iter().map(|(name, count)| (*name, count.unsigned_abs())));
        writeln!(f, "Records: {records}")?;
        self.agreement.as_ref().map_or(Ok(()), |compared| write!(f, "\n{compared}"))
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.3}"));
        writeln!(f, "Compared with the truth: {} tickets; class customer:", grouped(self.all.total()))?;
        writeln!(f, "precision {}   recall {}   F1 {}", shown(self.precision), shown(self.recall), shown(self.f1))?;
        for (certainty, agreement) in &self.by_certainty {
            let right = agreement.true_customer + agreement.true_internal;
            writeln!(
                f,
                "{certainty:<7} {:>6} tickets, {} right",
                grouped(agreement.total()),
                shown(ratio(right, agreement.total()))
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_band_runs_from_clear_customers_to_all_but_clearly_internal() {
        let value = |class| match class {
            Class::Customer => 20,
            Class::CustomerUnsure => 10,
            Class::InternalUnsure => 30,
            Class::Internal => 40,
        };
        assert_eq!(Band::of(value), Some(Band { lower: 0.2, best: 0.3, upper: 0.6 }));
        assert_eq!(Band::of(|_| 0), None);
    }

    #[test]
    fn precision_and_recall_are_those_of_the_class_customer() {
        let agreement = Agreement { true_customer: 6, false_customer: 2, false_internal: 4, true_internal: 8 };
        assert_eq!((agreement.precision(), agreement.recall()), (Some(0.75), Some(0.6)));
        assert_eq!(Agreement::default().f1(), None);
    }

    #[test]
    fn figures_as_people_read_them() {
        assert_eq!((grouped(7), grouped(1234), grouped(1_234_567)), ("7".into(), "1,234".into(), "1,234,567".into()));
        assert_eq!(hours(4_503_660), "1,251:01 h");
    }
}
