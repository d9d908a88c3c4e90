//! `patterns`: packs checked, their examples run, their rules measured on dumps, and new ones found there.

mod stats;
mod suggest;

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Ended, Format};
use crate::classify::verdict_test::{self, Outcome, VerdictTest};
use crate::classify::{Classifier, ClassifierOptions, Scratch};
use crate::diagnostic::Problems;
use crate::pattern::check::{Trial, check};
use crate::pattern::pack::{self, PackSource};
use crate::service::ServiceMap;
use crate::ticket::Ticket;

/// `patterns …`.
#[derive(Debug, Args)]
pub struct PatternsArgs {
    #[command(subcommand)]
    command: PatternsCommand,
}

#[derive(Debug, Subcommand)]
enum PatternsCommand {
    /// Finds everything that is wrong with packs
    Check(PackArgs),
    /// Runs the examples of every rule and the verdict tests beside the packs
    Test(PackArgs),
    /// What each rule does on a dump: hits, decisions, effort, precision, cost
    Stats(stats::StatsArgs),
    /// Finds phrases of tickets that the rules say little about, and writes them as rules to go on from
    Suggest(suggest::SuggestArgs),
}

/// Which packs, and in which form the results come.
#[derive(Debug, Args)]
pub struct PackArgs {
    /// Folders of packs, packs, or single files [default: the built-in packs]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The form of the results
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Names every example, also those that pass
    #[arg(long, short)]
    verbose: bool,
}

impl PackArgs {
    fn sources(&self) -> Vec<PackSource> {
        match &*self.paths {
            [] => vec![PackSource::BuiltIn],
            paths => paths.iter().cloned().map(PackSource::Folder).collect(),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When packs cannot be loaded for their test, or results cannot be written.
pub fn run(args: &PatternsArgs) -> anyhow::Result<Ended> {
    let mut out = std::io::stdout().lock();
    let colour = out.is_terminal();
    match &args.command {
        PatternsCommand::Check(packs) => run_check(packs, colour, &mut out),
        PatternsCommand::Test(packs) => run_test(packs, &mut out),
        PatternsCommand::Stats(args) => stats::run(args, &mut out),
        PatternsCommand::Suggest(args) => suggest::run(args, &mut out),
    }
}

/// Finds everything that is wrong with packs; warnings, too, make it end as "found something".
fn run_check(args: &PackArgs, colour: bool, out: &mut impl Write) -> anyhow::Result<Ended> {
    let mut problems = Problems::new();
    let files = pack::files(&args.sources(), &mut problems);
    let packs = pack::read(&files, &mut problems);
    let own = verdict_test::read(&files, &mut problems);
    let shipped = verdict_test::read(&pack::files(&[PackSource::BuiltIn], &mut problems), &mut problems);
    let corpus: Vec<Ticket> = own.into_iter().chain(shipped).map(|test| test.ticket).collect();
    check(&packs, &corpus, &mut problems);
    let (errors, warnings) = problems.counts();
    match args.format {
        Format::Json => {
            let report = json!({
                "rules": packs.rules.len(), "errors": errors, "warnings": warnings, "problems": problems.to_json(),
            });
            writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
        }
        Format::Text => {
            if !problems.is_empty() {
                writeln!(out, "{}\n", problems.render(colour))?;
            }
            let (count, what) = (packs.rules.len(), if packs.rules.len() == 1 { "rule" } else { "rules" });
            writeln!(out, "{count} {what}, {}", problems.summary())?;
        }
    }
    Ok(if problems.is_empty() { Ended::Fine } else { Ended::Found })
}

fn run_test(args: &PackArgs, out: &mut impl Write) -> anyhow::Result<Ended> {
    let mut problems = Problems::new();
    let files = pack::files(&args.sources(), &mut problems);
    let packs = pack::read(&files, &mut problems);
    let tests = verdict_test::read(&files, &mut problems);
    problems.into_result(())?;
    let classifier = Classifier::new(packs, ServiceMap::default(), &ClassifierOptions::default())?;
    let mut scratch = Scratch::new();
    let results = Results {
        trials: classifier.trials(),
        verdicts: tests.iter().map(|test| (test, classifier.try_verdict(test, &mut scratch))).collect(),
    };
    match args.format {
        Format::Json => results.print_json(out)?,
        Format::Text => results.print(args.verbose, out)?,
    }
    Ok(if results.failed() == 0 { Ended::Fine } else { Ended::Found })
}

/// What the examples and the verdict tests gave.
struct Results<'a> {
    trials: Vec<Trial<'a>>,
    verdicts: Vec<(&'a VerdictTest, Outcome)>,
}

impl Results<'_> {
    fn failed(&self) -> usize {
        let trials = self.trials.iter().filter(|trial| trial.failure.is_some()).count();
        trials + self.verdicts.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_))).count()
    }

    fn print_json(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let examples: Vec<_> = self.trials.iter().map(trial_json).collect();
        let tickets: Vec<_> = self.verdicts.iter().map(|(test, outcome)| verdict_json(test, outcome)).collect();
        let report = json!({ "examples": examples, "tickets": tickets });
        Ok(writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?)
    }

    /// One line a pack and a file of tickets, each failure in full, and the sum.
    fn print(&self, verbose: bool, out: &mut impl Write) -> anyhow::Result<()> {
        for pack in self.trials.chunk_by(|a, b| a.rule.pack == b.rule.pack) {
            let failed = pack.iter().filter(|trial| trial.failure.is_some()).count();
            let name = pack.first().map_or("", |trial| trial.rule.pack.as_str());
            writeln!(out, "pack {name}: {} examples ... {}", pack.len(), word(failed))?;
            for trial in pack.iter().filter(|trial| verbose || trial.failure.is_some()) {
                print_trial(trial, out)?;
            }
        }
        let path = |test: &VerdictTest| test.name.place.position().0.to_owned();
        for file in self.verdicts.chunk_by(|a, b| path(a.0) == path(b.0)) {
            let failed = file.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_))).count();
            let name = file.first().map(|(test, _)| path(test)).unwrap_or_default();
            writeln!(out, "{name}: {} ... {}", Tally::of(file), word(failed))?;
            for (test, outcome) in file.iter().filter(|(_, outcome)| verbose || *outcome != Outcome::Passed) {
                print_verdict(test, outcome, out)?;
            }
        }
        let failed = self.failed();
        let (all, misses) = (self.trials.len() + self.verdicts.len(), Tally::of(&self.verdicts).misses);
        writeln!(
            out,
            "\nresult: {}. {} passed; {failed} failed; {misses} known misses",
            word(failed),
            all - failed - misses
        )?;
        if !self.verdicts.is_empty() {
            writeln!(out, "{}", Tally::of(&self.verdicts))?;
        }
        Ok(())
    }
}

fn word(failed: usize) -> &'static str {
    if failed == 0 { "ok" } else { "FAILED" }
}

/// How many tickets and minimal pairs the rules tell.
struct Tally {
    tickets: usize,
    right: usize,
    misses: usize,
    pairs: usize,
    /// Pairs of which every ticket is right.
    right_pairs: usize,
}

impl Tally {
    fn of(verdicts: &[(&VerdictTest, Outcome)]) -> Self {
        let is_right = |outcome: &Outcome| *outcome == Outcome::Passed;
        let mut pairs: BTreeMap<(String, &str), bool> = BTreeMap::new();
        for (test, outcome) in verdicts {
            let Some(pair) = test.pair.as_deref() else { continue };
            let right = pairs.entry((test.name.place.position().0.to_owned(), pair)).or_insert(true);
            *right &= is_right(outcome);
        }
        Self {
            tickets: verdicts.len(),
            right: verdicts.iter().filter(|(_, outcome)| is_right(outcome)).count(),
            misses: verdicts.iter().filter(|(_, outcome)| *outcome == Outcome::KnownMiss).count(),
            pairs: pairs.len(),
            right_pairs: pairs.values().filter(|right| **right).count(),
        }
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { tickets, right, pairs, right_pairs, .. } = self;
        write!(f, "{right} of {tickets} tickets and {right_pairs} of {pairs} minimal pairs told")
    }
}

fn trial_json(trial: &Trial<'_>) -> serde_json::Value {
    json!({
        "rule": trial.rule.name(),
        "kind": kind(trial),
        "text": trial.text.value,
        "file": trial.text.place.file_and_line(),
        "passed": trial.failure.is_none(),
        "failure": trial.failure,
    })
}

fn verdict_json(test: &VerdictTest, outcome: &Outcome) -> serde_json::Value {
    let failure = if let Outcome::Failed(why) = outcome { Some(why) } else { None };
    json!({
        "name": test.name.value,
        "file": test.name.place.file_and_line(),
        "pair": test.pair,
        "affects": test.affects,
        "passed": *outcome == Outcome::Passed,
        "known_miss": test.known_miss,
        "failure": failure,
    })
}

fn kind(trial: &Trial<'_>) -> &'static str {
    if trial.wanted { "example" } else { "counter_example" }
}

fn print_trial(trial: &Trial<'_>, out: &mut impl Write) -> std::io::Result<()> {
    let kind = kind(trial).replace('_', "-");
    let failed = usize::from(trial.failure.is_some());
    writeln!(out, "  {} {kind} {:?} ... {}", trial.rule.name(), trial.text.value, word(failed))?;
    match &trial.failure {
        Some(failure) => writeln!(out, "    {}: {failure}", trial.text.place.file_and_line()),
        None => Ok(()),
    }
}

fn print_verdict(test: &VerdictTest, outcome: &Outcome, out: &mut impl Write) -> std::io::Result<()> {
    let name = &test.name.value;
    match outcome {
        Outcome::Passed => writeln!(out, "  {name} ... ok"),
        Outcome::KnownMiss => {
            writeln!(out, "  {name} ... known miss: {}", test.known_miss.as_deref().unwrap_or_default())
        }
        Outcome::Failed(why) => writeln!(out, "  {name} ... FAILED\n    {}: {why}", test.name.place.file_and_line()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs;

    use super::*;

    const PACK: &str = r#"
        [[rule]]
        id = "checkout"
        affects = "customer"
        weight = 5
        phrases = ["customers cannot check[ ]out", "checkout fail*"]
        examples = ["Customers cannot check-out", "the git checkout fails"]
        counter_examples = ["checkout failed"]
        [[rule]]
        id = "git"
        affects = "none"
        phrases = ["git checkout fail*", "checkout fail*"]
        examples = ["git checkout fails"]
        [[rule]]
        id = "git"
        affects = "internl"
        weigth = 1
        phrases = ["{git"]
        regex = ['\d+', '(']
    "#;

    fn args(text: &str) -> (tempfile::TempDir, PackArgs) {
        let folder = tempfile::tempdir().unwrap();
        let pack = folder.path().join("own");
        fs::create_dir(&pack).unwrap();
        fs::write(pack.join("a.toml"), text).unwrap();
        let args = PackArgs { paths: vec![folder.path().to_owned()], format: Format::Text, verbose: false };
        (folder, args)
    }

    #[test]
    fn check_finds_everything_in_one_run() {
        let (_folder, args) = args(PACK);
        let mut out = Vec::new();
        assert_eq!(run_check(&args, false, &mut out).unwrap(), Ended::Found);
        let out = String::from_utf8(out).unwrap();
        for expected in [
            "the id `git` is taken in pack `own`",
            "did you mean `internal`?",
            "did you mean `weight`?",
            "`weight` is missing",
            "`{` has no partner",
            "regex-without-literal",
            "this is no regex: unclosed group",
            "`own/git` repeats a phrase of `own/checkout`",
            "an example of `own/checkout` fails: a longer match swallows it: own/git",
            "a counter-example of `own/checkout` fails: the rule counts in it",
            "2 rules, 9 errors, 1 warning",
        ] {
            assert!(out.contains(expected), "{expected}\n{out}");
        }
    }

    #[test]
    fn examples_run_like_tests() {
        let good = PACK.split("[[rule]]").take(3).collect::<Vec<_>>().join("[[rule]]");
        let (_folder, args) = args(&good);
        let mut out = Vec::new();
        assert_eq!(run_test(&args, &mut out).unwrap(), Ended::Found);
        let out = String::from_utf8(out).unwrap();
        assert!(
            out.starts_with(
                "pack own: 4 examples ... FAILED\n  own/checkout example \"the git checkout fails\" ... FAILED"
            ),
            "{out}"
        );
        assert!(out.ends_with("result: FAILED. 2 passed; 2 failed; 0 known misses\n"), "{out}");
    }

    #[test]
    fn the_built_in_packs_tell_the_tickets_beside_them() {
        let args = PackArgs { paths: Vec::new(), format: Format::Json, verbose: false };
        let mut out = Vec::new();
        let ended = run_test(&args, &mut out).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let failures = |key: &str| -> Vec<&serde_json::Value> {
            report[key].as_array().unwrap().iter().filter(|one| !one["failure"].is_null()).collect()
        };
        assert_eq!(ended, Ended::Fine, "{:#?} {:#?}", failures("examples"), failures("tickets"));
        let tickets = report["tickets"].as_array().unwrap();
        let told = tickets.iter().filter(|ticket| ticket["passed"] == true).count();
        let pairs: HashSet<_> = tickets.iter().filter_map(|t| Some((file_of(t), t["pair"].as_str()?))).collect();
        assert!(tickets.len() >= 300 && pairs.len() >= 120, "{} tickets, {} pairs", tickets.len(), pairs.len());
        assert!(told * 100 >= tickets.len() * 95, "{told} of {} told", tickets.len());
    }

    /// The file of a ticket's report, without the line.
    fn file_of(ticket: &serde_json::Value) -> &str {
        ticket["file"].as_str().unwrap().rsplit_once(':').unwrap().0
    }

    #[test]
    fn the_built_in_packs_are_clean() {
        let args = PackArgs { paths: Vec::new(), format: Format::Text, verbose: false };
        let mut out = Vec::new();
        let ended = run_check(&args, false, &mut out).unwrap();
        assert_eq!(ended, Ended::Fine, "{}", String::from_utf8_lossy(&out));
    }
}
