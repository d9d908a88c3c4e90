//! Words: folded text cut into words and signs, each known by a number.
//!
//! Phrases are compared word by word, so that a text costs one look-up a word, however many phrases there are. A word is
//! a run of letters and digits of any script; every other character but the blank is a sign of its own.

use std::ops::Range;

use hashbrown::{HashMap, HashTable};
use xxhash_rust::xxh3::xxh3_64;

use crate::text::{self, Folded, count};

/// The number of a word that no phrase holds.
const UNKNOWN: u32 = u32::MAX;

/// A word before a full stop with fewer letters is an abbreviation (`No.`, `z.B.`, `e.g.`) and ends no sentence.
const SENTENCE_WORD: usize = 3;

/// Beginnings of words (`fail*`) are looked up only where so many of their bytes are those of some beginning.
const STEM: usize = 3;

/// The words of all phrases.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    whole: Words,
    /// Beginnings of words that may go on.
    open: Words,
    /// The first bytes of each beginning, with the lengths that there are.
    stems: HashMap<[u8; STEM], Box<[u8]>>,
    /// By stem, squeezed into an index: whether there can be such a beginning. Most words end here.
    may_open: Vec<bool>,
    /// Whether any beginning has fewer bytes than a stem.
    has_short_stems: bool,
    count: u32,
}

/// Words with their numbers. A word is known by its 64-bit hash alone: that two words of all texts and phrases ever share
/// one is less likely than a broken memory cell.
#[derive(Debug, Default)]
struct Words {
    table: HashTable<(u64, u32)>,
}

impl Words {
    fn get(&self, word: &[u8]) -> Option<u32> {
        let hash = xxh3_64(word);
        self.table.find(hash, |(known, _)| *known == hash).map(|(_, number)| *number)
    }

    fn insert(&mut self, word: &[u8], number: u32) {
        let hash = xxh3_64(word);
        self.table.insert_unique(hash, (hash, number), |(hash, _)| *hash);
    }

    fn memory(&self) -> usize {
        self.table.capacity() * (size_of::<(u64, u32)>() + 1)
    }
}

impl Vocabulary {
    /// The number of a word or sign; `open` where the word may go on.
    pub fn add(&mut self, word: &[u8], open: bool) -> u32 {
        let words = if open { &mut self.open } else { &mut self.whole };
        if let Some(known) = words.get(word) {
            return known;
        }
        let number = self.count;
        self.count += 1;
        words.insert(word, number);
        if open {
            self.add_stem(word);
        }
        number
    }

    fn add_stem(&mut self, word: &[u8]) {
        self.has_short_stems |= word.len() < STEM;
        self.may_open.resize(STEM_INDEXES, false);
        if let Some(may) = self.may_open.get_mut(stem_index(stem(word))) {
            *may = true;
        }
        let lengths = self.stems.entry(stem(word)).or_default();
        let length = u8::try_from(word.len()).unwrap_or(u8::MAX);
        if !lengths.contains(&length) {
            *lengths = lengths.iter().copied().chain([length]).collect();
        }
    }

    /// How many words there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Bytes on the heap, roughly.
    pub fn memory(&self) -> usize {
        self.whole.memory() + self.open.memory() + self.stems.capacity() * 20 + self.may_open.len()
    }

    /// Adds the beginnings that a word has to `found`.
    fn beginnings(&self, word: &[u8], found: &mut Vec<u32>) {
        if self.has_short_stems {
            let shorts = (1..STEM.min(word.len() + 1)).filter_map(|length| word.get(..length));
            shorts.for_each(|short| self.beginnings_at(word, stem(short), found));
        }
        if word.len() >= STEM {
            self.beginnings_at(word, stem(word), found);
        }
    }

    fn beginnings_at(&self, word: &[u8], stem: [u8; STEM], found: &mut Vec<u32>) {
        if !self.may_open.get(stem_index(stem)).is_some_and(|may| *may) {
            return;
        }
        let Some(lengths) = self.stems.get(&stem) else { return };
        let heads = lengths.iter().filter_map(|length| word.get(..usize::from(*length)));
        found.extend(heads.filter_map(|head| self.open.get(head)));
    }
}

/// How many indexes stems are squeezed into.
const STEM_INDEXES: usize = 1 << 15;

/// Five bits of each byte: what tells letters apart.
fn stem_index([a, b, c]: [u8; STEM]) -> usize {
    let bits = |byte: u8| usize::from(byte & 31);
    bits(a) << 10 | bits(b) << 5 | bits(c)
}

/// The first bytes of a word; zeros where it is shorter.
fn stem(word: &[u8]) -> [u8; STEM] {
    let mut stem = [0; STEM];
    for (slot, byte) in stem.iter_mut().zip(word) {
        *slot = *byte;
    }
    stem
}

/// A word or sign of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// Its first byte in the folded text.
    pub start: u32,
    /// One past its last byte.
    pub end: u32,
    /// Its number in the vocabulary, or [`UNKNOWN`].
    word: u32,
    /// The numbers of its beginnings, in [`Tokens::open`].
    open: (u32, u32),
    /// Whether nothing stands between the token before and this one.
    pub glued: bool,
    /// How many words the text has up to here, this one included; what follows an apostrophe belongs to the word.
    pub words: u32,
    /// The sentence it stands in.
    pub sentence: u32,
    /// The line it stands in.
    pub line: u32,
}

/// A folded text as tokens. Reuse one for many texts: its buffers stay.
#[derive(Clone, Debug, Default)]
pub(super) struct Tokens {
    tokens: Vec<Token>,
    open: Vec<u32>,
}

impl Tokens {
    /// Cuts a text.
    pub fn cut(&mut self, folded: &Folded, vocabulary: &Vocabulary) {
        self.tokens.clear();
        self.open.clear();
        let mut cutter = Cutter { text: folded.bytes(), lines: folded.lines().iter().peekable(), ends: false, line: 0 };
        let mut last = Token::before_the_first();
        let mut at = 0;
        while let Some(start) = next_token(cutter.text, at) {
            let token = cutter.token(start, at, &last);
            at = token.end as usize;
            let token = self.known(token, cutter.text, vocabulary);
            self.tokens.push(token);
            last = token;
        }
    }

    /// The token with its numbers.
    fn known(&mut self, mut token: Token, text: &[u8], vocabulary: &Vocabulary) -> Token {
        let word = text.get(token.range()).unwrap_or_default();
        token.word = vocabulary.whole.get(word).unwrap_or(UNKNOWN);
        let before = self.open.len();
        if word.first().is_some_and(|byte| !byte.is_ascii() || byte.is_ascii_alphanumeric()) {
            vocabulary.beginnings(word, &mut self.open);
        }
        token.open = (count(before), count(self.open.len()));
        token
    }

    /// The tokens in their order.
    pub fn as_slice(&self) -> &[Token] {
        &self.tokens
    }

    /// The numbers by which a token is known: its own, and those of its beginnings.
    pub fn numbers(&self, token: &Token) -> impl Iterator<Item = u32> {
        let open = self.open.get(token.open.0 as usize..token.open.1 as usize).unwrap_or_default();
        (token.word != UNKNOWN).then_some(token.word).into_iter().chain(open.iter().copied())
    }
}

impl Token {
    /// What stands before the first token of a text.
    fn before_the_first() -> Self {
        Self { start: 0, end: 0, word: UNKNOWN, open: (0, 0), glued: false, words: 0, sentence: 0, line: 0 }
    }

    /// Its bytes in the folded text.
    pub fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Goes through a text and counts words, lines and sentences.
struct Cutter<'a> {
    text: &'a [u8],
    lines: std::iter::Peekable<std::slice::Iter<'a, text::Line>>,
    /// Whether the token before ends its sentence.
    ends: bool,
    line: u32,
}

impl Cutter<'_> {
    /// The token that starts at a byte; `before` is where the one before ends.
    fn token(&mut self, start: usize, before: usize, last: &Token) -> Token {
        let word_end = text::word_end(self.text, start);
        let is_word = word_end > start;
        let end = if is_word { word_end } else { start + text::first_char(self.rest(start)).map_or(1, char::len_utf8) };
        let glued = start == before && before > 0;
        let goes_on = glued && self.text.get(last.range()) == Some(b"'");
        let starts_sentence = self.enter_lines(start) | std::mem::take(&mut self.ends);
        self.ends = !is_word && self.ends_sentence(last, start, end, glued);
        Token {
            start: count(start),
            end: count(end),
            glued,
            words: last.words + u32::from(is_word && !goes_on),
            sentence: last.sentence + u32::from(starts_sentence),
            line: self.line,
            ..Token::before_the_first()
        }
    }

    fn rest(&self, at: usize) -> &[u8] {
        self.text.get(at..).unwrap_or_default()
    }

    /// Goes on to the line of a byte; whether a sentence starts on the way.
    fn enter_lines(&mut self, start: usize) -> bool {
        let mut starts_sentence = false;
        while let Some(line) = self.lines.next_if(|line| line.start as usize <= start) {
            self.line += 1;
            starts_sentence |= line.starts_sentence;
        }
        starts_sentence
    }

    /// Whether a sign ends its sentence. A full stop does not after an abbreviation or inside a number or name.
    fn ends_sentence(&self, last: &Token, start: usize, end: usize, glued: bool) -> bool {
        if self.text.get(end).is_some_and(|byte| *byte != b' ') {
            return false;
        }
        match self.text.get(start..end) {
            Some(b"!" | b"?" | b";") => true,
            Some(b".") => !glued || is_long_word(self.text.get(last.range()).unwrap_or_default()),
            Some(sign) => sign == "。".as_bytes(),
            None => false,
        }
    }
}

/// Whether a full stop after this word or sign can end a sentence.
fn is_long_word(word: &[u8]) -> bool {
    let characters = word.iter().filter(|byte| **byte & 0xC0 != 0x80).count();
    characters >= SENTENCE_WORD || text::word_end(word, 0) == 0
}

/// Where the next token starts.
fn next_token(text: &[u8], at: usize) -> Option<usize> {
    let blanks = text.get(at..)?.iter().take_while(|byte| **byte == b' ').count();
    (at + blanks < text.len()).then_some(at + blanks)
}

/// The words and signs of a literal as a phrase holds it, each with whether it is glued to the one before and whether it
/// may go on.
pub(super) fn cut_literal(pieces: &[String], open: bool) -> Vec<(&[u8], bool, bool)> {
    let mut all: Vec<(&[u8], bool, bool)> = Vec::new();
    for piece in pieces {
        let text = piece.as_bytes();
        if let Some(last) = all.last_mut() {
            last.2 = true;
        }
        let mut at = 0;
        while let Some(start) = next_token(text, at) {
            let word = text::word_end(text, start);
            let sign = start + text::first_char(text.get(start..).unwrap_or_default()).map_or(1, char::len_utf8);
            let end = word.max(sign);
            all.push((text.get(start..end).unwrap_or_default(), start == at && !all.is_empty(), false));
            at = end;
        }
    }
    if let Some(last) = all.last_mut().filter(|_| open) {
        last.2 = true;
    }
    all
}
