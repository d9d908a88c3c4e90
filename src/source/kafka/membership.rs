//! What this process may say of itself as a member of the group.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::consumer::ConsumerGroupMetadata;

/// The group's metadata as of the last rebalance that this process has taken notice of; none while it owns nothing.
///
/// Not as of now: a member that was thrown out and joins anew would have a valid generation before it knows that its
/// partitions are gone, and one without any would not be checked at all.
#[derive(Clone, Default)]
pub struct Membership(Arc<Mutex<Option<Arc<ConsumerGroupMetadata>>>>);

impl Membership {
    /// The metadata to send with offsets.
    pub fn get(&self) -> Option<Arc<ConsumerGroupMetadata>> {
        self.held().clone()
    }

    /// Takes notice of a rebalance.
    pub fn set(&self, metadata: Option<ConsumerGroupMetadata>) {
        *self.held() = metadata.map(Arc::new);
    }

    fn held(&self) -> MutexGuard<'_, Option<Arc<ConsumerGroupMetadata>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Membership").field(&self.held().is_some()).finish()
    }
}
