//! What is wrong with rules that load: examples that their rule does not find, counter-examples that it does, and
//! phrases that are written twice.
//!
//! An example is a summary; of a rule that does not look at summaries, it is the first field that the rule looks at. The
//! ticket meets the rule's `when`. All rules given take part, so an example also shows that no other rule swallows it.

use compact_str::CompactString;
use hashbrown::HashMap;

use super::compile::Matcher;
use super::matcher::{Fate, Match, Scratch};
use super::pack::Packs;
use super::phrase::Phrase;
use super::rule::{Rule, WrittenPhrase};
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

/// Reports all that is wrong with packs that load.
pub fn check(packs: &Packs, problems: &mut Problems) {
    check_repeated(&packs.rules, problems);
    match Matcher::new(packs) {
        Ok(matcher) => check_examples(&packs.rules, &matcher, problems),
        Err(found) => problems.extend(found),
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

/// Reports every phrase that stands in two rules (or twice in one) that look at a common field.
fn check_repeated(rules: &[Rule], problems: &mut Problems) {
    let mut first: HashMap<&Phrase, (&Rule, &WrittenPhrase)> = HashMap::new();
    for (rule, written) in rules.iter().flat_map(|rule| rule.phrases.iter().map(move |phrase| (rule, phrase))) {
        match first.get(&written.phrase) {
            Some((other, before)) if other.fields & rule.fields != 0 => {
                let title = format!("`{}` repeats a phrase of `{}`", rule.name(), other.name());
                problems.push(
                    Problem::warning("repeated-phrase", &written.text.place, title)
                        .other(&before.text.place, "first written here")
                        .help("both rules count where it is found; remove it from one of them"),
                );
            }
            Some(_) => {}
            None => {
                first.insert(&written.phrase, (rule, written));
            }
        }
    }
}
