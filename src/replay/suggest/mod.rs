//! New rules out of old tickets: phrases that are more frequent in the tickets about which the rules say too little, or
//! the wrong thing, than in the others.
//!
//! Dumps are read three times: for the tags, for the phrases, and for examples of those that are suggested. Only the
//! ledger's tickets, a million words and a million phrases are in memory; beyond that the rarest are forgotten. Of a ticket
//! with many events, the texts of the first that has any are read.

mod grams;
mod sentences;

use std::cmp::Reverse;
use std::fmt;

use hashbrown::{HashMap, HashSet};
use icu_normalizer::DecomposingNormalizerBorrowed;

use self::grams::{Gram, Mark, Tags, Tallies, Tally, Words, words};
use self::sentences::{sentences, shortened};
use super::report::{grouped, hours};
use super::{Dumps, Truth};
use crate::classify::{Classifier, ClassifierOptions, Scratch};
use crate::config::Config;
use crate::diagnostic::Problems;
use crate::ledger::{Held, Ledger, TicketKey};
use crate::pattern::pack::{self, PackFiles, PackSource};
use crate::pipeline::Pipeline;
use crate::service::ServiceMap;
use crate::text::Folded;
use crate::ticket::{Affects, Ticket};
use crate::verdict::{Certainty, RuleId};

/// The pack that suggestions are tried out in; no folder is called so.
const PACK: &str = "(suggested)";

/// The points of a suggested rule: decent, and outvoted by anything strong.
const WEIGHT: u32 = 2;

/// How many examples a suggested rule gets at most.
const EXAMPLES: usize = 2;

/// How much the prior counts, as a share of all tickets. With less, a phrase that is in none of the others could never
/// be told from chance; with more, no phrase could.
const PRIOR: f64 = 0.1;

/// A phrase must be over-represented by this many standard deviations: of a thousand phrases that are not, about one
/// passes by chance.
const LEAST_Z: f64 = 3.0;

/// The truth decides for which side a rule speaks if at least this many tickets with its phrase have one.
const LEAST_TRUTHS: u32 = 5;

/// What is to be found.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// At most this many rules.
    pub top: usize,
    /// Phrases in at least this many tickets about which the rules say too little.
    pub least: u32,
}

/// Rules to go on from; as text, they are a file of a pack.
#[derive(Debug)]
pub struct Suggestions {
    /// Tickets about which the rules say too little.
    pub weak: u32,
    /// All others.
    pub others: u32,
    /// The rules, the most effort first.
    pub rules: Vec<Suggestion>,
}

/// One rule to go on from.
#[derive(Debug)]
pub struct Suggestion {
    id: String,
    phrase: String,
    affects: Affects,
    tally: Tally,
    z: f64,
    examples: Vec<String>,
    counter_examples: Vec<String>,
}

impl Suggestions {
    /// Looks for phrases in the tickets of dumps that the pipeline has read.
    ///
    /// # Errors
    /// When a dump cannot be read again.
    pub fn new(
        pipeline: &Pipeline,
        truth: Option<&Truth>,
        dumps: Dumps<'_>,
        config: &Config,
        wanted: Wanted,
    ) -> anyhow::Result<Self> {
        let texts = Texts { dumps, config, ledger: pipeline.ledger(), truth };
        let (mut words, mut tallies) = (Words::default(), Tallies::default());
        let (mut weak, mut others) = (0, 0);
        texts.each(|ticket, mark| {
            *(if mark.weak { &mut weak } else { &mut others }) += 1;
            tallies.add(words.grams(ticket), mark);
        })?;
        let found = strongest(&tallies, &words, weak, others, wanted);
        let mut ids = HashSet::new();
        let rules = found.into_iter().map(|(gram, tally, z)| {
            let phrase = words.text(gram);
            let affects = true_side(&tally).or(tally.tags.majority()).unwrap_or(config.classify.default);
            let id = unique_id(&phrase, &mut ids);
            Suggestion { id, phrase, affects, tally, z, examples: Vec::new(), counter_examples: Vec::new() }
        });
        let mut suggestions = Self { weak, others, rules: rules.collect() };
        suggestions.find_examples(&texts, &words)?;
        Ok(suggestions)
    }

    /// Finds sentences in which each rule counts, also beside the packs in use, and some in which it does not. A rule
    /// without an example only speaks inside longer ones, and is left out.
    fn find_examples(&mut self, texts: &Texts<'_>, words: &Words) -> anyhow::Result<()> {
        let in_use = texts.config.classifier_options().packs;
        let (mut alone, mut together) = (Trial::new(self, &[])?, Trial::new(self, &in_use)?);
        let by_word = self.rules_by_word(words);
        texts.each(|ticket, mark| {
            let mut lacking = self.lacking_examples(mark);
            let texts = [&ticket.summary, &ticket.description].into_iter().flatten();
            for sentence in texts.flat_map(|text| sentences(text)) {
                self.take_examples(sentence, &mut lacking, &mut together);
                if let Some(tag) = mark.truth.or(mark.tag) {
                    self.take_counter_examples(sentence, tag, &by_word, &mut alone);
                }
            }
        })?;
        self.rules.retain(|rule| !rule.examples.is_empty());
        self.check_counter_examples()
    }

    /// Leaves out counter-examples in which only a rule that was left out kept another from counting.
    fn check_counter_examples(&mut self) -> anyhow::Result<()> {
        let mut alone = Trial::new(self, &[])?;
        for (at, rule) in self.rules.iter_mut().enumerate() {
            rule.counter_examples.retain(|text| !alone.speaks(at, text));
        }
        Ok(())
    }

    fn rules_by_word(&self, words: &Words) -> HashMap<String, Vec<usize>> {
        let mut by_word: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, rule) in self.rules.iter().enumerate() {
            for word in rule.phrase.split(' ').filter(|word| !words.is_stop_word(word)) {
                by_word.entry(word.to_owned()).or_default().push(at);
            }
        }
        by_word
    }

    /// The rules to which a ticket may give one example each.
    fn lacking_examples(&self, mark: &Mark) -> Vec<usize> {
        let lacking = self.rules.iter().enumerate().filter(|(_, rule)| mark.weak && rule.examples.len() < EXAMPLES);
        lacking.map(|(at, _)| at).collect()
    }

    fn take_examples(&mut self, sentence: &str, lacking: &mut Vec<usize>, trial: &mut Trial) {
        if lacking.is_empty() {
            return;
        }
        for Spoken { rule, span } in trial.spoken(sentence) {
            let Some(place) = lacking.iter().position(|lacking| *lacking == rule) else { continue };
            let Some(suggestion) = self.rules.get_mut(rule) else { continue };
            let short = shortened(sentence, span);
            if !suggestion.examples.contains(&short) && trial.speaks(rule, &short) {
                suggestion.examples.push(short);
                lacking.swap_remove(place);
            }
        }
    }

    /// A near miss: a sentence of a ticket of the other side that shares a word with the rule.
    fn take_counter_examples(
        &mut self,
        sentence: &str,
        tag: Affects,
        by_word: &HashMap<String, Vec<usize>>,
        trial: &mut Trial,
    ) {
        let short = shortened(sentence, 0..0);
        let folded = Folded::of(&short);
        for word in words(&String::from_utf8_lossy(folded.bytes())) {
            for at in by_word.get(word).into_iter().flatten() {
                let lacking = |rule: &&mut Suggestion| rule.affects != tag && rule.counter_examples.is_empty();
                let Some(suggestion) = self.rules.get_mut(*at).filter(lacking) else { continue };
                if !trial.speaks(*at, &short) {
                    suggestion.counter_examples.push(short.clone());
                }
            }
        }
    }
}

/// The texts of the tickets that a ledger holds, with what it knows of them.
struct Texts<'a> {
    dumps: Dumps<'a>,
    config: &'a Config,
    ledger: &'a Ledger,
    truth: Option<&'a Truth>,
}

impl Texts<'_> {
    /// Shows the texts of each ticket once.
    fn each(&self, mut see: impl FnMut(&Ticket, &Mark)) -> anyhow::Result<()> {
        let mut seen = HashSet::new();
        self.dumps.tickets(self.config, |source, ticket| {
            let key = TicketKey::of(source, &ticket.key);
            let has_text = ticket.summary.is_some() || ticket.description.is_some();
            if let Some(held) = self.ledger.held(key)
                && has_text
                && seen.insert(key)
            {
                see(&ticket, &self.mark(key, held));
            }
        })
    }

    fn mark(&self, key: TicketKey, held: &Held) -> Mark {
        let truth = self.truth.and_then(|truth| truth.of(held));
        let is_clear = held.verdict.certainty == Certainty::Clear;
        let is_wrong = truth.is_some_and(|truth| truth != held.verdict.affects);
        Mark {
            weak: !is_clear || is_wrong,
            tag: is_clear.then_some(held.verdict.affects),
            truth,
            effort_seconds: held.effort.seconds(),
            hash: xxhash_rust::xxh3::xxh3_64(&key.0.to_le_bytes()),
        }
    }
}

/// The side to which most tickets with a phrase truly belong, where enough of them are known.
fn true_side(tally: &Tally) -> Option<Affects> {
    tally.truths.majority().filter(|_| tally.truths.customer + tally.truths.internal >= LEAST_TRUTHS)
}

/// The phrases to suggest, those with the most effort behind them first. Of several that stand in the same tickets, the
/// longest says what they have in common; one that only adds an "of the" to another says nothing more than that one.
fn strongest(tallies: &Tallies, words: &Words, weak: u32, others: u32, wanted: Wanted) -> Vec<(Gram, Tally, f64)> {
    let mut by_tickets: HashMap<(u32, u32, u64), (Gram, Tally, f64)> = HashMap::new();
    for (gram, tally) in tallies.iter().filter(|(_, tally)| tally.weak >= wanted.least) {
        let z = over_representation(tally, weak, others);
        if z < LEAST_Z {
            continue;
        }
        let rank = |gram: Gram| (gram.length(), words.meaningful(gram), Reverse(gram));
        let best = by_tickets.entry((tally.weak, tally.others, tally.set)).or_insert((gram, *tally, z));
        if rank(gram) > rank(best.0) {
            best.0 = gram;
        }
    }
    let grams: HashSet<Gram> = by_tickets.values().map(|(gram, ..)| *gram).collect();
    let says_more = |gram: Gram| words.trimmed(gram) == gram || !grams.contains(&words.trimmed(gram));
    let mut found: Vec<_> = by_tickets.into_values().filter(|(gram, ..)| says_more(*gram)).collect();
    found.sort_by(|(a_gram, a, a_z), (b_gram, b, b_z)| {
        let by_effort = (b.weak_effort, b.weak).cmp(&(a.weak_effort, a.weak));
        by_effort.then(b_z.total_cmp(a_z)).then(a_gram.cmp(b_gram))
    });
    found.truncate(wanted.top);
    found
}

/// By how many standard deviations a phrase is more frequent in the weak tickets than in the others: the log-odds ratio
/// with an informative Dirichlet prior, over its standard deviation, counted in tickets. The prior is the phrase's share
/// of all tickets, so that rare phrases have to prove themselves. B. L. Monroe, M. P. Colaresi and K. M. Quinn, *Fightin'
/// Words: Lexical feature selection and evaluation for identifying the content of political conflict*, Political Analysis
/// 16 (2008), 372-403, equations 16, 20 and 22, <https://doi.org/10.1093/pan/mpn018>.
fn over_representation(tally: &Tally, weak: u32, others: u32) -> f64 {
    let all = f64::from(weak) + f64::from(others);
    let prior = PRIOR * (f64::from(tally.weak) + f64::from(tally.others));
    let log_odds = |with: u32, of: u32| {
        let with = f64::from(with) + prior;
        (with / (f64::from(of) + PRIOR * all - with)).ln()
    };
    let variance = 1.0 / (f64::from(tally.weak) + prior) + 1.0 / (f64::from(tally.others) + prior);
    let z = (log_odds(tally.weak, weak) - log_odds(tally.others, others)) / variance.sqrt();
    if z.is_finite() { z } else { 0.0 }
}

/// An id out of a phrase's letters and digits, without their accents.
fn unique_id(phrase: &str, taken: &mut HashSet<String>) -> String {
    let plain = DecomposingNormalizerBorrowed::new_nfkd().normalize(phrase);
    let words = plain.split(' ').map(|word| word.chars().filter(char::is_ascii_alphanumeric).collect::<String>());
    let words: Vec<String> = words.filter(|word| !word.is_empty()).collect();
    let base = if words.is_empty() { "phrase".to_owned() } else { words.join("-") };
    let mut id = base.clone();
    let mut count = 1;
    while !taken.insert(id.clone()) {
        count += 1;
        id = format!("{base}-{count}");
    }
    id
}

/// Suggestions in a classifier, alone or beside other rules, to see in which sentences they count.
struct Trial {
    classifier: Classifier,
    scratch: Scratch,
    by_id: HashMap<RuleId, usize>,
}

/// A rule that counts in a sentence, with its characters.
struct Spoken {
    rule: usize,
    span: std::ops::Range<usize>,
}

impl Trial {
    fn new(suggestions: &Suggestions, beside: &[PackSource]) -> Result<Self, Problems> {
        let mut problems = Problems::new();
        let files = vec![(format!("{PACK}.toml"), suggestions.to_string())];
        let mut all = pack::files(beside, &mut problems);
        all.push(PackFiles { name: PACK.to_owned(), files, ..PackFiles::default() });
        let packs = pack::read(&all, &mut problems);
        problems.into_result(())?;
        let classifier = Classifier::new(packs, ServiceMap::default(), &ClassifierOptions::default())?;
        let id = |suggestion: &Suggestion| RuleId::of(&format!("{PACK}/{}", suggestion.id));
        let by_id = suggestions.rules.iter().enumerate().map(|(at, rule)| (id(rule), at)).collect();
        Ok(Self { scratch: classifier.scratch(), classifier, by_id })
    }

    fn spoken(&mut self, text: &str) -> Vec<Spoken> {
        let ticket = Ticket { summary: Some(text.to_owned()), ..Ticket::default() };
        let findings = self.classifier.classify(&ticket, &mut self.scratch);
        let spoken = findings.evidence.iter().filter_map(|evidence| {
            let rule = *self.by_id.get(&evidence.rule)?;
            Some(Spoken { rule, span: evidence.start as usize..evidence.end as usize })
        });
        spoken.collect()
    }

    fn speaks(&mut self, rule: usize, text: &str) -> bool {
        self.spoken(text).iter().any(|spoken| spoken.rule == rule)
    }
}

impl fmt::Display for Suggestions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# Phrases that are over-represented in {} tickets about which the rules say too little, against {} others; the\n\
             # most effort first. Check every rule, and its examples, which are sentences of real tickets, before use.",
            grouped(self.weak.into()),
            grouped(self.others.into())
        )?;
        self.rules.iter().try_for_each(|rule| write!(f, "\n{rule}"))
    }
}

impl fmt::Display for Suggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { weak, weak_effort, others, tags, truths, .. } = self.tally;
        let (weak, others) = (grouped(weak.into()), grouped(others.into()));
        writeln!(f, "# In {weak} such tickets ({}) and {others} others; z = {:.1}", hours(weak_effort), self.z)?;
        match true_side(&self.tally) {
            Some(_) => writeln!(f, "# Truth: {}", counted(truths))?,
            None => {
                writeln!(f, "# CHECK affects: a guess; other tickets: {}, truth: {}", counted(tags), counted(truths))?
            }
        }
        let quoted = |text: &String| toml::Value::String(text.clone()).to_string();
        let list = |texts: &[String]| texts.iter().map(quoted).collect::<Vec<_>>().join(", ");
        writeln!(f, "[[rule]]")?;
        writeln!(f, "id       = {}", quoted(&self.id))?;
        writeln!(f, "affects  = \"{}\"", self.affects)?;
        writeln!(f, "weight   = {WEIGHT}")?;
        writeln!(f, "phrases  = [{}]", quoted(&self.phrase))?;
        writeln!(f, "examples = [{}]", list(&self.examples))?;
        if self.counter_examples.is_empty() {
            return Ok(());
        }
        writeln!(f, "counter_examples = [{}]", list(&self.counter_examples))
    }
}

/// `3 customer, 38 internal`.
fn counted(tags: Tags) -> String {
    format!("{} customer, {} internal", grouped(tags.customer.into()), grouped(tags.internal.into()))
}

#[cfg(test)]
mod tests {
    use hashbrown::HashMap as Map;
    use std::fmt::Write as _;

    use super::super::testing::Site;
    use super::*;
    use crate::pattern::check::check;

    const RULES: &str = r#"
        [[rule]]
        id = "password"
        affects = "internal"
        weight = 5
        phrases = ["password"]
        [[rule]]
        id = "shop"
        affects = "customer"
        weight = 5
        phrases = ["webshop"]
    "#;

    /// Forty tickets that the rules know, two of them with a word of the phrase, and twenty that they do not.
    fn dump() -> String {
        let mut dump = "id,summary,description,effort_seconds\n".to_owned();
        for n in 0..20 {
            writeln!(dump, "p{n},Forgot the password number {n},,60").unwrap();
            writeln!(dump, "s{n},Webshop page {n} is slow{},,60", if n < 2 { " behind the gate" } else { "" }).unwrap();
        }
        for n in 0..10 {
            writeln!(dump, "g{n},\"Störung: loading gate {n} stuck\",Please hurry. The loading gate jams again,600")
                .unwrap();
        }
        for n in 0..10 {
            writeln!(dump, "b{n},The old badge reader beeps,,6000").unwrap();
        }
        dump
    }

    fn suggested(truth: Option<&Truth>) -> (Site, Suggestions) {
        suggested_beside(RULES, truth)
    }

    fn suggested_beside(rules: &str, truth: Option<&Truth>) -> (Site, Suggestions) {
        let site = Site::new(&dump(), rules);
        let wanted = Wanted { top: 50, least: 5 };
        let suggestions = Suggestions::new(&site.replayed(truth), truth, site.dumps(), &site.config, wanted).unwrap();
        (site, suggestions)
    }

    #[test]
    fn phrases_come_by_effort_and_those_of_the_same_tickets_as_one() {
        let (_site, suggestions) = suggested(None);
        let phrases: Vec<_> = suggestions.rules.iter().map(|rule| rule.phrase.as_str()).collect();
        assert_eq!((suggestions.weak, suggestions.others), (20, 40));
        assert_eq!(phrases.first(), Some(&"old badge reader beeps"), "60,000 s go before 6,000 s");
        assert!(phrases.contains(&"the loading gate jams"), "{phrases:?}");
        assert!(!phrases.contains(&"badge") && !phrases.contains(&"loading gate"), "{phrases:?}");
    }

    #[test]
    fn the_truth_decides_the_side_and_without_it_a_guess_is_marked() {
        let labels: Map<String, Affects> = (0..10).map(|n| (format!("g{n}"), Affects::Customer)).collect();
        let (_site, with_truth) = suggested(Some(&Truth::Labels(labels)));
        let gate = |suggestions: &Suggestions| {
            let rule = suggestions.rules.iter().find(|rule| rule.phrase == "the loading gate jams").unwrap();
            (rule.affects, rule.to_string())
        };
        let (affects, text) = gate(&with_truth);
        assert_eq!(affects, Affects::Customer);
        assert!(text.contains("# Truth: 10 customer, 0 internal"), "{text}");
        let (affects, text) = gate(&suggested(None).1);
        assert_eq!(affects, Affects::Internal);
        assert!(text.contains("# CHECK affects: a guess"), "{text}");
    }

    #[test]
    fn suggestions_are_a_pack_that_passes_its_check() {
        let (site, suggestions) = suggested(None);
        let path = site.path().join("suggested.toml");
        std::fs::write(&path, suggestions.to_string()).unwrap();
        let mut problems = Problems::new();
        let packs = pack::load(&[PackSource::Folder(path)], &mut problems);
        check(&packs, &[], &mut problems);
        let rules = packs.rules;
        assert!(problems.is_empty(), "{}\n{suggestions}", problems.render(false));
        assert!(rules.len() > 1 && rules.iter().all(|rule| !rule.examples.is_empty()), "{suggestions}");
        let near_miss = rules.iter().flat_map(|rule| &rule.counter_examples).map(|text| text.value.as_str());
        assert_eq!(near_miss.take(1).collect::<Vec<_>>(), ["Webshop page 0 is slow behind the gate"], "{suggestions}");
    }

    #[test]
    fn a_phrase_that_the_packs_always_swallow_is_not_suggested() {
        let swallowing =
            format!("{RULES}\n[[rule]]\nid = 'badge'\naffects = 'none'\nphrases = ['the old badge reader beeps']\n");
        let (_site, suggestions) = suggested_beside(&swallowing, None);
        let phrases: Vec<_> = suggestions.rules.iter().map(|rule| rule.phrase.as_str()).collect();
        assert!(phrases.contains(&"the loading gate jams"), "{phrases:?}");
        assert!(!phrases.iter().any(|phrase| phrase.contains("badge")), "{phrases:?}");
    }

    #[test]
    fn a_phrase_as_frequent_everywhere_is_not_over_represented() {
        let tally = |weak, others| Tally { weak, others, ..Tally::default() };
        assert!(over_representation(&tally(50, 50), 1000, 1000).abs() < 1e-9);
        assert!(over_representation(&tally(50, 10), 1000, 1000) > LEAST_Z);
        assert!(over_representation(&tally(5, 1), 1000, 1000) < LEAST_Z, "too few to tell");
        assert!(over_representation(&tally(10, 0), 10, 0) < LEAST_Z, "nothing to compare with");
    }

    #[test]
    fn ids_are_plain_and_unique() {
        let mut taken = HashSet::new();
        let ids = ["störung am tor", "storung am tor", "打不开"].map(|phrase| unique_id(phrase, &mut taken));
        assert_eq!(ids, ["storung-am-tor", "storung-am-tor-2", "phrase"]);
    }
}
