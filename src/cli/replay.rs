//! `replay`: dumps through the pipeline.

use std::path::PathBuf;

use clap::Args;

use super::dumps::DumpArgs;
use super::{Ended, Format};
use crate::replay::{Comparison, Replay, Report, resend};

/// `replay …`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    dumps: DumpArgs,
    /// Writes one JSON line a ticket, with its tag and evidence; `-` for standard output
    #[arg(long, value_name = "OUT.ndjson")]
    tagged: Option<PathBuf>,
    /// Where refused records go [default: beside the tagged output]. Without a dump: a topic of dead letters, which are sent
    /// again to the partitions they came from, each once
    #[arg(long, value_name = "FILE|TOPIC")]
    dead_letters: Option<PathBuf>,
    /// Ends with 1 if a record was refused
    #[arg(long)]
    strict: bool,
    /// Tags the same records a second time, with these packs laid over those of the configuration, and shows what moves
    #[arg(long, value_name = "DIR")]
    against: Vec<PathBuf>,
    /// Ends with 1 if more tickets than this change their tag
    #[arg(long, value_name = "N", requires = "against")]
    max_flips: Option<usize>,
    /// How many tickets that change their tag are listed
    #[arg(long, value_name = "N", requires = "against", default_value_t = 20)]
    show: usize,
    /// The form of the report
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Runs the command.
///
/// # Errors
/// When a dump cannot be read, the configuration is wrong, or results cannot be written.
pub fn run(args: &ReplayArgs) -> anyhow::Result<Ended> {
    if let (true, Some(topic)) = (args.dumps.is_empty(), &args.dead_letters) {
        return resend_dead_letters(args, &topic.to_string_lossy());
    }
    let config = args.dumps.config()?;
    let truth = args.dumps.truth()?;
    let replay = Replay {
        dumps: args.dumps.dumps(),
        tagged: args.tagged.as_deref(),
        dead_letters: args.dead_letters_path(),
        truth: truth.as_ref(),
        against: &args.against,
    };
    let pipeline = replay.run(&config)?;
    let report = Report::new(pipeline.ledger(), truth.as_ref());
    let comparison = Comparison::new(&pipeline, truth.as_ref());
    let text = match (&comparison, args.format) {
        (None, Format::Text) => report.to_string(),
        (None, Format::Json) => serde_json::to_string_pretty(&report)? + "\n",
        (Some(comparison), Format::Text) => comparison.text(args.show)?,
        (Some(comparison), Format::Json) => serde_json::to_string_pretty(comparison)? + "\n",
    };
    let tagged_on_stdout = args.tagged.as_ref().is_some_and(|path| path.as_os_str() == "-");
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
    let refused = args.strict && report.dead_letters() > 0;
    let flipped = comparison.is_some_and(|comparison| args.too_many(comparison.flips.len()));
    Ok(if refused || flipped { Ended::Found } else { Ended::Fine })
}

fn resend_dead_letters(args: &ReplayArgs, topic: &str) -> anyhow::Result<Ended> {
    let settings = args.dumps.settings();
    let config = settings.load()?;
    config.check_for_serve(&settings.name())?;
    let resent = resend(&config, topic)?;
    match args.format {
        Format::Text => print!("{resent}"),
        Format::Json => println!("{}", serde_json::to_string_pretty(&resent)?),
    }
    Ok(Ended::Fine)
}

impl ReplayArgs {
    /// As given, or beside the tagged output.
    fn dead_letters_path(&self) -> Option<PathBuf> {
        let beside = || {
            self.tagged.as_ref().filter(|path| path.as_os_str() != "-").map(|path| path.with_extension("dead.ndjson"))
        };
        self.dead_letters.clone().or_else(beside)
    }

    /// Whether more tickets flip than may; says so.
    fn too_many(&self, flips: usize) -> bool {
        let Some(limit) = self.max_flips.filter(|limit| flips > *limit) else { return false };
        eprintln!("{flips} tickets change their tag, --max-flips allows {limit}; change the packs, or raise the limit");
        true
    }
}
