//! Historical dumps through the same pipeline that runs live, without a journal.

mod report;
mod truth;

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

pub use report::{Agreement, Band, Compared, Report, Share};
pub use truth::Truth;

use crate::classify::{Classifier, ClassifierOptions};
use crate::config::Config;
use crate::journal::Journal;
use crate::ledger::{Ledger, Settings};
use crate::metrics::Metrics;
use crate::pipeline::{Input, Parts, Pipeline, Preparer};
use crate::profile::{Decoder, Profile};
use crate::sink::{DeadLetters, TaggedLine};
use crate::source::dump::{Dump, Format, Trouble};

/// Records taken in one step: enough to keep all cores busy, few enough to stay in memory.
const BATCH: usize = 10_000;

/// What is to be replayed, and where the results go.
#[derive(Debug)]
pub struct Replay<'a> {
    /// The dumps, in the order in which they are read; `-` is standard input.
    pub dumps: &'a [PathBuf],
    /// The profile; `None` to find out from the first record.
    pub profile: Option<&'a str>,
    /// The format; `None` to find out.
    pub format: Option<Format>,
    /// The zone of times without one.
    pub timezone: Option<&'a str>,
    /// Tagged lines go here.
    pub tagged: Option<&'a Path>,
    /// Refused records go here.
    pub dead_letters: Option<PathBuf>,
    /// What to compare the tags with.
    pub truth: Option<Truth>,
    /// Show progress on stderr.
    pub progress: bool,
}

impl Replay<'_> {
    /// Reads all dumps and adds up.
    ///
    /// # Errors
    /// When a dump cannot be read, or results cannot be written.
    pub fn run(&self, config: &Config) -> anyhow::Result<Report> {
        let mut policy = config.policy();
        policy.ignore_declared = matches!(self.truth, Some(Truth::Declared));
        let classifier = Classifier::load(&ClassifierOptions { policy, ..config.classifier_options() })?;
        let ledger = Ledger::new(Settings { policy, retention: None, ..config.ledger_settings() });
        let metrics = Arc::new(Metrics::new(&ledger, Duration::ZERO)?);
        let dead_letters = self
            .dead_letters
            .as_deref()
            .map(DeadLetters::create)
            .transpose()
            .context("dead letters cannot be written")?;
        let mut pipeline = Pipeline::new(Parts {
            preparer: Preparer { inputs: HashMap::new(), classifier, max_record_bytes: config.batch.max_record_bytes },
            journal: Journal::None,
            ledger,
            dead_letters,
            tagger: None,
            metrics,
        });
        for dump in self.dumps {
            self.read(dump, config, &mut pipeline).with_context(|| dump.display().to_string())?;
        }
        if let Some(path) = self.tagged {
            write_tagged(path, &pipeline).with_context(|| format!("{} cannot be written", path.display()))?;
        }
        Ok(Report::new(pipeline.ledger(), self.truth.as_ref()))
    }

    fn read(&self, dump: &Path, config: &Config, pipeline: &mut Pipeline) -> anyhow::Result<()> {
        let mut rows = Dump::open(dump, self.format)?;
        let name = self.profile.unwrap_or(rows.suggested_profile());
        let profile = Profile::load(name, &config.patterns.profiles, config.profile.get(name), self.timezone)?;
        eprintln!("{}: {}, profile {name}", dump.display(), rows.described());
        let input = Input { decoder: Decoder::new(profile), source: name.into() };
        pipeline.add_input(&dump.display().to_string(), input);
        let bar = self.progress_bar(rows.bytes_total());
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(row) = rows.next() {
            match row {
                Ok(record) => batch.push(record),
                Err(Trouble::Refused(row)) => {
                    pipeline.take(std::mem::take(&mut batch));
                    pipeline.take_refused(row.record, row.refusal);
                }
                Err(trouble @ Trouble::Unreadable { .. }) => return Err(trouble.into()),
            }
            if batch.len() == BATCH {
                bar.set_position(rows.bytes_read());
                pipeline.take(std::mem::take(&mut batch));
                pipeline.commit()?;
            }
        }
        pipeline.take(batch);
        pipeline.commit()?;
        bar.finish_and_clear();
        Ok(())
    }

    fn progress_bar(&self, total: Option<u64>) -> ProgressBar {
        if !self.progress {
            return ProgressBar::hidden();
        }
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        let style = ProgressStyle::with_template("{bar:40} {percent} %  {bytes_per_sec}  {eta} left");
        style.map_or(bar.clone(), |style| bar.with_style(style))
    }
}

/// One line a ticket, in the order of source and id, so that two replays can be compared line by line.
fn write_tagged(path: &Path, pipeline: &Pipeline) -> std::io::Result<()> {
    let mut tickets: Vec<_> = pipeline.ledger().tickets().collect();
    tickets.sort_by(|a, b| (&a.source, &a.id, &a.key).cmp(&(&b.source, &b.id, &b.key)));
    let mut out: Box<dyn Write> = match path.to_str() {
        Some("-") => Box::new(std::io::stdout().lock()),
        _ => Box::new(std::io::BufWriter::new(std::fs::File::create(path)?)),
    };
    for held in tickets {
        serde_json::to_writer(&mut out, &TaggedLine::new(held, pipeline.ledger(), pipeline.classifier()))?;
        out.write_all(b"\n")?;
    }
    out.flush()
}
