//! Counts everything a second time, from the records themselves, and compares with the journal to the unit.
//!
//! Independent of the ledger in all that can be counted wrongly: per-ticket state, versions, effort, touches, corrections,
//! reclassification, retention and the figures are computed by the slow and obvious code of this module. What it shares
//! with the live path is pure and tested by itself: decoding, profiles, the classifier, how findings make a verdict, and
//! how a counter is named on `/metrics`.
//!
//! The journal does not know with which packs, policy, caps and retention it was written: an audit is exact only with the
//! same configuration. Only what was refused is known, from the dead letters.

mod copies;
mod coverage;
mod dump;
mod figure;
mod life;
mod recount;
mod refused;
mod report;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use self::refused::Refused;
pub use copies::{Copies, CopyCheck};
pub use coverage::Coverage;
pub use figure::{Figure, Figures};
pub use life::{Event, Life, Names, Rules};
pub use recount::{Content, Name, Recount, Recounted, Totals};
pub use report::{Covered, Difference, Report, TicketDifference, View};

use crate::classify::{Classifier, Scratch};
use crate::config::Config;
use crate::journal::kafka::JournalTopics;
use crate::journal::read;
use crate::ledger::Ledgers;
use crate::panic::caught;
use crate::prepare::Route;
use crate::profile::Decoded;
use crate::record::{Partition, Record};
use crate::replay::grouped;
use crate::serve::{Inputs, Loaded};
use crate::sink::Origin;
use crate::source::kafka::RangeReader;
use crate::ticket::Ticket;
use crate::verdict::Findings;

/// Recounts what the journal of a configuration has counted.
///
/// The records come from Kafka, each partition from its beginning to the journal's position, or from dumps that know
/// where each record stood in Kafka.
///
/// # Errors
/// When packs or profiles are wrong, or journal, brokers or dumps cannot be read.
pub fn audit(config: &Config, dumps: &[PathBuf]) -> anyhow::Result<Report> {
    let loaded = Loaded::load(config)?;
    let ledgers = read(config, config.ledger_settings())?;
    let recount = Recount::new(Rules::of(&ledgers, config.ledger_settings()));
    let mut taken = Taken::new(&ledgers, recount, loaded, config.batch.max_record_bytes);
    taken.refused = refused::refused(config)?;
    taken.read(config, dumps)?;
    if let Some(again) = taken.recount.again() {
        eprintln!("some tickets came by several partitions; all records are read again for them");
        (taken.recount, taken.coverage) = (again, uncovered(&ledgers));
        taken.read(config, dumps)?;
    }
    if dumps.is_empty() {
        taken.check_copies(config)?;
    }
    let report = compare(&ledgers, taken.recount, &taken.coverage);
    Ok(report.with_copies(taken.copies.end()))
}

/// Counts what was seen, and compares it with what the ledgers have counted.
pub fn compare(ledgers: &Ledgers, recount: Recount, coverage: &BTreeMap<Partition, Coverage>) -> Report {
    Report::new(ledgers, &recount.count(coverage), coverage)
}

/// The partitions that ledgers know, with nothing of them read yet.
pub fn uncovered(ledgers: &Ledgers) -> BTreeMap<Partition, Coverage> {
    let counted = Figures::shown(ledgers);
    let coverage = |partition: &Partition, position| {
        let counted = counted.sum(partition, "records_total");
        (partition.clone(), Coverage::new(partition.clone(), position, counted))
    };
    let states = ledgers.iter().flat_map(|ledger| ledger.partitions());
    states.map(|state| coverage(&state.partition, state.next_offset)).collect()
}

/// What was read, and how records become tickets.
struct Taken {
    recount: Recount,
    copies: Copies,
    refused: Refused,
    coverage: BTreeMap<Partition, Coverage>,
    inputs: Inputs,
    classifier: Arc<Classifier>,
    scratch: Scratch,
    max_record_bytes: usize,
}

impl Taken {
    fn new(ledgers: &Ledgers, recount: Recount, loaded: Loaded, max_record_bytes: usize) -> Self {
        let Loaded { rules, inputs } = loaded;
        let classifier = rules.own;
        let scratch = classifier.scratch();
        let coverage = uncovered(ledgers);
        for input in inputs.values() {
            if let Route::FromCopy(copy) = &input.route {
                let partitions = coverage.keys().filter(|partition| partition.topic == copy.topic).count();
                copy.partitions.store(i32::try_from(partitions).unwrap_or(i32::MAX), Ordering::Relaxed);
            }
        }
        let (copies, refused) = (Copies::default(), Refused::new());
        Self { recount, copies, refused, coverage, inputs, classifier, scratch, max_record_bytes }
    }

    /// Takes every record below the journal's positions.
    fn read(&mut self, config: &Config, dumps: &[PathBuf]) -> anyhow::Result<()> {
        match dumps {
            [] => self.read_topics(config),
            dumps => self.read_dumps(dumps),
        }
    }

    fn read_topics(&mut self, config: &Config) -> anyhow::Result<()> {
        let reader = RangeReader::new(&config.kafka)?;
        let partitions: Vec<_> = self.coverage.values().map(|c| (c.partition.clone(), c.position)).collect();
        for (partition, position) in partitions {
            if !self.inputs.contains_key(&*partition.topic) {
                eprintln!(
                    "{partition} is not read: no `[[input]]` names its topic, although the journal has counted it"
                );
                continue;
            }
            let start = reader.start(&partition, position)?;
            if let Some(covered) = self.coverage.get_mut(&partition) {
                covered.start = start;
            }
            reader.read(&partition, start, position, |record| {
                self.take(&record);
                true
            })?;
            self.say_how_many(&partition);
        }
        Ok(())
    }

    /// Looks for the copies of every input that is copied.
    fn check_copies(&mut self, config: &Config) -> anyhow::Result<()> {
        let copied: Vec<_> = config.input.iter().filter(|input| input.rekey).collect();
        if copied.is_empty() {
            return Ok(());
        }
        let (reader, topics) = (RangeReader::new(&config.kafka)?, JournalTopics::new(&config.kafka));
        copied.iter().try_for_each(|input| self.check_copy(&reader, &input.topic, &topics.keyed(&input.topic)))
    }

    /// Looks for the copy of every record up to the group's position. Copies are read to their end, for they may be ahead
    /// of what is counted.
    fn check_copy(&mut self, reader: &RangeReader, input: &str, keyed: &str) -> anyhow::Result<()> {
        // The group's positions first: what is copied meanwhile is not looked for.
        let positions = reader.positions(input)?;
        for partition in self.coverage.keys().filter(|partition| *partition.topic == *keyed) {
            let (start, end) = reader.ends(partition)?;
            reader.read(partition, start, end, |record| {
                self.copies.see(&record);
                true
            })?;
        }
        for (partition, position) in positions {
            let (start, _) = reader.ends(&partition)?;
            reader.read(&partition, start, position, |record| {
                self.copies.look_for(&record);
                true
            })?;
        }
        Ok(())
    }

    fn read_dumps(&mut self, dumps: &[PathBuf]) -> anyhow::Result<()> {
        for record in dump::records(dumps)?.values() {
            let below = self.coverage.get(&record.partition).is_some_and(|covered| record.offset < covered.position);
            if below {
                self.take(record);
            }
        }
        self.coverage.values_mut().for_each(Coverage::begin_as_seen);
        self.coverage.keys().for_each(|partition| self.say_how_many(partition));
        Ok(())
    }

    fn say_how_many(&self, partition: &Partition) {
        if let Some(Coverage { records, position, .. }) = self.coverage.get(partition) {
            eprintln!("{partition}: {} records below offset {position}", grouped(records.unsigned_abs()));
        }
    }

    fn take(&mut self, record: &Record) {
        if let Some(covered) = self.coverage.get_mut(&record.partition) {
            covered.see(record.offset, record.timestamp);
        }
        let content = self.content(record);
        self.recount.see(&record.partition, record.offset, record.timestamp, content);
    }

    /// What is in a record; like the live path, one that makes the program panic is refused.
    fn content(&mut self, record: &Record) -> Content {
        let Origin { partition, offset } = Origin::of(record);
        if self.refused.contains(&(partition, offset)) {
            return Content::Refused;
        }
        if record.value.as_ref().map_or(0, Vec::len) > self.max_record_bytes {
            return Content::Refused;
        }
        let Some(input) = self.inputs.get(&*record.partition.topic) else { return Content::Ignored };
        let (classifier, scratch) = (&self.classifier, &mut self.scratch);
        let decoded = caught(|| match input.decoder.decode(record) {
            Err(_) => Content::Refused,
            Ok(Decoded::Ignored(_)) => Content::Ignored,
            Ok(Decoded::Tickets(tickets)) => {
                let here = tickets.into_iter().filter(|ticket| input.takes(record, ticket));
                let classified = here.map(|ticket| classified(ticket, classifier, scratch));
                Content::Tickets(input.source.to_string(), classified.collect())
            }
        });
        decoded.unwrap_or_else(|_| {
            self.scratch = self.classifier.scratch();
            Content::Refused
        })
    }
}

/// A ticket without what is looked at for evidence alone, and what was found in it.
fn classified(mut ticket: Ticket, classifier: &Classifier, scratch: &mut Scratch) -> (Ticket, Findings) {
    let findings = classifier.classify(&ticket, scratch);
    ticket.drop_evidence();
    (ticket, findings)
}
