//! Rules at work: one pass over the words of a folded field, then verification of what the pass found.
//!
//! What counts as a match:
//! - A literal counts on word borders: letters and digits of any script make words.
//! - A chain of parts is placed once for each place of its first part: where its last part ends first. Between two parts
//!   lie at most as many words as the gap allows, and no end of a sentence.
//! - The sides of `&` lie in one sentence, at most [`MAX_APART`] words from the first side, in any order; the nearest
//!   places are taken.
//! - A part of a phrase that is not in one piece counts for nothing where it lies inside a longer match in one piece of a
//!   rule that speaks for neither side, or, where the phrase speaks for the customer, of an internal rule: the customer of
//!   "internal customer" is nobody's customer.
//! - Rules whose `when` is not met, rules cancelled by `unless` in this field, and rules that need others of which none is
//!   found in this field have no match.
//! - Of what is left, a match that lies inside a longer one is swallowed; equal spans all stay. Matches of `&` neither
//!   swallow nor are swallowed.
//! - Then rules fall that another replaces, and matches in a zone that weighs nothing.

use std::cmp::Reverse;
use std::ops::Range;

use super::compile::{CompiledPhrase, Link, Matcher, OwnedRegex, Owner};
use super::hit::{Hits, PartHit};
use super::when::Facts;
use super::word::{Token, Tokens};
use super::zone::{Laid, is_first_in_line, lay, zone_of};
use crate::text::{Folded, count};
use crate::ticket::{Affects, TextField, Ticket};
use crate::verdict::{Findings, Points};

/// How many words may lie between two sides of `&`: a long sentence.
pub const MAX_APART: u32 = 20;

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
    /// None of the rules that its rule needs is in the same field.
    Alone,
    /// A rule in the same field replaces its rule.
    Replaced,
    /// It lies in a zone that weighs nothing.
    Muted,
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
    /// Whether it comes from a phrase with `&`, and so neither swallows nor is swallowed.
    pub is_scattered: bool,
    /// The zone in which it starts, by its index among those that were compiled.
    pub zone: Option<u32>,
}

impl Match {
    fn new(rule: u32, start: u32, end: u32) -> Self {
        Self { rule, start, end, fate: Fate::Live, is_scattered: false, zone: None }
    }

    fn span(&self) -> (u32, u32) {
        (self.start, self.end)
    }

    /// Whether it lies inside another, longer match.
    pub fn is_inside(&self, other: &Self) -> bool {
        other.start <= self.start && self.end <= other.end && self.span() != other.span()
    }

    /// Whether another match swallows it.
    pub fn is_swallowed_by(&self, other: &Self) -> bool {
        self.is_inside(other) && !self.is_scattered && !other.is_scattered
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
    tokens: Tokens,
    hits: Hits,
    /// The phrases in one piece that were found.
    pieces: Vec<u32>,
    /// The phrases in several parts all of which were found.
    pending: Vec<u32>,
    /// Matches in one piece: inside them, parts of other phrases may count for nothing.
    blockers: Vec<Match>,
    gates: Vec<GateHit>,
    zone_hits: Vec<ZoneHit>,
    zones: Vec<Laid>,
    live: Vec<u32>,
    facts: Facts,
    /// By rule: the number of the last field in which it spoke, and its evidence there.
    spoke: Vec<(u64, usize)>,
    field: u64,
    /// All that a ticket is searched for, one part after the other.
    pub(crate) words: Vec<u8>,
}

/// The start or end of a zone, found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ZoneHit {
    pub zone: u32,
    pub line: u32,
    /// Whether it starts the zone.
    pub starts: bool,
}

/// A literal found that a regex requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct GateHit {
    regex: u32,
    start: u32,
    end: u32,
}

/// A chain of parts in its place: first and last token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Placed {
    first: u32,
    /// The last token of the first part, which the parts before it must not overlap.
    last: u32,
    finish: u32,
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
            self.spoke.resize(rules, (0, 0));
        }
    }

    /// Begins a field: no rule has spoken in it.
    pub(crate) fn begin_field(&mut self) {
        self.field += 1;
    }

    /// Where a rule's evidence in this field is to be found; `next` is noted where it has none yet.
    pub(crate) fn spoke_at(&mut self, rule: u32, next: usize) -> Option<usize> {
        let (field, at) = self.spoke.get_mut(rule as usize)?;
        let before = (*field == self.field).then_some(*at);
        if before.is_none() {
            (*field, *at) = (self.field, next);
        }
        before
    }
}

impl Matcher {
    /// Finds all matches in one field's text and leaves them in `scratch`, with what became of each.
    pub(crate) fn scan(&self, field: TextField, text: &str, ticket: &Ticket, scratch: &mut Scratch) {
        scratch.matches.clear();
        scratch.cancels.clear();
        scratch.gates.clear();
        scratch.zone_hits.clear();
        let field = Findings::bit(field);
        if self.fields & field == 0 {
            return;
        }
        scratch.folded.fold(text);
        scratch.tokens.cut(&scratch.folded, self.trie.vocabulary());
        scratch.hits.find(&self.trie, &scratch.tokens, self.parts.len());
        self.choose_phrases(field, scratch);
        self.take_pieces(scratch);
        self.run_regexes(field, scratch);
        self.take_pending(ticket, scratch);
        self.settle(ticket, scratch);
    }

    /// The weight of a match, less what its zone takes.
    pub(crate) fn weighed(&self, found: &Match, weight: Points) -> Points {
        match found.zone.and_then(|zone| self.zones.get(zone as usize)) {
            Some(zone) => weight * Points::from(zone.percent) / 100,
            None => weight,
        }
    }

    /// Notes the phrases for which it pays to look, and asks for their hits.
    fn choose_phrases(&self, field: u8, scratch: &mut Scratch) {
        let Scratch { hits, pieces, pending, .. } = scratch;
        pieces.clear();
        pending.clear();
        for part in hits.parts() {
            for index in self.parts.get(*part as usize).map(|phrases| &**phrases).unwrap_or_default() {
                match self.phrases.get(*index as usize).filter(|phrase| phrase.fields & field != 0) {
                    Some(phrase) if phrase.piece.is_some() => pieces.push(*index),
                    Some(phrase) if phrase.parts().all(|part| hits.has(part)) => pending.push(*index),
                    _ => {}
                }
            }
        }
        for phrase in pieces.iter().chain(pending.iter()).filter_map(|index| self.phrases.get(*index as usize)) {
            phrase.parts().for_each(|part| hits.want(part));
        }
        hits.lay(&self.trie);
    }

    /// Takes the phrases in one piece.
    fn take_pieces(&self, scratch: &mut Scratch) {
        let Scratch { tokens, hits, pieces, matches, cancels, gates, zone_hits, .. } = scratch;
        for phrase in pieces.iter().filter_map(|index| self.phrases.get(*index as usize)) {
            for hit in phrase.piece.map(|part| hits.of(part)).unwrap_or_default() {
                match phrase.owner {
                    Owner::Gate(regex) => gates.push(gate_hit(regex, hit, tokens.as_slice())),
                    owner => take(owner, hit, false, tokens.as_slice(), (matches, cancels, zone_hits)),
                }
            }
        }
    }

    /// Takes the phrases of several parts; first those that cancel, since a cancelled rule blocks nothing.
    fn take_pending(&self, ticket: &Ticket, scratch: &mut Scratch) {
        if scratch.pending.is_empty() {
            return;
        }
        let is_rule = |owner| matches!(owner, Owner::Rule(_));
        self.take_chains(scratch, |owner| !is_rule(owner));
        let Scratch { matches, cancels, facts, blockers, .. } = scratch;
        blockers.clear();
        let is_cancelled = |rule: u32| cancels.iter().any(|cancel| cancel.rule == rule);
        blockers.extend(matches.iter().filter(|m| !is_cancelled(m.rule) && self.applies(m.rule, ticket, facts)));
        self.take_chains(scratch, is_rule);
    }

    fn take_chains(&self, scratch: &mut Scratch, wanted: impl Fn(Owner) -> bool) {
        let Scratch { tokens, hits, pending, blockers, matches, cancels, zone_hits, .. } = scratch;
        let tokens = tokens.as_slice();
        for phrase in pending.iter().filter_map(|index| self.phrases.get(*index as usize)) {
            if !wanted(phrase.owner) {
                continue;
            }
            let is_blocked = |hit: &PartHit| self.is_blocked(phrase.owner, hit, tokens, blockers);
            place(phrase, hits, tokens, is_blocked, |first, last| {
                let is_scattered = phrase.sides.len() > 1;
                let hit = PartHit { part: 0, first, last };
                take(phrase.owner, &hit, is_scattered, tokens, (matches, cancels, zone_hits));
            });
        }
    }

    /// Whether a part of a rule's phrase lies inside a longer match in one piece that takes it.
    fn is_blocked(&self, owner: Owner, hit: &PartHit, tokens: &[Token], blockers: &[Match]) -> bool {
        let Owner::Rule(rule) = owner else { return false };
        let (start, end) = bytes(tokens, hit);
        let own = Match::new(rule, start, end);
        let side = |rule: u32| self.rules.get(rule as usize).and_then(|rule| rule.affects);
        let takes = |blocker: &Match| match side(blocker.rule) {
            None => side(rule).is_some(),
            Some(Affects::Internal) => side(rule) == Some(Affects::Customer),
            Some(Affects::Customer) => false,
        };
        blockers.iter().any(|blocker| own.is_inside(blocker) && takes(blocker))
    }

    /// Runs each regex whose gate was found, over windows around the gate.
    fn run_regexes(&self, field: u8, scratch: &mut Scratch) {
        let Scratch { folded, matches, gates, .. } = scratch;
        let text = folded.bytes();
        let looks_here = |regex: u32| self.regexes.get(regex as usize).is_some_and(|owned| owned.fields & field != 0);
        if let Some(inner) = &self.inner_gates {
            inner.find(text, |regexes, place| {
                let here = regexes.iter().filter(|regex| looks_here(**regex));
                gates.extend(here.map(|r| GateHit { regex: *r, start: count(place.start), end: count(place.end) }));
            });
        }
        gates.sort_unstable();
        for hits in gates.chunk_by(|a, b| a.regex == b.regex) {
            let Some(owned) = hits.first().and_then(|hit| self.regexes.get(hit.regex as usize)) else { continue };
            for window in windows(owned, hits, text.len()) {
                owned.regex.matches(text, window, |found| {
                    matches.push(Match::new(owned.rule, count(found.start), count(found.end)));
                });
            }
        }
    }

    /// How many bytes of the field just scanned each regex had to look through, by its rule.
    pub(crate) fn looked_through(&self, scratch: &Scratch) -> impl Iterator<Item = (u32, usize)> {
        let length = scratch.folded.bytes().len();
        scratch.gates.chunk_by(|a, b| a.regex == b.regex).filter_map(move |hits| {
            let owned = hits.first().and_then(|hit| self.regexes.get(hit.regex as usize))?;
            Some((owned.rule, windows(owned, hits, length).map(|window| window.len()).sum()))
        })
    }

    /// Sorts the matches and decides what becomes of each.
    fn settle(&self, ticket: &Ticket, scratch: &mut Scratch) {
        let Scratch { folded, tokens, matches, cancels, facts, zone_hits, zones, live, .. } = scratch;
        let key = |m: &Match| (m.start, Reverse(m.end), m.rule, m.is_scattered);
        matches.sort_unstable_by_key(key);
        matches.dedup_by_key(|m| (m.start, m.end, m.rule, m.is_scattered));
        for found in matches.iter_mut() {
            if cancels.iter().any(|cancel| cancel.rule == found.rule) {
                found.fate = Fate::Cancelled;
            } else if !self.applies(found.rule, ticket, facts) {
                found.fate = Fate::Unmet;
            }
        }
        self.check_needs(matches, live);
        swallow(matches);
        self.replace(matches, live);
        lay(&self.zones, zone_hits, tokens.as_slice(), folded.bytes(), zones);
        if !zones.is_empty() {
            self.mute(matches, zones, tokens.as_slice());
        }
    }

    fn applies(&self, rule: u32, ticket: &Ticket, facts: &mut Facts) -> bool {
        let conditions = self.rules.get(rule as usize).map(|rule| &*rule.when).unwrap_or_default();
        conditions.iter().all(|condition| condition.is_met(ticket, facts))
    }

    /// Takes rules out that lack what they need: what is found is enough, it need not count.
    fn check_needs(&self, matches: &mut [Match], live: &mut Vec<u32>) {
        note_live(matches, live);
        for found in matches.iter_mut().filter(|m| m.fate == Fate::Live) {
            let needs = self.rules.get(found.rule as usize).map(|rule| &*rule.needs).unwrap_or_default();
            if !needs.is_empty() && !needs.iter().any(|needed| live.contains(needed)) {
                found.fate = Fate::Alone;
            }
        }
    }

    /// Takes rules out that one which counts replaces.
    fn replace(&self, matches: &mut [Match], live: &mut Vec<u32>) {
        note_live(matches, live);
        let replaces = |by: &u32, rule: u32| self.rules.get(*by as usize).is_some_and(|by| by.replaces.contains(&rule));
        for found in matches.iter_mut().filter(|m| m.fate == Fate::Live) {
            if live.iter().any(|by| replaces(by, found.rule)) {
                found.fate = Fate::Replaced;
            }
        }
    }

    /// Notes the zone of each match, and takes those out whose zone weighs nothing.
    fn mute(&self, matches: &mut [Match], zones: &[Laid], tokens: &[Token]) {
        for found in matches {
            let at = tokens.partition_point(|token| token.end <= found.start);
            found.zone = tokens.get(at).and_then(|token| zone_of(zones, token.line));
            let is_mute =
                found.zone.and_then(|zone| self.zones.get(zone as usize)).is_some_and(|zone| zone.percent == 0);
            if is_mute && found.fate == Fate::Live {
                found.fate = Fate::Muted;
            }
        }
    }
}

/// The rules that speak, each once.
fn note_live(matches: &[Match], live: &mut Vec<u32>) {
    live.clear();
    live.extend(matches.iter().filter(|m| m.fate == Fate::Live).map(|m| m.rule));
    live.sort_unstable();
    live.dedup();
}

/// Puts a phrase that was found where it belongs.
fn take(
    owner: Owner,
    hit: &PartHit,
    is_scattered: bool,
    tokens: &[Token],
    (matches, cancels, zone_hits): (&mut Vec<Match>, &mut Vec<Match>, &mut Vec<ZoneHit>),
) {
    let (start, end) = bytes(tokens, hit);
    let found = |rule| Match { is_scattered, ..Match::new(rule, start, end) };
    let mut zone = |zone, starts| {
        let line = tokens.get(hit.first as usize).map_or(0, |token| token.line);
        if is_first_in_line(tokens, hit.first as usize) {
            zone_hits.push(ZoneHit { zone, line, starts });
        }
    };
    match owner {
        Owner::Rule(rule) => matches.push(found(rule)),
        Owner::Unless(rule) => cancels.push(found(rule)),
        Owner::ZoneStart(index) => zone(index, true),
        Owner::ZoneEnd(index) => zone(index, false),
        Owner::Gate(_) => {}
    }
}

/// A literal that a regex requires; blanks with which it starts and ends belong to it.
fn gate_hit(regex: u32, hit: &PartHit, tokens: &[Token]) -> GateHit {
    let (start, end) = bytes(tokens, hit);
    GateHit { regex, start: start.saturating_sub(1), end: end + 1 }
}

/// The first byte of a part, and one past its last.
fn bytes(tokens: &[Token], hit: &PartHit) -> (u32, u32) {
    let token = |at: u32| tokens.get(at as usize);
    (token(hit.first).map_or(0, |token| token.start), token(hit.last).map_or(0, |token| token.end))
}

/// Calls `found` with first and last token of each place of a phrase of several parts.
fn place(
    phrase: &CompiledPhrase,
    hits: &Hits,
    tokens: &[Token],
    is_blocked: impl Fn(&PartHit) -> bool,
    mut found: impl FnMut(u32, u32),
) {
    let mut sides = phrase.sides.iter().map(|side| chain(side, hits, tokens, &is_blocked));
    let Some(first) = sides.next() else { return };
    let others: Vec<Vec<Placed>> = sides.collect();
    for one in first {
        let mut span = (one.first, one.finish);
        let mut near = others.iter().map(|side| nearest(&one, side, tokens));
        let complete = near.all(|place| {
            place.is_some_and(|place| {
                span = (span.0.min(place.first), span.1.max(place.finish));
                true
            })
        });
        if complete {
            found(span.0, span.1);
        }
    }
}

/// Every place of a chain of parts, by its first token.
fn chain(side: &[Link], hits: &Hits, tokens: &[Token], is_blocked: &impl Fn(&PartHit) -> bool) -> Vec<Placed> {
    let mut later: Vec<Placed> = Vec::new();
    let mut gap = None;
    for link in side.iter().rev() {
        let usable = hits.of(link.part).iter().filter(|hit| !is_blocked(hit));
        let places = usable.filter_map(|hit| {
            let finish = match gap {
                None => Some(hit.last),
                Some(gap) => earliest_finish(hit, gap, &later, tokens),
            };
            finish.map(|finish| Placed { first: hit.first, last: hit.last, finish })
        });
        later = places.collect();
        gap = Some(link.gap);
    }
    later
}

/// The earliest end of a chain of which a part was found and the rest is among `later`.
fn earliest_finish(hit: &PartHit, gap: u8, later: &[Placed], tokens: &[Token]) -> Option<u32> {
    let after = later.iter().skip(later.partition_point(|next| next.first <= hit.last));
    let near =
        after.take_while(|next| words_between(tokens, hit.last, next.first).is_some_and(|n| n <= u32::from(gap)));
    near.map(|next| next.finish).min()
}

/// The place nearest to another in the same sentence, if there is one near enough that does not overlap it.
fn nearest(one: &Placed, side: &[Placed], tokens: &[Token]) -> Option<Placed> {
    let distance = |other: &Placed| match (one.finish < other.first, other.finish < one.first) {
        (true, _) => words_between(tokens, one.finish, other.first),
        (_, true) => words_between(tokens, other.finish, one.first),
        _ => None,
    };
    let near = side.iter().filter_map(|other| distance(other).filter(|words| *words <= MAX_APART).map(|w| (w, *other)));
    near.min().map(|(_, place)| place)
}

/// How many words lie between two tokens of one sentence.
fn words_between(tokens: &[Token], last: u32, next: u32) -> Option<u32> {
    let (last, next, before) =
        (tokens.get(last as usize)?, tokens.get(next as usize)?, tokens.get((next as usize).checked_sub(1)?)?);
    (last.sentence == next.sentence).then(|| before.words - last.words)
}

/// Marks every live match that lies inside a longer live one. Sorted by start and then the longer first, those that
/// can hold a match stand before it.
fn swallow(matches: &mut [Match]) {
    let mut reach = 0;
    for group in matches.chunk_by_mut(|a, b| a.span() == b.span()) {
        let takes_part = |m: &Match| m.fate == Fate::Live && !m.is_scattered;
        let Some(end) = group.iter().find(|m| takes_part(m)).map(|m| m.end) else { continue };
        if reach >= end {
            for found in group.iter_mut().filter(|m| takes_part(m)) {
                found.fate = Fate::Swallowed;
            }
        }
        reach = reach.max(end);
    }
}

/// The parts of a text in which a regex can match around the hits of its gate.
fn windows(owned: &OwnedRegex, hits: &[GateHit], length: usize) -> impl Iterator<Item = Range<usize>> {
    joined(hits.iter().map(move |hit| owned.regex.window(hit.start as usize..hit.end as usize, length)))
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
