//! Beltway's three processes as they are seen from outside: by name in the process table, and by `beltway status`.

use std::fs;
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
use crate::target;

/// How long the first answer may take.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long one `beltway status` may take.
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

/// The three at one moment. During a replacement a role may have several processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    found: Vec<(u32, String)>,
}

impl Census {
    fn pids_of(&self, role: Role) -> Vec<u32> {
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
    binary: PathBuf,
    configuration: PathBuf,
    output: PathBuf,
    leash: Leash,
}

impl<'a> Tree<'a> {
    /// Starts all three in front of the origin and waits for the first answer.
    pub(super) fn start(lab: &'a Lab, binary: &Path, port: u16, origin: u16) -> Outcome<Self> {
        let room = lab.room("run")?;
        let configuration = room.join("beltway.yaml");
        fs::write(&configuration, target::supervised_configuration(&room, port, origin))
            .doing(configuration.display())?;
        let output = room.join("output");
        let command = LeashedCommand::new(binary.display().to_string(), lab.proxy_core).args([
            "run",
            "-c",
            &configuration.display().to_string(),
        ]);
        let leash = Leash::spawn(&command, &output, &output)?;
        let mut tree = Self { lab, binary: binary.to_owned(), configuration, output, leash };
        let answers = |port: u16| {
            probe::get(port, "/pass/1k", &[("Connection", "close")]).is_ok_and(|answer| answer.status == 200)
        };
        let waited = lab::wait_until("the first answer of beltway run", START_PATIENCE, || {
            answers(port) || tree.leash.has_ended()
        });
        match waited {
            Ok(()) if !tree.leash.has_ended() => Ok(tree),
            _ => Err(Trouble::Wrong(format!("beltway run does not answer; its last words:\n{}", tree.last_words()))),
        }
    }

    /// The end of what it wrote.
    pub(super) fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.output).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn census(&self) -> Census {
        let found = self.leash.processes().into_iter().map(|pid| (pid, account::name_of(pid))).collect();
        Census { found }
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
        loop {
            let census = self.census();
            let one_each = Role::ALL.iter().all(|&role| census.pids_of(role).len() == 1);
            let replaced = roles.iter().all(|&role| census.pids_of(role) != victims.pids_of(role));
            if one_each && replaced && self.status_agrees(&census) {
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

    /// Whether `beltway status` names the same three, and the server is ready.
    fn status_agrees(&self, census: &Census) -> bool {
        let command = LeashedCommand::new(self.binary.display().to_string(), self.lab.load_core).args([
            "status",
            "--json",
            "-c",
            &self.configuration.display().to_string(),
        ]);
        let Ok(text) = self.lab.tool(&command, STATUS_PATIENCE) else { return false };
        let Ok(status) = serde_json::from_str::<serde_json::Value>(&text) else { return false };
        let is = |value: &serde_json::Value, role: Role| {
            let pid = value["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
            pid.is_some_and(|pid| census.pids_of(role) == [pid])
        };
        let server_ready = status["servers"].as_array().is_some_and(|servers| {
            servers.iter().any(|server| server["state"] == "ready" && is(&server["process"], Role::Server))
        });
        server_ready && is(&status["manager"], Role::Manager) && is(&status["cop"], Role::Cop)
    }
}

/// `kill -9`.
pub(super) fn kill(pid: u32) -> Outcome<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Trouble::Wrong("not a pid".to_owned()))?;
    rustix::process::kill_process(pid, Signal::KILL).doing("kill -9")
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
