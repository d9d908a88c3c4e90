//! Everything that is tested from outside the library: the binary, real Kafka, real Prometheus.
//!
//! Tests that need a broker or Prometheus find them in the environment that `tests/run` sets up.

#![allow(
    clippy::unwrap_used,
    clippy::let_underscore_must_use,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a test that cannot go on fails"
)]

mod bad;
mod cluster;
mod dead_letters;
mod demo;
mod faults;
mod fleet;
mod golden;
mod hold;
mod journal;
mod kafka;
mod prometheus;
mod proxy;
mod rekey;
mod story;
mod stuck;
mod support;
