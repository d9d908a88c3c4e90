//! `patterns stats`: what each rule does on a dump.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use crate::cli::dumps::DumpArgs;
use crate::cli::{Ended, Format};
use crate::replay::{Replay, Stats};

/// `patterns stats …`.
#[derive(Debug, Args)]
pub struct StatsArgs {
    #[command(flatten)]
    dumps: DumpArgs,
    /// Packs in place of those of the configuration; `builtin` for those in the binary
    #[arg(long, value_name = "DIR")]
    packs: Vec<PathBuf>,
    /// The form of the results
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Runs the command.
///
/// # Errors
/// When packs or configuration are wrong, a dump cannot be read twice, or results cannot be written.
pub fn run(args: &StatsArgs, out: &mut impl Write) -> anyhow::Result<Ended> {
    let config = args.dumps.config_with(&args.packs)?;
    let (dumps, truth) = (args.dumps.dumps(), args.dumps.truth()?);
    dumps.check_rereadable()?;
    let replay = Replay { dumps, tagged: None, dead_letters: None, truth: truth.as_ref(), against: &[] };
    let stats = Stats::new(&replay.run(&config)?, truth.as_ref(), dumps, &config)?;
    match args.format {
        Format::Text => write!(out, "{stats}")?,
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&stats)?)?,
    }
    Ok(Ended::Fine)
}
