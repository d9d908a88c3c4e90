//! Conditions of a rule on the structured fields of a ticket.
//!
//! A condition lists the values that it accepts; a ticket that does not carry the field meets none. A category is met
//! as a whole (`Software / SAP`) or at one of its levels (`SAP`).

use serde::{Deserialize, Serialize};

use crate::text::{fold_name, folded_name};
use crate::ticket::{Ticket, names};

names! {
    /// The structured fields that a rule may ask for.
    Key {
        /// What sort of work the ticket is.
        Kind = "kind",
        /// Where it is in its life.
        State = "state",
        /// The priority, as sent.
        Priority = "priority",
        /// The team that has it.
        Group = "group",
        /// The category path, or one of its levels.
        Category = "category",
        /// The service, as sent.
        Service = "service",
        /// The configuration item, as sent.
        Ci = "ci",
    }
}

/// One field and the values that are accepted there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The field.
    pub key: Key,
    /// The values as written; at least one.
    pub values: Vec<String>,
    /// The values as they compare.
    folded: Vec<String>,
}

impl Condition {
    /// A condition that accepts these values, in any case.
    pub fn new(key: Key, values: Vec<String>) -> Self {
        let folded = values.iter().map(|value| folded_name(value)).collect();
        Self { key, values, folded }
    }

    /// Whether the ticket meets the condition.
    pub fn is_met(&self, ticket: &Ticket, facts: &mut Facts) -> bool {
        let Some(value) = facts.get(self.key, ticket) else { return false };
        let accepts = |value: &str| self.folded.iter().any(|accepted| accepted == value);
        accepts(value) || (self.key == Key::Category && value.split(" / ").any(accepts))
    }
}

/// The structured fields of one ticket in the form in which they compare, each made when first asked for.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    made: u8,
    values: [Option<String>; Key::ALL.len()],
}

impl Facts {
    /// Forgets the ticket.
    pub fn clear(&mut self) {
        self.made = 0;
    }

    fn get(&mut self, key: Key, ticket: &Ticket) -> Option<&str> {
        let value = self.values.get_mut(key as usize)?;
        if self.made & (1 << key as u8) == 0 {
            self.made |= 1 << key as u8;
            match key.of(ticket) {
                Some(text) => fold_name(text, value.get_or_insert_default()),
                None => *value = None,
            }
        }
        value.as_deref()
    }
}

impl Key {
    /// The field's value, as sent.
    pub(crate) fn of(self, ticket: &Ticket) -> Option<&str> {
        match self {
            Self::Kind => ticket.kind.map(|kind| kind.as_str()),
            Self::State => ticket.state.map(|state| state.as_str()),
            Self::Priority => ticket.priority.as_deref(),
            Self::Group => ticket.group.as_deref(),
            Self::Category => ticket.category.as_deref(),
            Self::Service => ticket.service.as_deref(),
            Self::Ci => ticket.ci.as_deref(),
        }
    }
}
