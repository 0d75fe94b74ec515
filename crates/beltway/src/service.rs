//! The top process and the service manager above it (systemd): what each tells the other.
//!
//! Told: that we serve, reload, stop, still turn; and copies of the listeners, kept for the case that everybody here dies.
//! Taken: sockets that it opened for us, or kept for us. Without a service manager all of this does nothing. What cannot be
//! told is logged and never a reason to fail.

use std::os::fd::AsFd;
use std::time::Duration;

use base::Instant;
use config::Config;
use supervise::control::{Connection, ControlError, Reply, Request};
use supervise::directory::RuntimeDir;
use supervise::listener::{self, Listener, wanted};
use supervise::{info, warn};
use sys::notify::{self, Notifier};

/// How long manager may take to hand over copies for the store.
const HAND_OVER_WITHIN: Duration = Duration::from_millis(200);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Service {
    notifier: Option<Notifier>,
    /// Half of the time within which it wants to hear of us.
    watchdog: Option<Duration>,
    next_at: Option<Instant>,
    /// Names of the listeners that it keeps.
    kept: Vec<String>,
}

impl Service {
    /// The service manager that the environment names, if any.
    pub(crate) fn from_environment(now: Instant) -> Self {
        let notifier = Notifier::from_environment().unwrap_or_else(|error| {
            warn!("the service manager cannot be told anything: {error}");
            None
        });
        let watchdog = notify::watchdog_interval().filter(|_| notifier.is_some()).map(|interval| interval / 2);
        Self { notifier, next_at: watchdog.map(|_| now), watchdog, kept: Vec::new() }
    }

    /// All three serve, with this to be shown.
    pub(crate) fn serves(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={status}\n"));
    }

    /// Something changes; [`Service::serves`] says when that has ended.
    pub(crate) fn changes(&self, what: &str) {
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS={what}\n", notify::monotonic_usec()));
    }

    /// An orderly stop has begun.
    pub(crate) fn stops(&self) {
        self.say("STOPPING=1\nSTATUS=stopping\n");
    }

    /// Says that we still turn, when it is time.
    pub(crate) fn turn(&mut self, now: Instant) {
        if let (Some(interval), Some(at)) = (self.watchdog, self.next_at)
            && now >= at
        {
            self.next_at = Some(now + interval);
            self.say("WATCHDOG=1\n");
        }
    }

    /// When to say it again.
    pub(crate) const fn next_at(&self) -> Option<Instant> {
        self.next_at
    }

    /// Gives it copies of manager's listeners. What it has already it throws away, what is no longer ours we take back.
    pub(crate) fn keep_listeners(&mut self, directory: &RuntimeDir) {
        if self.notifier.is_none() {
            return;
        }
        let asked = Connection::open(&directory.manager_socket())
            .and_then(|connection| connection.ask(Request::Listeners, HAND_OVER_WITHIN));
        let listeners = match asked {
            Ok((Reply::Listeners(names), fds)) => listener::paired(names, fds).map_err(ControlError::Malformed),
            Ok((other, _)) => Err(ControlError::Malformed(format!("{other:?}"))),
            Err(error) => Err(error),
        };
        let listeners = match listeners {
            Ok(listeners) => listeners,
            Err(error) => return warn!("the service manager gets no listeners to keep: {error}"),
        };
        let named: Vec<_> =
            listeners.iter().map(|l| (format!("{}-{}", l.name.kind.as_str(), l.name.index), l)).collect();
        for gone in self.kept.iter().filter(|kept| named.iter().all(|(name, _)| name != *kept)) {
            self.say(&format!("FDSTOREREMOVE=1\nFDNAME={gone}\n"));
        }
        for (name, listener) in &named {
            let Some(notifier) = &self.notifier else { return };
            if let Err(error) = notifier.say(&format!("FDSTORE=1\nFDNAME={name}\n"), &[listener.fd.as_fd()]) {
                warn!("the service manager does not keep the listener {name}: {error}");
            }
        }
        self.kept = named.into_iter().map(|(name, _)| name).collect();
    }

    fn say(&self, lines: &str) {
        let Some(notifier) = &self.notifier else { return };
        if let Err(error) = notifier.say(lines, &[]) {
            warn!("the service manager does not hear {:?}: {error}", lines.lines().next().unwrap_or_default());
        }
    }
}

/// The sockets that the service manager opened or kept, as far as `config` listens there; by their addresses, whatever
/// their names are.
pub(crate) fn passed_listeners(config: &Config) -> Vec<Listener> {
    let passed = notify::passed_sockets().unwrap_or_else(|error| {
        warn!("the sockets of the service manager cannot be taken: {error}");
        Vec::new()
    });
    let mut names = wanted(config);
    let mut listeners = Vec::new();
    for (called, fd) in passed {
        let address = sys::socket::local_address(&fd).ok().flatten();
        let at = names.iter().position(|name| name.configured.ip().is_some() && name.configured.ip() == address);
        match at {
            Some(at) => listeners.push(Listener { name: names.remove(at), fd }),
            None => warn!("nothing listens on the service manager's socket {called:?}, {address:?}: it is closed"),
        }
    }
    if !listeners.is_empty() {
        info!("{} listeners come from the service manager", listeners.len());
    }
    listeners
}
