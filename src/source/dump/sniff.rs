//! What a dump is, by its first bytes.

use std::fmt;

use super::{LOOK_AHEAD, Rows};

/// The formats of dumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A table with a line of headings; comma, semicolon or tab.
    Csv,
    /// A JSON object on each line.
    Ndjson,
    /// A JSON list, an object that wraps one, or objects one after the other.
    Json,
}

impl Format {
    /// The names for the command line, in the order of the documentation.
    pub const NAMES: &'static [&'static str] = &["csv", "ndjson", "json"];

    /// The format of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "csv" => Some(Self::Csv),
            "ndjson" => Some(Self::Ndjson),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// How the bytes of a table stand for characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8, seen in use; what is not UTF-8 is broken.
    Utf8,
    /// Only ASCII so far; the first row that is not UTF-8 decides for windows-1252.
    Ascii,
    /// windows-1252, which holds Latin-1.
    Windows1252,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sniffed {
    pub format: Format,
    pub encoding: Encoding,
    pub delimiter: u8,
}

impl Sniffed {
    /// Looks at the beginning of a dump, without byte order mark.
    pub fn of(head: &[u8], format: Option<Format>) -> Self {
        Self {
            format: format.unwrap_or_else(|| format_of(head)),
            encoding: encoding_of(head),
            delimiter: delimiter_of(head),
        }
    }
}

impl fmt::Display for Sniffed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.format {
            Format::Ndjson => return f.write_str("NDJSON"),
            Format::Json => return f.write_str("JSON"),
            Format::Csv => {}
        }
        let encoding = match self.encoding {
            Encoding::Utf8 | Encoding::Ascii => "UTF-8",
            Encoding::Windows1252 => "windows-1252",
        };
        let delimiter = match self.delimiter {
            b';' => "semicolons",
            b'\t' => "tabs",
            _ => "commas",
        };
        write!(f, "CSV, {encoding}, {delimiter}")
    }
}

fn format_of(head: &[u8]) -> Format {
    let start = head.iter().position(|b| !b.is_ascii_whitespace()).unwrap_or(head.len());
    let text = &head[start..];
    match text.first() {
        Some(b'[') => Format::Json,
        Some(b'{') => format_of_object(text),
        _ => Format::Csv,
    }
}

/// Lines that are whole objects are NDJSON, unless the only one wraps a list.
fn format_of_object(text: &[u8]) -> Format {
    let line = text.split(|b| *b == b'\n').next().unwrap_or_default();
    let whole = serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok();
    let only = text.get(line.len()..).unwrap_or_default().iter().all(u8::is_ascii_whitespace);
    match (whole, only) {
        (true, false) => Format::Ndjson,
        (true, true) if !super::json::wraps_list(line) => Format::Ndjson,
        (false, true) if !super::json::wraps_list(line) => Format::Ndjson,
        _ => Format::Json,
    }
}

fn encoding_of(head: &[u8]) -> Encoding {
    match std::str::from_utf8(head) {
        Ok(text) if text.is_ascii() => Encoding::Ascii,
        Ok(_) => Encoding::Utf8,
        // Cut in the middle of a character by the look-ahead.
        Err(error) if error.error_len().is_none() && head.len() + 3 >= LOOK_AHEAD => Encoding::Utf8,
        Err(_) => Encoding::Windows1252,
    }
}

/// The delimiter that stands most often in the line of headings, outside quotes.
fn delimiter_of(head: &[u8]) -> u8 {
    let mut counts = [(b',', 0), (b';', 0), (b'\t', 0)];
    let mut quoted = false;
    for byte in head {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' if !quoted => break,
            _ if quoted => {}
            _ => counts.iter_mut().filter(|(delimiter, _)| delimiter == byte).for_each(|(_, count)| *count += 1),
        }
    }
    counts.iter().rev().max_by_key(|(_, count)| *count).map_or(b',', |(delimiter, _)| *delimiter)
}

/// The profile that the headings, or the keys of the first object, look like.
pub fn profile(head: &[u8], rows: &Rows) -> &'static str {
    let by_headings = |names: &[&str]| match rows {
        Rows::Table(table) => names.iter().all(|name| table.has_heading(name)),
        _ => {
            let first = head.get(..head.len().min(32 * 1024)).unwrap_or_default();
            names.iter().all(|name| contains(first, format!("\"{name}\"").as_bytes()))
        }
    };
    const SIGNS: [(&str, &[&str]); 11] = [
        ("servicenow", &["sys_id"]),
        ("servicenow", &["number", "sys_mod_count"]),
        ("servicenow", &["Number", "Short description"]),
        ("servicenow", &["Number", "Assignment group"]),
        ("jira", &["webhookEvent"]),
        ("jira", &["fields", "issuetype"]),
        ("jira", &["Issue key"]),
        ("zendesk", &["zendesk_event_version"]),
        ("zendesk", &["requester_id", "via"]),
        ("zendesk", &["requester_id", "brand_id"]),
        ("zendesk", &["ticket_form_id"]),
    ];
    SIGNS.iter().find(|(_, names)| by_headings(names)).map_or("generic", |(profile, _)| profile)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
