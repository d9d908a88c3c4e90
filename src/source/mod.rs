//! Where records come from: topics of Kafka, and dump files.

pub mod dump;
pub mod kafka;
