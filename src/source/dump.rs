//! Dump files as records: CSV, NDJSON, JSON lists and wrappers, plain or gzipped, one record at a time.
//!
//! A row of a CSV file becomes a JSON object of text, so that everything behind this file is what live events run
//! through. Format, encoding and delimiter are found by looking at the beginning; [`Dump::described`] says what was found.

mod json;
mod sniff;
mod table;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use crate::outcome::Refusal;
use crate::record::{Partition, Record};
pub use sniff::Format;
use sniff::Sniffed;

/// How much of the beginning is looked at, in bytes after decompression: a few hundred rows of most exports.
const LOOK_AHEAD: usize = 256 * 1024;

/// The longest single row or line that is read, in bytes; a longer one ends the reading, since nobody writes tickets of
/// that size and an unclosed quote must not fill the memory.
const LONGEST_ROW: usize = 64 * 1024 * 1024;

/// A row that is no record: its bytes, its position, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The row as it stands in the dump.
    pub record: Record,
    /// Why it was refused.
    pub refusal: Refusal,
}

/// What the next row of a dump is if it is no record.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The row cannot be taken; reading goes on behind it.
    #[error("row {}: {}", .0.record.offset, .0.refusal)]
    Refused(Box<Refused>),
    /// The file cannot be read further.
    #[error("{path}: {error}")]
    Unreadable {
        /// The file.
        path: Arc<str>,
        /// Why.
        error: io::Error,
    },
}

/// Counts the bytes that are taken from a file, before decompression.
struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// The decompressed bytes of a dump.
type Input = Box<dyn BufRead + Send>;

/// One row or element on its way to being a record.
struct Row {
    value: Vec<u8>,
    refusal: Option<Refusal>,
}

/// Yields the rows of one format.
enum Rows {
    Table(table::Table),
    Lines(json::Lines),
    Elements(json::Elements),
}

/// A dump that is being read. As an iterator it yields each row once; after [`Trouble::Unreadable`] it ends.
pub struct Dump {
    path: Arc<str>,
    total: Option<u64>,
    read: Arc<AtomicU64>,
    sniffed: Sniffed,
    gzipped: bool,
    profile: &'static str,
    rows: Rows,
    offset: i64,
    ended: bool,
}

impl Dump {
    /// Opens a dump; `-` is the standard input. `format` overrides what the beginning of the file looks like.
    ///
    /// # Errors
    /// When the file cannot be opened, or its beginning cannot be read or decompressed.
    pub fn open(path: &Path, format: Option<Format>) -> io::Result<Self> {
        let name = path.to_string_lossy();
        if name == "-" {
            return Self::read(&name, Box::new(io::stdin()), None, format);
        }
        let file = File::open(path)?;
        let total = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
        Self::read(&name, Box::new(file), total, format)
    }

    /// Reads a dump from any source of bytes; `path` is what its records call their topic, `total` its size in bytes.
    ///
    /// # Errors
    /// When the beginning cannot be read or decompressed.
    pub fn read(
        path: &str,
        source: Box<dyn Read + Send>,
        total: Option<u64>,
        format: Option<Format>,
    ) -> io::Result<Self> {
        let read = Arc::new(AtomicU64::new(0));
        let counted = BufReader::with_capacity(64 * 1024, Counted { inner: source, count: read.clone() });
        let (mut input, gzipped) = decompressed(counted)?;
        let head = take_head(&mut input)?;
        let sniffed = Sniffed::of(&head, format);
        let input: Input = Box::new(BufReader::with_capacity(64 * 1024, io::Cursor::new(head.clone()).chain(input)));
        let rows = Rows::new(input, &sniffed)?;
        let profile = sniff::profile(&head, &rows);
        Ok(Self { path: path.into(), total, read, sniffed, gzipped, profile, rows, offset: 0, ended: false })
    }

    /// The format that is being read.
    pub fn format(&self) -> Format {
        self.sniffed.format
    }

    /// Format, encoding and delimiter in words, for people: `CSV, windows-1252, semicolons, gzipped`.
    pub fn described(&self) -> String {
        let packed = if self.gzipped { ", gzipped" } else { "" };
        format!("{}{packed}", self.sniffed)
    }

    /// The profile that the first record looks like.
    pub fn suggested_profile(&self) -> &'static str {
        self.profile
    }

    /// How many bytes of the file have been read, as it lies on disk.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// The size of the file in bytes, as it lies on disk; `None` for pipes.
    pub fn bytes_total(&self) -> Option<u64> {
        self.total
    }

    fn record(&mut self, value: Vec<u8>) -> Record {
        let offset = self.offset;
        self.offset += 1;
        Record {
            partition: Partition { topic: self.path.clone(), number: 0 },
            offset,
            timestamp: None,
            key: None,
            headers: Vec::new(),
            value: Some(value),
        }
    }
}

impl Iterator for Dump {
    type Item = Result<Record, Trouble>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match self.rows.next() {
            None => None,
            Some(Err(error)) => {
                self.ended = true;
                Some(Err(Trouble::Unreadable { path: self.path.clone(), error }))
            }
            Some(Ok(Row { value, refusal: None })) => Some(Ok(self.record(value))),
            Some(Ok(Row { value, refusal: Some(refusal) })) => {
                let record = self.record(value);
                Some(Err(Trouble::Refused(Box::new(Refused { record, refusal }))))
            }
        }
    }
}

impl Rows {
    fn new(input: Input, sniffed: &Sniffed) -> io::Result<Self> {
        Ok(match sniffed.format {
            Format::Csv => Self::Table(table::Table::new(input, sniffed.delimiter, sniffed.encoding)?),
            Format::Ndjson => Self::Lines(json::Lines::new(input)),
            Format::Json => Self::Elements(json::Elements::new(input)),
        })
    }

    fn next(&mut self) -> Option<io::Result<Row>> {
        match self {
            Self::Table(table) => table.next(),
            Self::Lines(lines) => lines.next(),
            Self::Elements(elements) => elements.next(),
        }
    }
}

fn decompressed(mut raw: BufReader<Counted<Box<dyn Read + Send>>>) -> io::Result<(Input, bool)> {
    let gzipped = raw.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    let input: Input = if gzipped { Box::new(BufReader::new(MultiGzDecoder::new(raw))) } else { Box::new(raw) };
    Ok((input, gzipped))
}

fn take_head(input: &mut Input) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    input.take(LOOK_AHEAD as u64).read_to_end(&mut head)?;
    let bom = usize::from(head.starts_with(b"\xef\xbb\xbf")) * 3;
    head.drain(..bom);
    Ok(head)
}

fn too_long() -> io::Error {
    let limit = LONGEST_ROW / (1024 * 1024);
    io::Error::new(io::ErrorKind::InvalidData, format!("a row longer than {limit} MiB; is a quote not closed?"))
}

#[cfg(test)]
mod tests;
