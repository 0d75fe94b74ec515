//! Beltway's processes as they are seen from outside: by name in the process table, and by `beltway status`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::{Clock, Instant, SystemClock};
use rustix::process::{Pid, Signal};

use super::LOOK_EVERY;
use crate::account;
use crate::error::{Doing, Outcome, Trouble};
use crate::lab::{self, Lab};
use crate::leash::{Leash, LeashedCommand};
use crate::probe;

/// How long the first answer may take.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long one `beltway …` may take.
const STATUS_PATIENCE: Duration = Duration::from_secs(10);

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Server,
    Manager,
    Cop,
}

impl Role {
    const ALL: [Self; 3] = [Self::Server, Self::Manager, Self::Cop];

    pub(super) fn parse(name: &str) -> Outcome<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name).ok_or_else(|| {
            Trouble::Wrong(format!("no process is named {name:?}; known: server, manager, cop, joined by +"))
        })
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Manager => "manager",
            Self::Cop => "cop",
        }
    }

    /// As `ps` shows it.
    const fn process_name(self) -> &'static str {
        match self {
            Self::Server => "traffic_server",
            Self::Manager => "traffic_manager",
            Self::Cop => "traffic_cop",
        }
    }
}

/// The top process, as `ps` shows it.
const TOP: &str = "beltway";
/// Runs Beltway with the faults that tests may ask for, and stays when it dies, so that its orphans have a home.
const KEEPER: &str = "BELTWAY_FAULTS_FOR_TESTS='let this server be broken by requests' \"$0\" run -c \"$1\"; \
                      while :; do sleep 1000; done";

/// What a tree is configured to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    /// Its ports: clients, the server's own page.
    pub(super) port: u16,
    pub(super) page: u16,
    /// The origin's port, and that of the long download.
    pub(super) origin: u16,
    pub(super) slow_origin: u16,
    /// Event threads.
    pub(super) threads: u32,
    /// Of the cache in memory; 0: off.
    pub(super) cache_mib: u64,
    /// A server that is started and warm, for the one that dies.
    pub(super) standby: bool,
}

impl Setup {
    fn configuration(&self, room: &Path, via: &str) -> String {
        let Self { port, page, origin, slow_origin, threads, cache_mib, standby } = self;
        let cache = if *cache_mib > 0 { format!("cache: {{ram: {cache_mib}MiB}}\n") } else { String::new() };
        let standby = if *standby { ", standby: true" } else { "" };
        format!(
            "runtime_dir: {}
threads: {threads}
admin: {{listen: off}}
server: {{listen: 127.0.0.1:{page}, drain_timeout: 60s{standby}}}
supervise: {{stop_timeout: 65s}}
{cache}http:
  via: {via}
  listen: [127.0.0.1:{port}]
  timeouts: {{keep_alive: 10m}}
  remap:
    - {{from: \"/long/\", to: \"http://127.0.0.1:{slow_origin}/\"}}
    - {{from: \"/\", to: \"http://127.0.0.1:{origin}/\"}}
",
            room.join("run").display()
        )
    }
}

/// The three at one moment. During a replacement a role may have several processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    found: Vec<(u32, String)>,
}

impl Census {
    pub(super) fn pids_of(&self, role: Role) -> Vec<u32> {
        self.found.iter().filter(|(_, name)| name == role.process_name()).map(|(pid, _)| *pid).collect()
    }

    /// The one process of that role.
    pub(super) fn pid_of(&self, role: Role) -> Outcome<u32> {
        match self.pids_of(role)[..] {
            [pid] => Ok(pid),
            ref pids => Err(Trouble::Wrong(format!("{} processes are named {}", pids.len(), role.process_name()))),
        }
    }
}

/// `beltway run` and all below it.
pub(super) struct Tree<'a> {
    lab: &'a Lab,
    setup: Setup,
    room: PathBuf,
    binary: PathBuf,
    configuration: PathBuf,
    /// The first one, and one more for each top process that was killed.
    leashes: Vec<Leash>,
}

impl<'a> Tree<'a> {
    /// Starts all and waits for the first answer.
    pub(super) fn start(lab: &'a Lab, binary: &Path, setup: Setup) -> Outcome<Self> {
        let room = lab.room("run")?;
        let configuration = room.join("beltway.yaml");
        let mut tree = Self { lab, setup, room, binary: binary.to_owned(), configuration, leashes: Vec::new() };
        tree.configure("first")?;
        tree.start_top()?;
        let answers =
            || probe::get(setup.port, "/pass/1k", &[("Connection", "close")]).is_ok_and(|answer| answer.status == 200);
        match lab::wait_until("the first answer of beltway run", START_PATIENCE, answers) {
            Ok(()) => Ok(tree),
            Err(_) => {
                Err(Trouble::Wrong(format!("beltway run does not answer; its last words:\n{}", tree.last_words())))
            }
        }
    }

    /// Starts a top process.
    pub(super) fn start_top(&mut self) -> Outcome<()> {
        let output = self.output(self.leashes.len());
        let command = LeashedCommand::new("sh", self.lab.proxy_core).args([
            "-c",
            KEEPER,
            &self.binary.display().to_string(),
            &self.configuration.display().to_string(),
        ]);
        self.leashes.push(Leash::spawn(&command, &output, &output)?);
        Ok(())
    }

    fn output(&self, number: usize) -> PathBuf {
        self.room.join(format!("output.{number}"))
    }

    /// Writes its file, with another name in Via.
    pub(super) fn configure(&self, via: &str) -> Outcome<()> {
        let text = self.setup.configuration(&self.room, via);
        fs::write(&self.configuration, text).doing(self.configuration.display())
    }

    /// Puts another file in the program's place: the same program, and one byte more behind its end.
    pub(super) fn replace_program(&self) -> Outcome<()> {
        let other = self.binary.with_extension("next");
        let mut bytes = fs::read(&self.binary).doing(self.binary.display())?;
        bytes.push(b'\n');
        fs::write(&other, bytes).doing(other.display())?;
        let permissions = fs::metadata(&self.binary).doing(self.binary.display())?.permissions();
        fs::set_permissions(&other, permissions).doing(other.display())?;
        fs::rename(&other, &self.binary).doing(self.binary.display())
    }

    /// Whether every process runs the program that is on disk now. Servers that only finish what they have may run another.
    pub(super) fn runs_program_on_disk(&self, server: u32) -> bool {
        let identity = |path: PathBuf| fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
        let on_disk = identity(self.binary.clone());
        let others = self.census().found.into_iter().filter(|(_, name)| name != Role::Server.process_name());
        let ours = others.filter(|(_, name)| name.starts_with("traffic_") || name == TOP).map(|(pid, _)| pid);
        ours.chain([server]).all(|pid| identity(PathBuf::from(format!("/proc/{pid}/exe"))) == on_disk)
    }

    /// The end of what they wrote.
    pub(super) fn last_words(&self) -> String {
        let text: String =
            (0..self.leashes.len()).map(|number| fs::read_to_string(self.output(number)).unwrap_or_default()).collect();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    fn census(&self) -> Census {
        // Orphans have the leash for a parent, which reaps nobody before the end.
        let pids = self.leashes.iter().flat_map(Leash::processes).filter(|&pid| !has_ended(pid));
        Census { found: pids.map(|pid| (pid, account::name_of(pid))).collect() }
    }

    /// The top process. The shell that started it never has its name.
    pub(super) fn top(&self) -> Outcome<u32> {
        let census = self.census();
        let mut tops = census.found.iter().filter(|(_, name)| name == TOP).map(|(pid, _)| *pid);
        match (tops.next(), tops.next()) {
            (Some(pid), None) => Ok(pid),
            _ => Err(Trouble::Wrong("there is not exactly one top process".to_owned())),
        }
    }

    /// Waits until each role has exactly one process and `beltway status` knows all of them.
    pub(super) fn wait_until_whole(&self, patience: Duration) -> Outcome<Census> {
        self.wait(patience, &Census::default(), &[]).map(|(census, _)| census)
    }

    /// Waits until each of `roles` has a successor; answers the moment it was seen.
    pub(super) fn wait_until_replaced(&self, victims: &Census, roles: &[Role], patience: Duration) -> Outcome<Instant> {
        self.wait(patience, victims, roles).map(|(_, at)| at)
    }

    fn wait(&self, patience: Duration, victims: &Census, roles: &[Role]) -> Outcome<(Census, Instant)> {
        let clock = SystemClock;
        let begun = clock.now();
        // With a standby there are two servers, of which status says which one serves.
        let servers = 1 + usize::from(self.setup.standby);
        let whole = |role: Role| if role == Role::Server { servers } else { 1 };
        loop {
            let census = self.census();
            let all_there = Role::ALL.iter().all(|&role| census.pids_of(role).len() == whole(role));
            let gone = |role: &Role| victims.pids_of(*role).iter().any(|pid| !census.pids_of(*role).contains(pid));
            if all_there && roles.iter().all(gone) && self.status_agrees(&census) {
                return Ok((census, clock.now()));
            }
            if clock.now() - begun > patience {
                let names: Vec<&str> = census.found.iter().map(|(_, name)| name.as_str()).collect();
                let what = format!("all processes back and well in status (now: {})", names.join(", "));
                return Err(Trouble::Late(what, patience.as_secs()));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// `beltway WORDS -c FILE`, to its end; what it printed.
    pub(super) fn ask(&self, words: &[&str]) -> Outcome<String> {
        let command = LeashedCommand::new(self.binary.display().to_string(), self.lab.load_core)
            .args(words.iter().copied())
            .args(["-c", &self.configuration.display().to_string()]);
        self.lab.tool(&command, STATUS_PATIENCE)
    }

    /// As [`Tree::ask`], of what is to be refused: whatever the exit code.
    pub(super) fn ask_in_vain(&self, words: &[&str]) -> Outcome<String> {
        let command = LeashedCommand::new("sh", self.lab.load_core)
            .args(["-c", "\"$0\" \"$@\" 2>/dev/null || :", &self.binary.display().to_string()])
            .args(words.iter().copied())
            .args(["-c", &self.configuration.display().to_string()])
            // The file may be what is wrong.
            .args(["--runtime-dir", &self.room.join("run").display().to_string()]);
        self.lab.tool(&command, STATUS_PATIENCE)
    }

    /// What its file says.
    pub(super) fn file(&self) -> Outcome<String> {
        fs::read_to_string(&self.configuration).doing(self.configuration.display())
    }

    /// Writes its file.
    pub(super) fn write(&self, text: &str) -> Outcome<()> {
        fs::write(&self.configuration, text).doing(self.configuration.display())
    }

    /// The control socket of a generation of its server.
    pub(super) fn server_socket(&self, generation: u64) -> PathBuf {
        self.room.join("run").join(format!("server.{generation}.sock"))
    }

    /// The generations that live.
    pub(super) fn generations(&self) -> Outcome<Vec<u64>> {
        let status = self.status().ok_or_else(|| Trouble::Wrong("there is no status".to_owned()))?;
        let servers = status["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(servers.iter().filter_map(|server| server["generation"].as_u64()).collect())
    }

    /// How many starts of a server have failed in a row; none when one serves.
    pub(super) fn failing_starts(&self) -> Option<u64> {
        self.status()?["respawn"]["failures"].as_u64()
    }

    fn status(&self) -> Option<serde_json::Value> {
        serde_json::from_str(&self.ask(&["status", "--json"]).ok()?).ok()
    }

    /// Generation and pid of the server that serves.
    pub(super) fn serving(&self) -> Option<(u64, u32)> {
        let status = self.status()?;
        let ready = status["servers"].as_array()?.iter().rfind(|server| server["state"] == "ready")?.clone();
        Some((ready["generation"].as_u64()?, u32::try_from(ready["process"]["pid"].as_u64()?).ok()?))
    }

    /// The pid of the server that serves, among `census`.
    pub(super) fn serving_pid(&self, census: &Census) -> Outcome<u32> {
        if !self.setup.standby {
            return census.pid_of(Role::Server);
        }
        self.serving().map(|(_, pid)| pid).ok_or_else(|| Trouble::Wrong("no server serves".to_owned()))
    }

    /// Whether `beltway status` names the same, and a server is ready.
    fn status_agrees(&self, census: &Census) -> bool {
        let Some(status) = self.status() else { return false };
        let is = |value: &serde_json::Value, role: Role| {
            let pid = value["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
            pid.is_some_and(|pid| census.pids_of(role).contains(&pid))
        };
        let servers = status["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let serves = |server: &&serde_json::Value| server["state"] == "ready" && is(&server["process"], Role::Server);
        let ready =
            servers.iter().filter(serves).count() == 1 && servers.iter().all(|s| is(&s["process"], Role::Server));
        ready && is(&status["manager"], Role::Manager) && is(&status["cop"], Role::Cop)
    }
}

/// Sends a signal to one process.
pub(super) fn send(pid: u32, signal: Signal) -> Outcome<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Trouble::Wrong("not a pid".to_owned()))?;
    rustix::process::kill_process(pid, signal).doing("sending a signal")
}

/// Whether a process has ended; one that nobody has reaped yet has.
pub(super) fn has_ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_with_two_processes_is_not_killed_blindly() {
        let two = Census { found: vec![(7, "traffic_server".to_owned()), (8, "traffic_server".to_owned())] };
        assert!(two.pid_of(Role::Server).is_err());
        let one = Census { found: vec![(7, "traffic_server".to_owned()), (8, "traffic_cop".to_owned())] };
        assert_eq!(one.pid_of(Role::Server).unwrap(), 7);
        assert!(Role::parse("stub").is_err());
    }
}
