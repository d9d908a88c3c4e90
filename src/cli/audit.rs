//! `audit`: counts everything a second time and compares with the journal.

use std::path::PathBuf;

use clap::Args;

use super::{Ended, Format, Settings};
use crate::audit::audit;
use crate::config::{Config, JournalKind};
use crate::diagnostic::{Place, Problem, Problems};

/// `audit …`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Records in files in place of those in Kafka, as `kcat -C -J` writes them, also gzipped
    #[arg(value_name = "DUMP")]
    dumps: Vec<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    /// The form of the report
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Runs the command.
///
/// # Errors
/// When the configuration is wrong, or journal, brokers or dumps cannot be read.
pub fn run(args: &AuditArgs) -> anyhow::Result<Ended> {
    let config = args.settings.load()?;
    config.check_for_serve(&args.settings.name())?;
    check_journal(&config, &args.settings.name())?;
    let report = audit(&config, &args.dumps)?;
    match args.format {
        Format::Text => print!("{report}"),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(if report.found() { Ended::Found } else { Ended::Fine })
}

/// Without a journal there is nothing to compare with.
fn check_journal(config: &Config, file: &str) -> Result<(), Problems> {
    let mut problems = Problems::new();
    if config.journal.kind == JournalKind::None {
        let title = "`[journal] kind` is `none`: nothing is kept that could be audited";
        let problem = Problem::error("no-journal", &Place::Named(file.to_owned()), title);
        problems.push(problem.help("let `serve` run with `kind = \"sqlite\"` or `\"kafka\"`, and audit that"));
    }
    problems.into_result(())
}
