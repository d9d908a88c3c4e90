//! One Kafka message, or one row of a dump: bytes and position.

use std::fmt;
use std::sync::Arc;

/// A partition of a topic; for dumps, the file and 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    /// The topic, or the path of the dump.
    pub topic: Arc<str>,
    /// The number of the partition, from 0.
    pub number: i32,
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.number)
    }
}

/// One message or row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it came from.
    pub partition: Partition,
    /// Its offset there; for dumps, the number of the row from 0.
    pub offset: i64,
    /// The broker's time of the record in milliseconds since 1970, where there is one.
    pub timestamp: Option<i64>,
    /// The message key.
    pub key: Option<Vec<u8>>,
    /// The message headers, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The message; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
}

impl Record {
    /// The value of the first header of that name; names compare without case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_slice())
    }
}
