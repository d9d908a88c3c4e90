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

    /// Takes notice of what is shown now: of a partition with changes that are not committed, what was shown before.
    pub fn note(&mut self, ledgers: &Ledgers, now: Instant) {
        let before = std::mem::take(&mut self.since);
        for ledger in ledgers.iter() {
            for (number, state) in (0..).zip(ledger.partitions()).filter(|(_, state)| !state.fresh.is_empty()) {
                let is_committed = !ledger.changed_partitions().contains(&number);
                let fixed = state.fresh.fixed.then_some(None);
                for series in fixed.into_iter().chain(state.fresh.series.iter().copied().map(Some)) {
                    let name = (state.partition.clone(), series);
                    let since = before.get(&name).copied().or(is_committed.then_some(now));
                    if let Some(since) = since {
                        self.since.insert(name, since);
                    }
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Ledger, Settings};
    use crate::ticket::Ticket;
    use crate::verdict::Findings;

    #[test]
    fn a_series_is_held_from_when_it_is_shown_and_not_from_when_it_is_counted() {
        let partition = Partition { topic: "t".into(), number: 0 };
        let mut ledger = Ledger::new(Settings { holds: true, ..Settings::default() });
        let number = ledger.partition(&partition);
        let ticket =
            Ticket { key: "1".into(), effort_seconds: Some(60), group: Some("new".into()), ..Ticket::default() };
        let outcome = ledger.apply("s", number, 1, &ticket, Findings::default());
        ledger.finish_record(number, 0, Some(1), outcome);
        let mut ledgers = Ledgers::one(ledger);
        let (mut holds, begin) = (Holds::new(Duration::from_secs(60)), Instant::now());
        let after = |seconds| begin + Duration::from_secs(seconds);

        // The commit is refused for a while, and meanwhile partitions come and go.
        holds.note(&ledgers, after(0));
        assert!(!holds.release(&mut ledgers, after(90)));
        ledgers.settle();
        holds.note(&ledgers, after(100));
        assert!(!holds.release(&mut ledgers, after(159)));
        assert!(holds.release(&mut ledgers, after(160)));
    }
}
