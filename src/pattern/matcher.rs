//! Rules at work: one pass over a folded field, then verification of what the pass found.
//!
//! What counts as a match:
//! - A literal counts on word borders, which are looked at by hand: letters and digits of any script make words.
//! - A phrase with `...` is placed once for each place of its first part: where its last part ends first. Between two
//!   parts lie at most four words and 256 bytes. Its span reaches from the first part to the last.
//! - Rules whose `when` is not met, and rules cancelled by `unless` in this field, have no match.
//! - Of what is left, a match that lies inside a longer one is swallowed; equal spans all stay.

use std::ops::Range;

use super::compile::{LiteralUses, Matcher, PieceUse};
use super::phrase::MAX_GAP_WORDS;
use super::when::Facts;
use crate::text::{self, Folded};
use crate::ticket::{TextField, Ticket};
use crate::verdict::Findings;

/// How many bytes may lie between two parts of a phrase: four words of usual length, several times over. It bounds the
/// work where "words" are pasted tables.
pub const MAX_GAP_BYTES: u32 = 256;

/// What became of a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It speaks.
    Live,
    /// It lies inside a longer one.
    Swallowed,
    /// An `unless` phrase of its rule is in the same field.
    Cancelled,
    /// The ticket does not meet its rule's `when`.
    Unmet,
}

/// A rule found at a place of a folded field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// The rule, by its index among the rules that were compiled.
    pub rule: u32,
    /// Its first byte in the folded text.
    pub start: u32,
    /// One past its last byte.
    pub end: u32,
    /// What became of it.
    pub fate: Fate,
}

impl Match {
    fn span(&self) -> (u32, u32) {
        (self.start, self.end)
    }

    /// Whether it lies inside another, longer match.
    pub fn is_inside(&self, other: &Self) -> bool {
        other.start <= self.start && self.end <= other.end && self.span() != other.span()
    }
}

/// Buffers that a thread uses for one ticket after the other.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    pub(crate) folded: Folded,
    /// By start, then the longer, then the rule.
    pub(crate) matches: Vec<Match>,
    /// Where `unless` phrases were found.
    pub(crate) cancels: Vec<Match>,
    parts: Vec<PartHit>,
    gates: Vec<GateHit>,
    facts: Facts,
    /// By rule: the number of the last field in which it spoke.
    spoke: Vec<u64>,
    field: u64,
}

/// A part of a phrase with `...`, found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PartHit {
    phrase: u32,
    part: u8,
    start: u32,
    end: u32,
    /// Where the whole phrase ends at the earliest; [`NOWHERE`] where the rest does not follow.
    finish: u32,
}

const NOWHERE: u32 = u32::MAX;

/// A literal found that a regex requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct GateHit {
    regex: u32,
    start: u32,
    end: u32,
}

impl Scratch {
    /// Buffers for any matcher.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a ticket.
    pub(crate) fn begin(&mut self, rules: usize) {
        self.facts.clear();
        if self.spoke.len() < rules {
            self.spoke.resize(rules, 0);
        }
    }

    /// Begins a field: no rule has spoken in it.
    pub(crate) fn begin_field(&mut self) {
        self.field += 1;
    }

    /// Whether a rule speaks for the first time in this field.
    pub(crate) fn speaks(&mut self, rule: u32) -> bool {
        let Some(last) = self.spoke.get_mut(rule as usize) else { return false };
        std::mem::replace(last, self.field) != self.field
    }
}

impl Matcher {
    /// Finds all matches in one field's text and leaves them in `scratch`, with what became of each.
    pub(crate) fn scan(&self, field: TextField, text: &str, ticket: &Ticket, scratch: &mut Scratch) {
        scratch.matches.clear();
        scratch.cancels.clear();
        scratch.parts.clear();
        scratch.gates.clear();
        let field = Findings::bit(field);
        if self.fields & field == 0 {
            return;
        }
        scratch.folded.fold(text);
        self.find_literals(field, scratch);
        self.join_parts(scratch);
        self.run_regexes(scratch);
        self.settle(ticket, scratch);
    }

    fn find_literals(&self, field: u8, scratch: &mut Scratch) {
        let Scratch { folded, matches, cancels, parts, gates, .. } = scratch;
        let text = folded.bytes();
        let mut sink = Sink { matcher: self, text, field, matches, cancels, parts, gates };
        for hit in self.automaton.find_overlapping_iter(text) {
            if let Some(uses) = self.literals.get(hit.pattern().as_usize()) {
                sink.literal(uses, hit.start(), hit.end());
            }
        }
    }

    /// Turns parts of phrases that follow one another into matches.
    fn join_parts(&self, scratch: &mut Scratch) {
        let Scratch { folded, matches, cancels, parts, .. } = scratch;
        parts.sort_unstable();
        for phrase in parts.chunk_by_mut(|a, b| a.phrase == b.phrase) {
            let Some(owner) = phrase.first().and_then(|hit| self.phrases.get(hit.phrase as usize)) else { continue };
            find_finishes(folded.bytes(), phrase, owner.parts);
            let placed = phrase.iter().filter(|hit| hit.part == 0 && hit.finish != NOWHERE);
            let found =
                placed.map(|hit| Match { rule: owner.rule, start: hit.start, end: hit.finish, fate: Fate::Live });
            if owner.cancels { cancels.extend(found) } else { matches.extend(found) }
        }
    }

    /// Runs each regex whose gate was found, over windows around the gate.
    fn run_regexes(&self, scratch: &mut Scratch) {
        let Scratch { folded, matches, gates, .. } = scratch;
        gates.sort_unstable();
        for hits in gates.chunk_by(|a, b| a.regex == b.regex) {
            let Some(owned) = hits.first().and_then(|hit| self.regexes.get(hit.regex as usize)) else { continue };
            let text = folded.bytes();
            let windows = hits.iter().map(|hit| owned.regex.window(hit.start as usize..hit.end as usize, text.len()));
            for window in joined(windows) {
                owned.regex.matches(text, window, |found| {
                    matches.push(found_match(owned.rule, found.start, found.end));
                });
            }
        }
    }

    /// Sorts the matches and decides what becomes of each.
    fn settle(&self, ticket: &Ticket, scratch: &mut Scratch) {
        let Scratch { matches, cancels, facts, .. } = scratch;
        matches.sort_unstable_by_key(|m| (m.start, std::cmp::Reverse(m.end), m.rule));
        matches.dedup();
        for found in matches.iter_mut() {
            if cancels.iter().any(|cancel| cancel.rule == found.rule) {
                found.fate = Fate::Cancelled;
            } else if !self.applies(found.rule, ticket, facts) {
                found.fate = Fate::Unmet;
            }
        }
        swallow(matches);
    }

    fn applies(&self, rule: u32, ticket: &Ticket, facts: &mut Facts) -> bool {
        let conditions = self.rules.get(rule as usize).map(|rule| &*rule.when).unwrap_or_default();
        conditions.iter().all(|condition| condition.is_met(ticket, facts))
    }
}

/// What the pass over the text fills.
struct Sink<'a> {
    matcher: &'a Matcher,
    text: &'a [u8],
    field: u8,
    matches: &'a mut Vec<Match>,
    cancels: &'a mut Vec<Match>,
    parts: &'a mut Vec<PartHit>,
    gates: &'a mut Vec<GateHit>,
}

impl Sink<'_> {
    /// Takes one literal that was found; most end here, inside a word.
    fn literal(&mut self, uses: &LiteralUses, start: usize, end: usize) {
        if !uses.gates.is_empty() {
            self.gate(&uses.gates, start, end);
        }
        if uses.pieces.is_empty() || (uses.starts_word && text::word_before(self.text, start)) {
            return;
        }
        let goes_on = uses.ends_word && text::word_after(self.text, end);
        let pieces = uses.pieces.start as usize..uses.pieces.end as usize;
        for used in self.matcher.pieces.get(pieces).unwrap_or_default() {
            if goes_on && !used.open && used.tail.is_empty() {
                continue;
            }
            if let Some(end) = piece_end(self.text, end, used) {
                self.piece(used, start, end);
            }
        }
    }

    fn gate(&mut self, gates: &Range<u32>, start: usize, end: usize) {
        for regex in self.matcher.gates.get(gates.start as usize..gates.end as usize).unwrap_or_default() {
            let owner = self.matcher.regexes.get(*regex as usize).map(|owned| owned.rule);
            if owner.is_some_and(|rule| self.looks_here(rule)) {
                self.gates.push(GateHit { regex: *regex, start: offset(start), end: offset(end) });
            }
        }
    }

    fn piece(&mut self, used: &PieceUse, start: usize, end: usize) {
        let Some(owner) = self.matcher.phrases.get(used.phrase as usize) else { return };
        if !self.looks_here(owner.rule) {
            return;
        }
        if owner.parts > 1 {
            let (start, end) = (offset(start), offset(end));
            self.parts.push(PartHit { phrase: used.phrase, part: used.part, start, end, finish: NOWHERE });
        } else if owner.cancels {
            self.cancels.push(found_match(owner.rule, start, end));
        } else {
            self.matches.push(found_match(owner.rule, start, end));
        }
    }

    fn looks_here(&self, rule: u32) -> bool {
        self.matcher.rules.get(rule as usize).is_some_and(|rule| rule.fields & self.field != 0)
    }
}

fn found_match(rule: u32, start: usize, end: usize) -> Match {
    Match { rule, start: offset(start), end: offset(end), fate: Fate::Live }
}

/// Where a literal ends whose first piece ends at `at`, if the rest of it follows.
fn piece_end(text: &[u8], at: usize, used: &PieceUse) -> Option<usize> {
    let mut end = at;
    for piece in &used.tail {
        end = text::word_end(text, end);
        text.get(end..)?.starts_with(piece.as_bytes()).then_some(())?;
        end += piece.len();
    }
    match used.open {
        true => Some(text::word_end(text, end)),
        false => (!text::inside_word(text, end)).then_some(end),
    }
}

/// Notes for each part of one phrase, sorted by part and start, where the phrase ends at the earliest from there.
fn find_finishes(text: &[u8], hits: &mut [PartHit], parts: u8) {
    for at in (0..hits.len()).rev() {
        let (head, rest) = hits.split_at_mut(at + 1);
        let Some(hit) = head.last_mut() else { return };
        hit.finish = if hit.part + 1 == parts { hit.end } else { earliest_finish(text, hit, rest) };
    }
}

/// The earliest end of a phrase whose next part is among `later`, near enough after `hit`.
fn earliest_finish(text: &[u8], hit: &PartHit, later: &[PartHit]) -> u32 {
    let first = later.partition_point(|next| (next.part, next.start) < (hit.part + 1, hit.end));
    let next_parts = later.iter().skip(first).take_while(|next| next.part == hit.part + 1);
    let near = next_parts.take_while(|next| is_near(text, hit.end, next.start));
    near.map(|next| next.finish).min().unwrap_or(NOWHERE)
}

/// Whether few enough words lie between two offsets.
pub(super) fn is_near(text: &[u8], from: u32, to: u32) -> bool {
    let between = text.get(from as usize..to as usize).unwrap_or_default();
    to - from <= MAX_GAP_BYTES && words(between) <= MAX_GAP_WORDS
}

/// How many words a piece of folded text holds; an apostrophe joins what it stands between.
fn words(text: &[u8]) -> usize {
    let is_part = |b: u8| b >= 0x80 || b.is_ascii_alphanumeric() || b == b'\'';
    let runs = text.split(|b| !is_part(*b));
    runs.filter(|run| run.iter().any(|b| *b != b'\'')).count()
}

/// Marks every live match that lies inside a longer live one. Sorted by start and then the longer first, those that
/// can hold a match stand before it.
fn swallow(matches: &mut [Match]) {
    let mut reach = 0;
    for group in matches.chunk_by_mut(|a, b| a.span() == b.span()) {
        let Some(end) = group.iter().find(|m| m.fate == Fate::Live).map(|m| m.end) else { continue };
        if reach >= end {
            for found in group.iter_mut().filter(|m| m.fate == Fate::Live) {
                found.fate = Fate::Swallowed;
            }
        }
        reach = reach.max(end);
    }
}

/// Windows in the order of their starts, those that touch joined into one.
fn joined(windows: impl Iterator<Item = Range<usize>>) -> impl Iterator<Item = Range<usize>> {
    let mut windows = windows.peekable();
    std::iter::from_fn(move || {
        let mut window = windows.next()?;
        while let Some(next) = windows.next_if(|next| next.start <= window.end) {
            window.end = window.end.max(next.end);
        }
        Some(window)
    })
}

/// An offset in a folded field, whose length is bounded.
#[expect(clippy::cast_possible_truncation, reason = "fields are capped at 64 KiB before they are folded")]
fn offset(at: usize) -> u32 {
    at as u32
}
