//! All three processes, as `beltway run` starts them.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Output};

use rustix::process::Signal;

use crate::process::{self, Guard, bounded};
use crate::{Home, eventually, free_address, pause, within};

/// A running tree with a configuration of its own. When it is dropped, every process of it is killed.
#[derive(Debug)]
pub struct Tree {
    stub: Guard,
    home: Home,
    http: SocketAddr,
    page: SocketAddr,
}

impl Tree {
    /// Starts `beltway run` with these keys below `http`, and waits until all three serve.
    #[must_use]
    pub fn run(http: &str) -> Self {
        Self::run_in(http, "", &[])
    }

    /// As [`Tree::run`], with a server that breaks when its own page is asked to.
    #[must_use]
    pub fn run_fragile(http: &str) -> Self {
        Self::run_in(http, "", &[("BELTWAY_FAULTS_FOR_TESTS", "let this server be broken by requests")])
    }

    /// As [`Tree::run`], with more of a configuration and of an environment.
    #[must_use]
    pub fn run_in(http: &str, more: &str, environment: &[(&str, &str)]) -> Self {
        Self::start(http, more, environment, 2, 2)
    }

    /// As [`Tree::run`], with more of a configuration, and servers that may take as many seconds to finish what they have.
    /// A hang takes long to be believed, for walks that are not about hangs.
    #[must_use]
    pub fn run_patient(http: &str, more: &str, drain_secs: u32) -> Self {
        Self::start(http, more, &[], drain_secs, 10)
    }

    fn start(http: &str, more: &str, environment: &[(&str, &str)], drain_secs: u32, hang_secs: u32) -> Self {
        let stop_secs = drain_secs + 3;
        let (home, address, page, admin) = (Home::new(), free_address(), free_address(), free_address());
        let below = http.lines().map(|line| format!("  {line}\n")).collect::<String>();
        let text = format!(
            "runtime_dir: {}\nthreads: 2\nadmin: {{listen: {admin}}}\nserver: {{listen: {page}, drain_timeout: {drain_secs}s}}\n\
             supervise: {{heartbeat_interval: 100ms, hang_timeout: {hang_secs}s, stop_timeout: {stop_secs}s, respawn_backoff_max: 500ms}}\n\
             http:\n  listen: [\"{address}\"]\n{below}{more}\n",
            home.file("run").display()
        );
        let file = home.file("beltway.yaml");
        fs::write(&file, text).unwrap();
        let log = fs::File::create(home.file("log")).unwrap();
        let mut command = Command::new(process::beltway());
        command
            .args(["run", "-c"])
            .arg(&file)
            .envs(environment.iter().copied())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let mut tree = Self { stub: Guard::start(command), home, http: address, page };
        eventually("all three serve", || {
            assert!(tree.stub.runs(), "it ended:\n{}", tree.log());
            // From then on cop can do without manager.
            tree.log().contains("holds copies").then_some(())?;
            tree.status().filter(is_whole).map(|_| ())
        });
        tree
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.http
    }

    /// The server's own page.
    #[must_use]
    pub fn page(&self) -> SocketAddr {
        self.page
    }

    /// Asks the server to break in this way. It does not answer; keep the connection, for one that is closed early may
    /// never be looked at.
    #[must_use]
    pub fn break_by(&self, fault: &str) -> crate::Peer {
        let mut peer = crate::Peer::try_connect(self.page).unwrap();
        peer.try_send(format!("POST /fault/{fault} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")).unwrap();
        peer
    }

    /// What is known of the dead.
    #[must_use]
    pub fn obituaries(&self) -> Vec<serde_json::Value> {
        serde_json::from_slice(&self.ask(&["ctl", "server", "obituaries", "--json"]).stdout).unwrap_or_default()
    }

    /// The process at the root.
    pub fn stub(&mut self) -> &mut Guard {
        &mut self.stub
    }

    /// What its processes said on standard error.
    #[must_use]
    pub fn log(&self) -> String {
        self.home.text("log")
    }

    /// A command of the operator's, with this configuration.
    #[must_use]
    pub fn ask(&self, words: &[&str]) -> Output {
        let mut command = Command::new(process::beltway());
        command.args(words).arg("-c").arg(self.home.file("beltway.yaml"));
        bounded(command)
    }

    /// What manager knows of all; `None` when there is no manager to ask.
    #[must_use]
    pub fn status(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.ask(&["status", "--json"]).stdout).ok()
    }

    /// The pid in a role's lease: `cop`, `manager` or `server`.
    #[must_use]
    pub fn pid(&self, role: &str) -> u32 {
        eventually(role, || self.pid_now(role))
    }

    /// As [`Tree::pid`], `None` when nobody has the role at the moment.
    #[must_use]
    pub fn pid_now(&self, role: &str) -> Option<u32> {
        let run = self.home.file("run");
        let lease = match role {
            "server" => {
                let names = fs::read_dir(&run).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
                let number = |name: &str| name.strip_prefix("server.")?.strip_suffix(".lock")?.parse::<u64>().ok();
                format!("server.{}.lock", names.filter_map(|name| number(&name)).max()?)
            }
            other => format!("{other}.lock"),
        };
        let pid = fs::read_to_string(run.join(lease)).ok()?.trim().parse().ok()?;
        let ours = process::arguments(pid).contains(&run.display().to_string());
        (ours && process::lives(pid) && process::name(pid) == format!("traffic_{role}")).then_some(pid)
    }

    /// `kill -9` of these roles at one moment; their pids.
    #[must_use]
    pub fn kill(&self, roles: &[&str]) -> Vec<u32> {
        let pids: Vec<_> = roles.iter().map(|role| self.pid(role)).collect();
        for &pid in &pids {
            assert!(process::send(pid, Signal::KILL), "no process {pid}");
        }
        pids
    }

    /// Waits until all three serve, none of them one of `dead`; says how long that took.
    #[must_use]
    pub fn await_back(&self, dead: &[u32]) -> std::time::Duration {
        let others = || {
            let pids = ["cop", "manager", "server"].map(|role| self.pid_now(role));
            pids.iter().all(|pid| pid.is_some_and(|pid| !dead.contains(&pid))).then_some(())
        };
        within(crate::PATIENCE, "all three are back", || others().and_then(|()| self.status().filter(is_whole))).1
    }

    /// The pids of every process that was started with this tree's directory.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        process::with_argument(&self.home.file("run").display().to_string())
    }

    /// What is left in its runtime directory.
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        let entries = fs::read_dir(self.home.file("run")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }
}

fn is_whole(status: &serde_json::Value) -> bool {
    let ready = |servers: &Vec<serde_json::Value>| servers.iter().any(|server| server["state"] == "ready");
    let has_heard_cop = status["cop"]["heartbeat"]["answered"].as_u64() > Some(0);
    status["manager"].is_object() && has_heard_cop && status["servers"].as_array().is_some_and(ready)
}

impl Drop for Tree {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the tree\n{}", self.log());
        }
        // The stub first: it brings back whom it misses. What respawns while we look is caught the next time round.
        let _ = process::send(self.stub.pid(), Signal::KILL);
        for _ in 0..100 {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            for pid in left {
                let _ = process::send(pid, Signal::KILL);
            }
            pause(std::time::Duration::from_millis(5));
        }
    }
}
