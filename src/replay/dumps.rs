//! The dumps of a replay: what they are, how they are read, and their tickets for a second look.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

use crate::config::Config;
use crate::diagnostic::{Place, Problem, Problems};
use crate::prepare::{Input, Route};
use crate::profile::{Decoded, Decoder, Profile};
use crate::source::dump::{Dump, Format, Trouble};
use crate::ticket::Ticket;

/// Which dumps are read, and how.
#[derive(Clone, Copy, Debug)]
pub struct Dumps<'a> {
    /// The files, in the order in which they are read; `-` is standard input.
    pub paths: &'a [PathBuf],
    /// The profile; `None` to find out from the first record.
    pub profile: Option<&'a str>,
    /// The format; `None` to find out.
    pub format: Option<Format>,
    /// The zone of times without one.
    pub timezone: Option<&'a str>,
    /// Show progress on stderr.
    pub progress: bool,
}

impl Dumps<'_> {
    /// Opens one of them: its rows, and how they become tickets.
    pub(super) fn open(&self, path: &Path, config: &Config) -> anyhow::Result<(Dump, Input)> {
        let rows = Dump::open(path, self.format)?;
        let name = self.profile.unwrap_or(rows.suggested_profile());
        let profile = Profile::load(name, &config.patterns.profiles, config.profile.get(name), self.timezone)?;
        Ok((rows, Input { decoder: Decoder::new(profile).into(), source: name.into(), route: Route::Ledger }))
    }

    /// Makes sure that the dumps can be read more than once.
    ///
    /// # Errors
    /// When one of them is standard input.
    pub fn check_rereadable(&self) -> Result<(), Problems> {
        let mut problems = Problems::new();
        if self.paths.iter().any(|path| path.as_os_str() == "-") {
            let title = "the dump is read more than once, and standard input cannot be";
            let problem = Problem::error("unusable-dump", &Place::Named("-".to_owned()), title);
            problems.push(problem.help("write it to a file, and give the name of that"));
        }
        problems.into_result(())
    }

    /// Shows every ticket of every event, with its texts and the name of its source, in the order of the files. Rows
    /// and records that a replay refuses or ignores are passed over.
    ///
    /// # Errors
    /// When a dump cannot be read.
    pub fn tickets(&self, config: &Config, mut see: impl FnMut(&str, Ticket)) -> anyhow::Result<()> {
        for path in self.paths {
            let (mut rows, input) = self.open(path, config).with_context(|| path.display().to_string())?;
            let bar = self.progress_bar(rows.bytes_total());
            while let Some(row) = rows.next() {
                let record = match row {
                    Ok(record) => record,
                    Err(Trouble::Refused(_)) => continue,
                    Err(trouble @ Trouble::Unreadable { .. }) => return Err(trouble.into()),
                };
                bar.set_position(rows.bytes_read());
                if let Ok(Decoded::Tickets(tickets)) = input.decoder.decode(&record) {
                    tickets.into_iter().for_each(|ticket| see(&input.source, ticket));
                }
            }
            bar.finish_and_clear();
        }
        Ok(())
    }

    pub(super) fn progress_bar(&self, total: Option<u64>) -> ProgressBar {
        if !self.progress {
            return ProgressBar::hidden();
        }
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        let style = ProgressStyle::with_template("{bar:40} {percent} %  {bytes_per_sec}  {eta} left");
        style.map_or(bar.clone(), |style| bar.with_style(style))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_input_cannot_be_read_twice() {
        let check = |paths: &[PathBuf]| {
            let dumps = Dumps { paths, profile: None, format: None, timezone: None, progress: false };
            dumps.check_rereadable()
        };
        assert!(check(&["a.csv".into()]).is_ok());
        let problems = check(&["a.csv".into(), "-".into()]).unwrap_err();
        assert!(problems.render(false).contains("write it to a file"), "{}", problems.render(false));
    }
}
