//! JSON dumps: one object a line, or the elements of a list, without ever holding the whole.

use std::io::{self, BufRead, Read};

use super::{Input, LONGEST_ROW, Row, too_long};
use crate::outcome::{Reason, Refusal};

/// The keys under which exports wrap their list.
const WRAPPERS: [&[u8]; 7] = [b"result", b"records", b"tickets", b"issues", b"entries", b"results", b"values"];

/// One JSON object a line; blank lines are skipped.
pub struct Lines {
    input: Input,
}

impl Lines {
    /// Reads lines from the input.
    pub fn new(input: Input) -> Self {
        Self { input }
    }

    /// The next line that is not blank.
    pub fn next(&mut self) -> Option<io::Result<Row>> {
        loop {
            let mut line = Vec::new();
            match (&mut self.input).take(LONGEST_ROW as u64 + 1).read_until(b'\n', &mut line) {
                Ok(0) => return None,
                Ok(length) if length > LONGEST_ROW => return Some(Err(too_long())),
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
            let line = line.trim_ascii();
            if !line.is_empty() {
                return Some(Ok(Row { value: line.to_vec(), refusal: None }));
            }
        }
    }
}

/// Where the reading of elements stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before a list or between objects.
    Outside,
    /// Inside the list whose elements are wanted.
    Inside,
}

/// The elements of a list, also of one that a wrapper holds, or objects one after the other.
pub struct Elements {
    input: Input,
    place: Place,
}

impl Elements {
    /// Reads elements from the input.
    pub fn new(input: Input) -> Self {
        Self { input, place: Place::Outside }
    }

    /// The next element.
    pub fn next(&mut self) -> Option<io::Result<Row>> {
        self.advance().transpose()
    }

    fn advance(&mut self) -> io::Result<Option<Row>> {
        loop {
            match (self.place, self.peek()?) {
                (_, None) => return Ok(None),
                (_, Some(b',' | b' ' | b'\t' | b'\r' | b'\n')) => self.input.consume(1),
                (Place::Outside, Some(b'[')) => {
                    self.input.consume(1);
                    self.place = Place::Inside;
                }
                (Place::Inside, Some(b']')) => {
                    self.input.consume(1);
                    self.place = Place::Outside;
                }
                (Place::Outside, Some(b'{')) => {
                    if let Some(row) = self.object_or_wrapper()? {
                        return Ok(Some(row));
                    }
                }
                // What follows a wrapper's list: its other keys and its closing brace.
                (Place::Outside, Some(_)) => self.input.consume(1),
                (Place::Inside, Some(_)) => return self.element().map(Some),
            }
        }
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        Ok(self.input.fill_buf()?.first().copied())
    }

    /// An object outside a list: a record, or a wrapper whose list begins where this stops reading.
    fn object_or_wrapper(&mut self) -> io::Result<Option<Row>> {
        let mut scan = Scan::default();
        let wrapper = self.scan(&mut scan, true)?;
        if wrapper {
            self.place = Place::Inside;
            return Ok(None);
        }
        Ok(Some(scan.row()))
    }

    fn element(&mut self) -> io::Result<Row> {
        let mut scan = Scan::default();
        self.scan(&mut scan, false)?;
        Ok(scan.row())
    }

    /// Reads one value; with `wrappers` it stops behind the bracket of a wrapped list and says so.
    fn scan(&mut self, scan: &mut Scan, wrappers: bool) -> io::Result<bool> {
        while let Some(byte) = self.peek()? {
            if scan.ends_before(byte) {
                return Ok(false);
            }
            self.input.consume(1);
            scan.take(byte);
            if wrappers && scan.opens_wrapped_list() {
                return Ok(true);
            }
            if scan.complete {
                return Ok(false);
            }
            if scan.bytes.len() > LONGEST_ROW {
                return Err(too_long());
            }
        }
        Ok(false)
    }
}

/// Whether a text is an object that wraps a list under one of the usual keys.
pub fn wraps_list(text: &[u8]) -> bool {
    let mut scan = Scan::default();
    text.iter().any(|byte| {
        scan.take(*byte);
        scan.opens_wrapped_list()
    })
}

/// Follows strings and brackets through one JSON value, without judging the rest.
#[derive(Default)]
struct Scan {
    bytes: Vec<u8>,
    depth: usize,
    in_string: bool,
    escaped: bool,
    complete: bool,
    /// The last string at the top of the object, and whether its colon has come.
    key: Option<std::ops::Range<usize>>,
    colon: bool,
}

impl Scan {
    /// Whether a bare value (a number, a word) ends before this byte.
    fn ends_before(&self, byte: u8) -> bool {
        self.depth == 0 && !self.in_string && !self.bytes.is_empty() && matches!(byte, b',' | b']' | b'\n')
    }

    fn take(&mut self, byte: u8) {
        let at = self.bytes.len();
        self.bytes.push(byte);
        if self.in_string {
            return self.take_in_string(byte, at);
        }
        match byte {
            b'"' => {
                self.in_string = true;
                self.key = (self.depth == 1).then_some(at + 1..at + 1);
                self.colon = false;
            }
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.complete = self.depth == 0;
            }
            b':' => self.colon = true,
            b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => self.key = None,
        }
    }

    fn take_in_string(&mut self, byte: u8, at: usize) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => {
                self.in_string = false;
                self.complete = self.depth == 0;
                if let (1, Some(key)) = (self.depth, &mut self.key) {
                    key.end = at;
                }
            }
            _ => {}
        }
    }

    /// Whether the last byte opened the list of a wrapper.
    fn opens_wrapped_list(&self) -> bool {
        let key = self.key.clone().and_then(|range| self.bytes.get(range)).unwrap_or_default();
        self.colon && self.depth == 2 && self.bytes.last() == Some(&b'[') && WRAPPERS.contains(&key)
    }

    fn row(self) -> Row {
        let whole = self.complete || (self.depth == 0 && !self.in_string);
        let refusal = (!whole).then(|| Refusal::new(Reason::Undecodable, "the file ends inside this element"));
        Row { value: self.bytes.trim_ascii().to_vec(), refusal }
    }
}
