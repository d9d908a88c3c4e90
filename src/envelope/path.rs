//! Paths into documents: `fields.status.name`, `$.timestamp`, `custom_fields[id=360].value`.

use std::borrow::Cow;
use std::fmt;

use super::cell::Cell;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The key.
    pub name: String,
    /// Of a list of objects under the key, the one whose member (first) is that text (second).
    pub select: Option<(String, String)>,
}

impl Segment {
    /// What the step leads to from a cell. A step with an empty name only selects; of a list, the first element that
    /// has the key speaks.
    pub fn of<'c, 'a>(&self, cell: &'c Cell<'a>) -> Option<&'c Cell<'a>> {
        let found = match cell {
            _ if self.name.is_empty() => Some(cell),
            Cell::List(items) => items.iter().find_map(|item| item.member(&self.name)),
            _ => cell.member(&self.name),
        };
        match &self.select {
            None => found,
            Some((key, wanted)) => found.and_then(|found| select(found, key, wanted)),
        }
    }
}

fn select<'c, 'a>(cell: &'c Cell<'a>, key: &str, wanted: &str) -> Option<&'c Cell<'a>> {
    let Cell::List(items) = cell else { return None };
    items.iter().find(|item| item.member(key).and_then(Cell::scalar).is_some_and(|text| text == wanted))
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.segments.iter().map(|segment| segment.name.as_str()).collect();
        f.write_str(&names.join("."))
    }
}

/// A path from the root of the ticket, or with `$.` from the top of the document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// Whether it begins at the top of the document whatever root the ticket has.
    pub absolute: bool,
    /// The steps.
    pub segments: Vec<Segment>,
}

impl Path {
    /// Reads a path; `None` if a step is empty or a selection is not `[key=value]`.
    pub fn parse(text: &str) -> Option<Self> {
        let (absolute, rest) = text.strip_prefix("$.").map_or((false, text), |rest| (true, rest));
        let segments = rest.split('.').map(parse_segment).collect::<Option<_>>()?;
        Some(Self { absolute, segments })
    }

    /// A path of one step whose name is taken as it is, dots and all: the heading of a column.
    pub fn column(name: &str) -> Self {
        Self { absolute: true, segments: vec![Segment { name: name.to_owned(), select: None }] }
    }

    /// The path as seen from the top of a document whose ticket begins at `root`.
    #[must_use]
    pub fn under(&self, root: &Self) -> Self {
        if self.absolute {
            return self.clone();
        }
        Self { absolute: true, segments: root.segments.iter().chain(&self.segments).cloned().collect() }
    }

    /// The steps that a trie can take: up to and including the first that selects.
    pub fn in_trie(&self) -> &[Segment] {
        let end = self.segments.iter().position(|s| s.select.is_some()).map_or(self.segments.len(), |at| at + 1);
        &self.segments[..end]
    }

    /// What is left to do inside the cell of the step at `depth`.
    pub fn rest_after(&self, depth: usize) -> Vec<Segment> {
        let selection = self.segments[depth].select.clone();
        let selecting = selection.map(|select| Segment { name: String::new(), select: Some(select) });
        selecting.into_iter().chain(self.segments[depth + 1..].iter().cloned()).collect()
    }
}

fn parse_segment(text: &str) -> Option<Segment> {
    let Some((name, selection)) = text.split_once('[') else {
        return (!text.is_empty()).then(|| Segment { name: text.to_owned(), select: None });
    };
    let (key, value) = selection.strip_suffix(']')?.split_once('=')?;
    let usable = !name.is_empty() && !key.is_empty() && !value.is_empty();
    usable.then(|| Segment { name: name.to_owned(), select: Some((key.to_owned(), value.to_owned())) })
}

/// A name in the form in which names are compared: lower case, without zero-width spaces, `_` for white space.
pub fn fold(text: &str) -> Cow<'_, str> {
    let folded = |b: u8| b.is_ascii_graphic() && !b.is_ascii_uppercase();
    if text.bytes().all(folded) {
        return Cow::Borrowed(text);
    }
    let visible = text.replace('\u{200b}', "").to_lowercase();
    Cow::Owned(visible.split_whitespace().collect::<Vec<_>>().join("_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read() {
        let path = Path::parse("$.a.b[id=7].value").unwrap();
        assert!(path.absolute);
        assert_eq!(path.in_trie().len(), 2);
        assert_eq!(path.rest_after(1).len(), 2);
        for bad in ["", "a..b", "a[", "a[x]", "[id=1]", "a[id=].b", "$."] {
            assert_eq!(Path::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_are_folded() {
        for (text, folded) in [("Work  in Progress", "work_in_progress"), ("-5", "-5"), (" Open\u{200b}", "open")] {
            assert_eq!(fold(text), folded);
        }
    }
}
