//! `patterns suggest`: rules to go on from, out of tickets about which the packs say too little.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::cli::Ended;
use crate::cli::dumps::DumpArgs;
use crate::replay::Replay;
use crate::replay::suggest::{Suggestions, Wanted};

/// `patterns suggest …`.
#[derive(Debug, Args)]
pub struct SuggestArgs {
    #[command(flatten)]
    dumps: DumpArgs,
    /// Packs in place of those of the configuration; `builtin` for those in the binary
    #[arg(long, value_name = "DIR")]
    packs: Vec<PathBuf>,
    /// At most this many rules
    #[arg(long, value_name = "N", default_value_t = 50)]
    top: usize,
    /// Phrases in at least this many tickets about which the rules say too little
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    least: u32,
    /// Where the rules go [default: standard output]
    #[arg(long, value_name = "FILE.toml")]
    out: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// When packs or configuration are wrong, a dump cannot be read again, or results cannot be written.
pub fn run(args: &SuggestArgs, out: &mut impl Write) -> anyhow::Result<Ended> {
    let config = args.dumps.config_with(&args.packs)?;
    let (dumps, truth) = (args.dumps.dumps(), args.dumps.truth()?);
    dumps.check_rereadable()?;
    let replay = Replay { dumps, tagged: None, dead_letters: None, truth: truth.as_ref(), against: &[] };
    let wanted = Wanted { top: args.top, least: args.least };
    let suggestions = Suggestions::new(&replay.run(&config)?, truth.as_ref(), dumps, &config, wanted)?;
    let Suggestions { weak, others, rules } = &suggestions;
    eprintln!("{weak} tickets about which the rules say too little, {others} others: {} rules suggested", rules.len());
    if *others == 0 && *weak > 0 {
        eprintln!("with no other tickets there is nothing to compare with: write a few rules first, or give a --truth");
    }
    match &args.out {
        Some(path) => std::fs::write(path, suggestions.to_string())
            .with_context(|| format!("{} cannot be written", path.display()))?,
        None => write!(out, "{suggestions}")?,
    }
    Ok(Ended::Fine)
}
