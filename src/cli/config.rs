//! `config check` and `config print`.

use clap::{Args, Subcommand};

use super::{Ended, Settings};
use crate::serve::Loaded;

/// `config …`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Checks the configuration and every pack, profile and service map that it names
    Check(Settings),
    /// Prints the effective configuration as TOML, secrets hidden
    Print(Settings),
}

/// Runs the command.
///
/// # Errors
/// All problems of the configuration, and of the files that it names.
pub fn run(args: &ConfigArgs) -> anyhow::Result<Ended> {
    match &args.command {
        ConfigCommand::Check(settings) => {
            let config = settings.load()?;
            config.check_for_serve(&settings.name())?;
            let loaded = Loaded::load(&config)?;
            println!(
                "{}: fine; {} inputs, {} rules and services, hash {}",
                settings.name(),
                loaded.inputs.len(),
                loaded.rules.own.rules().count(),
                loaded.rules.own.hash()
            );
        }
        ConfigCommand::Print(settings) => print!("{}", settings.load()?.print()),
    }
    Ok(Ended::Fine)
}
