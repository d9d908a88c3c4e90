//! What was found in the last tickets: most events change a ticket's state or effort, and none of its texts.

use quick_cache::sync::Cache;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::pattern::when::Key;
use crate::ticket::{TextField, Ticket};
use crate::verdict::Findings;

/// How many tickets are remembered; about 150 bytes each.
const CAPACITY: usize = 65_536;

/// Findings by all that they depend on.
#[derive(Debug)]
pub(super) struct Memo {
    found: Cache<u128, Findings>,
    /// The structured fields that some rule asks for.
    asked: Vec<Key>,
    /// Of this process alone, so that nobody can write tickets that are taken for others.
    seed: u64,
}

impl Memo {
    pub(super) fn new(asked: Vec<Key>) -> Self {
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), ());
        Self { found: Cache::new(CAPACITY), asked, seed }
    }

    /// What was found in a ticket with the same words, or what `search` finds now. `buffer` is anybody's.
    pub(super) fn recall(&self, ticket: &Ticket, buffer: &mut Vec<u8>, search: impl FnOnce() -> Findings) -> Findings {
        let key = self.key(ticket, buffer);
        self.found.get(&key).unwrap_or_else(|| {
            let found = search();
            self.found.insert(key, found.clone());
            found
        })
    }

    /// A hash of everything that a search looks at.
    fn key(&self, ticket: &Ticket, buffer: &mut Vec<u8>) -> u128 {
        buffer.clear();
        let texts = TextField::ALL.iter().map(|field| ticket.text(*field));
        for part in texts.chain(self.asked.iter().map(|key| key.of(ticket))) {
            // A part that is missing is told from an empty one.
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            buffer.extend_from_slice(&length.to_le_bytes());
            buffer.extend_from_slice(part.unwrap_or_default().as_bytes());
        }
        xxh3_128_with_seed(buffer, self.seed)
    }
}
