//! What the ledger counts: one enum of series, each with its labels, and the counters of one partition.
//!
//! The labels that a series carries here are those of the metric it is shown as; `metrics` maps one to the other.

use std::sync::Arc;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;
use crate::ticket::{Affects, Kind};
use crate::verdict::{Basis, Certainty, Class};

/// A team or service in a table of [`Labels`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Label(pub u32);

impl Label {
    /// The ticket names none.
    pub const NONE: Self = Self(0);
    /// All names beyond the cap.
    pub const OTHER: Self = Self(1);
    /// How many labels there always are.
    pub const FIXED: usize = 2;
}

/// The names of teams or services in the order they were met, up to a cap.
#[derive(Clone, Debug)]
pub struct Labels {
    names: Vec<Arc<str>>,
    ids: HashMap<Arc<str>, Label>,
    cap: usize,
}

impl Labels {
    /// An empty table that takes up to `cap` names.
    pub fn new(cap: usize) -> Self {
        let mut labels = Self { names: Vec::new(), ids: HashMap::new(), cap: usize::MAX };
        for name in ["none", "other"] {
            labels.push(name);
        }
        labels.cap = cap.saturating_add(labels.names.len());
        labels
    }

    fn push(&mut self, name: &str) -> Label {
        let label = Label(u32::try_from(self.names.len()).unwrap_or(Label::OTHER.0));
        let name: Arc<str> = name.into();
        self.names.push(name.clone());
        self.ids.insert(name, label);
        label
    }

    /// The label of a name that a journal held; the cap does not apply, since it was counted under before.
    pub fn taken_over(&mut self, name: &str) -> Label {
        self.ids.get(name).copied().unwrap_or_else(|| self.push(name))
    }

    /// The label that a name has or, beyond the cap, must have; `None` if it may get a new one.
    pub fn find(&self, name: &str) -> Option<Label> {
        match name.trim() {
            "" => Some(Label::NONE),
            name => self.ids.get(name).copied().or((self.names.len() >= self.cap).then_some(Label::OTHER)),
        }
    }

    /// The label of a name, new if need be; [`Label::OTHER`] beyond the cap.
    pub fn label(&mut self, name: &str) -> Label {
        self.find(name).unwrap_or_else(|| self.push(name.trim()))
    }

    /// The name of a label.
    pub fn name(&self, label: Label) -> &str {
        self.names.get(label.0 as usize).map_or("other", |name| name)
    }

    /// All names in the order met, `none` and `other` first.
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }
}

/// Upper bounds of the buckets of `resolution_seconds`: a quarter of an hour to a quarter of a year.
pub const RESOLUTION_BUCKETS: [i64; 10] =
    [900, 3_600, 14_400, 28_800, 86_400, 259_200, 604_800, 1_209_600, 2_592_000, 7_776_000];

/// One thing that is counted, with its labels besides topic and partition.
#[expect(missing_docs, reason = "the fields are the labels of the metric")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Series {
    /// Tickets, once each, under their first verdict.
    Tickets { affects: Affects, basis: Basis, certainty: Certainty, kind: Kind },
    /// Logged effort in seconds.
    Effort { affects: Affects, certainty: Certainty, kind: Kind },
    /// Logged effort that was taken back later, in seconds.
    CorrectedEffort { affects: Affects, certainty: Certainty, kind: Kind },
    /// Updates made by people.
    Touches { affects: Affects, certainty: Certainty, kind: Kind },
    /// Logged effort by team.
    TeamEffort { affects: Affects, team: Label },
    /// Logged effort by team that was taken back later.
    TeamCorrectedEffort { affects: Affects, team: Label },
    /// Logged effort by service.
    ServiceEffort { affects: Affects, service: Label },
    /// Logged effort by service that was taken back later.
    ServiceCorrectedEffort { affects: Affects, service: Label },
    /// Tickets that moved to another class.
    ReclassifiedTickets { from: Class, to: Class },
    /// Effort that moved with them.
    ReclassifiedEffort { from: Class, to: Class },
    /// Touches that moved with them.
    ReclassifiedTouches { from: Class, to: Class },
    /// Effort that moved, by team.
    TeamReclassifiedEffort { team: Label, from: Affects, to: Affects },
    /// Effort that moved, by service.
    ServiceReclassifiedEffort { service: Label, from: Affects, to: Affects },
    /// Tickets open now.
    OpenTickets { affects: Affects, kind: Kind },
    /// Customer-affecting incidents open now.
    OpenCustomerIncidents { service: Label },
    /// Tickets whose first resolution took at most `RESOLUTION_BUCKETS[bucket]` and more than the bound before it;
    /// the last bucket has no bound.
    ResolutionBucket { affects: Affects, kind: Kind, bucket: u8 },
    /// The sum of those times in seconds.
    ResolutionSum { affects: Affects, kind: Kind },
    /// Records by what became of them.
    Records { outcome: Outcome },
}

impl Series {
    /// Whether the figure may go down.
    pub fn is_gauge(self) -> bool {
        matches!(self, Self::OpenTickets { .. } | Self::OpenCustomerIncidents { .. })
    }

    /// Whether all its labels are closed sets.
    pub fn is_fixed(self) -> bool {
        self.label().is_none()
    }

    /// The team or service of its labels.
    pub fn label(self) -> Option<Label> {
        match self {
            Self::TeamEffort { team: label, .. }
            | Self::TeamCorrectedEffort { team: label, .. }
            | Self::TeamReclassifiedEffort { team: label, .. }
            | Self::ServiceEffort { service: label, .. }
            | Self::ServiceCorrectedEffort { service: label, .. }
            | Self::ServiceReclassifiedEffort { service: label, .. }
            | Self::OpenCustomerIncidents { service: label } => Some(label),
            _ => None,
        }
    }

    /// The same series with other labels: `team` and `service` say which.
    #[must_use]
    pub fn relabelled(mut self, team: impl Fn(Label) -> Label, service: impl Fn(Label) -> Label) -> Self {
        match &mut self {
            Self::TeamEffort { team: label, .. }
            | Self::TeamCorrectedEffort { team: label, .. }
            | Self::TeamReclassifiedEffort { team: label, .. } => *label = team(*label),
            Self::ServiceEffort { service: label, .. }
            | Self::ServiceCorrectedEffort { service: label, .. }
            | Self::ServiceReclassifiedEffort { service: label, .. }
            | Self::OpenCustomerIncidents { service: label } => *label = service(*label),
            _ => {}
        }
        self
    }

    /// Every series whose labels are all closed sets, so that it can be shown at 0 from the start.
    pub fn fixed() -> Vec<Self> {
        let mut all: Vec<Self> = Outcome::ALL.iter().copied().map(|outcome| Self::Records { outcome }).collect();
        for &affects in Affects::ALL {
            for &kind in Kind::ALL {
                all.push(Self::OpenTickets { affects, kind });
                all.push(Self::ResolutionSum { affects, kind });
                all.extend(BASES.map(|(basis, certainty)| Self::Tickets { affects, basis, certainty, kind }));
                for &certainty in Certainty::ALL {
                    all.push(Self::Effort { affects, certainty, kind });
                    all.push(Self::CorrectedEffort { affects, certainty, kind });
                    all.push(Self::Touches { affects, certainty, kind });
                }
            }
        }
        for &from in Class::ALL {
            for &to in Class::ALL.iter().filter(|to| **to != from) {
                all.push(Self::ReclassifiedTickets { from, to });
                all.push(Self::ReclassifiedEffort { from, to });
                all.push(Self::ReclassifiedTouches { from, to });
            }
        }
        all
    }
}

/// Which certainties a basis can have.
const BASES: [(Basis, Certainty); 7] = [
    (Basis::Declared, Certainty::Clear),
    (Basis::Requester, Certainty::Clear),
    (Basis::Service, Certainty::Clear),
    (Basis::Service, Certainty::Narrow),
    (Basis::Pattern, Certainty::Clear),
    (Basis::Pattern, Certainty::Narrow),
    (Basis::Default, Certainty::None),
];

/// The counters of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    values: HashMap<Series, i64>,
}

impl Counters {
    /// Adds to a series; beyond the largest number it stays there.
    pub fn add(&mut self, series: Series, amount: i64) {
        let value = self.values.entry(series).or_default();
        *value = value.saturating_add(amount);
    }

    /// The value of a series, 0 if it was never counted.
    pub fn get(&self, series: Series) -> i64 {
        self.find(series).unwrap_or_default()
    }

    /// The value of a series, if it was ever counted.
    pub fn find(&self, series: Series) -> Option<i64> {
        self.values.get(&series).copied()
    }

    /// How many series were ever counted.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Whether the series was ever counted.
    pub fn has(&self, series: Series) -> bool {
        self.values.contains_key(&series)
    }

    /// All series counted so far, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Series, i64)> + '_ {
        self.values.iter().map(|(series, value)| (*series, *value))
    }
}

impl FromIterator<(Series, i64)> for Counters {
    fn from_iter<T: IntoIterator<Item = (Series, i64)>>(counted: T) -> Self {
        let mut counters = Self::default();
        counted.into_iter().for_each(|(series, value)| counters.add(series, value));
        counters
    }
}
