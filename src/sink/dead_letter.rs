//! Refused records: their original bytes, where they came from, and why.
//!
//! They are written before their position is committed, so none is lost; after a crash one may be there twice, with the
//! same topic, partition and offset.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::producer::{DeliveryError, Outgoing, Producer};
use crate::outcome::Refusal;
use crate::record::Record;

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
    /// A topic.
    Topic(Box<Producer>),
    /// A file of JSON lines.
    File(BufWriter<File>),
    /// A file that is made with the first of them.
    NewFile(PathBuf),
}

/// What goes wrong when they are written.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// The topic did not take them.
    #[error(transparent)]
    Topic(#[from] DeliveryError),
    /// The file did not take them.
    #[error("dead letters cannot be written: {0}")]
    File(#[from] std::io::Error),
}

impl DeadLetters {
    /// Appends to a file, which is made if need be.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn file(path: &Path) -> std::io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self::File(BufWriter::new(file)))
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

    /// Writes the letters; they are safe when this returns.
    ///
    /// # Errors
    /// When they could not all be written.
    pub fn write(&mut self, letters: &[DeadLetter]) -> Result<(), DeadLetterError> {
        if letters.is_empty() {
            return Ok(());
        }
        if let Self::NewFile(path) = self {
            *self = Self::file(path)?;
        }
        match self {
            Self::NewFile(_) => Ok(()),
            Self::Topic(producer) => {
                Ok(producer.deliver(&letters.iter().map(DeadLetter::outgoing).collect::<Vec<_>>())?)
            }
            Self::File(file) => {
                for letter in letters {
                    writeln!(file, "{}", letter.to_json())?;
                }
                file.flush()?;
                Ok(file.get_ref().sync_data()?)
            }
        }
    }
}

impl DeadLetter {
    /// Key and value as they came, the headers that came, and where from and why in headers of our own.
    fn outgoing(&self) -> Outgoing {
        let Record { partition, offset, timestamp, key, headers, value } = &self.record;
        let mut headers = headers.clone();
        let facts = [
            ("topic", partition.topic.to_string()),
            ("partition", partition.number.to_string()),
            ("offset", offset.to_string()),
            ("timestamp", timestamp.map_or(String::new(), |t| t.to_string())),
            ("reason", self.refusal.reason.as_str().to_owned()),
            ("error", self.refusal.detail.clone()),
            ("profile", self.profile.clone()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        headers.extend(facts.map(|(name, value)| (format!("customer-reach.{name}"), value.into_bytes())));
        Outgoing { key: key.clone(), value: value.clone(), headers }
    }

    /// The same as one JSON object; bytes that are no text as base64 under `…_base64`.
    fn to_json(&self) -> serde_json::Value {
        let Record { partition, offset, timestamp, key, value, .. } = &self.record;
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
    use crate::record::Partition;

    #[test]
    fn the_original_bytes_are_kept_even_if_they_are_no_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dead.ndjson");
        let letter = |value: &[u8]| DeadLetter {
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
        };
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
