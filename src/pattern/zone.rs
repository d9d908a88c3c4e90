//! Zones: stretches of a field in which evidence weighs less or nothing, such as signatures, disclaimers and quoted mail.
//!
//! A zone starts with a line whose first words are one of its phrases, or is each line that begins with one of its signs.
//! It reaches as far as its lines, to one of its end phrases at the start of a line, or to the end of the field. Where
//! zones overlap, the one that started last holds; after its last line the one beneath goes on.

use memchr::memchr;

use super::matcher::ZoneHit;
use super::pack::is_good_id;
use super::phrase::Lists;
use super::rule::{WrittenPhrase, read_phrases};
use super::word::Token;
use crate::diagnostic::{Place, Problem, Problems};
use crate::document::{Table, Text};
use crate::text::{count, fold_literal};

/// A zone as loaded.
#[derive(Clone, Debug)]
pub struct Zone {
    /// The name of its pack.
    pub pack: String,
    /// Its id in the pack.
    pub id: String,
    /// Where it stands.
    pub place: Place,
    /// What evidence in it weighs, in per cent of the rule's weight; below 100.
    pub percent: u8,
    /// What starts it.
    pub starts: Vec<WrittenPhrase>,
    /// What ends it.
    pub ends: Vec<WrittenPhrase>,
    /// The signs that put a line into it.
    pub marks: Vec<Text>,
    /// How many lines it has at most.
    pub lines: Option<u32>,
}

impl Zone {
    /// The name under which it is shown: `pack/id`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.pack, self.id)
    }
}

/// Reads one zone; one without a usable id is reported and left out.
pub(super) fn read(pack: &str, table: &Table, lists: &impl Lists, problems: &mut Problems) -> Option<Zone> {
    let id = table.required_text("id", problems).filter(|id| is_good_id(id, problems));
    let zone = Zone {
        pack: pack.to_owned(),
        id: id.as_ref().map(|id| id.value.clone()).unwrap_or_default(),
        place: id.as_ref().map_or_else(|| table.place.clone(), |id| id.place.clone()),
        percent: read_percent(table, problems),
        starts: read_phrases(table, "starts", lists, problems),
        ends: read_phrases(table, "ends", lists, problems),
        marks: table.texts("marks", problems).unwrap_or_default(),
        lines: table.integer("lines", 1..=1000, problems).and_then(|lines| u32::try_from(lines).ok()),
    };
    if zone.starts.is_empty() && zone.marks.is_empty() {
        let title = "the zone starts nowhere";
        problems.push(
            Problem::error("missing-key", &zone.place, title)
                .help("add `starts = [\"kind regards\"]`, the first words of its first line, or `marks = [\">\"]`"),
        );
    }
    for mark in &zone.marks {
        let mut characters = mark.value.chars();
        if !matches!((characters.next(), characters.next()), (Some(sign), None) if !crate::text::is_word(sign)) {
            let title = format!("`{}` is no mark", mark.value);
            problems.push(Problem::error("bad-mark", &mark.place, title).help("a mark is one sign, such as `>`"));
        }
    }
    table.finish(problems);
    id.map(|_| zone)
}

/// What evidence in the zone weighs, in per cent.
fn read_percent(table: &Table, problems: &mut Problems) -> u8 {
    let Some(weight) = table.number("weight", problems) else { return 0 };
    if !(0.0..1.0).contains(&weight) {
        let place = table.get("weight").map_or(&table.place, |node| &node.place);
        let title = format!("`weight` of a zone is {weight}; it must lie between 0 and 1, without 1");
        problems.push(Problem::error("out-of-range", place, title).help("0 is nothing, 0.5 half of a rule's weight"));
        return 0;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked against the bounds")]
    let percent = (weight * 100.0).round() as u8;
    percent.min(99)
}

/// What the matcher has to know of a zone.
#[derive(Clone, Debug)]
pub(super) struct CompiledZone {
    pub percent: u8,
    lines: u32,
    marks: Box<[String]>,
}

impl CompiledZone {
    pub fn new(zone: &Zone) -> Self {
        Self {
            percent: zone.percent,
            lines: zone.lines.unwrap_or(u32::MAX),
            marks: zone.marks.iter().map(|mark| fold_literal(mark.value.trim())).collect(),
        }
    }

    /// Whether one of its signs is in a text at all.
    fn may_mark(&self, text: &[u8]) -> bool {
        self.marks.iter().any(|mark| mark.bytes().next().is_some_and(|first| memchr(first, text).is_some()))
    }

    fn is_mark(&self, sign: &[u8]) -> bool {
        self.marks.iter().any(|mark| mark.as_bytes() == sign)
    }
}

/// Lines of a field that lie in a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Laid {
    pub zone: u32,
    first: u32,
    /// One past the last line.
    end: u32,
}

/// Lays the zones of a field: `hits` are the phrases that start and end them.
pub(super) fn lay(zones: &[CompiledZone], hits: &[ZoneHit], tokens: &[Token], text: &[u8], laid: &mut Vec<Laid>) {
    laid.clear();
    for hit in hits.iter().filter(|hit| hit.starts) {
        let Some(zone) = zones.get(hit.zone as usize) else { continue };
        let ends = hits.iter().filter(|end| !end.starts && end.zone == hit.zone && end.line > hit.line);
        let end = ends.map(|end| end.line).min().unwrap_or(u32::MAX);
        laid.push(Laid { zone: hit.zone, first: hit.line, end: end.min(hit.line.saturating_add(zone.lines)) });
    }
    if zones.iter().any(|zone| zone.may_mark(text)) {
        lay_marked(zones, tokens, text, laid);
    }
    laid.sort_by_key(|one| (one.first, one.zone));
}

/// Lays the lines that begin with a sign.
fn lay_marked(zones: &[CompiledZone], tokens: &[Token], text: &[u8], laid: &mut Vec<Laid>) {
    for (at, token) in tokens.iter().enumerate() {
        if !is_first_in_line(tokens, at) {
            continue;
        }
        let sign = text.get(token.range()).unwrap_or_default();
        let zone = zones.iter().position(|zone| zone.is_mark(sign));
        laid.extend(zone.map(|zone| Laid { zone: count(zone), first: token.line, end: token.line + 1 }));
    }
}

/// Whether a token is the first of its line.
pub(super) fn is_first_in_line(tokens: &[Token], at: usize) -> bool {
    let line = |at: usize| tokens.get(at).map(|token| token.line);
    at.checked_sub(1).is_none_or(|before| line(before) != line(at))
}

/// The zone in which a line lies.
pub(super) fn zone_of(laid: &[Laid], line: u32) -> Option<u32> {
    laid.iter().rev().find(|one| one.first <= line && line < one.end).map(|one| one.zone)
}
