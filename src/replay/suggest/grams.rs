//! Phrases of up to four words, and in how many tickets of which sort each of them stands.

use compact_str::CompactString;
use hashbrown::{HashMap, HashSet};

use crate::text::{Folded, fold_literal, is_word};
use crate::ticket::{Affects, Ticket};

/// The most words of a phrase.
pub const LONGEST: usize = 4;

/// How many different words are told apart, at about 60 bytes each; phrases with words that come later are left out.
const MAX_WORDS: usize = 1_000_000;

/// How many phrases are counted at a time, at about 100 bytes each. Beyond it those in the fewest tickets are forgotten
/// (lossy counting; G. S. Manku and R. Motwani, *Approximate frequency counts over data streams*, VLDB 2002): what is
/// frequent stays, and its count can only be a little too low.
const MAX_PHRASES: usize = 1_000_000;

/// Longer words are pasted data.
const MAX_WORD_BYTES: usize = 40;

/// The languages whose words without meaning of their own are known: those in which most tickets are written.
const LANGUAGES: [&str; 7] = ["en", "de", "fr", "es", "it", "nl", "pt"];

/// A word in the table of [`Words`].
type Word = u32;

/// Fills a phrase up to [`LONGEST`] words.
const NO_WORD: Word = Word::MAX;

/// A phrase: its words, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gram([Word; LONGEST]);

impl Gram {
    fn of(words: &[Word]) -> Self {
        let mut gram = [NO_WORD; LONGEST];
        gram.iter_mut().zip(words).for_each(|(place, word)| *place = *word);
        Self(gram)
    }

    fn words(&self) -> impl Iterator<Item = Word> {
        self.0.into_iter().filter(|word| *word != NO_WORD)
    }

    /// How many words it has.
    pub fn length(&self) -> usize {
        self.words().count()
    }
}

/// Every word met, and which of them say nothing by themselves.
#[derive(Debug)]
pub struct Words {
    names: Vec<CompactString>,
    ids: HashMap<CompactString, Word>,
    stop_words: HashSet<String>,
}

impl Default for Words {
    fn default() -> Self {
        let lists = LANGUAGES.iter().filter_map(stop_words::lookup);
        let stop_words = lists.flatten().map(|word| fold_literal(word)).collect();
        Self { names: Vec::new(), ids: HashMap::new(), stop_words }
    }
}

impl Words {
    /// The words of a phrase, with blanks between them.
    pub fn text(&self, gram: Gram) -> String {
        let names: Vec<&str> =
            gram.words().filter_map(|word| self.names.get(word as usize)).map(|w| w.as_str()).collect();
        names.join(" ")
    }

    /// How many words of a phrase say something by themselves.
    pub fn meaningful(&self, gram: Gram) -> usize {
        let names = gram.words().filter_map(|word| self.names.get(word as usize));
        names.filter(|word| !self.is_stop_word(word)).count()
    }

    /// A phrase without the words at its ends that say nothing by themselves.
    pub fn trimmed(&self, gram: Gram) -> Gram {
        let says_nothing = |word: &Word| self.names.get(*word as usize).is_some_and(|name| self.is_stop_word(name));
        let mut words: Vec<Word> = gram.words().skip_while(says_nothing).collect();
        while words.last().is_some_and(says_nothing) {
            words.pop();
        }
        Gram::of(&words)
    }

    /// Whether a word says nothing by itself.
    pub fn is_stop_word(&self, word: &str) -> bool {
        self.stop_words.contains(word)
    }

    fn id(&mut self, word: &str) -> Option<Word> {
        if let Some(id) = self.ids.get(word) {
            return Some(*id);
        }
        let id = Word::try_from(self.names.len()).ok().filter(|_| self.names.len() < MAX_WORDS)?;
        self.names.push(word.into());
        self.ids.insert(word.into(), id);
        Some(id)
    }

    /// Every phrase of a ticket's summary and description, once.
    pub fn grams(&mut self, ticket: &Ticket) -> HashSet<Gram> {
        let mut grams = HashSet::new();
        for text in [&ticket.summary, &ticket.description].into_iter().flatten() {
            let folded = Folded::of(text);
            for run in runs(&String::from_utf8_lossy(folded.bytes())) {
                self.add_run(&run, &mut grams);
            }
        }
        grams
    }

    fn add_run(&mut self, run: &[&str], grams: &mut HashSet<Gram>) {
        let words: Vec<(Option<Word>, bool)> =
            run.iter().map(|word| (self.id(word), !self.is_stop_word(word))).collect();
        for start in 0..words.len() {
            let mut gram = Vec::with_capacity(LONGEST);
            let mut says_something = false;
            for (word, meaningful) in words.iter().skip(start).take(LONGEST) {
                let Some(word) = word else { break };
                gram.push(*word);
                says_something |= meaningful;
                if says_something {
                    grams.insert(Gram::of(&gram));
                }
            }
        }
    }
}

/// The words of a folded text.
pub fn words(folded: &str) -> impl Iterator<Item = &str> {
    runs(folded).into_iter().flatten()
}

/// Stretches of words with single blanks between them; punctuation, numbers and over-long words part them.
fn runs(folded: &str) -> Vec<Vec<&str>> {
    let mut runs = vec![Vec::new()];
    let in_word = |c: char| is_word(c) || c == '\'';
    for piece in folded.split(|c: char| !in_word(c) && c != ' ') {
        for word in piece.split(' ').map(|word| word.trim_matches('\'')).filter(|word| !word.is_empty()) {
            let usable = word.len() <= MAX_WORD_BYTES && word.chars().any(char::is_alphabetic);
            match runs.last_mut() {
                Some(run) if usable => run.push(word),
                _ => runs.push(Vec::new()),
            }
        }
        runs.push(Vec::new());
    }
    runs
}

/// Tickets by tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// Those that reach the customer.
    pub customer: u32,
    /// Those that do not.
    pub internal: u32,
}

impl Tags {
    /// Counts a ticket.
    pub fn add(&mut self, tag: Affects) {
        match tag {
            Affects::Customer => self.customer += 1,
            Affects::Internal => self.internal += 1,
        }
    }

    /// What most of them are; `None` at a tie.
    pub fn majority(self) -> Option<Affects> {
        match self.customer.cmp(&self.internal) {
            std::cmp::Ordering::Greater => Some(Affects::Customer),
            std::cmp::Ordering::Less => Some(Affects::Internal),
            std::cmp::Ordering::Equal => None,
        }
    }
}

/// What matters of the ticket in which a phrase stands.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// The rules say too little about it, or the wrong thing.
    pub weak: bool,
    /// Its tag, where that is sure.
    pub tag: Option<Affects>,
    /// Its true tag, where that is known.
    pub truth: Option<Affects>,
    /// Effort in seconds.
    pub effort_seconds: u64,
    /// Its identity.
    pub hash: u64,
}

/// In which tickets a phrase stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tickets about which the rules say too little.
    pub weak: u32,
    /// Their effort in seconds.
    pub weak_effort: u64,
    /// All other tickets.
    pub others: u32,
    /// Those of them whose tag is sure.
    pub tags: Tags,
    /// All tickets whose true tag is known.
    pub truths: Tags,
    /// The sum of the identities of its tickets: two phrases with the same sum and counts stand in the same tickets.
    pub set: u64,
}

impl Tally {
    fn add(&mut self, mark: &Mark) {
        match mark.weak {
            true => {
                self.weak += 1;
                self.weak_effort = self.weak_effort.saturating_add(mark.effort_seconds);
            }
            false => {
                self.others += 1;
                if let Some(tag) = mark.tag {
                    self.tags.add(tag);
                }
            }
        }
        if let Some(truth) = mark.truth {
            self.truths.add(truth);
        }
        self.set = self.set.wrapping_add(mark.hash);
    }

    fn tickets(&self) -> u32 {
        self.weak + self.others
    }
}

/// The phrases counted so far.
#[derive(Debug)]
pub struct Tallies {
    by_gram: HashMap<Gram, Tally>,
    limit: usize,
}

impl Default for Tallies {
    fn default() -> Self {
        Self { by_gram: HashMap::new(), limit: MAX_PHRASES }
    }
}

impl Tallies {
    /// Counts the phrases of one ticket.
    pub fn add(&mut self, grams: impl IntoIterator<Item = Gram>, mark: &Mark) {
        for gram in grams {
            self.by_gram.entry(gram).or_default().add(mark);
        }
        if self.by_gram.len() > self.limit {
            self.forget_rarest();
        }
    }

    /// Makes room for as many phrases again, so that this is not done for every ticket.
    fn forget_rarest(&mut self) {
        let mut least = 1;
        while self.by_gram.len() > self.limit / 2 {
            self.by_gram.retain(|_, tally| tally.tickets() > least);
            least += 1;
        }
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Gram, &Tally)> {
        self.by_gram.iter().map(|(gram, tally)| (*gram, tally))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(summary: &str) -> Ticket {
        Ticket { summary: Some(summary.to_owned()), ..Ticket::default() }
    }

    fn texts(summary: &str) -> Vec<String> {
        let mut words = Words::default();
        let grams = words.grams(&ticket(summary));
        let mut texts: Vec<String> = grams.into_iter().map(|gram| words.text(gram)).collect();
        texts.sort();
        texts
    }

    #[test]
    fn phrases_end_at_punctuation_and_numbers_and_say_something() {
        assert_eq!(texts("The Label-Printer"), ["label", "label printer", "printer", "the label", "the label printer"]);
        assert_eq!(texts("printer, label 77 jams"), ["jams", "label", "printer"]);
        assert_eq!(texts("it is not"), Vec::<String>::new());
    }

    #[test]
    fn a_phrase_is_trimmed_at_its_ends_only() {
        let mut words = Words::default();
        let grams = words.grams(&ticket("on the label of printer at"));
        let trimmed: HashSet<String> = grams.into_iter().map(|gram| words.text(words.trimmed(gram))).collect();
        assert_eq!(trimmed, ["printer".to_owned(), "label".to_owned(), "label of printer".to_owned()].into());
    }

    #[test]
    fn beyond_the_limit_the_rarest_phrases_are_forgotten() {
        let mark = Mark { weak: true, tag: None, truth: None, effort_seconds: 60, hash: 1 };
        let (mut words, mut tallies) = (Words::default(), Tallies { by_gram: HashMap::new(), limit: 3 });
        for text in ["printer", "printer", "label", "scanner", "toner"] {
            tallies.add(words.grams(&ticket(text)), &mark);
        }
        let kept: Vec<(String, u32)> = tallies.iter().map(|(gram, tally)| (words.text(gram), tally.weak)).collect();
        assert_eq!(kept, [("printer".to_owned(), 2)]);
    }
}
