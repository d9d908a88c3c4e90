//! `patterns`: packs checked, their examples run, their rules measured on dumps, and new ones found there.

mod stats;
mod suggest;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Ended, Format};
use crate::diagnostic::{Place, Problems};
use crate::pattern::check::{Trial, check, trials};
use crate::pattern::compile::Matcher;
use crate::pattern::pack::{self, PackSource, Rule};

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
    /// Runs the examples and counter-examples of every rule
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
    let mut rules = pack::load(&args.sources(), &mut problems);
    check(&mut rules, &mut problems);
    let (errors, warnings) = problems.counts();
    match args.format {
        Format::Json => {
            let report = json!({
                "rules": rules.len(), "errors": errors, "warnings": warnings, "problems": problems.to_json(),
            });
            writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
        }
        Format::Text => {
            if !problems.is_empty() {
                writeln!(out, "{}\n", problems.render(colour))?;
            }
            writeln!(out, "{} rules, {}", rules.len(), problems.summary())?;
        }
    }
    Ok(if problems.is_empty() { Ended::Fine } else { Ended::Found })
}

fn run_test(args: &PackArgs, out: &mut impl Write) -> anyhow::Result<Ended> {
    let mut problems = Problems::new();
    let mut rules = pack::load(&args.sources(), &mut problems);
    problems.into_result(())?;
    rules.sort_by_cached_key(Rule::name);
    let matcher = Matcher::new(&rules)?;
    let trials = trials(&rules, &matcher);
    let failed = trials.iter().filter(|trial| trial.failure.is_some()).count();
    match args.format {
        Format::Json => print_json(&trials, out)?,
        Format::Text => print_trials(&trials, args.verbose, out)?,
    }
    Ok(if failed == 0 { Ended::Fine } else { Ended::Found })
}

fn print_json(trials: &[Trial<'_>], out: &mut impl Write) -> anyhow::Result<()> {
    let all: Vec<_> = trials.iter().map(trial_json).collect();
    writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
    Ok(())
}

fn trial_json(trial: &Trial<'_>) -> serde_json::Value {
    json!({
        "rule": trial.rule.name(),
        "kind": kind(trial),
        "text": trial.text.value,
        "file": file(&trial.text.place),
        "passed": trial.failure.is_none(),
        "failure": trial.failure,
    })
}

fn kind(trial: &Trial<'_>) -> &'static str {
    if trial.wanted { "example" } else { "counter_example" }
}

/// File and line.
fn file(place: &Place) -> String {
    match place.position() {
        (file, Some((line, _))) => format!("{file}:{line}"),
        (name, None) => name.to_owned(),
    }
}

/// One line a pack, each failure in full, and the sum.
fn print_trials(trials: &[Trial<'_>], verbose: bool, out: &mut impl Write) -> anyhow::Result<()> {
    for pack in trials.chunk_by(|a, b| a.rule.pack == b.rule.pack) {
        let failed = pack.iter().filter(|trial| trial.failure.is_some()).count();
        let name = pack.first().map_or("", |trial| trial.rule.pack.as_str());
        let result = if failed == 0 { "ok" } else { "FAILED" };
        writeln!(out, "pack {name}: {} examples ... {result}", pack.len())?;
        for trial in pack.iter().filter(|trial| verbose || trial.failure.is_some()) {
            print_trial(trial, out)?;
        }
    }
    let failed = trials.iter().filter(|trial| trial.failure.is_some()).count();
    let result = if failed == 0 { "ok" } else { "FAILED" };
    writeln!(out, "\nresult: {result}. {} passed; {failed} failed", trials.len() - failed)?;
    Ok(())
}

fn print_trial(trial: &Trial<'_>, out: &mut impl Write) -> std::io::Result<()> {
    let result = if trial.failure.is_some() { "FAILED" } else { "ok" };
    let kind = kind(trial).replace('_', "-");
    writeln!(out, "  {} {kind} {:?} ... {result}", trial.rule.name(), trial.text.value)?;
    match &trial.failure {
        Some(failure) => writeln!(out, "    {}: {failure}", file(&trial.text.place)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
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
        assert!(out.ends_with("result: FAILED. 2 passed; 2 failed\n"), "{out}");
    }

    #[test]
    fn the_built_in_packs_are_clean() {
        let args = PackArgs { paths: Vec::new(), format: Format::Text, verbose: false };
        let mut out = Vec::new();
        let ended = run_check(&args, false, &mut out).unwrap();
        assert_eq!(ended, Ended::Fine, "{}", String::from_utf8_lossy(&out));
    }
}
