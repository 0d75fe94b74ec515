//! The event processor: starts the groups of threads, knows them, schedules on them, and ends them in order.
//!
//! ```text
//! ET_NET   one per core: sockets, both engines           (ET_CALL is another name for it)
//! ET_TASK  a few: long or blocking work, see [`Background`]
//! …        dedicated groups that a part asks for at the start, Processor::spawn_event_threads
//! ```
//!
//! No thread is started elsewhere, but the log's. Read [`Processor::start`] first; [`Groups`] is what other threads
//! may hold of it.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use base::Instant;

use crate::background::{self, Background, BackgroundThreads};
use crate::continuation::Continuation;
use crate::external::Refused;
use crate::remote::RemoteAction;
use crate::thread::{Handle, Thread, ThreadOptions};

/// How long a group may take to start.
const START_MAX: Duration = Duration::from_secs(10);
/// How often a bounded wait for a thread's end looks.
const STOP_STEP: Duration = Duration::from_millis(1);

/// Names a group of event threads.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Group(usize);

/// Sockets and all that is quick.
pub const ET_NET: Group = Group(0);
/// The same: where calls go that belong to no other group.
pub const ET_CALL: Group = ET_NET;
/// Long or blocking work. An event scheduled here may wait behind such work.
pub const ET_TASK: Group = Group(1);

/// How many threads, where, and with what chance.
#[derive(Clone, Debug)]
pub struct ProcessorOptions {
    /// Threads of ET_NET; at least one is started.
    pub net: usize,
    /// Threads of ET_TASK; at least one is started.
    pub task: usize,
    /// Ties each ET_NET thread to a core of its own, in the order of the affinity mask. Not when the mask has fewer
    /// cores than there are threads, or a cgroup's quota is worth less than the mask: then the cores belong to others
    /// too, and two processes that are tied to the same ones would share them while others idle.
    pub pin: bool,
    /// From which each thread's seed is drawn.
    pub seed: u64,
}

/// How many threads of ET_NET this process can keep busy: its cores by affinity mask, or less when its cgroup has a
/// quota of processor time (`cpu.max`). At least one.
#[must_use]
pub fn cores_usable() -> usize {
    let mask = sys::thread::cores().len().max(1);
    // The standard library reads the quotas of both cgroup versions, up to the root.
    std::thread::available_parallelism().map_or(mask, |quota| quota.get().min(mask))
}

/// The cores to tie so many threads to, one each; none when they are not to be tied.
fn cores_to_pin(count: usize, mask: Vec<usize>, usable: usize) -> Vec<usize> {
    if mask.len() < count || usable < mask.len() { Vec::new() } else { mask }
}

struct GroupThreads {
    name: String,
    threads: Vec<Handle>,
    next: AtomicUsize,
}

/// The groups of a processor, for scheduling from any thread. Clones share them.
#[derive(Clone, Default)]
pub struct Groups(Arc<RwLock<Vec<GroupThreads>>>);

impl std::fmt::Debug for Groups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let groups = self.0.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_map().entries(groups.iter().map(|group| (&group.name, group.threads.len()))).finish()
    }
}

impl Groups {
    fn add(&self, name: &str, threads: Vec<Handle>) -> Group {
        let mut groups = self.0.write().unwrap_or_else(PoisonError::into_inner);
        groups.push(GroupThreads { name: name.to_owned(), threads, next: AtomicUsize::new(0) });
        Group(groups.len() - 1)
    }

    /// One handle for each thread of a group, by its index; none for a group that there is not.
    #[must_use]
    pub fn threads(&self, group: Group) -> Vec<Handle> {
        let groups = self.0.read().unwrap_or_else(PoisonError::into_inner);
        groups.get(group.0).map(|group| group.threads.clone()).unwrap_or_default()
    }

    /// The group of that name: `"ET_NET"`.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Group> {
        let groups = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if name == "ET_CALL" { Some(ET_CALL) } else { groups.iter().position(|group| group.name == name).map(Group) }
    }

    /// The next thread of a group, in turns; one that has fewer messages waiting when that one is far behind.
    fn pick(&self, group: Group) -> Result<Handle, Refused> {
        let groups = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let group = groups.get(group.0).filter(|group| !group.threads.is_empty()).ok_or(Refused::Ended)?;
        let count = group.threads.len();
        let at = group.next.fetch_add(1, Ordering::Relaxed) % count;
        let (first, second) = (&group.threads[at], &group.threads[(at + 1) % count]);
        Ok(if first.queued() > 2 * second.queued() + BEHIND { second } else { first }.clone())
    }

    /// Moves `cont` to a thread of `group` and delivers [`crate::Event::Immediate`] there. A continuation that cannot
    /// be sent is made there: [`crate::made_there`].
    ///
    /// # Errors
    /// When the thread's queue is full, or the group has ended.
    pub fn schedule_imm(
        &self,
        group: Group,
        cont: impl Continuation + Send + 'static,
    ) -> Result<RemoteAction, Refused> {
        self.pick(group)?.schedule_imm(cont)
    }

    /// As [`Groups::schedule_imm`], with [`crate::Event::Interval`] at `at`.
    ///
    /// # Errors
    /// As there.
    pub fn schedule_at(
        &self,
        group: Group,
        cont: impl Continuation + Send + 'static,
        at: Instant,
    ) -> Result<RemoteAction, Refused> {
        self.pick(group)?.schedule_at(cont, at)
    }

    /// As [`Groups::schedule_imm`], with [`crate::Event::Interval`] `after` the thread took the message.
    ///
    /// # Errors
    /// As there.
    pub fn schedule_in(
        &self,
        group: Group,
        cont: impl Continuation + Send + 'static,
        after: Duration,
    ) -> Result<RemoteAction, Refused> {
        self.pick(group)?.schedule_in(cont, after)
    }

    /// As [`Groups::schedule_imm`], with [`crate::Event::Interval`] every `period`.
    ///
    /// # Errors
    /// As there.
    pub fn schedule_every(
        &self,
        group: Group,
        cont: impl Continuation + Send + 'static,
        period: Duration,
    ) -> Result<RemoteAction, Refused> {
        self.pick(group)?.schedule_every(cont, period)
    }
}

/// A thread is passed over when it has so many messages waiting and twice as many as its neighbour.
const BEHIND: usize = 64;

/// One group's threads as they are started.
pub(crate) struct Started {
    pub(crate) handles: Vec<Handle>,
    pub(crate) joins: Vec<JoinHandle<io::Result<()>>>,
}

/// Starts `count` threads named `[name n]` and waits until each is ready to run its loop. When one is not, the others
/// are told to stop.
pub(crate) fn start_threads(
    name: &str,
    count: usize,
    cores: &[usize],
    seed: u64,
    setup: impl Fn(&Thread) -> io::Result<()> + Send + Sync + 'static,
) -> io::Result<Started> {
    let setup = Arc::new(setup);
    let mut started = Started { handles: Vec::new(), joins: Vec::new() };
    let (ready, readiness) = mpsc::channel();
    let mut failed = None;
    for index in 0..count {
        let (setup, ready) = (Arc::clone(&setup), ready.clone());
        let core = cores.get(index).copied();
        let name = format!("[{name} {index}]");
        let options = ThreadOptions { name: name.clone(), index, seed: seed.wrapping_add(index as u64) };
        let run = move || {
            if let Some(core) = core {
                // A core that was taken from us meanwhile: run anywhere.
                let _ = sys::thread::pin_to(core);
            }
            let thread = match Thread::new(options).and_then(|thread| thread.prepare(&*setup).map(|()| thread)) {
                Ok(thread) => thread,
                Err(error) => {
                    let kind = error.kind();
                    let _ = ready.send((index, Err(error)));
                    return Err(kind.into());
                }
            };
            let _ = ready.send((index, Ok(thread.handle())));
            drop(ready);
            // What only the set-up needed, listeners among it, is not held for the life of the thread.
            drop(setup);
            thread.run()
        };
        match std::thread::Builder::new().name(name).spawn(run) {
            Ok(join) => started.joins.push(join),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    drop(ready);
    let mut handles: Vec<Option<Handle>> = (0..count).map(|_| None).collect();
    for _ in 0..started.joins.len() {
        match readiness.recv_timeout(START_MAX) {
            Ok((index, Ok(handle))) => handles[index] = Some(handle),
            Ok((_, Err(error))) => failed = Some(error),
            Err(_) => failed = Some(io::Error::other("an event thread did not start")),
        }
    }
    started.handles = handles.into_iter().flatten().collect();
    match failed {
        None => Ok(started),
        Some(error) => {
            started.stop(START_MAX);
            Err(error)
        }
    }
}

impl Started {
    /// Tells all threads to stop after the turn they are at, and waits at most `limit`; true when all ended in order.
    pub(crate) fn stop(self, limit: Duration) -> bool {
        for handle in &self.handles {
            handle.must_run(Thread::stop);
        }
        let mut waited = Duration::ZERO;
        while waited < limit && self.joins.iter().any(|join| !join.is_finished()) {
            std::thread::sleep(STOP_STEP);
            waited += STOP_STEP;
        }
        let mut all = true;
        for join in self.joins {
            // One that does not end is left behind: it ends with the process.
            all &= join.is_finished() && matches!(join.join(), Ok(Ok(())));
        }
        all
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.joins.iter().all(|join| !join.is_finished())
    }
}

/// The running groups.
pub struct Processor {
    groups: Groups,
    net: Started,
    dedicated: Vec<Started>,
    background: Background,
    background_threads: BackgroundThreads,
    seed: u64,
}

impl std::fmt::Debug for Processor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Processor({:?})", self.groups)
    }
}

impl Processor {
    /// Starts ET_TASK and ET_NET. `setup` runs on each ET_NET thread before its loop does.
    ///
    /// # Errors
    /// When a thread, or the poll of one, cannot be made, or `setup` fails on one; then all are stopped again.
    pub fn start(
        options: &ProcessorOptions,
        setup: impl Fn(&Thread) -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (background, background_threads) = Background::start(options.task)?;
        let count = options.net.max(1);
        let cores = match options.pin {
            true => cores_to_pin(count, sys::thread::cores(), cores_usable()),
            false => Vec::new(),
        };
        let theirs = background.clone();
        let prepare = move |thread: &Thread| {
            background::set_for_this_thread(&theirs);
            setup(thread)
        };
        let net = match start_threads("ET_NET", count, &cores, options.seed, prepare) {
            Ok(net) => net,
            Err(error) => {
                background_threads.stop_within(START_MAX);
                return Err(error);
            }
        };
        let groups = Groups::default();
        groups.add("ET_NET", net.handles.clone());
        groups.add("ET_TASK", background.threads().to_vec());
        Ok(Self { groups, net, dedicated: Vec::new(), background, background_threads, seed: options.seed })
    }

    /// Starts `count` threads of a group of its own, named `[name n]`; one is a dedicated thread. `setup` runs on each
    /// before its loop does.
    ///
    /// # Errors
    /// As [`Processor::start`]; or there is a group of that name.
    pub fn spawn_event_threads(
        &mut self,
        name: &str,
        count: usize,
        setup: impl Fn(&Thread) -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Group> {
        if self.groups.named(name).is_some() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("there is a group {name} already")));
        }
        let background = self.background.clone();
        let prepare = move |thread: &Thread| {
            background::set_for_this_thread(&background);
            setup(thread)
        };
        let seed = self.seed.rotate_left(17).wrapping_add(self.dedicated.len() as u64);
        let started = start_threads(name, count.max(1), &[], seed, prepare)?;
        let group = self.groups.add(name, started.handles.clone());
        self.dedicated.push(started);
        Ok(group)
    }

    /// Does without the dedicated groups from now on: their threads end after the turn they are at, and [`Processor::stop`]
    /// waits for none of them.
    pub fn leave_dedicated(&mut self) {
        for started in self.dedicated.drain(..) {
            started.stop(Duration::ZERO);
        }
    }

    /// The groups, for scheduling from any thread.
    #[must_use]
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// One handle for each thread of ET_NET, by its index.
    #[must_use]
    pub fn net(&self) -> &[Handle] {
        &self.net.handles
    }

    /// The group ET_TASK.
    #[must_use]
    pub fn background(&self) -> &Background {
        &self.background
    }

    /// Whether every ET_NET thread and every dedicated one still runs. One that does not has lost its poll: the
    /// process should be replaced.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.net.is_whole() && self.dedicated.iter().all(Started::is_whole)
    }

    /// Tells every ET_NET thread to drain: idle connections close, listeners whose shares drain stop.
    pub fn drain(&self) {
        for handle in &self.net.handles {
            handle.must_run(Thread::drain);
        }
    }

    /// Ends all threads, each after the turn it is at: ET_NET first, for nothing new comes without it; then the
    /// dedicated groups, the last one first; then ET_TASK. Waits at most `limit` in all; true when all ended.
    pub fn stop(self, limit: Duration) -> bool {
        let clock = base::SystemClock;
        let until = base::Clock::now(&clock) + limit;
        let left = || until - base::Clock::now(&clock);
        let mut all = self.net.stop(left());
        for started in self.dedicated.into_iter().rev() {
            all &= started.stop(left());
        }
        all & self.background_threads.stop_within(left())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_counted_by_mask_and_quota() {
        let cores = cores_usable();
        assert!(cores >= 1 && cores <= sys::thread::cores().len(), "{cores}");
        let last = sys::thread::cores().pop().unwrap();
        let narrow = move || {
            sys::thread::pin_to(last).unwrap();
            (cores_usable(), sys::thread::cores())
        };
        let narrowed = std::thread::Builder::new().spawn(narrow).unwrap().join().unwrap();
        assert_eq!(narrowed, (1, vec![last]));
    }

    /// The mask of each ET_NET thread, of each ET_TASK thread and of a dedicated one, of a processor that is started
    /// where only `mask` may be used.
    fn masks(mask: &[usize], net: usize, pin: bool) -> [Vec<Vec<usize>>; 3] {
        let mask = mask.to_vec();
        let start = move || {
            sys::thread::pin_to_any(&mask).unwrap();
            let mut processor = Processor::start(&ProcessorOptions { net, task: 1, pin, seed: 1 }, |_| Ok(())).unwrap();
            let dedicated = processor.spawn_event_threads("ET_TEST", 1, |_| Ok(())).unwrap();
            let ask = |handle: &Handle| {
                let (send, answer) = mpsc::channel();
                handle.run(move |_| send.send(sys::thread::cores()).unwrap()).unwrap();
                answer.recv_timeout(START_MAX).unwrap()
            };
            let groups = processor.groups().clone();
            let masks = [ET_NET, ET_TASK, dedicated].map(|group| groups.threads(group).iter().map(ask).collect());
            assert!(processor.stop(START_MAX));
            masks
        };
        std::thread::Builder::new().spawn(start).unwrap().join().unwrap()
    }

    #[test]
    fn each_thread_has_a_core_of_its_own_within_the_affinity_mask() {
        let cores = sys::thread::cores();
        let last = *cores.last().unwrap();
        // Narrowed to one core that is not the first, if there are several.
        assert_eq!(masks(&[last], 1, true), [vec![vec![last]], vec![vec![last]], vec![vec![last]]]);
        let own: Vec<Vec<usize>> = cores.iter().map(|&core| vec![core]).collect();
        let all = vec![cores.clone()];
        if cores_usable() == cores.len() {
            assert_eq!(masks(&cores, cores.len(), true), [own, all.clone(), all.clone()], "only ET_NET is tied");
        }
        assert_eq!(masks(&cores, 1, false), [all.clone(), all.clone(), all.clone()]);
        let too_many = vec![cores.clone(); cores.len() + 1];
        assert_eq!(masks(&cores, cores.len() + 1, true), [too_many, all.clone(), all]);
    }

    #[test]
    fn nothing_is_tied_to_cores_that_a_quota_makes_others_use_too() {
        assert_eq!(cores_to_pin(2, vec![4, 5, 6], 3), [4, 5, 6]);
        assert!(cores_to_pin(2, vec![4, 5, 6], 2).is_empty());
        assert!(cores_to_pin(4, vec![4, 5, 6], 3).is_empty());
    }
}
