//! What is looked at from time to time: whether the group's partitions are where they should be.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::groups::GroupInfo;

use super::reader::Reader;
use super::{Epoch, SourceError, Unready};
use crate::record::Partition;

/// How long after a rebalance another member of the group must have gone again before it counts as one.
const SETTLE: Duration = Duration::from_secs(10);
/// How long partitions may take from one owner to the next.
const HAND_OVER: Duration = Duration::from_secs(2);
/// How often it is looked whether every partition has an owner.
const LOOK_AGAIN: Duration = Duration::from_mins(1);
/// How long the brokers may take to describe the group. All are asked, twice, each time behind a fetch that waits for half
/// a second where nothing comes; nothing is read while one of them is silent.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Notices partitions that nobody owns, and asks for them.
///
/// A member that was killed between giving a partition up and joining again for it to be handed on, and that is started
/// again before its session is over, gets its old assignment back without a rebalance (KIP-345): the group counts as
/// settled, and what was given up stays with nobody.
#[derive(Default)]
pub(super) struct Owners {
    look_at: Option<Instant>,
    /// What nobody owned at the last look.
    missing: BTreeSet<Partition>,
}

impl Owners {
    pub(super) fn check(&mut self, reader: &Reader) -> Result<(), SourceError> {
        if !reader.shared.joined.load(Ordering::Relaxed) {
            *self = Self::default();
            return Ok(());
        }
        let now = Instant::now();
        if now < *self.look_at.get_or_insert(now + HAND_OVER) {
            return Ok(());
        }
        let missing = without_owner(reader).unwrap_or_else(|error| {
            reader.shared.note_error(format_args!("it cannot be seen whether every partition has an owner: {error}"));
            BTreeSet::new()
        });
        let still: Vec<_> = missing.intersection(&self.missing).cloned().collect();
        reader.shared.state().without_owner = still.len();
        self.look_at = Some(now + if missing.is_empty() { LOOK_AGAIN } else { HAND_OVER });
        self.missing = missing;
        if still.is_empty() {
            return Ok(());
        }
        tracing::warn!(partitions = still.len(), first = %still[0], "no member of the group owns them; joining again for them");
        self.missing.clear();
        reader.ask_anew()
    }
}

/// The partitions of all topics that no member of the group owns; none while it is rebalancing.
fn without_owner(reader: &Reader) -> Result<BTreeSet<Partition>, String> {
    let group = &reader.options.kafka.group;
    // First of all, since it waits for the shortest time where brokers are away.
    let listed = reader.consumer.fetch_group_list(Some(group), DESCRIBE_TIMEOUT).map_err(|error| error.to_string())?;
    let settled = |info: &&GroupInfo| info.name() == group && info.state() == "Stable";
    let Some(info) = listed.groups().iter().find(settled) else { return Ok(BTreeSet::new()) };
    let mut all: BTreeSet<Partition> = reader.partitions_of(&reader.options.all_topics())?.into_iter().collect();
    for member in info.members() {
        let assigned = assignment(member.assignment().unwrap_or_default());
        for partition in assigned.ok_or("a member's assignment is not that of a consumer")? {
            all.remove(&partition);
        }
    }
    Ok(all)
}

/// What a member is assigned, from the bytes of Apache Kafka's `ConsumerProtocolAssignment`: a version, and an array of
/// topics, each with an array of partitions; `None` when they are something else.
fn assignment(bytes: &[u8]) -> Option<Vec<Partition>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let mut rest = bytes;
    let mut assigned = Vec::new();
    let _version = take(&mut rest).map(i16::from_be_bytes)?;
    for _ in 0..take(&mut rest).map(i32::from_be_bytes)? {
        let length = take(&mut rest).map(i16::from_be_bytes)?;
        let (topic, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        let topic: Arc<str> = std::str::from_utf8(topic).ok()?.into();
        rest = after;
        for _ in 0..take(&mut rest).map(i32::from_be_bytes)? {
            let number = take(&mut rest).map(i32::from_be_bytes)?;
            assigned.push(Partition { topic: topic.clone(), number });
        }
    }
    Some(assigned)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

/// Notices partitions that were added to the inputs: the group's leader has them given out, so every member hears of it by
/// a rebalance.
#[derive(Default)]
pub(super) struct Growth {
    looked: Epoch,
    again_at: Option<Instant>,
}

impl Growth {
    /// Asks whether the journal is still ready, if there are not `partitions` any more.
    pub(super) fn check(&mut self, reader: &Reader, partitions: usize) -> Result<(), SourceError> {
        let Some(prepare) = &reader.options.prepare else { return Ok(()) };
        let newest = reader.shared.epoch.load(Ordering::Relaxed);
        let due = self.again_at.is_none_or(|at| Instant::now() >= at);
        if !due || (self.again_at.is_none() && newest == self.looked) {
            return Ok(());
        }
        (self.looked, self.again_at) = (newest, None);
        let looked = reader.partitions_of(&reader.options.topics).and_then(|all| match all.len() == partitions {
            true => Ok(Ok(())),
            false => match prepare(&all) {
                Ok(()) => Ok(Ok(())),
                Err(Unready::Never(reason)) => Ok(Err(SourceError::Journal(reason))),
                Err(Unready::NotYet(reason)) => Err(reason),
            },
        });
        looked.unwrap_or_else(|error| {
            reader.shared.note_error(error);
            self.again_at = Some(Instant::now() + SETTLE);
            Ok(())
        })
    }
}

/// Notices another member of the group by the partitions that are missing here for longer than a rebalance takes.
#[derive(Default)]
pub(super) struct SoleMember {
    assigned: Option<usize>,
    check_at: Option<Instant>,
    /// Whether the partitions that are missing were asked for.
    asked: bool,
}

impl SoleMember {
    pub(super) fn check(&mut self, reader: &Reader) -> Result<(), SourceError> {
        let assigned = reader.shared.state().assigned.len();
        let joined = reader.shared.joined.load(Ordering::Relaxed);
        if !self.is_due(joined.then_some(assigned), Instant::now()) {
            return Ok(());
        }
        match reader.partitions_of(&reader.options.topics) {
            Ok(all) if assigned < all.len() && !self.asked => {
                self.asked = true;
                reader.ask_anew()
            }
            Ok(all) if assigned < all.len() => {
                let group = reader.options.kafka.group.clone();
                Err(SourceError::SharedGroup { group, assigned, all: all.len() })
            }
            Ok(_) => {
                self.asked = false;
                Ok(())
            }
            Err(error) => {
                reader.shared.note_error(error);
                self.check_at = Some(Instant::now() + SETTLE);
                Ok(())
            }
        }
    }

    /// Whether so many partitions have been assigned for long enough; `None` while the group is not joined, since who has
    /// lost everything with the brokers is not alone for that.
    fn is_due(&mut self, assigned: Option<usize>, now: Instant) -> bool {
        if assigned != self.assigned {
            self.assigned = assigned;
            self.check_at = assigned.map(|_| now + SETTLE);
        }
        self.check_at.take_if(|at| now >= *at).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_member_is_looked_for_once_after_each_change_and_never_while_the_group_is_not_joined() {
        let (mut sole, start) = (SoleMember::default(), Instant::now());
        let seconds = |seconds| start + Duration::from_secs(seconds);
        let looks = [
            (None, 0, false),
            (Some(4), 1, false),
            (Some(4), 11, true),
            (Some(4), 30, false),
            // Lost with the session, while the brokers are away.
            (None, 40, false),
            (None, 60, false),
            (Some(0), 61, false),
            (Some(0), 71, true),
        ];
        for (assigned, second, due) in looks {
            assert_eq!(sole.is_due(assigned, seconds(second)), due, "{assigned:?} at {second} s");
        }
    }

    #[test]
    fn an_assignment_is_read_and_what_is_none_is_told_from_it() {
        let two_topics = [
            &[0, 3, 0, 0, 0, 2, 0, 1][..],
            b"a",
            &[0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 2],
            b"bc",
            &[0, 0, 0, 1, 0, 0, 1, 0, 255, 255, 255, 255],
        ]
        .concat();
        let named = |topic: &str, number| Partition { topic: topic.into(), number };
        assert_eq!(assignment(&two_topics), Some(vec![named("a", 0), named("a", 7), named("bc", 256)]));
        assert_eq!(assignment(&[]), Some(vec![]));
        for length in 1..two_topics.len() - 4 {
            assert_eq!(assignment(&two_topics[..length]), None, "{length} bytes");
        }
        assert_eq!(assignment(&[0, 0, 0, 0, 0, 1, 255, 255, 0, 0, 0, 0]), None);
    }
}
