//! customer-reach shows how much of IT's work reaches the people outside the company who buy and use its products.
//!
//! Data flows one way: a [`record`] is decoded and mapped to a [`ticket`], the classifier finds what speaks for and against
//! the customer in it ([`verdict`]), the ledger follows the ticket's effort, a journal makes that durable, and only
//! what is durable is shown.

pub mod audit;
pub mod builtin;
pub mod classify;
pub mod cli;
pub mod config;
pub mod demo;
pub mod diagnostic;
pub mod document;
pub mod envelope;
pub mod journal;
pub mod language;
pub mod ledger;
pub mod metrics;
pub mod outcome;
pub mod panic;
pub mod pattern;
pub mod pipeline;
pub mod prepare;
pub mod profile;
pub mod record;
pub mod replay;
pub mod serve;
pub mod server;
pub mod service;
pub mod sink;
pub mod source;
pub mod status;
pub mod text;
pub mod ticket;
pub mod verdict;
