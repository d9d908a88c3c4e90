//! Words: folded text cut into words and signs, each known by a number.
//!
//! Phrases are compared word by word, so that a text costs one look-up a word, however many phrases there are. A word is
//! a run of letters and digits of any script; every other character but the blank is a sign of its own.

use std::ops::Range;

use hashbrown::HashMap;
use xxhash_rust::xxh3::xxh3_64;

use super::table::Table;
use crate::text::{self, Folded, count};

/// A word before a full stop with fewer letters is an abbreviation (`No.`, `z.B.`, `e.g.`) and ends no sentence.
const SENTENCE_WORD: usize = 3;

/// Beginnings of words (`fail*`) are looked up only where so many of their bytes are those of some beginning.
const STEM: usize = 3;

/// The words of all phrases.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    /// By word: where its number and those of its beginnings stand in [`Vocabulary::numbers`].
    whole: Table<(u32, u32)>,
    /// The number of each beginning of words that may go on.
    open: Table<u32>,
    numbers: Vec<u32>,
    /// The first bytes of each beginning, with the lengths that there are.
    stems: HashMap<[u8; STEM], Box<[u8]>>,
    /// A bit for each stem, squeezed into an index: whether a word may have such a beginning. Most words end here.
    may_open: Vec<u64>,
    count: u32,
}

/// Collects the words of phrases.
#[derive(Debug, Default)]
pub(super) struct VocabularyBuilder {
    whole: HashMap<Vec<u8>, u32>,
    open: HashMap<Vec<u8>, u32>,
    count: u32,
}

impl VocabularyBuilder {
    /// The number of a word or sign; `open` where the word may go on.
    pub fn add(&mut self, word: &[u8], open: bool) -> u32 {
        let words = if open { &mut self.open } else { &mut self.whole };
        let number = *words.entry_ref(word).or_insert(self.count);
        self.count += u32::from(number == self.count);
        number
    }

    /// The vocabulary, in which each whole word knows its own beginnings.
    pub fn build(self) -> Vocabulary {
        let open = Table::new(self.open.iter().map(|(word, number)| (key(word), *number)));
        let mut vocabulary = Vocabulary { open, count: self.count, ..Vocabulary::default() };
        self.open.keys().for_each(|word| vocabulary.add_stem(word));
        let mut numbers = Vec::new();
        let whole = self.whole.iter().map(|(word, number)| {
            let start = count(numbers.len());
            numbers.push(*number);
            vocabulary.add_beginnings(word, &mut numbers);
            (key(word), (start, count(numbers.len())))
        });
        vocabulary.whole = Table::new(whole);
        vocabulary.numbers = numbers;
        vocabulary
    }
}

impl Vocabulary {
    fn add_stem(&mut self, word: &[u8]) {
        self.may_open.resize(STEM_INDEXES / 64, 0);
        // A beginning shorter than a stem may go on with any bytes.
        let first = stem_index(stem(word));
        for index in first..first + (1 << (STEM_BITS * STEM.saturating_sub(word.len()))) {
            if let Some(bits) = self.may_open.get_mut(index / 64) {
                *bits |= 1 << (index % 64);
            }
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
        let lists = self.may_open.len() * 8 + self.numbers.len() * 4 + self.stems.capacity() * 20;
        self.whole.memory() + self.open.memory() + lists
    }

    /// Adds the numbers by which a word or sign is known: its own, and those of its beginnings.
    fn add_numbers(&self, word: &[u8], found: &mut Vec<u32>) {
        match self.whole.get(key(word)) {
            None => self.add_beginnings(word, found),
            Some((start, end)) => {
                let numbers = self.numbers.get(start as usize..end as usize).unwrap_or_default();
                numbers.iter().for_each(|number| found.push(*number));
            }
        }
    }

    /// Adds the beginnings that a word has to `found`.
    fn add_beginnings(&self, word: &[u8], found: &mut Vec<u32>) {
        let index = stem_index(stem(word));
        if self.may_open.get(index / 64).is_none_or(|bits| bits >> (index % 64) & 1 == 0) {
            return;
        }
        // Signs have none.
        if word.first().is_none_or(|byte| byte.is_ascii() && !byte.is_ascii_alphanumeric()) {
            return;
        }
        let stems = (1..=STEM.min(word.len())).filter_map(|length| word.get(..length));
        for lengths in stems.filter_map(|short| self.stems.get(&stem(short))) {
            let heads = lengths.iter().filter_map(|length| word.get(..usize::from(*length)));
            found.extend(heads.filter_map(|head| self.open.get(key(head))));
        }
    }
}

/// How many bits of each byte make the index of a stem: what tells letters apart.
const STEM_BITS: usize = 5;

/// How many indexes stems are squeezed into.
const STEM_INDEXES: usize = 1 << (STEM_BITS * STEM);

fn stem_index([a, b, c]: [u8; STEM]) -> usize {
    let bits = |byte: u8| usize::from(byte) & ((1 << STEM_BITS) - 1);
    bits(a) << (2 * STEM_BITS) | bits(b) << STEM_BITS | bits(c)
}

/// A word as a number: its bytes where there are at most eight, else their hash. That two words of all texts and phrases
/// ever share one is less likely than a broken memory cell.
fn key(word: &[u8]) -> u64 {
    match (word.first_chunk(), word.last_chunk()) {
        (Some(head), Some(tail)) if word.len() <= 8 => {
            let [head, tail] = [head, tail].map(|half| u64::from(u32::from_le_bytes(*half)));
            head | tail << (8 * (word.len() - 4))
        }
        (Some(_), Some(_)) => xxh3_64(word),
        _ => {
            let [a, b, c] = stem(word).map(u64::from);
            a | b << 8 | c << 16
        }
    }
}

/// The first bytes of a word; zeros where it is shorter.
fn stem(word: &[u8]) -> [u8; STEM] {
    match *word {
        [a, b, c, ..] => [a, b, c],
        [a, b] => [a, b, 0],
        [a] => [a, 0, 0],
        [] => [0; STEM],
    }
}

/// A word or sign of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// Its first byte in the folded text.
    pub start: u32,
    /// One past its last byte.
    pub end: u32,
    /// Where the numbers by which it is known stand in [`Tokens::numbers`].
    numbers: (u32, u32),
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
    numbers: Vec<u32>,
}

impl Tokens {
    /// Cuts a text.
    pub fn cut(&mut self, folded: &Folded, vocabulary: &Vocabulary) {
        self.tokens.clear();
        self.numbers.clear();
        let mut cutter = Cutter::new(folded);
        while let Some(mut token) = cutter.next() {
            let start = count(self.numbers.len());
            vocabulary.add_numbers(cutter.text.get(token.range()).unwrap_or_default(), &mut self.numbers);
            token.numbers = (start, count(self.numbers.len()));
            self.tokens.push(token);
        }
    }

    /// The tokens in their order.
    pub fn as_slice(&self) -> &[Token] {
        &self.tokens
    }

    /// The numbers by which a token is known: its own, and those of its beginnings.
    pub fn numbers(&self, token: &Token) -> &[u32] {
        self.numbers.get(token.numbers.0 as usize..token.numbers.1 as usize).unwrap_or_default()
    }
}

impl Token {
    /// Its bytes in the folded text.
    pub fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Goes through a text and counts words, lines and sentences.
struct Cutter<'a> {
    text: &'a [u8],
    /// The lines that are still to come, and where the first of them starts.
    lines: &'a [text::Line],
    next_line: u32,
    /// The token before.
    last: Range<usize>,
    /// Whether that is an apostrophe.
    is_apostrophe: bool,
    /// Whether it ends its sentence.
    ends: bool,
    words: u32,
    sentence: u32,
    line: u32,
}

impl<'a> Cutter<'a> {
    fn new(folded: &'a Folded) -> Self {
        let (text, lines) = (folded.bytes(), folded.lines());
        let (words, sentence, line) = (0, 0, 0);
        let next_line = next_line(lines);
        Self { text, lines, next_line, last: 0..0, is_apostrophe: false, ends: false, words, sentence, line }
    }

    /// The next token, as yet without its numbers.
    fn next(&mut self) -> Option<Token> {
        let start = next_token(self.text, self.last.end)?;
        let glued = start == self.last.end && start > 0;
        if self.enter_lines(start) | std::mem::take(&mut self.ends) {
            self.sentence += 1;
        }
        let word_end = text::word_end(self.text, start);
        let end = if word_end > start {
            self.words += u32::from(!(glued && self.is_apostrophe));
            self.is_apostrophe = false;
            word_end
        } else {
            self.sign(start, glued)
        };
        self.last = start..end;
        Some(Token {
            start: count(start),
            end: count(end),
            numbers: (0, 0),
            glued,
            words: self.words,
            sentence: self.sentence,
            line: self.line,
        })
    }

    /// Where the sign that starts at a byte ends.
    fn sign(&mut self, start: usize, glued: bool) -> usize {
        let rest = self.text.get(start..).unwrap_or_default();
        let end = start + text::first_char(rest).map_or(1, char::len_utf8);
        self.is_apostrophe = rest.first() == Some(&b'\'');
        self.ends = self.ends_sentence(start..end, glued);
        end
    }

    /// Goes on to the line of a byte; whether a sentence starts on the way.
    fn enter_lines(&mut self, start: usize) -> bool {
        let mut starts_sentence = false;
        while self.next_line <= count(start) {
            let Some((line, others)) = self.lines.split_first() else { break };
            self.lines = others;
            self.next_line = next_line(others);
            self.line += 1;
            starts_sentence |= line.starts_sentence;
        }
        starts_sentence
    }

    /// Whether a sign ends its sentence. A full stop does not after an abbreviation or inside a number or name.
    fn ends_sentence(&self, sign: Range<usize>, glued: bool) -> bool {
        if self.text.get(sign.end).is_some_and(|byte| *byte != b' ') {
            return false;
        }
        match self.text.get(sign) {
            Some(b"!" | b"?" | b";") => true,
            Some(b".") => !glued || is_long_word(self.text.get(self.last.clone()).unwrap_or_default()),
            Some(sign) => sign == "。".as_bytes(),
            None => false,
        }
    }
}

/// Where the first of some lines starts; beyond any text where there is none.
fn next_line(lines: &[text::Line]) -> u32 {
    lines.first().map_or(u32::MAX, |line| line.start)
}

/// Whether a full stop after this word or sign can end a sentence.
fn is_long_word(word: &[u8]) -> bool {
    let characters = word.iter().filter(|byte| **byte & 0xC0 != 0x80).count();
    characters >= SENTENCE_WORD || text::word_end(word, 0) == 0
}

/// Where the next token starts.
fn next_token(text: &[u8], mut at: usize) -> Option<usize> {
    while *text.get(at)? == b' ' {
        at += 1;
    }
    Some(at)
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
