//! The closing table: one line a workload, Beltway beside what it must reach and beside the peers.

use crate::table::Table;
use crate::target::Kind;

/// One line.
pub(super) struct Line {
    /// The workload.
    pub(super) name: String,
    /// What the figures are.
    pub(super) unit: String,
    /// What the ratios are to, in absolute terms.
    pub(super) base: Option<String>,
    /// Beltway's figure.
    pub(super) beltway: Option<f64>,
    /// The most that it may be.
    pub(super) reach: Option<f64>,
    /// Those of [`Kind::PEERS`], in that order.
    pub(super) peers: Vec<Option<f64>>,
    /// Beltway's system calls per request.
    pub(super) syscalls: Option<f64>,
}

impl Line {
    fn verdict(&self) -> &'static str {
        match (self.beltway, self.reach) {
            (Some(figure), Some(reach)) if figure <= reach => "held",
            (Some(_), Some(_)) => "MISSED",
            _ => "-",
        }
    }
}

/// The table, or nothing when there is no line.
pub(super) fn table(lines: &[Line]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let mut heading = vec!["workload".to_owned(), "figure".to_owned(), "base".to_owned(), "beltway".to_owned()];
    heading.extend(["reach", "verdict"].map(str::to_owned));
    heading.extend(Kind::PEERS.map(|kind| kind.to_string()));
    heading.push("our syscalls".to_owned());
    let mut table = Table::new(&heading.iter().map(String::as_str).collect::<Vec<_>>());
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
    for line in lines {
        let mut cells = vec![
            line.name.clone(),
            line.unit.clone(),
            line.base.clone().unwrap_or_else(|| "-".to_owned()),
            number(line.beltway),
            number(line.reach),
            line.verdict().to_owned(),
        ];
        cells.extend((0..Kind::PEERS.len()).map(|place| number(line.peers.get(place).copied().flatten())));
        cells.push(number(line.syscalls));
        table.row(cells);
    }
    format!("\n{table}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_at_its_reach_is_held_and_one_above_is_missed() {
        let line = |figure| Line {
            name: "hit1k".to_owned(),
            unit: "× floor".to_owned(),
            base: None,
            beltway: Some(figure),
            reach: Some(1.5),
            peers: vec![None; 4],
            syscalls: Some(2.1),
        };
        assert_eq!(line(1.5).verdict(), "held");
        assert_eq!(line(1.51).verdict(), "MISSED");
        assert!(table(&[line(1.5)]).contains("held"));
        assert_eq!(table(&[]), "");
    }
}
