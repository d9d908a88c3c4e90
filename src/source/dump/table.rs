//! A CSV table: each row becomes a JSON object of text.

use std::borrow::Cow;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use csv::{ByteRecord, Reader, ReaderBuilder};
use encoding_rs::WINDOWS_1252;

use super::sniff::Encoding;
use super::{Input, LONGEST_ROW, Row, too_long};
use crate::outcome::{Reason, Refusal};

/// Stops a row that has no end: the parser itself would take the rest of the file into memory.
struct Limited {
    inner: Input,
    /// How many bytes the present row may still take.
    left: Arc<AtomicUsize>,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return Err(too_long());
        }
        let count = self.inner.read(buffer)?;
        self.left.store(left.saturating_sub(count), Ordering::Relaxed);
        Ok(count)
    }
}

/// A table being read.
pub struct Table {
    reader: Reader<Limited>,
    left: Arc<AtomicUsize>,
    encoding: Encoding,
    delimiter: u8,
    /// Each heading as JSON text, with the columns that carry it.
    columns: Vec<Column>,
    width: usize,
    row: ByteRecord,
}

struct Column {
    heading: String,
    /// The heading as JSON text with its colon.
    key: Vec<u8>,
    indexes: Vec<usize>,
}

impl Table {
    /// Reads the headings.
    pub fn new(input: Input, delimiter: u8, encoding: Encoding) -> io::Result<Self> {
        let left = Arc::new(AtomicUsize::new(LONGEST_ROW));
        let input = Limited { inner: input, left: left.clone() };
        let mut reader = ReaderBuilder::new().delimiter(delimiter).flexible(true).has_headers(false).from_reader(input);
        let mut headings = ByteRecord::new();
        reader.read_byte_record(&mut headings).map_err(io::Error::other)?;
        let mut columns: Vec<Column> = Vec::new();
        for (index, heading) in headings.iter().enumerate() {
            let heading = lenient(heading).trim().to_owned();
            match columns.iter_mut().find(|column| column.heading == heading) {
                Some(column) => column.indexes.push(index),
                None => columns.push(Column { key: key(&heading), heading, indexes: vec![index] }),
            }
        }
        Ok(Self { reader, left, encoding, delimiter, columns, width: headings.len(), row: ByteRecord::new() })
    }

    /// Whether there is a column of that heading.
    pub fn has_heading(&self, heading: &str) -> bool {
        self.columns.iter().any(|column| column.heading == heading)
    }

    /// The next row. Rows without any text are skipped.
    pub fn next(&mut self) -> Option<io::Result<Row>> {
        loop {
            self.left.store(LONGEST_ROW, Ordering::Relaxed);
            match self.reader.read_byte_record(&mut self.row) {
                Ok(false) => return None,
                Ok(true) if self.row.as_slice().is_empty() => {}
                Ok(true) => return Some(Ok(self.row())),
                Err(error) => return Some(Err(io::Error::other(error))),
            }
        }
    }

    fn row(&mut self) -> Row {
        if self.row.len() != self.width {
            let detail = format!("{} fields where the headings are {}", self.row.len(), self.width);
            return self.refused(detail);
        }
        match self.object() {
            Ok(value) => Row { value, refusal: None },
            Err(detail) => self.refused(detail),
        }
    }

    fn object(&mut self) -> Result<Vec<u8>, String> {
        if self.encoding == Encoding::Ascii {
            self.encoding = settled(self.row.as_slice());
        }
        let mut value = Vec::with_capacity(self.row.as_slice().len() * 2);
        for column in &self.columns {
            let fields = column.indexes.iter().filter_map(|index| self.row.get(*index));
            let texts: Vec<Cow<'_, str>> = match fields.map(|field| decode(field, self.encoding)).collect() {
                Some(texts) => texts,
                None => return Err(format!("column `{}` is not UTF-8, as the rest of the file is", column.heading)),
            };
            value.push(if value.is_empty() { b'{' } else { b',' });
            value.extend_from_slice(&column.key);
            append(&texts, &mut value);
        }
        value.push(b'}');
        Ok(value)
    }

    /// The row as it was, as far as it can be put together again.
    fn refused(&self, detail: String) -> Row {
        let mut writer = csv::WriterBuilder::new().delimiter(self.delimiter).from_writer(Vec::new());
        let written = writer.write_byte_record(&self.row).ok().and_then(|()| writer.into_inner().ok());
        Row { value: written.unwrap_or_default(), refusal: Some(Refusal::new(Reason::Undecodable, detail)) }
    }
}

/// One text, or of several columns with the same heading a list of those that are not empty.
fn append(texts: &[Cow<'_, str>], value: &mut Vec<u8>) {
    match texts {
        [one] => append_json(one, value),
        several => {
            let full: Vec<&str> = several.iter().map(AsRef::as_ref).filter(|text: &&str| !text.is_empty()).collect();
            append_json(&full, value);
        }
    }
}

fn append_json<T: serde::Serialize + ?Sized>(json: &T, value: &mut Vec<u8>) {
    serde_json::to_writer(value, json).expect("text always becomes JSON, and a vector takes all bytes");
}

fn key(heading: &str) -> Vec<u8> {
    let mut key = Vec::new();
    append_json(heading, &mut key);
    key.push(b':');
    key
}

/// What the first bytes beyond ASCII make of an encoding that was open.
fn settled(row: &[u8]) -> Encoding {
    match std::str::from_utf8(row) {
        Ok(text) if text.is_ascii() => Encoding::Ascii,
        Ok(_) => Encoding::Utf8,
        Err(_) => Encoding::Windows1252,
    }
}

fn decode(field: &[u8], encoding: Encoding) -> Option<Cow<'_, str>> {
    match encoding {
        Encoding::Windows1252 => Some(lenient(field)),
        Encoding::Utf8 | Encoding::Ascii => std::str::from_utf8(field).ok().map(Cow::Borrowed),
    }
}

/// UTF-8 if it is, else windows-1252, in which all bytes mean something.
fn lenient(field: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(field) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => WINDOWS_1252.decode_without_bom_handling(field).0,
    }
}
