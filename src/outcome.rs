//! What became of a record: one closed enum whose names are the metric label, the log word and the documentation.

use serde::{Deserialize, Serialize};

use crate::ticket::names;

names! {
    /// What became of one record. Every record ends in exactly one outcome, and every outcome advances the position.
    Outcome {
        /// It changed the ledger.
        Applied = "applied",
        /// The version it carries is the one held.
        Repeated = "repeated",
        /// A newer version is held.
        Stale = "stale",
        /// Its ticket has left memory after the retention.
        Late = "late",
        /// It carries no ticket by design: a tombstone, a heartbeat, a comment.
        Ignored = "ignored",
        /// It could not be decoded or mapped; its bytes are kept as a dead letter.
        DeadLetter = "dead_letter",
    }
}

names! {
    /// Why a record could not be taken.
    Reason {
        /// Longer than `[batch] max_record_bytes`.
        TooLong = "too_long",
        /// Not UTF-8, or not JSON (or not the dump format that was announced).
        Undecodable = "undecodable",
        /// An envelope that is announced by its marks but broken inside.
        BadEnvelope = "bad_envelope",
        /// Well-formed, but no ticket can be made of it: no id, or a field whose value means nothing.
        Unmappable = "unmappable",
        /// The vendor's own "this operation failed" row.
        VendorError = "vendor_error",
        /// A defect of this program: the record made it panic.
        Panic = "panic",
    }
}

/// A record that cannot be taken: the reason, and in words what was found where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.as_str())]
pub struct Refusal {
    /// The class of trouble, which is also the metric label.
    pub reason: Reason,
    /// What was found, where, and what was expected. Never holds ticket text beyond the offending value's type.
    pub detail: String,
    /// Where a defect of this program was met: how it came there.
    pub backtrace: Option<String>,
}

impl Refusal {
    /// A refusal with its reason and detail.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), backtrace: None }
    }
}
