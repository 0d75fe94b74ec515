//! What a client follows: to another server, to another configuration, to its end.
//!
//! A connection moves only between two requests: nothing of a request has been read, and every reply was taken by the
//! kernel. What the client has sent and nobody has read is still in the socket, and moves with it.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::{Client, Identity, Phase};
use crate::numbers::KvPool;

/// A connection that is served elsewhere from here on, and what its next server must know of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Moving {
    /// The pool, by its name.
    pub pool: String,
    /// The client.
    pub peer: Option<SocketAddr>,
    /// It has told its password, or there is none.
    pub authenticated: bool,
    /// What it said of itself.
    pub identity: Option<Identity>,
}

/// Takes a client's connection to whoever serves it from here on.
pub type HandOver = Rc<dyn Fn(OwnedFd, Moving)>;

impl Client {
    /// Follows what has changed for all clients. `false`: it is no longer served here.
    pub(super) fn follow(&mut self) -> bool {
        if self.phase != Phase::Open {
            return true;
        }
        if !self.slots.is_empty() {
            self.wait_for_all();
            return true;
        }
        if self.gathered.is_some() || self.streamed.is_some() || self.is_unsettled() {
            return true;
        }
        if self.worker.successor().is_some() {
            return self.input.is_some() || !self.move_on();
        }
        self.changes = self.worker.changes();
        if let Some(next) = self.pool.next() {
            self.pool = next;
        }
        true
    }

    /// As [`Client::follow`], with a request that came while something changed: it is asked of the pool that is in force,
    /// when all that was asked of the one before is answered.
    pub(super) fn follow_with_request(&mut self) {
        let Some(next) = self.pool.next() else { return };
        if self.slots.is_empty() {
            self.pool = next;
        } else {
            self.wait_for_all();
        }
    }

    /// Goes to the next server, if it can at this moment.
    fn move_on(&mut self) -> bool {
        let (Some(hand_over), Some(tcp)) = (self.worker.successor(), &self.tcp) else { return false };
        if !self.out.is_empty() {
            return false;
        }
        let Some(fd) = tcp.release() else { return false };
        let moving = Moving {
            pool: self.pool.plan().source.name.clone(),
            peer: tcp.peer(),
            authenticated: self.authenticated,
            identity: self.identity.as_deref().cloned(),
        };
        hand_over(fd, moving);
        self.pool.cells().add(KvPool::CLIENT_MOVED, 1);
        self.close();
        true
    }

    /// The thread drains.
    pub(super) fn drain(&mut self) {
        if self.phase != Phase::Open {
            return;
        }
        if self.worker.successor().is_some() {
            self.follow();
            return;
        }
        self.phase = Phase::Ending;
        self.mark();
    }
}
