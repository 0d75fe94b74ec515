//! The end of a connection, and what becomes of the requests on it.
//!
//! Whatever panics meanwhile, each of them gets what it is to get; but for the one at which something did: nobody knows what
//! its client has been told, which ends.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::rc::{Rc, Weak};

use base::Instant;
use buf::Chunk;

use super::slow::Slowness;
use super::{Lane, LaneCell, Link, bytes_of};
use crate::client::ClientCell;
use crate::contain;
use crate::fault::Fault;
use crate::metrics::Kv;
use crate::numbers::KvPool;
use crate::pending::{Owner, Pending};
use crate::server::Server;
use crate::worker::Worker;

/// The connection failed: each request on it is sent again where that is right, or gets its error.
pub(crate) fn fail(lane: &Rc<LaneCell>, fault: Fault) {
    let (worker, server, mut remains, waiting) = {
        let mut lane = lane.borrow_mut();
        if lane.is_down() {
            return;
        }
        let (worker, server) = (lane.worker.clone(), Rc::clone(&lane.server));
        (worker, server, lane.close(), std::mem::take(&mut lane.waiting))
    };
    let asked =
        remains.queue.iter().any(|pending| !matches!(pending.owner, Owner::Handshake)) || fault == Fault::Handshake;
    let mut panic = None;
    contain::one(&mut panic, || server.lane_failed(&worker, lane, fault, asked));
    let has_settled = |client: &Weak<ClientCell>| {
        if let Some(client) = client.upgrade() {
            client.borrow_mut().has_settled();
        }
    };
    contain::each(&remains.unsettled, &mut panic, has_settled, |_| {});
    let mut slow = Slowness::new();
    while !remains.queue.is_empty() {
        // Of all that is left in one go: nothing is set up for each.
        let mut at_hand = None;
        let all = contain::one(&mut panic, || {
            while let Some(pending) = remains.queue.pop_front() {
                at_hand = pending.owner.client();
                remains.give_up(&worker, &server, pending, fault, &mut slow);
            }
        });
        if let Some(client) = at_hand.filter(|_| !all) {
            contain::one(&mut panic, || client.borrow_mut().cut());
        }
    }
    for client in waiting {
        if let Some(client) = client.upgrade() {
            worker.thread().schedule_imm(client).detach();
        }
    }
    if let Some(panic) = panic {
        // Its thread counts it.
        resume_unwind(panic);
    }
}

/// It can be trusted no more, by our own failure: it ends with the turn, and nothing is sent on it before.
pub(crate) fn give_up(lane: &Rc<LaneCell>) {
    // Called while something panics, when a second panic would end the process.
    if let Ok(it) = lane.try_borrow() {
        it.worker.lane_has_failed(Rc::clone(lane), Fault::Internal);
    }
}

/// The thread ends: nobody is told of anything, and whoever is held is let go of.
pub(crate) fn end(lane: &Rc<LaneCell>) {
    let remains = lane.borrow_mut().close();
    drop(remains);
}

/// Gives the answer of a server that has nothing in a reply's place.
pub(crate) fn give_nothing(owner: Owner, nothing: Vec<u8>) {
    let len = nothing.len();
    let reply = Chunk::from_shared(nothing.into(), 0..len);
    match owner {
        Owner::Client(client, seq) => {
            let mut client = client.borrow_mut();
            client.pool().cells().add(KvPool::MISSES, 1);
            client.fill_pieces(seq, vec![reply]);
        }
        Owner::Part(joining, part) => crate::join::give(&joining, part, reply),
        Owner::Quiet(client, seq) => client.borrow_mut().pass_over(seq),
        Owner::Handshake | Owner::Nobody => {}
    }
}

/// Gives an error in a reply's place. Says which, if there was anybody to give it to.
pub(crate) fn give_fault(worker: &Worker, owner: Owner, fault: Fault) -> Option<Fault> {
    let client = owner.client()?;
    client.borrow().pool().cells().add(KvPool::failed(fault), 1);
    worker.cells().add(Kv::FORWARD_ERRORS, 1);
    match owner {
        Owner::Client(client, seq) => client.borrow_mut().fault(seq, fault),
        Owner::Part(joining, part) => crate::join::fault(&joining, part, fault),
        Owner::Quiet(client, seq) => client.borrow_mut().pass_over(seq),
        Owner::Handshake | Owner::Nobody => {}
    }
    Some(fault)
}

/// What failing took out of a lane.
pub(super) struct Remains {
    queue: VecDeque<Pending>,
    kept: VecDeque<(u64, Chunk)>,
    ends: u64,
    /// Who waits to hear of writes that were given up.
    unsettled: Vec<Weak<ClientCell>>,
    /// The stream's bytes that the kernel took.
    sent: u64,
    passing: bool,
}

impl Remains {
    /// The stream's bytes of this range, if they were kept.
    fn bytes(&self, from: u64, to: u64) -> Option<Vec<u8>> {
        bytes_of(&self.kept, from, to)
    }

    /// What was the first in the queue is sent again where that is right, or gets its error.
    fn give_up(&mut self, worker: &Worker, server: &Rc<Server>, pending: Pending, fault: Fault, slow: &mut Slowness) {
        let end = self.queue.front().map_or(self.ends, |next| next.start);
        // Of the first alone something may have been passed on.
        let broken_off = std::mem::take(&mut self.passing);
        #[cfg(test)]
        super::tests::panic_if_failed(self.bytes(pending.start, end));
        let noted = slow.note(worker, server, &pending);
        let (begin, len) = (pending.start, end.saturating_sub(pending.start));
        let tell = |fault| {
            if let Some(noted) = noted {
                noted.tell(worker, server, self.bytes(begin, end).as_deref(), len, Some(fault));
            }
        };
        if broken_off {
            tell(fault);
            match pending.owner {
                Owner::Client(client, _) => client.borrow_mut().cut(),
                // What would be dropped whole is not missed.
                owner => _ = give_fault(worker, owner, fault),
            }
            return;
        }
        let (unsent, command) = (pending.start >= self.sent, pending.command);
        if let Some(fault) = server.retry(worker, pending, fault, unsent, |start| self.bytes(start, end)) {
            tell(fault);
            server.commands().failed(command, fault);
        }
    }
}

impl Lane {
    /// Takes everything out and closes.
    pub(super) fn close(&mut self) -> Remains {
        let sent = match &self.link {
            Link::Up(tcp) => tcp.sent().saturating_sub(self.lead),
            Link::Connecting | Link::Down => 0,
        };
        if let Link::Up(tcp) = &self.link {
            // What was not sent must not be: it may go elsewhere.
            tcp.abort();
        }
        if !self.is_down() {
            self.worker.cells().sub(Kv::SERVER_OPEN, 1);
        }
        self.link = Link::Down;
        self.own = None;
        if let Some(task) = self.room.take() {
            task.cancel();
        }
        self.timer = None;
        self.relief = None;
        self.input = None;
        self.pieces.clear();
        self.pieces_kept = None;
        let (mut at, mut kept) = (self.handed_bytes, std::mem::take(&mut self.kept));
        self.out.take(|chunk| {
            at += chunk.len() as u64;
            kept.push_back((at, chunk));
        });
        // It may be held on to by somebody who has yet to hear of this.
        self.out.rest();
        (self.handed, self.expired, self.soonest) = (0, 0, Instant::FAR_FUTURE);
        let (queue, unsettled) = (std::mem::take(&mut self.queue), self.unsettled.end());
        Remains { queue, unsettled, kept, ends: self.pushed, sent, passing: std::mem::take(&mut self.passing) }
    }
}
