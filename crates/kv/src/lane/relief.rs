//! What becomes of those who wait behind a client that does not take its replies.
//!
//! The lane is paused, so that no more is kept for that client; it takes no new requests, and those who read behind it
//! are asked for elsewhere. No client's requests overtake each other by that: whoever has a request here asks nothing
//! more before all that it asked is answered, and what was to be carried out around a write of the same client stays
//! here with it. A write of its own that was given up counts for that as one that waits, see `unsettled`.

use std::collections::HashSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use base::Instant;

use super::slow::Slowness;
use super::{Lane, Link, bytes_of};
use crate::client::ClientCell;
use crate::fault::Fault;
use crate::numbers::CommandIndex;
use crate::pending::{Again, Owner, Pending};

/// How long others wait behind a client that does not take its reply before they are asked for elsewhere.
const RELIEF: Duration = Duration::from_millis(20);
/// How long others wait, who cannot be asked elsewhere, behind a client that takes its replies so slowly before it is cut.
const BLOCKED_MAX: Duration = Duration::from_secs(5);
/// How long a lane that is ahead of a client's earlier reply waits for any progress of that client before it goes on, as
/// far as may be kept. What the client waits for may be behind this lane, by way of others that wait alike.
const AHEAD_MAX: Duration = Duration::from_secs(1);

/// What that is in bytes, where an earlier reply comes by and by.
const PROGRESS_MIN: u64 = 16 << 10;

/// A reply that a client waits for, of which a lane is ahead.
pub(super) struct Ahead {
    seq: u64,
    /// How much the client had taken then, in bytes.
    taken: u64,
    /// Since when there is no progress, at least.
    since: Instant,
}

impl Lane {
    /// Goes on receiving after a client has taken what it had.
    pub(crate) fn resume(&mut self) {
        self.ahead_of = None;
        if std::mem::take(&mut self.paused)
            && let Some(me) = self.me.upgrade()
        {
            self.worker.thread().schedule_imm(me).detach();
        }
    }

    /// A client does not take what it asked for: others go another way from now on, and soon also those of them that
    /// wait behind it and may be asked twice.
    pub(super) fn retire(&mut self) {
        let Some(me) = self.me.upgrade() else { return };
        if self.slow_since.is_none() {
            self.slow_since = Some(self.worker.now());
            self.part();
        }
        if !std::mem::replace(&mut self.retired, true) {
            self.server.forget(&me);
            // Who waits for room here finds some elsewhere.
            self.wake_all_waiting();
            self.hold_back();
            self.mark();
        }
        self.relief = Some(self.worker.thread().schedule_in(me, RELIEF));
    }

    /// Whether it is connected to none of these addresses.
    pub(crate) fn is_elsewhere(&self, addresses: &[IpAddr]) -> bool {
        matches!(&self.link, Link::Up(tcp) if tcp.peer().is_some_and(|peer| !addresses.contains(&peer.ip())))
    }

    /// Asks again elsewhere for those who wait behind the one that does not take its reply.
    pub(super) fn relieve(&mut self) {
        if !self.paused {
            return;
        }
        let slow = self.slow.upgrade();
        let Some((slow, me)) = slow.filter(|slow| !slow.borrow().is_gone()).zip(self.me.upgrade()) else {
            return self.resume();
        };
        let begun = self.passing || !self.pieces.is_empty();
        if begun && matches!(self.queue.front().map(|pending| &pending.owner), Some(Owner::Nobody)) {
            // What comes is dropped.
            return self.resume();
        }
        let now = self.worker.now();
        let waits_for = slow.borrow().waits_for();
        if let Some(seq) = waits_for {
            let taken = slow.borrow().untaken().map_or(0, |(_, taken)| taken);
            let ahead = match self.ahead_of.take() {
                Some(ahead) if ahead.seq == seq && taken.saturating_sub(ahead.taken) < PROGRESS_MIN => ahead,
                _ => Ahead { seq, taken, since: now },
            };
            if now - ahead.since >= AHEAD_MAX || self.is_blocked(&slow, now) {
                self.impatient = Some(seq);
                return self.resume();
            }
            self.ahead_of = Some(ahead);
        }
        self.ask_elsewhere(&slow, usize::from(begun));
        if waits_for.is_none() && self.is_blocked(&slow, now) {
            slow.borrow_mut().cut();
            return;
        }
        self.relief = Some(self.worker.thread().schedule_in(me, AHEAD_MAX));
    }

    /// Whether others than that client have waited here for as long as they may.
    fn is_blocked(&self, slow: &Rc<ClientCell>, now: Instant) -> bool {
        let is_other = |client: Rc<ClientCell>| !Rc::ptr_eq(&client, slow);
        let others_wait = self.unsettled.clients().any(is_other)
            || self.queue.iter().any(|pending| pending.owner.client().is_some_and(is_other));
        others_wait && self.slow_since.is_some_and(|since| now - since >= BLOCKED_MAX)
    }

    /// Asks what the server has been asked from the one at `first` on at another connection, as far as it reads, and its
    /// client, which is not that slow one, has nothing here that may write: neither is to be carried out before the other.
    fn ask_elsewhere(&mut self, slow_client: &Rc<ClientCell>, first: usize) {
        let writes = self.queue.iter().filter(|pending| pending.again != Again::Always);
        let mut stay: HashSet<_> =
            writes.filter_map(|pending| pending.owner.client()).map(|client| Rc::as_ptr(&client)).collect();
        stay.extend(self.unsettled.clients().map(|client| Rc::as_ptr(&client)));
        stay.insert(Rc::as_ptr(slow_client));
        let mut slow = Slowness::new();
        for at in first..self.handed.min(self.queue.len()) {
            let end = self.queue.get(at + 1).map_or(self.pushed, |next| next.start);
            let Some(pending) = self.queue.get_mut(at) else { return };
            let goes = pending.owner.client().is_some_and(|client| !stay.contains(&Rc::as_ptr(&client)));
            if !goes || pending.again != Again::Always || pending.attempts > 0 {
                continue;
            }
            let Some(bytes) = bytes_of(&self.kept, pending.start, end) else { continue };
            let owner = std::mem::replace(&mut pending.owner, Owner::Nobody);
            let (deadline, start) = (pending.deadline, pending.start);
            // It is counted where it is answered.
            let (command, asked) = (std::mem::replace(&mut pending.command, CommandIndex::NONE), pending.asked);
            let pending = Pending { owner, deadline, start, again: Again::Always, attempts: 0, command, asked };
            let noted = slow.note(&self.worker, &self.server, &pending);
            let retried = self.server.retry(&self.worker, pending, Fault::TimedOut, false, |_| Some(bytes));
            if let Some(fault) = retried {
                self.tell_slow(noted, at, fault);
                self.server.commands().failed(command, fault);
            }
        }
    }
}
