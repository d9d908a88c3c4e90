//! What is written besides metrics: tagged tickets and refused records.

mod dead_letter;
mod producer;
mod tagged;

pub use dead_letter::{DeadLetter, DeadLetterError, DeadLetters, HEADERS, Origin, copy_of, foreign_headers};
pub use producer::{DeliveryError, Outgoing, Producer};
pub use tagged::TaggedLine;
