//! Which requests of a connection are put in the slow log: those whose reply came late, and those that got none after their
//! client had waited as long.
//!
//! Of neighbours that were asked together only the first is told, and of one occasion a few.

use std::time::Duration;

use super::{Lane, bytes_of};
use crate::fault::Fault;
use crate::numbers::CommandIndex;
use crate::pending::Pending;
use crate::plan::Protocol;
use crate::server::Server;
use crate::slow::{ANSWERED, Asker, LEFT, Slow};
use crate::wire::memcached;
use crate::wire::resp::Request;
use crate::worker::Worker;

/// Requests of one occasion, a receive or a failure, that are told.
const SLOW_MAX: u32 = 8;

/// What has been told on one occasion.
pub(super) struct Slowness {
    last: (CommandIndex, u32),
    told: u32,
}

/// A request that is to be told when it is known what became of it.
pub(super) struct Noted {
    command: CommandIndex,
    took: Duration,
    client: Asker,
    has_left: bool,
}

impl Slowness {
    pub(super) const fn new() -> Self {
        Self { last: (CommandIndex::NONE, 0), told: 0 }
    }

    /// The request as it is to be told, if it is: somebody has waited long for it.
    #[inline]
    pub(super) fn note(&mut self, worker: &Worker, server: &Server, pending: &Pending) -> Option<Noted> {
        let waited = worker.micros().wrapping_sub(pending.asked);
        if waited < server.slow_micros() { None } else { self.note_slow(server, pending, waited) }
    }

    #[cold]
    fn note_slow(&mut self, server: &Server, pending: &Pending, waited: u32) -> Option<Noted> {
        let this = (pending.command, pending.asked);
        if self.last == this || self.told >= SLOW_MAX || pending.command == CommandIndex::NONE {
            return None;
        }
        // Whose time was over has been told then.
        let client = pending.owner.client()?;
        let client = client.borrow();
        let left = client.left_at().map(|at| at.wrapping_sub(pending.asked));
        let took = left.unwrap_or(waited);
        if took < server.slow_micros() {
            return None;
        }
        (self.last, self.told) = (this, self.told + 1);
        Some(Noted {
            command: pending.command,
            took: Duration::from_micros(took.into()),
            client: client.asker(),
            has_left: left.is_some(),
        })
    }
}

impl Noted {
    /// Puts it in the log: its bytes, as far as they are known, how many there are, and what it got in place of a reply.
    pub(super) fn tell(self, worker: &Worker, server: &Server, bytes: Option<&[u8]>, len: u64, fault: Option<Fault>) {
        let protocol = server.protocol();
        let command = self.command.name(protocol);
        // A subcommand is no argument.
        let at = 1 + usize::from(command.contains('|'));
        let (argument, argument_more) = bytes.map_or_else(Default::default, |bytes| argument(protocol, bytes, at));
        worker.shared().slow_log().put(Slow {
            at: worker.thread().wall(),
            pool: server.pool_name().to_owned(),
            server: server.name().to_owned(),
            command,
            argument,
            argument_more,
            bytes: len,
            took: self.took,
            outcome: if self.has_left { LEFT } else { fault.map_or(ANSWERED, Fault::outcome) },
            client: self.client,
        });
    }
}

impl Lane {
    /// The bytes of the request at this place of the queue, if they are kept, and how many there are.
    pub(super) fn request_at(&self, at: usize) -> (Option<Vec<u8>>, u64) {
        let start = |at: usize| self.queue.get(at).map_or(self.pushed, |pending| pending.start);
        let (from, to) = (start(at), start(at + 1));
        let bytes = if from < self.handed_bytes {
            bytes_of(&self.kept, from, to)
        } else {
            // Not handed over yet.
            let place = |at: u64| usize::try_from(at - self.handed_bytes).ok();
            place(from).zip(place(to)).and_then(|(from, to)| self.out.part(from..to))
        };
        (bytes, to.saturating_sub(from))
    }

    /// As [`Noted::tell`], of the request at this place of the queue.
    pub(super) fn tell_slow(&self, noted: Option<Noted>, at: usize, fault: Fault) {
        if let Some(noted) = noted {
            let (bytes, len) = self.request_at(at);
            noted.tell(&self.worker, &self.server, bytes.as_deref(), len, Some(fault));
        }
    }
}

/// What is told of the argument at this place of a request, which is whole.
fn argument(protocol: Protocol, bytes: &[u8], at: usize) -> (Vec<u8>, u64) {
    let mut request = Request::default();
    match protocol {
        Protocol::Redis => {
            request.scan(bytes);
        }
        Protocol::Memcached => {
            memcached::scan(bytes, request.words());
        }
    }
    let place = request.arguments().get(at).map(|place| place.start as usize..place.end as usize);
    Slow::argument(place.and_then(|place| bytes.get(place)).unwrap_or_default())
}
