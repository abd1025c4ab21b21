//! A table of samples: a row for each thing that was measured, a column for each figure.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::samples::{Samples, Unit};

/// A column.
struct Column {
    name: String,
    unit: Unit,
}

/// A row: its name, and a cell for each column; some figures were not measured of all.
struct Row {
    name: String,
    cells: Vec<Option<Samples>>,
}

/// A table.
pub struct Table {
    title: String,
    what: String,
    columns: Vec<Column>,
    rows: Vec<Row>,
}

impl Table {
    /// A table without rows. `what` names the first column, which has the names of the rows.
    pub fn new(title: impl Into<String>, what: &str, columns: &[(&str, Unit)]) -> Self {
        let columns = columns.iter().map(|(name, unit)| Column {
            name: (*name).to_owned(),
            unit: *unit,
        });
        Self {
            title: title.into(),
            what: what.to_owned(),
            columns: columns.collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, with a cell for each column.
    pub fn row(&mut self, name: impl Into<String>, cells: impl IntoIterator<Item = Option<Samples>>) {
        self.rows.push(Row {
            name: name.into(),
            cells: cells.into_iter().collect(),
        });
    }

    /// As Markdown, with its title as a paragraph before it.
    pub fn markdown(&self) -> String {
        let mut text = format!("{}:\n\n| {} |", self.title, self.what);
        // Writing to a string cannot fail.
        for column in &self.columns {
            let _ = write!(text, " {} |", column.name);
        }
        text.push_str("\n|---|");
        text.push_str(&"---|".repeat(self.columns.len()));
        text.push('\n');
        for row in &self.rows {
            let _ = write!(text, "| {} |", row.name);
            for (cell, column) in row.cells.iter().zip(&self.columns) {
                let cell = cell.as_ref().map(|cell| cell.show(column.unit));
                let _ = write!(text, " {} |", cell.unwrap_or_default());
            }
            text.push('\n');
        }
        text
    }

    /// For programs: cells by the names of row and column.
    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let cells = row.cells.iter().zip(&self.columns);
            let cells = cells.filter_map(|(cell, column)| {
                let mut cell = cell.as_ref()?.json();
                cell["unit"] = column.unit.name().into();
                Some((column.name.clone(), cell))
            });
            json!({"name": row.name, "cells": cells.collect::<serde_json::Map<_, _>>()})
        });
        json!({"title": self.title, "rows": rows.collect::<Vec<_>>()})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_that_was_not_measured_is_empty() {
        let mut table = Table::new("Latency", "way", &[("p99", Unit::Seconds), ("rate", Unit::Count)]);
        table.row("direct", [Some(Samples::one(0.001)), None]);
        assert_eq!(
            table.markdown(),
            "Latency:\n\n| way | p99 | rate |\n|---|---|---|\n| direct | 1.00 ms |  |\n"
        );
        let json = table.json();
        assert_eq!(json["rows"][0]["cells"]["p99"]["median"], 0.001);
        assert_eq!(json["rows"][0]["cells"]["p99"]["unit"], "seconds");
        assert!(json["rows"][0]["cells"].get("rate").is_none());
    }
}
