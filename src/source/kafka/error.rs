//! What ends the source, and the way out of it.

use crate::record::Partition;

/// What stops the source for good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// librdkafka does not take the settings.
    #[error("the Kafka settings are not accepted: {0}; see `[kafka]` and `[kafka.librdkafka]`")]
    Settings(String),
    /// Another journal reads with the same group.
    #[error(
        "the consumer group `{group}` belongs to another journal ({other}, here {own}): each would count a part; give this \
         instance a group of its own, or start it with the journal of the other one, or move that journal with \
         `customer-reach journal export` and `import`, or reset the group's offsets if the other journal is gone"
    )]
    ForeignJournal {
        /// The group.
        group: String,
        /// Whose positions stand there.
        other: String,
        /// This journal.
        own: String,
    },
    /// Another consumer got some of the partitions.
    #[error(
        "the consumer group `{group}` has another member: {assigned} of {all} partitions are assigned here, and the \
         sqlite journal would count a part only; stop the other member, or give this instance a group of its own"
    )]
    SharedGroup {
        /// The group.
        group: String,
        /// Partitions assigned here.
        assigned: usize,
        /// Partitions there are.
        all: usize,
    },
    /// The journal is ahead of the topic.
    #[error(
        "{partition} ends at offset {end}, but the journal has read up to {position}: the topic was deleted and made anew, \
         has lost records, or these are other brokers than before; everything up to there would be taken for read. Check \
         `[kafka] brokers`; if the topic is new on purpose, give it another name, or start with another `[kafka] group` and \
         `[journal] path`"
    )]
    AheadOfTopic {
        /// The partition.
        partition: Partition,
        /// The offset behind its last record.
        end: i64,
        /// The journal's position.
        position: i64,
    },
    /// The records before the journal's position are not those that were counted.
    #[error(
        "the record before offset {position} of {partition} is of {found}, but nothing newer than {newest} was counted up to \
         there: the topic was deleted and made anew, or these are other brokers than before; everything up to there would be \
         taken for read. Check `[kafka] brokers`; if the topic is new on purpose, give it another name, or start with another \
         `[kafka] group` and `[journal] path`"
    )]
    OtherRecords {
        /// The partition.
        partition: Partition,
        /// The journal's position.
        position: i64,
        /// The time of the newest record that was counted.
        newest: jiff::Timestamp,
        /// The time of the record that is there.
        found: jiff::Timestamp,
    },
    /// A partition cannot be read at all.
    #[error(
        "{partition} cannot be read from {brokers}: {cause}; check `[kafka]`, and whether the topic is still there"
    )]
    Unreadable {
        /// The partition.
        partition: Partition,
        /// The brokers asked.
        brokers: String,
        /// What they say, or that they say nothing.
        cause: String,
    },
    /// The journal cannot be used, or does not fit to the topics.
    #[error("{0}")]
    Journal(String),
    /// Somebody else is this member of the group, again and again.
    #[error(
        "another process with a copy of this journal's folder joins the group in its place, again and again; run only one \
         of them"
    )]
    Fenced,
    /// A thread on which the source depends has panicked. What it said may hold ticket text, and is not repeated.
    #[error(
        "a defect of this program, in the thread `{thread}` at {place}; please report it. What was not committed is read again \
         at the next start"
    )]
    Panicked {
        /// The thread.
        thread: &'static str,
        /// Where in the program.
        place: String,
    },
    /// An error from which the client cannot recover.
    #[error("the Kafka client cannot go on: {0}")]
    Fatal(String),
}
