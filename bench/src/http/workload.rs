//! The workloads, as a table.

use crate::error::{Outcome, Trouble};
use crate::floors::Floor;
use crate::lab;
use crate::load::wrk::Paths;
use crate::origin::RANDOM_OBJECTS;
use crate::target::Caching;

/// How often the origin must have been asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OriginUse {
    /// Once for every request.
    EveryRequest,
    /// Not at all: everything is served from the cache.
    Never,
}

/// What kind of work a floor has to do for it.
#[derive(Clone, Copy, Debug)]
enum FloorKind {
    Ready(usize),
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
    floor: FloorKind,
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// All of them, in the order in which `all` runs them.
const ALL: [Workload; 9] = [
    pass("pass1k", "pass-through, 1 KiB, 64 kept connections", false, FloorKind::Copy),
    pass("passclose", "pass-through, 1 KiB, one client connection per request", true, FloorKind::Relay),
    pass(IDLE, "memory per idle kept connection", false, FloorKind::Copy),
    hit("hit1k", "cache hit, 1 KiB, 64 kept connections", "/c/1k", KIB, 64),
    hit("hit16k", "cache hit, 16 KiB, 64 kept connections", "/c/16k", 16 * KIB, 64),
    hit("hit1m", "cache hit, 1 MiB, 16 kept connections", "/c/1m", MIB, 16),
    Workload {
        paths: Paths::Random("/c/4k/", RANDOM_OBJECTS),
        ..hit("rand4k", "cache hit, 10,000 objects of 4 KiB at random, 64 kept connections", "/c/4k/0", 4 * KIB, 64)
    },
    Workload {
        paths: Paths::Fresh("/miss/"),
        origin_use: OriginUse::EveryRequest,
        floor: FloorKind::Copy,
        ..hit("miss", "miss and fill, 1 KiB, 64 kept connections", "/miss/0", KIB, 64)
    },
    Workload {
        close: true,
        floor: FloorKind::Close(KIB),
        ..hit("close1k", "cache hit, 1 KiB, one client connection per request", "/c/1k", KIB, 64)
    },
];

/// The one that wrk does not load.
const IDLE: &str = "idle";

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
        floor,
    }
}

const fn hit(name: &'static str, about: &'static str, path: &'static str, body: usize, connections: u32) -> Workload {
    Workload {
        name,
        about,
        paths: Paths::One(path),
        connections,
        close: false,
        caching: Caching::Yes,
        origin_use: OriginUse::Never,
        body,
        floor: FloorKind::Ready(body),
    }
}

/// Those named, in the order named.
pub(crate) fn chosen(names: &[String]) -> Outcome<Vec<Workload>> {
    if names.iter().any(|name| name == "all") {
        return Ok(ALL.to_vec());
    }
    names
        .iter()
        .map(|name| {
            ALL.into_iter().find(|workload| workload.name == name).ok_or_else(|| {
                let known: Vec<&str> = ALL.iter().map(|workload| workload.name).collect();
                Trouble::Wrong(format!("no workload is named {name:?}; known: {}", known.join(", ")))
            })
        })
        .collect()
}

impl Workload {
    /// True for the one that measures memory instead of time.
    pub(crate) fn is_idle(&self) -> bool {
        self.name == IDLE
    }

    /// The floor to start for it.
    pub(crate) fn floor(&self, origin: u16) -> Outcome<Floor> {
        let port = lab::free_port()?;
        Ok(match self.floor {
            FloorKind::Ready(body) => Floor::Ready { port, body },
            FloorKind::Close(body) => Floor::Close { port, body },
            FloorKind::Copy => Floor::Copy { port, origin },
            FloorKind::Relay => Floor::Relay { port, origin, path: self.paths.sample() },
        })
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
}
