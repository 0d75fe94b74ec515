//! Writes that were given up on a connection and may yet be carried out.
//!
//! While what their clients ask later comes behind them on the same connection nothing is to be done. When it may go another
//! way it would overtake them: from then on each such client waits, until the late reply has come or the connection ends, for
//! some time at most.

use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::time::Duration;

use base::Instant;

use super::Lane;
use crate::client::ClientCell;
use crate::pending::Owner;

/// How long a client waits to hear of a write that was given up, or for as long as its server may be silent if that is
/// longer: one that answers others slowly could keep it waiting for ever.
const AWAITED_MAX: Duration = Duration::from_secs(60);

/// A write that was given up.
struct Write {
    /// Where in the stream it begins.
    start: u64,
    client: Weak<ClientCell>,
    /// Since when its client waits to hear of it.
    awaited: Option<Instant>,
}

impl Write {
    /// Its client waits for it no more.
    fn let_go(&self) {
        if self.awaited.is_some()
            && let Some(client) = self.client.upgrade()
        {
            client.borrow_mut().has_settled();
        }
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Unsettled {
    /// In the stream's order.
    writes: VecDeque<Write>,
    /// What is asked later than what begins before this place in the stream may go another way.
    parted: u64,
}

impl Unsettled {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    pub(super) fn shrink_to(&mut self, places: usize) {
        self.writes.shrink_to(places);
    }

    /// Those whose writes these are, as far as they are there.
    pub(super) fn clients(&self) -> impl Iterator<Item = Rc<ClientCell>> {
        self.writes.iter().filter_map(|write| write.client.upgrade())
    }

    /// One that begins there in the stream.
    fn add(&mut self, start: u64, client: &Rc<ClientCell>, now: Instant) {
        let awaited = (start < self.parted).then_some(now);
        if awaited.is_some() {
            client.borrow_mut().wait_to_settle();
        }
        // Where limits differ a later one may be given up first.
        let at = self.writes.partition_point(|other| other.start < start);
        self.writes.insert(at, Write { start, client: Rc::downgrade(client), awaited });
    }

    /// What is asked from now on may go another way than what begins before that place in the stream.
    fn part(&mut self, before: u64, now: Instant) {
        for write in self.writes.iter_mut().filter(|write| write.start < before && write.awaited.is_none()) {
            write.awaited = Some(now);
            if let Some(client) = write.client.upgrade() {
                client.borrow_mut().wait_to_settle();
            }
        }
        self.parted = self.parted.max(before);
    }

    /// That client goes another way from now on. Says of how many writes more it waits to hear.
    fn part_with(&mut self, client: &Weak<ClientCell>, now: Instant) -> usize {
        let own = self.writes.iter_mut().filter(|write| write.awaited.is_none() && write.client.ptr_eq(client));
        own.map(|write| write.awaited = Some(now)).count()
    }

    /// What begins before that place in the stream has been carried out.
    fn settle(&mut self, before: u64) {
        while let Some(write) = self.writes.pop_front_if(|write| write.start < before) {
            write.let_go();
        }
    }

    /// Who has waited for so long waits no more.
    fn give_up(&mut self, now: Instant, limit: Duration) {
        self.writes.retain(|write| {
            let over = write.awaited.is_some_and(|since| now - since >= limit);
            if over {
                write.let_go();
            }
            !over
        });
    }

    /// The connection ends. Those who wait to hear of theirs, once for each.
    pub(super) fn end(&mut self) -> Vec<Weak<ClientCell>> {
        self.writes.drain(..).filter(|write| write.awaited.is_some()).map(|write| write.client).collect()
    }
}

impl Lane {
    /// A write, which begins there in the stream, is given up.
    pub(super) fn leave_unsettled(&mut self, start: u64, owner: &Owner) {
        if !self.alone
            && let Some(client) = owner.client()
        {
            self.unsettled.add(start, &client, self.worker.now());
        }
    }

    /// What is before that place in the stream has been carried out.
    #[cold]
    pub(super) fn settle(&mut self, before: u64) {
        self.unsettled.settle(before);
    }

    /// It takes nothing new: whatever is asked from now on goes another way.
    pub(crate) fn part(&mut self) {
        self.unsettled.part(u64::MAX, self.worker.now());
    }

    /// It goes on with others: whoever has asked something here may be sent another way from now on.
    pub(crate) fn part_with_all(&mut self) {
        self.unsettled.part(self.pushed, self.worker.now());
    }

    /// What that client asks next goes another way. Says of how many writes that were given up it has yet to hear, more
    /// than it waits for already.
    pub(crate) fn part_with(&mut self, client: &Weak<ClientCell>) -> usize {
        self.unsettled.part_with(client, self.worker.now())
    }

    /// Lets go of clients that have waited long enough to hear of writes that were given up.
    pub(crate) fn mind_unsettled(&mut self, now: Instant) {
        if !self.unsettled.is_empty() {
            let silent = self.server.patience().map_or(AWAITED_MAX, |limit| limit.saturating_mul(2));
            self.unsettled.give_up(now, silent.max(AWAITED_MAX));
        }
    }
}
