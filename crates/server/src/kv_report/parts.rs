//! A report that one packet of the control socket has no room for is told in parts.
//!
//! All parts are of one moment. Those who asked at that moment are told the same parts, each at his own pace; what all of
//! them have been told is gone, and of what nobody asks on about only the newest is kept.

use std::collections::VecDeque;

use serde::Serialize;
use supervise::control::{PACKET_MAX, PEERS_MAX};
use supervise::kv::{KvPoolReport, KvReport};

/// Bytes of one part in JSON, at most; what is around it is small.
const PART_BYTES_MAX: usize = PACKET_MAX - (16 << 10);
/// Reports of which parts are kept: one for each who may be reading.
const KEPT_MAX: usize = PEERS_MAX;
/// Parts that are kept; of the newest report all.
const PARTS_MAX: usize = 256;

/// What is left to be told.
#[derive(Debug, Default)]
pub(super) struct Parts {
    next: u64,
    kept: VecDeque<Kept>,
}

/// A report of which somebody has more to be told.
#[derive(Debug)]
struct Kept {
    /// The number of its second part; that of the one after is the next one.
    first: u64,
    /// All but the first part.
    parts: Vec<KvReport>,
    /// Those who have not been told the last part.
    readers: usize,
}

impl Parts {
    /// The first part of a report, for so many readers; the others are kept.
    pub(super) fn begin(&mut self, report: KvReport, readers: usize) -> KvReport {
        let mut parts = cut(report);
        let first = parts.pop_front().unwrap_or_default();
        if parts.is_empty() || readers == 0 {
            return first;
        }
        let number = self.next + 1;
        self.next += parts.len() as u64;
        self.kept.push_back(Kept { first: number, parts: parts.into(), readers });
        while self.kept.len() > KEPT_MAX || (self.kept.len() > 1 && self.count() > PARTS_MAX) {
            self.kept.pop_front();
        }
        KvReport { more: Some(number), ..first }
    }

    fn count(&self) -> usize {
        self.kept.iter().map(|kept| kept.parts.len()).sum()
    }

    /// The part with that number; none when it is gone.
    pub(super) fn more(&mut self, number: u64) -> Option<KvReport> {
        let place = |kept: &Kept| usize::try_from(number.checked_sub(kept.first)?).ok();
        let within = |kept: &Kept| place(kept).is_some_and(|place| place < kept.parts.len());
        let at = self.kept.iter().position(within)?;
        let kept = self.kept.get_mut(at)?;
        let place = place(kept)?;
        if place + 1 < kept.parts.len() {
            return Some(KvReport { more: Some(number + 1), ..kept.parts.get(place)?.clone() });
        }
        kept.readers = kept.readers.saturating_sub(1);
        if kept.readers > 0 {
            return kept.parts.last().cloned();
        }
        self.kept.remove(at).and_then(|mut kept| kept.parts.pop())
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
            let mut told = parts.begin(whole.clone(), 1);
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
    fn who_asked_together_is_told_all_of_it_however_many_they_are_and_whatever_comes_after() {
        let whole = report(1, 2_000);
        let mut parts = Parts::default();
        let readers = 12;
        let mut told = vec![parts.begin(whole.clone(), readers); readers];
        // Others ask at other moments, as many as may, and go away.
        for _ in 1..KEPT_MAX {
            parts.begin(report(1, 400), 1);
        }
        while told.iter().any(|told| told.more.is_some()) {
            for told in &mut told {
                let next = parts.more(told.more.unwrap()).unwrap();
                told.append(next);
            }
        }
        assert!(told.iter().all(|told| *told == whole));
        assert_eq!(parts.kept.len(), KEPT_MAX - 1, "nothing is left of what all were told");
    }

    #[test]
    fn of_reports_that_nobody_asks_on_about_only_so_much_is_kept() {
        let mut parts = Parts::default();
        let begin = |parts: &mut Parts, servers: usize| parts.begin(report(1, servers), 1).more.unwrap();
        let numbers: Vec<_> = (0..KEPT_MAX + 3).map(|_| begin(&mut parts, 400)).collect();
        assert_eq!(parts.kept.len(), KEPT_MAX);
        assert_eq!(parts.more(numbers[0]), None);
        assert!(parts.more(numbers[KEPT_MAX + 2]).is_some());
        let large = (0..3).map(|_| begin(&mut parts, 30_000)).last().unwrap();
        assert!(parts.count() <= PARTS_MAX, "{}", parts.count());
        let larger = begin(&mut parts, 70_000);
        assert_eq!((parts.kept.len(), parts.more(large)), (1, None));
        assert!(parts.more(larger).is_some());
    }
}
