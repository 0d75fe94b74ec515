//! The server that stands by: started and warm, accepting nothing, until the one that serves dies.
//!
//! It holds the same listeners, so being promoted is one message: no process has to be made, no program loaded, no thread
//! started. It is of the configuration in force; when that changes it goes, and another comes. Its cache is empty, as that
//! of any server that takes over from a dead one, and until it is promoted it stores nothing.

use std::time::Duration;

use base::{Clock, Instant, SystemClock};
use supervise::role::Role;
use supervise::status::ServerState;
use supervise::{info, warn};
use sys::process::Signal;

use crate::servers::{How, Server};
use crate::supervisor::Supervisor;

/// From a promotion, or the death of one that stood by, to the start of the next: clients come first.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one that is not needed may take to end. It has nothing to finish.
const DISMISSED_WITHIN: Duration = Duration::from_secs(2);

impl Supervisor {
    /// Whether one is wanted and not there. Only beside a server that serves: what cannot serve cannot stand by.
    pub(crate) fn needs_standby(&self) -> bool {
        let wanted = self.config.server.standby && !self.stopping && !self.down;
        let quiet = self.change.is_none() && self.upgrade.is_none() && self.serving().is_some();
        // One that was found alive and has said nothing yet may be it.
        wanted && quiet && !self.servers.iter().any(|server| server.standby || server.state == ServerState::Starting)
    }

    /// Starts one where one is wanted.
    pub(crate) fn mind_standby(&mut self, now: Instant) {
        if !self.needs_standby() || now < self.standby_not_before {
            return;
        }
        let interval = self.config.supervise.heartbeat_interval;
        match Server::start(&self.family, &self.listeners, interval, How::Standby, now) {
            Ok(server) => self.servers.push(server),
            Err(why) => {
                warn!("nobody stands by: {why}");
                self.standby_not_before = now + PAUSE;
            }
        }
    }

    /// Has one that stands by serve, in the place of the one that is gone. `false`: there is none.
    pub(crate) fn promote_standby(&mut self, now: Instant) -> bool {
        let directory = self.family.directory.clone();
        let standing_by =
            self.servers.iter_mut().filter(|server| server.standby && server.state == ServerState::Standby);
        for server in standing_by {
            let (pid, generation) = (server.process.pid(), server.generation);
            match server.promote(&directory) {
                Ok(()) => {
                    info!("{}[{pid}] generation {generation} stood by, and is promoted", Role::Server.name());
                    self.standby_not_before = now + PAUSE;
                    return true;
                }
                Err(error) => {
                    warn!("{}[{pid}] stood by and cannot be told to serve: {error}; it is killed", Role::Server.name());
                    server.stop_by = Some(now);
                    server.state = ServerState::Draining;
                    server.signal(&directory, Signal::KILL);
                }
            }
        }
        false
    }

    /// One that stood by has died by itself.
    pub(crate) fn standby_died(&mut self, now: Instant) {
        self.standby_not_before = now + PAUSE;
    }

    /// Another configuration is in force, or none is wanted any more.
    pub(crate) fn dismiss_standby(&mut self) {
        let now = SystemClock.now();
        let directory = &self.family.directory;
        for server in self.servers.iter_mut().filter(|server| server.standby) {
            server.standby = false;
            server.state = ServerState::Draining;
            server.stop_by = Some(now + DISMISSED_WITHIN);
            server.signal(directory, Signal::TERM);
        }
    }
}
