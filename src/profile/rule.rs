//! How a value in a document becomes a kind, a state, a tag or a yes: tables of names, asked in order.

use hashbrown::HashMap;

use crate::envelope::path::fold;
use crate::envelope::trie::PathId;
use crate::ticket::Kind;

/// Names and what they mean. Names compare in lower case with `_` for white space; one `*` at either end is "anything".
#[derive(Clone, Debug)]
pub struct Names<T> {
    exact: HashMap<String, T>,
    patterns: Vec<(Pattern, T)>,
}

#[derive(Clone, Debug)]
enum Pattern {
    Starts(String),
    Ends(String),
    Contains(String),
}

impl Pattern {
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Starts(part) => name.starts_with(part.as_str()),
            Self::Ends(part) => name.ends_with(part.as_str()),
            Self::Contains(part) => name.contains(part.as_str()),
        }
    }
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), patterns: Vec::new() }
    }
}

impl<T: Copy> Names<T> {
    /// Adds a name or pattern; one added later wins over the same name added earlier.
    pub fn insert(&mut self, name: &str, meaning: T) {
        let name = fold(name);
        match (name.strip_prefix('*'), name.strip_suffix('*')) {
            (Some(_), Some(_)) => {
                self.patterns.push((Pattern::Contains(name.trim_matches('*').to_owned()), meaning));
            }
            (Some(end), None) => self.patterns.push((Pattern::Ends(end.to_owned()), meaning)),
            (None, Some(start)) => self.patterns.push((Pattern::Starts(start.to_owned()), meaning)),
            (None, None) => {
                self.exact.insert(name.into_owned(), meaning);
            }
        }
    }

    /// What a name means: an exact entry first, then the first pattern that fits.
    pub fn get(&self, name: &str) -> Option<T> {
        self.get_folded(&fold(name))
    }

    fn get_folded(&self, name: &str) -> Option<T> {
        let by_pattern = || self.patterns.iter().find(|(pattern, _)| pattern.matches(name)).map(|(_, t)| *t);
        self.exact.get(name).copied().or_else(by_pattern)
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.patterns.is_empty()
    }
}

/// One rule; the first rule of a list that says something decides.
#[derive(Clone, Debug)]
pub struct Rule<T> {
    /// Where to look; the first path with a known value decides.
    pub paths: Vec<PathId>,
    /// What the values mean.
    pub values: Names<T>,
    /// What they mean in one table or kind of ticket, which comes before [`Rule::values`].
    pub tables: Vec<(String, Names<T>)>,
    /// What it means that any of the paths has a value at all.
    pub present: Option<T>,
    /// The kinds of ticket that the rule is for; empty is all.
    pub kinds: Vec<Kind>,
    /// The rule is silent if any of these has a value.
    pub unless: Vec<PathId>,
}

impl<T: Copy> Rule<T> {
    /// What a value means in a table of a kind.
    pub fn meaning(&self, value: &str, table: Option<&str>, kind: Option<Kind>) -> Option<T> {
        let names = [table, kind.map(Kind::as_str)].into_iter().flatten();
        let own = names.filter_map(|name| self.tables.iter().find(|(n, _)| n == name)).map(|(_, names)| names);
        let value = fold(value);
        own.chain([&self.values]).find_map(|names| names.get_folded(&value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_without_case_and_by_pattern() {
        let mut names = Names::default();
        for (name, meaning) in [("On Hold", 1), ("awaiting*", 2), ("*bot", 3), ("*integration*", 4), ("3", 5)] {
            names.insert(name, meaning);
        }
        for (text, meaning) in [
            ("on hold", Some(1)),
            ("Awaiting User Info", Some(2)),
            ("deploy-bot", Some(3)),
            ("svc.Integration.eu", Some(4)),
            ("3", Some(5)),
            ("30", None),
            ("", None),
        ] {
            assert_eq!(names.get(text), meaning, "{text}");
        }
    }
}
