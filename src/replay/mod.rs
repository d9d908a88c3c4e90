//! Historical dumps through the same pipeline that runs live, without a journal, and what can be learnt from them.

mod dead_letters;
mod diff;
mod dumps;
mod report;
mod stats;
pub mod suggest;
mod table;
mod truth;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

pub use dead_letters::{ResendError, Resent, resend};
pub use diff::{Comparison, Flip, How, Moved, Tag, Through};
pub use dumps::Dumps;
pub(crate) use report::grouped;
pub use report::{Agreement, Band, Compared, Report, Share};
pub use stats::{Precision, RuleStats, Stats};
pub use truth::Truth;

use crate::classify::{Classifier, ClassifierOptions, PackSource};
use crate::config::Config;
use crate::diagnostic::Problems;
use crate::journal::Journal;
use crate::ledger::{Ledger, Ledgers, Settings};
use crate::metrics::Metrics;
use crate::pipeline::{Parts, Pipeline};
use crate::prepare::{Preparer, Rules};
use crate::sink::{DeadLetters, TaggedLine};
use crate::source::dump::Trouble;

/// Records taken in one step: enough to keep all cores busy, few enough to stay in memory.
const BATCH: usize = 10_000;

/// What is to be replayed, and where the results go.
#[derive(Debug)]
pub struct Replay<'a> {
    /// The dumps.
    pub dumps: Dumps<'a>,
    /// Tagged lines go here.
    pub tagged: Option<&'a Path>,
    /// Refused records go here.
    pub dead_letters: Option<PathBuf>,
    /// What to compare the tags with.
    pub truth: Option<&'a Truth>,
    /// Packs that tag the same records a second time, laid over those of the configuration.
    pub against: &'a [PathBuf],
}

impl Replay<'_> {
    /// Reads all dumps; what the tickets have become is in the pipeline's ledger.
    ///
    /// # Errors
    /// When packs are wrong, a dump cannot be read, or results cannot be written.
    pub fn run(&self, config: &Config) -> anyhow::Result<Pipeline> {
        let mut pipeline = self.pipeline(config)?;
        for dump in self.dumps.paths {
            self.read(dump, config, &mut pipeline).with_context(|| dump.display().to_string())?;
        }
        if let Some(path) = self.tagged {
            write_tagged(path, &pipeline).with_context(|| format!("{} cannot be written", path.display()))?;
        }
        Ok(pipeline)
    }

    fn pipeline(&self, config: &Config) -> anyhow::Result<Pipeline> {
        let mut policy = config.policy();
        policy.ignore_declared = matches!(self.truth, Some(Truth::Declared));
        let options = ClassifierOptions { policy, ..config.classifier_options() };
        let settings = Settings { policy, retention: None, holds: false, ..config.ledger_settings() };
        let classifier = Arc::new(Classifier::load(&options)?);
        let shadow = self.shadow(options)?;
        let dead_letters = self
            .dead_letters
            .as_deref()
            .map(DeadLetters::create)
            .transpose()
            .context("dead letters cannot be written")?;
        let rules = Rules { own: classifier, shadow };
        Ok(Pipeline::new(Parts {
            preparer: Preparer { inputs: Arc::default(), rules, max_record_bytes: config.batch.max_record_bytes },
            journal: Journal::None(None),
            ledgers: Ledgers::one(Ledger::new(settings)),
            dead_letters,
            tagged: None,
            metrics: Arc::new(Metrics::new()?),
            zero_hold: Duration::ZERO,
        }))
    }

    /// The other packs over those of the configuration: one of the same name replaces the earlier.
    fn shadow(&self, mut options: ClassifierOptions) -> Result<Option<Arc<Classifier>>, Problems> {
        if self.against.is_empty() {
            return Ok(None);
        }
        options.packs.extend(self.against.iter().cloned().map(PackSource::Folder));
        Ok(Some(Arc::new(Classifier::load(&options)?)))
    }

    fn read(&self, dump: &Path, config: &Config, pipeline: &mut Pipeline) -> anyhow::Result<()> {
        let (mut rows, input) = self.dumps.open(dump, config)?;
        eprintln!("{}: {}, profile {}", dump.display(), rows.described(), input.source);
        pipeline.add_input(&dump.display().to_string(), input);
        let bar = self.dumps.progress_bar(rows.bytes_total());
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

#[cfg(test)]
mod testing {
    use super::*;
    use crate::config::Overrides;

    /// A folder with a dump and a pack called `own`, and the configuration that uses nothing else.
    pub struct Site {
        folder: tempfile::TempDir,
        dumps: Vec<PathBuf>,
        pub config: Config,
    }

    impl Site {
        pub fn new(dump: &str, rules: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let (pack, csv) = (folder.path().join("own"), folder.path().join("dump.csv"));
            std::fs::create_dir(&pack).unwrap();
            std::fs::write(pack.join("rules.toml"), rules).unwrap();
            std::fs::write(&csv, dump).unwrap();
            let (mut config, _) = Config::load(None, &Overrides::default()).unwrap();
            config.patterns.packs = vec![pack];
            Self { folder, dumps: vec![csv], config }
        }

        pub fn path(&self) -> &Path {
            self.folder.path()
        }

        pub fn dumps(&self) -> Dumps<'_> {
            Dumps { paths: &self.dumps, profile: Some("generic"), format: None, timezone: None, progress: false }
        }

        pub fn replayed(&self, truth: Option<&Truth>) -> Pipeline {
            let replay = Replay { dumps: self.dumps(), tagged: None, dead_letters: None, truth, against: &[] };
            replay.run(&self.config).unwrap()
        }
    }
}
