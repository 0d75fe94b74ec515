//! What a server says to the password and the database that are told it first on a connection.

use super::Server;
use crate::fault::Fault;
use crate::worker::Worker;

/// How Redis begins to say that it wants no password: since version 6, and before, as twemproxy does.
const NO_PASSWORD: [&[u8]; 2] =
    [b"-ERR AUTH <password> called without any password configured", b"-ERR Client sent AUTH, but no password is set"];

impl Server {
    /// Whether it may be used after this reply. One that wants no password is; whatever else it refuses, it is not what
    /// was meant.
    pub(crate) fn greeted(&self, worker: &Worker, reply: &[u8]) -> Result<(), Fault> {
        if reply.first() != Some(&b'-') {
            return Ok(());
        }
        if NO_PASSWORD.iter().any(|said| reply.starts_with(said)) {
            self.say_no_password(worker);
            return Ok(());
        }
        self.say_refused(worker, reply);
        Err(Fault::Handshake)
    }
}
