//! What replies add to the numbers. Neighbours of one command that were asked together take as long, so they are counted
//! together: it is the number of runs that costs, not that of replies.

use super::slow::Slowness;
use super::{Lane, bytes_of};
use crate::numbers::{CommandIndex, KvCommand, KvPool, KvServer};
use crate::pending::{Again, Owner, Pending};
use crate::wire::Found;

/// Replies in a row that count alike.
pub(super) struct Tally {
    command: CommandIndex,
    asked: u32,
    replies: u32,
    hits: u32,
    misses: u32,
    /// Where the first of their requests begins among all that were sent.
    start: u64,
    /// Bytes of the replies.
    bytes: u64,
    slow: Slowness,
}

impl Tally {
    pub(super) const fn new() -> Self {
        Self {
            command: CommandIndex::NONE,
            asked: 0,
            replies: 0,
            hits: 0,
            misses: 0,
            start: 0,
            bytes: 0,
            slow: Slowness::new(),
        }
    }

    /// Takes in a reply of `len` bytes which begins with `bytes`. Of a long one the beginning is not here, and was no error.
    #[inline]
    pub(super) fn add(&mut self, lane: &Lane, pending: &Pending, bytes: &[u8], len: u64, found: Found) {
        if matches!(pending.owner, Owner::Handshake) {
            // It was no client's request, and comes before all that are.
            if bytes.starts_with(b"-") {
                self.add_error(lane, bytes);
            }
            return;
        }
        if (self.command, self.asked) != (pending.command, pending.asked) {
            self.tell(lane, pending.start);
            (self.command, self.asked, self.start) = (pending.command, pending.asked, pending.start);
            if let Some(noted) = self.slow.note(&lane.worker, &lane.server, pending) {
                let end = lane.queue.front().map_or(lane.pushed, |next| next.start);
                let bytes = bytes_of(&lane.kept, pending.start, end);
                let len = end.saturating_sub(pending.start);
                noted.tell(&lane.worker, &lane.server, bytes.as_deref(), len, None);
            }
        }
        self.replies += 1;
        self.bytes += len;
        // What nobody gets was found by nobody.
        let reads = pending.again == Again::Always && !matches!(pending.owner, Owner::Nobody);
        match bytes {
            [b'-' | b'C', ..] | [b'E', b'R', ..] | [b'S', b'E', ..] => self.add_error(lane, bytes),
            [b'$' | b'V', ..] | [b'E', b'N', ..] if reads => self.take(found),
            [] | [b'*', ..] if reads => self.add_many(bytes, found),
            _ => {}
        }
    }

    #[inline]
    fn take(&mut self, found: Found) {
        self.hits += found.values;
        self.misses += found.nothing;
    }

    /// An array, or a reply of which only the end is here: of one value or of many keys' values, or something else.
    #[cold]
    fn add_many(&mut self, bytes: &[u8], found: Found) {
        if self.command.has_many_values() || (bytes.is_empty() && found.values == 1) {
            self.take(found);
        } else if bytes.get(1) == Some(&b'-') {
            self.misses += 1;
        }
    }

    #[cold]
    fn add_error(&self, lane: &Lane, bytes: &[u8]) {
        lane.server.cells().add(KvServer::error(bytes), 1);
        lane.heed(bytes);
        if let Some(cells) = lane.server.commands().of(self.command) {
            cells.add(KvCommand::ERRORS, 1);
        }
    }

    /// Writes down what was taken in. The requests end at `end` among all that were sent.
    pub(super) fn tell(&mut self, lane: &Lane, end: u64) {
        let replies = u64::from(std::mem::take(&mut self.replies));
        if replies == 0 {
            return;
        }
        let nanos = u64::from(lane.worker.micros().wrapping_sub(self.asked)) * 1_000;
        let (server, command) = (lane.server.cells(), lane.server.commands().of(self.command));
        server.observe_times(KvServer::TIME, nanos, replies);
        let bytes = std::mem::take(&mut self.bytes);
        if let Some(command) = command {
            command.add(KvCommand::CALLS, replies);
            command.observe_times(KvCommand::TIME, nanos, replies);
            command.add(KvCommand::REQUEST_BYTES, end.saturating_sub(self.start));
            command.add(KvCommand::REPLY_BYTES, bytes);
        }
        let (hits, misses) = (std::mem::take(&mut self.hits).into(), std::mem::take(&mut self.misses).into());
        if hits + misses > 0 {
            let pool = lane.server.pool_cells();
            pool.add(KvPool::HITS, hits);
            pool.add(KvPool::MISSES, misses);
            server.add(KvServer::HITS, hits);
            server.add(KvServer::MISSES, misses);
            if let Some(command) = command {
                command.add(KvCommand::HITS, hits);
                command.add(KvCommand::MISSES, misses);
            }
        }
    }
}
