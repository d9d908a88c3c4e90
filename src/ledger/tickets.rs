//! The tickets of a ledger by their identity, numbered in the order in which they came.

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::Held;

/// A ticket's identity over all sources: a 128-bit hash of source and key, whose form never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TicketKey(pub u128);

impl TicketKey {
    /// The identity of the ticket with this key at this source.
    pub fn of(source: &str, key: &str) -> Self {
        let mut bytes: SmallVec<[u8; 128]> = SmallVec::new();
        bytes.extend_from_slice(source.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(key.as_bytes());
        Self(xxhash_rust::xxh3::xxh3_128(&bytes))
    }
}

/// What is kept of a ticket.
#[derive(Clone, Debug, PartialEq)]
pub enum Slot {
    /// All that the ledger knows of it.
    Held(Box<Held>),
    /// Only that it was there: it was closed and its retention is over.
    Retired,
}

/// Tickets by identity; they never become fewer. Those that came one after the other are likely to change together, and
/// their numbers let a journal write them side by side.
#[derive(Debug, Default)]
pub struct Tickets(HashMap<TicketKey, Numbered>);

/// What is kept of a ticket, and the how-manieth it is, from 1. The number takes no memory: it lies where a key of 16 bytes
/// leaves a gap.
#[derive(Debug)]
struct Numbered {
    number: u32,
    slot: Slot,
}

impl Tickets {
    /// Makes room for tickets to come, so that no single insert has to.
    pub fn reserve(&mut self, tickets: usize) {
        self.0.reserve(tickets);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// What is kept of one.
    pub fn get(&self, key: TicketKey) -> Option<&Slot> {
        self.0.get(&key).map(|ticket| &ticket.slot)
    }

    /// The same to be changed.
    pub fn get_mut(&mut self, key: TicketKey) -> Option<&mut Slot> {
        self.0.get_mut(&key).map(|ticket| &mut ticket.slot)
    }

    /// The number of one, with what is kept of it.
    pub fn numbered(&self, key: TicketKey) -> Option<(u32, &Slot)> {
        self.0.get(&key).map(|ticket| (ticket.number, &ticket.slot))
    }

    /// What is kept of one; made, and the last in number, where it was not there.
    pub fn get_or_insert_with(&mut self, key: TicketKey, make: impl FnOnce() -> Slot) -> &mut Slot {
        let number = u32::try_from(self.0.len() + 1).unwrap_or(u32::MAX);
        &mut self.0.entry(key).or_insert_with(|| Numbered { number, slot: make() }).slot
    }

    /// Keeps this of a ticket in place of what was kept; its number stays.
    pub fn insert(&mut self, key: TicketKey, slot: Slot) {
        *self.get_or_insert_with(key, || Slot::Retired) = slot;
    }

    /// Takes all out, in no order.
    pub fn drain(&mut self) -> impl Iterator<Item = (TicketKey, Slot)> {
        self.0.drain().map(|(key, ticket)| (key, ticket.slot))
    }

    /// All, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (TicketKey, &Slot)> {
        self.0.iter().map(|(key, ticket)| (*key, &ticket.slot))
    }
}

impl FromIterator<(TicketKey, Slot)> for Tickets {
    fn from_iter<I: IntoIterator<Item = (TicketKey, Slot)>>(tickets: I) -> Self {
        let mut all = Self::default();
        tickets.into_iter().for_each(|(key, slot)| all.insert(key, slot));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_keeps_its_number_and_the_number_takes_no_memory() {
        let key = TicketKey::of("s", "a");
        let mut tickets: Tickets =
            ["a", "b"].map(|name| (TicketKey::of("s", name), Slot::Retired)).into_iter().collect();
        tickets.insert(key, Slot::Retired);
        let numbers = ["a", "b", "c"].map(|name| tickets.numbered(TicketKey::of("s", name)).map(|(number, _)| number));
        assert_eq!((tickets.count(), numbers), (2, [Some(1), Some(2), None]));
        assert_eq!(size_of::<(TicketKey, Numbered)>(), size_of::<(TicketKey, Slot)>());
    }
}
