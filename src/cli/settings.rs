//! The options with which a configuration is given.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;

use crate::config::{Config, Overrides};
use crate::diagnostic::Problems;

/// A configuration file and what overrides it.
#[derive(Clone, Debug, Default, Args)]
pub struct Settings {
    /// The configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Overrides one setting of the file: `--set batch.linger=100ms`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl Settings {
    /// Reads the configuration; warnings are printed.
    ///
    /// # Errors
    /// All problems of the file, the environment and the options.
    pub fn load(&self) -> Result<Config, Problems> {
        let (config, warnings) = Config::load(self.config.as_deref(), &Overrides::from_process(self.set.clone()))?;
        if !warnings.is_empty() {
            eprintln!("{}", warnings.render(std::io::stderr().is_terminal()));
        }
        Ok(config)
    }

    /// What to call it in messages.
    pub fn name(&self) -> String {
        self.config
            .as_ref()
            .map_or("the configuration (no --config given)".to_owned(), |path| path.display().to_string())
    }
}
