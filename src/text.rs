//! Folding: a text in the one form in which phrases are looked for, with the way back to the original.
//!
//! Folded text is lower case in NFKC; a run of white space, hyphens, dashes and markup is one blank; typographic
//! apostrophes are `'`; characters without width are gone. `ß` folds to `ss` ("Straße", "STRASSE" and "Strasse" are one
//! word), and `İ` and `ı` to `i`, since upper-case Turkish text cannot be told from other text. Phrases and tickets go
//! through the same folding, so that only the folded forms need to be compared.

mod markup;

use std::ops::Range;

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_normalizer::properties::CanonicalCombiningClassMapBorrowed;

/// How many bytes of a field are looked at. Longer ones are pasted logs and mail threads, whose first pages say what
/// the ticket is about; without a bound one of them could hold up a batch.
pub const MAX_FIELD_BYTES: usize = 64 * 1024;

const NFKC: ComposingNormalizerBorrowed<'static> = ComposingNormalizerBorrowed::new_nfkc();
const COMBINING: CanonicalCombiningClassMapBorrowed<'static> = CanonicalCombiningClassMapBorrowed::new();

/// How many bytes the fast path looks at in one go: what vector instructions do in two steps.
const BLOCK: usize = 32;

/// No character that changes the one before it starts with a smaller byte: they begin at U+0300.
const FIRST_MARK_BYTE: u8 = 0xCC;

/// What to do with an ASCII byte: 0 asks for a closer look, all else is the folded byte.
const ASCII: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 1_u8;
    while byte < 128 {
        table[byte as usize] = match byte {
            b'<' | b'&' | b'{' | b'}' | b'*' | b'_' | b'!' | b'[' => 0,
            _ => fold_ascii(byte),
        };
        byte += 1;
    }
    table
};

/// The folded form of an ASCII byte that is no markup. Compiled to vector instructions where it is applied to many.
const fn fold_ascii(byte: u8) -> u8 {
    if (byte == b'-') | (byte.wrapping_sub(b'\t') <= b'\r' - b'\t') {
        b' '
    } else if byte == b'`' {
        b'\''
    } else {
        byte.to_ascii_lowercase()
    }
}

/// Where a stretch of folded text comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    /// First byte in the folded text.
    folded: u32,
    /// First character in the original.
    original: u32,
    /// How many original characters became this stretch as a whole; 0 where each byte is one character.
    width: u32,
}

/// Where a line of the original starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its first byte in the folded text.
    pub start: u32,
    /// Whether a new sentence starts with it: the line before is short or empty, or this one is an item of a list or a
    /// block of its own. Longer lines are taken for wrapped.
    pub starts_sentence: bool,
}

/// A line with fewer characters than this ends where its author wanted; mail programs wrap at 65 to 80.
const WRAPPED: u32 = 50;

/// A folded text. Reuse one for many texts: its buffers stay.
#[derive(Clone, Debug, Default)]
pub struct Folded {
    bytes: Vec<u8>,
    /// The lines after the first.
    lines: Vec<Line>,
    /// The character of the original with which the current line starts.
    line_start: u32,
    stretches: Vec<Stretch>,
    /// Characters of the original that are done.
    characters: u32,
}

impl Folded {
    /// The folded text of `text`, with markup taken out.
    pub fn of(text: &str) -> Self {
        let mut folded = Self::default();
        folded.fold(text);
        folded
    }

    /// The folded text as UTF-8 bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The lines after the first.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Folds `text`, of which at most [`MAX_FIELD_BYTES`] are looked at, and forgets what was here before.
    pub fn fold(&mut self, text: &str) {
        self.bytes.clear();
        self.lines.clear();
        self.line_start = 0;
        self.stretches.clear();
        self.characters = 0;
        self.linear();
        let text = text.get(..text.floor_char_boundary(MAX_FIELD_BYTES)).unwrap_or(text);
        self.bytes.reserve(text.len() + text.len() / 8);
        let mut rest = Rest { text, at: 0, stable: 0, easy: true };
        while rest.at < text.len() {
            self.plain(&mut rest);
            if !rest.easy {
                self.special(&mut rest);
            }
        }
    }

    /// Copies ASCII text until something asks for a closer look: the fast path.
    fn plain(&mut self, rest: &mut Rest<'_>) {
        let bytes = rest.text.as_bytes().get(rest.at..).unwrap_or_default();
        let before = self.bytes.len();
        let blocks = if rest.easy { plain_blocks(self.bytes.last().copied().unwrap_or(b' '), bytes) } else { 0 };
        let (whole, others) = bytes.split_at(blocks);
        self.bytes.extend(whole.iter().map(|byte| fold_ascii(*byte)));
        let mut last = self.bytes.last().copied().unwrap_or(b' ');
        self.bytes.resize(before + blocks + others.len().min(BLOCK), 0);
        let mut length = blocks;
        for (slot, byte) in self.bytes.iter_mut().skip(before + blocks).zip(others) {
            let folded = ASCII[usize::from(*byte)];
            if folded == 0 || (folded == b' ' && last == b' ') {
                break;
            }
            *slot = folded;
            last = folded;
            length += 1;
        }
        rest.easy = length == blocks + BLOCK;
        // A combining mark changes the letter before it.
        let may_be_mark = bytes.get(length).is_some_and(|byte| *byte >= FIRST_MARK_BYTE);
        if length > 0 && may_be_mark && rest.extends(rest.at + length) {
            length -= 1;
            rest.easy = false;
        }
        self.bytes.truncate(before + length);
        self.note_lines(before, bytes.get(..length).unwrap_or_default());
        self.characters += count(length);
        rest.at += length;
    }

    /// Notes the lines that start in plain text, of which each byte is one character; `folded` is where it starts.
    fn note_lines(&mut self, folded: usize, text: &[u8]) {
        for at in memchr::memchr_iter(b'\n', text) {
            let end = self.characters + count(at);
            let is_short = end - self.line_start < WRAPPED;
            self.lines.push(Line { start: count(folded + at + 1), starts_sentence: is_short });
            self.line_start = end + 1;
        }
    }

    /// Folds a letter from À to ÿ that no mark follows: such letters are in NFKC, and most of what is not ASCII in
    /// Western European texts.
    fn latin(&mut self, rest: &mut Rest<'_>) -> bool {
        let bytes = rest.text.as_bytes().get(rest.at..).unwrap_or_default();
        let [0xC3, second, after @ ..] = bytes else { return false };
        if after.first().is_some_and(|byte| *byte >= FIRST_MARK_BYTE) {
            return false;
        }
        self.stretch(Stretch { folded: count(self.bytes.len()), original: self.characters, width: 1 });
        match second {
            0x9F => self.bytes.extend_from_slice(b"ss"),
            0x80..=0x96 | 0x98..=0x9E => self.bytes.extend_from_slice(&[0xC3, second + 0x20]),
            _ => self.bytes.extend_from_slice(&[0xC3, *second]),
        }
        self.characters += 1;
        rest.at += 2;
        self.linear();
        true
    }

    /// Folds one thing that the fast path leaves: a run of separators, markup, or a character beyond ASCII.
    fn special(&mut self, rest: &mut Rest<'_>) {
        let Some(byte) = rest.text.as_bytes().get(rest.at) else { return };
        if self.latin(rest) {
            return;
        }
        if is_blank(*byte) {
            return self.blanks(rest);
        }
        if let Some((length, replacement)) = markup::at(rest.text, rest.at) {
            let original = rest.take(length);
            self.block(original, |folded| match replacement {
                Replacement::Separator | Replacement::Line => folded.push(' '),
                Replacement::Char(c) => folded.push(c),
            });
            if replacement == Replacement::Line {
                self.line(true);
            }
            return;
        }
        self.cluster(rest);
    }

    /// Passes over ASCII separators that follow another.
    fn blanks(&mut self, rest: &mut Rest<'_>) {
        let bytes = rest.text.as_bytes().get(rest.at..).unwrap_or_default();
        let length = bytes.iter().take_while(|byte| is_blank(**byte)).count();
        if self.bytes.last().is_some_and(|b| *b != b' ') {
            self.bytes.push(b' ');
        }
        let run = bytes.get(..length).unwrap_or_default();
        if let Some(last) = run.iter().rposition(|byte| *byte == b'\n') {
            let line_length = self.characters - self.line_start;
            let (before, after) = run.split_at(last);
            let is_item = after.contains(&b'-') || bytes.get(length) == Some(&b'*');
            self.line(line_length < WRAPPED || before.contains(&b'\n') || is_item);
        }
        rest.at += length;
        self.characters += count(length);
        self.linear();
        if run.contains(&b'\n') {
            self.line_start = self.characters;
        }
    }

    /// Starts a line.
    fn line(&mut self, starts_sentence: bool) {
        let start = count(self.bytes.len());
        match self.lines.last_mut() {
            Some(last) if last.start == start => last.starts_sentence |= starts_sentence,
            _ => self.lines.push(Line { start, starts_sentence }),
        }
    }

    /// Folds a character with the marks that follow it.
    fn cluster(&mut self, rest: &mut Rest<'_>) {
        if rest.at >= rest.stable {
            rest.look_ahead();
        }
        let stable = rest.at < rest.stable;
        let original = rest.take(rest.cluster());
        let mut characters = original.chars();
        match (characters.next().map(sign), characters.next()) {
            (Some(c), None) if stable || is_sign(c) => self.block(original, |folded| folded.push(c)),
            _ => {
                let composed = composed(original);
                self.block(original, |folded| composed.chars().for_each(|c| folded.push(c)));
            }
        }
    }

    /// Makes a stretch that comes from all characters of `original` as a whole.
    fn block(&mut self, original: &str, push: impl FnOnce(&mut Self)) {
        let width = count(original.chars().count());
        self.stretch(Stretch { folded: count(self.bytes.len()), original: self.characters, width });
        push(self);
        self.characters += width;
        self.linear();
    }

    /// Starts a stretch in which each byte is one character.
    fn linear(&mut self) {
        let stretch = Stretch { folded: count(self.bytes.len()), original: self.characters, width: 0 };
        self.stretch(stretch);
    }

    /// Adds a stretch, in the place of one that has stayed empty.
    fn stretch(&mut self, stretch: Stretch) {
        match self.stretches.last_mut() {
            Some(last) if last.folded == stretch.folded => *last = stretch,
            _ => self.stretches.push(stretch),
        }
    }

    /// Adds one normalised character in its folded form.
    fn push(&mut self, c: char) {
        let mut buffer = [0; 4];
        match fold_char(c) {
            Fold::Drop => {}
            Fold::Separator => {
                if self.bytes.last().is_some_and(|b| *b != b' ') {
                    self.bytes.push(b' ');
                }
            }
            Fold::Char(c) => self.bytes.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes()),
            Fold::Text(text) => self.bytes.extend_from_slice(text.as_bytes()),
        }
    }

    /// The characters of the original from which a half-open range of folded bytes comes.
    pub fn original(&self, folded: Range<usize>) -> Range<u32> {
        if folded.is_empty() {
            let at = self.position(folded.start).0;
            return at..at;
        }
        self.position(folded.start).0..self.position(folded.end - 1).1
    }

    /// The first original character of the one that holds a folded byte, and one past its last.
    fn position(&self, folded: usize) -> (u32, u32) {
        let folded = count(folded);
        let next = self.stretches.partition_point(|s| s.folded <= folded);
        let Some(stretch) = next.checked_sub(1).and_then(|at| self.stretches.get(at)) else { return (0, 0) };
        match stretch.width {
            0 => {
                let at = stretch.original + (folded - stretch.folded);
                (at, at + 1)
            }
            width => (stretch.original, stretch.original + width),
        }
    }
}

/// Whether an ASCII byte folds to a blank.
fn is_blank(byte: u8) -> bool {
    ASCII[usize::from(byte)] == b' '
}

/// The length of the blocks at the start of a text in which every byte folds by table: ASCII, no markup, and no two
/// separators in a row. Written without branches inside a block, so that it is compiled to vector instructions.
fn plain_blocks(before: u8, text: &[u8]) -> usize {
    let is_blank = |byte: u8| u8::from(byte <= b' ') | u8::from(byte == b'-');
    let is_special = |byte: u8| {
        let bracket = u8::from(byte == b'{') | u8::from(byte == b'}') | u8::from(byte == b'[') | u8::from(byte == b'<');
        let sign = u8::from(byte == b'&') | u8::from(byte == b'*') | u8::from(byte == b'_') | u8::from(byte == b'!');
        bracket | sign | u8::from(byte >= 0x80) | u8::from(byte == 0)
    };
    let mut last = before;
    let mut length = 0;
    for block in text.as_chunks::<BLOCK>().0 {
        let specials = block.iter().fold(0, |found, byte| found | is_special(*byte));
        let pairs = block.iter().zip(block.iter().skip(1));
        let doubles = pairs.fold(0, |found, (a, b)| found | (is_blank(*a) & is_blank(*b)));
        if (specials | doubles | (is_blank(last) & is_blank(block[0]))) != 0 {
            break;
        }
        last = block[BLOCK - 1];
        length += BLOCK;
    }
    length
}

/// What stands for a piece of markup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replacement {
    /// Nothing but a border between words.
    Separator,
    /// The border of a block, which starts a line and a sentence.
    Line,
    /// The character that it writes.
    Char(char),
}

/// The part of a text that is still to be folded.
struct Rest<'a> {
    text: &'a str,
    /// The next byte.
    at: usize,
    /// Up to here the text is known to be in NFKC.
    stable: usize,
    /// Whether a whole block went by without anything special, so that looking at blocks is likely to pay.
    easy: bool,
}

impl<'a> Rest<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Goes on by some bytes and returns them.
    fn take(&mut self, length: usize) -> &'a str {
        let taken = self.text.get(self.at..self.at + length).unwrap_or_else(|| self.rest());
        self.at += taken.len();
        taken
    }

    /// Finds how far the text needs no normalisation.
    fn look_ahead(&mut self) {
        self.stable = self.at + NFKC.split_normalized(self.rest()).0.len();
    }

    /// Whether a character that changes the one before it starts at a byte.
    fn extends(&self, at: usize) -> bool {
        self.text.get(at..).and_then(|rest| rest.chars().next()).is_some_and(is_extender)
    }

    /// The length in bytes of the next character with all marks on it.
    fn cluster(&self) -> usize {
        let mut characters = self.rest().char_indices().skip(1);
        characters.find(|(_, c)| !is_extender(*c)).map_or(self.rest().len(), |(at, _)| at)
    }
}

/// What becomes of a character.
enum Fold {
    Drop,
    Separator,
    Char(char),
    Text(&'static str),
}

/// Signs that mean the same here, before NFKC makes something else of them.
fn sign(c: char) -> char {
    match c {
        '\u{2018}' | '\u{2019}' | '\u{201b}' | '\u{2bc}' | '\u{2032}' | '\u{b4}' | '`' => '\'',
        '\u{2010}'..='\u{2015}' | '\u{2212}' => '-',
        _ if !c.is_ascii() && c.is_whitespace() => ' ',
        _ => c,
    }
}

/// Whether a character needs no normalisation because it is a sign.
fn is_sign(c: char) -> bool {
    c.is_ascii() || matches!(fold_char(c), Fold::Drop)
}

/// The folded form of a character that is in NFKC.
fn fold_char(c: char) -> Fold {
    match c {
        'a'..='z' | '0'..='9' => Fold::Char(c),
        'A'..='Z' => Fold::Char(c.to_ascii_lowercase()),
        'ß' | 'ẞ' => Fold::Text("ss"),
        'İ' | 'ı' => Fold::Char('i'),
        'ς' => Fold::Char('σ'),
        '\u{307}' => Fold::Drop, // the dot that lower-casing İ leaves behind
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' => Fold::Drop,
        '\u{fe00}'..='\u{fe0f}' | '\u{feff}' => Fold::Drop,
        '`' => Fold::Char('\''),
        '-' => Fold::Separator,
        _ if c.is_whitespace() => Fold::Separator,
        _ => Fold::Char(lower(c)),
    }
}

/// Simple lower case: one character for one.
fn lower(c: char) -> char {
    let mut lowered = c.to_lowercase();
    match (lowered.next(), lowered.next()) {
        (Some(lowered), None) => lowered,
        _ => c,
    }
}

/// Whether NFKC may join a character with the one before it.
fn is_extender(c: char) -> bool {
    match c {
        '\0'..='\u{2ff}' => false,
        '\u{1161}'..='\u{1175}' | '\u{11a8}'..='\u{11c2}' => true, // Hangul vowels and finals
        '\u{ff9e}' | '\u{ff9f}' => true,                           // half-width Japanese voicing marks
        '\u{9be}' | '\u{9d7}' | '\u{b3e}' | '\u{b56}' | '\u{b57}' | '\u{bbe}' | '\u{bd7}' | '\u{cc2}' | '\u{cd5}'
        | '\u{cd6}' | '\u{d3e}' | '\u{d57}' | '\u{dcf}' | '\u{ddf}' | '\u{102e}' | '\u{1b35}' => true, // Indic vowels
        _ => is_mark(c),
    }
}

fn is_mark(c: char) -> bool {
    c >= '\u{300}' && COMBINING.get_u8(c) != 0
}

/// Whether a character is part of a word: letters, digits, and the marks on them.
pub fn is_word(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_alphanumeric() } else { c.is_alphanumeric() || is_mark(c) }
}

/// Whether a byte offset of folded text lies inside a word.
pub fn inside_word(text: &[u8], at: usize) -> bool {
    word_before(text, at) && word_after(text, at)
}

/// Whether a word character ends at a byte offset of folded text.
pub fn word_before(text: &[u8], at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    match before.last() {
        None => false,
        Some(byte) if byte.is_ascii() => byte.is_ascii_alphanumeric(),
        Some(_) => last_char(before).is_some_and(is_word),
    }
}

/// Whether a word character starts at a byte offset of folded text.
pub fn word_after(text: &[u8], at: usize) -> bool {
    match text.get(at) {
        None => false,
        Some(byte) if byte.is_ascii() => byte.is_ascii_alphanumeric(),
        Some(_) => first_char(text.get(at..).unwrap_or_default()).is_some_and(is_word),
    }
}

/// Where the ASCII letters and digits that go on at a byte offset end.
#[inline]
fn ascii_word_end(text: &[u8], mut at: usize) -> usize {
    while let Some(bytes) = text.get(at..).and_then(|rest| rest.first_chunk()) {
        let length = leading_alphanumeric(u64::from_le_bytes(*bytes));
        at += length;
        if length < size_of::<u64>() {
            return at;
        }
    }
    let rest = text.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count()
}

/// How many of eight bytes, the lowest first, are ASCII letters or digits up to the first that is neither.
fn leading_alphanumeric(bytes: u64) -> usize {
    const LOW: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = LOW << 7;
    // Sets the high bit of each byte that is at least a character; no sum reaches the next byte.
    let at_least = |bytes: u64, c: u8| (bytes & !HIGH) + LOW * u64::from(0x80 - c);
    let lower = bytes | (LOW * 0x20);
    let letters = at_least(lower, b'a') & !at_least(lower, b'z' + 1);
    let digits = at_least(bytes, b'0') & !at_least(bytes, b'9' + 1);
    let others = (!(letters | digits) | bytes) & HIGH;
    others.trailing_zeros() as usize / 8
}

/// Where the word that goes on at a byte offset ends; the offset itself where none does.
#[inline]
pub fn word_end(text: &[u8], at: usize) -> usize {
    let end = ascii_word_end(text, at);
    if text.get(end).is_none_or(u8::is_ascii) { end } else { word_end_beyond_ascii(text, end) }
}

/// Where the word ends that may go on with a character beyond ASCII.
fn word_end_beyond_ascii(text: &[u8], mut at: usize) -> usize {
    loop {
        let length = match text.get(at..).unwrap_or_default() {
            [] => 0,
            [byte, ..] if byte.is_ascii() => 0,
            // À to ÿ are letters but for × and ÷.
            [0xC3, second, ..] if !matches!(second, 0x97 | 0xB7) => 2,
            rest => first_char(rest).filter(|c| is_word(*c)).map_or(0, char::len_utf8),
        };
        if length == 0 {
            return at;
        }
        at = ascii_word_end(text, at + length);
    }
}

fn last_char(text: &[u8]) -> Option<char> {
    let start = text.iter().rposition(|b| !is_continuation(*b))?;
    first_char(text.get(start..)?)
}

/// The first character of a text that starts at a character.
pub(crate) fn first_char(text: &[u8]) -> Option<char> {
    let first = *text.first()?;
    if first.is_ascii() {
        return Some(char::from(first));
    }
    let length = 1 + text.iter().skip(1).take_while(|b| is_continuation(**b)).count();
    std::str::from_utf8(text.get(..length)?).ok()?.chars().next()
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}

/// The folded form of a piece of a rule, in which markup characters are themselves; blanks at its ends stay.
pub fn fold_literal(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in composed(text).chars() {
        match fold_char(c) {
            Fold::Drop => {}
            Fold::Separator if folded.ends_with(' ') => {}
            Fold::Separator => folded.push(' '),
            Fold::Char(c) => folded.push(c),
            Fold::Text(text) => folded.push_str(text),
        }
    }
    folded
}

/// NFKC, with signs as [`sign`] makes them.
fn composed(text: &str) -> String {
    let signs: String = text.chars().map(sign).collect();
    NFKC.normalize(&signs).into_owned()
}

/// The form in which names of services, teams and the like compare: NFKC, lower case, trimmed; hyphens count.
pub fn fold_name(name: &str, into: &mut String) {
    into.clear();
    if name.is_ascii() {
        into.push_str(name.trim());
        into.make_ascii_lowercase();
        return;
    }
    for c in composed(name).trim().chars() {
        match fold_char(c) {
            Fold::Text(text) => into.push_str(text),
            Fold::Char(folded) => into.push(folded),
            Fold::Drop => {}
            Fold::Separator => into.push(c),
        }
    }
}

/// [`fold_name`] into a new text.
pub fn folded_name(name: &str) -> String {
    let mut folded = String::new();
    fold_name(name, &mut folded);
    folded
}

/// A length or position within a capped text.
#[expect(
    clippy::cast_possible_truncation,
    reason = "fields are capped at 64 KiB, and folding grows them at most 18 times"
)]
pub(crate) fn count(length: usize) -> u32 {
    length as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn folded(text: &str) -> String {
        String::from_utf8(Folded::of(text).bytes).unwrap()
    }

    #[test]
    fn texts_fold() {
        for (text, expected) in [
            ("Customer", "customer"),
            ("check-out  check\r\n\r\nout", "check out check out"),
            ("  e–mail — x", "e mail x"),
            ("ÄRGER Über ﬁnden", "ärger über finden"),
            ("A\u{308}rger u\u{308}ber", "ärger über"),
            ("Straße STRASSE STRAẞE", "strasse strasse strasse"),
            ("Ｃｕｓｔｏｍｅｒ　１２", "customer 12"),
            ("İstanbul IŞIK ışık i\u{307}", "istanbul işik işik i"),
            ("can’t can´t can`t can‘t", "can't can't can't can't"),
            ("cus\u{ad}to\u{200b}mer\u{feff}", "customer"),
            ("ΟΔΟΣ οδος", "οδοσ οδοσ"),
            ("КЛИЕНТ", "клиент"),
            ("ｶﾞ", "ガ"),
            ("½ … ™", "1⁄2 ... tm"),
        ] {
            assert_eq!(folded(text), expected, "{text}");
        }
    }

    #[test]
    fn markup_weighs_nothing() {
        for (text, expected) in [
            ("<p class=\"customer\">Hi<br/>there</p>", " hi there "),
            ("<!-- customer --><STYLE>p { customer: 1 }</style>ok", " ok"),
            ("a < b, c > d; <customer cannot pay>", "a < b, c > d; <customer cannot pay>"),
            ("R&amp;D&nbsp;&uuml;ber &#39;x&#x27; &customer;", "r&d über 'x' &customer;"),
            ("<mail@shop.example> <https://shop.example/>", "<mail@shop.example> <https://shop.example/>"),
            ("{color:red}*rot*{color} _kursiv_ order_id", " rot kursiv order_id"),
            ("{code:sql}x{code} {{mono}} {customer}", " x mono customer "),
            ("!screen-1.png|width=3! [^order.pdf] wow! [a]", " wow! [a]"),
            ("unclosed <b and &", "unclosed <b and &"),
        ] {
            assert_eq!(folded(text).trim(), expected.trim(), "{text}");
        }
    }

    #[test]
    fn spans_lead_back() {
        for (text, piece, expected) in [
            ("ein KUNDE", "kunde", "KUNDE"),
            ("<b>Ａ</b>  Straße!", "strasse", "Straße"),
            ("A\u{308}rger\u{300}", "ärger\u{300}", "A\u{308}rger\u{300}"),
            ("an oﬃce x", "office", "oﬃce"),
            ("the cus\u{ad}tomer x", "customer", "cus\u{ad}tomer"),
            ("a check \n -- <br> out b", "check out", "check \n -- <br> out"),
            ("M&uuml;ller x", "müller", "M&uuml;ller"),
            ("日本 KUNDE 日本", "kunde", "KUNDE"),
        ] {
            let folded = Folded::of(text);
            let at = std::str::from_utf8(folded.bytes()).unwrap().find(piece).unwrap();
            let span = folded.original(at..at + piece.len());
            let chars = text.chars().skip(span.start as usize).take((span.end - span.start) as usize);
            assert_eq!(chars.collect::<String>(), expected, "{text}");
        }
    }

    #[test]
    fn long_fields_are_cut_at_a_character() {
        let text = "ä".repeat(MAX_FIELD_BYTES);
        assert_eq!(Folded::of(&text).bytes().len(), MAX_FIELD_BYTES);
    }

    proptest! {
        #[test]
        fn any_text_folds_and_its_spans_lie_in_it(text in "(?s)(<[a-z/ =]{0,6}>?|&[a-z#0-9]{0,6};?|[{}*_!\\[]|[ a-zÄßİﬁ\u{301}\u{ad}\u{200b}-]|.){0,60}") {
            let folded = Folded::of(&text);
            let shown = std::str::from_utf8(folded.bytes()).unwrap();
            let characters = u32::try_from(text.chars().count()).unwrap();
            let mut last = 0;
            for (at, c) in shown.char_indices() {
                let span = folded.original(at..at + c.len_utf8());
                prop_assert!(span.start >= last && span.start < span.end && span.end <= characters, "{span:?}");
                last = span.start;
            }
        }

        #[test]
        fn plain_words_fold_as_phrases_do(text in "[\\PC&&[^<>&{}*_!\\[`]]{0,20}") {
            let folded = folded(&text);
            let literal = fold_literal(&text);
            prop_assert_eq!(folded.trim(), literal.trim());
        }
    }
}
