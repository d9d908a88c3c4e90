//! Since when series that are fresh have been shown at 0, and which have been for long enough.

use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::ledger::{Fresh, Ledgers, Series};
use crate::record::Partition;

/// The fresh series of all ledgers.
#[derive(Debug)]
pub struct Holds {
    hold: Duration,
    /// By partition and series; no series stands for all of closed label sets.
    since: HashMap<(Partition, Option<Series>), Instant>,
}

impl Holds {
    /// Each series is shown at 0 for this long.
    pub fn new(hold: Duration) -> Self {
        Self { hold, since: HashMap::new() }
    }

    /// Takes notice of what is shown now.
    pub fn note(&mut self, ledgers: &Ledgers, now: Instant) {
        let before = std::mem::take(&mut self.since);
        for state in ledgers.iter().flat_map(|ledger| ledger.partitions()).filter(|state| !state.fresh.is_empty()) {
            let fixed = state.fresh.fixed.then_some(None);
            for series in fixed.into_iter().chain(state.fresh.series.iter().copied().map(Some)) {
                let name = (state.partition.clone(), series);
                let since = before.get(&name).copied().unwrap_or(now);
                self.since.insert(name, since);
            }
        }
    }

    /// Releases the series that have been shown at 0 for long enough; says whether there are some. A partition of which
    /// nothing was taken yet shows 0 anyway, and has nothing to be committed with.
    pub fn release(&self, ledgers: &mut Ledgers, now: Instant) -> bool {
        let mut due: HashMap<&Partition, Fresh> = HashMap::new();
        for ((partition, series), since) in &self.since {
            let begun = || ledgers.of(partition).and_then(|l| l.state(partition)).is_some_and(|s| s.next_offset > 0);
            if now.duration_since(*since) >= self.hold && begun() {
                let fresh = due.entry(partition).or_default();
                match series {
                    Some(series) => _ = fresh.series.insert(*series),
                    None => fresh.fixed = true,
                }
            }
        }
        for (partition, fresh) in &due {
            if let Some(ledger) = ledgers.of_mut(partition) {
                ledger.release(partition, fresh);
            }
        }
        !due.is_empty()
    }
}
