//! From rules as loaded to the tables that the matcher walks: one automaton over all literals, and what each of them
//! is good for.
//!
//! Rules are sorted by name first, so that nothing depends on the order in which they were written.

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use hashbrown::HashMap;

use super::pack::Rule;
use super::phrase::{Literal, Phrase};
use super::regex::GatedRegex;
use super::when::Condition;
use crate::diagnostic::{Place, Problem, Problems};
use crate::text::is_word;

/// Up to this many automaton states the DFA is used: up to three times the speed of the NFA, for about 256 bytes a
/// state. Beyond these 8 MiB it leaves the caches, and the NFA is as fast in a sixteenth of the memory.
const MAX_DFA_STATES: usize = 32 * 1024;

/// Rules as compiled.
#[derive(Debug)]
pub struct Matcher {
    pub(super) automaton: AhoCorasick,
    /// By automaton pattern: what its literal is good for.
    pub(super) literals: Vec<LiteralUses>,
    pub(super) pieces: Vec<PieceUse>,
    pub(super) gates: Vec<u32>,
    pub(super) phrases: Vec<PhraseOwner>,
    pub(super) regexes: Vec<OwnedRegex>,
    pub(super) rules: Vec<CompiledRule>,
    /// The fields that any rule looks at.
    pub(super) fields: u8,
}

/// What a literal of the automaton is good for.
#[derive(Clone, Debug, Default)]
pub(super) struct LiteralUses {
    /// Uses in [`Matcher::pieces`].
    pub pieces: std::ops::Range<u32>,
    /// Uses in [`Matcher::gates`].
    pub gates: std::ops::Range<u32>,
    /// Whether it starts with a word character, and so must not start inside a word.
    pub starts_word: bool,
    /// Whether it ends with a word character.
    pub ends_word: bool,
}

/// A literal as one way to say one part of a phrase.
#[derive(Clone, Debug)]
pub(super) struct PieceUse {
    pub phrase: u32,
    pub part: u8,
    /// Whether the last word may go on.
    pub open: bool,
    /// The pieces that follow the literal's first one; what is between them is the free ending of a word.
    pub tail: Box<[String]>,
}

/// Whose phrase it is.
#[derive(Clone, Debug)]
pub(super) struct PhraseOwner {
    pub rule: u32,
    /// How many parts it has.
    pub parts: u8,
    /// Whether it cancels the rule.
    pub cancels: bool,
}

/// Whose regex it is.
#[derive(Clone, Debug)]
pub(super) struct OwnedRegex {
    pub rule: u32,
    pub regex: GatedRegex,
}

/// What the matcher has to know of a rule.
#[derive(Clone, Debug)]
pub(super) struct CompiledRule {
    pub fields: u8,
    pub when: Box<[Condition]>,
}

/// Size of a compiled matcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Literals in the automaton.
    pub literals: usize,
    /// Regexes behind it.
    pub regexes: usize,
    /// Heap of the automaton in bytes.
    pub automaton_bytes: usize,
}

/// Collects what belongs to each literal.
#[derive(Default)]
struct Builder<'a> {
    literals: HashMap<&'a str, (Vec<PieceUse>, Vec<u32>)>,
    phrases: Vec<PhraseOwner>,
    regexes: Vec<OwnedRegex>,
}

impl Matcher {
    /// Compiles rules, which must be sorted by name; matches refer to them by their index.
    ///
    /// # Errors
    /// When they are too many for the automaton.
    pub fn new(rules: &[Rule]) -> Result<Self, Problems> {
        let mut builder = Builder::default();
        for (rule, index) in rules.iter().zip(0..) {
            builder.add(rule, index);
        }
        builder.build(rules).map_err(|error| {
            let mut problems = Problems::new();
            let place = Place::Named("packs".to_owned());
            let problem = Problem::error("too-large", &place, format!("the rules cannot be compiled: {error}"));
            problems.push(problem.help("load fewer packs, or use `*` instead of long lists of alternatives"));
            problems
        })
    }

    /// How large the matcher is.
    pub fn size(&self) -> Size {
        Size {
            literals: self.literals.len(),
            regexes: self.regexes.len(),
            automaton_bytes: self.automaton.memory_usage(),
        }
    }
}

impl<'a> Builder<'a> {
    fn add(&mut self, rule: &'a Rule, index: u32) {
        for written in &rule.phrases {
            self.add_phrase(&written.phrase, index, false);
        }
        for written in &rule.unless {
            self.add_phrase(&written.phrase, index, true);
        }
        for written in &rule.regexes {
            let regex = number(self.regexes.len());
            for literal in &written.regex.gate.literals {
                self.literals.entry(literal).or_default().1.push(regex);
            }
            self.regexes.push(OwnedRegex { rule: index, regex: written.regex.clone() });
        }
    }

    fn add_phrase(&mut self, phrase: &'a Phrase, rule: u32, cancels: bool) {
        let index = number(self.phrases.len());
        for (part, at) in phrase.parts.iter().zip(0..) {
            for literal in &part.alternatives {
                self.add_literal(literal, index, at);
            }
        }
        let parts = u8::try_from(phrase.parts.len()).unwrap_or(u8::MAX);
        self.phrases.push(PhraseOwner { rule, parts, cancels });
    }

    fn add_literal(&mut self, literal: &'a Literal, phrase: u32, part: u8) {
        let Some((head, tail)) = literal.pieces.split_first() else { return };
        let used = PieceUse { phrase, part, open: literal.open, tail: tail.into() };
        self.literals.entry(head).or_default().0.push(used);
    }

    fn build(self, rules: &[Rule]) -> Result<Matcher, aho_corasick::BuildError> {
        let mut texts: Vec<_> = self.literals.into_iter().collect();
        texts.sort_unstable_by_key(|(text, _)| *text);
        let kind = if states(texts.iter().map(|(text, _)| *text)) <= MAX_DFA_STATES {
            AhoCorasickKind::DFA
        } else {
            AhoCorasickKind::ContiguousNFA
        };
        let mut builder = AhoCorasick::builder();
        let automaton = builder.match_kind(MatchKind::Standard).kind(Some(kind)).prefilter(false);
        let automaton = automaton.build(texts.iter().map(|(text, _)| text))?;
        let (mut literals, mut pieces, mut gates) = (Vec::new(), Vec::new(), Vec::new());
        for (text, (used, gated)) in texts {
            let (piece, gate) = (number(pieces.len()), number(gates.len()));
            pieces.extend(used);
            gates.extend(gated);
            literals.push(LiteralUses {
                pieces: piece..number(pieces.len()),
                gates: gate..number(gates.len()),
                starts_word: text.starts_with(is_word),
                ends_word: text.ends_with(is_word),
            });
        }
        let compiled = rules.iter().map(|rule| CompiledRule { fields: rule.fields, when: rule.when.clone().into() });
        let fields = rules.iter().fold(0, |fields, rule| fields | rule.fields);
        let (phrases, regexes, rules) = (self.phrases, self.regexes, compiled.collect());
        Ok(Matcher { automaton, literals, pieces, gates, phrases, regexes, rules, fields })
    }
}

/// How many automaton states sorted literals need: one for each prefix that is new.
fn states<'a>(sorted: impl Iterator<Item = &'a str>) -> usize {
    let mut states = 1;
    let mut last = "";
    for text in sorted {
        let shared = text.bytes().zip(last.bytes()).take_while(|(a, b)| a == b).count();
        states += text.len() - shared;
        last = text;
    }
    states
}

/// An index; the automaton refuses more than 2³¹ patterns, and nothing here outnumbers its literals' uses.
#[expect(clippy::cast_possible_truncation, reason = "packs that come near 2^32 phrases do not fit into memory")]
fn number(index: usize) -> u32 {
    index as u32
}
