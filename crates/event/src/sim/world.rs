//! The world: its threads, its clock, and who runs next.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base::{Clock, Instant, ManualClock, Rng, WallTime};

use super::faults::{Faults, duration_within, hits};
use super::network::Network;
use super::socket::{Shared, SimDriver, SimListener};
use crate::driver::{Driver, ListenSocket};
use crate::external::External;
use crate::listener::{Listener, Shares};
use crate::tcp::Tcp;
use crate::thread::{Handle, Thread, ThreadClock, ThreadOptions};

/// Turns without the clock moving after which nobody can be said to wait for anything.
const TURNS_IN_PLACE_MAX: u32 = 100_000;
/// Civil time when a world begins: some day in 2026.
const WALL_START: WallTime = WallTime::from_secs(1_790_000_000);

/// Why a world stopped before what was waited for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stuck {
    /// Nobody can run, no timer is pending and nothing is on its way.
    Deadlock,
    /// The time was up.
    Late,
    /// Threads run on and on without the clock moving.
    Livelock,
    /// Something on this thread panicked: the thread's name and the continuation's.
    Panicked(String, &'static str),
    /// A thread's poll failed.
    Failed(io::ErrorKind),
}

/// What a thread still has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Census {
    /// Futures that have not ended.
    pub tasks: usize,
    /// Work and messages that wait for the next turn.
    pub queued: usize,
    /// Pending timers: of futures, scheduled events, connections and paused listeners.
    pub timers: usize,
    /// Connections and listeners.
    pub sources: usize,
}

struct Member {
    thread: Thread,
    /// Does not run before this.
    asleep_until: Cell<Instant>,
}

/// Several event threads and all they can reach, in one OS thread. Made of a seed; dropped, it ends its threads.
///
/// The order of use: [`World::thread`] or [`World::group`], [`World::listen`] and [`World::name`]; spawn the first
/// futures on the threads; [`World::run_until`]; look at [`World::census`]. A world must not outlive a panic in a
/// test's own assertion: what is checked within a thread's turn is better written down and judged outside.
pub struct World {
    network: Shared,
    clock: ManualClock,
    members: RefCell<Vec<Member>>,
    rng: RefCell<Rng>,
    faults: Faults,
    turns: Cell<u64>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World({} threads, {} turns, {:?})", self.members.borrow().len(), self.turns.get(), self.clock.now())
    }
}

impl World {
    /// A world without threads. All that happens in it follows from `seed`, `faults` and what its threads do.
    #[must_use]
    pub fn new(seed: u64, faults: Faults) -> Self {
        let clock = ManualClock::new(WALL_START);
        let mut network = Network::new(seed, faults.clone());
        network.now = clock.now();
        Self {
            network: Shared::new(network),
            clock,
            members: RefCell::default(),
            rng: RefCell::new(Rng::new(seed ^ 0x776f_726c_6400)),
            faults,
            turns: Cell::new(0),
        }
    }

    /// Writes everything that happens on the network to standard error.
    pub fn narrate(&self) {
        self.network.lock().narrates = true;
    }

    /// An event thread of this world.
    ///
    /// # Errors
    /// When there are 1,024 event threads in this process already, or descriptors ran out.
    pub fn thread(&self, name: &str) -> io::Result<Thread> {
        self.member(name, 0)
    }

    /// Threads that share listeners: with indexes from 0.
    ///
    /// # Errors
    /// As [`World::thread`].
    pub fn group(&self, name: &str, count: usize) -> io::Result<Vec<Thread>> {
        (0..count).map(|index| self.member(&format!("{name} {index}"), index)).collect()
    }

    fn member(&self, name: &str, index: usize) -> io::Result<Thread> {
        let seed = self.rng.borrow_mut().next_u64();
        let driver = Driver::Sim(SimDriver::new(&self.network));
        let clock = ThreadClock::Manual(self.clock.clone());
        let options = ThreadOptions { name: name.into(), index, seed };
        let thread = Thread::with(options, Arc::new(External::new()?), driver, clock)?;
        let asleep_until = Cell::new(Instant::ORIGIN);
        self.members.borrow_mut().push(Member { thread: thread.clone(), asleep_until });
        Ok(thread)
    }

    /// A listener of this world, for [`Listener::accept_on`] on any of its threads.
    #[must_use]
    pub fn listen(
        &self,
        address: SocketAddr,
        backlog: usize,
        shares: Arc<Shares>,
        peers: Arc<OnceLock<Vec<Handle>>>,
        on_accept: impl Fn(&Thread, Tcp) + Send + Sync + 'static,
    ) -> Arc<Listener> {
        let socket = ListenSocket::Sim(SimListener::new(&self.network, address, backlog));
        Listener::of(socket, shares, peers, on_accept)
    }

    /// Makes `name` resolve to `addresses`; without any it is unknown.
    pub fn name(&self, name: &str, addresses: &[IpAddr]) {
        self.network.lock().set_name(name, addresses.to_vec());
    }

    /// The moment now.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Turns that were run so far.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.turns.get()
    }

    /// A number of all that happened so far, the same for the same story.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.network.lock().trace()
    }

    /// Ends of connections that somebody holds.
    #[must_use]
    pub fn connections_held(&self) -> usize {
        self.network.lock().ends_held()
    }

    /// What a thread of this world still has.
    #[must_use]
    pub fn census(&self, thread: &Thread) -> Census {
        thread.census()
    }

    /// One turn of one thread that can run, or a step of the clock to where something is due. False when nothing is
    /// left that could happen.
    ///
    /// # Errors
    /// When something panicked, or a poll failed.
    pub fn step(&self) -> Result<bool, Stuck> {
        let now = self.clock.now();
        {
            let mut network = self.network.lock();
            network.now = now;
            network.run_due();
        }
        let members = self.members.borrow();
        let awake = |member: &&Member| member.asleep_until.get() <= now;
        let can_run: Vec<&Member> = members.iter().filter(|member| member.thread.has_work(now)).filter(awake).collect();
        if can_run.is_empty() {
            let happens = self.network.lock().next_happening();
            let wants = |member: &Member| {
                if member.thread.has_work(now) { Some(now) } else { member.thread.next_timer() }
            };
            let runs = members.iter().filter_map(|member| Some(wants(member)?.max(member.asleep_until.get())));
            let next = runs.chain(happens).min();
            let Some(next) = next else { return Ok(false) };
            self.clock.advance_to(next);
            return Ok(true);
        }
        let mut rng = self.rng.borrow_mut();
        let which = usize::try_from(rng.below(can_run.len() as u64)).unwrap_or(0);
        let member = can_run[which];
        self.network.lock().note("turn", which, can_run.len() as u64);
        self.turns.set(self.turns.get() + 1);
        member.thread.turn(false).map_err(|error| Stuck::Failed(error.kind()))?;
        if let (1.., name) = member.thread.stats().panics() {
            return Err(Stuck::Panicked(member.thread.name().into(), name));
        }
        self.clock.advance(duration_within(&mut rng, [Duration::ZERO, self.faults.turn_max]));
        if hits(&mut rng, self.faults.sleepy) {
            let sleep = duration_within(&mut rng, [Duration::ZERO, self.faults.sleep_max]);
            member.asleep_until.set(self.clock.now() + sleep);
        }
        Ok(true)
    }

    /// Steps until `done`, for at most `limit` of the world's own time.
    ///
    /// # Errors
    /// Why it was not done.
    pub fn run_until(&self, mut done: impl FnMut() -> bool, limit: Duration) -> Result<(), Stuck> {
        let until = self.now() + limit;
        let (mut at, mut in_place) = (self.now(), 0);
        while !done() {
            if self.now() > until {
                return Err(Stuck::Late);
            }
            if !self.step()? {
                return Err(Stuck::Deadlock);
            }
            in_place = if self.now() == at { in_place + 1 } else { 0 };
            at = self.now();
            if in_place > TURNS_IN_PLACE_MAX {
                return Err(Stuck::Livelock);
            }
        }
        Ok(())
    }

    /// Runs `task` on `thread` to its end, for at most `limit` of the world's own time.
    ///
    /// # Errors
    /// As [`World::run_until`].
    ///
    /// # Panics
    /// When something on that thread does.
    pub fn run_task(
        &self,
        thread: &Thread,
        task: impl Future<Output = ()> + 'static,
        limit: Duration,
    ) -> Result<(), Stuck> {
        let over = Rc::new(Cell::new(false));
        thread.spawn("task", {
            let over = Rc::clone(&over);
            async move {
                task.await;
                over.set(true);
            }
        });
        self.run_until(|| over.get() || thread.stats().panics().0 > 0, limit)?;
        assert!(over.get(), "it panicked");
        Ok(())
    }

    /// Lets `time` of the world's own time pass, whether or not anything happens.
    ///
    /// # Errors
    /// As [`World::run_until`].
    pub fn run_for(&self, time: Duration) -> Result<(), Stuck> {
        let until = self.now() + time;
        match self.run_until(|| self.now() >= until, time + Duration::from_secs(1)) {
            Err(Stuck::Deadlock) => {
                self.clock.advance_to(until);
                Ok(())
            }
            other => other,
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for member in self.members.borrow().iter() {
            member.thread.clear();
        }
    }
}
