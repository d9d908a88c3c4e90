//! Signs that a topic is not keyed by ticket. Where each partition has its own ledger, a ticket that comes by two
//! partitions would be counted twice.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ledger::{Ledgers, TicketKey};
use crate::metrics::Metrics;
use crate::record::Record;

/// What tells that a topic is not keyed by ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sign {
    /// Its records have no key.
    NoKey,
    /// A ticket's record has another key than the one before.
    ChangedKey,
    /// A ticket came by two partitions.
    TwoPartitions,
}

impl Sign {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoKey => "no_key",
            Self::ChangedKey => "changed_key",
            Self::TwoPartitions => "two_partitions",
        }
    }
}

/// Looks out for them.
#[derive(Debug)]
pub struct Watch {
    metrics: Arc<Metrics>,
    said: BTreeSet<(Arc<str>, Sign)>,
}

impl Watch {
    /// Nothing was seen yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, said: BTreeSet::new() }
    }

    /// Looks at a ticket of a record that was applied to the ledger of its partition.
    pub fn look(&mut self, ledgers: &mut Ledgers, record: &Record, ticket: TicketKey, is_new: bool) {
        let Ledgers::Each(all) = ledgers else { return };
        let key = record.key.as_deref().unwrap_or_default();
        let hash = if key.is_empty() { 0 } else { crc32fast::hash(key).max(1) };
        let changed = all.get_mut(&record.partition).is_some_and(|ledger| ledger.note_record_key(ticket, hash));
        let elsewhere =
            || all.iter().any(|(partition, ledger)| *partition != record.partition && ledger.ticket(ticket).is_some());
        let signs =
            [(Sign::NoKey, key.is_empty()), (Sign::ChangedKey, changed), (Sign::TwoPartitions, is_new && elsewhere())];
        signs.into_iter().filter(|(_, seen)| *seen).for_each(|(sign, _)| self.count(record, sign));
    }

    fn count(&mut self, record: &Record, sign: Sign) {
        let topic = &record.partition.topic;
        self.metrics.unkeyed.with_label_values(&[topic, sign.as_str()]).inc();
        if self.said.insert((topic.clone(), sign)) {
            tracing::error!(
                partition = %record.partition,
                offset = record.offset,
                sign = sign.as_str(),
                "`{topic}` is not keyed by ticket, and a ticket that comes by two partitions is counted twice: key the \
                 records by ticket, or set `rekey = true` for this `[[input]]`"
            );
        }
    }
}
