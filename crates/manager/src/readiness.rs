//! Readiness that fails by an operator's wish: balancers send nobody new, and everything else goes on.
//!
//! The server's own page and the admin port both say it, so every server is told, also one that starts later. A new manager
//! learns it from the server that lives.

use std::time::Duration;

use supervise::control::{Connection, Request};
use supervise::role::Role;
use supervise::status::ServerState;
use supervise::{info, warn};

use crate::supervisor::Supervisor;

/// How long a server may take to hear it. Its main thread has nothing else to do.
const HEARD_WITHIN: Duration = Duration::from_millis(100);

impl Supervisor {
    /// From now on readiness fails, or no longer.
    pub(crate) fn leave(&mut self, wanted: bool) {
        if self.leaving.unwrap_or(false) != wanted {
            let what = if wanted { "fails: balancers are to send nobody new" } else { "is as it was" };
            info!("readiness {what}");
        }
        self.leaving = Some(wanted);
        self.spread_leaving();
    }

    /// Tells the servers that do not say the same.
    pub(crate) fn spread_leaving(&mut self) {
        let ready = self.servers.iter().filter(|server| server.state == ServerState::Ready);
        let Some(wanted) = self.leaving else {
            self.leaving = ready.filter_map(|server| server.pong()).last().map(|pong| pong.leaving);
            return;
        };
        for server in ready.filter(|server| server.pong().is_some_and(|pong| pong.leaving != wanted)) {
            let socket = self.family.directory.server_socket(server.generation);
            let told =
                Connection::open(&socket).and_then(|connection| connection.ask(Request::Drain(wanted), HEARD_WITHIN));
            if let Err(error) = told {
                warn!("{}[{}] is told again: {error}", Role::Server.name(), server.process.pid());
            }
        }
    }
}
