//! What is measured: nutcracker as Debian has it, and Beltway's server, each with one pool in front of given servers.

use std::fs;
use std::path::Path;
use std::time::Duration;

use kv::Protocol;

use super::stores::Store;
use crate::error::{Doing, Outcome, Trouble};
use crate::floors::Floor;
use crate::floors::mux::Shape;
use crate::lab::{self, Lab};
use crate::leash::{Leash, LeashedCommand};
use crate::load::pipelined;
use crate::target;

/// How long a proxy may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// The first server itself.
    Direct,
    /// What the kernel alone asks for: commands of one known length, not looked at.
    Floor,
    /// That with one thread, beside itself with several.
    FloorSingle,
    /// Debian's twemproxy.
    Nutcracker,
    /// This project's with one event thread, beside itself with several.
    Single,
    /// This project's.
    Beltway,
}

impl Kind {
    pub(super) const ALL: [Self; 6] =
        [Self::Direct, Self::FloorSingle, Self::Floor, Self::Nutcracker, Self::Single, Self::Beltway];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Floor => "floor",
            Self::FloorSingle => "floor-single",
            Self::Nutcracker => "nutcracker",
            Self::Single => "beltway-single",
            Self::Beltway => "beltway",
        }
    }
}

/// How a proxy is to be set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Setup {
    pub(super) protocol: Protocol,
    /// So many of the servers.
    pub(super) servers: usize,
    /// Ejects: 2 failures, 2 s, requests may take 400 ms.
    pub(super) ejects: bool,
    /// Event threads of Beltway's; nutcracker has one.
    pub(super) threads: usize,
    /// Alone on its core, or on any.
    pub(super) pinned: bool,
    /// Each event thread on a core of its own (`pin_threads`).
    pub(super) tied: bool,
}

/// A running proxy, or none where the server is asked directly.
pub(super) struct Proxy {
    pub(super) port: u16,
    leash: Option<Leash>,
    direct: Vec<u32>,
}

impl Proxy {
    /// Its processes; the server's where there is no proxy.
    pub(super) fn processes(&self) -> Vec<u32> {
        self.leash.as_ref().map_or_else(|| self.direct.clone(), Leash::processes)
    }

    /// Starts one and waits until it answers.
    ///
    /// The floor is told the lengths of what it will be asked.
    pub(super) fn start(
        lab: &Lab,
        beltway: &Path,
        kind: Kind,
        setup: &Setup,
        stores: &[Store],
        lengths: Option<Shape>,
    ) -> Outcome<Self> {
        let servers = stores
            .get(..setup.servers)
            .ok_or_else(|| Trouble::Wrong(format!("there are no {} servers", setup.servers)))?;
        if kind == Kind::Direct {
            return Ok(Self { port: servers[0].port, leash: None, direct: servers[0].processes() });
        }
        let port = lab::free_port()?;
        let room = lab.room(kind.name())?;
        let words = match kind {
            Kind::Floor => floor(port, servers, setup.threads, lengths)?,
            Kind::Direct | Kind::Nutcracker => nutcracker(&room, port, setup, servers)?,
            Kind::Single | Kind::FloorSingle => {
                let several = if kind == Kind::Single { Kind::Beltway } else { Kind::Floor };
                return Self::start(lab, beltway, several, &Setup { threads: 1, ..*setup }, stores, lengths);
            }
            Kind::Beltway if beltway.ends_with("proxy") => example(beltway, port, setup, servers),
            Kind::Beltway => server(beltway, &room, port, setup, servers)?,
        };
        let core = lab.cores(setup.pinned.then_some(lab.proxy_core));
        let command = LeashedCommand::new("taskset", lab.proxy_core).args(["-c", &core]).args(words);
        let log = room.join("output");
        let leash = Leash::spawn(&command, &log, &log)?;
        let question: &[u8] = match setup.protocol {
            Protocol::Redis => b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n",
            Protocol::Memcached => b"get a\r\n",
        };
        lab::wait_until("a proxy's first answer", PATIENCE, || {
            pipelined::once(port, setup.protocol, question, 1).is_ok()
        })
        .map_err(|_| {
            let said = fs::read_to_string(&log).unwrap_or_default();
            Trouble::Wrong(format!("{} does not answer: {said}", kind.name()))
        })?;
        Ok(Self { port, leash: Some(leash), direct: Vec::new() })
    }
}

/// The pool as both have it, each line behind `indent`.
fn pool(indent: &str, port: u16, setup: &Setup, servers: &[Store]) -> String {
    let mut lines = vec![
        "bench:".to_owned(),
        format!("  listen: 127.0.0.1:{port}"),
        "  hash: fnv1a_64".to_owned(),
        "  distribution: ketama".to_owned(),
        "  backlog: 4096".to_owned(),
        format!("  redis: {}", setup.protocol == Protocol::Redis),
    ];
    if setup.ejects {
        let ejects =
            ["timeout: 400", "auto_eject_hosts: true", "server_failure_limit: 2", "server_retry_timeout: 2000"];
        lines.extend(ejects.map(|line| format!("  {line}")));
    }
    lines.push("  servers:".to_owned());
    lines.extend(servers.iter().map(|server| format!("   - 127.0.0.1:{}:1", server.port)));
    lines.iter().map(|line| format!("{indent}{line}\n")).collect()
}

/// The real server.
fn server(program: &Path, room: &Path, port: u16, setup: &Setup, servers: &[Store]) -> Outcome<Vec<String>> {
    let text = format!(
        "runtime_dir: {}\nthreads: {}\npin_threads: {}\nadmin: {{listen: off}}\nserver: {{listen: off}}\nkv:\n  pools:\n{}",
        room.join("run").display(),
        setup.threads,
        setup.tied,
        pool("    ", port, setup, servers)
    );
    let conf = room.join("beltway.yaml");
    fs::write(&conf, text).doing(conf.display())?;
    Ok(vec![program.display().to_string(), "server".to_owned(), "-c".to_owned(), conf.display().to_string()])
}

fn floor(port: u16, servers: &[Store], threads: usize, lengths: Option<Shape>) -> Outcome<Vec<String>> {
    let shape = lengths.ok_or_else(|| Trouble::Wrong("the floor takes commands of one length only".to_owned()))?;
    let program = std::env::current_exe().doing("finding this program")?;
    let (_, words) = target::floor_words(&Floor::Mux { port, server: servers[0].port, threads, shape });
    Ok([program.display().to_string(), "floor".to_owned()].into_iter().chain(words).collect())
}

fn nutcracker(room: &Path, port: u16, setup: &Setup, servers: &[Store]) -> Outcome<Vec<String>> {
    let text = pool("", port, setup, servers);
    let conf = room.join("nutcracker.yml");
    fs::write(&conf, text).doing(conf.display())?;
    let stats = lab::free_port()?.to_string();
    Ok(["nutcracker", "-c", &conf.display().to_string(), "-a", "127.0.0.1", "-s", &stats].map(str::to_owned).to_vec())
}

fn example(program: &Path, port: u16, setup: &Setup, servers: &[Store]) -> Vec<String> {
    let protocol = if setup.protocol == Protocol::Redis { "redis" } else { "memcached" };
    let mut words = vec![program.display().to_string()];
    words.extend([format!("127.0.0.1:{port}"), protocol.to_owned(), setup.threads.to_string()]);
    words.extend(servers.iter().map(|server| format!("127.0.0.1:{}", server.port)));
    // Otherwise it ends when its input does, and the leash gives it none.
    words.push("until=killed".to_owned());
    if setup.ejects {
        let settings = ["timeout=400", "auto_eject_hosts=true", "server_failure_limit=2", "server_retry_timeout=2000"];
        words.extend(settings.map(str::to_owned));
    }
    words
}
