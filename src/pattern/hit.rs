//! What was found in a field: ends of the word tree first, and of those the hits of the parts that are asked for.

use super::trie::Trie;
use super::word::Tokens;

/// A part of a phrase, or a whole phrase, found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PartHit {
    pub part: u32,
    /// Its first and its last token.
    pub first: u32,
    pub last: u32,
}

/// A node of the tree that was reached and at which parts end, with the first and the last token on the way.
#[derive(Clone, Copy, Debug)]
struct End {
    node: u32,
    first: u32,
    last: u32,
}

/// What is known of a part in a field.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    is_found: bool,
    is_wanted: bool,
    /// Where its hits start in [`Hits::hits`], and one past their end.
    start: u32,
    end: u32,
}

/// All hits of a field, those of a part side by side in the order of their first tokens. Common words are parts of a great
/// many phrases, most of which lack another part; so the hits of a part are laid out only where it is wanted. Reuse one
/// for many fields: its buffers stay.
#[derive(Clone, Debug, Default)]
pub(super) struct Hits {
    /// In the order of first tokens.
    ends: Vec<End>,
    /// By part.
    states: Vec<State>,
    /// The parts that were found, in the order in which they were met.
    parts: Vec<u32>,
    /// The hits of wanted parts, as they come.
    loose: Vec<PartHit>,
    hits: Vec<PartHit>,
}

impl Hits {
    /// Finds what stands in a text, and forgets what was here before; there are `parts` parts.
    pub fn find(&mut self, trie: &Trie, tokens: &Tokens, parts: usize) {
        for part in self.parts.drain(..) {
            if let Some(state) = self.states.get_mut(part as usize) {
                *state = State::default();
            }
        }
        self.states.resize(parts, State::default());
        self.ends.clear();
        let Self { ends, states, parts, .. } = self;
        trie.find(tokens, |node, first, last| {
            ends.push(End { node, first, last });
            for part in trie.parts(node) {
                if let Some(state) = states.get_mut(*part as usize).filter(|state| !state.is_found) {
                    state.is_found = true;
                    parts.push(*part);
                }
            }
        });
    }

    /// The parts that were found.
    pub fn parts(&self) -> &[u32] {
        &self.parts
    }

    /// Whether a part was found.
    pub fn has(&self, part: u32) -> bool {
        self.states.get(part as usize).is_some_and(|state| state.is_found)
    }

    /// Asks for the hits of a part.
    pub fn want(&mut self, part: u32) {
        if let Some(state) = self.states.get_mut(part as usize) {
            state.is_wanted = true;
        }
    }

    /// Lays out the hits of the parts that are wanted.
    pub fn lay(&mut self, trie: &Trie) {
        self.loose.clear();
        for End { node, first, last } in &self.ends {
            for part in trie.parts(*node) {
                if let Some(state) = self.states.get_mut(*part as usize).filter(|state| state.is_wanted) {
                    state.end += 1;
                    self.loose.push(PartHit { part: *part, first: *first, last: *last });
                }
            }
        }
        let mut start = 0;
        for part in &self.parts {
            let Some(state) = self.states.get_mut(*part as usize) else { continue };
            let count = state.end;
            (state.start, state.end) = (start, start);
            start += count;
        }
        self.hits.clear();
        self.hits.resize(self.loose.len(), PartHit::default());
        for hit in &self.loose {
            let Some(state) = self.states.get_mut(hit.part as usize) else { continue };
            if let Some(slot) = self.hits.get_mut(state.end as usize) {
                *slot = *hit;
            }
            state.end += 1;
        }
    }

    /// The hits of a part that was wanted when hits were laid out.
    pub fn of(&self, part: u32) -> &[PartHit] {
        let state = self.states.get(part as usize).copied().unwrap_or_default();
        self.hits.get(state.start as usize..state.end as usize).unwrap_or_default()
    }
}
