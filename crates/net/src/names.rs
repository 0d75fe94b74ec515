//! Host names to addresses: asked of the system's resolver on ET_TASK, remembered by each event thread.
//!
//! The rules are in `Cache`, which is pure: a fresh answer is given at once; an aged one is given at once too, while
//! one look-up renews it; when renewing fails, the last good answer serves on for [`NamesOptions::stale`]. A failure
//! is remembered as well, so that a dead name costs one look-up in [`NamesOptions::negative_ttl`].
//!
//! `getaddrinfo` tells no time to live, so that the lifetimes are ours. It honours `/etc/hosts` and nsswitch.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use base::Instant;
use event::{LookupError, Thread, look_up, timeout};

/// Names a thread remembers. When there are more, those not asked for longest go.
pub const NAMES_MAX: usize = 4_096;

/// How long answers count.
#[derive(Clone, Copy, Debug)]
pub struct NamesOptions {
    /// A good answer is fresh for this long.
    pub ttl: Duration,
    /// A failure is believed for this long.
    pub negative_ttl: Duration,
    /// A look-up may take this long.
    pub timeout: Duration,
    /// A good answer serves for this long beyond `ttl` while it cannot be renewed.
    pub stale: Duration,
}

/// Why a name has no address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NamesError {
    /// The resolver says so, or it has none of it.
    #[error("the name does not resolve: {0}")]
    Unknown(String),
    /// No answer in time.
    #[error("the name was not resolved within {0:?}")]
    TimedOut(Duration),
    /// The background threads are full or gone.
    #[error("the name could not be looked up: {0}")]
    Busy(event::BackgroundError),
}

/// The addresses of one name, at least one, in the resolver's order.
pub type Addresses = Rc<[IpAddr]>;

struct Entry {
    good: Option<(Addresses, Instant)>,
    failed: Option<(NamesError, Instant)>,
    asked: Instant,
    /// A look-up is on its way; these wait for it.
    waiting: Option<Vec<Waker>>,
}

/// What the cache says of a name.
#[derive(Debug)]
enum Answer {
    /// Take it. `renew`: and start a look-up.
    Take { result: Result<Addresses, NamesError>, renew: bool },
    /// Wait; somebody looks it up.
    Wait,
    /// Look it up.
    LookUp,
}

/// The memory of one thread. Pure: told the time, does no I/O.
struct Cache {
    options: NamesOptions,
    entries: HashMap<Box<str>, Entry>,
}

impl Cache {
    fn ask(&mut self, name: &str, now: Instant) -> Answer {
        let NamesOptions { ttl, negative_ttl, stale, .. } = self.options;
        if !self.entries.contains_key(name) {
            self.make_room();
            self.entries.insert(name.into(), Entry { good: None, failed: None, asked: now, waiting: None });
        }
        let Some(entry) = self.entries.get_mut(name) else { return Answer::LookUp };
        entry.asked = now;
        let failure = entry.failed.as_ref().filter(|(_, at)| now - *at < negative_ttl);
        if let Some((addresses, at)) = &entry.good {
            let age = now - *at;
            if age < ttl + stale {
                let renew = age >= ttl && failure.is_none() && entry.waiting.is_none();
                let result = Ok(Rc::clone(addresses));
                if renew {
                    entry.waiting = Some(Vec::new());
                }
                return Answer::Take { result, renew };
            }
        }
        if let Some((error, _)) = failure {
            return Answer::Take { result: Err(error.clone()), renew: false };
        }
        if entry.waiting.is_some() {
            return Answer::Wait;
        }
        entry.waiting = Some(Vec::new());
        Answer::LookUp
    }

    /// Enrols a waiter. False when nobody looks the name up any more: ask again.
    fn wait(&mut self, name: &str, waker: &Waker) -> bool {
        let Some(waiting) = self.entries.get_mut(name).and_then(|entry| entry.waiting.as_mut()) else { return false };
        if !waiting.iter().any(|other| other.will_wake(waker)) {
            waiting.push(waker.clone());
        }
        true
    }

    /// Files the outcome of a look-up and says who waits for it.
    fn store(&mut self, name: &str, result: Result<Addresses, NamesError>, now: Instant) -> Vec<Waker> {
        let Some(entry) = self.entries.get_mut(name) else { return Vec::new() };
        match result {
            Ok(addresses) => {
                entry.good = Some((addresses, now));
                entry.failed = None;
            }
            Err(error) => entry.failed = Some((error, now)),
        }
        entry.waiting.take().unwrap_or_default()
    }

    fn make_room(&mut self) {
        if self.entries.len() < NAMES_MAX {
            return;
        }
        let idle = self.entries.iter().filter(|(_, entry)| entry.waiting.is_none());
        let oldest = idle.min_by_key(|(_, entry)| entry.asked).map(|(name, _)| name.clone());
        if let Some(oldest) = oldest {
            self.entries.remove(&oldest);
        }
    }
}

/// One thread's names. Clones share them.
#[derive(Clone)]
pub struct Names(Rc<RefCell<Cache>>);

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Names({})", self.0.borrow().entries.len())
    }
}

impl Names {
    /// An empty memory.
    #[must_use]
    pub fn new(options: NamesOptions) -> Self {
        Self(Rc::new(RefCell::new(Cache { options, entries: HashMap::new() })))
    }

    /// Other lifetimes from now on, for what is remembered, too.
    pub fn set_options(&self, options: NamesOptions) {
        self.0.borrow_mut().options = options;
    }

    /// The addresses of `name`. Waits only when nothing good is known, and then at most the configured time.
    ///
    /// # Errors
    /// When there is no such name, no answer in time, or nobody to ask.
    pub async fn resolve(&self, thread: &Thread, name: &str) -> Result<Addresses, NamesError> {
        let limit = self.0.borrow().options.timeout;
        timeout(thread, limit, self.settled(thread, name)).await.unwrap_or(Err(NamesError::TimedOut(limit)))
    }

    async fn settled(&self, thread: &Thread, name: &str) -> Result<Addresses, NamesError> {
        loop {
            let answer = self.0.borrow_mut().ask(name, thread.now());
            match answer {
                Answer::Take { result, renew } => {
                    if renew {
                        self.look_up(thread, name);
                    }
                    return result;
                }
                Answer::LookUp => self.look_up(thread, name),
                Answer::Wait => {}
            }
            poll_fn(
                |context| {
                    if self.0.borrow_mut().wait(name, context.waker()) { Poll::Pending } else { Poll::Ready(()) }
                },
            )
            .await;
        }
    }

    /// Starts one look-up. It goes on when whoever asked leaves, and always files an outcome in bounded time.
    fn look_up(&self, thread: &Thread, name: &str) {
        let (this, loop_, name) = (self.clone(), thread.clone(), Box::<str>::from(name));
        thread.spawn("name look-up", async move {
            let limit = this.0.borrow().options.timeout;
            let result = match timeout(&loop_, limit, look_up(&loop_, &name)).await {
                Ok(Ok(addresses)) => Ok(Rc::from(addresses)),
                Ok(Err(LookupError::Unknown(why))) => Err(NamesError::Unknown(why)),
                Ok(Err(LookupError::Background(error))) => Err(NamesError::Busy(error)),
                Err(_) => Err(NamesError::TimedOut(limit)),
            };
            let waiting = this.0.borrow_mut().store(&name, result, loop_.now());
            for waker in waiting {
                waker.wake();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: NamesOptions = NamesOptions {
        ttl: Duration::from_secs(30),
        negative_ttl: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
        stale: Duration::from_secs(3_600),
    };

    fn cache() -> Cache {
        Cache { options: OPTIONS, entries: HashMap::new() }
    }

    fn at(secs: u64) -> Instant {
        Instant::from_nanos(secs * 1_000_000_000)
    }

    fn addresses(last: u8) -> Addresses {
        Rc::from([IpAddr::from([127, 0, 0, last])])
    }

    fn says(cache: &mut Cache, secs: u64) -> String {
        match cache.ask("a", at(secs)) {
            Answer::Take { result: Ok(addresses), renew } => format!("{} renew={renew}", addresses[0]),
            Answer::Take { result: Err(error), .. } => error.to_string(),
            Answer::Wait => "wait".into(),
            Answer::LookUp => "look up".into(),
        }
    }

    #[test]
    fn a_name_is_looked_up_once_however_many_ask() {
        let mut cache = cache();
        assert_eq!(says(&mut cache, 1), "look up");
        assert_eq!(says(&mut cache, 1), "wait");
        assert!(cache.wait("a", Waker::noop()));
        assert!(cache.wait("a", Waker::noop()));
        assert_eq!(cache.store("a", Ok(addresses(1)), at(2)).len(), 1);
        assert!(!cache.wait("a", Waker::noop()), "answered: ask again");
        assert_eq!(says(&mut cache, 31), "127.0.0.1 renew=false");
    }

    #[test]
    fn an_aged_answer_serves_while_one_look_up_renews_it_and_goes_on_serving_when_that_fails() {
        let mut cache = cache();
        says(&mut cache, 0);
        cache.store("a", Ok(addresses(1)), at(0));
        assert_eq!(says(&mut cache, 30), "127.0.0.1 renew=true");
        assert_eq!(says(&mut cache, 30), "127.0.0.1 renew=false");
        cache.store("a", Err(NamesError::TimedOut(OPTIONS.timeout)), at(35));
        assert_eq!(says(&mut cache, 36), "127.0.0.1 renew=false", "the failure is believed for five seconds");
        assert_eq!(says(&mut cache, 40), "127.0.0.1 renew=true");
        cache.store("a", Ok(addresses(2)), at(41));
        assert_eq!(says(&mut cache, 42), "127.0.0.2 renew=false");
    }

    #[test]
    fn a_good_answer_ends_after_its_stale_time_and_a_failure_after_its_own() {
        let mut cache = cache();
        says(&mut cache, 0);
        cache.store("a", Ok(addresses(1)), at(0));
        assert_eq!(says(&mut cache, 3_629), "127.0.0.1 renew=true");
        assert_eq!(says(&mut cache, 3_630), "wait");
        cache.store("a", Err(NamesError::Unknown("no".into())), at(3_631));
        assert_eq!(says(&mut cache, 3_635), "the name does not resolve: no");
        assert_eq!(says(&mut cache, 3_636), "look up");
    }

    #[test]
    fn memory_is_bounded_and_what_was_not_asked_for_longest_goes_first() {
        let mut cache = cache();
        for n in 0..=NAMES_MAX {
            let name = format!("host-{n}");
            cache.ask(&name, at(n as u64));
            cache.store(&name, Ok(addresses(1)), at(n as u64));
        }
        assert_eq!(cache.entries.len(), NAMES_MAX);
        assert!(!cache.entries.contains_key("host-0"));
    }
}
