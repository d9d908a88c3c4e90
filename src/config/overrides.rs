//! What is laid over the file: environment variables, and over those `--set`.

use crate::diagnostic::{Place, Problem, Problems};
use crate::document::{self, Node, Table, Value};

/// Environment variables with this prefix and a `__` between section and key override the file.
pub const ENV_PREFIX: &str = "CUSTOMER_REACH_";

/// What overrides the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Environment variables.
    pub environment: Vec<(String, String)>,
    /// `--set key=value`, in order.
    pub set: Vec<String>,
}

impl Overrides {
    /// `--set` options over the variables of this process.
    pub fn from_process(set: Vec<String>) -> Self {
        Self { environment: std::env::vars().collect(), set }
    }

    /// Lays them over the table of the file.
    pub(super) fn apply(&self, table: &mut Table, problems: &mut Problems) {
        for (name, value) in &self.environment {
            if let Some(rest) = name.strip_prefix(ENV_PREFIX)
                && rest.contains("__")
            {
                set(
                    table,
                    &environment_path(rest),
                    value,
                    &Place::Named(format!("environment variable {name}")),
                    problems,
                );
            }
        }
        for option in &self.set {
            let place = Place::Named(format!("--set {}", option.split('=').next().unwrap_or_default()));
            match option.split_once('=') {
                Some((key, value)) => set(table, &dotted(key), value, &place, problems),
                None => problems
                    .push(Problem::error("bad-option", &place, "has no value").help("write `--set section.key=value`")),
            }
        }
    }
}

/// `KAFKA__BROKERS` → kafka, brokers; below librdkafka `_` stands for the dot.
fn environment_path(rest: &str) -> Vec<String> {
    let mut path: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
    if path.first().is_some_and(|s| s == "kafka") && path.get(1).is_some_and(|s| s == "librdkafka") {
        path.iter_mut().skip(2).for_each(|key| *key = key.replace('_', "."));
    }
    path
}

/// `a.b.c` → a, b, c; all below `kafka.librdkafka.` is one key.
fn dotted(key: &str) -> Vec<String> {
    match key.trim().strip_prefix("kafka.librdkafka.") {
        Some(property) => vec!["kafka".into(), "librdkafka".into(), property.trim_matches('"').into()],
        None => key.trim().split('.').map(str::to_owned).collect(),
    }
}

fn set(table: &mut Table, path: &[String], value: &str, place: &Place, problems: &mut Problems) {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let node = Node { value: parse_value(value), place: place.clone() };
    if let Err(reason) = table.set(&path, node) {
        problems.push(Problem::error("bad-option", place, reason));
    }
}

/// A value as TOML would read it; anything else is text.
fn parse_value(value: &str) -> Value {
    let mut problems = Problems::new();
    let table = document::parse("", &format!("value = {value}"), &mut problems);
    match table.get("value") {
        Some(node) if problems.is_empty() => node.value.clone(),
        _ => Value::Text(value.to_owned()),
    }
}
