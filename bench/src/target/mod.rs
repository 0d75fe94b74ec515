//! What is measured: Beltway, the peers Debian has, and the floors; each started alike and pinned alike.
//!
//! A target is configured either to forward alone (for `/pass/…`), with no cache at all, or to cache (for `/c/…`,
//! `/miss/…` and `/slow/…`). All have one event thread or worker, kept connections to the origin, and no access log
//! unless that is what is measured.

mod ats;
mod beltway;
mod haproxy;
mod nginx;
mod varnish;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use beltway::build as build_beltway;

use crate::error::{Outcome, Trouble};
use crate::floors::Floor;
use crate::lab::{self, Lab};
use crate::leash::{Leash, LeashedCommand, OURSELVES};
use crate::probe;

/// How long a target may take from its start to its first answer.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// Idle origin connections a peer may keep: more than any workload has clients.
const ORIGIN_IDLE_MAX: u32 = 256;
/// Client connections a peer must bear at once: those of `idle`, and some.
const CONNECTIONS_MAX: u32 = 8192;

/// A program that can be a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// The minimal server for the workload.
    Floor,
    /// Another minimal server for the same workload, which sends without copying.
    FloorSendfile,
    /// Beltway's server role alone.
    Beltway,
    /// nginx, one worker.
    Nginx,
    /// The same with a buffered access log; only where logging is measured.
    NginxBuffered,
    /// HAProxy, one thread.
    Haproxy,
    /// Varnish, one thread pool.
    Varnish,
    /// Apache Traffic Server, one event thread.
    Ats,
}

impl Kind {
    /// Those that are neither floor nor ours.
    pub(crate) const PEERS: [Self; 4] = [Self::Nginx, Self::Haproxy, Self::Varnish, Self::Ats];

    /// The peer of that name, as given on the command line.
    pub(crate) fn peer(name: &str) -> Outcome<Self> {
        Self::PEERS.into_iter().find(|kind| kind.to_string() == name).ok_or_else(|| {
            let known: Vec<String> = Self::PEERS.iter().map(ToString::to_string).collect();
            Trouble::Wrong(format!("no peer is named {name:?}; known: {}", known.join(", ")))
        })
    }

    /// True for those that Beltway is compared with.
    pub(crate) fn is_peer(self) -> bool {
        Self::PEERS.contains(&self) || self == Self::NginxBuffered
    }

    /// True for the minimal servers.
    pub(crate) fn is_floor(self) -> bool {
        matches!(self, Self::Floor | Self::FloorSendfile)
    }

    /// True for those whose access log is measured.
    pub(crate) fn can_log(self) -> bool {
        matches!(self, Self::Beltway | Self::Nginx | Self::NginxBuffered)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Floor => "floor",
            Self::FloorSendfile => "floor-sendfile",
            Self::Beltway => "beltway",
            Self::Nginx => "nginx",
            Self::NginxBuffered => "nginx-buffered",
            Self::Haproxy => "haproxy",
            Self::Varnish => "varnish",
            Self::Ats => "ats",
        })
    }
}

/// Whether the target has to cache for a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Caching {
    /// Only `/pass/…` will be asked.
    No,
    /// `/c/…`, `/miss/…` and `/slow/…` will be asked.
    Yes,
    /// The same, with an access log.
    Logged,
}

/// What every start needs to know.
pub(crate) struct Surroundings<'a> {
    /// Directory and cores.
    pub(crate) lab: &'a Lab,
    /// The origin's port.
    pub(crate) origin: u16,
    /// Beltway's binary, if there is one.
    pub(crate) beltway: Option<PathBuf>,
}

/// A running target.
pub(crate) struct Target {
    /// Which program.
    pub(crate) kind: Kind,
    /// What it was configured for.
    pub(crate) caching: Caching,
    /// Its port on 127.0.0.1.
    pub(crate) port: u16,
    /// Its own word on its version.
    pub(crate) version: String,
    /// The program that runs.
    pub(crate) program: PathBuf,
    /// Its access log, where it has one.
    pub(crate) access_log: Option<PathBuf>,
    leash: Leash,
}

/// The name of a target's access log in its room.
const ACCESS_LOG: &str = "access.log";

impl Target {
    /// Starts a program, not a floor, and waits until `/pass/1k` is answered with 200.
    pub(crate) fn start(kind: Kind, caching: Caching, around: &Surroundings<'_>) -> Outcome<Self> {
        let port = lab::free_port()?;
        let room = around.lab.room(&kind.to_string())?;
        let prepared = match kind {
            Kind::Floor | Kind::FloorSendfile => {
                return Err(Trouble::Wrong("a floor is started by its own arguments".to_owned()));
            }
            Kind::Beltway => beltway::prepare(around, caching, &room, port)?,
            Kind::Nginx => nginx::prepare(around, caching, &room, port, "")?,
            Kind::NginxBuffered => nginx::prepare(around, caching, &room, port, nginx::BUFFERED)?,
            Kind::Haproxy => haproxy::prepare(around, caching, &room, port)?,
            Kind::Varnish => varnish::prepare(around, &room, port)?,
            Kind::Ats => ats::prepare(around, caching, &room, port)?,
        };
        let log = room.join("output");
        let leash = Leash::spawn(&prepared.command, &log, &log)?;
        let access_log = (caching == Caching::Logged).then(|| room.join(ACCESS_LOG));
        let Prepared { version, program, .. } = prepared;
        Self { kind, caching, port, version, program, access_log, leash }.ready("/pass/1k", &log)
    }

    /// Starts a floor.
    pub(crate) fn start_floor(floor: &Floor, path: &str, around: &Surroundings<'_>) -> Outcome<Self> {
        let kind = if matches!(floor, Floor::Sendfile { .. }) { Kind::FloorSendfile } else { Kind::Floor };
        let (port, words) = floor_words(floor);
        let room = around.lab.room("floor")?;
        let command = LeashedCommand::new(OURSELVES, around.lab.proxy_core).arg("floor").args(words);
        let log = room.join("output");
        let leash = Leash::spawn(&command, &log, &log)?;
        let (version, program) = (String::new(), PathBuf::from(OURSELVES));
        Self { kind, caching: Caching::No, port, version, program, access_log: None, leash }.ready(path, &log)
    }

    /// All its processes.
    pub(crate) fn processes(&self) -> Vec<u32> {
        self.leash.processes()
    }

    /// True when it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.leash.has_ended()
    }

    fn ready(mut self, path: &str, log: &Path) -> Outcome<Self> {
        let kind = self.kind;
        let port = self.port;
        let mut last = String::from("no answer");
        let waited = lab::wait_until(&format!("{kind}'s first answer"), START_PATIENCE, || {
            match probe::get(port, path, &[("Connection", "close")]) {
                Ok(answer) if answer.status == 200 => return true,
                Ok(answer) => last = format!("status {}", answer.status),
                Err(trouble) => last = trouble.to_string(),
            }
            self.has_ended()
        });
        if waited.is_ok() && !self.has_ended() {
            return Ok(self);
        }
        let text = fs::read_to_string(log).unwrap_or_default();
        let tail: Vec<&str> = text.lines().rev().take(15).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        Err(Trouble::Wrong(format!("{kind} does not answer ({last}); its last words:\n{}", tail.join("\n"))))
    }
}

pub(crate) fn floor_words(floor: &Floor) -> (u16, Vec<String>) {
    let words = |name: &str, port: &u16, rest: &[(&str, String)]| {
        let mut words = vec![name.to_owned(), "--port".to_owned(), port.to_string()];
        for (flag, value) in rest {
            words.push((*flag).to_owned());
            words.push(value.clone());
        }
        (*port, words)
    };
    match floor {
        Floor::Ready { port, body } => words("ready", port, &[("--body", body.to_string())]),
        Floor::Sendfile { port, body } => words("sendfile", port, &[("--body", body.to_string())]),
        Floor::Copy { port, origin } => words("copy", port, &[("--origin", origin.to_string())]),
        Floor::Close { port, body } => words("close", port, &[("--body", body.to_string())]),
        Floor::Relay { port, origin, path } => {
            words("relay", port, &[("--origin", origin.to_string()), ("--path", path.clone())])
        }
        Floor::Mux { port, server, threads, shape } => {
            let lengths = [("--request", shape.request.to_string()), ("--answer", shape.answer.to_string())];
            let both = [("--server", server.to_string()), ("--threads", threads.to_string())];
            words("mux", port, &[both, lengths].concat())
        }
    }
}

/// A command that will be a target, its program and version.
struct Prepared {
    command: LeashedCommand,
    program: PathBuf,
    version: String,
}

/// The first line of what a program says about its version.
fn version(lab: &Lab, program: &Path, flag: &str) -> Outcome<String> {
    let command = LeashedCommand::new(program.display().to_string(), lab.load_core).arg(flag);
    let text = lab.tool(&command, Duration::from_secs(10))?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

fn write(path: &Path, text: &str) -> Outcome<()> {
    fs::write(path, text).map_err(|error| Trouble::Io(path.display().to_string(), error))
}
