//! A journal as a file: one JSON object a line, readable by anybody, with a checksum at its end.

use std::io::{BufRead, Write};
use std::sync::Arc;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::ledger::{Fresh, Held, Ledger, Ledgers, PartitionState, Series, Settings, Slot, TicketKey, Tickets};
use crate::record::Partition;

/// The version of the file's format.
const FORMAT: u32 = 1;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// The first line.
    Journal { format: u32, version: String, kind: String },
    /// Begins a ledger, to which the lines after it belong; teams and services go by their place in these lists.
    Ledger { teams: Vec<String>, services: Vec<String> },
    /// A partition; tickets go by its place in the ledger.
    Partition {
        topic: String,
        number: i32,
        next_offset: i64,
        watermark: i64,
        fresh: Fresh,
        counters: Vec<(Series, i64)>,
    },
    /// A ticket; nothing is kept of one that has left memory.
    Ticket { key: String, held: Option<Box<Held>> },
    /// The last line: how many lines there are before it, and the CRC-32 of their bytes.
    End { lines: u64, checksum: u32 },
}

/// Writes ledgers, as of now.
///
/// # Errors
/// When the file cannot be written.
pub fn write(ledgers: &Ledgers, kind: &str, out: impl Write) -> anyhow::Result<()> {
    let mut out = Checked { out, lines: 0, checksum: crc32fast::Hasher::new() };
    out.line(&Line::Journal { format: FORMAT, version: env!("CARGO_PKG_VERSION").into(), kind: kind.into() })?;
    for ledger in ledgers.iter() {
        let names = |names: &[Arc<str>]| names.iter().map(ToString::to_string).collect();
        out.line(&Line::Ledger { teams: names(ledger.teams().names()), services: names(ledger.services().names()) })?;
        for state in ledger.partitions() {
            let mut counters: Vec<_> = state.counters.iter().collect();
            counters.sort_unstable();
            out.line(&Line::Partition {
                topic: state.partition.topic.to_string(),
                number: state.partition.number,
                next_offset: state.next_offset,
                watermark: state.watermark,
                fresh: (*state.fresh).clone(),
                counters,
            })?;
        }
        for (key, slot) in ledger.slots() {
            let held = match slot {
                Slot::Held(held) => Some(held.clone()),
                Slot::Retired => None,
            };
            out.line(&Line::Ticket { key: format!("{:032x}", key.0), held })?;
        }
    }
    let (lines, checksum) = (out.lines, out.checksum.clone().finalize());
    out.line(&Line::End { lines, checksum })?;
    Ok(out.out.flush()?)
}

/// Counts what is written.
struct Checked<W> {
    out: W,
    lines: u64,
    checksum: crc32fast::Hasher,
}

impl<W: Write> Checked<W> {
    fn line(&mut self, line: &Line) -> anyhow::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        self.out.write_all(&bytes)?;
        self.lines += 1;
        self.checksum.update(&bytes);
        Ok(())
    }
}

/// Reads the ledgers back.
///
/// # Errors
/// When the file is none of ours, of a newer version, cut off or changed.
pub fn read(input: impl BufRead, settings: Settings) -> anyhow::Result<Vec<Ledger>> {
    let mut reading = Reading { settings, ledgers: Vec::new(), tickets: Tickets::default() };
    let (mut lines, mut checksum, mut ended) = (0_u64, crc32fast::Hasher::new(), false);
    for text in input.split(b'\n') {
        let text = text?;
        let line: Line = serde_json::from_slice(&text)
            .with_context(|| format!("line {} is no line of an exported journal, or is damaged", lines + 1))?;
        anyhow::ensure!(!ended, "line {} follows the last one: two exports in one file?", lines + 1);
        match line {
            Line::Journal { format, version, .. } => anyhow::ensure!(
                format <= FORMAT,
                "the file has format {format}, this program reads up to {FORMAT}; it was written by version {version}"
            ),
            _ if lines == 0 => anyhow::bail!("line 1 is not the first line of an exported journal"),
            Line::End { lines: expected, checksum: written } => {
                let matches = (expected, written) == (lines, checksum.clone().finalize());
                anyhow::ensure!(matches, "the checksum is wrong: the file was changed or damaged");
                ended = true;
            }
            line => reading.take(line).with_context(|| format!("line {}", lines + 1))?,
        }
        lines += 1;
        checksum.update(&text);
        checksum.update(b"\n");
    }
    anyhow::ensure!(ended, "the file is cut off after line {lines}: its last line is missing");
    reading.finish_ledger();
    Ok(reading.ledgers)
}

/// The ledgers so far, and the tickets of the last one.
struct Reading {
    settings: Settings,
    ledgers: Vec<Ledger>,
    tickets: Tickets,
}

impl Reading {
    fn take(&mut self, line: Line) -> anyhow::Result<()> {
        match line {
            Line::Ledger { teams, services } => {
                self.finish_ledger();
                let mut ledger = Ledger::new(self.settings);
                ledger.restore_labels(&teams, &services);
                self.ledgers.push(ledger);
            }
            Line::Partition { topic, number, next_offset, watermark, fresh, counters } => {
                let ledger = self.ledgers.last_mut().context("a partition before any ledger")?;
                ledger.restore_partition(PartitionState {
                    partition: Partition { topic: topic.into(), number },
                    next_offset,
                    watermark,
                    counters: Arc::new(counters.into_iter().collect()),
                    fresh: Arc::new(fresh),
                });
            }
            Line::Ticket { key, held } => {
                let key = u128::from_str_radix(&key, 16).context("the ticket's key")?;
                self.tickets.insert(TicketKey(key), held.map_or(Slot::Retired, Slot::Held));
            }
            Line::Journal { .. } | Line::End { .. } => {}
        }
        Ok(())
    }

    fn finish_ledger(&mut self) {
        if let Some(ledger) = self.ledgers.last_mut() {
            ledger.restore_tickets(std::mem::take(&mut self.tickets));
        }
    }
}
