//! Stories: `tests/golden/<story>/` holds dumps or events, the command's arguments in `args`, and what must come out:
//! `stdout`, and where there is one `tagged.ndjson`, `dead.ndjson` and the exit code in `exit` (0 without it).
//!
//! A new story is a new folder. `UPDATE_GOLDEN=1 cargo test --test integration golden` writes what comes out as the new
//! expectation; whoever does that checks it line by line against the design.

use crate::story::{Story, assert_same, written};

/// The files that a run may write.
const OUTPUTS: [&str; 2] = ["tagged.ndjson", "dead.ndjson"];

#[test]
fn every_story_comes_out_as_told() {
    let mut differences = String::new();
    for story in Story::all("golden", 18) {
        let ended = story.run(&OUTPUTS);
        let exit = if ended.code == 0 { String::new() } else { format!("{}\n", ended.code) };
        story.compare("exit", &exit, &mut differences);
        story.compare("stdout", &ended.stdout, &mut differences);
        for name in OUTPUTS {
            story.compare(name, &written(&ended, name), &mut differences);
        }
        assert!(!ended.stdout.is_empty(), "{} prints nothing: {}", story.name(), ended.stderr);
    }
    assert_same(&differences);
}
