//! From rules as loaded to the tables that the matcher walks: one tree over the words of all phrases and of the literals
//! that regexes require, an automaton over those of the latter that may start inside a word, and what each is good for.
//!
//! Rules are sorted by name first, so that nothing depends on the order in which they were written. Alternatives that
//! several phrases share, such as word lists, are compiled and found once.

use std::ops::Range;
use std::sync::Arc;

use aho_corasick::automaton::Automaton;
use aho_corasick::dfa::DFA;
use aho_corasick::{Anchored, MatchKind, StartKind};
use hashbrown::HashMap;

use super::pack::Packs;
use super::phrase::{Alternatives, Literal, Part, Phrase};
use super::regex::{Gate, GatedRegex};
use super::rule::Rule;
use super::trie::{Trie, TrieBuilder};
use super::when::Condition;
use super::zone::CompiledZone;
use crate::diagnostic::{Place, Problem, Problems};
use crate::text::{count, is_word};
use crate::ticket::Affects;

/// Rules and zones as compiled.
#[derive(Debug)]
pub struct Matcher {
    pub(super) trie: Trie,
    /// By part: the phrases that are looked at where it is found.
    pub(super) parts: Vec<Box<[u32]>>,
    pub(super) phrases: Vec<CompiledPhrase>,
    pub(super) inner_gates: Option<InnerGates>,
    pub(super) regexes: Vec<OwnedRegex>,
    pub(super) rules: Vec<CompiledRule>,
    pub(super) zones: Vec<CompiledZone>,
    /// The fields that any rule looks at.
    pub(super) fields: u8,
}

/// Finds the literals that regexes require and that may start inside a word.
#[derive(Debug)]
pub(super) struct InnerGates {
    automaton: DFA,
    /// By literal: the regexes that require it.
    regexes: Vec<Box<[u32]>>,
}

impl InnerGates {
    fn new(mut gates: Vec<(String, Vec<u32>)>) -> Result<Self, aho_corasick::BuildError> {
        gates.sort_unstable();
        let mut builder = DFA::builder();
        builder.match_kind(MatchKind::Standard).start_kind(StartKind::Unanchored).prefilter(false);
        let automaton = builder.build(gates.iter().map(|(literal, _)| literal))?;
        Ok(Self { automaton, regexes: gates.into_iter().map(|(_, regexes)| regexes.into_boxed_slice()).collect() })
    }

    /// Calls `found` with each place of a literal and the regexes that require it; literals may overlap.
    pub fn find(&self, text: &[u8], mut found: impl FnMut(&[u32], Range<usize>)) {
        let Ok(mut state) = self.automaton.start_state(Anchored::No) else { return };
        for (byte, end) in text.iter().zip(1..) {
            state = self.automaton.next_state(Anchored::No, state, *byte);
            if !self.automaton.is_special(state) || !self.automaton.is_match(state) {
                continue;
            }
            for index in 0..self.automaton.match_len(state) {
                let literal = self.automaton.match_pattern(state, index);
                let regexes = self.regexes.get(literal.as_usize()).map(|regexes| &**regexes).unwrap_or_default();
                found(regexes, end - self.automaton.pattern_len(literal)..end);
            }
        }
    }

    fn memory(&self) -> usize {
        self.automaton.memory_usage()
    }
}

/// What a phrase is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A rule looks for it.
    Rule(u32),
    /// It cancels a rule.
    Unless(u32),
    /// It starts a zone.
    ZoneStart(u32),
    /// It ends a zone.
    ZoneEnd(u32),
    /// A regex requires it.
    Gate(u32),
}

/// A phrase as compiled.
#[derive(Clone, Debug)]
pub(super) struct CompiledPhrase {
    pub owner: Owner,
    /// The fields in which it counts.
    pub fields: u8,
    /// The only part, where there is only one.
    pub piece: Option<u32>,
    pub sides: Box<[Box<[Link]>]>,
}

/// A part in its place in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub part: u32,
    /// How many words may lie between the part before and this one.
    pub gap: u8,
}

impl CompiledPhrase {
    /// All parts.
    pub fn parts(&self) -> impl Iterator<Item = u32> {
        self.sides.iter().flatten().map(|link| link.part)
    }
}

/// Whose regex it is.
#[derive(Clone, Debug)]
pub(super) struct OwnedRegex {
    pub rule: u32,
    /// The fields in which it counts.
    pub fields: u8,
    pub regex: GatedRegex,
}

/// What the matcher has to know of a rule.
#[derive(Clone, Debug)]
pub(super) struct CompiledRule {
    pub affects: Option<Affects>,
    pub when: Box<[Condition]>,
    /// The rules of which one must be there, too; none where it needs none.
    pub needs: Box<[u32]>,
    /// The rules that do not count beside it.
    pub replaces: Box<[u32]>,
}

/// Size of a compiled matcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Different words and signs in all phrases.
    pub words: usize,
    /// Nodes of the tree over them.
    pub nodes: usize,
    /// Regexes.
    pub regexes: usize,
    /// Bytes of the tree and the automaton on the heap, roughly.
    pub bytes: usize,
}

/// Collects what belongs together.
#[derive(Default)]
struct Builder {
    trie: TrieBuilder,
    parts: HashMap<Alternatives, u32>,
    /// The same by where the alternatives lie in memory: word lists are shared, and long. They are held, so that no other
    /// alternatives can come to lie there.
    shared: HashMap<*const Literal, (Alternatives, u32)>,
    phrases: Vec<CompiledPhrase>,
    gates: HashMap<String, Vec<u32>>,
    regexes: Vec<OwnedRegex>,
}

impl Matcher {
    /// Compiles packs, whose rules must be sorted by name; matches refer to them by their index.
    ///
    /// # Errors
    /// When their regexes are too many for one automaton.
    pub fn new(packs: &Packs) -> Result<Self, Problems> {
        let mut builder = Builder::default();
        for (rule, index) in packs.rules.iter().zip(0..) {
            builder.add(rule, index);
        }
        for (zone, index) in packs.zones.iter().zip(0..) {
            zone.starts.iter().for_each(|start| builder.add_phrase(&start.phrase, Owner::ZoneStart(index), u8::MAX));
            zone.ends.iter().for_each(|end| builder.add_phrase(&end.phrase, Owner::ZoneEnd(index), u8::MAX));
        }
        builder.build(packs).map_err(|error| {
            let mut problems = Problems::new();
            let place = Place::Named("packs".to_owned());
            let problem = Problem::error("too-large", &place, format!("the rules cannot be compiled: {error}"));
            problems.push(problem.help("load fewer packs, or write phrases instead of regexes"));
            problems
        })
    }

    /// How large the matcher is.
    pub fn size(&self) -> Size {
        Size {
            words: self.trie.vocabulary().len(),
            nodes: self.trie.len(),
            regexes: self.regexes.len(),
            bytes: self.trie.memory() + self.inner_gates.as_ref().map_or(0, InnerGates::memory),
        }
    }
}

impl Builder {
    fn add(&mut self, rule: &Rule, index: u32) {
        let fields = rule.fields;
        rule.phrases.iter().for_each(|written| self.add_phrase(&written.phrase, Owner::Rule(index), fields));
        rule.unless.iter().for_each(|written| self.add_phrase(&written.phrase, Owner::Unless(index), fields));
        for written in &rule.regexes {
            self.add_gate(&written.regex.gate, fields);
            self.regexes.push(OwnedRegex { rule: index, fields, regex: written.regex.clone() });
        }
    }

    /// Literals that start with a word are found with the words of phrases; those that may start inside one need an
    /// automaton of their own.
    fn add_gate(&mut self, gate: &Gate, fields: u8) {
        let regex = count(self.regexes.len());
        let (words, others): (Vec<_>, Vec<_>) = gate.literals.iter().partition(|literal| gate.starts_word(literal));
        for literal in others {
            self.gates.entry_ref(literal.as_str()).or_default().push(regex);
        }
        if !words.is_empty() {
            let literal =
                |text: &String| Literal { pieces: vec![text.trim().to_owned()], open: text.ends_with(is_word) };
            let part = Part { gap: 0, alternatives: words.into_iter().map(literal).collect() };
            self.add_phrase(&Phrase { sides: vec![vec![part]] }, Owner::Gate(regex), fields);
        }
    }

    fn add_phrase(&mut self, phrase: &Phrase, owner: Owner, fields: u8) {
        let mut sides: Vec<Box<[Link]>> = Vec::new();
        for side in &phrase.sides {
            sides.push(side.iter().map(|part| Link { part: self.part(&part.alternatives), gap: part.gap }).collect());
        }
        let piece = match sides.as_slice() {
            [side] if side.len() == 1 => side.first().map(|link| link.part),
            _ => None,
        };
        self.phrases.push(CompiledPhrase { owner, fields, piece, sides: sides.into() });
    }

    /// The number of a part; the same for the same alternatives.
    fn part(&mut self, alternatives: &Alternatives) -> u32 {
        if let Some((_, known)) = self.shared.get(&alternatives.as_ptr()) {
            return *known;
        }
        let next = count(self.parts.len());
        let part = *self.parts.entry(Arc::clone(alternatives)).or_insert(next);
        if part == next {
            alternatives.iter().for_each(|literal| self.trie.add(literal, part));
        }
        self.shared.insert(alternatives.as_ptr(), (Arc::clone(alternatives), part));
        part
    }

    /// By part: the phrases to look at where it is found. A phrase is looked at for its rarest part only: the one that
    /// the fewest phrases have.
    fn looked_at(&self) -> Vec<Box<[u32]>> {
        let mut uses = vec![0_u32; self.parts.len()];
        for part in self.phrases.iter().flat_map(CompiledPhrase::parts) {
            if let Some(count) = uses.get_mut(part as usize) {
                *count += 1;
            }
        }
        let mut looked_at = vec![Vec::new(); self.parts.len()];
        for (phrase, index) in self.phrases.iter().zip(0..) {
            let rarest = phrase.parts().min_by_key(|part| uses.get(*part as usize));
            if let Some(phrases) = rarest.and_then(|part| looked_at.get_mut(part as usize)) {
                phrases.push(index);
            }
        }
        looked_at.into_iter().map(Vec::into_boxed_slice).collect()
    }

    fn build(self, packs: &Packs) -> Result<Matcher, aho_corasick::BuildError> {
        let parts = self.looked_at();
        let gates: Vec<(String, Vec<u32>)> = self.gates.into_iter().collect();
        let inner_gates = if gates.is_empty() { None } else { Some(InnerGates::new(gates)?) };
        let index: HashMap<String, u32> = packs.rules.iter().map(Rule::name).zip(0..).collect();
        Ok(Matcher {
            trie: self.trie.build(),
            parts,
            phrases: self.phrases,
            inner_gates,
            regexes: self.regexes,
            rules: packs.rules.iter().map(|rule| compiled(rule, &index)).collect(),
            zones: packs.zones.iter().map(CompiledZone::new).collect(),
            fields: packs.rules.iter().fold(0, |fields, rule| fields | rule.fields),
        })
    }
}

fn compiled(rule: &Rule, index: &HashMap<String, u32>) -> CompiledRule {
    let numbers = |names: &[String]| names.iter().filter_map(|name| index.get(name)).copied().collect();
    CompiledRule {
        affects: rule.affects,
        when: rule.when.clone().into(),
        needs: numbers(&rule.needs),
        replaces: numbers(&rule.replaces),
    }
}
