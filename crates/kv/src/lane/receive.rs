//! What a server says: each reply to whom it belongs, in place, large ones while they come.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use buf::{Block, SizeClass};

use super::slow::Slowness;
use super::tally::Tally;
use super::{Lane, Link};
use crate::client::KEPT_MAX;
use crate::fault::Fault;
use crate::join;
use crate::memory::Kept;
use crate::metrics::Kv;
use crate::numbers::KvServer;
use crate::pending::{Owner, Pending};
use crate::wire::Scanned;

/// Blocks one connection fills in a turn; what else has come waits for the next.
const RECEIVES_MAX: usize = 8;
/// The beginning of a reply is copied into the next block up to this size; more of it is passed on, or kept, as it is.
const CARRY_MAX: usize = 4 << 10;

impl Lane {
    /// Takes what has come. Says how the connection failed, if it did.
    pub(super) fn receive(&mut self) -> Option<Fault> {
        let Link::Up(tcp) = std::mem::replace(&mut self.link, Link::Connecting) else { return None };
        let mut looked_at = None;
        let outcome = catch_unwind(AssertUnwindSafe(|| self.receive_from(&tcp, &mut looked_at)));
        self.link = Link::Up(tcp);
        match outcome {
            Ok(outcome) => outcome,
            Err(panic) => {
                self.give_up(looked_at.as_ref());
                // Its thread counts it.
                resume_unwind(panic)
            }
        }
    }

    /// Something panicked while replies in that block were looked at. Whoever got one is served on; whose reply it was is
    /// in nobody knows what state, and ends; the others on this connection get errors.
    #[cold]
    fn give_up(&mut self, block: Option<&Block>) {
        // First of all: what follows may panic as well.
        if let Some(me) = self.me.upgrade() {
            self.worker.lane_has_failed(me, Fault::Internal);
        }
        let client = self.current.take().and_then(|pending| pending.owner.client());
        if let Some(client) = &client {
            client.borrow_mut().cut();
        }
        for touched in self.touched.drain(..) {
            match block {
                Some(block) => touched.borrow_mut().close_run(block),
                None => touched.borrow_mut().cut(),
            }
        }
    }

    /// `looked_at` has the block in which replies are looked for, meanwhile.
    fn receive_from(&mut self, tcp: &event::Tcp, looked_at: &mut Option<Block>) -> Option<Fault> {
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..RECEIVES_MAX {
            if self.paused {
                return None;
            }
            let mut block = self.input.take().unwrap_or_else(|| self.fresh());
            if block.room() < block.capacity() / 4 {
                block = match self.carry(&block) {
                    Ok(block) => block,
                    Err(fault) => return Some(fault),
                };
            }
            let room = block.room();
            let got = match tcp.poll_recv(&mut context, &mut block) {
                Poll::Pending => {
                    self.keep(block);
                    return None;
                }
                Poll::Ready(Ok(0)) => return Some(Fault::Closed),
                Poll::Ready(Err(error)) => return Some(Fault::of(&error)),
                Poll::Ready(Ok(got)) => got,
            };
            self.heard = self.worker.now();
            self.worker.cells().add(Kv::SERVER_RECEIVED, got as u64);
            self.uncounted += got;
            let block = looked_at.insert(block);
            let outcome = self.replies(block);
            if outcome.is_none() && !self.turned_away.get() {
                self.server.succeeded();
            }
            self.plenty = got == room || got >= SizeClass::Medium.capacity();
            if let Some(block) = looked_at.take() {
                self.keep(block);
            }
            if outcome.is_some() {
                return outcome;
            }
            if self.retired && self.queue.is_empty() {
                return Some(Fault::Closed);
            }
            if !tcp.is_readable() {
                return None;
            }
        }
        // The others first.
        if let Some(me) = self.me.upgrade() {
            self.worker.thread().schedule_imm(me).detach();
        }
        None
    }

    fn fresh(&self) -> Block {
        Block::new(if self.plenty { SizeClass::Large } else { SizeClass::Medium })
    }

    /// Keeps the block only when something of a reply is in it.
    fn keep(&mut self, block: Block) {
        if self.at < block.len() || self.passing || !self.pieces.is_empty() {
            self.input = Some(block);
        } else {
            (self.at, self.scanned) = (0, 0);
        }
        self.forget();
        self.wake_waiting();
        if self.queue.is_empty() {
            self.out.rest();
        } else if !self.out.is_empty() {
            // The batch may have come back: look at the turn's end whether the next can go.
            self.mark();
        }
    }

    /// A new block in place of a full one, with what must stay together.
    fn carry(&mut self, full: &Block) -> Result<Block, Fault> {
        let rest = full.len() - self.at;
        let mut block = if rest > CARRY_MAX { Block::new(SizeClass::Large) } else { self.fresh() };
        if rest <= CARRY_MAX {
            block.append(&full[self.at..]);
            self.scanned -= self.at;
            self.at = 0;
            return Ok(block);
        }
        // What was looked at for good goes ahead; a line that has not ended is copied.
        self.pass(full, self.at..self.scanned)?;
        if full.len() - self.scanned > block.room() / 2 {
            return Err(Fault::Nonsense);
        }
        block.append(&full[self.scanned..]);
        (self.at, self.scanned) = (0, 0);
        Ok(block)
    }

    /// Takes the replies in `block`, and what there is of the last.
    fn replies(&mut self, block: &Block) -> Option<Fault> {
        let before = self.handed;
        self.touched = std::mem::take(&mut *self.worker.touched());
        let mut tally = Tally::new();
        let outcome = loop {
            match self.reply.scan(&block.bytes()[self.scanned..]) {
                Scanned::Whole(len) => {
                    let range = self.at..self.scanned + len;
                    let Some(pending) = self.queue.pop_front() else { break Some(Fault::Nonsense) };
                    (self.at, self.scanned) = (range.end, range.end);
                    if self.handed == 0 {
                        // Answered before it was asked.
                        self.queue.push_front(pending);
                        break Some(Fault::Nonsense);
                    }
                    self.handed -= 1;
                    self.expired = self.expired.saturating_sub(1);
                    self.current = Some(pending);
                    if let Some(fault) = self.answer(block, range, &mut tally) {
                        break Some(fault);
                    }
                    if self.at == block.len() {
                        break None;
                    }
                }
                Scanned::Part(len) => {
                    self.scanned += len;
                    if self.handed == 0 && self.scanned > self.at {
                        break Some(Fault::Nonsense);
                    }
                    break None;
                }
                Scanned::Malformed => break Some(Fault::Nonsense),
            }
        };
        tally.tell(self, self.queue.front().map_or(self.pushed, |next| next.start));
        let mut touched = std::mem::take(&mut self.touched);
        for client in touched.drain(..) {
            let mut to = client.borrow_mut();
            to.close_run(block);
            if to.is_backed_up()
                && let Some(me) = self.me.upgrade()
            {
                self.paused = true;
                self.slow = Rc::downgrade(&client);
                to.resume_when_taken(me);
            }
        }
        *self.worker.touched() = touched;
        if self.paused && outcome.is_none() {
            self.retire();
        }
        let replied = before.saturating_sub(self.handed);
        let shaken = std::mem::take(&mut self.shaken);
        self.served |= replied > shaken;
        self.server.cells().add(KvServer::RESPONSES, replied.saturating_sub(shaken) as u64);
        if !self.queue.front().is_some_and(|next| matches!(next.owner, Owner::Handshake)) {
            self.server.cells().add(KvServer::RESPONSE_BYTES, std::mem::take(&mut self.uncounted) as u64);
        }
        if outcome.is_none() && self.passing && self.at < self.scanned {
            // The rest of this block goes at once: the client waits for just this.
            let range = self.at..self.scanned;
            self.at = self.scanned;
            if let Err(fault) = self.pass(block, range) {
                return Some(fault);
            }
        }
        outcome
    }

    /// Gives a whole reply, whose last part is `range`, to the owner of what is current.
    #[inline]
    fn answer(&mut self, block: &Block, range: Range<usize>, tally: &mut Tally) -> Option<Fault> {
        let Some(pending) = &self.current else { return None };
        let long = self.passing || !self.pieces.is_empty();
        let reply = if long { &[] } else { block.get(range.clone()).unwrap_or_default() };
        let len = (std::mem::take(&mut self.passed) + range.len()) as u64;
        tally.add(self, pending, reply, len, self.reply.found());
        #[cfg(test)]
        super::tests::panic_if_told(reply);
        if long {
            let outcome = self.answer_long(block, range);
            self.current = None;
            return outcome;
        }
        let mut opened = false;
        let outcome = match &pending.owner {
            Owner::Client(client, seq) => {
                opened = client.borrow_mut().fill(*seq, block, range);
                None
            }
            Owner::Part(joining, part) => {
                join::give(joining, *part, block.chunk(range));
                None
            }
            Owner::Quiet(client, seq) => {
                client.borrow_mut().pass_over(*seq);
                None
            }
            Owner::Handshake => {
                self.shaken += 1;
                self.uncounted = self.uncounted.saturating_sub(range.len());
                self.server.greeted(&self.worker, block.get(range).unwrap_or_default()).err()
            }
            Owner::Nobody => {
                self.worker.cells().add(Kv::LATE, 1);
                None
            }
        };
        if let Some(Pending { owner: Owner::Client(client, _), .. }) = self.current.take()
            && opened
        {
            self.touched.push(client);
        }
        outcome
    }

    fn answer_long(&mut self, block: &Block, range: Range<usize>) -> Option<Fault> {
        let passing = std::mem::take(&mut self.passing);
        let mut pieces = std::mem::take(&mut self.pieces);
        (self.pieces_len, self.pieces_kept) = (0, None);
        if !range.is_empty() {
            pieces.push(block.chunk(range));
        }
        match &self.current.as_ref()?.owner {
            Owner::Client(client, _) if passing => client.borrow_mut().pass_last(pieces),
            Owner::Client(client, seq) => client.borrow_mut().fill_pieces(*seq, pieces),
            Owner::Part(joining, part) => join::give(joining, *part, join::together(&pieces)),
            Owner::Quiet(client, seq) => client.borrow_mut().pass_over(*seq),
            Owner::Handshake => return Some(Fault::Handshake),
            Owner::Nobody => self.worker.cells().add(Kv::LATE, 1),
        }
        None
    }

    /// Passes on part of a reply that has not ended, or keeps it while its owner waits for another.
    fn pass(&mut self, block: &Block, range: Range<usize>) -> Result<(), Fault> {
        if range.is_empty() {
            return Ok(());
        }
        self.passed += range.len();
        let Some(pending) = self.queue.front_mut() else { return Err(Fault::Nonsense) };
        match &pending.owner {
            Owner::Client(client, seq) => {
                let mut to = client.borrow_mut();
                if to.is_gone() {
                    drop(to);
                    pending.owner = Owner::Nobody;
                    self.passing = true;
                } else if to.is_front(*seq) {
                    self.passing = true;
                    for piece in self.pieces.drain(..) {
                        to.pass(piece);
                    }
                    (self.pieces_len, self.pieces_kept) = (0, None);
                    to.pass(block.chunk(range));
                    if to.is_backed_up()
                        && let Some(me) = self.me.upgrade()
                    {
                        self.paused = true;
                        self.slow = Rc::downgrade(client);
                        to.resume_when_taken(me);
                        drop(to);
                        self.retire();
                    }
                } else {
                    let had_patience = self.impatient.is_some_and(|seq| {
                        to.waits_for() == Some(seq) && std::ptr::eq(self.slow.as_ptr(), Rc::as_ptr(client))
                    });
                    let full = to.is_full() && !had_patience;
                    let may = to.may_hold(self.pieces_len, range.len());
                    if full && let Some(me) = self.me.upgrade() {
                        self.paused = true;
                        self.slow = Rc::downgrade(client);
                        to.resume_when_not_full(me);
                    }
                    drop(to);
                    self.keep_piece(block, range, may);
                    if full {
                        self.retire();
                    }
                }
            }
            Owner::Part(..) => {
                let may = self.pieces_len + range.len() <= KEPT_MAX;
                self.keep_piece(block, range, may);
            }
            Owner::Quiet(..) | Owner::Nobody => {
                self.pieces.clear();
                self.pieces_kept = None;
                self.passing = true;
            }
            Owner::Handshake => return Err(Fault::Handshake),
        }
        Ok(())
    }

    /// Keeps part of a reply that has not its turn; where it must not, its owner gets an error in its place and the reply
    /// belongs to nobody.
    fn keep_piece(&mut self, block: &Block, range: Range<usize>, may: bool) {
        let kept = match &mut self.pieces_kept {
            Some(kept) => Some(kept),
            none => self.server.pool().map(|pool| none.insert(Kept::new(&self.worker, &pool))),
        };
        if may && kept.is_some_and(|kept| kept.add(range.len())) {
            self.pieces_len += range.len();
            self.pieces.push(block.chunk(range));
            return;
        }
        self.pieces.clear();
        self.pieces_kept = None;
        self.pieces_len = 0;
        self.passing = true;
        if let Some(pending) = self.queue.front_mut() {
            let noted = Slowness::new().note(&self.worker, &self.server, pending);
            let owner = std::mem::replace(&mut pending.owner, Owner::Nobody);
            let command = pending.command;
            self.tell_slow(noted, 0, Fault::TooLarge);
            self.server.commands().failed(command, Fault::TooLarge);
            super::give_fault(&self.worker, owner, Fault::TooLarge);
        }
    }
}
