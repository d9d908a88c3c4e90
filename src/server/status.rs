//! What the status page shows, as one JSON document.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::ledger::Series;
use crate::metrics::{ByTag, Shown, net_effort, net_services, net_teams, net_tickets, unix_seconds};
use crate::outcome::{Outcome, Reason};
use crate::status::Status;
use crate::ticket::{Affects, Kind};
use crate::verdict::Class;

/// How many teams and services the page lists.
const TOP: usize = 8;

/// The document behind the status page; effort in seconds, net of corrections and moves.
#[derive(Debug, Serialize)]
pub struct Summary {
    version: &'static str,
    ready: bool,
    reason: Option<String>,
    journal: &'static str,
    pack_hash: String,
    pack_rules: usize,
    effort_seconds: BTreeMap<&'static str, i64>,
    tickets: BTreeMap<&'static str, i64>,
    kinds: Vec<Split>,
    teams: Vec<Split>,
    services: Vec<Split>,
    open: BTreeMap<&'static str, i64>,
    records: BTreeMap<&'static str, i64>,
    dead_letters: BTreeMap<&'static str, u64>,
    lag: Vec<Lag>,
    last_progress: Option<String>,
    last_error: Option<String>,
    last_error_at: Option<String>,
    now: Option<String>,
}

/// Effort of one kind, team or service by tag.
#[derive(Debug, Serialize)]
struct Split {
    name: String,
    customer: i64,
    internal: i64,
}

/// How far one partition is behind.
#[derive(Debug, Serialize)]
struct Lag {
    topic: String,
    partition: i32,
    lag: i64,
}

/// The document as of now.
pub fn summary(status: &Status) -> Summary {
    let shown = status.metrics.shown();
    let reason = status.not_ready();
    let rules = status.rules();
    let progress = status.metrics.last_progress.get();
    let dead_letters = &status.metrics.dead_letters;
    let error = status.last_error();
    Summary {
        version: env!("CARGO_PKG_VERSION"),
        ready: reason.is_none(),
        reason,
        journal: status.journal,
        pack_hash: rules.hash().to_owned(),
        pack_rules: rules.rules().count(),
        effort_seconds: by_class(|class| net_effort(&shown, class)),
        tickets: by_class(|class| net_tickets(&shown, class)),
        kinds: kinds(&shown),
        teams: top(&net_teams(&shown)),
        services: top(&net_services(&shown)),
        open: by_tag(|tag| shown.sum(|s| matches!(s, Series::OpenTickets { affects, .. } if affects == tag))),
        records: Outcome::ALL
            .iter()
            .map(|&outcome| (outcome.as_str(), shown.sum(|s| s == Series::Records { outcome })))
            .collect(),
        dead_letters: Reason::NAMES
            .iter()
            .map(|reason| (*reason, dead_letters.with_label_values(&[*reason]).get()))
            .collect(),
        lag: lag(status),
        last_progress: (progress > 0.0).then(|| rfc3339(progress)).flatten(),
        last_error_at: error.as_ref().and_then(|error| rfc3339(unix_seconds() - error.at.elapsed().as_secs_f64())),
        last_error: error.map(|error| error.text),
        now: rfc3339(unix_seconds()),
    }
}

fn rfc3339(seconds: f64) -> Option<String> {
    #[expect(clippy::cast_possible_truncation, reason = "whole seconds are enough")]
    jiff::Timestamp::from_second(seconds as i64).ok().map(|time| time.to_string())
}

fn lag(status: &Status) -> Vec<Lag> {
    let state = status.source.state();
    state.lag().map(|(p, lag)| Lag { topic: p.topic.to_string(), partition: p.number, lag }).collect()
}

fn by_class(value: impl Fn(Class) -> i64) -> BTreeMap<&'static str, i64> {
    Class::ALL.iter().map(|class| (class.as_str(), value(*class))).collect()
}

fn by_tag(value: impl Fn(Affects) -> i64) -> BTreeMap<&'static str, i64> {
    Affects::ALL.iter().map(|tag| (tag.as_str(), value(*tag))).collect()
}

fn kinds(shown: &Shown) -> Vec<Split> {
    let logged = |of: Kind, tag: Affects| {
        shown.sum(|s| matches!(s, Series::Effort { affects, kind, .. } if (affects, kind) == (tag, of)))
            - shown.sum(|s| matches!(s, Series::CorrectedEffort { affects, kind, .. } if (affects, kind) == (tag, of)))
    };
    let split = |kind: &Kind| Split {
        name: kind.to_string(),
        customer: logged(*kind, Affects::Customer),
        internal: logged(*kind, Affects::Internal),
    };
    Kind::ALL.iter().map(split).filter(|split| split.customer + split.internal != 0).collect()
}

/// The labels with the most effort.
fn top(net: &BTreeMap<&str, ByTag>) -> Vec<Split> {
    let split = |(name, tags): (&&str, &ByTag)| Split {
        name: (*name).to_owned(),
        customer: tags.get(&Affects::Customer).copied().unwrap_or_default(),
        internal: tags.get(&Affects::Internal).copied().unwrap_or_default(),
    };
    let mut splits: Vec<Split> = net.iter().map(split).filter(|split| split.customer + split.internal > 0).collect();
    splits.sort_by(|a, b| (b.customer + b.internal).cmp(&(a.customer + a.internal)).then(a.name.cmp(&b.name)));
    splits.truncate(TOP);
    splits
}
