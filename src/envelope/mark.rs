//! The keys by which envelopes show themselves at the top of a document.

use serde_json::value::RawValue;

/// Declares the marks and their keys.
macro_rules! marks {
    ($($name:ident = $key:literal,)+) => {
        /// A top-level key that may belong to an envelope.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Mark { $(#[doc = $key] $name,)+ }

        impl Mark {
            /// Every mark.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The key that it stands for.
            pub fn key(self) -> &'static str {
                match self { $(Self::$name => $key,)+ }
            }
        }
    };
}

marks! {
    Schema = "schema",
    Payload = "payload",
    Op = "op",
    Before = "before",
    After = "after",
    Source = "source",
    SpecVersion = "specversion",
    Data = "data",
    DataBase64 = "data_base64",
    Time = "time",
    Result = "result",
    Records = "records",
    Tickets = "tickets",
    Issues = "issues",
    Entries = "entries",
    Values = "values",
    FlatDeleted = "__deleted",
    FlatOp = "__op",
    FlatTable = "__table",
    FlatTime = "__source_ts_ms",
    RowStatus = "__status",
    Error = "error",
    TimeMs = "ts_ms",
    TableChanges = "tableChanges",
    Id = "id",
    Type = "type",
}

impl Mark {
    /// Whether it is enough to know that the key is there; its value is then read as any other.
    pub fn only_seen(self) -> bool {
        matches!(self, Self::Id | Self::Type)
    }
}

const COUNT: usize = Mark::ALL.len();

/// The marks seen in one document, with the text of their values.
#[derive(Debug)]
pub struct Marks<'a> {
    raw: [Option<&'a RawValue>; COUNT],
    seen: u32,
    /// How many keys the document has at the top, repeated ones included.
    pub keys: usize,
}

impl Default for Marks<'_> {
    fn default() -> Self {
        Self { raw: [None; COUNT], seen: 0, keys: 0 }
    }
}

impl<'a> Marks<'a> {
    /// Notes a key; `raw` is its value, unless the mark is [`Mark::only_seen`].
    pub fn note(&mut self, mark: Mark, raw: Option<&'a RawValue>) {
        self.seen |= 1 << mark as u32;
        self.raw[mark as usize] = raw;
    }

    /// Whether any mark was seen whose value was kept.
    pub fn any(&self) -> bool {
        self.seen & !(1 << Mark::Id as u32 | 1 << Mark::Type as u32) != 0
    }

    /// Whether the key is there.
    pub fn has(&self, mark: Mark) -> bool {
        self.seen & (1 << mark as u32) != 0
    }

    /// The JSON text of the key's value.
    pub fn raw(&self, mark: Mark) -> Option<&'a str> {
        self.raw[mark as usize].map(RawValue::get)
    }

    /// The value, if it is text without escapes.
    pub fn text(&self, mark: Mark) -> Option<&'a str> {
        self.raw(mark).and_then(|raw| serde_json::from_str(raw).ok())
    }

    /// The text of the value if it is an object.
    pub fn object(&self, mark: Mark) -> Option<&'a str> {
        self.raw(mark).filter(|raw| raw.starts_with('{'))
    }

    /// The text of the value if it is a list.
    pub fn list(&self, mark: Mark) -> Option<&'a str> {
        self.raw(mark).filter(|raw| raw.starts_with('['))
    }
}
