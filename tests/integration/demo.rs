//! The demo: the same week and the same figures every time, and a server that can be looked at and stopped.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::*;

/// Records of the demo's week.
const WEEK: u64 = 654;

#[test]
fn the_week_gives_the_same_figures_every_time() {
    let run = || {
        let output = binary().args(["demo", "--once", "--listen", "127.0.0.1:0"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(run);
        let second = run();
        (first.join().unwrap(), second)
    });
    assert_eq!(first, second);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden-demo.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &first).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(first, expected, "UPDATE_GOLDEN=1 takes the new figures over, if they are right");
}

/// A demo that runs until it is told to stop, with a folder of its own for temporary files.
struct Demo {
    child: Child,
    address: String,
    temporary: tempfile::TempDir,
}

impl Demo {
    fn start() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let mut child = binary()
            .args(["demo", "--speed", "0", "--listen", "127.0.0.1:0"])
            .env("TMPDIR", temporary.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let address = lines
            .find_map(|line| Some(line.split_once("The status page is at http://")?.1.split('/').next()?.to_owned()));
        // What it says later is read on, so that it never waits for somebody to do so.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address: address.expect("the demo says where its page is"), temporary }
    }

    fn get(&self, path: &str) -> (u16, String) {
        get(&format!("http://{}{path}", self.address)).unwrap()
    }

    fn records(&self) -> u64 {
        let (status, body) = self.get("/status.json");
        assert_eq!(status, 200, "{body}");
        let summary: Value = body.parse().unwrap();
        summary["records"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
    }

    fn folders(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.temporary.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_demo_can_be_looked_at_until_it_is_interrupted() {
    let mut demo = Demo::start();
    until("the week is counted", || (demo.records() == WEEK).then_some(()));
    for path in ["/", "/livez", "/readyz", "/metrics"] {
        let (status, body) = demo.get(path);
        assert_eq!(status, 200, "{path}: {body}");
    }
    assert_eq!(demo.get("/no-such-page").0, 404);
    assert_eq!(demo.folders().len(), 1, "the demo keeps its journal in one temporary folder");
    if let Some(program) = given("CUSTOMER_REACH_TEST_PROMTOOL") {
        assert_promtool_agrees(&program, &demo.get("/metrics").1);
    }
    let pid = demo.child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let status = until("the demo ends", || demo.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert_eq!(demo.folders(), Vec::<PathBuf>::new(), "nothing is left behind");
}

fn assert_promtool_agrees(program: &str, metrics: &str) {
    let mut child = Command::new(program)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
