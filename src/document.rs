//! A TOML file as people write it: a tree in which every key and value knows its place.
//!
//! Readers ask a [`Table`] for the keys they know; each question notes the key, and [`Table::finish`] reports every key
//! that nobody asked for, with the nearest known one. Nothing stops at the first problem.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Place, Problem, Problems, Source, closest};

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// What stands there.
    pub value: Value,
    /// Where it stands.
    pub place: Place,
}

/// A TOML value; dates are read as text.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// Text, also of a date.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// A list.
    Array(Vec<Node>),
    /// A table.
    Table(Table),
}

impl Value {
    /// What a reader would call it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Bool(_) => "true or false",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// Text with its place.
#[derive(Clone, Debug)]
pub struct Text {
    /// The text.
    pub value: String,
    /// Where it stands.
    pub place: Place,
}

/// A table: its keys in the order of the file, and which of them were asked for.
#[derive(Clone, Debug)]
pub struct Table {
    /// The table's own place: its header, or its braces.
    pub place: Place,
    entries: Vec<(Text, Node)>,
    asked: RefCell<Vec<&'static str>>,
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl Serialize for Table {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.entries.iter().map(|(key, node)| (&key.value, node)))
    }
}

/// Reads a TOML text into a tree. Syntax errors are added to `problems`; what could be read is returned all the same.
pub fn parse(path: &str, text: &str, problems: &mut Problems) -> Table {
    let source = Arc::new(Source { path: path.to_owned(), text: text.to_owned() });
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        problems.push(Problem::error("syntax", &Place::File(source.clone(), span), error.message()));
    }
    convert_table(&source, table.span(), table.get_ref())
}

fn convert_table(source: &Arc<Source>, span: Range<usize>, table: &DeTable<'_>) -> Table {
    let mut entries: Vec<(Text, Node)> = table
        .iter()
        .map(|(key, value)| {
            let place = Place::File(source.clone(), key.span());
            (Text { value: key.get_ref().to_string(), place }, convert(source, value.span(), value.get_ref()))
        })
        .collect();
    entries.sort_by_key(|(key, _)| match &key.place {
        Place::File(_, span) => span.start,
        Place::Named(_) => 0,
    });
    Table { place: Place::File(source.clone(), span), entries, asked: RefCell::default() }
}

fn convert(source: &Arc<Source>, span: Range<usize>, value: &DeValue<'_>) -> Node {
    let place = Place::File(source.clone(), span.clone());
    let value = match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::Text(number.as_str().to_owned()), Value::Integer),
        DeValue::Float(number) => {
            number.as_str().parse().map_or_else(|_| Value::Text(number.as_str().to_owned()), Value::Float)
        }
        DeValue::Boolean(yes) => Value::Bool(*yes),
        DeValue::Datetime(date) => Value::Text(date.to_string()),
        DeValue::Array(items) => {
            Value::Array(items.iter().map(|item| convert(source, item.span(), item.get_ref())).collect())
        }
        DeValue::Table(table) => Value::Table(convert_table(source, span, table)),
    };
    Node { value, place }
}

impl Table {
    /// An empty table that stands nowhere.
    pub fn empty(name: &str) -> Self {
        Self { place: Place::Named(name.to_owned()), entries: Vec::new(), asked: RefCell::default() }
    }

    /// Puts a value at a dotted path, making tables on the way; it replaces what stands there.
    ///
    /// # Errors
    /// When a step of the path is no table.
    pub fn set(&mut self, path: &[&str], node: Node) -> Result<(), String> {
        let [first, rest @ ..] = path else { return Err("the key is empty".to_owned()) };
        if let Some((_, held)) = self.entries.iter_mut().find(|(key, _)| key.value == *first) {
            return match (rest, &mut held.value) {
                ([], _) => {
                    *held = node;
                    Ok(())
                }
                (_, Value::Table(table)) => table.set(rest, node),
                (_, other) => Err(format!("`{first}` is {}, not a table", other.type_name())),
            };
        }
        let key = Text { value: (*first).to_owned(), place: node.place.clone() };
        let value = if rest.is_empty() {
            node
        } else {
            let mut table = Self { place: node.place.clone(), ..Self::empty("") };
            table.set(rest, node.clone())?;
            Node { place: node.place, value: Value::Table(table) }
        };
        self.entries.push((key, value));
        Ok(())
    }

    /// The value of a key, of any type.
    pub fn get(&self, key: &'static str) -> Option<&Node> {
        self.asked.borrow_mut().push(key);
        self.entries.iter().find(|(k, _)| k.value == key).map(|(_, node)| node)
    }

    /// All keys and values, for tables whose keys are names; marks the table as read.
    pub fn entries(&self) -> impl Iterator<Item = (&Text, &Node)> {
        self.asked.borrow_mut().push("*");
        self.entries.iter().map(|(key, node)| (key, node))
    }

    /// Text.
    pub fn text(&self, key: &'static str, problems: &mut Problems) -> Option<Text> {
        let node = self.get(key)?;
        text_of(node, key, problems)
    }

    /// Text that must be there.
    pub fn required_text(&self, key: &'static str, problems: &mut Problems) -> Option<Text> {
        if self.get(key).is_none() {
            problems.push(
                Problem::error("missing-key", &self.place, format!("`{key}` is missing"))
                    .help(format!("add `{key} = \"…\"` to this table")),
            );
        }
        self.text(key, problems)
    }

    /// A list of texts; a single text counts as a list of one.
    pub fn texts(&self, key: &'static str, problems: &mut Problems) -> Option<Vec<Text>> {
        texts_of(self.get(key)?, key, problems)
    }

    /// A whole number within bounds, both included.
    pub fn integer(
        &self,
        key: &'static str,
        bounds: std::ops::RangeInclusive<i64>,
        problems: &mut Problems,
    ) -> Option<i64> {
        let node = self.get(key)?;
        match node.value {
            Value::Integer(number) if bounds.contains(&number) => Some(number),
            Value::Integer(number) => {
                let limit = format!("`{key}` is {number}; it must lie between {} and {}", bounds.start(), bounds.end());
                problems.push(Problem::error("out-of-range", &node.place, limit));
                None
            }
            _ => wrong_type(node, key, "a whole number", problems),
        }
    }

    /// A number, with or without a fraction.
    pub fn number(&self, key: &'static str, problems: &mut Problems) -> Option<f64> {
        let node = self.get(key)?;
        match node.value {
            #[expect(clippy::cast_precision_loss, reason = "weights and margins are small")]
            Value::Integer(number) => Some(number as f64),
            Value::Float(number) => Some(number),
            _ => wrong_type(node, key, "a number", problems),
        }
    }

    /// `true` or `false`.
    pub fn bool(&self, key: &'static str, problems: &mut Problems) -> Option<bool> {
        let node = self.get(key)?;
        match node.value {
            Value::Bool(yes) => Some(yes),
            _ => wrong_type(node, key, "true or false", problems),
        }
    }

    /// A length of time, written as `"250ms"`, `"60s"`, `"2h"` or `"90d"`; a day has 24 hours.
    pub fn duration(&self, key: &'static str, problems: &mut Problems) -> Option<Duration> {
        let text = self.text(key, problems)?;
        let duration = parse_duration(&text.value);
        if duration.is_none() {
            problems.push(
                Problem::error("bad-duration", &text.place, format!("`{}` is not a length of time", text.value))
                    .help("write a whole number and a unit: `250ms`, `60s`, `15m`, `2h`, `90d`"),
            );
        }
        duration
    }

    /// A table below this one.
    pub fn table(&self, key: &'static str, problems: &mut Problems) -> Option<&Self> {
        let node = self.get(key)?;
        match &node.value {
            Value::Table(table) => Some(table),
            _ => wrong_type(node, key, "a table", problems),
        }
    }

    /// The tables of `[[key]]`.
    pub fn tables(&self, key: &'static str, problems: &mut Problems) -> Vec<&Self> {
        let Some(node) = self.get(key) else { return Vec::new() };
        let Value::Array(items) = &node.value else {
            wrong_type::<()>(node, key, &format!("a list of tables: `[[{key}]]`"), problems);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in items {
            match &item.value {
                Value::Table(table) => tables.push(table),
                _ => {
                    wrong_type::<()>(item, key, "a table", problems);
                }
            }
        }
        tables
    }

    /// Reports every key that was not asked for.
    pub fn finish(&self, problems: &mut Problems) {
        let asked = self.asked.borrow();
        if asked.contains(&"*") {
            return;
        }
        for (key, _) in self.entries.iter().filter(|(key, _)| !asked.contains(&key.value.as_str())) {
            let help = match closest(&key.value, asked.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    let mut known = asked.clone();
                    known.sort_unstable();
                    known.dedup();
                    format!("known here: {}", known.join(", "))
                }
            };
            problems.push(Problem::error("unknown-key", &key.place, format!("unknown key `{}`", key.value)).help(help));
        }
    }
}

/// The texts of a node; a single text counts as a list of one.
pub fn texts_of(node: &Node, key: &str, problems: &mut Problems) -> Option<Vec<Text>> {
    match &node.value {
        Value::Array(items) => Some(items.iter().filter_map(|item| text_of(item, key, problems)).collect()),
        _ => Some(text_of(node, key, problems).into_iter().collect()),
    }
}

/// The text of a node, or a problem.
pub fn text_of(node: &Node, key: &str, problems: &mut Problems) -> Option<Text> {
    match &node.value {
        Value::Text(value) => Some(Text { value: value.clone(), place: node.place.clone() }),
        _ => wrong_type(node, key, "text", problems),
    }
}

fn wrong_type<T>(node: &Node, key: &str, wanted: &str, problems: &mut Problems) -> Option<T> {
    let title = format!("`{key}` must be {wanted}, but is {}", node.value.type_name());
    problems.push(Problem::error("wrong-type", &node.place, title));
    None
}

/// A whole number and a unit of `ms`, `s`, `m`, `h`, `d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.trim().find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.trim().split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit.trim() {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        "h" => Some(Duration::from_secs(number.checked_mul(3600)?)),
        "d" => Some(Duration::from_secs(number.checked_mul(86_400)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_of_a_file_are_found_in_one_run() {
        let mut problems = Problems::new();
        let table = parse("x.toml", "brokes = \"a\"\ngroup = 3\nlinger = \"soon\"\n", &mut problems);
        table.text("brokers", &mut problems);
        table.text("group", &mut problems);
        table.duration("linger", &mut problems);
        table.finish(&mut problems);
        let places: Vec<_> = problems.iter().map(|p| (p.code, p.place.to_string())).collect();
        assert_eq!(
            places,
            [
                ("wrong-type", "x.toml:2:9".to_owned()),
                ("bad-duration", "x.toml:3:10".to_owned()),
                ("unknown-key", "x.toml:1:1".to_owned())
            ]
        );
        assert!(problems.to_string().contains("did you mean `brokers`?"), "{problems}");
    }

    #[test]
    fn durations() {
        for (text, millis) in [("250ms", 250), ("60s", 60_000), ("15m", 900_000), ("2h", 7_200_000), ("1d", 86_400_000)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "1.5h", "99999999999999999999s", "3 weeks"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
