//! Rules as people write them, read from their table; their phrases are spelt out and their regexes compile.

use super::pack::is_good_id;
use super::phrase::{self, Lists, Phrase};
use super::regex::{GatedRegex, RegexError};
use super::when::{Condition, Key};
use crate::diagnostic::{Place, Problem, Problems, closest};
use crate::document::{Table, Text};
use crate::ticket::{Affects, Kind, State, TextField};
use crate::verdict::{Findings, Points};

/// A weight beyond this would outvote everything else for ever; it keeps sums far from overflow.
const MAX_WEIGHT: f64 = 1000.0;

/// From above this weight on, in hundredths of a point, a rule decides a ticket alone: no usual rule of the other side
/// outweighs it. It must say so.
pub const DECISIVE: Points = 600;

/// A rule as loaded.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The name of its pack.
    pub pack: String,
    /// Its id in the pack.
    pub id: String,
    /// Where it stands.
    pub place: Place,
    /// The side it speaks for; `None` where it only swallows shorter matches.
    pub affects: Option<Affects>,
    /// How strongly, in hundredths of a point; 0 where it speaks for neither side.
    pub weight: Points,
    /// The fields it looks at, as bits of [`Findings::bit`].
    pub fields: u8,
    /// What it looks for, in the phrase language.
    pub phrases: Vec<WrittenPhrase>,
    /// What it looks for by regex.
    pub regexes: Vec<WrittenRegex>,
    /// What cancels it in the same field.
    pub unless: Vec<WrittenPhrase>,
    /// What must hold of the ticket.
    pub when: Vec<Condition>,
    /// The rules of which one must match in the same field, by full name; none where it needs none.
    pub needs: Vec<String>,
    /// The rules that do not count in a field in which this one does, by full name.
    pub replaces: Vec<String>,
    /// Whether its author means it to decide alone, and where that is said.
    pub decisive: Option<(bool, Place)>,
    /// Texts in which it must count.
    pub examples: Vec<Text>,
    /// Texts in which it must not.
    pub counter_examples: Vec<Text>,
}

/// A phrase with its place.
#[derive(Clone, Debug)]
pub struct WrittenPhrase {
    /// As written.
    pub text: Text,
    /// As spelt out.
    pub phrase: Phrase,
}

/// A regex with its place.
#[derive(Clone, Debug)]
pub struct WrittenRegex {
    /// As written.
    pub text: Text,
    /// As compiled.
    pub regex: GatedRegex,
}

impl Rule {
    /// The name under which it is shown: `pack/id`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.pack, self.id)
    }

    /// The weight with its sign: above 0 for the customer.
    pub fn points(&self) -> Points {
        match self.affects {
            Some(Affects::Customer) => self.weight,
            Some(Affects::Internal) => -self.weight,
            None => 0,
        }
    }
}

/// Reads one rule; one without a usable id is reported and left out.
pub(super) fn read(pack: &str, table: &Table, lists: &impl Lists, problems: &mut Problems) -> Option<Rule> {
    let id = table.required_text("id", problems).filter(|id| is_good_id(id, problems));
    let decisive = table.bool("decisive", problems);
    let affects = read_affects(table, problems);
    let weight = read_weight(table, matches!(affects, Some(None)), problems);
    let rule = Rule {
        pack: pack.to_owned(),
        id: id.as_ref().map(|id| id.value.clone()).unwrap_or_default(),
        place: id.as_ref().map_or_else(|| table.place.clone(), |id| id.place.clone()),
        affects: affects.flatten(),
        weight,
        fields: read_fields(table, problems),
        phrases: read_phrases(table, "phrases", lists, problems),
        regexes: read_regexes(table, problems),
        unless: read_phrases(table, "unless", lists, problems),
        when: read_when(table, problems),
        needs: read_names(pack, table, "needs", problems),
        replaces: read_names(pack, table, "replaces", problems),
        decisive: decisive.and_then(|yes| Some((yes, table.get("decisive")?.place.clone()))),
        examples: table.texts("examples", problems).unwrap_or_default(),
        counter_examples: table.texts("counter_examples", problems).unwrap_or_default(),
    };
    if table.get("phrases").is_none() && table.get("regex").is_none() {
        problems.push(
            Problem::error("missing-key", &rule.place, "the rule looks for nothing")
                .help("add `phrases = [\"…\"]`, or `regex` for the few things that phrases cannot say"),
        );
    }
    table.finish(problems);
    id.map(|_| rule)
}

/// The side of a rule; the outer `None` where it is missing or wrong.
fn read_affects(table: &Table, problems: &mut Problems) -> Option<Option<Affects>> {
    let text = table.required_text("affects", problems)?;
    match (text.value.as_str(), Affects::from_name(&text.value)) {
        ("none", _) => Some(None),
        (_, Some(side)) => Some(Some(side)),
        _ => {
            let known = Affects::NAMES.iter().copied().chain(["none"]);
            problems.push(unknown_value("affects", &text, known));
            None
        }
    }
}

/// The problem that a text is none of the values that a key can have.
pub(crate) fn unknown_value(key: &str, text: &Text, known: impl Iterator<Item = &'static str> + Clone) -> Problem {
    let help = match closest(&text.value, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known here: {}", known.collect::<Vec<_>>().join(", ")),
    };
    Problem::error("unknown-value", &text.place, format!("`{}` is no value of `{key}`", text.value)).help(help)
}

/// The weight in hundredths; 0 where there is none.
fn read_weight(table: &Table, is_none: bool, problems: &mut Problems) -> Points {
    let Some(node) = table.get("weight") else {
        if !is_none {
            problems.push(
                Problem::error("missing-key", &table.place, "`weight` is missing")
                    .help("add `weight = 3`: 1 is a hint, 5 decides"),
            );
        }
        return 0;
    };
    if is_none {
        let title = "a rule with `affects = \"none\"` weighs nothing";
        problems.push(Problem::warning("useless-weight", &node.place, title).help("remove `weight`"));
        return 0;
    }
    let Some(number) = table.number("weight", problems) else { return 0 };
    points(number).unwrap_or_else(|| {
        let title = format!("`weight` is {number}; it must lie between 0.01 and {MAX_WEIGHT}");
        problems.push(
            Problem::error("out-of-range", &node.place, title)
                .help("weights are above 0; `affects` says for which side they count"),
        );
        0
    })
}

/// A weight as points, if it lies within the bounds.
pub(crate) fn points(number: f64) -> Option<Points> {
    #[expect(clippy::cast_possible_truncation, reason = "checked against the bounds")]
    (0.01..=MAX_WEIGHT).contains(&number).then(|| (number * 100.0).round() as Points)
}

fn read_fields(table: &Table, problems: &mut Problems) -> u8 {
    let Some(names) = table.texts("fields", problems) else {
        return Findings::bit(TextField::Summary) | Findings::bit(TextField::Description);
    };
    names.iter().fold(0, |fields, name| match TextField::from_name(&name.value) {
        Some(field) => fields | Findings::bit(field),
        None => {
            problems.push(unknown_value("fields", name, TextField::NAMES.iter().copied()));
            fields
        }
    })
}

/// Names of rules, made full: without a pack it is the rule's own.
fn read_names(pack: &str, table: &Table, key: &'static str, problems: &mut Problems) -> Vec<String> {
    let full = |name: Text| if name.value.contains('/') { name.value } else { format!("{pack}/{}", name.value) };
    table.texts(key, problems).unwrap_or_default().into_iter().map(full).collect()
}

/// Reads the phrases under a key.
pub(super) fn read_phrases(
    table: &Table,
    key: &'static str,
    lists: &impl Lists,
    problems: &mut Problems,
) -> Vec<WrittenPhrase> {
    let mut phrases = Vec::new();
    for text in table.texts(key, problems).unwrap_or_default() {
        match phrase::parse(&text.value, lists) {
            Ok(phrase) => phrases.push(WrittenPhrase { text, phrase }),
            Err(error) => {
                let title = format!("this is no phrase: {error}");
                problems.push(Problem::error("bad-phrase", &text.place, title).help(error.help()));
            }
        }
    }
    phrases
}

fn read_regexes(table: &Table, problems: &mut Problems) -> Vec<WrittenRegex> {
    let mut regexes = Vec::new();
    for text in table.texts("regex", problems).unwrap_or_default() {
        match GatedRegex::new(&text.value) {
            Ok(regex) => regexes.push(WrittenRegex { text, regex }),
            Err(error) => problems.push(regex_problem(&text, &error)),
        }
    }
    regexes
}

fn regex_problem(text: &Text, error: &RegexError) -> Problem {
    match error {
        RegexError::WithoutLiteral => {
            let title = "this regex has no text that every match must contain";
            Problem::error("regex-without-literal", &text.place, title)
                .help("it would run on every ticket; add a word or a rare sign that is always there, or write phrases")
        }
        RegexError::Syntax(message) => Problem::error("bad-regex", &text.place, format!("this is no regex: {message}"))
            .help("the syntax is that of https://docs.rs/regex; write it in single quotes"),
        RegexError::Size(message) => {
            Problem::error("bad-regex", &text.place, format!("this regex cannot be compiled: {message}"))
                .help("use smaller repetition counts, or ASCII classes such as [0-9]")
        }
    }
}

fn read_when(table: &Table, problems: &mut Problems) -> Vec<Condition> {
    let Some(when) = table.table("when", problems) else { return Vec::new() };
    let mut conditions = Vec::new();
    for (key, name) in Key::ALL.iter().zip(Key::NAMES) {
        let Some(values) = when.texts(name, problems) else { continue };
        values.iter().for_each(|value| check_value(*key, value, problems));
        if values.is_empty() {
            let title = format!("`{name}` accepts nothing, so the rule never counts");
            problems.push(Problem::error("empty-condition", &when.place, title).help("list at least one value"));
        }
        conditions.push(Condition::new(*key, values.into_iter().map(|value| value.value).collect()));
    }
    when.finish(problems);
    conditions
}

/// Kinds and states are closed sets, so a value outside is a mistake.
fn check_value(key: Key, value: &Text, problems: &mut Problems) {
    let known = match key {
        Key::Kind => Kind::NAMES,
        Key::State => State::NAMES,
        _ => return,
    };
    let folded = value.value.trim().to_lowercase();
    if !known.contains(&folded.as_str()) {
        problems.push(unknown_value(key.as_str(), value, known.iter().copied()));
    }
}
