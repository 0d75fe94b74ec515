//! Readiness that fails by an operator's wish: balancers send nobody new, and everything else goes on.
//!
//! The server's own page and the admin port both say it. It is kept in the runtime directory, so that servers and managers
//! that start later know it, too.

use std::time::Duration;

use supervise::control::{Connection, Request};
use supervise::directory;
use supervise::role::Role;
use supervise::status::ServerState;
use supervise::{info, warn};

use crate::supervisor::Supervisor;

/// How long a server may take to hear it. Its main thread has nothing else to do.
const HEARD_WITHIN: Duration = Duration::from_millis(100);

impl Supervisor {
    /// From now on readiness fails, or no longer.
    ///
    /// # Errors
    /// It cannot be kept for those who start later; in words.
    pub(crate) fn leave(&mut self, wanted: bool) -> Result<(), String> {
        let file = self.family.directory.leaving();
        let kept = if wanted { directory::replace(&file, b"") } else { directory::remove(&file) };
        kept.map_err(|error| format!("{}: {error}", file.display()))?;
        if self.leaving != wanted {
            let what = if wanted { "fails: balancers are to send nobody new" } else { "is as it was" };
            info!("readiness {what}");
        }
        self.leaving = wanted;
        self.spread_leaving();
        // Who asked may look at once.
        self.publish();
        Ok(())
    }

    /// Tells the servers that do not say the same.
    pub(crate) fn spread_leaving(&mut self) {
        let wanted = self.leaving;
        let ready = self.servers.iter().filter(|server| server.state == ServerState::Ready);
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
