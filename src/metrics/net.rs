//! Net figures: what counters that only go up say of now. Counted, less corrected and moved out, plus moved in.

use super::Shown;
use crate::ledger::{Label, Series};
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

/// Effort in seconds that a team has logged on tickets that have the tag now.
pub fn net_team(shown: &Shown, of: Label, tag: Affects) -> i64 {
    shown.sum(|s| s == Series::TeamEffort { affects: tag, team: of })
        - shown.sum(|s| s == Series::TeamCorrectedEffort { affects: tag, team: of })
        + shown.sum(|s| matches!(s, Series::TeamReclassifiedEffort { team, to, .. } if (team, to) == (of, tag)))
        - shown.sum(|s| matches!(s, Series::TeamReclassifiedEffort { team, from, .. } if (team, from) == (of, tag)))
}

/// Effort in seconds that was logged for a service on tickets that have the tag now.
pub fn net_service(shown: &Shown, of: Label, tag: Affects) -> i64 {
    shown.sum(|s| s == Series::ServiceEffort { affects: tag, service: of })
        - shown.sum(|s| s == Series::ServiceCorrectedEffort { affects: tag, service: of })
        + shown
            .sum(|s| matches!(s, Series::ServiceReclassifiedEffort { service, to, .. } if (service, to) == (of, tag)))
        - shown.sum(
            |s| matches!(s, Series::ServiceReclassifiedEffort { service, from, .. } if (service, from) == (of, tag)),
        )
}
