//! The loop itself: one turn after the other, and the end of the thread.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use base::Instant;

use super::{DUE_KEPT_MAX, ENDS_MAX, EXTERNAL_MAX, Local, Source, Thread, TimerTarget};
use crate::continuation::ActionKey;
use crate::driver::WAKE_TOKEN;
use crate::external::{Message, Next, unpack};
use crate::parcel::Fate;
use crate::registry;
use crate::timer::Wheel;

impl Thread {
    /// Runs turn after turn until [`Thread::stop`], then ends all that is left on this thread.
    ///
    /// # Errors
    /// When the poll itself fails: the loop cannot go on.
    pub fn run(&self) -> io::Result<()> {
        let mut result = Ok(self.0.clock.now());
        while !self.0.stop.get()
            && let Ok(started) = result
        {
            // A turn begins where the one before ended: one look at the clock for both.
            result = self.turn_from(true, started);
        }
        self.clear();
        result.map(|_| ())
    }

    /// One turn. Sleeps in the poll only when `may_sleep` and nothing waits.
    ///
    /// # Errors
    /// When the poll itself fails.
    pub fn turn(&self, may_sleep: bool) -> io::Result<()> {
        self.turn_from(may_sleep, self.0.clock.now()).map(|_| ())
    }

    /// One turn that begins at `started`. Says when it ended.
    fn turn_from(&self, may_sleep: bool, started: Instant) -> io::Result<Instant> {
        let _entered = registry::enter(self);
        let core = &self.0;
        core.now.set(started);
        core.running.turn(started);
        core.running.begin();
        self.take_messages();
        self.fire_timers();
        self.run_local();
        let slept = self.poll(may_sleep, started)?;
        core.now.set(slept);
        core.running.begin();
        self.run_local();
        self.run_tails();
        self.flush();
        core.running.leave();
        let ended = core.clock.now();
        core.stats.stretch(ended - slept, &core.running);
        core.stats.turn_ended(ended - slept);
        Ok(ended)
    }

    /// Whoever gathers work over a turn does it now.
    fn run_tails(&self) {
        let core = &self.0;
        for tail in 0..core.tail.borrow().len() {
            let f = core.tail.borrow().get(tail).cloned();
            if let Some(f) = f {
                core.contain_as("tail", || f(self));
            }
        }
    }

    /// Whether the loop has something to do that no poll will tell it of.
    fn is_busy(&self) -> bool {
        let core = &self.0;
        !core.local.borrow().is_empty() || !core.dirty.borrow().is_empty() || core.stop.get()
    }

    /// Takes what other threads sent, up to a bound.
    fn take_messages(&self) {
        let core = &self.0;
        let mut taken = 0;
        while taken < EXTERNAL_MAX
            && let Some(message) = core.external.pop()
        {
            taken += 1;
            self.open(message, Fate::Deliver);
        }
        if core.external.take_wake_all() {
            core.tasks.wake_all(core.id, |id| core.local.borrow_mut().push_back(Local::Task(id)));
        }
        if taken > 0 {
            core.external.took(taken);
            core.stats.messages_taken(taken);
        }
    }

    /// Hands a message of another thread to its fate; one that was cancelled, to that.
    #[inline]
    fn open(&self, message: Next, fate: Fate) {
        match message {
            Next::InRing(taken) => {
                let (parcel, cancelled) = unpack(taken);
                let fate = if cancelled { Fate::Cancelled } else { fate };
                self.0.contain(|| parcel.open(fate, self));
            }
            Next::Overflowed(message) => {
                self.0.contain(|| self.open_message(message, fate));
            }
        }
    }

    /// Not to be called but from [`Thread::open`], which contains panics.
    pub(crate) fn open_message(&self, message: Message, fate: Fate) {
        let core = &self.0;
        match (message, fate) {
            (Message::Wake(id), Fate::Deliver) => core.wake_local(id),
            (Message::Run(f), Fate::Deliver) => {
                core.enter("message");
                f(self);
            }
            (Message::Event(arrival), Fate::Deliver) => self.arrive(arrival),
            (Message::Event(mut arrival), Fate::Ended) => arrival.tell_end(self),
            (Message::Reap(reap), Fate::Deliver) => {
                core.enter("reap");
                core.cancel(reap.key());
            }
            _ => {}
        }
    }

    fn fire_timers(&self) {
        let core = &self.0;
        if core.wheel.borrow().is_empty() {
            return;
        }
        let now = core.now.get();
        let mut due = core.due.take();
        core.wheel.borrow_mut().expire(now, &mut due);
        for (at, target) in due.drain(..) {
            core.stats.timer_fired(now - at);
            match target {
                TimerTarget::Waker(waker) => waker.wake(),
                TimerTarget::Action(key) => self.deliver_action(key),
                TimerTarget::Stream(stream) => core.contain_as("deadline", || stream.deadline_fired(self)),
                TimerTarget::Listener(source) => {
                    let listener = match core.sources.borrow().get(source) {
                        Some(Source::Listener(listener)) => Some(Rc::clone(listener)),
                        _ => None,
                    };
                    if let Some(listener) = listener {
                        listener.look_again(self);
                    }
                }
            }
        }
        if due.capacity() <= DUE_KEPT_MAX {
            core.due.set(due);
        }
    }

    fn deliver_action(&self, key: ActionKey) {
        let core = &self.0;
        let due = core.actions.borrow_mut().due(key);
        let Some((mut target, event, periodic)) = due else { return };
        if !periodic {
            core.contain(|| {
                target.deliver(event, self);
                drop(target);
            });
            return;
        }
        let whole = core.contain(|| target.deliver(event, self));
        let mut actions = core.actions.borrow_mut();
        let next = match actions.entry(key) {
            Some(scheduled) if whole && target.again() => {
                scheduled.target = Some(target);
                scheduled.every.as_mut().map(|every| {
                    **every = every.after(core.now.get());
                    every.next
                })
            }
            _ => {
                // Cancelled meanwhile, or it panicked: whoever panics has lost its right to the next event.
                let gone = actions.remove(key);
                drop(actions);
                core.contain(|| drop((gone, target)));
                return;
            }
        };
        drop(actions);
        if let Some(at) = next {
            core.arm(key, at);
        }
    }

    /// Runs what is in the local queue now; what is queued meanwhile waits.
    fn run_local(&self) {
        let core = &self.0;
        let queued = core.local.borrow().len();
        if queued == 0 {
            return;
        }
        core.stats.queue_seen(queued);
        core.local_most.set(core.local_most.get().max(queued));
        for _ in 0..queued {
            let Some(next) = core.local.borrow_mut().pop_front() else { return };
            if core.stats.watches() {
                let began = core.clock.now();
                self.run_one(next);
                core.stats.watched(core.running.name(), core.clock.now() - began);
            } else {
                self.run_one(next);
            }
        }
    }

    #[inline]
    fn run_one(&self, next: Local) {
        match next {
            Local::Task(id) => self.0.run_task(id),
            Local::Action(key) => self.deliver_action(key),
        }
    }

    /// Polls and delivers readiness. Says when the poll returned.
    fn poll(&self, may_sleep: bool, started: Instant) -> io::Result<Instant> {
        let core = &self.0;
        if may_sleep && core.running.any() && !self.is_busy() {
            // What messages and timers left for the tail does not wait until the loop wakes again.
            self.run_tails();
        }
        let sleep = may_sleep && !self.is_busy() && core.external.park();
        let mut before = started;
        let timeout = if sleep {
            before = core.clock.now();
            core.running.leave();
            core.running.poll(before);
            let next = core.wheel.borrow().next_expiry();
            next.map(|at| u64::try_from((at - before).as_nanos()).unwrap_or(u64::MAX))
        } else {
            Some(0)
        };
        let gather = core.gather.take();
        if sleep && !gather.is_zero() {
            core.driver.gather(timeout.map_or(gather, |most| gather.min(Duration::from_nanos(most))));
        }
        let mut stale = sleep;
        let result = core.driver.wait(timeout, |token, ready| {
            if token == WAKE_TOKEN {
                return;
            }
            // What handlers are told now happens now, not when the loop fell asleep.
            if std::mem::take(&mut stale) {
                core.now.set(core.clock.now());
            }
            // A token is the source's place in the table; one that was closed in this very poll is gone from there.
            let source = usize::try_from(token).ok().and_then(|token| core.sources.borrow().get(token).cloned());
            match source {
                Some(Source::Stream(stream)) => core.contain_as("io", || stream.became_ready(ready, self)),
                Some(Source::Listener(listener)) => core.contain_as("accept", || listener.became_ready(self)),
                None => {}
            }
        });
        if sleep {
            core.external.unpark();
        }
        let events = result?;
        let after = core.clock.now();
        // A poll that did not sleep counts as work, together with what ran before it.
        let (worked, slept) =
            if sleep { (before - started, after - before) } else { (after - started, Duration::ZERO) };
        core.stats.stretch(worked, &core.running);
        core.stats.polled(worked, slept, events);
        Ok(after)
    }

    /// Sends what this turn wrote: one system call a connection.
    fn flush(&self) {
        let core = &self.0;
        let mut dirty = core.dirty.take();
        core.dirty_most.set(core.dirty_most.get().max(dirty.len()));
        for stream in dirty.drain(..) {
            stream.flush(self);
        }
        // Give the list's memory back, unless a flush has put something into a new one.
        let mut now = core.dirty.borrow_mut();
        if now.is_empty() {
            *now = dirty;
        }
    }

    /// Whether a turn at `now` would find something to do.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn has_work(&self, now: Instant) -> bool {
        let core = &self.0;
        core.external.len() > 0
            || !core.local.borrow().is_empty()
            || !core.dirty.borrow().is_empty()
            || core.wheel.borrow().next_expiry().is_some_and(|at| at <= now)
            || matches!(&core.driver, crate::driver::Driver::Sim(driver) if driver.has_ready())
    }

    /// When the wheel wants to be looked at.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.0.wheel.borrow().next_expiry()
    }

    /// What it still has.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn census(&self) -> crate::sim::Census {
        let core = &self.0;
        crate::sim::Census {
            tasks: core.tasks.live(),
            queued: core.local.borrow().len() + core.external.len(),
            timers: core.wheel.borrow().len(),
            sources: core.sources.borrow().len(),
        }
    }

    /// Ends every future, action, timer and connection of this thread.
    pub(crate) fn clear(&self) {
        let _entered = registry::enter(self);
        let core = &self.0;
        // Messages from now on are refused.
        core.external.end(|message| self.open(message, Fate::Ended));
        // What a drop or a last event starts anew ends too, as long as it does not go on for ever.
        for _ in 0..ENDS_MAX {
            let mut from = 0;
            while let Some((task, next)) = core.tasks.take_from(from) {
                core.contain_as("end", || drop(task));
                from = next;
            }
            let actions = core.actions.borrow_mut().clear();
            for scheduled in actions {
                core.contain_as("end", || {
                    if let Some(mut target) = scheduled.target {
                        target.tell_end(self);
                    }
                });
            }
            core.local.borrow_mut().clear();
            if core.tasks.live() == 0 {
                break;
            }
        }
        self.flush();
        core.tail.borrow_mut().clear();
        let sources: Vec<Source> = core.sources.borrow_mut().drain().collect();
        for source in &sources {
            match source {
                Source::Stream(stream) => stream.release_handler(),
                Source::Listener(listener) => listener.close(self),
            }
        }
        drop(sources);
        // Last, with what all these have left behind: a connection that was dropped with something unsent has a timer,
        // whoever was told of the end may have woken somebody, and each of those holds on to this thread. So does what
        // is begun while they are dropped.
        for _ in 0..ENDS_MAX {
            let actions = core.actions.borrow_mut().clear();
            let timers = std::mem::replace(&mut *core.wheel.borrow_mut(), Wheel::new(core.now.get()));
            if actions.is_empty() && timers.is_empty() {
                break;
            }
            core.contain_as("end", || drop(actions));
            core.contain_as("end", || drop(timers));
        }
        core.running.end();
    }
}
