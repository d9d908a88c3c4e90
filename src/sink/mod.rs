//! What is written besides metrics: tagged tickets and refused records.

mod dead_letter;
mod producer;
mod tagged;
mod transaction;

pub use dead_letter::{
    DEAD_LETTERS, DeadLetter, DeadLetterError, DeadLetters, HEADERS, Origin, copy_of, cut, foreign_headers, is_cut,
};
pub use producer::{DeliveryError, Outgoing, Producer};
pub use tagged::TaggedLine;
pub use transaction::{Positions, REQUEST_TIMEOUT, Standalone, TransactionError, marked};
