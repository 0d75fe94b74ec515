//! What a client has been sent and does not take: who waits for it, and how long.

use std::future::poll_fn;
use std::io::ErrorKind::TimedOut;
use std::rc::Rc;

use base::Instant;
use event::{Cont, Task, Tcp};

use super::{Client, Phase, STALLED_MAX, UNTAKEN_MAX};
use crate::lane::LaneCell;

/// What a client is sent in a turn without being looked at whether it takes it.
const UNWATCHED_MAX: usize = 4 << 10;
/// What it takes in [`STALLED_MAX`] at least, in bytes.
const TAKEN_MIN: u64 = 16 << 10;

/// Who waits for a client; of one that has gone, what the slow log tells of it.
#[derive(Default)]
pub(super) struct Awaited {
    /// Connections that go on when it has taken what it was sent, and those that do when an earlier reply has come.
    pub(super) resume: Vec<Rc<LaneCell>>,
    pub(super) ahead: Vec<Rc<LaneCell>>,
    /// The task that waits for it to take what it was sent.
    pub(super) room: Option<Task>,
    /// Writes of its own that were given up and may yet be carried out.
    pub(super) unsettled: usize,
    /// It has gone before all that it asked was answered.
    pub(super) left: Option<Left>,
}

/// What the slow log tells of a client that did not wait for all that it asked.
pub(super) struct Left {
    pub(super) address: String,
    /// By the worker's microseconds.
    pub(super) at: u32,
}

impl Client {
    /// Before so many bytes more are handed over: has it looked at whether it takes them, if they are many or it has some.
    #[inline]
    pub(super) fn mind_untaken(&mut self, sent: usize, queued: usize) {
        if !self.watched && (sent > UNWATCHED_MAX || queued > 0) {
            self.watched = true;
            self.pool.watch_untaken(&self.worker, self.me.clone());
        }
    }

    /// Whether it has not taken what it was sent.
    #[inline]
    pub(crate) fn is_backed_up(&self) -> bool {
        self.out.len() + self.tcp.as_ref().map_or(0, Tcp::queued) > UNTAKEN_MAX
    }

    /// How much it has been sent and has not taken, and how much it has taken so far, in bytes. None when it is gone.
    pub(crate) fn untaken(&self) -> Option<(usize, u64)> {
        self.tcp.as_ref().map(|tcp| (self.out.len() + tcp.queued(), tcp.sent()))
    }

    /// It has taken all that it was sent, and is looked at no more.
    pub(crate) fn has_taken_all(&mut self) {
        self.watched = false;
    }

    /// Lets the lane go on when the client has taken most of what it was sent.
    pub(crate) fn resume_when_taken(&mut self, lane: Rc<LaneCell>) {
        self.awaited.get_or_insert_default().resume.push(lane);
        self.mark();
    }

    /// Lets the lane, which brings what [`Client::is_full`] keeps from coming, go on when there is room for it.
    pub(crate) fn resume_when_not_full(&mut self, lane: Rc<LaneCell>) {
        if self.is_far_ahead() {
            self.awaited.get_or_insert_default().ahead.push(lane);
        } else {
            self.resume_when_taken(lane);
        }
    }

    /// A write of its own was given up and may yet be carried out: nothing more is asked before that is settled.
    pub(crate) fn wait_to_settle(&mut self) {
        self.wait_to_settle_all(1);
    }

    /// So were so many.
    pub(super) fn wait_to_settle_all(&mut self, writes: usize) {
        if writes > 0 {
            self.awaited.get_or_insert_default().unsettled += writes;
        }
    }

    /// A write that was given up has been carried out, or will not be.
    pub(crate) fn has_settled(&mut self) {
        if let Some(awaited) = &mut self.awaited {
            awaited.unsettled = awaited.unsettled.saturating_sub(1);
        }
        if self.phase != Phase::Gone {
            self.mark();
        }
    }

    /// Whether what it asks now could overtake a write that was given up.
    #[inline]
    pub(super) fn is_unsettled(&self) -> bool {
        self.awaited.as_ref().is_some_and(|awaited| awaited.unsettled > 0)
    }

    pub(super) fn wait_for_room(&mut self) {
        let Some(me) = self.me.upgrade() else { return };
        if self.waits_for_room() {
            return;
        }
        let thread = self.worker.thread().clone();
        let task = thread.clone().spawn("kv client waits", async move {
            // As long as it takes a little it is not late.
            let mut sent_before = None;
            let outcome = loop {
                let sent = me.borrow().begin_patience();
                if sent_before.is_some_and(|before| sent - before < TAKEN_MIN) {
                    break Err(TimedOut.into());
                }
                sent_before = Some(sent);
                let outcome = poll_fn(|context| {
                    let client = me.borrow();
                    match &client.tcp {
                        Some(tcp) => tcp.poll_room(context, client.may_be_left()),
                        None => std::task::Poll::Ready(Ok(())),
                    }
                })
                .await;
                match outcome {
                    Err(error) if error.kind() == TimedOut => {}
                    outcome => break outcome,
                }
            };
            let mut client = me.borrow_mut();
            let mut resume = Vec::new();
            if let Some(mut awaited) = client.awaited.take() {
                awaited.room = None;
                resume = std::mem::take(&mut awaited.resume);
                client.awaited = (!awaited.ahead.is_empty() || awaited.unsettled > 0).then_some(awaited);
            }
            match outcome {
                Ok(()) => {}
                // Gone with less than all: whoever has ended its direction is counted.
                Err(error) if client.phase == Phase::Ending && error.kind() != TimedOut => client.close(),
                Err(_) => client.cut(),
            }
            if client.phase == Phase::Ending {
                client.mark();
            }
            if let Some(tcp) = &client.tcp {
                tcp.set_write_deadline(Instant::FAR_FUTURE);
            }
            for lane in resume {
                lane.borrow_mut().resume();
            }
            thread.schedule_imm(Rc::clone(&me) as Cont).detach();
        });
        self.awaited.get_or_insert_default().room = Some(task);
    }

    /// How much it may leave untaken when the wait for it ends: who ends takes all.
    fn may_be_left(&self) -> usize {
        if self.phase == Phase::Ending && self.slots.is_empty() { 0 } else { UNTAKEN_MAX / 2 }
    }

    /// Whether a task waits for it to take what it was sent.
    pub(super) fn waits_for_room(&self) -> bool {
        self.awaited.as_ref().is_some_and(|awaited| awaited.room.is_some())
    }

    /// From now on it has its time to take something. Says how much it has taken so far, in bytes.
    fn begin_patience(&self) -> u64 {
        self.tcp.as_ref().map_or(0, |tcp| {
            tcp.set_write_deadline(self.worker.now() + STALLED_MAX);
            tcp.sent()
        })
    }
}
