//! The command line: one file a command, and the exit codes they share.

mod audit;
mod config;
mod dumps;
mod explain;
mod journal;
mod patterns;
mod replay;
mod services;
mod settings;

use std::io::ErrorKind;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

pub use settings::Settings;

use crate::demo::{self, DemoArgs};
use crate::diagnostic::Problems;
use crate::serve::Service;

/// Shows how much of IT's work reaches the people outside the company who buy and use its products.
#[derive(Debug, Parser)]
#[command(
    name = "customer-reach",
    version,
    about,
    after_help = "Exit codes: 0 fine, 1 the work failed or a check found something, 2 wrong usage or configuration."
)]
pub struct Cli {
    /// What the log says: a level or a filter such as `info,customer_reach=debug` [default: info; demo: warn].
    #[arg(long, global = true, env = "CUSTOMER_REACH_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// One JSON object a line instead of text.
    #[arg(long, global = true)]
    log_json: bool,
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    /// The main job with nothing to set up: embedded broker, sample tickets, /metrics, status page
    Demo(DemoArgs),
    /// The main job against real Kafka
    Serve(Settings),
    /// Historical dumps: tagged output, report, comparison with a truth, what other packs would change
    Replay(replay::ReplayArgs),
    /// Why a ticket gets its tag
    Explain(explain::ExplainArgs),
    /// Rule packs: lint, run their examples, measure them on dumps, find new rules
    Patterns(patterns::PatternsArgs),
    /// Service map: lint, show the paths to the customer
    Services(services::ServicesArgs),
    /// Recomputes all tickets from the topics, and compares with the journal's counters, to the unit
    Audit(audit::AuditArgs),
    /// The journal: what it holds; export, import, backup
    Journal(journal::JournalArgs),
    /// Configuration: check, print with secrets hidden
    Config(config::ConfigArgs),
}

/// How a command ended, when nothing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As it should.
    Fine,
    /// A check found something.
    Found,
}

/// For people or for machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Runs the command line and says how it ended.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    init_log(&cli);
    match cli.command.run() {
        Ok(Ended::Fine) => ExitCode::SUCCESS,
        Ok(Ended::Found) => ExitCode::from(1),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

impl Command {
    fn run(self) -> anyhow::Result<Ended> {
        match self {
            Self::Demo(args) => demo::run(&args).map(|()| Ended::Fine),
            Self::Serve(settings) => serve(&settings),
            Self::Replay(args) => replay::run(&args),
            Self::Explain(args) => explain::run(&args),
            Self::Patterns(args) => patterns::run(&args),
            Self::Services(args) => services::run(&args),
            Self::Audit(args) => audit::run(&args),
            Self::Journal(args) => journal::run(&args),
            Self::Config(args) => config::run(&args),
        }
    }
}

fn serve(settings: &Settings) -> anyhow::Result<Ended> {
    let config = settings.load()?;
    config.check_for_serve(&settings.name())?;
    let service = Service::start(&config)?;
    tracing::info!(address = %service.address(), "listening: / is the status page, /metrics is for Prometheus");
    service.run_until_signal(&config)?;
    tracing::info!("ended; everything taken is committed");
    Ok(Ended::Fine)
}

fn init_log(cli: &Cli) {
    use std::io::IsTerminal;
    let usual = if matches!(cli.command, Command::Demo(_)) { "warn" } else { "info" };
    let wanted = cli.log.as_deref().unwrap_or(usual);
    let filter = tracing_subscriber::EnvFilter::try_new(wanted).unwrap_or_else(|error| {
        eprintln!("--log {wanted}: {error}; using `{usual}`");
        tracing_subscriber::EnvFilter::new(usual)
    });
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match cli.log_json {
        true => log.json().init(),
        false => log.with_ansi(std::io::stderr().is_terminal()).init(),
    }
}

/// Whether whoever read the output has had enough, as `head` has.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(|e| e.kind() == ErrorKind::BrokenPipe)
}

/// Prints what went wrong; problems of files people write are configuration errors.
fn report(error: &anyhow::Error) -> ExitCode {
    use std::io::IsTerminal;
    match error.downcast_ref::<Problems>() {
        Some(problems) => {
            eprintln!("{}\n\n{}", problems.render(std::io::stderr().is_terminal()), problems.summary());
            ExitCode::from(2)
        }
        None => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}
