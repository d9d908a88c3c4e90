//! How much of what the journal counted is still there to be counted again.

use jiff::Timestamp;

use crate::record::Partition;

/// How far the clocks of an ITSM system and of a broker may differ, in milliseconds.
const CLOCKS: i64 = 3_600_000;

/// The records of one partition below the journal's position.
#[derive(Clone, Debug, PartialEq)]
pub struct Coverage {
    /// Which one.
    pub partition: Partition,
    /// The journal's position: the offset of the next record to be taken.
    pub position: i64,
    /// How many records the journal has counted.
    pub counted: i64,
    /// How many there are now.
    pub records: i64,
    /// The first offset that the topic still holds.
    pub start: i64,
    /// Offset and time of the first record, in milliseconds since 1970.
    pub first: Option<(i64, Option<i64>)>,
}

impl Coverage {
    /// A partition of which nothing was read yet.
    pub fn new(partition: Partition, position: i64, counted: i64) -> Self {
        Self { partition, position, counted, records: 0, start: 0, first: None }
    }

    /// Takes notice of a record.
    pub fn see(&mut self, offset: i64, time: Option<i64>) {
        self.first.get_or_insert((offset, time));
        self.records += 1;
    }

    /// How many records were counted and are gone since; 0 where the offsets leave no room for them.
    pub fn gone(&self) -> i64 {
        let missing = self.counted - self.records;
        if (1..=self.position - self.records).contains(&missing) { missing } else { 0 }
    }

    /// Takes the first record seen for the first that there is. Not where some offsets behind it are missing: unlike a topic, a
    /// dump can lack records anywhere.
    pub fn begin_as_seen(&mut self) {
        let has_no_hole = |first: &i64| self.position - first == self.records;
        self.start = self.first.map(|(offset, _)| offset).filter(has_no_hole).unwrap_or_default();
    }

    /// From when on nothing is missing, where that can be told: what is gone lies before the first offset.
    pub fn since(&self) -> Option<Timestamp> {
        let time = self.first.and_then(|(_, time)| time).filter(|_| self.gone() <= self.start);
        time.and_then(|time| Timestamp::from_millisecond(time).ok())
    }

    /// Whether a ticket that was opened then can have no event among the records that are gone.
    pub fn vouches(&self, opened: Option<Timestamp>) -> bool {
        let after = |opened: Timestamp, since: Timestamp| opened.as_millisecond() - since.as_millisecond() >= CLOCKS;
        self.gone() == 0 || opened.zip(self.since()).is_some_and(|(opened, since)| after(opened, since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition() -> Partition {
        Partition { topic: "t".into(), number: 0 }
    }

    #[test]
    fn records_before_the_first_offset_are_gone_and_later_tickets_are_vouched_for() {
        let mut covered = Coverage { start: 40, ..Coverage::new(partition(), 100, 100) };
        (40..100).for_each(|offset| covered.see(offset, Some(offset * 1_000_000)));
        assert_eq!((covered.gone(), covered.since()), (40, Timestamp::from_millisecond(40_000_000).ok()));
        let opened = |millisecond| Timestamp::from_millisecond(millisecond).ok();
        assert!(covered.vouches(opened(50_000_000)));
        assert!(!covered.vouches(opened(40_000_000)), "clocks differ");
        assert!(!covered.vouches(None));
    }

    #[test]
    fn a_topic_that_was_short_already_when_the_journal_began_is_covered() {
        let mut covered = Coverage { start: 40, ..Coverage::new(partition(), 100, 60) };
        (40..100).for_each(|offset| covered.see(offset, None));
        assert_eq!(covered.gone(), 0);
        assert!(covered.vouches(None));
    }

    #[test]
    fn without_a_hole_a_count_that_is_too_high_is_no_loss_of_records() {
        let mut covered = Coverage::new(partition(), 100, 101);
        (0..100).for_each(|offset| covered.see(offset, None));
        assert_eq!(covered.gone(), 0);
    }

    #[test]
    fn a_dump_that_lacks_records_behind_its_first_vouches_for_nothing() {
        for (seen, since) in [(40..100, Some(40)), (40..95, None)] {
            // The journal has counted from offset 30 on.
            let mut covered = Coverage::new(partition(), 100, 70);
            seen.for_each(|offset| covered.see(offset, Some(offset)));
            covered.begin_as_seen();
            assert_eq!(covered.since().map(Timestamp::as_millisecond), since);
        }
    }

    #[test]
    fn of_a_compacted_topic_nothing_is_vouched_for() {
        let mut covered = Coverage::new(partition(), 100, 100);
        (0..100).step_by(2).for_each(|offset| covered.see(offset, Some(0)));
        assert_eq!((covered.gone(), covered.since()), (50, None));
    }
}
