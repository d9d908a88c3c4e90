//! Disks that are full.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fleet::{Fleet, Journal};
use crate::support::*;

/// A file system of its own in memory, as large as its folder may become.
struct Disk(PathBuf);

impl Disk {
    fn mount(folder: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(folder).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(folder.to_owned()));
        }
        eprintln!("left out: a full disk needs the permission to mount a file system; run the tests as root");
        None
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Tried without: when records below the next offset were not skipped, 3,050 of 3,000 were counted.
#[test]
fn a_full_disk_is_said_and_waited_for_and_nothing_is_lost() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("disk");
    broker.create_topic(&topic, 2);
    let messages = invented(141, 3_000);
    let mut fleet = Fleet::new(&broker.address, &topic, Journal::Sqlite, 1);
    let Some(_disk) = Disk::mount(&fleet.state(0), "12m") else { return };
    fleet.start(0);
    broker.produce(&topic, &messages[..1_000]);
    fleet.assert_counted(&messages[..1_000]);

    // Somebody else fills the disk to the last byte.
    let filler = fleet.state(0).join("filler");
    fill(&filler);
    broker.produce(&topic, &messages[1_000..2_000]);
    until("the status names the full disk", || {
        let (_, page) = fleet.instance(0).get("/status.json")?;
        (page.contains("disk is full") || page.contains("No space left")).then_some(())
    });
    let counted = fleet.records();
    assert!(counted < 2_000, "nothing is shown that is not written");
    assert_eq!(fleet.instance(0).get("/livez").map(|(status, _)| status), Some(200));

    // On top of that it loses its session: what it has taken and could not commit comes a second time.
    fleet.pause(0);
    until("the session is over", || (broker.members_of(&topic) == 0).then_some(()));
    fleet.resume(0);
    until("the partitions come again", || {
        (fleet.instance(0).log().matches("assigned partitions=2").count() == 2).then_some(())
    });
    broker.produce(&topic, &messages[2_000..2_500]);

    std::fs::remove_file(&filler).unwrap();
    broker.produce(&topic, &messages[2_500..]);
    fleet.assert_counted(&messages);
    let letters = std::fs::read_to_string(fleet.state(0).join("dead-letters.ndjson")).unwrap();
    for line in letters.lines() {
        assert!(line.parse::<serde_json::Value>().is_ok(), "a dead letter is torn: {line}");
    }
    fleet.end();
}

fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    for block in [65_536, 4_096, 1] {
        while std::io::Write::write_all(&mut file, &vec![b'x'; block]).is_ok() {}
    }
}
