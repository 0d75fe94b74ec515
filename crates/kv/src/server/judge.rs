//! Judges a server, by what all threads of the process see of it together.
//!
//! Failures in a row are counted by the process. Whichever thread counts the one too many writes the verdict down, probes
//! the server from then on, and wakes the others, who follow: it is out of every thread's ring, and comes back to all with
//! the one probe that it answers. That requests fail at once, where nobody is ejected, is each thread's own business, since
//! the connections of another may be well; so is what is held out by hand, since every thread is told of it. What is taken
//! back by hand one thread takes back for all. `tests::agreement` holds all this against a model.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use super::probe::Pause;
use super::renew::leave;
use super::{Server, State, probe};
use crate::fault::Fault;
use crate::metrics::Kv;
use crate::numbers::KvPool;
use crate::say::Out;
use crate::worker::Worker;

/// So many connections in a row that the server closed before it answered anything are as one that it refused: the first is
/// tried again, since the server may just have begun anew.
const VAIN_MAX: u32 = 2;

/// What the process has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Verdict {
    /// Nothing yet.
    Open,
    /// It has answered.
    Fit,
    /// A reload brought it, and it has never answered.
    New,
    /// It is ejected.
    Out,
    /// The same, and it answers that it loads its data.
    Loads,
}

impl Verdict {
    const ALL: [Self; 5] = [Self::Open, Self::Fit, Self::New, Self::Out, Self::Loads];

    fn of(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or(Self::Open)
    }

    pub(super) fn is_out(self) -> bool {
        matches!(self, Self::Out | Self::Loads)
    }
}

/// What the threads share of one server.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// In a row. While all goes well it is read alone, so that no thread takes it from another.
    failures: AtomicU32,
    verdict: AtomicU8,
    /// Who probes it while it is out, and who looks after it while it is in use.
    prober: AtomicU64,
    inspector: AtomicU64,
    /// When it is probed next.
    pause: Mutex<Option<Pause>>,
}

/// Numbers for those who probe.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A number that nobody in this process has had.
pub(super) fn number() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Standing {
    pub(super) fn verdict(&self) -> Verdict {
        Verdict::of(self.verdict.load(Ordering::Acquire))
    }

    /// Comes to this verdict if the present one allows it. Returns that.
    fn judge(&self, verdict: Verdict, allowed: impl Fn(Verdict) -> bool) -> Result<Verdict, Verdict> {
        let next = |now| allowed(Verdict::of(now)).then_some(verdict as u8);
        let outcome = self.verdict.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        outcome.map(Verdict::of).map_err(Verdict::of)
    }

    /// So many failures more. Returns how many there are in a row.
    pub(super) fn count(&self, failures: u32) -> u32 {
        self.failures.fetch_add(failures, Ordering::Relaxed).saturating_add(failures)
    }

    #[inline]
    fn forgive(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// From now on that one probes it, and nobody else.
    pub(super) fn is_probed_by(&self, number: u64) {
        self.prober.store(number, Ordering::Relaxed);
    }

    /// That one probes it no more.
    pub(super) fn is_left_by(&self, number: u64) {
        // Another's when another has begun in its place.
        let _ = self.prober.compare_exchange(number, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(super) fn prober(&self) -> u64 {
        self.prober.load(Ordering::Relaxed)
    }

    pub(super) fn pauses(&self, pause: Pause) {
        *self.pause.lock().unwrap_or_else(PoisonError::into_inner) = Some(pause);
    }

    pub(super) fn paused(&self) -> Option<Pause> {
        *self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looking after a server, until it is dropped.
pub(super) struct Inspection {
    standing: Arc<Standing>,
    number: u64,
}

impl Inspection {
    /// None while somebody else does, unless that is to end.
    pub(super) fn begin(standing: &Arc<Standing>, in_place: bool) -> Option<Self> {
        let number = number();
        if in_place {
            standing.inspector.store(number, Ordering::Relaxed);
        } else {
            standing.inspector.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        }
        Some(Self { standing: Arc::clone(standing), number })
    }

    /// Whether nobody else has begun in this one's place.
    pub(super) fn is_valid(&self) -> bool {
        self.standing.inspector.load(Ordering::Relaxed) == self.number
    }
}

impl Drop for Inspection {
    fn drop(&mut self) {
        // Nobody's when another has it.
        let _ = self.standing.inspector.compare_exchange(self.number, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// On each thread: hears of the verdicts that others come to, from now on, which the turn's end goes by.
pub(crate) fn follow_verdicts(worker: &Worker) {
    let (me, mut is_known) = (worker.clone(), false);
    let follow = poll_fn(move |context| {
        if !is_known {
            is_known = true;
            me.shared().wake_on_verdict(context.waker().clone());
        }
        me.follow_verdicts();
        Poll::Pending
    });
    worker.thread().spawn("kv verdicts", follow);
}

impl Server {
    /// What the process has found of it.
    pub(super) fn standing(&self) -> &Arc<Standing> {
        self.standing.get_or_init(|| Arc::clone(self.told().standing.get_or_init(Arc::default)))
    }

    /// It is judged as `old` was, whose place it takes.
    pub(super) fn inherit(&self, old: &Self) {
        let standing = self.told().standing.get_or_init(|| Arc::clone(old.standing()));
        // It was not in use, so nobody has asked for it before.
        let _ = self.standing.set(Arc::clone(standing));
        self.vain.set(old.vain.get());
    }

    /// A good reply came.
    #[inline]
    pub(crate) fn succeeded(&self) {
        // Another thread may have seen it fail, and this one not.
        if let Some(standing) = self.standing.get().or_else(|| self.told().standing.get()) {
            standing.forgive();
            self.vain.set(0);
        }
    }

    /// So many requests got no answer in time, nor did any other. True when its connection's failure is to eject it.
    pub(crate) fn missed(&self, count: u32) -> bool {
        let source = &self.plan.source;
        if !source.auto_eject_hosts {
            return false;
        }
        let standing = self.standing();
        let over = standing.count(count) >= source.server_failure_limit;
        if over {
            standing.failures.store(source.server_failure_limit.saturating_sub(1), Ordering::Relaxed);
        }
        over
    }

    /// Something that says that the server is not well. `in_vain`: it closed a connection before it answered anything.
    pub(super) fn failed(self: &Rc<Self>, worker: &Worker, fault: Fault, in_vain: bool) {
        if self.state.get() != State::Well {
            return;
        }
        let failures = self.standing().count(1);
        self.vain.set(self.vain.get() + u32::from(in_vain));
        self.say_failed(worker, fault);
        let source = &self.plan.source;
        if source.auto_eject_hosts {
            if failures >= source.server_failure_limit {
                self.eject(worker, Fault::Closed, Out::Failures(failures));
            }
        } else if matches!(fault, Fault::Refused | Fault::Unreachable | Fault::Handshake)
            || (in_vain && self.vain.get() >= VAIN_MAX)
        {
            self.go_down(worker, fault);
        }
    }

    /// Neither what it was asked nor a probe was answered: nothing more is asked of it before a probe is.
    pub(super) fn is_gone(self: &Rc<Self>, worker: &Worker) {
        if self.state.get() != State::Well {
            return;
        }
        if self.plan.source.auto_eject_hosts {
            self.eject(worker, Fault::TimedOut, Out::Silent);
        } else {
            self.go_down(worker, Fault::TimedOut);
        }
    }

    fn go_down(self: &Rc<Self>, worker: &Worker, fault: Fault) {
        self.state.set(State::Down(fault));
        self.say_out(worker, None);
        probe::start(self, worker, probe::FIRST);
    }

    /// Takes it out of the ring until a probe is answered. What is on its connections goes elsewhere, or fails by `fault`.
    fn eject(self: &Rc<Self>, worker: &Worker, fault: Fault, why: Out) {
        self.put_out(worker, why, self.plan.source.server_retry_timeout);
        self.let_go(worker, fault);
    }

    /// Takes it out of the ring as one that failed, though it answers: what is on its connections is answered.
    pub(super) fn retire(self: &Rc<Self>, worker: &Worker) {
        self.put_out(worker, Out::Loads, self.plan.source.server_retry_timeout);
        self.leave_all();
    }

    /// For all threads, unless another was first.
    fn put_out(self: &Rc<Self>, worker: &Worker, why: Out, probed_after: Duration) {
        self.state.set(State::Ejected);
        let standing = self.standing();
        let verdict = if why == Out::Loads { Verdict::Loads } else { Verdict::Out };
        if standing.judge(verdict, |now| matches!(now, Verdict::Open | Verdict::Fit)).is_ok() {
            worker.cells().add(Kv::EJECTIONS, 1);
            self.note_ejection(worker);
            self.say_out(worker, Some(why));
            probe::start(self, worker, probed_after);
            worker.shared().tell_verdict();
        }
        self.rebuild(worker);
    }

    fn note_ejection(&self, worker: &Worker) {
        self.pool_cells.add(KvPool::EJECTS, 1);
        worker.shared().ejected(&self.plan.source.name, self.name(), worker.thread().wall());
    }

    /// Goes by what other threads have found of it, and sees to it that somebody probes it if it waits for that: whoever
    /// did may have come to an end by our own failure.
    pub(crate) fn mind_verdict(self: &Rc<Self>, worker: &Worker) {
        self.follow_verdict(worker);
        let is_probed = || if self.is_down() { self.prober.get() != 0 } else { self.standing().prober() != 0 };
        if self.awaits_probe() && !is_probed() {
            probe::go_on(self, worker);
        }
    }

    /// Another thread has come to a verdict, perhaps of this server.
    fn follow_verdict(self: &Rc<Self>, worker: &Worker) {
        if self.standing.get().is_none() && self.told().standing.get().is_none() {
            return;
        }
        #[cfg(test)]
        super::tests::panic_if_told(super::tests::At::Verdict);
        let (verdict, ejects) = (self.standing().verdict(), self.plan.source.auto_eject_hosts);
        match self.state.get() {
            State::New | State::Ejected if verdict == Verdict::Fit => {
                self.state.set(State::Well);
                self.rebuild(worker);
            }
            // One that is new where others have nobody else to take its keys is out like theirs.
            State::New | State::Well | State::Down(_) if ejects && verdict.is_out() => {
                self.state.set(State::Ejected);
                self.rebuild(worker);
                if verdict == Verdict::Loads {
                    self.leave_all();
                } else {
                    self.let_go(worker, Fault::Closed);
                }
            }
            _ => {}
        }
    }

    /// It begins, or goes on, out of the ring by hand; the ring is somebody else's to build.
    pub(crate) fn keep_out(&self, worker: &Worker) {
        if self.state.replace(State::Held) != State::Held {
            self.let_go(worker, Fault::Closed);
        }
    }

    /// Takes it out of the ring until it is restored by hand, or takes it back.
    pub(crate) fn hold(&self, worker: &Worker, out: bool) {
        match (out, self.state.get()) {
            (true, State::Held) | (_, State::Past) => {}
            (true, _) => {
                self.state.set(State::Held);
                // Every thread is told of it, and one counts it.
                if worker.thread().index() == 0 {
                    self.note_ejection(worker);
                }
                self.rebuild(worker);
                self.let_go(worker, Fault::Closed);
            }
            // One takes it back for all: one that hears of it late would bring back what has been ejected since.
            (false, state) if worker.thread().index() == 0 => {
                if state != State::Well || !matches!(self.standing().verdict(), Verdict::Open | Verdict::Fit) {
                    self.restored(worker);
                }
            }
            (false, State::Held | State::Down(_)) => {
                self.state.set(self.as_found());
                self.vain.set(0);
                self.rebuild(worker);
                worker.follow_verdicts();
            }
            (false, _) => {}
        }
    }

    /// What it is to a thread by what the process has found of it.
    pub(super) fn as_found(&self) -> State {
        match self.standing().verdict() {
            Verdict::New => State::New,
            Verdict::Out | Verdict::Loads if self.plan.source.auto_eject_hosts => State::Ejected,
            _ => State::Well,
        }
    }

    /// A probe was answered, or somebody said so by hand.
    pub(super) fn restored(&self, worker: &Worker) {
        let was = self.state.replace(State::Well);
        let standing = self.standing();
        self.say_back(worker, was == State::New);
        standing.forgive();
        self.vain.set(0);
        let is_news = standing.judge(Verdict::Fit, |now| now != Verdict::Fit).is_ok_and(|was| was != Verdict::Open);
        if is_news {
            worker.shared().tell_verdict();
        }
        if matches!(was, State::New | State::Ejected | State::Held) {
            if is_news || (was == State::Held && worker.thread().index() == 0) {
                worker.cells().add(Kv::RESTORATIONS, 1);
            }
            self.rebuild(worker);
        }
    }

    /// A reload brought it, and it was asked whether it is well, by other threads perhaps with another answer.
    pub(super) fn judge_new(self: &Rc<Self>, worker: &Worker, answered: bool) {
        let standing = self.standing();
        if standing.verdict() == Verdict::Open {
            self.say_begun(worker);
        }
        let outcome = if answered {
            standing.judge(Verdict::Fit, |now| matches!(now, Verdict::Open | Verdict::New))
        } else {
            standing.judge(Verdict::New, |now| now == Verdict::Open)
        };
        self.state.set(self.as_found());
        match outcome {
            Ok(Verdict::New) => worker.shared().tell_verdict(),
            Ok(_) if !answered => probe::start(self, worker, probe::FIRST),
            _ => {}
        }
    }

    /// Nobody else could take its keys: one that is new has them all the same, as one that stopped answering would.
    pub(crate) fn take_in(self: &Rc<Self>, worker: &Worker) {
        if self.state.get() != State::New {
            return;
        }
        if !self.plan.source.auto_eject_hosts {
            self.state.set(State::Down(Fault::Refused));
            return probe::start(self, worker, probe::FIRST);
        }
        // Whoever probes it goes on.
        let outcome = self.standing().judge(Verdict::Out, |now| now == Verdict::New);
        if outcome.is_ok() {
            worker.shared().tell_verdict();
        }
        let answered = outcome.is_err_and(|now| !now.is_out());
        self.state.set(if answered { State::Well } else { State::Ejected });
    }

    /// What happens to a server that fails may be another thing by the new plan.
    pub(super) fn go_on_from(self: &Rc<Self>, worker: &Worker, was: State, inspected: bool) {
        match (was, self.plan.source.auto_eject_hosts) {
            // It has answered another thread, and this one has not followed yet.
            (State::Ejected, false) if self.standing().verdict() == Verdict::Fit => self.state.set(State::Well),
            // The verdict stays until it answers somebody: threads that eject by an older plan have not got it back.
            (State::Ejected, false) => self.state.set(State::Down(Fault::Refused)),
            // It has been left alone already.
            (State::Down(_), true) => self.put_out(worker, Out::WasDown, probe::FIRST),
            (state, _) => self.state.set(state),
        }
        if self.is_well() && self.plan.source.auto_eject_hosts && self.standing().verdict().is_out() {
            self.state.set(State::Ejected);
            self.leave_all();
        }
        if self.awaits_probe() {
            // The last one to take the plan.
            probe::go_on(self, worker);
        }
        if inspected {
            self.inspect_on(worker);
        }
    }

    /// Nothing new is asked on its connections; what is on them is answered.
    fn leave_all(&self) {
        let lanes: Vec<_> = self.lanes.borrow_mut().iter_mut().filter_map(Option::take).collect();
        lanes.iter().for_each(leave);
    }
}
