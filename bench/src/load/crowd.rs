//! A crowd: so many clients on connections of their own that ask for the same path at the same moment.

use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::sync::{PoisonError, RwLock};
use std::thread::Builder;
use std::time::Duration;

use base::{Clock, SystemClock};

use crate::error::{Doing, Outcome, Trouble};
use crate::probe;

/// Bound of each wait of one client. Who serves a hundred one after the other at a second each is not waited for.
const PATIENCE: Duration = Duration::from_secs(15);
/// Enough for a client's thread.
const STACK: usize = 256 << 10;

/// What the crowd saw.
#[derive(Debug)]
pub(crate) struct Answers {
    /// When each whole and right answer was there, counted from the common start; least first.
    pub(crate) after: Vec<Duration>,
    /// What became of the others.
    pub(crate) troubles: Vec<Trouble>,
}

/// Connects `clients`, lets all ask for `path` at once, and waits for all answers. A right one is 200 with `body`.
pub(crate) fn ask(port: u16, path: &str, clients: usize, body: &[u8]) -> Outcome<Answers> {
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into();
    let mut streams = Vec::with_capacity(clients);
    for _ in 0..clients {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).doing("connecting")?;
        stream.set_read_timeout(Some(PATIENCE)).doing("setting a timeout")?;
        stream.set_write_timeout(Some(PATIENCE)).doing("setting a timeout")?;
        stream.set_nodelay(true).doing("setting no delay")?;
        streams.push(stream);
    }
    let gate = RwLock::new(());
    let one = |mut stream: TcpStream| {
        drop(gate.read().unwrap_or_else(PoisonError::into_inner));
        let begun = SystemClock.now();
        let answer = probe::exchange(&mut stream, port, path, &[])?;
        if answer.status != 200 || answer.body != body {
            let text = format!("{path}: status {}, {} bytes of content", answer.status, answer.body.len());
            return Err(Trouble::Wrong(text));
        }
        Ok(SystemClock.now() - begun)
    };
    let mut answers = Answers { after: Vec::new(), troubles: Vec::new() };
    std::thread::scope(|scope| {
        let closed = gate.write().unwrap_or_else(PoisonError::into_inner);
        let mut running = Vec::new();
        for stream in streams {
            match Builder::new().stack_size(STACK).spawn_scoped(scope, || one(stream)).doing("a client's thread") {
                Ok(client) => running.push(client),
                Err(trouble) => answers.troubles.push(trouble),
            }
        }
        drop(closed);
        for client in running {
            match client.join() {
                Ok(Ok(after)) => answers.after.push(after),
                Ok(Err(trouble)) => answers.troubles.push(trouble),
                Err(_) => answers.troubles.push(Trouble::Wrong("a client panicked".to_owned())),
            }
        }
    });
    answers.after.sort();
    Ok(answers)
}
