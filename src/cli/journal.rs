//! `journal`: what it holds, and moving it.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write, stdin, stdout};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::{Ended, Format, Settings};
use crate::journal::{self, Inspection, SqliteJournal, export, import};

/// `journal …`.
#[derive(Debug, Args)]
pub struct JournalArgs {
    #[command(subcommand)]
    command: JournalCommand,
}

#[derive(Debug, Subcommand)]
enum JournalCommand {
    /// Says what the journal holds, also while the service runs
    Inspect {
        #[command(flatten)]
        settings: Settings,
        /// Shows all that is held of the tickets with this id or key
        #[arg(long, value_name = "ID")]
        ticket: Option<String>,
        /// The form of the answer
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Writes the journal into a file, as JSON lines
    Export {
        #[command(flatten)]
        settings: Settings,
        /// The file; `-` for standard output
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Fills an empty journal, of either kind, from such a file; all instances have to be stopped
    Import {
        #[command(flatten)]
        settings: Settings,
        /// The file; `-` for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Copies a sqlite journal into another folder while the service runs
    Backup {
        #[command(flatten)]
        settings: Settings,
        /// The folder, which is made if need be
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
}

/// Runs the command.
///
/// # Errors
/// When the configuration is wrong, or the journal or the file cannot be read or written.
pub fn run(args: &JournalArgs) -> anyhow::Result<Ended> {
    match &args.command {
        JournalCommand::Inspect { settings, ticket, format } => inspect(settings, ticket.as_deref(), *format),
        JournalCommand::Export { settings, file } => export(settings, file),
        JournalCommand::Import { settings, file } => import(settings, file),
        JournalCommand::Backup { settings, folder } => backup(settings, folder),
    }
}

fn inspect(settings: &Settings, ticket: Option<&str>, format: Format) -> anyhow::Result<Ended> {
    let config = settings.load()?;
    let ledgers = journal::read(&config, config.ledger_settings())?;
    if let Some(id) = ticket {
        let held: Vec<_> =
            ledgers.iter().flat_map(|l| l.tickets()).filter(|held| held.id == id || held.key == id).collect();
        println!("{}", serde_json::to_string_pretty(&held)?);
        return Ok(if held.is_empty() { Ended::Found } else { Ended::Fine });
    }
    let inspection = Inspection::of(&ledgers);
    match format {
        Format::Text => print!("{inspection}"),
        Format::Json => println!("{}", serde_json::to_string_pretty(&inspection)?),
    }
    Ok(Ended::Fine)
}

fn export(settings: &Settings, file: &Path) -> anyhow::Result<Ended> {
    let config = settings.load()?;
    let ledgers = journal::read(&config, config.ledger_settings())?;
    let out: Box<dyn Write> = match file.to_str() {
        Some("-") => Box::new(stdout().lock()),
        _ => Box::new(File::create_new(file).with_context(|| format!("{} cannot be made", file.display()))?),
    };
    export::write(&ledgers, config.journal.kind.as_str(), BufWriter::new(out))?;
    let tickets: usize = ledgers.iter().map(|ledger| ledger.slot_count()).sum();
    eprintln!("{tickets} tickets exported");
    Ok(Ended::Fine)
}

fn import(settings: &Settings, file: &Path) -> anyhow::Result<Ended> {
    let config = settings.load()?;
    config.check_for_serve(&settings.name())?;
    let ledgers = match file.to_str() {
        Some("-") => export::read(stdin().lock(), config.ledger_settings()),
        _ => {
            let opened = File::open(file).with_context(|| format!("{} cannot be read", file.display()))?;
            export::read(BufReader::new(opened), config.ledger_settings())
        }
    };
    let ledgers = ledgers.with_context(|| file.display().to_string())?;
    let imported = import::import(&config, ledgers, config.ledger_settings())?;
    eprintln!("{} tickets of {} partitions imported", imported.tickets, imported.partitions);
    Ok(Ended::Fine)
}

fn backup(settings: &Settings, folder: &Path) -> anyhow::Result<Ended> {
    let config = settings.load()?;
    anyhow::ensure!(
        config.journal.kind == crate::config::JournalKind::Sqlite,
        "only a sqlite journal is a file; Kafka keeps copies of its topics by itself, and `journal export` writes a file"
    );
    let copy = SqliteJournal::backup(&config.journal.path, folder)?;
    eprintln!("{} is a copy as of the last commit", copy.display());
    Ok(Ended::Fine)
}
