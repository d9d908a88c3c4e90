//! What is wrong with rules that load: examples that their rule does not find, counter-examples that it does, phrases
//! that another rule has, too, rules that never count where they match, regexes that look through too much text, and
//! weights that decide alone without saying so.
//!
//! An example is a summary; of a rule that does not look at summaries, it is the first field that the rule looks at. The
//! ticket meets the rule's `when`. All rules given take part, so an example also shows that no other rule swallows it.

use compact_str::CompactString;
use hashbrown::HashMap;

use super::compile::Matcher;
use super::matcher::{Fate, Match, Scratch};
use super::pack::Packs;
use super::phrase::{Literal, Phrase};
use super::rule::{DECISIVE, Rule, WrittenPhrase};
use super::when::Key;
use crate::diagnostic::{Problem, Problems};
use crate::document::Text;
use crate::ticket::{Kind, State, TextField, Ticket};
use crate::verdict::Findings;

/// The outcome of one example or counter-example.
#[derive(Clone, Debug)]
pub struct Trial<'a> {
    /// The rule that it belongs to.
    pub rule: &'a Rule,
    /// The text, with its place.
    pub text: &'a Text,
    /// Whether the rule must count in it.
    pub wanted: bool,
    /// Why it failed; `None` where it passed.
    pub failure: Option<String>,
}

/// Runs the examples of all rules, which must be sorted by name as they were for the matcher.
pub fn trials<'a>(rules: &'a [Rule], matcher: &Matcher) -> Vec<Trial<'a>> {
    let mut scratch = Scratch::new();
    let mut trials = Vec::new();
    for (rule, index) in rules.iter().zip(0..) {
        let wanted = rule.examples.iter().map(|text| (text, true));
        let unwanted = rule.counter_examples.iter().map(|text| (text, false));
        for (text, wanted) in wanted.chain(unwanted) {
            let (field, ticket) = example_ticket(rule, &text.value);
            matcher.scan(field, &text.value, &ticket, &mut scratch);
            let failure = failure(rules, index, wanted, &scratch.matches);
            trials.push(Trial { rule, text, wanted, failure });
        }
    }
    trials
}

/// Why an example fails.
fn failure(rules: &[Rule], rule: u32, wanted: bool, matches: &[Match]) -> Option<String> {
    let counts = matches.iter().any(|m| m.rule == rule && m.fate == Fate::Live);
    match (wanted, counts) {
        (true, true) | (false, false) => None,
        (false, true) => Some("the rule counts in it".to_owned()),
        (true, false) => Some(why_not(rules, rule, matches)),
    }
}

/// What keeps a rule from counting.
fn why_not(rules: &[Rule], rule: u32, matches: &[Match]) -> String {
    let Some(own) = matches.iter().find(|m| m.rule == rule) else {
        return "nothing that the rule looks for is in it".to_owned();
    };
    match own.fate {
        Fate::Cancelled => "an `unless` phrase of the rule is in it".to_owned(),
        Fate::Swallowed => {
            let around = matches.iter().filter(|m| m.fate == Fate::Live && own.is_swallowed_by(m));
            let names: Vec<String> = around.filter_map(|m| rules.get(m.rule as usize)).map(Rule::name).collect();
            format!("a longer match swallows it: {}", names.join(", "))
        }
        Fate::Alone => format!("no rule that it needs is in it: {}", names(rules, rule, |rule| &rule.needs)),
        Fate::Replaced => "another rule in it replaces the rule".to_owned(),
        Fate::Muted => "it lies in a zone that weighs nothing".to_owned(),
        Fate::Unmet | Fate::Live => "the rule's `when` is not met".to_owned(),
    }
}

fn names(rules: &[Rule], rule: u32, of: impl Fn(&Rule) -> &[String]) -> String {
    rules.get(rule as usize).map(|rule| of(rule).join(", ")).unwrap_or_default()
}

/// A ticket that meets the rule's `when` and carries the text.
fn example_ticket(rule: &Rule, text: &str) -> (TextField, Ticket) {
    let mut ticket = Ticket::default();
    for condition in &rule.when {
        let Some(value) = condition.values.first() else { continue };
        let compact = || Some(CompactString::from(value.as_str()));
        let name = value.trim().to_lowercase();
        match condition.key {
            Key::Kind => ticket.kind = Kind::from_name(&name),
            Key::State => ticket.state = State::from_name(&name),
            Key::Priority => ticket.priority = compact(),
            Key::Group => ticket.group = compact(),
            Key::Category => ticket.category = compact(),
            Key::Service => ticket.service = compact(),
            Key::Ci => ticket.ci = compact(),
        }
    }
    let field = TextField::ALL.iter().find(|field| rule.fields & Findings::bit(**field) != 0);
    let field = field.copied().unwrap_or(TextField::Summary);
    if field == TextField::Summary {
        ticket.summary = Some(text.to_owned());
    }
    (field, ticket)
}

/// How much of the corpus a regex may have to look through: a twentieth. Its gate is too usual beyond.
const MAX_REGEX_SHARE: f64 = 0.05;

/// A rule that has matched so often in the corpus without counting once is taken for one that never does.
const ENOUGH_MATCHES: usize = 3;

/// Reports all that is wrong with packs that load. `corpus` are tickets on which rules are tried.
pub fn check(packs: &Packs, corpus: &[Ticket], problems: &mut Problems) {
    check_repeated(&packs.rules, problems);
    check_weights(&packs.rules, problems);
    match Matcher::new(packs) {
        Ok(matcher) => {
            check_examples(&packs.rules, &matcher, problems);
            check_corpus(&packs.rules, &matcher, corpus, problems);
        }
        Err(found) => problems.extend(found),
    }
}

/// Reports weights that decide alone without saying so, and rules that say so without such a weight.
fn check_weights(rules: &[Rule], problems: &mut Problems) {
    for rule in rules {
        let (is_decisive, place) = match &rule.decisive {
            Some((yes, place)) => (*yes, place),
            None => (false, &rule.place),
        };
        let bound = f64::from(DECISIVE) / 100.0;
        let weight = f64::from(rule.weight) / 100.0;
        if rule.weight > DECISIVE && !is_decisive {
            let title = format!("`{}` weighs {weight}: it decides alone, whatever usual rules say", rule.name());
            let help = format!("weigh it {bound} at most, or say `decisive = true` if that is meant");
            problems.push(Problem::warning("undeclared-decisive", place, title).help(help));
        } else if rule.weight <= DECISIVE && is_decisive {
            let title = format!("`{}` is said to be decisive, but weighs {weight}", rule.name());
            let help = format!("take `decisive` away, or weigh it more than {bound}");
            problems.push(Problem::warning("useless-decisive", place, title).help(help));
        }
    }
}

/// What the tickets of a corpus say of a rule.
#[derive(Clone, Copy, Default)]
struct Seen {
    matches: usize,
    live: usize,
    /// A rule that swallowed one of its matches.
    swallowed_by: Option<u32>,
    /// Bytes that its regexes had to look through.
    looked_through: usize,
}

/// Reports rules that match somewhere in a corpus but count nowhere, since longer matches always take them, and regexes
/// that look through too much of it.
fn check_corpus(rules: &[Rule], matcher: &Matcher, corpus: &[Ticket], problems: &mut Problems) {
    let mut seen = vec![Seen::default(); rules.len()];
    let mut scratch = Scratch::new();
    let mut bytes = 0;
    for ticket in corpus {
        scratch.begin(rules.len());
        for field in TextField::ALL {
            let Some(text) = ticket.text(*field) else { continue };
            matcher.scan(*field, text, ticket, &mut scratch);
            bytes += text.len();
            note_matches(&scratch.matches, &mut seen);
            for (rule, length) in matcher.looked_through(&scratch) {
                if let Some(seen) = seen.get_mut(rule as usize) {
                    seen.looked_through += length;
                }
            }
        }
    }
    for (rule, seen) in rules.iter().zip(seen) {
        report_corpus(rules, rule, seen, bytes, problems);
    }
}

fn note_matches(matches: &[Match], seen: &mut [Seen]) {
    for found in matches {
        let Some(seen) = seen.get_mut(found.rule as usize) else { continue };
        seen.matches += usize::from(matches!(found.fate, Fate::Live | Fate::Swallowed));
        seen.live += usize::from(found.fate == Fate::Live);
        let around = || matches.iter().find(|other| other.fate == Fate::Live && found.is_swallowed_by(other));
        if found.fate == Fate::Swallowed && seen.swallowed_by.is_none() {
            seen.swallowed_by = around().map(|other| other.rule);
        }
    }
}

fn report_corpus(rules: &[Rule], rule: &Rule, seen: Seen, bytes: usize, problems: &mut Problems) {
    let never = seen.live == 0 && seen.matches >= ENOUGH_MATCHES;
    if let Some(by) = seen.swallowed_by.filter(|_| never).and_then(|by| rules.get(by as usize)) {
        let title =
            format!("`{}` never counts: each of its {} matches lies inside a longer one", rule.name(), seen.matches);
        problems.push(
            Problem::warning("never-counts", &rule.place, title)
                .other(&by.place, "of this rule, for one")
                .help("take its phrases out, or make them as long as what they stand in"),
        );
    }
    #[expect(clippy::cast_precision_loss, reason = "a share of a corpus of some megabytes")]
    let share = seen.looked_through as f64 / bytes.max(1) as f64;
    if let Some(regex) = rule.regexes.first().filter(|_| share > MAX_REGEX_SHARE) {
        let literals = regex.regex.gate.literals.join("`, `");
        let title = format!("the regexes of `{}` look through {:.0} % of all text", rule.name(), share * 100.0);
        let help = format!(
            "they run wherever `{literals}` stands; require a rarer word, and bound how far they reach ({:.0} % are fine)",
            MAX_REGEX_SHARE * 100.0
        );
        problems.push(Problem::warning("costly-regex", &regex.text.place, title).help(help));
    }
}

fn check_examples(rules: &[Rule], matcher: &Matcher, problems: &mut Problems) {
    for trial in trials(rules, matcher) {
        let Some(failure) = trial.failure else { continue };
        let (code, what) = match trial.wanted {
            true => ("example-fails", "an example"),
            false => ("counter-example-matches", "a counter-example"),
        };
        let title = format!("{what} of `{}` fails: {failure}", trial.rule.name());
        problems.push(Problem::error(code, &trial.text.place, title).other(&trial.rule.place, "of this rule"));
    }
    for rule in rules.iter().filter(|rule| rule.examples.is_empty()) {
        let title = format!("`{}` has no example", rule.name());
        problems.push(
            Problem::warning("no-example", &rule.place, title)
                .help("add `examples = [\"…\"]`: a text in which it must count, best from a real ticket"),
        );
    }
}

/// Reports every phrase that says nothing which another rule (or an earlier phrase of the same) that speaks for the same
/// side and looks at a common field does not say.
fn check_repeated(rules: &[Rule], problems: &mut Problems) {
    let mut whole: HashMap<&Phrase, (&Rule, &WrittenPhrase)> = HashMap::new();
    let mut literals: HashMap<&Literal, Vec<(&Rule, &WrittenPhrase)>> = HashMap::new();
    for (rule, written) in rules.iter().flat_map(|rule| rule.phrases.iter().map(move |phrase| (rule, phrase))) {
        let repeated = whole.get(&written.phrase).copied().filter(|(other, _)| is_rival(rule, other));
        if let Some((other, before)) = repeated.or_else(|| said_before(rule, written, &literals)) {
            let title = format!("`{}` repeats a phrase of `{}`", rule.name(), other.name());
            problems.push(
                Problem::warning("repeated-phrase", &written.text.place, title)
                    .other(&before.text.place, "first written here")
                    .help("both rules count where it is found; remove it from one of them"),
            );
        }
        whole.entry(&written.phrase).or_insert((rule, written));
        for literal in one_piece(&written.phrase) {
            literals.entry(literal).or_default().push((rule, written));
        }
    }
}

/// Whether two rules may count for one thing, so that it counts twice.
fn is_rival(rule: &Rule, other: &Rule) -> bool {
    let weighs = rule.affects.is_some() || other.affects.is_some() || rule.name() == other.name();
    weighs && rule.fields & other.fields != 0 && rule.when == other.when
}

/// The rule of the same side that has every way to say a phrase.
fn said_before<'a>(
    rule: &Rule,
    written: &WrittenPhrase,
    literals: &HashMap<&Literal, Vec<(&'a Rule, &'a WrittenPhrase)>>,
) -> Option<(&'a Rule, &'a WrittenPhrase)> {
    let ways = one_piece(&written.phrase);
    let candidates = literals.get(ways.first()?)?;
    let says = |literal: &Literal, by: &Rule| {
        literals.get(literal).is_some_and(|all| all.iter().any(|(other, _)| other.name() == by.name()))
    };
    let rivals = candidates.iter().filter(|(other, _)| other.affects == rule.affects && is_rival(rule, other));
    rivals.copied().find(|(other, _)| ways.iter().all(|literal| says(literal, other)))
}

/// The ways to say a phrase in one piece; none for other phrases.
fn one_piece(phrase: &Phrase) -> &[Literal] {
    match &*phrase.sides {
        [side] if phrase.is_one_piece() => side.first().map(|part| &*part.alternatives).unwrap_or_default(),
        _ => &[],
    }
}
