//! The servers behind the proxies: redis-server and memcached, without persistence, on the load's core.

use std::fs;
use std::time::Duration;

use kv::Protocol;
use rustix::process::{Pid, Signal};

use crate::error::{Doing, Outcome, Trouble};
use crate::lab::{self, Lab};
use crate::leash::{Leash, LeashedCommand};
use crate::load::pipelined;

/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// One server process.
pub(super) struct Store {
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    leash: Option<Leash>,
}

impl Store {
    /// Starts one.
    pub(super) fn start(lab: &Lab, protocol: Protocol) -> Outcome<Self> {
        let mut store = Self { port: lab::free_port()?, protocol, leash: None };
        store.run(lab)?;
        Ok(store)
    }

    /// Starts it, or starts it again, and waits until it answers.
    pub(super) fn run(&mut self, lab: &Lab) -> Outcome<()> {
        let room = lab.room("store")?;
        let port = self.port.to_string();
        let (program, question) = match self.protocol {
            Protocol::Redis => (lab::find_program("redis-server")?, &b"*1\r\n$4\r\nPING\r\n"[..]),
            Protocol::Memcached => (lab::find_program("memcached")?, &b"version\r\n"[..]),
        };
        let command = LeashedCommand::new(program.display().to_string(), lab.load_core);
        let command = match self.protocol {
            Protocol::Redis => {
                let dir = room.display().to_string();
                command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]).args([
                    "--dir",
                    &dir,
                    "--maxclients",
                    "15000",
                ])
            }
            Protocol::Memcached => {
                let limits = ["-m", "512", "-I", "128m", "-c", "15000", "-t", "1"];
                command.args(["-p", &port, "-l", "127.0.0.1", "-U", "0", "-u", "nobody"]).args(limits)
            }
        };
        let log = room.join("output");
        self.leash = Some(Leash::spawn(&command, &log, &log)?);
        let (port, protocol) = (self.port, self.protocol);
        lab::wait_until("a server's first answer", PATIENCE, || {
            pipelined::once(port, protocol, question, 1).is_ok_and(|reply| !reply.starts_with(b"-"))
        })
        .map_err(|_| {
            Trouble::Wrong(format!("a server does not answer: {}", fs::read_to_string(&log).unwrap_or_default()))
        })
    }

    /// Lets it run on the load's core alone, or on the proxy's as well.
    pub(super) fn bind(&self, lab: &Lab, alone: bool) -> Outcome<()> {
        let cores = lab.cores(alone.then_some(lab.load_core));
        for pid in self.processes() {
            let words = ["-a", "-c", "-p", &cores, &pid.to_string()].map(str::to_owned);
            lab.tool(&LeashedCommand::new("taskset", lab.load_core).args(words), PATIENCE)?;
        }
        Ok(())
    }

    /// Its processes.
    pub(super) fn processes(&self) -> Vec<u32> {
        self.leash.as_ref().map(Leash::processes).unwrap_or_default()
    }

    /// Kills it and waits until it is gone.
    pub(super) fn kill(&mut self) {
        self.leash = None;
    }

    /// Stops it, or lets it go on.
    pub(super) fn signal(&self, signal: Signal) -> Outcome<()> {
        for pid in self.processes() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                rustix::process::kill_process(pid, signal).doing("a signal")?;
            }
        }
        Ok(())
    }
}
