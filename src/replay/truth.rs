//! A truth to compare tags with: the declared tags of the dump itself, or a CSV of labels.

use std::path::Path;

use anyhow::{Context as _, ensure};
use hashbrown::HashMap;

use crate::ledger::Held;
use crate::ticket::Affects;

/// Where the truth comes from.
#[derive(Debug)]
pub enum Truth {
    /// The declared tags, which then decide nothing.
    Declared,
    /// A tag by ticket id.
    Labels(HashMap<String, Affects>),
}

impl Truth {
    /// `affects` for the declared tags, or a CSV with the columns `id` and `label`; labels other than `customer` and
    /// `internal` are no truth.
    ///
    /// # Errors
    /// When the file cannot be read or lacks a column.
    pub fn parse(argument: &str) -> anyhow::Result<Self> {
        if argument == "affects" {
            return Ok(Self::Declared);
        }
        let mut reader = csv::Reader::from_path(Path::new(argument)).with_context(|| {
            format!("--truth {argument}: give `affects`, or a CSV file with the columns id and label")
        })?;
        let headers = reader.headers()?.clone();
        let column = |name: &str| headers.iter().position(|header| header == name);
        let (id, label) = (column("id"), column("label"));
        ensure!(
            id.is_some() && label.is_some(),
            "--truth {argument}: the columns id and label are needed, found: {}",
            headers.iter().collect::<Vec<_>>().join(", ")
        );
        let mut labels = HashMap::new();
        for row in reader.records() {
            let row = row.with_context(|| format!("--truth {argument}"))?;
            let cell = |column: Option<usize>| column.and_then(|at| row.get(at)).unwrap_or_default();
            if let Some(affects) = Affects::from_name(cell(label)) {
                labels.insert(cell(id).to_owned(), affects);
            }
        }
        Ok(Self::Labels(labels))
    }

    /// The true tag of a ticket, where there is one.
    pub fn of(&self, held: &Held) -> Option<Affects> {
        match self {
            Self::Declared => held.findings.declared,
            Self::Labels(labels) => labels.get(held.id.as_str()).copied(),
        }
    }
}
