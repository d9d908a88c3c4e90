//! What a journal holds, in numbers.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use crate::ledger::{Ledgers, Series, Slot};
use crate::replay::grouped;

/// The whole.
#[derive(Debug, Default, Serialize)]
pub struct Inspection {
    /// Tickets by their state.
    pub tickets: BTreeMap<&'static str, u64>,
    /// Tickets that have left memory.
    pub retired: u64,
    /// Effort logged on the tickets held, in seconds.
    pub effort_seconds: u64,
    /// The partitions.
    pub partitions: Vec<Inspected>,
}

/// One partition.
#[derive(Debug, Serialize)]
pub struct Inspected {
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: i32,
    /// The offset of the next record to take.
    pub position: i64,
    /// Records counted.
    pub records: i64,
    /// The newest time of a record.
    pub newest: Option<Timestamp>,
    /// Series counted.
    pub series: usize,
    /// Series that are still shown at 0.
    pub fresh: usize,
}

impl Inspection {
    /// What ledgers hold.
    pub fn of(ledgers: &Ledgers) -> Self {
        let mut inspection = Self::default();
        for ledger in ledgers.iter() {
            for (_, slot) in ledger.slots() {
                match slot {
                    Slot::Retired => inspection.retired += 1,
                    Slot::Held(held) => {
                        *inspection.tickets.entry(held.state.as_str()).or_default() += 1;
                        inspection.effort_seconds = inspection.effort_seconds.saturating_add(held.effort.seconds());
                    }
                }
            }
            for state in ledger.partitions() {
                let records = state.counters.iter().filter(|(series, _)| matches!(series, Series::Records { .. }));
                inspection.partitions.push(Inspected {
                    topic: state.partition.topic.to_string(),
                    partition: state.partition.number,
                    position: state.next_offset,
                    records: records.map(|(_, count)| count).sum(),
                    newest: Timestamp::from_millisecond(state.watermark).ok().filter(|_| state.watermark > i64::MIN),
                    series: state.counters.len(),
                    fresh: state.fresh.series.len(),
                });
            }
        }
        inspection.partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        inspection
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Inspected { topic, partition, position, records, newest, series, fresh } in &self.partitions {
            write!(f, "{topic}[{partition}]: {} records up to offset {position}", grouped(records.unsigned_abs()))?;
            if let Some(newest) = newest {
                write!(f, ", the newest of {newest}")?;
            }
            writeln!(f, "; {series} series, {fresh} of them still shown at 0")?;
        }
        let held: u64 = self.tickets.values().sum();
        write!(f, "{} tickets held", grouped(held))?;
        let states: Vec<_> = self.tickets.iter().map(|(state, count)| format!("{} {state}", grouped(*count))).collect();
        if !states.is_empty() {
            write!(f, " ({})", states.join(", "))?;
        }
        writeln!(f, ", {} have left memory", grouped(self.retired))?;
        writeln!(f, "{} seconds of effort logged on those held", grouped(self.effort_seconds))
    }
}
