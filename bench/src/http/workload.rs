//! The workloads, as a table.

use crate::error::{Outcome, Trouble};
use crate::floors::Floor;
use crate::lab;
use crate::load::wrk::Paths;
use crate::origin::RANDOM_OBJECTS;
use crate::target::{Caching, Kind};

/// How often the origin must have been asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OriginUse {
    /// Once for every request.
    EveryRequest,
    /// Not at all: everything is served from the cache.
    Never,
}

/// How it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// wrk loads all targets, interleaved; CPU, system calls and memory are accounted.
    Load,
    /// Connections are held open; memory is accounted.
    Idle,
    /// A crowd asks for one slow object at once; the time of each answer is noted.
    Collapsing,
    /// wrk loads Beltway alone; its allocations are counted.
    Allocations,
}

/// What kind of work a floor has to do for it.
#[derive(Clone, Copy, Debug)]
enum FloorKind {
    Ready(usize),
    Sendfile(usize),
    Close(usize),
    Copy,
    Relay,
}

/// One workload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    /// As given on the command line.
    pub(crate) name: &'static str,
    /// In one line.
    pub(crate) about: &'static str,
    /// What is asked for.
    pub(crate) paths: Paths,
    /// Connections at once.
    pub(crate) connections: u32,
    /// A client connection for each request.
    pub(crate) close: bool,
    /// Whether targets need a cache.
    pub(crate) caching: Caching,
    /// What the origin must have seen.
    pub(crate) origin_use: OriginUse,
    /// Bytes of body of each answer.
    pub(crate) body: usize,
    /// How it is measured.
    pub(crate) measure: Measure,
    /// The target that Beltway's ratio is held against, and the most it may be.
    pub(crate) reach: Option<(Kind, f64)>,
    floor: FloorKind,
    other_floor: Option<FloorKind>,
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// All of them, in the order in which `all` runs them.
const ALL: [Workload; 12] = [
    pass("pass1k", "pass-through, 1 KiB, 64 kept connections", false, FloorKind::Copy),
    pass("passclose", "pass-through, 1 KiB, one client connection per request", true, FloorKind::Relay),
    Workload { measure: Measure::Idle, ..pass("idle", "memory per idle kept connection", false, FloorKind::Copy) },
    hit("hit1k", "cache hit, 1 KiB, 64 kept connections", "/c/1k", KIB, 1.5),
    hit("hit16k", "cache hit, 16 KiB, 64 kept connections", "/c/16k", 16 * KIB, 1.5),
    Workload {
        paths: Paths::Random("/c/4k/", RANDOM_OBJECTS),
        ..hit("rand4k", "cache hit, 10,000 objects of 4 KiB at random, 64 kept connections", "/c/4k/0", 4 * KIB, 1.7)
    },
    Workload {
        paths: Paths::Fresh("/miss/"),
        origin_use: OriginUse::EveryRequest,
        floor: FloorKind::Copy,
        ..hit("miss", "miss and fill, 1 KiB, every URL new, 64 kept connections", "/miss/0", KIB, 1.7)
    },
    Workload {
        close: true,
        floor: FloorKind::Close(KIB),
        ..hit("close1k", "cache hit, 1 KiB, one client connection per request", "/c/1k", KIB, 1.2)
    },
    Workload {
        connections: 16,
        other_floor: Some(FloorKind::Sendfile(MIB)),
        ..hit("hit1m", "cache hit, 1 MiB, 16 kept connections", "/c/1m", MIB, 1.1)
    },
    Workload {
        caching: Caching::Logged,
        reach: Some((Kind::Nginx, 0.8)),
        ..hit("hitlog", "cache hit, 1 KiB, with access log, 64 kept connections", "/c/1k", KIB, 0.0)
    },
    Workload {
        measure: Measure::Collapsing,
        reach: None,
        ..hit("collapse", "100 clients at once for an object that the origin has after one second", "", KIB, 0.0)
    },
    Workload {
        measure: Measure::Allocations,
        reach: None,
        ..hit("allocations", "allocations per request of Beltway in the steady state", "", KIB, 0.0)
    },
];

/// The ones that need no cache come first: so many.
const PASSES: usize = 3;

const fn pass(name: &'static str, about: &'static str, close: bool, floor: FloorKind) -> Workload {
    Workload {
        name,
        about,
        paths: Paths::One("/pass/1k"),
        connections: 64,
        close,
        caching: Caching::No,
        origin_use: OriginUse::EveryRequest,
        body: KIB,
        measure: Measure::Load,
        reach: None,
        floor,
        other_floor: None,
    }
}

const fn hit(name: &'static str, about: &'static str, path: &'static str, body: usize, reach: f64) -> Workload {
    Workload {
        name,
        about,
        paths: Paths::One(path),
        connections: 64,
        close: false,
        caching: Caching::Yes,
        origin_use: OriginUse::Never,
        body,
        measure: Measure::Load,
        reach: Some((Kind::Floor, reach)),
        floor: FloorKind::Ready(body),
        other_floor: None,
    }
}

/// Those named, in the order named.
pub(crate) fn chosen(names: &[String]) -> Outcome<Vec<Workload>> {
    let mut found = Vec::new();
    for name in names {
        let (passes, caches) = ALL.split_at(PASSES);
        match name.as_str() {
            "all" => found.extend(ALL),
            "pass" => found.extend(passes),
            "cache" => found.extend(caches),
            name => found.push(ALL.into_iter().find(|workload| workload.name == name).ok_or_else(|| {
                let known: Vec<&str> = ALL.iter().map(|workload| workload.name).collect();
                Trouble::Wrong(format!("no workload is named {name:?}; known: all, pass, cache, {}", known.join(", ")))
            })?),
        }
    }
    Ok(found)
}

impl Workload {
    /// Whether a program takes part.
    pub(crate) fn takes(&self, kind: Kind) -> bool {
        match self.caching {
            Caching::Logged => kind.can_log(),
            Caching::No | Caching::Yes => kind != Kind::NginxBuffered,
        }
    }

    /// The floors to start for it; ratios are to the first.
    pub(crate) fn floors(&self, origin: u16) -> Outcome<Vec<Floor>> {
        std::iter::once(self.floor)
            .chain(self.other_floor)
            .map(|kind| {
                let port = lab::free_port()?;
                Ok(match kind {
                    FloorKind::Ready(body) => Floor::Ready { port, body },
                    FloorKind::Sendfile(body) => Floor::Sendfile { port, body },
                    FloorKind::Close(body) => Floor::Close { port, body },
                    FloorKind::Copy => Floor::Copy { port, origin },
                    FloorKind::Relay => Floor::Relay { port, origin, path: self.paths.sample() },
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_workload_is_refused_with_the_known_ones() {
        let refusal = chosen(&["hit1x".to_owned()]).unwrap_err().to_string();
        assert!(refusal.contains("hit1k"), "{refusal}");
        assert_eq!(chosen(&["all".to_owned()]).unwrap().len(), ALL.len());
    }

    #[test]
    fn those_without_a_cache_come_first_and_the_groups_are_all() {
        let (passes, caches) = (chosen(&["pass".to_owned()]).unwrap(), chosen(&["cache".to_owned()]).unwrap());
        assert!(passes.iter().all(|workload| workload.caching == Caching::No));
        assert!(caches.iter().all(|workload| workload.caching != Caching::No));
        assert_eq!(passes.len() + caches.len(), ALL.len());
    }
}
