//! The way of idle connections from a server that ends to the one that takes over.
//!
//! Event threads let go of connections as they become idle; here they are sent on over the successor's control socket,
//! many in one packet. What the client has sent meanwhile is still in the socket, so nothing is lost on the way. A copy
//! is kept until the successor says that it has them: when it dies, or was itself replaced, they go to the newest
//! server there is. They are never sent twice to two who may both live.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use base::{Clock, Instant, SystemClock};
use supervise::control::{Connection, ControlError, Reply, Request};
use supervise::directory::RuntimeDir;
use supervise::lease::{self, Holder};
use supervise::{info, warn};

use crate::engine::Released;

/// Connections in one packet.
const IN_ONE_PACKET: usize = 64;
/// Packets in one turn.
const PACKETS_A_TURN: usize = 16;
/// Packets whose answer is awaited at a time.
const UNANSWERED_MAX: usize = 64;
/// Who breaks off may be dying: the kernel closes its files one after the other, and its lease is one of them.
const DYING_WITHIN: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Removal {
    directory: RuntimeDir,
    /// Our own generation.
    own: u64,
    successor: u64,
    connection: Option<Connection>,
    released: Receiver<Released>,
    waiting: VecDeque<Released>,
    /// Sent, and not answered yet.
    unanswered: VecDeque<Vec<Released>>,
    /// The successor broke off; until then it may turn out to be dead.
    in_doubt: Option<(Instant, ControlError)>,
    moved: usize,
}

impl Removal {
    /// From generation `own`, whose threads let go of connections into `released`, to `successor`.
    pub(crate) fn begin(directory: &RuntimeDir, own: u64, successor: u64, released: Receiver<Released>) -> Self {
        Self {
            directory: directory.clone(),
            own,
            successor,
            connection: None,
            released,
            waiting: VecDeque::new(),
            unanswered: VecDeque::new(),
            in_doubt: None,
            moved: 0,
        }
    }

    /// Connections that came from another server, and go on with ours.
    pub(crate) fn pass_on(&mut self, connections: impl Iterator<Item = Released>) {
        self.waiting.extend(connections);
    }

    /// Sends on what was let go of. `true`: there was something, look again soon. Never waits.
    pub(crate) fn turn(&mut self) -> bool {
        self.waiting.extend(self.released.try_iter());
        let any = !self.waiting.is_empty();
        let heard = self.hear();
        if self.in_doubt.is_some() {
            self.settle(SystemClock.now());
            return any || !self.is_done();
        }
        for _ in 0..PACKETS_A_TURN {
            if self.waiting.is_empty() || self.unanswered.len() >= UNANSWERED_MAX {
                break;
            }
            match self.send() {
                Ok(()) => {}
                Err(ControlError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(ControlError::Absent(_, error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.broke_off(error);
                    break;
                }
            }
        }
        any || heard
    }

    /// Nothing is on its way.
    pub(crate) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.unanswered.is_empty()
    }

    fn send(&mut self) -> Result<(), ControlError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.directory.server_socket(self.successor))?,
        };
        let count = self.waiting.len().min(IN_ONE_PACKET);
        let batch = self.waiting.iter().take(count);
        let moved = batch.clone().map(|released| released.moved.clone()).collect();
        let fds: Vec<_> = batch.map(|released| released.fd.as_fd()).collect();
        let sent = connection.send(1, Request::TakeOver(moved), &fds);
        self.connection = Some(connection);
        sent?;
        self.unanswered.push_back(self.waiting.drain(..count).collect());
        Ok(())
    }

    fn hear(&mut self) -> bool {
        let mut heard = false;
        while let Some(connection) = &self.connection {
            match connection.receive::<Reply>() {
                Ok(Some((packet, _))) => {
                    heard = true;
                    let answered = self.unanswered.pop_front().map_or(0, |batch| batch.len());
                    match packet.body {
                        Reply::Refused(why) => warn!("{answered} idle connections are closed: {why}"),
                        _ => self.moved += answered,
                    }
                }
                Ok(None) => break,
                Err(error) => self.broke_off(error),
            }
        }
        heard
    }

    /// The successor is gone, or going, or does not want them.
    fn broke_off(&mut self, error: ControlError) {
        self.connection = None;
        self.in_doubt.get_or_insert((SystemClock.now() + DYING_WITHIN, error));
    }

    /// Looks what became of the successor that broke off, and who comes after it.
    fn settle(&mut self, now: Instant) {
        let Some((until, error)) = &self.in_doubt else { return };
        let late = now >= *until;
        let lives = |generation| !matches!(lease::holder(&self.directory.server_lease(generation)), Ok(Holder::Nobody));
        if lives(self.successor) && !self.unanswered.is_empty() {
            if !late {
                return;
            }
            let lost: usize = self.unanswered.iter().map(Vec::len).sum();
            warn!("{lost} idle connections are closed here; whether the next server has them is not known: {error}");
            self.unanswered.clear();
        }
        while let Some(batch) = self.unanswered.pop_back() {
            for connection in batch.into_iter().rev() {
                self.waiting.push_front(connection);
            }
        }
        let generations = self.directory.server_generations().unwrap_or_default();
        match generations.into_iter().rev().find(|&generation| generation > self.own && lives(generation)) {
            Some(newest) => self.successor = newest,
            // The next one may just be started.
            None if !late && !self.is_done() => return,
            None if self.is_done() => {}
            None => {
                warn!("{} idle connections are closed, nobody takes them: {error}", self.waiting.len());
                self.waiting.clear();
            }
        }
        self.in_doubt = None;
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        info!("{} idle connections moved to the next server", self.moved);
    }
}
