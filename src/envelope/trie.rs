//! The wanted paths as a trie that drives the JSON parser: what nobody asked for is skipped, never built.
//!
//! A [`Trie`] is made once from [`Path`]s; [`Trie::read`] fills a [`Document`] in one pass over the text. Paths may be
//! relative to one of several roots (`issue.` in a webhook, nothing in a bare document); the first root that the
//! document has counts, so that keys of an outer object are never taken for those of the inner one.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use hashbrown::HashMap;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::cell::Cell;
use super::mark::{Mark, Marks};
use super::path::{Path, Segment, fold};

/// A wanted path, by its place in the list that the trie was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PathId(pub usize);

/// What stands under a key.
#[derive(Clone, Copy, Debug, Default)]
struct Child {
    node: Option<usize>,
    mark: Option<Mark>,
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, Child>,
    /// Tells most keys that are no child apart without hashing them.
    shapes: Shapes,
    /// The slot that takes the whole value; what lies below is then found in the [`Cell`].
    slot: Option<usize>,
    /// Which root begins here.
    root: Option<usize>,
    /// The slots at and below this node, so that a key that comes twice forgets its first value.
    slots: Range<usize>,
}

/// Length, first and last byte of a set of keys: for each length up to 31 (longer ones share the last place) a bit for
/// what the two bytes add up to.
#[derive(Debug, Default)]
struct Shapes([u64; 32]);

impl Shapes {
    fn place(key: &str) -> (usize, u64) {
        let bytes = key.as_bytes();
        let ends = bytes.first().zip(bytes.last()).map_or(0, |(first, last)| first.wrapping_mul(5).wrapping_add(*last));
        (bytes.len().min(31), 1 << (ends & 63))
    }

    fn add(&mut self, key: &str) {
        let (length, bit) = Self::place(key);
        self.0[length] |= bit;
    }

    fn may_have(&self, key: &str) -> bool {
        let (length, bit) = Self::place(key);
        self.0[length] & bit != 0
    }
}

/// Where a path ends up: a slot, and what is left of the path inside its cell.
#[derive(Debug)]
struct Location {
    slot: usize,
    rest: Vec<Segment>,
}

/// The wanted paths, ready to read documents.
#[derive(Debug)]
pub struct Trie {
    nodes: Vec<Node>,
    /// The location of each path under each root; the last root is the bare document.
    locations: Vec<Vec<Location>>,
    names: Vec<String>,
    fold_keys: bool,
}

/// The wanted values of one document.
#[derive(Debug)]
pub struct Document<'a> {
    /// What was found, in the order of the text.
    cells: Vec<Cell<'a>>,
    /// For each slot the number of its cell, or [`NONE`]: most slots of most documents are empty.
    found: Vec<u32>,
    roots: u32,
    reading: Option<usize>,
}

const NONE: u32 = u32::MAX;

impl<'a> Document<'a> {
    fn put(&mut self, slot: usize, cell: Cell<'a>) {
        if let Some(held) = self.cells.get_mut(self.found[slot] as usize) {
            *held = cell;
        } else if let Ok(number) = u32::try_from(self.cells.len()) {
            self.found[slot] = number;
            self.cells.push(cell);
        }
    }

    fn cell(&self, slot: usize) -> Option<&Cell<'a>> {
        self.cells.get(self.found[slot] as usize)
    }
}

impl Trie {
    /// A trie of paths, each looked for under every root, the first of which that a document has counts; the bare
    /// document is always the last. With `fold_keys`, a top-level key is also found in lower case with `_` for spaces.
    pub fn new(paths: &[Path], roots: &[Path], fold_keys: bool) -> Self {
        let mut trie = Self { nodes: vec![Node::default()], locations: Vec::new(), names: Vec::new(), fold_keys };
        let bare = Path::default();
        let roots: Vec<&Path> = roots.iter().chain([&bare]).collect();
        for (number, root) in roots.iter().enumerate() {
            let node = trie.insert(&root.segments);
            trie.nodes[node].root = Some(number);
            for path in paths {
                let full = path.under(root);
                let leaf = trie.insert(full.in_trie());
                trie.nodes[leaf].slot = Some(usize::MAX);
            }
        }
        trie.number_slots(0, &mut Vec::new());
        trie.locations =
            roots.iter().map(|root| paths.iter().map(|path| trie.locate(&path.under(root))).collect()).collect();
        trie.add_marks();
        trie.note_shapes();
        trie
    }

    fn note_shapes(&mut self) {
        for node in &mut self.nodes {
            node.children.keys().for_each(|key| node.shapes.add(key));
        }
    }

    fn insert(&mut self, segments: &[Segment]) -> usize {
        let mut at = 0;
        for segment in segments {
            let next = self.nodes.len();
            let child = self.nodes[at].children.entry(segment.name.as_str().into()).or_default();
            let node = *child.node.get_or_insert(next);
            if node == next {
                self.nodes.push(Node::default());
            }
            at = node;
        }
        at
    }

    /// Gives each outermost leaf its slot, depth first, so that the slots below a node are one range.
    fn number_slots(&mut self, node: usize, trail: &mut Vec<String>) {
        let first = self.names.len();
        if self.nodes[node].slot.is_some() {
            self.nodes[node].slot = Some(first);
            self.names.push(trail.join("."));
        } else {
            let mut children: Vec<_> =
                self.nodes[node].children.iter().filter_map(|(k, c)| Some((k.clone(), c.node?))).collect();
            children.sort();
            for (key, child) in children {
                trail.push(key.into());
                self.number_slots(child, trail);
                trail.pop();
            }
        }
        self.nodes[node].slots = first..self.names.len();
    }

    fn locate(&self, path: &Path) -> Location {
        let mut at = 0;
        for (depth, segment) in path.segments.iter().enumerate() {
            let child = self.nodes[at].children.get(segment.name.as_str());
            at = child.and_then(|child| child.node).expect("every path was inserted");
            if let Some(slot) = self.nodes[at].slot {
                return Location { slot, rest: path.rest_after(depth) };
            }
        }
        unreachable!("the last segment of an inserted path is a leaf")
    }

    fn add_marks(&mut self) {
        for mark in Mark::ALL {
            self.nodes[0].children.entry(mark.key().into()).or_default().mark = Some(*mark);
        }
    }

    /// Reads a text that is one JSON object into `document`, and the envelope marks at its top into `marks`.
    ///
    /// # Errors
    /// The parser's, when the text is no JSON object or a wanted value cannot be read; [`Trie::field`] names it.
    pub fn read<'a>(
        &self,
        text: &'a str,
        document: &mut Document<'a>,
        marks: &mut Marks<'a>,
    ) -> serde_json::Result<()> {
        let mut parser = serde_json::Deserializer::from_str(text);
        parser.deserialize_map(TopVisitor { trie: self, document, marks })?;
        parser.end()
    }

    /// Reads the values that look like marks of an envelope, but are the document's own.
    ///
    /// # Errors
    /// As [`Trie::read`].
    pub fn read_marked<'a>(&self, document: &mut Document<'a>, marks: &Marks<'a>) -> serde_json::Result<()> {
        for mark in Mark::ALL {
            let wanted = self.nodes[0].children.get(mark.key()).and_then(|child| child.node);
            if let (Some(node), Some(raw)) = (wanted, marks.raw(*mark)) {
                let mut parser = serde_json::Deserializer::from_str(raw);
                NodeSeed { trie: self, node, document }.deserialize(&mut parser)?;
            }
        }
        Ok(())
    }

    /// An empty document of this trie.
    pub fn document<'a>(&self) -> Document<'a> {
        Document { cells: Vec::with_capacity(32), found: vec![NONE; self.names.len()], roots: 0, reading: None }
    }

    /// The name of the wanted field that was being read when the parser gave up.
    pub fn field(&self, document: &Document<'_>) -> Option<&str> {
        document.reading.map(|slot| self.names[slot].as_str())
    }

    /// The value at a path, under the first root that the document has.
    pub fn get<'d, 'a>(&self, document: &'d Document<'a>, path: PathId) -> Option<&'d Cell<'a>> {
        let root = document.roots.trailing_zeros() as usize;
        let location = &self.locations[root.min(self.locations.len() - 1)][path.0];
        let mut cell = document.cell(location.slot)?;
        for segment in &location.rest {
            cell = segment.of(cell)?;
        }
        (!cell.is_empty()).then_some(cell)
    }

    fn child(&self, node: usize, key: &str) -> Option<Child> {
        let node_at = &self.nodes[node];
        let found = |key: &str| {
            if node_at.shapes.may_have(key) { node_at.children.get(key).copied() } else { None }
        };
        match found(key) {
            None if self.fold_keys && node == 0 => match fold(key) {
                Cow::Owned(folded) => found(&folded),
                Cow::Borrowed(_) => None,
            },
            child => child,
        }
    }
}

/// Looks a key up without building it.
struct KeySeed<'t> {
    trie: &'t Trie,
    node: usize,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Option<Child>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Option<Child>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.trie.child(self.node, key))
    }
}

/// Reads the top object: wanted values, and the marks of envelopes.
struct TopVisitor<'t, 'd, 'a> {
    trie: &'t Trie,
    document: &'d mut Document<'a>,
    marks: &'d mut Marks<'a>,
}

impl<'de> Visitor<'de> for TopVisitor<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Self { trie, document, marks } = self;
        while let Some(child) = entries.next_key_seed(KeySeed { trie, node: 0 })? {
            marks.keys += 1;
            match child {
                Some(Child { mark: Some(mark), .. }) if !mark.only_seen() => {
                    marks.note(mark, Some(entries.next_value()?));
                }
                Some(Child { node: Some(node), mark }) => {
                    mark.into_iter().for_each(|mark| marks.note(mark, None));
                    entries.next_value_seed(NodeSeed { trie, node, document })?;
                }
                Some(Child { node: None, mark }) => {
                    mark.into_iter().for_each(|mark| marks.note(mark, None));
                    entries.next_value::<IgnoredAny>()?;
                }
                None => {
                    entries.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Reads one value at a node: whole if the node has a slot, else only what is wanted below.
struct NodeSeed<'t, 'd, 'a> {
    trie: &'t Trie,
    node: usize,
    document: &'d mut Document<'a>,
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let node = &self.trie.nodes[self.node];
        let Some(slot) = node.slot else {
            self.document.found[node.slots.clone()].fill(NONE);
            return deserializer.deserialize_any(self);
        };
        self.document.reading = Some(slot);
        let cell = Cell::deserialize(deserializer)?;
        self.document.put(slot, cell);
        self.document.reading = None;
        Ok(())
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Self { trie, node, document } = self;
        if let Some(root) = trie.nodes[node].root {
            document.roots |= 1 << root;
        }
        while let Some(child) = entries.next_key_seed(KeySeed { trie, node })? {
            match child.and_then(|child| child.node) {
                Some(node) => entries.next_value_seed(NodeSeed { trie, node, document })?,
                None => {
                    entries.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    /// Of a list, the first element speaks.
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Self { trie, node, document } = self;
        items.next_element_seed(NodeSeed { trie, node, document })?;
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}
