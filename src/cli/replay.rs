//! `replay`: dumps through the pipeline.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;

use super::{Ended, Format, Settings};
use crate::replay::{Replay, Truth};
use crate::source::dump::Format as DumpFormat;

/// `replay …`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// CSV or NDJSON/JSON files, also gzipped; `-` for standard input
    #[arg(required = true, value_name = "DUMP")]
    dumps: Vec<PathBuf>,
    /// The profile that maps the records; found out from the first record without it
    #[arg(long)]
    profile: Option<String>,
    /// The format of the dumps; found out without it
    #[arg(long, value_name = "FORMAT", value_parser = dump_format)]
    input_format: Option<DumpFormat>,
    /// The zone of times that name none, such as Europe/Berlin
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// Writes one JSON line a ticket, with its tag and evidence; `-` for standard output
    #[arg(long, value_name = "OUT.ndjson")]
    tagged: Option<PathBuf>,
    /// Compares the tags with a truth: `affects` for the declared tags, or a CSV with the columns id and label
    #[arg(long, value_name = "affects|FILE.csv")]
    truth: Option<String>,
    /// Where refused records go [default: beside the tagged output]
    #[arg(long, value_name = "FILE")]
    dead_letters: Option<PathBuf>,
    /// Ends with 1 if a record was refused
    #[arg(long)]
    strict: bool,
    /// The form of the report
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    settings: Settings,
}

/// Runs the command.
///
/// # Errors
/// When a dump cannot be read, the configuration is wrong, or results cannot be written.
pub fn run(args: &ReplayArgs) -> anyhow::Result<Ended> {
    let config = args.settings.load()?;
    let replay = Replay {
        dumps: &args.dumps,
        profile: args.profile.as_deref(),
        format: args.input_format,
        timezone: args.timezone.as_deref(),
        tagged: args.tagged.as_deref(),
        dead_letters: args.dead_letters_path(),
        truth: args.truth.as_deref().map(Truth::parse).transpose()?,
        progress: std::io::stderr().is_terminal(),
    };
    let report = replay.run(&config)?;
    let tagged_on_stdout = args.tagged.as_ref().is_some_and(|path| path.as_os_str() == "-");
    let text = match args.format {
        Format::Text => report.to_string(),
        Format::Json => serde_json::to_string_pretty(&report)? + "\n",
    };
    if tagged_on_stdout {
        eprint!("{text}")
    } else {
        print!("{text}")
    }
    match (report.dead_letters(), &replay.dead_letters) {
        (0, _) => {}
        (count, Some(path)) => eprintln!("{count} records were refused; they are in {}", path.display()),
        (count, None) => eprintln!("{count} records were refused; --dead-letters FILE keeps them"),
    }
    Ok(if args.strict && report.dead_letters() > 0 { Ended::Found } else { Ended::Fine })
}

impl ReplayArgs {
    /// As given, or beside the tagged output.
    fn dead_letters_path(&self) -> Option<PathBuf> {
        let beside = || {
            self.tagged.as_ref().filter(|path| path.as_os_str() != "-").map(|path| path.with_extension("dead.ndjson"))
        };
        self.dead_letters.clone().or_else(beside)
    }
}

fn dump_format(name: &str) -> Result<DumpFormat, String> {
    DumpFormat::from_name(name).ok_or_else(|| "one of csv, ndjson, json".to_owned())
}
