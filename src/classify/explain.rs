//! Why a ticket gets its tag: everything that was found, also what did not count, and where it is written.

use super::{Classifier, RuleInfo, Serialize};
use crate::pattern::matcher::{Fate, Match, Scratch};
use crate::pattern::rule::Rule;
use crate::pattern::zone::Zone;
use crate::ticket::{TextField, Ticket};
use crate::verdict::{Basis, Certainty, Evidence, Findings, Points, Verdict};

/// Why a ticket gets its tag.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// What people call the ticket: its id, or its key.
    pub id: String,
    /// The tag: `customer` or `internal`.
    pub affects: &'static str,
    /// What decided.
    pub basis: Basis,
    /// How far it can be trusted.
    pub certainty: Certainty,
    /// Customer weights less internal weights.
    pub score: f64,
    /// How many points of evidence for the other tag would bring a tie; `None` where evidence does not decide.
    pub margin: Option<f64>,
    /// The declared tag, if there is one.
    pub declared: Option<&'static str>,
    /// Whether the requester is from outside, where that can be told.
    pub requester_external: Option<bool>,
    /// The fields in which something was found, or which rules look at.
    pub fields: Vec<FieldExplanation>,
    /// What the service map said.
    pub services: Vec<ServiceExplanation>,
    /// The hash of all rules and services.
    pub pack_hash: String,
}

/// What was found in one field.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FieldExplanation {
    /// The field.
    pub field: TextField,
    /// Its text.
    pub text: String,
    /// Every match, by place; also those that did not count.
    pub matches: Vec<MatchExplanation>,
}

/// One match of a rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MatchExplanation {
    /// The rule's full name.
    pub rule: String,
    /// The rule's file and line.
    pub file: String,
    /// First character in the field, from 0.
    pub start: u32,
    /// One past the last character.
    pub end: u32,
    /// The rule's points here, less what the zone takes: above 0 for the customer.
    pub weight: f64,
    /// What became of it.
    pub fate: MatchFate,
    /// The zone in which it lies, such as a signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The rules that its rule needs, where none of them is there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
    /// The rules that replace its rule.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replaced_by: Vec<String>,
    /// The rules by which it was swallowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub swallowed_by: Vec<String>,
    /// Where the `unless` phrase stands that cancelled it: first character, and one past the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled_by: Option<(u32, u32)>,
}

/// What became of a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MatchFate {
    /// It is evidence.
    Counts,
    /// Its rule counts already, by an earlier match.
    CountedBefore,
    /// Its rule speaks for neither side and only swallows.
    WeighsNothing,
    /// It lies inside a longer match.
    Swallowed,
    /// An `unless` phrase of its rule is in the same field.
    Cancelled,
    /// The ticket does not meet the rule's `when`.
    ConditionUnmet,
    /// None of the rules that its rule needs is in the same field.
    Alone,
    /// A rule in the same field replaces its rule.
    Replaced,
    /// It lies in a zone that weighs nothing, such as a signature.
    OutOfScope,
}

/// What the service map said about the ticket's service or configuration item.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceExplanation {
    /// `service` or `ci`.
    pub field: TextField,
    /// The name as sent.
    pub name: String,
    /// The entry of the map and all that depends on it, up to one that customers meet.
    pub path: Vec<String>,
    /// The entry's file and line.
    pub file: String,
    /// Its points: above 0 for the customer.
    pub weight: f64,
}

/// Points as people write them.
pub fn weight(points: Points) -> f64 {
    f64::from(points) / 100.0
}

impl Classifier {
    /// Why a ticket gets its tag.
    pub fn explain(&self, ticket: &Ticket) -> Explanation {
        let mut scratch = Scratch::new();
        let findings = self.classify(ticket, &mut scratch);
        let Verdict { affects, basis, certainty, score } = findings.decide(self.policy);
        Explanation {
            id: ticket.id.as_ref().unwrap_or(&ticket.key).to_string(),
            affects: affects.as_str(),
            basis,
            certainty,
            score: weight(score),
            margin: matches!(basis, Basis::Pattern | Basis::Service | Basis::Default).then(|| weight(score.abs())),
            declared: findings.declared.map(|declared| declared.as_str()),
            requester_external: findings.requester_external,
            fields: TextField::ALL
                .iter()
                .filter_map(|f| self.explain_field(*f, ticket, &findings, &mut scratch))
                .collect(),
            services: findings.counting().filter_map(|e| self.explain_service(e, ticket)).collect(),
            pack_hash: self.hash.clone(),
        }
    }

    fn explain_field(
        &self,
        field: TextField,
        ticket: &Ticket,
        findings: &Findings,
        scratch: &mut Scratch,
    ) -> Option<FieldExplanation> {
        let text = ticket.text(field)?;
        self.matcher.scan(field, text, ticket, scratch);
        let is_usual = matches!(field, TextField::Summary | TextField::Description);
        if scratch.matches.is_empty() && !is_usual {
            return None;
        }
        let matches = scratch.matches.iter().filter_map(|m| self.explain_match(m, field, findings, scratch)).collect();
        Some(FieldExplanation { field, text: text.to_owned(), matches })
    }

    fn explain_match(
        &self,
        found: &Match,
        field: TextField,
        findings: &Findings,
        scratch: &Scratch,
    ) -> Option<MatchExplanation> {
        let info = self.infos.get(found.rule as usize)?;
        let original = |m: &Match| scratch.folded.original(m.start as usize..m.end as usize);
        let span = original(found);
        let counts = |e: &Evidence| e.rule == info.id && e.field == field && (e.start, e.end) == (span.start, span.end);
        let weighed = if found.fate == Fate::Live { self.matcher.weighed(found, info.weight) } else { info.weight };
        let rule = self.packs.rules.get(found.rule as usize);
        let lacks = rule.filter(|_| found.fate == Fate::Alone).map(|rule| rule.needs.clone()).unwrap_or_default();
        let zone = found.zone.and_then(|zone| self.packs.zones.get(zone as usize));
        let cancel = scratch.cancels.iter().find(|cancel| cancel.rule == found.rule && found.fate == Fate::Cancelled);
        Some(MatchExplanation {
            rule: info.name.clone(),
            file: info.place.file_and_line(),
            start: span.start,
            end: span.end,
            weight: weight(weighed),
            fate: fate(found, info, findings.counting().any(counts)),
            zone: zone.map(Zone::name),
            lacks,
            replaced_by: self.replacers(found, &info.name, scratch),
            swallowed_by: self.swallowers(found, scratch),
            cancelled_by: cancel.map(original).map(|span| (span.start, span.end)),
        })
    }

    /// The rules of the longest matches around a swallowed one.
    fn swallowers(&self, found: &Match, scratch: &Scratch) -> Vec<String> {
        if found.fate != Fate::Swallowed {
            return Vec::new();
        }
        let is_around = |other: &Match| matches!(other.fate, Fate::Live | Fate::Replaced | Fate::Muted);
        let around = scratch.matches.iter().filter(|other| is_around(other) && found.is_swallowed_by(other));
        let mut names: Vec<String> =
            around.filter_map(|other| Some(self.infos.get(other.rule as usize)?.name.clone())).collect();
        names.sort();
        names.dedup();
        names
    }

    /// The rules in the field that replace the rule of a replaced match.
    fn replacers(&self, found: &Match, name: &str, scratch: &Scratch) -> Vec<String> {
        if found.fate != Fate::Replaced {
            return Vec::new();
        }
        let rules = scratch.matches.iter().filter_map(|other| self.packs.rules.get(other.rule as usize));
        let replacing = rules.filter(|rule| rule.replaces.iter().any(|replaced| replaced == name));
        let mut names: Vec<String> = replacing.map(Rule::name).collect();
        names.sort();
        names.dedup();
        names
    }

    fn explain_service(&self, evidence: &Evidence, ticket: &Ticket) -> Option<ServiceExplanation> {
        let info = self.rule(evidence.rule).filter(|_| evidence.is_service())?;
        Some(ServiceExplanation {
            field: evidence.field,
            name: ticket.text(evidence.field).unwrap_or_default().to_owned(),
            path: info.path.clone(),
            file: info.place.file_and_line(),
            weight: weight(evidence.weight),
        })
    }
}

fn fate(found: &Match, info: &RuleInfo, counts: bool) -> MatchFate {
    match found.fate {
        Fate::Swallowed => MatchFate::Swallowed,
        Fate::Cancelled => MatchFate::Cancelled,
        Fate::Unmet => MatchFate::ConditionUnmet,
        Fate::Alone => MatchFate::Alone,
        Fate::Replaced => MatchFate::Replaced,
        Fate::Muted => MatchFate::OutOfScope,
        Fate::Live if info.affects.is_none() => MatchFate::WeighsNothing,
        Fate::Live if counts => MatchFate::Counts,
        Fate::Live => MatchFate::CountedBefore,
    }
}
