//! The tables, printed row by row as they come, each with what it is to reach and what it aims at.

use super::cells::{Cell, Target, Turn};
use super::proxies::Kind;
use crate::error::Outcome;
use crate::table::{least, median};

/// A figure that is no cost per command.
pub(super) struct Row {
    pub(super) what: String,
    pub(super) nutcracker: String,
    pub(super) beltway: String,
    /// What it is to reach and what it aims at, in words, whether it reached, and whether it came to its aim.
    pub(super) wanted: Option<(&'static str, bool, bool)>,
}

/// What was said so far.
#[derive(Default)]
pub(super) struct Report {
    missed: Vec<String>,
    failed: Vec<String>,
}

fn of(turns: &[Turn], kind: Kind, figure: impl Fn(&Turn) -> f64) -> Vec<f64> {
    turns.iter().filter(|turn| turn.kind == kind).map(figure).collect()
}

impl Report {
    pub(super) fn begin(&self) {
        println!(
            "| commands/s · p50 · p99 ms · CPU µs a command (least) | direct | floor | nutcracker | beltway | user | × floor | × nutcracker (least/least) | reach | aim | |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|");
    }

    /// One row of the first table.
    pub(super) fn cell(&mut self, cell: &Cell, turns: Outcome<Vec<Turn>>) {
        let turns = match turns {
            Ok(turns) => turns,
            Err(trouble) => {
                println!("| {} | {trouble} | | | | | | | | | failed |", cell.name);
                self.failed.push(format!("{}: {trouble}", cell.name));
                return;
            }
        };
        let shown = |kind| {
            let cpu = of(&turns, kind, |turn| turn.cpu_us);
            if cpu.is_empty() {
                return String::new();
            }
            format!(
                "{:.0} · {:.2} · {:.2} · {:.2} ({:.2})",
                median(&of(&turns, kind, |turn| turn.per_second)),
                median(&of(&turns, kind, |turn| turn.p50_ms)),
                median(&of(&turns, kind, |turn| turn.p99_ms)),
                median(&cpu),
                least(&cpu)
            )
        };
        let cpu = |kind| of(&turns, kind, |turn| turn.cpu_us);
        let ratios: Vec<f64> =
            cpu(Kind::Beltway).iter().zip(cpu(Kind::Nutcracker)).map(|(ours, its)| ours / its).collect();
        let ratio = median(&ratios);
        let best = least(&cpu(Kind::Beltway)) / least(&cpu(Kind::Nutcracker));
        let share = median(&of(&turns, Kind::Beltway, |turn| turn.per_second))
            / median(&of(&turns, Kind::Direct, |turn| turn.per_second));
        let over: Vec<f64> = cpu(Kind::Beltway).iter().zip(cpu(Kind::Floor)).map(|(ours, its)| ours / its).collect();
        let over = if over.is_empty() { String::new() } else { format!("{:.2}", median(&over)) };
        let (figure, reach, aim, reached, aimed) = match cell.target {
            Target::Cpu(reach, aim) => (
                format!("{ratio:.2} ({best:.2})"),
                format!("{reach:.2}"),
                format!("{aim:.2}"),
                ratio <= reach,
                ratio <= aim,
            ),
            Target::Share(reach) => {
                (format!("{share:.2} of direct"), format!("{reach:.2}"), String::new(), share >= reach, false)
            }
            Target::OverSingle(reach, aim) => {
                let growth = |several, single| {
                    median(&cpu(several).iter().zip(cpu(single)).map(|(one, other)| one / other).collect::<Vec<_>>())
                };
                let grown = growth(Kind::Beltway, Kind::Single);
                let floor = growth(Kind::Floor, Kind::FloorSingle);
                let one = median(&cpu(Kind::Single));
                let figure = format!("{grown:.2} × one thread ({one:.2} µs); the floor {floor:.2} × its own");
                (figure, format!("{reach:.2}"), format!("{aim:.2}"), grown <= reach, grown <= aim)
            }
            Target::None => (format!("{ratio:.2} ({best:.2})"), String::new(), String::new(), true, false),
        };
        let verdict = match (cell.target, reached, aimed) {
            (Target::None, ..) => "",
            (_, _, true) => "aim",
            (_, true, _) => "reached",
            _ => "MISSED",
        };
        if !reached {
            self.missed.push(format!("{}: {figure}", cell.name));
        }
        println!(
            "| {} | {} | {} | {} | {} | {:.0} % | {over} | {figure} | {reach} | {aim} | {verdict} |",
            cell.name,
            shown(Kind::Direct),
            shown(Kind::Floor),
            shown(Kind::Nutcracker),
            shown(Kind::Beltway),
            median(&of(&turns, Kind::Beltway, |turn| turn.user_share)) * 100.0,
        );
    }

    pub(super) fn begin_other(&self) {
        println!("\n| | nutcracker | beltway | reach / aim | |");
        println!("|---|---|---|---|---|");
    }

    /// Rows of the second table.
    pub(super) fn rows(&mut self, name: &str, rows: Outcome<Vec<Row>>) {
        let rows = match rows {
            Ok(rows) => rows,
            Err(trouble) => {
                println!("| {name} | {trouble} | | | failed |");
                self.failed.push(format!("{name}: {trouble}"));
                return;
            }
        };
        for row in rows {
            let (wanted, verdict) = match row.wanted {
                Some((wanted, true, true)) => (wanted, "aim"),
                Some((wanted, true, false)) => (wanted, "reached"),
                Some((wanted, false, _)) => (wanted, "MISSED"),
                None => ("", ""),
            };
            println!("| {} | {} | {} | {wanted} | {verdict} |", row.what, row.nutcracker, row.beltway);
            if verdict == "MISSED" {
                self.missed.push(format!("{}: {}", row.what, row.beltway));
            }
        }
    }

    pub(super) fn close(&self) {
        for missed in &self.missed {
            println!("MISSED {missed}");
        }
        for failed in &self.failed {
            println!("FAULT {failed}");
        }
    }

    pub(super) fn all_reached(&self) -> bool {
        self.missed.is_empty() && self.failed.is_empty()
    }
}
