//! Broken files: `tests/bad/<diagnosis>/` holds a configuration, pack, profile or service map with a mistake, the
//! command's arguments in `args`, and in `stderr` what its author is told. The exit code is always 2.
//!
//! A new diagnosis is a new folder. `UPDATE_GOLDEN=1 cargo test --test integration bad` writes what is said as the new
//! expectation; whoever does that reads it as somebody who has never seen the program.

use crate::story::{Story, assert_same};

#[test]
fn every_broken_file_is_diagnosed_as_told() {
    let mut differences = String::new();
    for story in Story::all("bad", 22) {
        let ended = story.run(&[]);
        assert_eq!(ended.code, 2, "{}: {}", story.name(), ended.stderr);
        assert_eq!(ended.stdout, "", "{}", story.name());
        assert!(!ended.stderr.contains(&*ended.folder.path().to_string_lossy()), "{}", story.name());
        story.compare("stderr", &ended.stderr, &mut differences);
    }
    assert_same(&differences);
}
