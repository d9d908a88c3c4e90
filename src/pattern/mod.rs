//! The pattern engine: rules as people write them, compiled into one automaton, run over one field at a time.
//!
//! A rule has three lives: as written and loaded ([`pack`], its phrases spelt out by [`phrase`], its regexes gated by
//! [`regex`]), as compiled ([`compile`]), and at work ([`matcher`]). [`check`] finds what is wrong with rules that load.

pub mod check;
pub mod compile;
pub mod matcher;
pub mod pack;
pub mod phrase;
pub mod regex;
pub mod when;

#[cfg(test)]
mod tests;
