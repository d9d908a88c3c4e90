//! Which records were refused when they came: those among the dead letters, though they could be taken today.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};

use serde::Deserialize;

use crate::config::Config;
use crate::record::Partition;
use crate::sink::{DEAD_LETTERS, Origin};
use crate::source::kafka::RangeReader;

/// Where each refused record stood.
pub type Refused = HashSet<(Partition, i64)>;

/// What a line of a file of dead letters says of where its record stood.
#[derive(Deserialize)]
struct Line {
    topic: String,
    partition: i32,
    offset: i64,
}

/// The records that the dead letters of a configuration name; what is no longer there is not known.
///
/// # Errors
/// When the topic or the file cannot be read.
pub fn refused(config: &Config) -> anyhow::Result<Refused> {
    match &config.output.dead_letters {
        Some(topic) => of_topic(config, topic),
        None => of_file(config),
    }
}

fn of_topic(config: &Config, topic: &str) -> anyhow::Result<Refused> {
    let reader = RangeReader::committed(&config.kafka)?;
    let mut refused = Refused::new();
    for partition in reader.partitions(topic)? {
        let (start, end) = reader.ends(&partition)?;
        reader.read(&partition, start, end, |letter| {
            refused.extend(Origin::written(&letter).map(|origin| (origin.partition, origin.offset)));
            true
        })?;
    }
    Ok(refused)
}

fn of_file(config: &Config) -> anyhow::Result<Refused> {
    let file = match std::fs::File::open(config.journal.path.join(DEAD_LETTERS)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Refused::new()),
        Err(error) => return Err(error.into()),
    };
    let mut refused = Refused::new();
    for line in BufReader::new(file).split(b'\n') {
        // The last one may be cut off by a crash; it is written again.
        if let Ok(Line { topic, partition, offset }) = serde_json::from_slice(&line?) {
            refused.insert((Partition { topic: topic.into(), number: partition }, offset));
        }
    }
    Ok(refused)
}
