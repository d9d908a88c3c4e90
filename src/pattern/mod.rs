//! The pattern engine: rules as people write them, compiled into one automaton, run over one field at a time.
//!
//! A rule has three lives: as written and loaded ([`pack`], [`rule`], its phrases spelt out by [`phrase`], its regexes
//! gated by [`regex`]), as compiled ([`compile`]), and at work ([`matcher`]). [`zone`] says where evidence weighs less;
//! [`check`] finds what is wrong with rules that load.

pub mod check;
pub mod compile;
mod hit;
pub mod matcher;
pub mod pack;
pub mod phrase;
pub mod regex;
pub mod rule;
mod table;
mod trie;
pub mod when;
mod word;
pub mod zone;

#[cfg(test)]
mod tests;
