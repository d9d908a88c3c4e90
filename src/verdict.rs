//! What the classifier found in a ticket, and the tag that follows from it.
//!
//! [`Findings`] are what one event gives; they can be laid over those of earlier events, so that an event which does not
//! carry a field leaves what was found in it as it is. [`Findings::decide`] turns them into a [`Verdict`].

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::ticket::{Affects, TextField, names};

/// Evidence points in hundredths, so that sums are exact and do not depend on order. Above 0 speaks for `customer`.
pub type Points = i32;

/// The identity of a rule or service entry: a hash of its full name (`en/checkout-failure`, `service/webshop`), which
/// stays the same between runs and between versions of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RuleId(pub u64);

impl RuleId {
    /// The identity of a full name.
    pub fn of(name: &str) -> Self {
        Self(xxhash_rust::xxh3::xxh3_64(name.as_bytes()))
    }
}

/// One rule or service entry that spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Who spoke.
    pub rule: RuleId,
    /// In which field.
    pub field: TextField,
    /// First character of the match in the original field, from 0.
    pub start: u32,
    /// One past its last character.
    pub end: u32,
    /// For `customer` above 0, for `internal` below.
    pub weight: Points,
}

/// What was found in one event, or in all events of a ticket so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// The tag that a person or a field of the ITSM declares.
    pub declared: Option<Affects>,
    /// Whether the requester is from outside the company, where that can be told.
    pub requester_external: Option<bool>,
    /// Every rule and service entry that spoke, once for each field in which it did.
    pub evidence: SmallVec<[Evidence; 2]>,
    /// The fields that were there to be looked at: bit `1 << (field as u8)`.
    pub fields: u8,
}

names! {
    /// What decided.
    Basis {
        /// A person, or a field of the ITSM.
        Declared = "declared",
        /// Who asked.
        Requester = "requester",
        /// The service map.
        Service = "service",
        /// The rules.
        Pattern = "pattern",
        /// Nothing; the configured default.
        Default = "default",
    }
}

names! {
    /// How far the tag can be trusted.
    Certainty {
        /// Declared, requester, or a score beyond the margin.
        Clear = "clear",
        /// A score within the margin.
        Narrow = "narrow",
        /// No evidence at all.
        None = "none",
    }
}

names! {
    /// The class that a ticket's effort counts under: the tag, and whether it is sure.
    Class {
        /// Customer, clear.
        Customer = "customer",
        /// Customer, narrow or by default.
        CustomerUnsure = "customer_unsure",
        /// Internal, narrow or by default.
        InternalUnsure = "internal_unsure",
        /// Internal, clear.
        Internal = "internal",
    }
}

/// The tag with what decided it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The tag.
    pub affects: Affects,
    /// What decided.
    pub basis: Basis,
    /// How far it can be trusted.
    pub certainty: Certainty,
    /// Customer weights less internal weights.
    pub score: Points,
}

impl Class {
    /// The class of a tag that is this sure.
    pub fn of(affects: Affects, certainty: Certainty) -> Self {
        match (affects, certainty) {
            (Affects::Customer, Certainty::Clear) => Self::Customer,
            (Affects::Customer, _) => Self::CustomerUnsure,
            (Affects::Internal, Certainty::Clear) => Self::Internal,
            (Affects::Internal, _) => Self::InternalUnsure,
        }
    }
}

impl Verdict {
    /// The class that the ticket's effort counts under.
    pub fn class(self) -> Class {
        Class::of(self.affects, self.certainty)
    }
}

/// How findings become a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The tag where nothing speaks, and at a tie.
    pub default: Affects,
    /// A score whose distance from 0 is at most this is `narrow`.
    pub margin: Points,
    /// Declared tags are kept as a truth to compare with, and decide nothing.
    pub ignore_declared: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { default: Affects::Internal, margin: 200, ignore_declared: false }
    }
}

impl Findings {
    /// The bit of a field in [`Findings::fields`].
    pub fn bit(field: TextField) -> u8 {
        1 << (field as u8)
    }

    /// These findings over earlier ones: fields seen now replace what was found in them before, the rest stays.
    #[must_use]
    pub fn over(mut self, held: &Self) -> Self {
        let seen = self.fields;
        self.evidence.extend(held.evidence.iter().filter(|e| seen & Self::bit(e.field) == 0).copied());
        self.declared = self.declared.or(held.declared);
        self.requester_external = self.requester_external.or(held.requester_external);
        self.fields |= held.fields;
        self
    }

    /// The evidence that counts: each rule and service entry once, where it spoke first.
    pub fn counting(&self) -> impl Iterator<Item = &Evidence> {
        let before = |at: usize, rule| self.evidence.iter().take(at).any(|earlier| earlier.rule == rule);
        self.evidence.iter().enumerate().filter(move |(at, e)| !before(*at, e.rule)).map(|(_, evidence)| evidence)
    }

    /// The verdict: declared beats requester beats evidence; service and pattern evidence add up.
    pub fn decide(&self, policy: Policy) -> Verdict {
        let score = self.counting().map(|e| e.weight).sum();
        let sure = |affects, basis| Verdict { affects, basis, certainty: Certainty::Clear, score };
        if let Some(affects) = self.declared.filter(|_| !policy.ignore_declared) {
            return sure(affects, Basis::Declared);
        }
        if self.requester_external == Some(true) {
            return sure(Affects::Customer, Basis::Requester);
        }
        if self.evidence.is_empty() {
            return Verdict { affects: policy.default, basis: Basis::Default, certainty: Certainty::None, score };
        }
        let affects = match score {
            1.. => Affects::Customer,
            0 => policy.default,
            _ => Affects::Internal,
        };
        let certainty = if score.abs() > policy.margin { Certainty::Clear } else { Certainty::Narrow };
        Verdict { affects, basis: self.strongest_basis(score), certainty, score }
    }

    /// Whether services or patterns gave more to the side that won.
    fn strongest_basis(&self, score: Points) -> Basis {
        let given = |service: bool| -> Points {
            let side = self.counting().filter(|e| e.is_service() == service);
            side.map(|e| e.weight).filter(|w| (*w > 0) == (score > 0)).map(Points::abs).sum()
        };
        if given(true) > given(false) { Basis::Service } else { Basis::Pattern }
    }
}

impl Evidence {
    /// Whether it comes from the service map; rules that match in the service's name are patterns.
    pub fn is_service(&self) -> bool {
        self.start == self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(rule: &str, field: TextField, weight: Points) -> Evidence {
        Evidence { rule: RuleId::of(rule), field, start: 0, end: 5, weight }
    }

    fn findings(fields: &[TextField], evidence: &[Evidence]) -> Findings {
        let fields = fields.iter().map(|field| Findings::bit(*field)).sum();
        Findings { evidence: evidence.into(), fields, ..Findings::default() }
    }

    #[test]
    fn a_rule_counts_once_and_stays_while_one_field_still_speaks() {
        use TextField::{Description, Summary};
        let both = [evidence("a", Summary, 300), evidence("a", Description, 300), evidence("b", Description, -100)];
        let held = findings(&[Summary, Description], &both);
        assert_eq!(held.decide(Policy::default()).score, 200);
        let new_summary = findings(&[Summary], &[]).over(&held);
        assert_eq!(new_summary.decide(Policy::default()).score, 200, "the description still says it");
        let new_description = findings(&[Description], &[]).over(&new_summary);
        assert_eq!(new_description.decide(Policy::default()).certainty, Certainty::None);
    }

    #[test]
    fn declared_beats_requester_beats_evidence() {
        let mut all = findings(&[TextField::Summary], &[evidence("a", TextField::Summary, -500)]);
        assert_eq!(all.decide(Policy::default()).basis, Basis::Pattern);
        all.requester_external = Some(true);
        let verdict = all.decide(Policy::default());
        assert_eq!((verdict.affects, verdict.basis), (Affects::Customer, Basis::Requester));
        all.declared = Some(Affects::Internal);
        let verdict = all.decide(Policy::default());
        assert_eq!(
            (verdict.affects, verdict.basis, verdict.certainty),
            (Affects::Internal, Basis::Declared, Certainty::Clear)
        );
    }

    #[test]
    fn a_score_within_the_margin_is_narrow_and_a_tie_takes_the_default() {
        for (weight, affects, certainty) in [
            (201, Affects::Customer, Certainty::Clear),
            (200, Affects::Customer, Certainty::Narrow),
            (0, Affects::Internal, Certainty::Narrow),
            (-200, Affects::Internal, Certainty::Narrow),
            (-201, Affects::Internal, Certainty::Clear),
        ] {
            let verdict =
                findings(&[TextField::Summary], &[evidence("a", TextField::Summary, weight)]).decide(Policy::default());
            assert_eq!((verdict.affects, verdict.certainty), (affects, certainty), "{weight}");
        }
    }
}
