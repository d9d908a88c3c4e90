//! Tables for people.

use std::fmt::{self, Write as _};

/// Rows below a header, each column as wide as its widest cell: first those of text, set to the left, then those of
/// numbers, set to the right.
#[derive(Clone, Debug)]
pub struct TextTable {
    texts: usize,
    rows: Vec<Vec<String>>,
}

impl TextTable {
    /// A table with nothing below its header, whose first `texts` columns hold text.
    pub fn new(texts: usize, header: &[&str]) -> Self {
        Self { texts, rows: vec![header.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    fn width(&self, column: usize) -> usize {
        self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    }
}

impl fmt::Display for TextTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths: Vec<usize> = (0..self.rows.first().map_or(0, Vec::len)).map(|column| self.width(column)).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                match column < self.texts {
                    true => write!(line, "{cell:<width$}  ")?,
                    false => write!(line, "{cell:>width$}  ")?,
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
