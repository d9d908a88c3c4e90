//! Whether every record of an input that is copied has its copy, and none twice.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::record::{Partition, Record};
use crate::sink::Origin;

/// The copies that were seen.
#[derive(Debug, Default)]
pub struct Copies {
    /// Where each copy stands, by where the record stood.
    seen: BTreeMap<(Partition, i64), Vec<Partition>>,
    check: CopyCheck,
}

/// What was found of copies.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CopyCheck {
    /// Records of the inputs that were looked for.
    pub records: u64,
    /// Those that have no copy.
    pub missing: u64,
    /// Those that have two in one partition.
    pub doubled: u64,
    /// The first record that has none, or two.
    pub first: Option<String>,
}

impl CopyCheck {
    /// Whether a copy is missing or there twice.
    pub fn found(&self) -> bool {
        self.missing + self.doubled > 0
    }
}

impl Copies {
    /// Takes notice of a record of a keyed copy.
    pub fn see(&mut self, record: &Record) {
        let Some(Origin { partition, offset }) = Origin::written(record) else { return };
        let copies = self.seen.entry((partition, offset)).or_default();
        if copies.contains(&record.partition) {
            self.check.doubled += 1;
            self.check
                .first
                .get_or_insert_with(|| format!("offset {} of {} is a second copy", record.offset, record.partition));
        }
        copies.push(record.partition.clone());
    }

    /// Looks for the copy of a record.
    pub fn look_for(&mut self, record: &Record) {
        self.check.records += 1;
        if !self.seen.contains_key(&(record.partition.clone(), record.offset)) {
            self.check.missing += 1;
            let first = || format!("offset {} of {} has no copy", record.offset, record.partition);
            self.check.first.get_or_insert_with(first);
        }
    }

    /// What was found; `None` where nothing is copied.
    pub fn end(self) -> Option<CopyCheck> {
        (self.check.records > 0).then_some(self.check)
    }
}

impl fmt::Display for CopyCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, missing, doubled, first } = self;
        write!(f, "\n{records} records were to be copied to the partition of their ticket: ")?;
        match first {
            None => writeln!(f, "each was, once"),
            Some(first) => writeln!(f, "{missing} have no copy, {doubled} have two; first: {first}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::copy_of;

    #[test]
    fn a_copy_that_is_missing_or_there_twice_is_found() {
        let record = |offset| Record {
            partition: Partition { topic: "raw".into(), number: 1 },
            offset,
            timestamp: None,
            key: None,
            headers: Vec::new(),
            value: Some(b"{}".to_vec()),
        };
        let copied = |offset, at| {
            let copy = copy_of(&record(offset), &"keyed".into(), 4);
            let partition = Partition { topic: copy.topic, number: 4 };
            Record { partition, offset: at, headers: copy.headers, ..record(0) }
        };
        let mut copies = Copies::default();
        [copied(7, 0), copied(8, 1), copied(8, 2)].iter().for_each(|copy| copies.see(copy));
        [7, 8, 9].iter().for_each(|offset| copies.look_for(&record(*offset)));
        let check = copies.end().unwrap();
        assert_eq!((check.records, check.missing, check.doubled), (3, 1, 1));
        assert_eq!(check.first.as_deref(), Some("offset 2 of keyed[4] is a second copy"));
    }
}
