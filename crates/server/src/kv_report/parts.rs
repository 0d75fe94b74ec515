//! A report that one packet of the control socket has no room for is told in parts.
//!
//! All parts are of one moment: those that were not asked for yet are kept, of the newest few reports.

use std::collections::VecDeque;

use serde::Serialize;
use supervise::control::PACKET_MAX;
use supervise::kv::{KvPoolReport, KvReport};

/// Bytes of one part in JSON, at most; what is around it is small.
const PART_BYTES_MAX: usize = PACKET_MAX - (16 << 10);
/// Reports of which parts are kept.
const KEPT_MAX: usize = 4;

/// What is left to be told, by the reports' numbers.
#[derive(Debug, Default)]
pub(super) struct Parts {
    next: u64,
    kept: VecDeque<(u64, VecDeque<KvReport>)>,
}

impl Parts {
    /// The first part of a report; the others are kept.
    pub(super) fn begin(&mut self, report: KvReport) -> KvReport {
        let mut parts = cut(report);
        let first = parts.pop_front().unwrap_or_default();
        if parts.is_empty() {
            return first;
        }
        self.next += 1;
        self.kept.push_back((self.next, parts));
        if self.kept.len() > KEPT_MAX {
            self.kept.pop_front();
        }
        KvReport { more: Some(self.next), ..first }
    }

    /// The next part of the report with that number; none when it is gone.
    pub(super) fn more(&mut self, number: u64) -> Option<KvReport> {
        let at = self.kept.iter().position(|(own, _)| *own == number)?;
        let (_, parts) = self.kept.get_mut(at)?;
        let part = parts.pop_front()?;
        if parts.is_empty() {
            self.kept.remove(at);
            return Some(part);
        }
        Some(KvReport { more: Some(number), ..part })
    }
}

fn len_in_json(of: &impl Serialize) -> usize {
    // These types can all be written; what could not would not be sent, either.
    serde_json::to_vec(of).map_or(0, |bytes| bytes.len() + 1)
}

/// Parts that one packet has room for each.
fn cut(report: KvReport) -> VecDeque<KvReport> {
    let KvReport { threads, more: _, pools, commands, slow } = report;
    let new = || KvReport { threads, ..KvReport::default() };
    let (mut parts, mut part, mut room) = (VecDeque::new(), new(), PART_BYTES_MAX);
    // True: what is this long begins a new part.
    let mut turn = |part: &mut KvReport, len: usize| {
        let full = len > room && room < PART_BYTES_MAX;
        if full {
            parts.push_back(std::mem::replace(part, new()));
            room = PART_BYTES_MAX;
        }
        room = room.saturating_sub(len);
        full
    };
    for mut pool in pools {
        let servers = std::mem::take(&mut pool.servers);
        let name = pool.name.clone();
        turn(&mut part, len_in_json(&pool));
        part.pools.push(pool);
        for server in servers {
            if turn(&mut part, len_in_json(&server)) {
                let rest = KvPoolReport { name: name.clone(), ..KvPoolReport::default() };
                turn(&mut part, len_in_json(&rest));
                part.pools.push(rest);
            }
            if let Some(pool) = part.pools.last_mut() {
                pool.servers.push(server);
            }
        }
    }
    for command in commands {
        turn(&mut part, len_in_json(&command));
        part.commands.push(command);
    }
    for slow in slow {
        turn(&mut part, len_in_json(&slow));
        part.slow.push(slow);
    }
    parts.push_back(part);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use supervise::kv::{KvCommandReport, KvServerReport, KvSlowReport};

    fn report(pools: usize, servers: usize) -> KvReport {
        let server = |at: usize| KvServerReport { name: format!("server{at}"), ..KvServerReport::default() };
        let pool = |at: usize| KvPoolReport {
            name: format!("pool{at}"),
            requests: 7,
            servers: (0..servers).map(server).collect(),
            ..KvPoolReport::default()
        };
        let command = |at: usize| KvCommandReport { name: format!("c{at}"), ..KvCommandReport::default() };
        let slow = |at: usize| KvSlowReport { took_us: at as u64, ..KvSlowReport::default() };
        KvReport {
            threads: 3,
            more: None,
            pools: (0..pools).map(pool).collect(),
            commands: (0..300).map(command).collect(),
            slow: (0..128).map(slow).collect(),
        }
    }

    #[test]
    fn a_report_of_any_size_is_told_in_parts_that_fit_and_make_up_the_whole() {
        for (pools, servers) in [(0, 0), (1, 1), (1, 2_000), (3, 700), (200, 5)] {
            let whole = report(pools, servers);
            let mut parts = Parts::default();
            let mut told = parts.begin(whole.clone());
            assert!(len_in_json(&told) < PACKET_MAX - 1_000);
            while let Some(number) = told.more {
                let next = parts.more(number).unwrap();
                assert!(len_in_json(&next) < PACKET_MAX - 1_000);
                told.append(next);
            }
            assert_eq!(told, whole);
            assert!(parts.kept.is_empty(), "nothing is left of what was told");
        }
    }

    #[test]
    fn of_reports_that_nobody_asks_on_about_only_a_few_are_kept() {
        let mut parts = Parts::default();
        let numbers: Vec<_> = (0..9).map(|_| parts.begin(report(1, 1_000)).more.unwrap()).collect();
        assert_eq!(parts.kept.len(), KEPT_MAX);
        assert_eq!(parts.more(numbers[0]), None);
        assert!(parts.more(numbers[8]).is_some());
    }
}
