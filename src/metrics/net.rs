//! Net figures: what counters that only go up say of now. Counted, less corrected and moved out, plus moved in.

use std::collections::BTreeMap;

use super::{Shown, ShownPartition};
use crate::ledger::{Label, Labels, Series};
use crate::ticket::Affects;
use crate::verdict::Class;

/// Effort in seconds that tickets of a class hold now.
pub fn net_effort(shown: &Shown, class: Class) -> i64 {
    shown.sum(|s| matches!(s, Series::Effort { affects, certainty, .. } if Class::of(affects, certainty) == class))
        - shown.sum(|s| matches!(s, Series::CorrectedEffort { affects, certainty, .. } if Class::of(affects, certainty) == class))
        + shown.sum(|s| matches!(s, Series::ReclassifiedEffort { to, .. } if to == class))
        - shown.sum(|s| matches!(s, Series::ReclassifiedEffort { from, .. } if from == class))
}

/// Tickets that are of a class now.
pub fn net_tickets(shown: &Shown, class: Class) -> i64 {
    shown.sum(|s| matches!(s, Series::Tickets { affects, certainty, .. } if Class::of(affects, certainty) == class))
        + shown.sum(|s| matches!(s, Series::ReclassifiedTickets { to, .. } if to == class))
        - shown.sum(|s| matches!(s, Series::ReclassifiedTickets { from, .. } if from == class))
}

/// Touches of tickets that are of a class now.
pub fn net_touches(shown: &Shown, class: Class) -> i64 {
    shown.sum(|s| matches!(s, Series::Touches { affects, certainty, .. } if Class::of(affects, certainty) == class))
        + shown.sum(|s| matches!(s, Series::ReclassifiedTouches { to, .. } if to == class))
        - shown.sum(|s| matches!(s, Series::ReclassifiedTouches { from, .. } if from == class))
}

/// Effort in seconds by tag.
pub type ByTag = BTreeMap<Affects, i64>;

/// Effort in seconds that each team has logged, by the tag that its tickets have now.
pub fn net_teams(shown: &Shown) -> BTreeMap<&str, ByTag> {
    net_by_label(
        shown,
        |shown| &shown.teams,
        |series| match series {
            Series::TeamEffort { affects, team } => Some((team, Moved::to(affects))),
            Series::TeamCorrectedEffort { affects, team } => Some((team, Moved::from(affects))),
            Series::TeamReclassifiedEffort { team, from, to } => Some((team, Moved { from: Some(from), to: Some(to) })),
            _ => None,
        },
    )
}

/// Effort in seconds that was logged for each service, by the tag that its tickets have now.
pub fn net_services(shown: &Shown) -> BTreeMap<&str, ByTag> {
    net_by_label(
        shown,
        |shown| &shown.services,
        |series| match series {
            Series::ServiceEffort { affects, service } => Some((service, Moved::to(affects))),
            Series::ServiceCorrectedEffort { affects, service } => Some((service, Moved::from(affects))),
            Series::ServiceReclassifiedEffort { service, from, to } => {
                Some((service, Moved { from: Some(from), to: Some(to) }))
            }
            _ => None,
        },
    )
}

/// From which tag a counter takes, and to which it adds.
struct Moved {
    from: Option<Affects>,
    to: Option<Affects>,
}

impl Moved {
    fn to(tag: Affects) -> Self {
        Self { from: None, to: Some(tag) }
    }

    fn from(tag: Affects) -> Self {
        Self { from: Some(tag), to: None }
    }
}

fn net_by_label(
    shown: &Shown,
    names: impl Fn(&ShownPartition) -> &Labels,
    moved: impl Fn(Series) -> Option<(Label, Moved)>,
) -> BTreeMap<&str, ByTag> {
    let mut net: BTreeMap<&str, ByTag> = BTreeMap::new();
    for partition in &shown.partitions {
        for (series, value) in partition.counters.iter() {
            let Some((label, Moved { from, to })) = moved(series) else { continue };
            let tags = net.entry(names(partition).name(label)).or_default();
            from.into_iter().for_each(|tag| *tags.entry(tag).or_default() -= value);
            to.into_iter().for_each(|tag| *tags.entry(tag).or_default() += value);
        }
    }
    net
}
