//! The pure part of the pipeline: records are decoded, mapped and classified on all cores, each by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Instant;

use hashbrown::HashMap;
use rayon::prelude::*;
use smallvec::{SmallVec, smallvec};

use crate::classify::Classifier;
use crate::language::Language;
use crate::ledger::TicketKey;
use crate::outcome::{Reason, Refusal};
use crate::panic::{Caught, caught};
use crate::pattern::matcher::Scratch;
use crate::profile::{Decoded, Decoder};
use crate::record::Record;
use crate::source::kafka::{Epoch, Fetched};
use crate::ticket::{Affects, Ticket};
use crate::verdict::{Findings, Policy};

/// A topic or dump: how its records become tickets, whose they are, and which way they go.
#[derive(Debug)]
pub struct Input {
    /// The profile, ready for use.
    pub decoder: Arc<Decoder>,
    /// The system whose tickets these are.
    pub source: Arc<str>,
    /// Which way its records go.
    pub route: Route,
}

impl Input {
    /// Whether a ticket of a record belongs to the record's partition: a copy of a record with several tickets goes to the
    /// partition of each.
    pub fn takes(&self, record: &Record, ticket: &Ticket) -> bool {
        match &self.route {
            Route::FromCopy(copy) => copy.partition(&self.source, ticket) == record.partition.number,
            Route::Ledger | Route::Copy(_) => true,
        }
    }
}

/// Which way the records of an input go.
#[derive(Clone, Debug)]
pub enum Route {
    /// Into the ledger.
    Ledger,
    /// Into a copy, each to the partition of its ticket.
    Copy(Arc<KeyedCopy>),
    /// They are such copies, and go into the ledger.
    FromCopy(Arc<KeyedCopy>),
}

/// The keyed copy of an input.
#[derive(Debug)]
pub struct KeyedCopy {
    /// Its topic.
    pub topic: Arc<str>,
    /// How many partitions it has; 0 until that is known.
    pub partitions: AtomicI32,
}

impl KeyedCopy {
    /// The partition of a ticket. It depends on nothing else, and must never change: the tickets' states lie by it.
    pub fn partition(&self, source: &str, ticket: &Ticket) -> i32 {
        partition_of(TicketKey::of(source, &ticket.key), self.partitions.load(Ordering::Relaxed))
    }
}

/// The partition of a ticket among so many.
pub fn partition_of(ticket: TicketKey, partitions: i32) -> i32 {
    let count = u128::from(partitions.max(1).unsigned_abs());
    i32::try_from(ticket.0 % count).unwrap_or_default()
}

/// Packs and services, ready for use.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Those that count.
    pub own: Arc<Classifier>,
    /// Those that are only watched.
    pub shadow: Option<Arc<Classifier>>,
}

/// From bytes to findings.
#[derive(Clone, Debug)]
pub struct Preparer {
    /// By topic.
    pub inputs: Arc<HashMap<String, Arc<Input>>>,
    /// What finds the evidence.
    pub rules: Rules,
    /// Longer records are refused.
    pub max_record_bytes: usize,
}

/// Records that are ready for the ledger, in their order.
#[derive(Debug)]
pub struct Batch {
    pub(crate) records: Vec<(Fetched, Prepared)>,
    /// The rules that tagged them.
    pub(crate) rules: Rules,
    /// When the first of them was taken up.
    pub(crate) began: Instant,
}

impl Batch {
    /// The oldest time of a record, in milliseconds since 1970.
    pub fn oldest(&self) -> Option<i64> {
        self.records.iter().filter_map(|(fetched, _)| fetched.record.timestamp).min()
    }
}

/// A record after decoding, mapping and classifying.
#[derive(Debug)]
pub(crate) enum Prepared {
    Tickets(Vec<Classified>),
    /// To be copied to these partitions.
    Copies(SmallVec<[i32; 1]>),
    Ignored,
    Refused(Refusal),
}

/// A ticket, without what is looked at for evidence alone, and what was found in it.
#[derive(Debug)]
pub(crate) struct Classified {
    pub(crate) ticket: Ticket,
    pub(crate) findings: Findings,
    /// By the rules of the shadow, where there is one.
    pub(crate) shadow: Option<Findings>,
    /// The language of the texts, where the event declares a tag and ends the ticket.
    pub(crate) language: Option<Language>,
}

/// The buffers of one thread.
#[derive(Default)]
struct Scratches {
    own: Scratch,
    shadow: Scratch,
}

impl Preparer {
    /// Prepares records that came by no assignment, as those of dumps.
    pub fn prepare_all(&self, records: Vec<Record>) -> Batch {
        self.prepare(records.into_iter().map(|record| Fetched { record, epoch: Epoch::default() }).collect())
    }

    /// Prepares records on all cores.
    pub fn prepare(&self, fetched: Vec<Fetched>) -> Batch {
        let began = Instant::now();
        let prepared: Vec<Prepared> = fetched
            .par_iter()
            .with_min_len(16)
            .map_init(Scratches::default, |scratches, fetched| self.prepare_one(&fetched.record, scratches))
            .collect();
        Batch { records: fetched.into_iter().zip(prepared).collect(), rules: self.rules.clone(), began }
    }

    /// Decodes, maps and classifies one record; a panic on the way is the record's refusal, not the service's end.
    fn prepare_one(&self, record: &Record, scratches: &mut Scratches) -> Prepared {
        let Some(input) = self.inputs.get(&*record.partition.topic) else { return Prepared::Ignored };
        let result = caught(|| match &input.route {
            Route::Copy(copy) => Prepared::Copies(self.copies(input, copy, record)),
            Route::Ledger | Route::FromCopy(_) => self.classify(input, record, scratches),
        });
        result.unwrap_or_else(|panicked| {
            *scratches = Scratches::default();
            match &input.route {
                // Its copy will be refused with the reason.
                Route::Copy(copy) => Prepared::Copies(smallvec![own_partition(copy, record)]),
                Route::Ledger | Route::FromCopy(_) => Prepared::Refused(refusal(record, panicked)),
            }
        })
    }

    fn classify(&self, input: &Input, record: &Record, scratches: &mut Scratches) -> Prepared {
        match self.decode(input, record) {
            Err(refusal) => Prepared::Refused(refusal),
            Ok(Decoded::Ignored(_)) => Prepared::Ignored,
            Ok(Decoded::Tickets(tickets)) => {
                // Collected it would have room for four: nobody can know how many pass a filter.
                let mut classified = Vec::with_capacity(tickets.len());
                let here = tickets.into_iter().filter(|ticket| input.takes(record, ticket));
                classified.extend(here.map(|ticket| self.classified(ticket, scratches)));
                Prepared::Tickets(classified)
            }
        }
    }

    fn decode(&self, input: &Input, record: &Record) -> Result<Decoded, Refusal> {
        #[cfg(test)]
        assert_ne!(record.key.as_deref(), Some(&b"a defect of decoding"[..]));
        let length = record.value.as_ref().map_or(0, Vec::len);
        if length > self.max_record_bytes {
            let detail =
                format!("the record has {length} bytes, `[batch] max_record_bytes` allows {}", self.max_record_bytes);
            return Err(Refusal::new(Reason::TooLong, detail));
        }
        input.decoder.decode(record)
    }

    fn classified(&self, mut ticket: Ticket, scratches: &mut Scratches) -> Classified {
        let findings = self.rules.own.recall(&ticket, &mut scratches.own);
        let shadow = self.rules.shadow.as_ref().map(|other| other.recall(&ticket, &mut scratches.shadow));
        let language = self.language(&ticket, &findings);
        ticket.drop_evidence();
        Classified { ticket, findings, shadow, language }
    }

    /// The partitions of the tickets of a record; a record without any goes by its own partition.
    fn copies(&self, input: &Input, copy: &KeyedCopy, record: &Record) -> SmallVec<[i32; 1]> {
        let Ok(Decoded::Tickets(tickets)) = self.decode(input, record) else {
            return smallvec![own_partition(copy, record)];
        };
        let mut partitions: SmallVec<[i32; 1]> =
            tickets.iter().map(|ticket| copy.partition(&input.source, ticket)).collect();
        partitions.sort_unstable();
        partitions.dedup();
        partitions
    }

    /// The language of a ticket that ends with a declared tag; telling it costs more than all else, so others go without.
    /// Where there is too little text to tell, it is that of the pack which spoke loudest.
    fn language(&self, ticket: &Ticket, findings: &Findings) -> Option<Language> {
        let ends = ticket.state.is_some_and(|state| !state.is_open());
        findings.declared.filter(|_| ends)?;
        let text = [ticket.summary.as_deref(), ticket.description.as_deref()].into_iter().flatten();
        let told = Language::of(&text.collect::<Vec<_>>().join("\n"));
        let loudest = || findings.counting().max_by_key(|evidence| evidence.weight.abs());
        let pack = || Some(self.rules.own.rule(loudest()?.rule)?.pack.as_str());
        Some(if told == Language::Other { pack().and_then(Language::from_name).unwrap_or(told) } else { told })
    }
}

impl Rules {
    /// The tag that would follow if none were declared.
    pub(crate) fn predict(&self, findings: &Findings) -> Affects {
        findings.decide(Policy { ignore_declared: true, ..self.own.policy() }).affects
    }
}

fn own_partition(copy: &KeyedCopy, record: &Record) -> i32 {
    record.partition.number % copy.partitions.load(Ordering::Relaxed).max(1)
}

/// What becomes of a record that makes the program panic. The words of a panic may hold ticket text: they go with the
/// record, and the log gets the places alone.
pub(crate) fn refusal(record: &Record, panicked: Caught) -> Refusal {
    let Caught { place, message, backtrace } = panicked;
    tracing::error!(partition = %record.partition, offset = record.offset, place, "a record made the program panic; it is kept as a dead letter");
    let detail = format!("a defect of this program; please report it with the record: {message}, at {place}");
    Refusal { backtrace: Some(backtrace), ..Refusal::new(Reason::Panic, detail) }
}
