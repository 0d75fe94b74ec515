//! A connection for one request alone, whose bytes pass through as they come: nobody waits behind it.
//!
//! It counts for nothing in its server's health, is never asked again, and closes when it is answered.

use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::Poll;
use std::time::Duration;

use base::Instant;
use buf::Chunk;

use super::{Lane, LaneCell, Link};
use crate::client::ClientCell;
use crate::fault::Fault;
use crate::metrics::Kv;
use crate::numbers::{CommandIndex, KvServer};
use crate::pending::{Again, Owner, Pending};
use crate::server::Server;
use crate::worker::Worker;

/// Bytes that wait for the server before the client is read from no more.
const BACKLOG_MAX: usize = 256 << 10;
/// How long the server may take none of them, or not answer, when the pool has no timeout.
const STALLED_MAX: Duration = Duration::from_secs(120);

impl Lane {
    /// A connection that this request is the only one on. Its bytes follow by [`Lane::stream`].
    pub(crate) fn open_alone(
        worker: &Worker,
        server: &Rc<Server>,
        owner: Owner,
        command: CommandIndex,
    ) -> Rc<LaneCell> {
        let lane = Self::open(worker, server);
        let asked = worker.micros();
        {
            let mut it = lane.borrow_mut();
            (it.alone, it.retired, it.own) = (true, true, Some(Rc::clone(&lane)));
            // What has passed through is kept nowhere.
            let attempts = u8::MAX;
            let (deadline, start, again) = (Instant::FAR_FUTURE, 0, Again::Unsent);
            it.queue.push_back(Pending { owner, deadline, start, again, attempts, command, asked });
        }
        lane
    }

    /// The next bytes of the request.
    pub(crate) fn stream(&mut self, bytes: Chunk) {
        if !self.is_down() {
            self.server.cells().add(KvServer::REQUEST_BYTES, bytes.len() as u64);
            self.out.chunk(bytes);
            self.mark();
        }
    }

    /// The request has passed: its answer is to come until `deadline`, and nobody asks the server meanwhile whether it is
    /// there.
    pub(crate) fn asked_whole(&mut self, deadline: Instant) {
        let deadline = deadline.min(self.worker.now() + STALLED_MAX);
        if let Some(pending) = self.queue.back_mut() {
            pending.deadline = deadline;
            self.soonest = self.soonest.min(deadline);
        }
        self.server.cells().add(KvServer::REQUESTS, 1);
        self.worker.cells().add(Kv::REQUESTS, 1);
        self.mark();
    }

    /// Whether it has as many bytes to send as it may.
    pub(crate) fn is_full(&self) -> bool {
        let queued = if let Link::Up(tcp) = &self.link { tcp.queued() } else { 0 };
        self.out.len() + queued > BACKLOG_MAX
    }

    /// Wakes the client when the server has taken most of what it was sent.
    pub(crate) fn wait_for_room(&mut self, client: &Weak<ClientCell>) {
        // Whatever becomes of the connection wakes it.
        self.wait(client.clone());
        if self.room.is_some() {
            return;
        }
        let Link::Up(tcp) = &self.link else { return };
        let Some(me) = self.me.upgrade() else { return };
        let limit = self.server.timeout().unwrap_or(STALLED_MAX);
        tcp.set_write_deadline(self.worker.now() + limit);
        let thread = self.worker.thread().clone();
        self.room = Some(thread.spawn("kv stream waits", async move {
            let outcome = poll_fn(|context| match &me.borrow().link {
                Link::Up(tcp) => tcp.poll_room(context, BACKLOG_MAX / 2),
                Link::Connecting | Link::Down => Poll::Ready(Ok(())),
            })
            .await;
            let mut lane = me.borrow_mut();
            lane.room = None;
            if let Link::Up(tcp) = &lane.link {
                tcp.set_write_deadline(Instant::FAR_FUTURE);
            }
            if let Err(error) = outcome {
                lane.worker.lane_has_failed(Rc::clone(&me), Fault::of(&error));
            }
            lane.wake_waiting();
        }));
    }

    /// As [`Lane::flush`]: nothing waits for company, nothing is kept.
    pub(super) fn flush_alone(&mut self) {
        if let Link::Up(tcp) = &self.link
            && !self.out.is_empty()
        {
            self.out.take(|chunk| tcp.send(chunk));
            self.handed = self.queue.len();
        }
        self.watch_time();
    }
}
