//! What librdkafka calls back on the polling thread: rebalances, statistics, errors.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use hashbrown::HashMap;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use serde::Deserialize;

use super::state::Shared;
use super::{Generation, Rebalance, Start, claim_position, list_of, partitions};
use crate::record::Partition;

/// How long a rebalance waits for the pipeline to let partitions go: a commit takes less.
const LET_GO: Duration = Duration::from_secs(10);

/// What the callbacks know.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) shared: Arc<Shared>,
    pub(super) rebalances: Sender<Rebalance>,
    pub(super) start: Start,
}

/// The few figures wanted of librdkafka's statistics.
#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    topics: HashMap<String, TopicStatistics>,
}

#[derive(Deserialize)]
struct TopicStatistics {
    #[serde(default)]
    partitions: HashMap<String, PartitionStatistics>,
}

#[derive(Deserialize)]
struct PartitionStatistics {
    /// Where the records end that count.
    #[serde(default)]
    ls_offset: i64,
    /// What is fetched next.
    #[serde(default)]
    next_offset: i64,
    /// Records that were fetched and not handed over.
    #[serde(default)]
    fetchq_cnt: i64,
}

impl ClientContext for Context {
    fn stats_raw(&self, statistics: &[u8]) {
        let Ok(statistics) = serde_json::from_slice::<Statistics>(statistics) else { return };
        let mut state = self.shared.state();
        for (topic, TopicStatistics { partitions }) in statistics.topics {
            for (number, statistics) in partitions {
                if let Ok(number @ 0..) = number.parse::<i32>()
                    && statistics.ls_offset >= 0
                {
                    let partition = Partition { topic: topic.as_str().into(), number };
                    let position = state.positions.get(&partition).copied().unwrap_or_default();
                    let end = self.end(&partition, position, &statistics);
                    state.ends.insert(partition, end);
                }
            }
        }
        if state.lag().all(|(_, lag)| lag == 0) {
            state.caught_up = Some(Instant::now());
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.shared.note_error(format_args!("{error}: {reason}"));
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let result = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, list),
            _ => self.unassign(consumer, list),
        };
        if let Err(error) = result {
            self.shared.note_error(format_args!("rebalance: {error}"));
        }
    }
}

fn is_cooperative(consumer: &BaseConsumer<Context>) -> bool {
    matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative)
}

impl Context {
    /// The offset behind the last record. Once everything is fetched, that is the one behind the last record that came, or
    /// the position if none came: only the marks of transactions stand after it.
    fn end(&self, partition: &Partition, position: i64, statistics: &PartitionStatistics) -> i64 {
        let PartitionStatistics { ls_offset, next_offset, fetchq_cnt } = *statistics;
        if next_offset < ls_offset || fetchq_cnt > 0 {
            return ls_offset;
        }
        self.shared.next().get(partition).copied().filter(|next| *next >= 0).unwrap_or(position)
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) -> KafkaResult<()> {
        let assigned = partitions(list);
        let (claims, waiting) = self.set_offsets(list);
        let taken = if is_cooperative(consumer) { consumer.incremental_assign(list) } else { consumer.assign(list) };
        let paused = match waiting.is_empty() {
            true => Ok(()),
            false => consumer.pause(&list_of(&waiting)),
        };
        tracing::info!(partitions = assigned.len(), "assigned");
        let assigned = self.shared.assign(assigned, &waiting);
        self.send(Rebalance::Member(consumer.group_metadata().into()));
        self.send(Rebalance::Assigned(assigned));
        taken.and(paused).and_then(|()| commit(consumer, &claims))
    }

    /// Sets where to begin each partition; returns the positions to claim in the group, and the partitions that wait
    /// until the pipeline says where.
    fn set_offsets(&self, list: &mut TopicPartitionList) -> (TopicPartitionList, Vec<Partition>) {
        let (mut claims, mut waiting) = (TopicPartitionList::new(), Vec::new());
        for partition in partitions(list) {
            let offset = match &self.start {
                Start::Known { journal, .. } => {
                    let state = self.shared.state();
                    let position = state.positions.get(&partition).copied();
                    // Not where nothing was read: the next start would begin there, whatever is to be done without a position.
                    let claimed = position.filter(|position| !state.is_behind(&partition, *position));
                    if let Some((id, position)) = journal.as_ref().zip(claimed) {
                        claim_position(&mut claims, &partition, position, id);
                    }
                    position.map(Offset::Offset)
                }
                Start::Told { .. } => {
                    waiting.push(partition.clone());
                    // Any offset that is one, so that the partition can be told to go elsewhere.
                    Some(Offset::Offset(0))
                }
            };
            if let Some(offset) = offset
                && let Err(error) = list.set_partition_offset(&partition.topic, partition.number, offset)
            {
                self.shared.note_error(format_args!("cannot start {partition} at {offset:?}: {error}"));
            }
        }
        (claims, waiting)
    }

    /// Lets the pipeline let go of partitions before the group hears of it, so that no two members show the same.
    fn unassign(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> KafkaResult<()> {
        let revoked = partitions(list);
        let lost = consumer.assignment_lost();
        tracing::info!(partitions = revoked.len(), lost, "revoked");
        let let_go = if lost { self.lose(&revoked) } else { self.revoke(&revoked) };
        // What is lost is another's already; and a heartbeat that librdkafka sends while it waits here, after the session
        // is over and with no member id any more, would be answered as that of an impostor, which ends the client.
        let waits = matches!(self.start, Start::Told { .. }) && !lost && !self.shared.stopped();
        if waits && let_go.recv_timeout(LET_GO).is_err() {
            self.shared.note_error("partitions are given up while a commit is under way; it will be refused");
        }
        let left = if is_cooperative(consumer) { consumer.incremental_unassign(list) } else { consumer.unassign() };
        if !lost {
            self.send(Rebalance::Member(consumer.group_metadata().into()));
        }
        left
    }

    /// Takes notice that partitions are another's already.
    pub(super) fn lose(&self, lost: &[Partition]) -> Receiver<()> {
        self.shared.joined.store(false, Ordering::Relaxed);
        self.send(Rebalance::Member(Generation::default()));
        self.revoke(lost)
    }

    /// Has the pipeline let go of partitions, and says when it has.
    fn revoke(&self, revoked: &[Partition]) -> Receiver<()> {
        self.shared.revoke(revoked);
        let (done, let_go) = bounded(1);
        self.send(Rebalance::Revoked(revoked.to_vec(), done));
        let_go
    }

    fn send(&self, rebalance: Rebalance) {
        if self.rebalances.send(rebalance).is_err() {
            self.shared.stop();
        }
    }
}

fn commit(consumer: &BaseConsumer<Context>, positions: &TopicPartitionList) -> KafkaResult<()> {
    if positions.count() == 0 { Ok(()) } else { consumer.commit(positions, CommitMode::Async) }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::unbounded;

    use super::*;

    #[test]
    fn a_partition_of_which_nothing_has_come_has_no_lag_where_everything_is_fetched() {
        let start = Start::Known { counted: HashMap::new(), journal: None, is_behind: false };
        let context = Context { shared: Arc::default(), rebalances: unbounded().0, start };
        let partition = Partition { topic: "t".into(), number: 0 };
        context.shared.assign(vec![partition.clone()], &[]);
        for (next, waiting, record, position, lag) in [
            (500, 0, None, None, 0), // It begins at 500.
            (480, 0, None, None, 500),
            (500, 0, None, Some(497), 0), // Marks of transactions.
            (500, 3, Some(490), Some(480), 20),
            (500, 0, Some(499), Some(480), 19),
        ] {
            let numbers = format!("\"ls_offset\":500,\"next_offset\":{next},\"fetchq_cnt\":{waiting}");
            context.shared.next().insert(partition.clone(), record.unwrap_or(i64::MIN));
            context.shared.state().positions =
                position.map(|position| (partition.clone(), position)).into_iter().collect();
            context
                .stats_raw(format!("{{\"topics\":{{\"t\":{{\"partitions\":{{\"0\":{{{numbers}}}}}}}}}}}").as_bytes());
            assert_eq!(context.shared.state().lag().map(|(_, lag)| lag).sum::<i64>(), lag, "{numbers}");
        }
    }
}
