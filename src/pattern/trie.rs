//! The tree of all phrases, word by word: one walk from each word of a text finds every part of a phrase that starts
//! there.

use std::ops::Range;

use hashbrown::HashMap;

use super::phrase::Literal;
use super::word::{Token, Tokens, Vocabulary, cut_literal};
use crate::text::count;

const NOWHERE: u32 = u32::MAX;

/// All literals of all parts.
#[derive(Debug, Default)]
pub(super) struct Trie {
    vocabulary: Vocabulary,
    /// By word: the node to which it leads from the root.
    root: Vec<u32>,
    edges: HashMap<Step, u32>,
    nodes: Vec<Node>,
    /// What ends at the nodes.
    ends: Vec<u32>,
}

/// A word after others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Step {
    node: u32,
    word: u32,
    glued: bool,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// The parts of which a literal ends here, in [`Trie::ends`].
    ends: Range<u32>,
    /// Whether any literal goes on.
    branches: bool,
}

/// Collects literals.
#[derive(Debug, Default)]
pub(super) struct TrieBuilder {
    trie: Trie,
    /// By node: the parts that end there.
    ends: Vec<Vec<u32>>,
}

impl TrieBuilder {
    /// Adds one way to say a part.
    pub fn add(&mut self, literal: &Literal, part: u32) {
        let mut node = None;
        for (word, glued, open) in cut_literal(&literal.pieces, literal.open) {
            let word = self.trie.vocabulary.add(word, open);
            node = Some(match node {
                None => self.first(word),
                Some(node) => self.next(Step { node, word, glued }),
            });
        }
        if let Some(ends) = node.and_then(|node| self.ends.get_mut(node as usize)) {
            ends.push(part);
        }
    }

    fn first(&mut self, word: u32) -> u32 {
        let at = word as usize;
        if self.trie.root.len() <= at {
            self.trie.root.resize(at + 1, NOWHERE);
        }
        match self.trie.root.get(at) {
            Some(&node) if node != NOWHERE => node,
            _ => {
                let node = self.node();
                if let Some(slot) = self.trie.root.get_mut(at) {
                    *slot = node;
                }
                node
            }
        }
    }

    fn next(&mut self, step: Step) -> u32 {
        if let Some(node) = self.trie.edges.get(&step) {
            return *node;
        }
        if let Some(from) = self.trie.nodes.get_mut(step.node as usize) {
            from.branches = true;
        }
        let node = self.node();
        self.trie.edges.insert(step, node);
        node
    }

    fn node(&mut self) -> u32 {
        let number = count(self.trie.nodes.len());
        self.trie.nodes.push(Node::default());
        self.ends.push(Vec::new());
        number
    }

    /// The tree.
    pub fn build(self) -> Trie {
        let mut trie = self.trie;
        for (node, mut parts) in trie.nodes.iter_mut().zip(self.ends) {
            parts.sort_unstable();
            parts.dedup();
            let start = count(trie.ends.len());
            trie.ends.extend(parts);
            node.ends = start..count(trie.ends.len());
        }
        trie.edges.shrink_to_fit();
        trie
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
        let edge = size_of::<Step>() + size_of::<u32>() + 1;
        self.vocabulary.memory()
            + self.edges.capacity() * edge
            + self.nodes.len() * size_of::<Node>()
            + (self.root.len() + self.ends.len()) * size_of::<u32>()
    }

    /// Calls `found` with each part that stands in a text: the part, its first and its last token.
    pub fn find(&self, tokens: &Tokens, mut found: impl FnMut(u32, u32, u32)) {
        for (token, first) in tokens.as_slice().iter().zip(0..) {
            for word in tokens.numbers(token) {
                if let Some(&node) = self.root.get(word as usize).filter(|node| **node != NOWHERE) {
                    self.walk(node, tokens, first, &mut |part, last| found(part, first, last));
                }
            }
        }
    }

    /// Reports what ends at a node, reached with the token `last`, and goes on from there.
    fn walk(&self, node: u32, tokens: &Tokens, last: u32, found: &mut impl FnMut(u32, u32)) {
        let Some(reached) = self.nodes.get(node as usize) else { return };
        for part in self.ends.get(reached.ends.start as usize..reached.ends.end as usize).unwrap_or_default() {
            found(*part, last);
        }
        if !reached.branches {
            return;
        }
        let Some(next) = tokens.as_slice().get(last as usize + 1) else { return };
        for step in steps(node, tokens, next) {
            if let Some(node) = self.edges.get(&step) {
                self.walk(*node, tokens, last + 1, found);
            }
        }
    }
}

/// The ways on from a node with the next token.
fn steps(node: u32, tokens: &Tokens, next: &Token) -> impl Iterator<Item = Step> {
    let glued = next.glued;
    tokens.numbers(next).map(move |word| Step { node, word, glued })
}
