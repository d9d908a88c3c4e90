//! Unwraps what transports put around a vendor's document, without knowing any vendor.
//!
//! [`open`] takes the bytes of a record and shows each document inside to a callback, with the [`Facts`] that travelled
//! on the envelope: Kafka Connect, Debezium (also flattened), CloudEvents in both modes, and lists under the usual names.
//! Envelopes nest. A document without an envelope is parsed exactly once.

pub mod cell;
pub mod mark;
pub mod path;
pub mod trie;

mod bytes;

use compact_str::CompactString;
use serde_json::value::RawValue;

use crate::outcome::{Reason, Refusal};
use crate::record::Record;
use mark::{Mark, Marks};
use trie::{Document, PathId, Trie};

/// How many envelopes may lie in each other; three are known to occur (CloudEvents around Connect around Debezium).
const MAX_DEPTH: usize = 6;

/// What the envelope knows about a document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The vendor's table that the row belongs to.
    pub table: Option<CompactString>,
    /// The row was deleted.
    pub deleted: bool,
    /// When the change was made, in milliseconds since 1970.
    pub time: Option<i64>,
}

impl Facts {
    fn of(record: &Record) -> Self {
        let text = |name| record.header(name).and_then(|value| std::str::from_utf8(value).ok());
        let time = text("ce_time").and_then(|time| time.parse::<jiff::Timestamp>().ok());
        Self {
            table: text("snow.table").map(CompactString::from),
            deleted: false,
            time: time.map(jiff::Timestamp::as_millisecond),
        }
    }
}

/// What is shown each document, with its facts.
pub type Visit<'v> = dyn FnMut(&Document<'_>, &Facts) -> Result<(), Refusal> + 'v;

/// The paths of a profile, and which of them tell that a document is a ticket rather than a wrapper.
#[derive(Debug)]
pub struct Wanted {
    /// The paths.
    pub trie: Trie,
    /// Where a ticket's identity stands.
    pub identity: Vec<PathId>,
}

impl Wanted {
    fn has_identity(&self, document: &Document<'_>) -> bool {
        self.identity.iter().any(|path| self.trie.get(document, *path).is_some())
    }
}

/// Shows every document in a record to `visit`. The answer says why there was none, where that is by design.
///
/// # Errors
/// When the bytes are no JSON, when an envelope is broken, when the vendor says that the operation failed, and whatever
/// `visit` refuses. Documents shown before that do not count either: a record is taken whole or not at all.
pub fn open(record: &Record, wanted: &Wanted, visit: &mut Visit<'_>) -> Result<Option<&'static str>, Refusal> {
    if record.partition.topic.starts_with("__debezium-heartbeat") {
        return Ok(Some("a heartbeat"));
    }
    let Some(value) = &record.value else { return Ok(Some("a tombstone")) };
    let text = bytes::text(value)?;
    let mut opener = Opener { wanted, visit, ignored: None };
    match bytes::content_type(record) {
        bytes::ContentType::CloudEvent => opener.cloud_event(text, Facts::of(record), 0)?,
        bytes::ContentType::Unreadable(format) => {
            return Err(Refusal::new(Reason::Undecodable, format!("content type {format}: only JSON can be read")));
        }
        bytes::ContentType::Json => opener.value(text, Facts::of(record), 0)?,
    }
    Ok(opener.ignored)
}

struct Opener<'w, 'v, 'f> {
    wanted: &'w Wanted,
    visit: &'v mut Visit<'f>,
    ignored: Option<&'static str>,
}

impl Opener<'_, '_, '_> {
    fn ignore(&mut self, why: &'static str) -> Result<(), Refusal> {
        self.ignored = Some(why);
        Ok(())
    }

    /// An object, or a list of them.
    fn value(&mut self, text: &str, facts: Facts, depth: usize) -> Result<(), Refusal> {
        if depth > MAX_DEPTH {
            return Err(Refusal::new(Reason::BadEnvelope, format!("more than {MAX_DEPTH} envelopes in each other")));
        }
        match text.trim_start().as_bytes().first() {
            Some(b'[') => self.list(text, &facts, depth),
            Some(b'n') if text.trim() == "null" => self.ignore("an empty payload"),
            _ => self.object(text, facts, depth),
        }
    }

    fn list(&mut self, text: &str, facts: &Facts, depth: usize) -> Result<(), Refusal> {
        let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|e| undecodable(None, &e))?;
        if items.is_empty() {
            return self.ignore("an empty list");
        }
        for (number, item) in items.iter().enumerate() {
            self.value(item.get(), facts.clone(), depth + 1).map_err(|refusal| {
                let place = format!("element {} of {}: {}", number + 1, items.len(), refusal.detail);
                Refusal::new(refusal.reason, place)
            })?;
        }
        Ok(())
    }

    fn object(&mut self, text: &str, facts: Facts, depth: usize) -> Result<(), Refusal> {
        let trie = &self.wanted.trie;
        let mut document = trie.document();
        let mut marks = Marks::default();
        if let Err(error) = trie.read(text, &mut document, &mut marks) {
            return Err(undecodable(trie.field(&document), &error));
        }
        if !marks.any() {
            return (self.visit)(&document, &facts);
        }
        if self.transport(&marks, &facts, depth)? {
            return Ok(());
        }
        if let Err(error) = trie.read_marked(&mut document, &marks) {
            return Err(undecodable(trie.field(&document), &error));
        }
        if !self.wanted.has_identity(&document) && self.wrapper(&marks, &facts, depth)? {
            return Ok(());
        }
        (self.visit)(&document, &flattened(&marks, facts))
    }

    /// Opens the envelope of a transport, if the document is one.
    fn transport(&mut self, marks: &Marks<'_>, facts: &Facts, depth: usize) -> Result<bool, Refusal> {
        if marks.text(Mark::RowStatus) == Some("failure") {
            return Err(Refusal::new(Reason::VendorError, "the vendor marks the row as failed: `__status`"));
        }
        if marks.keys == 2 && marks.has(Mark::Schema) && marks.has(Mark::Payload) {
            return self.inner(marks.raw(Mark::Payload), facts.clone(), depth);
        }
        if is_cloud_event(marks) {
            return self.open_cloud_event(marks, facts, depth).map(|()| true);
        }
        if let Some(operation) = debezium_operation(marks) {
            return self.debezium(operation, marks, facts, depth).map(|()| true);
        }
        if marks.keys == 1 && marks.has(Mark::TimeMs) || marks.has(Mark::TableChanges) {
            return self.ignore("a heartbeat or a change of a schema").map(|()| true);
        }
        Ok(false)
    }

    fn inner(&mut self, raw: Option<&str>, facts: Facts, depth: usize) -> Result<bool, Refusal> {
        match raw {
            None | Some("null") => self.ignore("an empty payload")?,
            Some(inner) => self.value(inner, facts, depth + 1)?,
        }
        Ok(true)
    }

    /// Opens a wrapper with a usual name, if the document has no identity of its own.
    fn wrapper(&mut self, marks: &Marks<'_>, facts: &Facts, depth: usize) -> Result<bool, Refusal> {
        const LISTS: [Mark; 5] = [Mark::Result, Mark::Records, Mark::Tickets, Mark::Issues, Mark::Entries];
        if let Some(list) = LISTS.iter().find_map(|mark| marks.list(*mark)) {
            return self.inner(Some(list), facts.clone(), depth);
        }
        if let Some(row) = [Mark::Result, Mark::Values].iter().find_map(|mark| marks.object(*mark)) {
            return self.inner(Some(row), facts.clone(), depth);
        }
        if marks.object(Mark::Error).is_some() {
            return Err(Refusal::new(Reason::VendorError, "the vendor's answer is an `error`, not a ticket"));
        }
        Ok(false)
    }

    /// A text that the headers announce as a CloudEvent, or a batch of them.
    fn cloud_event(&mut self, text: &str, facts: Facts, depth: usize) -> Result<(), Refusal> {
        if text.trim_start().starts_with('[') {
            return self.list(text, &facts, depth);
        }
        let (mut document, mut marks) = (self.wanted.trie.document(), Marks::default());
        self.wanted.trie.read(text, &mut document, &mut marks).map_err(|e| undecodable(None, &e))?;
        if !marks.has(Mark::SpecVersion) {
            let what = "the content type announces a CloudEvent, but `specversion` is missing";
            return Err(Refusal::new(Reason::BadEnvelope, what));
        }
        self.open_cloud_event(&marks, &facts, depth)
    }

    fn open_cloud_event(&mut self, marks: &Marks<'_>, facts: &Facts, depth: usize) -> Result<(), Refusal> {
        let time = marks.text(Mark::Time).and_then(|time| time.parse::<jiff::Timestamp>().ok());
        let time = time.map(jiff::Timestamp::as_millisecond).or(facts.time);
        let facts = Facts { time, ..facts.clone() };
        if let Some(encoded) = marks.raw(Mark::DataBase64) {
            let bytes = bytes::base64(encoded)?;
            return self.value(bytes::text(&bytes)?, facts, depth + 1);
        }
        match marks.raw(Mark::Data) {
            None | Some("null") => self.ignore("a CloudEvent without data"),
            Some(text) if text.starts_with('"') => {
                let inner: String = serde_json::from_str(text).map_err(|e| undecodable(Some("data"), &e))?;
                self.value(&inner, facts, depth + 1)
            }
            Some(inner) => self.value(inner, facts, depth + 1),
        }
    }

    fn debezium(&mut self, operation: u8, marks: &Marks<'_>, facts: &Facts, depth: usize) -> Result<(), Refusal> {
        let mut facts = source_facts(marks, facts);
        let row = match operation {
            b't' | b'm' => return self.ignore("a truncation or message of the database"),
            b'd' => {
                facts.deleted = true;
                marks.object(Mark::Before)
            }
            _ => marks.object(Mark::After),
        };
        match row {
            Some(row) => self.value(row, facts, depth + 1),
            None if operation == b'd' => self.ignore("a deletion without its row"),
            None => Err(Refusal::new(Reason::BadEnvelope, "a Debezium change whose `after` is no row")),
        }
    }
}

fn is_cloud_event(marks: &Marks<'_>) -> bool {
    [Mark::SpecVersion, Mark::Source, Mark::Id, Mark::Type].iter().all(|mark| marks.has(*mark))
}

/// The operation of a Debezium change, if the document is one.
fn debezium_operation(marks: &Marks<'_>) -> Option<u8> {
    let rows = marks.has(Mark::Before) || marks.has(Mark::After);
    match marks.text(Mark::Op)?.as_bytes() {
        [op @ (b'c' | b'u' | b'r' | b'd' | b't')] if rows || marks.has(Mark::Source) => Some(*op),
        [b'm'] if marks.has(Mark::Source) => Some(b'm'),
        _ => None,
    }
}

/// What Debezium's `source` says, over what was known.
fn source_facts(marks: &Marks<'_>, facts: &Facts) -> Facts {
    #[derive(Default, serde::Deserialize)]
    struct Source {
        table: Option<CompactString>,
        collection: Option<CompactString>,
        ts_ms: Option<i64>,
    }
    let source: Source = marks.raw(Mark::Source).and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_default();
    let of_envelope = || marks.raw(Mark::TimeMs).and_then(|raw| raw.parse().ok());
    Facts {
        table: source.table.or(source.collection).or_else(|| facts.table.clone()),
        time: source.ts_ms.or_else(of_envelope).or(facts.time),
        deleted: facts.deleted,
    }
}

/// What a flattened Debezium row says of itself, over what was known.
fn flattened(marks: &Marks<'_>, facts: Facts) -> Facts {
    let deleted = matches!(marks.raw(Mark::FlatDeleted), Some("true" | "\"true\""));
    Facts {
        deleted: facts.deleted || deleted || marks.text(Mark::FlatOp) == Some("d"),
        table: marks.text(Mark::FlatTable).map(CompactString::from).or(facts.table),
        time: marks.raw(Mark::FlatTime).and_then(|raw| raw.parse().ok()).or(facts.time),
    }
}

/// A refusal that names the field being read and the place, and never shows the text.
fn undecodable(field: Option<&str>, error: &serde_json::Error) -> Refusal {
    let what = match error.classify() {
        serde_json::error::Category::Data => {
            format!("no JSON object at line {} column {}", error.line(), error.column())
        }
        _ => error.to_string(),
    };
    let field = field.map(|field| format!("field `{field}`: ")).unwrap_or_default();
    Refusal::new(Reason::Undecodable, format!("{field}{what}"))
}
