//! What becomes of requests that are not answered in time, and of a server that says nothing.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use base::Instant;

use super::slow::Slowness;
use super::{Lane, Link, give_fault};
use crate::fault::Fault;
use crate::metrics::Kv;
use crate::numbers::KvServer;
use crate::pending::{Again, Owner};
use crate::server::{SILENT, Server};

impl Lane {
    /// Has a timer while somebody waits with a deadline, or a late reply is awaited.
    pub(super) fn watch_time(&mut self) {
        let due = self.soonest;
        if due == Instant::FAR_FUTURE || (self.timer.is_some() && self.wakes_at <= due) {
            return;
        }
        if let Some(me) = self.me.upgrade() {
            self.timer = Some(self.worker.thread().schedule_at(me, due));
            self.wakes_at = due;
        }
    }

    /// Answers those whose time is over, and says how many they are. Their replies, when they come, belong to nobody.
    pub(super) fn expire(&mut self, now: Instant) -> u32 {
        self.timer = None;
        self.soonest = Instant::FAR_FUTURE;
        // Else whoever was asked first is due first.
        let mixed = self.server.limits_differ();
        let (mut late, mut all_before, mut slow) = (0, true, Slowness::new());
        for at in self.expired..self.queue.len() {
            let Some(pending) = self.queue.get_mut(at) else { break };
            let is_handshake = matches!(pending.owner, Owner::Handshake);
            if !is_handshake && pending.deadline > now {
                self.soonest = self.soonest.min(pending.deadline);
                all_before = false;
                if mixed {
                    continue;
                }
                break;
            }
            // A reply that is being passed on is not late any more; of those that are, one behind others that have time
            // comes here again.
            let again = mixed && matches!(pending.owner, Owner::Nobody);
            if !is_handshake && !again && (at > 0 || !self.passing) {
                let noted = slow.note(&self.worker, &self.server, pending);
                let owner = std::mem::replace(&mut pending.owner, Owner::Nobody);
                let is_write = pending.again != Again::Always;
                let (start, command) = (pending.start, pending.command);
                self.tell_slow(noted, at, Fault::TimedOut);
                if is_write {
                    self.leave_unsettled(start, &owner);
                }
                if give_fault(&self.worker, owner, Fault::TimedOut).is_some() {
                    self.server.commands().failed(command, Fault::TimedOut);
                }
                late += 1;
            }
            self.expired += usize::from(all_before);
        }
        if self.expired > 0
            && let Some(limit) = self.server.patience()
        {
            // Whoever asks next must not be the one to find out that the connection is dead.
            self.soonest = self.soonest.min((self.heard + limit.saturating_mul(2)).max(now + limit));
        }
        self.worker.cells().add(Kv::TIMED_OUT, late.into());
        self.server.cells().add(KvServer::TIMED_OUT, late.into());
        self.watch_time();
        late
    }

    /// Whether what is late now says that the server is not well: nothing came of it meanwhile, and it has missed as many
    /// requests running as its pool bears.
    pub(super) fn is_condemned(&self, now: Instant, late: u32) -> bool {
        self.has_been_silent_for(now, 1) && self.server.missed(late)
    }

    /// Whether the server has said nothing for twice as long as a request may take, though it was asked.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.has_been_silent_for(now, 2)
    }

    /// For so many times as long as a request may take, while the first that it was asked is late.
    fn has_been_silent_for(&self, now: Instant, times: u32) -> bool {
        !self.paused
            && self.expired > 0
            && self.server.patience().is_some_and(|limit| now - self.heard >= limit.saturating_mul(times))
    }

    /// Whether it takes no new requests, and those that it has would wait for ever for a server that has stopped.
    pub(crate) fn is_left_silent(&self, now: Instant) -> bool {
        self.retired && !self.alone && self.server.waits_for_ever() && self.is_mute(now, SILENT)
    }

    /// The server that its requests were asked of.
    pub(crate) fn server(&self) -> Rc<Server> {
        Rc::clone(&self.server)
    }

    /// Whether its server makes no more connections to where this one leads: it is no longer one of its pool, or its name
    /// leads elsewhere.
    pub(crate) fn is_left_behind(&self) -> bool {
        self.server.is_past() || self.leads_elsewhere()
    }

    /// Than where its server's name leads now.
    fn leads_elsewhere(&self) -> bool {
        self.server.address_in_use().is_some_and(|address| self.is_elsewhere(&[address]))
    }

    /// Where it leads, if that has an IP address.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        if let Link::Up(tcp) = &self.link { tcp.peer() } else { None }
    }

    /// Whether whoever is at its other end is to be asked now why it is silent. True once in a while.
    pub(crate) fn is_to_be_asked(&mut self, now: Instant) -> bool {
        let is_time = now - self.asked_at >= SILENT;
        if is_time {
            self.asked_at = now;
        }
        is_time
    }

    /// Whether it is a connection to that server, and where it is now.
    pub(crate) fn is_of(&self, server: &Rc<Server>) -> bool {
        Rc::ptr_eq(&self.server, server) && !self.leads_elsewhere()
    }

    /// Whether the server owes a reply, and has said nothing for so long.
    pub(crate) fn is_mute(&self, now: Instant, limit: Duration) -> bool {
        let waited = || self.queue.front().map_or(0, |first| self.worker.micros().wrapping_sub(first.asked));
        !self.paused
            && self.handed > 0
            && now - self.heard >= limit
            && Duration::from_micros(u64::from(waited())) >= limit
    }
}
