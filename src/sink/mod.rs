//! What is written besides metrics: tagged tickets and refused records.

mod dead_letter;
mod producer;
mod tagged;

pub use dead_letter::{DeadLetter, DeadLetterError, DeadLetters};
pub use producer::{DeliveryError, Producer};
pub use tagged::{TaggedLine, Tagger};
