//! The tree of all phrases, word by word: one walk from each word of a text finds every part of a phrase that starts
//! there.

use std::ops::Range;

use hashbrown::HashMap;

use super::phrase::Literal;
use super::table::Table;
use super::word::{Tokens, Vocabulary, VocabularyBuilder, cut_literal};
use crate::text::count;

/// All literals of all parts.
#[derive(Debug)]
pub(super) struct Trie {
    vocabulary: Vocabulary,
    /// By word: where it leads from the root.
    root: Vec<Edge>,
    edges: Table<Edge>,
    /// By node: the parts of which a literal ends there, in [`Trie::ends`].
    nodes: Vec<Range<u32>>,
    ends: Vec<u32>,
}

/// A way to a node, with what there is to know of it, so that most nodes need not be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edge {
    node: u32,
    /// Whether any literal ends there.
    has_ends: bool,
    /// Whether any literal goes on from there.
    goes_on: bool,
}

impl Default for Edge {
    /// An edge to nowhere.
    fn default() -> Self {
        Self { node: u32::MAX, has_ends: false, goes_on: false }
    }
}

/// A word after others, as one number; `glued` where nothing stands between them. There are fewer than 2³¹ nodes.
fn step(node: u32, word: u32, glued: bool) -> u64 {
    u64::from(node) << 33 | u64::from(word) << 1 | u64::from(glued)
}

/// Collects literals.
#[derive(Debug, Default)]
pub(super) struct TrieBuilder {
    vocabulary: VocabularyBuilder,
    /// By word: the node to which it leads from the root.
    root: HashMap<u32, u32>,
    edges: HashMap<u64, u32>,
    /// By node: the parts that end there, and whether it goes on.
    nodes: Vec<(Vec<u32>, bool)>,
}

impl TrieBuilder {
    /// Adds one way to say a part.
    pub fn add(&mut self, literal: &Literal, part: u32) {
        let mut node = None;
        for (word, glued, open) in cut_literal(&literal.pieces, literal.open) {
            let word = self.vocabulary.add(word, open);
            let fresh = count(self.nodes.len());
            let next = match node {
                None => *self.root.entry(word).or_insert(fresh),
                Some(from) => {
                    if let Some((_, goes_on)) = self.nodes.get_mut(from as usize) {
                        *goes_on = true;
                    }
                    *self.edges.entry(step(from, word, glued)).or_insert(fresh)
                }
            };
            if next == fresh {
                self.nodes.push((Vec::new(), false));
            }
            node = Some(next);
        }
        if let Some((ends, _)) = node.and_then(|node| self.nodes.get_mut(node as usize)) {
            ends.push(part);
        }
    }

    /// The tree.
    pub fn build(self) -> Trie {
        let edge = |node: u32| {
            let (ends, goes_on) = self.nodes.get(node as usize).map_or((true, true), |(e, on)| (!e.is_empty(), *on));
            Edge { node, has_ends: ends, goes_on }
        };
        let vocabulary = self.vocabulary.build();
        let edges = Table::new(self.edges.iter().map(|(step, node)| (*step, edge(*node))));
        let mut root = vec![Edge::default(); vocabulary.len()];
        for (word, node) in &self.root {
            if let Some(slot) = root.get_mut(*word as usize) {
                *slot = edge(*node);
            }
        }
        let (mut nodes, mut all) = (Vec::new(), Vec::new());
        for (mut ends, _) in self.nodes {
            ends.sort_unstable();
            ends.dedup();
            let start = count(all.len());
            all.extend(ends);
            nodes.push(start..count(all.len()));
        }
        Trie { vocabulary, root, edges, nodes, ends: all }
    }
}

impl Trie {
    /// The words that phrases hold.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Bytes on the heap, roughly.
    pub fn memory(&self) -> usize {
        self.vocabulary.memory()
            + self.edges.memory()
            + self.root.len() * size_of::<Edge>()
            + self.nodes.len() * size_of::<Range<u32>>()
            + self.ends.len() * size_of::<u32>()
    }

    /// The parts of which a literal ends at a node.
    pub fn parts(&self, node: u32) -> &[u32] {
        let ends = self.nodes.get(node as usize).cloned().unwrap_or_default();
        self.ends.get(ends.start as usize..ends.end as usize).unwrap_or_default()
    }

    /// Calls `found` with each node at which parts end and to which a text leads: the node, the first and the last token
    /// on the way.
    pub fn find(&self, tokens: &Tokens, mut found: impl FnMut(u32, u32, u32)) {
        for (token, first) in tokens.as_slice().iter().zip(0..) {
            for word in tokens.numbers(token) {
                let edge = self.root.get(*word as usize).copied().unwrap_or_default();
                self.follow(edge, tokens, first, &mut |node, last| found(node, first, last));
            }
        }
    }

    /// Follows an edge by the token `last`, and all that lead on from there.
    #[inline]
    fn follow(&self, edge: Edge, tokens: &Tokens, last: u32, found: &mut impl FnMut(u32, u32)) {
        if edge.has_ends {
            found(edge.node, last);
        }
        if edge.goes_on {
            self.go_on(edge.node, tokens, last + 1, found);
        }
    }

    /// Goes on from a node by the token `next`.
    fn go_on(&self, node: u32, tokens: &Tokens, next: u32, found: &mut impl FnMut(u32, u32)) {
        let Some(token) = tokens.as_slice().get(next as usize) else { return };
        for word in tokens.numbers(token) {
            if let Some(edge) = self.edges.get(step(node, *word, token.glued)) {
                self.follow(edge, tokens, next, found);
            }
        }
    }
}
