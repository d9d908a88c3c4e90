//! The options of every command that reads dumps.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;

use super::Settings;
use crate::config::Config;
use crate::diagnostic::{Place, Problem, Problems};
use crate::replay::{Dumps, Truth};
use crate::source::dump::Format;

/// Dumps, how they are read, and the configuration.
#[derive(Debug, Args)]
pub struct DumpArgs {
    /// CSV or NDJSON/JSON files, also gzipped; `-` for standard input
    #[arg(value_name = "DUMP")]
    paths: Vec<PathBuf>,
    /// The profile that maps the records; found out from the first record without it
    #[arg(long)]
    profile: Option<String>,
    /// The format of the dumps; found out without it
    #[arg(long, value_name = "FORMAT", value_parser = dump_format)]
    input_format: Option<Format>,
    /// The zone of times that name none, such as Europe/Berlin
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// Compares the tags with a truth: `affects` for the declared tags, or a CSV with the columns id and label
    #[arg(long, value_name = "affects|FILE.csv")]
    truth: Option<String>,
    #[command(flatten)]
    settings: Settings,
}

impl DumpArgs {
    /// The configuration.
    ///
    /// # Errors
    /// All its problems, or that no dump is given.
    pub fn config(&self) -> Result<Config, Problems> {
        let config = self.settings.load()?;
        match self.is_empty() {
            false => Ok(config),
            true => {
                let mut problems = Problems::new();
                let problem = Problem::error("no-dump", &Place::Named("DUMP".to_owned()), "no dump is given");
                problems.push(problem.help("name the files, or `-` for standard input"));
                Err(problems)
            }
        }
    }

    /// The settings alone.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether no dump is given.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// The configuration, with other packs in place of its own where any are given; `builtin` are those in the binary.
    ///
    /// # Errors
    /// All its problems.
    pub fn config_with(&self, packs: &[PathBuf]) -> Result<Config, Problems> {
        let mut config = self.config()?;
        if !packs.is_empty() {
            config.patterns.packs = packs.to_vec();
        }
        Ok(config)
    }

    /// The dumps.
    pub fn dumps(&self) -> Dumps<'_> {
        Dumps {
            paths: &self.paths,
            profile: self.profile.as_deref(),
            format: self.input_format,
            timezone: self.timezone.as_deref(),
            progress: std::io::stderr().is_terminal(),
        }
    }

    /// What the tags are compared with, if anything.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn truth(&self) -> anyhow::Result<Option<Truth>> {
        self.truth.as_deref().map(Truth::parse).transpose()
    }
}

fn dump_format(name: &str) -> Result<Format, String> {
    Format::from_name(name).ok_or_else(|| "one of csv, ndjson, json".to_owned())
}
