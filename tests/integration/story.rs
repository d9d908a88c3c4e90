//! A folder that tells one run of the binary: input files, arguments, and what must come out.
//!
//! The binary runs in a copy of the folder, so that no path in its output depends on where the copy is.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

use crate::support::binary;

/// What came out of a run.
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    /// The copy, with the files that the run has written.
    pub folder: tempfile::TempDir,
}

/// One folder below `tests/`.
pub struct Story {
    path: PathBuf,
}

impl Story {
    /// All folders below `tests/<kind>`, by name; fails when there are fewer than `least`.
    pub fn all(kind: &str, least: usize) -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(kind);
        let mut paths: Vec<PathBuf> = fs::read_dir(&root)
            .unwrap_or_else(|error| panic!("{}: {error}", root.display()))
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
            .collect();
        paths.sort();
        assert!(paths.len() >= least, "{} holds {} folders, not {least}", root.display(), paths.len());
        paths.into_iter().map(|path| Self { path }).collect()
    }

    /// What the folder says, in its name.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Runs the binary with the arguments in `args`, one a line; files named in `written` are left for the run to write.
    pub fn run(&self, written: &[&str]) -> Ended {
        let folder = tempfile::tempdir().unwrap();
        copy(&self.path, folder.path());
        for name in written {
            if folder.path().join(name).exists() {
                fs::remove_file(folder.path().join(name)).unwrap();
            }
        }
        let args = fs::read_to_string(self.path.join("args")).unwrap_or_else(|e| panic!("{}: args: {e}", self.name()));
        let output = binary().args(args.lines()).current_dir(folder.path()).output().unwrap();
        Ended {
            code: output.status.code().unwrap_or(-1),
            stdout: steady(&String::from_utf8(output.stdout).unwrap()),
            stderr: steady(&String::from_utf8(output.stderr).unwrap()),
            folder,
        }
    }

    /// Compares with the file of that name, where no file is nothing; what differs is added to `differences`. With
    /// `UPDATE_GOLDEN` set the file is rewritten instead.
    pub fn compare(&self, name: &str, got: &str, differences: &mut String) {
        let path = self.path.join(name);
        let expected = fs::read_to_string(&path).unwrap_or_default();
        if expected == got {
            return;
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            match got {
                "" => fs::remove_file(&path).unwrap(),
                _ => fs::write(&path, got).unwrap(),
            }
            return;
        }
        write!(differences, "\n=== {}: {name}\n{}", self.path.display(), difference(&expected, got)).unwrap();
    }
}

/// Fails with all differences, and says how to take them over.
pub fn assert_same(differences: &str) {
    assert!(
        differences.is_empty(),
        "{differences}\nIf every line marked `+` is right, UPDATE_GOLDEN=1 takes them over; read the diff before commit."
    );
}

/// A file that the run has written, or nothing.
pub fn written(ended: &Ended, name: &str) -> String {
    steady(&fs::read_to_string(ended.folder.path().join(name)).unwrap_or_default())
}

/// Leaves out what changes with every version of the program and of its packs.
fn steady(text: &str) -> String {
    let hash = Regex::new(r#""pack_hash":( ?)"[0-9a-f]{32}""#).unwrap();
    let own = format!("\"version\":\"{}\"", env!("CARGO_PKG_VERSION"));
    hash.replace_all(text, "\"pack_hash\":$1\"…\"").replace(&own, "\"version\":\"…\"")
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let source = entry.unwrap().path();
        let target = to.join(source.file_name().unwrap());
        if source.is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&source, &target);
        } else {
            fs::copy(&source, &target).unwrap();
        }
    }
}

/// Lines that both have, lines only expected (`-`), and lines only got (`+`), in order.
fn difference(expected: &str, got: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), got.lines().collect());
    // The longest common part behind each pair of lines.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] =
                if old[i] == new[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut text) = (0, 0, String::new());
    while i < old.len() || j < new.len() {
        let (sign, line) = if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
            (' ', new[j - 1])
        } else if i < old.len() && (j == new.len() || common[i + 1][j] >= common[i][j + 1]) {
            i += 1;
            ('-', old[i - 1])
        } else {
            j += 1;
            ('+', new[j - 1])
        };
        writeln!(text, "{sign} {line}").unwrap();
    }
    text
}

#[test]
fn a_difference_shows_what_is_missing_and_what_is_new() {
    assert_eq!(difference("a\nb\nc\n", "a\nx\nc\nd\n"), "  a\n- b\n+ x\n  c\n+ d\n");
}
