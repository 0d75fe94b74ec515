//! One process keeping an eye on another that may be started by anybody: it lives, it is coming, or it is gone.
//!
//! The lease says who it is, the pidfd when it ends, the heartbeats how it does. A watcher that finds it [`Sight::Gone`]
//! may start it, and says so by [`Watch::started`]; one that is found to live is *adopted*, whoever started it.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

use base::Instant;
use sys::process::{Exit, Pidfd, Signal};

use crate::backoff::Backoff;
use crate::heartbeat::Link;
use crate::lease::{self, Holder};
use crate::reaped::Reaped;
use crate::role::Role;
use crate::sign::{self, Sign};

/// Between two looks at a lease whose holder is coming.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// A process that was started and has no lease after this is killed.
const LEASE_WITHIN: Duration = Duration::from_secs(10);
/// Who has a lease answers within this; from then on its silence counts as that of one who stopped answering.
const FIRST_ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A child without a lease that was told to go is killed after this.
const DISMISSED_WITHIN: Duration = Duration::from_secs(1);
/// Without heartbeats to say so, a process that lived this long had become ready: it takes a twentieth of that. What
/// dies each time just behind it is started four times a second, which a machine bears.
const LIVED_WELL: Duration = Duration::from_millis(250);

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// It lives.
    Lives,
    /// It was started and has no lease yet.
    Coming,
    /// It died before it was ready, and that so often that it is not yet time for another.
    Flapping,
    /// It is not there, and it is time to start it.
    Gone,
}

/// The eye on one process.
#[derive(Debug)]
pub struct Watch {
    role: Role,
    lease: PathBuf,
    socket: PathBuf,
    heartbeat_interval: Option<Duration>,
    seen: Option<Seen>,
    child: Option<(Pidfd, Instant)>,
    backoff: Backoff,
    not_before: Instant,
    next_at: Instant,
    restarts: u64,
    last_exit: Option<Exit>,
}

#[derive(Debug)]
struct Seen {
    process: Pidfd,
    since: Instant,
    link: Option<Link>,
    /// Processor time its main thread had been given at its last answer.
    ran: Duration,
    /// We started it.
    ours: bool,
}

impl Seen {
    fn hear(&mut self, now: Instant) -> bool {
        let answered = self.link.as_mut().is_some_and(|link| link.turn(now));
        if answered {
            self.ran = sign::ran(self.process.pid());
        }
        answered
    }
}

impl Watch {
    /// An eye on who holds `lease` and answers at `socket`; asked for signs of life when there is an interval.
    #[must_use]
    pub const fn new(
        role: Role,
        lease: PathBuf,
        socket: PathBuf,
        heartbeat_interval: Option<Duration>,
        backoff_max: Duration,
    ) -> Self {
        Self {
            role,
            lease,
            socket,
            heartbeat_interval,
            seen: None,
            child: None,
            backoff: Backoff::new(backoff_max),
            not_before: Instant::ORIGIN,
            next_at: Instant::ORIGIN,
            restarts: 0,
            last_exit: None,
        }
    }

    /// Looks, asks, listens; never waits. To be called whenever a descriptor is readable and at [`Watch::next_at`].
    pub fn look(&mut self, now: Instant, reaped: &Reaped) -> Sight {
        self.mourn(now, reaped);
        if self.seen.is_none()
            && let Some(sight) = self.seek(now)
        {
            return sight;
        }
        if let Some(seen) = &mut self.seen {
            let answered = seen.hear(now);
            if let Some(link) = &mut seen.link {
                if !answered && now.since(seen.since) >= FIRST_ANSWER_WITHIN {
                    link.expect(now);
                }
                self.next_at = link.next_at();
            } else {
                self.next_at = Instant::FAR_FUTURE;
            }
        }
        Sight::Lives
    }

    /// It was started, by us.
    pub fn started(&mut self, child: Pidfd, now: Instant) {
        self.restarts += 1;
        self.child = Some((child, now));
        self.next_at = now + LOOK_INTERVAL;
    }

    /// It could not be started.
    pub fn not_started(&mut self, now: Instant) {
        self.not_before = now + self.backoff.failed();
        self.next_at = self.not_before;
    }

    /// When to look at the latest.
    #[must_use]
    pub const fn next_at(&self) -> Instant {
        self.next_at
    }

    /// What to wait for.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let process = self.seen.as_ref().map(|seen| seen.process.as_fd());
        let answers = self.link().and_then(Link::descriptor);
        let child = self.child.as_ref().map(|(child, _)| child.as_fd());
        process.into_iter().chain(answers).chain(child)
    }

    /// Its pid, when it lives.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.seen.as_ref().map(|seen| seen.process.pid())
    }

    /// The heartbeats of who lives now.
    #[must_use]
    pub fn link(&self) -> Option<&Link> {
        self.seen.as_ref().and_then(|seen| seen.link.as_ref())
    }

    /// As [`Watch::link`], to forgive or to hurry.
    pub fn link_mut(&mut self) -> Option<&mut Link> {
        self.seen.as_mut().and_then(|seen| seen.link.as_mut())
    }

    /// What is seen of it.
    #[must_use]
    pub fn sign(&self, now: Instant) -> Sign {
        let seen = self.seen.as_ref().and_then(|seen| Some((seen, seen.link.as_ref()?)));
        seen.map_or(Sign::NOT_THERE, |(seen, link)| Sign::of(seen.process.pid(), link, seen.ran, now))
    }

    /// Listens once more to who may be thought to hang. `true`: it has answered.
    pub fn hear(&mut self, now: Instant) -> bool {
        self.seen.as_mut().is_some_and(|seen| seen.hear(now))
    }

    /// The process, to ask its threads.
    #[must_use]
    pub fn process(&self) -> Option<&Pidfd> {
        self.seen.as_ref().map(|seen| &seen.process)
    }

    /// Whether somebody else started it.
    #[must_use]
    pub fn is_adopted(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| !seen.ours)
    }

    /// Deaths before it was ready, in a row.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    /// How often we started it.
    #[must_use]
    pub const fn restarts(&self) -> u64 {
        self.restarts
    }

    /// How the last of our own children in this role ended.
    #[must_use]
    pub const fn last_exit(&self) -> Option<Exit> {
        self.last_exit
    }

    /// Sends it a signal, its lease read again first. `false`: it is not there.
    pub fn signal(&self, signal: Signal) -> bool {
        let Some(seen) = &self.seen else { return false };
        match lease::signal(&self.lease, &seen.process, signal) {
            Ok(sent) => sent,
            Err(error) => {
                crate::error!("{}[{}] cannot be signalled: {error}", self.role.name(), seen.process.pid());
                false
            }
        }
    }

    /// Sees to it that a child which was started and has no lease yet does not come up behind the back of a stop, which
    /// finds processes by their leases. Waits for its end, at most a second, then kills it. One that has its lease by now,
    /// though it was not seen yet, is left to that stop: its pid, when it has been told already.
    pub fn dismiss(&mut self) -> Option<u32> {
        let (child, _) = self.child.take()?;
        let mut told = None;
        let has_lease = || {
            let holder = lease::holder(&self.lease);
            holder.is_ok_and(|holder| holder == Holder::Somebody(Some(child.pid())))
        };
        // Our own child, not reaped: its pidfd cannot mean anybody else.
        for signal in [Signal::TERM, Signal::KILL] {
            if has_lease() {
                return told;
            }
            match child.signal(signal).and_then(|()| crate::wait::readable(&[child.as_fd()], DISMISSED_WITHIN)) {
                Ok(()) if child.is_dead() => return None,
                Ok(()) => told = Some(child.pid()),
                Err(error) => {
                    crate::error!("{}[{}] cannot be signalled: {error}", self.role.name(), child.pid());
                    return None;
                }
            }
        }
        None
    }

    /// Takes note of deaths.
    fn mourn(&mut self, now: Instant, reaped: &Reaped) {
        if let Some((child, since)) = &self.child {
            if child.is_dead() {
                let pid = child.pid();
                crate::warn!("{}[{pid}] {} before it had its lease", self.role.name(), reaped.cause(child));
                self.last_exit = reaped.of(child);
                self.child = None;
                self.not_before = now + self.backoff.failed();
            } else if now.since(*since) >= LEASE_WITHIN {
                crate::error!("{}[{}] has no lease after {LEASE_WITHIN:?}: killed", self.role.name(), child.pid());
                // Our own child, not reaped: its pidfd cannot mean anybody else.
                if let Err(error) = child.signal(Signal::KILL) {
                    crate::error!("{}[{}] cannot be killed: {error}", self.role.name(), child.pid());
                }
            }
        }
        if let Some(seen) = &self.seen
            && seen.process.is_dead()
        {
            let (pid, lived) = (seen.process.pid(), now.since(seen.since));
            crate::warn!("{}[{pid}] {} after {lived:.1?}", self.role.name(), reaped.cause(&seen.process));
            self.last_exit = reaped.of(&seen.process);
            let was_ready = match &seen.link {
                Some(link) => link.pong().is_some(),
                None => lived >= LIVED_WELL,
            };
            // Of a process that others started, its starter counts the failures.
            self.not_before = if !seen.ours {
                now
            } else if was_ready {
                self.backoff.succeeded();
                now
            } else {
                now + self.backoff.failed()
            };
            self.seen = None;
        }
    }

    /// Looks for who holds the lease. `None`: found.
    fn seek(&mut self, now: Instant) -> Option<Sight> {
        let holder = match lease::holder(&self.lease) {
            Ok(holder) => holder,
            Err(error) => {
                crate::error!("{} cannot be read: {error}", self.lease.display());
                self.next_at = now + LEASE_WITHIN;
                return Some(Sight::Coming);
            }
        };
        match holder {
            Holder::Nobody if self.child.is_some() => {}
            Holder::Nobody if now < self.not_before => {
                self.next_at = self.not_before;
                return Some(Sight::Flapping);
            }
            Holder::Nobody => {
                self.next_at = now + LOOK_INTERVAL;
                return Some(Sight::Gone);
            }
            Holder::Somebody(None) => {}
            Holder::Somebody(Some(_)) => match lease::process(&self.lease) {
                Ok(Some(process)) => {
                    self.found(process, now);
                    return None;
                }
                Ok(None) => {}
                Err(error) => crate::error!("the holder of {} cannot be watched: {error}", self.lease.display()),
            },
        }
        self.next_at = now + LOOK_INTERVAL;
        Some(Sight::Coming)
    }

    fn found(&mut self, process: Pidfd, now: Instant) {
        let ours = self.child.as_ref().is_some_and(|(child, _)| child.pid() == process.pid());
        if ours {
            self.child = None;
        } else {
            crate::info!("{}[{}] lives: adopted", self.role.name(), process.pid());
        }
        let link = self.heartbeat_interval.map(|interval| Link::new(&self.socket, interval));
        // What it had run before is no sign of what it does now.
        let ran = sign::ran(process.pid());
        self.seen = Some(Seen { process, since: now, link, ran, ours });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::Lease;
    use base::{Clock, SystemClock};
    use std::ffi::OsStr;

    fn sleeper(seconds: &str) -> Pidfd {
        sys::process::spawn(&sys::process::Spawn {
            program: OsStr::new("/bin/sleep"),
            arguments: vec![OsStr::new("sleep"), OsStr::new(seconds)],
            descriptors: vec![],
            standing: sys::process::Standing::OwnGroup,
        })
        .unwrap()
    }

    fn wait_dead(process: &Pidfd) {
        crate::wait::readable(&[process.as_fd()], Duration::from_secs(10)).unwrap();
        assert!(process.is_dead());
    }

    #[test]
    fn however_often_a_process_dies_that_others_started_it_is_time_for_another_at_once() {
        let home = std::env::temp_dir().join(format!("beltway-watch-adopted-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&home);
        std::fs::create_dir_all(&home).unwrap();
        let path = home.join("cop.lock");
        let mut watch = Watch::new(Role::Cop, path.clone(), home.join("s"), None, Duration::from_secs(60));
        let now = SystemClock.now();
        for death in 1..=20 {
            let adopted = sleeper("30");
            let lease = Lease::reserve(&path).unwrap();
            lease.record(adopted.pid()).unwrap();
            assert_eq!(watch.look(now, &Reaped::default()), Sight::Lives);
            adopted.signal(Signal::KILL).unwrap();
            wait_dead(&adopted);
            drop(lease);
            assert_eq!(watch.look(now, &Reaped::default()), Sight::Gone, "death {death}");
        }
        let _ = crate::reaped::reap();
        std::fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn a_process_is_coming_then_lives_then_is_gone_and_comes_back_at_once_the_first_time() {
        let home = std::env::temp_dir().join(format!("beltway-watch-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&home);
        std::fs::create_dir_all(&home).unwrap();
        let path = home.join("cop.lock");
        let mut watch = Watch::new(Role::Cop, path.clone(), home.join("s"), None, Duration::from_secs(1));
        let now = SystemClock.now();
        assert_eq!(watch.look(now, &Reaped::default()), Sight::Gone);

        let child = sleeper("30");
        let pid = child.pid();
        watch.started(child, now);
        assert_eq!(watch.look(now, &Reaped::default()), Sight::Coming, "no lease yet");
        let lease = Lease::reserve(&path).unwrap();
        assert_eq!(watch.look(now, &Reaped::default()), Sight::Coming, "held, but by whom?");
        lease.record(pid).unwrap();
        assert_eq!(watch.look(now, &Reaped::default()), Sight::Lives);
        assert_eq!((watch.pid(), watch.restarts()), (Some(pid), 1));

        assert!(watch.signal(Signal::KILL));
        wait_dead(&watch.seen.as_ref().unwrap().process);
        drop(lease);
        assert_eq!(watch.look(now, &Reaped::default()), Sight::Gone, "the first death costs no wait");
        assert_eq!(watch.last_exit(), Some(Exit::Signal { number: Signal::KILL.as_raw(), core: false }));
        assert!(!watch.signal(Signal::KILL));

        let child = sleeper("30");
        let other = Pidfd::open(child.pid()).unwrap();
        watch.started(child, now);
        assert_eq!(watch.dismiss(), None);
        assert!(other.is_dead(), "who has no lease yet is not forgotten");

        let child = sleeper("30");
        let other = Pidfd::open(child.pid()).unwrap();
        let lease = Lease::reserve(&path).unwrap();
        lease.record(child.pid()).unwrap();
        watch.started(child, now);
        assert_eq!(watch.dismiss(), None);
        assert!(!other.is_dead(), "who has its lease is found by it");
        drop(lease);
        other.signal(Signal::KILL).unwrap();
        wait_dead(&other);

        watch.not_started(now);
        assert_eq!(watch.look(now, &Reaped::default()), Sight::Flapping, "the second does");
        assert!(watch.next_at() > now);
        assert_eq!(watch.look(watch.next_at(), &Reaped::default()), Sight::Gone);
        let _ = crate::reaped::reap();
        std::fs::remove_dir_all(home).unwrap();
    }
}
