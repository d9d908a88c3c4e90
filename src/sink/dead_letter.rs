//! Refused records: their original bytes, where they came from, and why.
//!
//! They are written with their position, or before it, so none is lost; in a file, or in a topic beside a journal that is
//! one, the same may be there twice after a crash, with the same topic, partition and offset.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::producer::Outgoing;
use crate::outcome::Refusal;
use crate::record::{Partition, Record};

/// The name of the file of dead letters beside a journal.
pub const DEAD_LETTERS: &str = "dead-letters.ndjson";

/// What the names of our own headers begin with.
pub const HEADERS: &str = "customer-reach.";
/// Of a dead letter without its record, the bytes that are left out.
const CUT: &str = "customer-reach.left-out-bytes";

/// Where a record stood first: a keyed copy says so in its headers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The partition of the input.
    pub partition: Partition,
    /// The offset there.
    pub offset: i64,
}

impl Origin {
    /// Where the record says that it stood, else where it stands.
    pub fn of(record: &Record) -> Self {
        Self::written(record).unwrap_or_else(|| Self { partition: record.partition.clone(), offset: record.offset })
    }

    /// Where the record says that it stood.
    pub fn written(record: &Record) -> Option<Self> {
        let text = |name| std::str::from_utf8(record.header(&format!("{HEADERS}{name}"))?).ok();
        let partition = Partition { topic: text("topic")?.into(), number: text("partition")?.parse().ok()? };
        Some(Self { partition, offset: text("offset")?.parse().ok()? })
    }

    fn headers(&self) -> [(String, Vec<u8>); 3] {
        [
            ("topic", self.partition.topic.to_string()),
            ("partition", self.partition.number.to_string()),
            ("offset", self.offset.to_string()),
        ]
        .map(|(name, value)| (format!("{HEADERS}{name}"), value.into_bytes()))
    }
}

/// The headers that are not our own.
pub fn foreign_headers(record: &Record) -> impl Iterator<Item = &(String, Vec<u8>)> {
    record.headers.iter().filter(|(name, _)| !name.starts_with(HEADERS))
}

/// A record as it goes to the partition of its ticket, with where it stood.
pub fn copy_of(record: &Record, topic: &Arc<str>, partition: i32) -> Outgoing {
    Outgoing {
        topic: topic.clone(),
        partition: Some(partition),
        timestamp: record.timestamp,
        key: record.key.clone(),
        value: record.value.clone(),
        headers: foreign_headers(record).cloned().chain(Origin::of(record).headers()).collect(),
    }
}

/// Leaves of a dead letter what its topic takes: where the record stands, why it was refused, and how large it is.
pub fn cut(letter: &mut Outgoing) {
    letter.headers.retain(|(name, _)| name.starts_with(HEADERS));
    letter.headers.push((CUT.to_owned(), letter.length().to_string().into_bytes()));
    (letter.key, letter.value) = (None, None);
}

/// Whether a dead letter is without its record, which was larger than its topic takes.
pub fn is_cut(letter: &Record) -> bool {
    letter.header(CUT).is_some()
}

/// A record with the reason for its refusal.
#[derive(Debug)]
pub struct DeadLetter {
    /// The record as it came.
    pub record: Record,
    /// Why it was refused.
    pub refusal: Refusal,
    /// The profile that should have mapped it.
    pub profile: String,
}

/// Where refused records go.
#[derive(Debug)]
pub enum DeadLetters {
    /// A topic; they go out with all else.
    Topic(Arc<str>),
    /// A file of JSON lines.
    File(File),
    /// A file that is made with the first of them.
    NewFile(PathBuf),
}

/// The file did not take them.
#[derive(Debug, thiserror::Error)]
#[error("dead letters cannot be written: {0}")]
pub struct DeadLetterError(#[from] std::io::Error);

impl DeadLetters {
    /// Appends to a file, which is made if need be.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn file(path: &Path) -> std::io::Result<Self> {
        Ok(Self::File(File::options().create(true).read(true).append(true).open(path)?))
    }

    /// Begins a new file; it is only made when there is something to write.
    ///
    /// # Errors
    /// When an old one cannot be removed.
    pub fn create(path: &Path) -> std::io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(Self::NewFile(path.to_owned())),
        }
    }

    /// Writes letters into the file; they are safe when this returns.
    ///
    /// # Errors
    /// When they could not all be written; none of them stands in the file then, as far as that can be had.
    pub fn write(&mut self, letters: &[DeadLetter]) -> Result<(), DeadLetterError> {
        if letters.is_empty() {
            return Ok(());
        }
        if let Self::NewFile(path) = self {
            *self = Self::file(path)?;
        }
        match self {
            Self::NewFile(_) | Self::Topic(_) => Ok(()),
            Self::File(file) => Ok(append(file, letters)?),
        }
    }
}

/// Appends letters, each on a line of its own, also behind what a process that was killed has left of a line.
fn append(file: &mut File, letters: &[DeadLetter]) -> std::io::Result<()> {
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)?;
    }
    let mut text = if last == *b"\n" { String::new() } else { "\n".to_owned() };
    text.extend(letters.iter().map(|letter| format!("{}\n", letter.to_json())));
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
    if written.is_err()
        && let Err(error) = file.set_len(length)
    {
        tracing::warn!(%error, "dead letters that were not wholly written stay in their file");
    }
    written
}

impl DeadLetter {
    /// Key and value as they came, the headers that came, and where from and why in headers of our own.
    pub fn outgoing(&self, topic: &Arc<str>) -> Outgoing {
        let Record { timestamp, key, value, .. } = &self.record;
        let origin = Origin::of(&self.record);
        let mut headers: Vec<_> = foreign_headers(&self.record).cloned().collect();
        let facts = [
            ("topic", origin.partition.topic.to_string()),
            ("partition", origin.partition.number.to_string()),
            ("offset", origin.offset.to_string()),
            ("timestamp", timestamp.map_or(String::new(), |t| t.to_string())),
            ("reason", self.refusal.reason.as_str().to_owned()),
            ("error", self.refusal.detail.clone()),
            ("profile", self.profile.clone()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        let backtrace = self.refusal.backtrace.clone().map(|backtrace| ("backtrace", backtrace));
        let facts = facts.into_iter().chain(backtrace);
        headers.extend(facts.map(|(name, value)| (format!("{HEADERS}{name}"), value.into_bytes())));
        let (topic, partition, timestamp) = (topic.clone(), None, None);
        Outgoing { topic, partition, timestamp, key: key.clone(), value: value.clone(), headers }
    }

    /// The same as one JSON object; bytes that are no text as base64 under `…_base64`.
    fn to_json(&self) -> serde_json::Value {
        let Record { timestamp, key, value, .. } = &self.record;
        let Origin { partition, offset } = Origin::of(&self.record);
        let mut line = json!({
            "topic": &*partition.topic,
            "partition": partition.number,
            "offset": offset,
            "timestamp": timestamp,
            "reason": self.refusal.reason.as_str(),
            "error": self.refusal.detail,
            "profile": self.profile,
            "version": env!("CARGO_PKG_VERSION"),
        });
        if let Some(backtrace) = &self.refusal.backtrace {
            line["backtrace"] = json!(backtrace);
        }
        for (name, bytes) in [("key", key), ("value", value)] {
            let Some(bytes) = bytes else { continue };
            match std::str::from_utf8(bytes) {
                Ok(text) => line[name] = json!(text),
                Err(_) => line[format!("{name}_base64")] = json!(STANDARD.encode(bytes)),
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Reason;

    fn letter(value: &[u8]) -> DeadLetter {
        DeadLetter {
            record: Record {
                partition: Partition { topic: "t".into(), number: 2 },
                offset: 7,
                timestamp: Some(1),
                key: None,
                headers: Vec::new(),
                value: Some(value.to_vec()),
            },
            refusal: Refusal::new(Reason::Undecodable, "not JSON"),
            profile: "generic".into(),
        }
    }

    #[test]
    fn a_letter_stands_on_a_line_of_its_own_behind_one_that_a_killed_process_has_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dead.ndjson");
        let large = letter(&[b'x'; 20_000]);
        DeadLetters::file(&path).unwrap().write(&[letter(b"first"), large]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 9_000]).unwrap();

        let mut letters = DeadLetters::file(&path).unwrap();
        letters.write(&[letter(&[b'x'; 20_000])]).unwrap();
        letters.write(&[letter(b"last")]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lengths = text.lines().map(|line| {
            let line: Option<serde_json::Value> = serde_json::from_str(line).ok();
            line.map(|line| line["value"].as_str().unwrap().len())
        });
        assert_eq!(lengths.collect::<Vec<_>>(), [Some(5), None, Some(20_000), Some(4)]);
    }

    #[test]
    fn letters_that_the_disk_does_not_take_leave_nothing_behind() {
        let mut full = DeadLetters::file(Path::new("/dev/full")).unwrap();
        assert!(full.write(&[letter(b"x")]).unwrap_err().to_string().contains("No space left"));
    }

    #[test]
    fn the_original_bytes_are_kept_even_if_they_are_no_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dead.ndjson");
        DeadLetters::file(&path).unwrap().write(&[letter(b"{\"a\":"), letter(&[0xff, 0x00])]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            (&lines[0]["value"], &lines[0]["offset"], &lines[0]["reason"]),
            (&json!("{\"a\":"), &json!(7), &json!("undecodable"))
        );
        assert_eq!(STANDARD.decode(lines[1]["value_base64"].as_str().unwrap()).unwrap(), [0xff, 0x00]);
    }
}
