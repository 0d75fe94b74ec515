//! Asks a server that failed whether it is well again, at growing intervals.

use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use base::Instant;
use buf::{Block, Chunk, SizeClass};
use event::{Tcp, Thread};

use super::judge::{Standing, number};
use super::{Probed, Server};
use crate::fault::Fault;
use crate::plan::Protocol;
use crate::wire::{Reply, Scanned};
use crate::worker::Worker;

/// The first probe of a server that is not ejected comes after this.
pub(super) const FIRST: Duration = Duration::from_millis(50);
/// Intervals grow up to this, or to the configured time when that is longer.
pub(super) const INTERVAL_MAX: Duration = Duration::from_secs(10);

/// Who probes a server, until it is dropped, however that comes.
struct Prober {
    number: u64,
    server: Weak<Server>,
    /// What it probes for; none: for its thread alone.
    standing: Option<Arc<Standing>>,
}

impl Drop for Prober {
    fn drop(&mut self) {
        if let Some(server) = self.server.upgrade()
            && server.prober.get() == self.number
        {
            server.prober.set(0);
        }
        if let Some(standing) = &self.standing {
            standing.is_left_by(self.number);
        }
    }
}

/// When a server that is out is asked next. What probes it may change, with a reload above all; this goes on, so that it
/// is left alone as long as configured and is not forgotten, however often the configuration changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pause {
    interval: Duration,
    until: Instant,
}

impl Pause {
    /// For so long from then on, or up to an eighth longer: threads do not ask in chorus.
    fn of(interval: Duration, from: Instant, thread: &Thread) -> Self {
        Self { interval, until: from + jittered(interval, thread.random()) }
    }

    /// The same, which an older configuration made longer than it may be now.
    fn cut(self, longest: Duration, from: Instant, thread: &Thread) -> Self {
        let new = Self::of(longest, from, thread);
        Self { until: self.until.min(new.until), ..new }
    }

    /// The one after this: twice as long, as far as it may be. `least`: how long the server is left alone at least.
    fn next_interval(self, least: Duration) -> Duration {
        (self.interval * 2).clamp(least, least.max(INTERVAL_MAX))
    }
}

fn jittered(interval: Duration, chance: u64) -> Duration {
    let eighth = u64::try_from((interval / 8).as_nanos()).unwrap_or(u64::MAX).max(1);
    interval + Duration::from_nanos(chance % eighth)
}

/// For so long, or up to an eighth longer.
pub(super) async fn pause(thread: &Thread, interval: Duration) {
    thread.sleep(jittered(interval, thread.random())).await;
}

/// Probes until the server answers as one that is well does, in the place of whoever did so before: for the whole process
/// a server that is out of its ring, for this thread one that is down.
pub(super) fn start(server: &Rc<Server>, worker: &Worker, first: Duration) {
    if !server.is_down() {
        server.standing().pauses(Pause::of(first, worker.now(), worker.thread()));
    }
    go_on(server, worker);
}

/// The same, from where whoever did so before had come.
pub(super) fn go_on(server: &Rc<Server>, worker: &Worker) {
    let me = number();
    server.prober.set(me);
    let standing = (!server.is_down()).then(|| Arc::clone(server.standing()));
    if let Some(standing) = &standing {
        standing.is_probed_by(me);
    }
    let known = standing.as_ref().and_then(|standing| standing.paused());
    let (least, now) = (server.left_alone(), worker.now());
    let mut pause = known.unwrap_or_else(|| Pause::of(least, now, worker.thread()));
    let longest = least.max(INTERVAL_MAX);
    if pause.interval > longest {
        pause = pause.cut(longest, now, worker.thread());
        // Once, not for each reload from then on.
        if let Some(standing) = &standing {
            standing.pauses(pause);
        }
    }
    let prober = Prober { number: me, server: Rc::downgrade(server), standing };
    let is_mine = move |server: &Server| {
        server.awaits_probe() && server.prober.get() == me && (server.is_down() || server.standing().prober() == me)
    };
    let (weak, worker) = (Rc::downgrade(server), worker.clone());
    let thread = worker.thread().clone();
    thread.clone().spawn("kv probe", async move {
        let prober = prober;
        let keep = |pause| {
            if let Some(standing) = &prober.standing {
                standing.pauses(pause);
            }
        };
        loop {
            thread.sleep_until(pause.until).await;
            let Some(server) = weak.upgrade() else { return };
            if !is_mine(&server) {
                return;
            }
            #[cfg(test)]
            super::tests::panic_if_told(super::tests::At::Probe);
            let interval = pause.next_interval(server.left_alone());
            // Whoever goes on in this one's place does not ask before its question is over; then at once, since nobody heeds
            // the answer.
            keep(Pause { until: worker.now() + server.probe_limit() * 2, ..pause });
            let probed = ask(&server, &worker).await;
            // It may have been taken out by hand meanwhile.
            if !is_mine(&server) {
                return;
            }
            if probed == Probed::Well {
                server.restored(&worker);
                return;
            }
            server.say_still_out(&worker, probed);
            pause = Pause::of(interval, worker.now(), &thread);
            keep(pause);
        }
    });
}

/// Connects and asks.
pub(super) async fn ask(server: &Server, worker: &Worker) -> Probed {
    ask_at(server, worker, None).await
}

/// The same, at this address if there is one: that of a connection which the server's name leads to no more.
pub(super) async fn ask_at(server: &Server, worker: &Worker, at: Option<SocketAddr>) -> Probed {
    let thread = worker.thread();
    let connected = match at {
        Some(at) => Tcp::connect(thread, at, thread.now() + super::CONNECT_MAX).await,
        None => server.connect(worker).await,
    };
    let tcp = match connected {
        Ok(tcp) => tcp,
        Err(error) => return Probed::Silent(Fault::of(&error)),
    };
    tcp.set_read_deadline(server.probe_deadline(worker.thread().now()));
    let (mut bytes, mut replies) = server.handshake();
    let question: &[u8] = match server.protocol() {
        Protocol::Redis => b"*1\r\n$4\r\nPING\r\n",
        Protocol::Memcached => b"version\r\n",
    };
    bytes.extend_from_slice(question);
    replies += 1;
    let len = bytes.len();
    tcp.send(Chunk::from_shared(bytes.into(), 0..len));
    let mut block = Block::new(SizeClass::Small);
    let mut at = 0;
    while replies > 0 {
        match tcp.recv(&mut block).await {
            Ok(0) => return Probed::Silent(Fault::Closed),
            Ok(_) => {}
            Err(error) => return Probed::Silent(Fault::of(&error)),
        }
        while replies > 0
            && let Scanned::Whole(end) = Reply::new(server.protocol()).scan(&block[at..])
        {
            if block[at..].starts_with(b"-LOADING") {
                return Probed::Loading;
            }
            let refused = match replies {
                1 => block.get(at) == Some(&b'-') || block[at..].starts_with(b"ERROR"),
                _ => server.greeted(worker, &block[at..at + end]).is_err(),
            };
            if refused {
                return Probed::Silent(Fault::Handshake);
            }
            at += end;
            replies -= 1;
        }
        if replies > 0 && block.room() == 0 {
            return Probed::Silent(Fault::Nonsense);
        }
    }
    Probed::Well
}
