//! What the log says: what became of a server, and who was sent away. Never what became of a request.
//!
//! Every thread sees for itself that a server fails, comes back or refuses the password; it is said once for all of them,
//! and while it goes on at most once in [`EVERY`]. Nothing is said before [`Voice::report_to`].

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use base::Instant;
use event::log::{Level, LogSender};

use crate::fault::Fault;
use crate::server::{Probed, Server};
use crate::worker::Worker;

/// How often the same is said of one server, or of one pool's clients, at most.
const EVERY: Duration = Duration::from_secs(60);
/// How soon the same is said of one server again that was well in between.
const AGAIN: Duration = Duration::from_secs(10);
/// Servers and pools of which it is remembered what was said.
const REMEMBERED_MAX: usize = 4_096;

/// Why a server is ejected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Out {
    /// So many failures in a row.
    Failures(u32),
    /// Neither what it was asked nor a probe is answered.
    Silent,
    /// It answers that it loads its data.
    Loads,
    /// It was down when a configuration came by which such servers are ejected.
    WasDown,
}

impl fmt::Display for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failures(1) => f.write_str("ejected after a failure"),
            Self::Failures(failures) => write!(f, "ejected after {failures} failures in a row"),
            Self::Silent => f.write_str("ejected, it says nothing"),
            Self::Loads => f.write_str("ejected, it loads its data"),
            Self::WasDown => f.write_str("ejected, it was down when the configuration changed"),
        }
    }
}

/// What a server that is out says to a probe.
fn still_out(probed: Probed) -> &'static str {
    match probed {
        Probed::Well => "answers a probe",
        Probed::Loading => "answers a probe that it loads its data",
        Probed::Silent(Fault::Handshake) => "answers a probe with an error",
        Probed::Silent(Fault::Nonsense) => "answers a probe with what is no reply",
        Probed::Silent(_) => "does not answer a probe",
    }
}

/// What can be said of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Failed,
    Ejected,
    StillOut,
    Unresolved,
    Refused,
    NoPassword,
    Http,
}

/// What was said of one server, or of a pool's clients.
#[derive(Debug, Default)]
struct Said {
    /// When which was said last, and how often it would have been since.
    lines: Vec<(What, Instant, u32)>,
    /// Since when it takes no requests.
    out_since: Option<Instant>,
    /// Something was said since it came back last.
    is_told: bool,
}

impl Said {
    /// How often it was passed over, if it is to be said now.
    fn may_say(&mut self, what: What, now: Instant) -> Option<u32> {
        let Some((_, at, unsaid)) = self.lines.iter_mut().find(|(said, ..)| *said == what) else {
            self.lines.push((what, now, 0));
            self.is_told = true;
            return Some(0);
        };
        if what == What::NoPassword || now - *at < EVERY {
            *unsaid = unsaid.saturating_add(1);
            return None;
        }
        *at = now;
        self.is_told = true;
        Some(std::mem::take(unsaid))
    }

    /// It is back: since when it was out, and whether that was told. What happens to it next is news, but not at once.
    fn back(&mut self, now: Instant) -> (Option<Instant>, bool) {
        self.lines.retain(|(what, at, _)| *what == What::NoPassword || now - *at < AGAIN);
        (self.out_since.take(), std::mem::take(&mut self.is_told))
    }
}

/// See the module. Threads share it.
#[derive(Debug, Default)]
pub(crate) struct Voice {
    log: OnceLock<LogSender>,
    /// By pool and server. Locked seldom, and for a look.
    said: Mutex<HashMap<(String, String), Said>>,
}

impl Voice {
    /// From now on it is said there.
    pub(crate) fn report_to(&self, log: LogSender) {
        // Who was told first is told on.
        let _ = self.log.set(log);
    }

    /// Somebody spoke HTTP to that pool.
    pub(crate) fn http(&self, worker: &Worker, pool: &str, peer: &str) {
        self.say(What::Http, worker.now(), pool, "", || {
            format!("a client at {peer} spoke HTTP and was sent away: somebody's browser or server may be misused")
        });
    }

    fn with<T>(&self, pool: &str, server: &str, look: impl FnOnce(&mut Said) -> T) -> T {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= REMEMBERED_MAX {
            said.retain(|_, said| said.out_since.is_some());
            if said.len() >= REMEMBERED_MAX {
                said.clear();
            }
        }
        look(said.entry((pool.to_owned(), server.to_owned())).or_default())
    }

    fn forget(&self, pool: &str, server: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.remove(&(pool.to_owned(), server.to_owned()));
    }

    fn say(&self, what: What, now: Instant, pool: &str, server: &str, text: impl FnOnce() -> String) {
        if self.log.get().is_none() {
            return;
        }
        if let Some(unsaid) = self.with(pool, server, |said| said.may_say(what, now)) {
            let text = text();
            if unsaid > 0 {
                self.report(Level::Warn, pool, server, format_args!("{text} (and {unsaid} times since last said)"));
            } else {
                self.report(Level::Warn, pool, server, text);
            }
        }
    }

    fn report(&self, level: Level, pool: &str, server: &str, text: impl fmt::Display) {
        if let Some(log) = self.log.get() {
            let gap = if server.is_empty() { "" } else { ": " };
            log.report(level, format_args!("{pool}{gap}{server}: {text}"));
        }
    }
}

/// One server's.
impl Server {
    fn say(&self, worker: &Worker, what: What, text: impl FnOnce() -> String) {
        worker.shared().voice().say(what, worker.now(), self.pool_name(), self.name(), text);
    }

    /// A connection to it failed, or could not be made.
    #[cold]
    pub(crate) fn say_failed(&self, worker: &Worker, fault: Fault) {
        self.say(worker, What::Failed, || format!("{} at {}", fault.outcome(), self.address()));
    }

    /// It takes no requests from now on, until a probe is answered. `ejected`: it is, and why.
    #[cold]
    pub(crate) fn say_out(&self, worker: &Worker, ejected: Option<Out>) {
        let now = worker.now();
        worker.shared().voice().with(self.pool_name(), self.name(), |said| {
            said.out_since.get_or_insert(now);
        });
        if let Some(why) = ejected {
            self.say(worker, What::Ejected, || why.to_string());
        }
    }

    /// A probe of it was not answered as one that is well does.
    #[cold]
    pub(crate) fn say_still_out(&self, worker: &Worker, probed: Probed) {
        let now = worker.now();
        let out_for = worker
            .shared()
            .voice()
            .with(self.pool_name(), self.name(), |said| said.out_since.map(|since| now - since))
            .unwrap_or_default();
        // That it is out has just been said.
        if out_for >= EVERY {
            self.say(worker, What::StillOut, || format!("{}, for {} s now", still_out(probed), out_for.as_secs()));
        }
    }

    /// One of its name begins: it was not out before.
    pub(crate) fn say_begun(&self, worker: &Worker) {
        worker.shared().voice().with(self.pool_name(), self.name(), |said| said.out_since = None);
    }

    /// It has gone: of one that comes by its name nothing has been said.
    pub(crate) fn say_gone(&self, worker: &Worker) {
        worker.shared().voice().forget(self.pool_name(), self.name());
    }

    /// It takes requests from now on.
    #[cold]
    pub(crate) fn say_back(&self, worker: &Worker, was_new: bool) {
        let (now, voice) = (worker.now(), worker.shared().voice());
        let (out_since, is_told) = voice.with(self.pool_name(), self.name(), |said| said.back(now));
        if let Some(since) = out_since.filter(|_| is_told) {
            let text = format!("back after {:.1} s", (now - since).as_secs_f64());
            voice.report(Level::Info, self.pool_name(), self.name(), text);
        } else if was_new {
            voice.report(Level::Info, self.pool_name(), self.name(), "new, and has answered: it gets its keys");
        }
    }

    /// Its name has no address.
    #[cold]
    pub(crate) fn say_unresolved(&self, worker: &Worker, why: impl fmt::Display) {
        self.say(worker, What::Unresolved, || format!("at {}: {why}", self.address()));
    }

    /// It said no to what is said first on a connection.
    #[cold]
    pub(crate) fn say_refused(&self, worker: &Worker, reply: &[u8]) {
        let reply = String::from_utf8_lossy(reply.trim_ascii_end().strip_prefix(b"-").unwrap_or(reply)).into_owned();
        self.say(worker, What::Refused, || format!("refused the proxy's password or database: {reply}"));
    }

    /// It wants no password, and is used without.
    #[cold]
    pub(crate) fn say_no_password(&self, worker: &Worker) {
        self.say(worker, What::NoPassword, || {
            "has no password though redis_auth is set; it is used without".to_owned()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_a_minute_with_how_often_it_was_not() {
        let (mut said, start) = (Said::default(), Instant::ORIGIN);
        assert_eq!(said.may_say(What::Failed, start), Some(0));
        assert_eq!(said.may_say(What::Ejected, start), Some(0));
        for second in 0..60 {
            assert_eq!(said.may_say(What::Failed, start + Duration::from_secs(second)), None);
        }
        assert_eq!(said.may_say(What::Failed, start + EVERY), Some(60));
        assert_eq!(said.may_say(What::Failed, start + EVERY * 2), Some(0));
        assert_eq!(said.may_say(What::NoPassword, start), Some(0));
        assert_eq!(said.may_say(What::NoPassword, start + EVERY * 9), None);
    }

    #[test]
    fn who_comes_and_goes_is_not_told_of_each_time() {
        let (mut said, start) = (Said::default(), Instant::ORIGIN);
        let at = |second| start + Duration::from_secs(second);
        assert_eq!(said.may_say(What::Failed, at(0)), Some(0));
        said.out_since = Some(at(0));
        assert_eq!(said.back(at(1)), (Some(at(0)), true));
        assert_eq!(said.may_say(What::Failed, at(2)), None);
        said.out_since = Some(at(2));
        assert_eq!(said.back(at(20)), (Some(at(2)), false));
        assert_eq!(said.may_say(What::Failed, at(21)), Some(0));
    }

    #[test]
    fn why_a_server_is_out_is_told_as_it_is() {
        assert_eq!(Out::Failures(2).to_string(), "ejected after 2 failures in a row");
        assert_eq!(Out::Loads.to_string(), "ejected, it loads its data");
        assert_eq!(still_out(Probed::Loading), "answers a probe that it loads its data");
        assert_eq!(still_out(Probed::Silent(Fault::Handshake)), "answers a probe with an error");
        assert_eq!(still_out(Probed::Silent(Fault::Refused)), "does not answer a probe");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let voice = Voice::default();
        voice.with("pool", "out", |said| said.out_since = Some(Instant::ORIGIN));
        for server in 0..REMEMBERED_MAX * 2 {
            voice.with("pool", &server.to_string(), |_| ());
        }
        let said = voice.said.lock().unwrap();
        assert!(said.len() <= REMEMBERED_MAX && said.contains_key(&("pool".to_owned(), "out".to_owned())));
    }
}
