//! What this process may say of itself as a member of the group.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::consumer::ConsumerGroupMetadata;

/// The group's metadata as of one rebalance; none while this process owns nothing.
#[derive(Clone, Default)]
pub struct Generation(Option<Arc<ConsumerGroupMetadata>>);

impl From<Option<ConsumerGroupMetadata>> for Generation {
    fn from(metadata: Option<ConsumerGroupMetadata>) -> Self {
        Self(metadata.map(Arc::new))
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Generation").field(&self.0.is_some()).finish()
    }
}

/// The generation of the last rebalance that the pipeline has taken notice of.
///
/// Not that of now: a member that was thrown out and joins anew would have a valid generation before it has let go of its
/// partitions, and one without any would not be checked at all.
#[derive(Clone, Debug, Default)]
pub struct Membership(Arc<Mutex<Generation>>);

impl Membership {
    /// The metadata to send with offsets.
    pub fn get(&self) -> Option<Arc<ConsumerGroupMetadata>> {
        self.held().0.clone()
    }

    /// Takes notice of a rebalance.
    pub fn set(&self, generation: Generation) {
        *self.held() = generation;
    }

    fn held(&self) -> MutexGuard<'_, Generation> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
