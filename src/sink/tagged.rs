//! The tagged line: one JSON object per ticket, as of its last version.

use std::sync::Arc;

use serde::Serialize;

use super::producer::Outgoing;
use crate::classify::Classifier;
use crate::ledger::{Held, Ledger};
use crate::ticket::{Affects, Kind, State, TextField, Version};
use crate::verdict::{Basis, Certainty, Points};

/// One ticket with its tag and what decided it.
#[derive(Debug, Serialize)]
pub struct TaggedLine<'a> {
    id: &'a str,
    key: &'a str,
    source: &'a str,
    affects: Affects,
    basis: Basis,
    certainty: Certainty,
    score: f64,
    evidence: Vec<EvidenceLine<'a>>,
    kind: Kind,
    state: State,
    service: Option<&'a str>,
    team: Option<&'a str>,
    requester_external: Option<bool>,
    opened_at: Option<jiff::Timestamp>,
    resolved_at: Option<jiff::Timestamp>,
    reopened: u32,
    effort_seconds: u64,
    touches: u32,
    version: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    merged_into: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    follows: Option<&'a str>,
    pack_hash: &'a str,
}

#[derive(Debug, Serialize)]
struct EvidenceLine<'a> {
    rule: &'a str,
    field: TextField,
    start: u32,
    end: u32,
    weight: f64,
}

/// Points as the rules write them.
fn points(hundredths: Points) -> f64 {
    f64::from(hundredths) / 100.0
}

impl<'a> TaggedLine<'a> {
    /// The line of one ticket.
    pub fn new(held: &'a Held, ledger: &'a Ledger, classifier: &'a Classifier) -> Self {
        let name = |rule| classifier.rule(rule).map_or("(no longer in the packs)", |info| info.name.as_str());
        let evidence = held.findings.counting().map(|e| EvidenceLine {
            rule: name(e.rule),
            field: e.field,
            start: e.start,
            end: e.end,
            weight: points(e.weight),
        });
        Self {
            id: &held.id,
            key: &held.key,
            source: &held.source,
            affects: held.verdict.affects,
            basis: held.verdict.basis,
            certainty: held.verdict.certainty,
            score: points(held.verdict.score),
            evidence: evidence.collect(),
            kind: held.kind,
            state: held.state,
            service: (!held.service_name.is_empty()).then_some(&held.service_name),
            team: Some(ledger.teams().name(held.team)).filter(|team| *team != "none"),
            requester_external: held.findings.requester_external,
            opened_at: held.opened_at,
            resolved_at: held.resolved_at.filter(|_| !held.state.is_open()),
            reopened: held.reopened,
            effort_seconds: held.effort.seconds(),
            touches: held.touches,
            version: held.version.and_then(version_text),
            deleted: held.deleted,
            merged_into: held.merged_into.as_deref(),
            follows: held.follows.as_deref(),
            pack_hash: classifier.hash(),
        }
    }

    /// The line as a record of a topic, by the ticket's key; `None` if it cannot be written as JSON.
    pub fn outgoing(&self, topic: &Arc<str>) -> Option<Outgoing> {
        let line = serde_json::to_vec(self).ok()?;
        Some(Outgoing::new(topic, self.key.as_bytes().to_vec(), line))
    }
}

/// The count, or else the time in RFC 3339.
fn version_text(version: Version) -> Option<String> {
    let time = || version.time.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).map(|t| t.to_string());
    version.count.map(|count| count.to_string()).or_else(time)
}
