//! Markdown tables that are also readable as text, and the few statistics they need.

use std::fmt;

/// Rows under a heading; the first column is aligned to the left, the others to the right.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these column names.
    pub(crate) fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|&name| name.to_owned()).collect()] }
    }

    /// Adds a row; it has as many cells as the heading.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width_of = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width_of).collect();
        for (number, row) in self.rows.iter().enumerate() {
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                if column == 0 { write!(f, "| {cell:<width$} ")? } else { write!(f, "| {cell:>width$} ")? }
            }
            writeln!(f, "|")?;
            if number == 0 {
                for (column, &width) in widths.iter().enumerate() {
                    let (dashes, end) = if column == 0 { (width + 2, "") } else { (width + 1, ":") };
                    write!(f, "|{}{end}", "-".repeat(dashes))?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

/// The middle value, or the mean of the two in the middle; not a number for none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// The least value.
pub(crate) fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// The greatest value.
pub(crate) fn greatest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// Distance from least to greatest, as a share of the median.
pub(crate) fn spread(values: &[f64]) -> f64 {
    (greatest(values) - least(values)) / median(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        assert!((median(&[4.0, 1.0, 3.0, 2.0]) - 2.5).abs() < 1e-12);
        assert!((median(&[9.0, 1.0, 5.0]) - 5.0).abs() < 1e-12);
        assert!((spread(&[9.0, 11.0, 10.0]) - 0.2).abs() < 1e-12);
    }

    #[test]
    fn a_table_is_markdown() {
        let mut table = Table::new(&["name", "µs"]);
        table.row(vec!["floor".to_owned(), "4.90".to_owned()]);
        assert_eq!(table.to_string(), "| name  |   µs |\n|-------|-----:|\n| floor | 4.90 |\n");
    }
}
