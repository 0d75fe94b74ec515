//! A new configuration for a running engine: prepared whole, then put in force by all event threads, or dropped.
//!
//! Preparing changes nothing; what can fail (rules that cannot be, a log that cannot be opened) fails there. Putting in
//! force is a message to each thread: a request that is under way goes on by the plan it began with. Nobody waits for the
//! threads, but the verdict for whoever asked: [`Committing`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base::{ByteCount, Clock, Instant, SystemClock};
use config::{Config, Diagnostic, Diagnostics, LogFile};
use event::Thread;
use event::log::{Level, LogSender, Sink};
use http::{LogRenewal, Plan, Renewal};
use kv::Unanswered;
use net::{NamesOptions, PoolOptions};

use super::{Engine, with_worker};
use crate::awaited::Awaited;
use crate::kv_engine::{self, KvPrepared};

/// How long the verdict waits for the event threads to take it: new servers of pools have a second to answer. Who is busy
/// for longer follows when its turn ends.
const TAKEN_WITHIN: Duration = Duration::from_secs(3);
/// The stack of idle connections that all threads share takes at most one in so many of the places for origins.
const SHARED_PART: usize = 4;

/// A configuration that can be, with what takes long to make of it.
#[derive(Debug)]
pub(crate) struct Judged {
    config: Arc<Config>,
    plan: Arc<Plan>,
    kv: KvPrepared,
}

impl Judged {
    /// Judges it. Touches nothing.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(config: Config) -> Result<Self, Unprepared> {
        let plan = Plan::prepare(&config).map_err(Unprepared::Wrong)?;
        let kv = KvPrepared::new(&config).map_err(Unprepared::Wrong)?;
        Ok(Self { config: Arc::new(config), plan, kv })
    }

    /// The configuration.
    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config)
    }
}

/// What a configuration comes to, ready to be put in force.
#[derive(Debug)]
pub struct Prepared {
    plan: Arc<Plan>,
    kv: KvPrepared,
    names: NamesOptions,
    pool: PoolOptions,
    level: Level,
    ram: ByteCount,
    report_to: Option<Sink>,
    /// `None`: it stays as it is.
    access_log: Option<Option<Sink>>,
}

/// Why a configuration cannot be put in force.
#[derive(Debug)]
pub enum Unprepared {
    /// It is wrong, and where.
    Wrong(Vec<Diagnostic>),
    /// It cannot be read or judged, or a log it names cannot be opened; in words.
    Failed(String),
}

impl fmt::Display for Unprepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(diagnostics) => Diagnostics(diagnostics.clone()).fmt(f),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

/// How a configuration was put in force.
#[derive(Debug)]
pub struct Committed {
    /// Event threads that have not taken it in time: they are busy with one long turn, and take it when that ends.
    pub late: usize,
    /// What an operator should know, a few lines at most. The log has it, too.
    pub warnings: Vec<String>,
}

/// A configuration that is being put in force. Each event thread has been told; some may not have come to it yet.
#[derive(Debug)]
pub(crate) struct Committing {
    http: Awaited<()>,
    kv: Awaited<Vec<Unanswered>>,
    log: LogSender,
}

impl Committing {
    /// Listens to the event threads. `true`: all have taken it, or are waited for no longer. Never waits.
    pub(crate) fn turn(&mut self, now: Instant) -> bool {
        let http = self.http.turn(now);
        self.kv.turn(now) && http
    }

    /// When to turn at the latest.
    pub(crate) fn until(&self) -> Instant {
        self.http.until().max(self.kv.until())
    }

    /// How it was put in force, as far as is known by now; the log is told, too.
    pub(crate) fn conclude(mut self) -> Committed {
        // What was said since the last turn, too.
        self.turn(SystemClock.now());
        let late = self.http.missing().max(self.kv.missing());
        Committed { late, warnings: kv_engine::tell_unanswered(self.kv.into_said(), &self.log) }
    }
}

impl Engine {
    /// Has a configuration read and judged; that may take long.
    pub(crate) fn judge(
        &self,
        read: impl FnOnce() -> Result<Config, Unprepared> + Clone + Send + 'static,
        until: Instant,
    ) -> Awaited<Result<Judged, Unprepared>> {
        self.chore(&self.judges, until, move || read().and_then(Judged::new))
    }

    /// Makes ready what was judged, while `old` is in force. Changes nothing, but that a new log file comes into being.
    ///
    /// # Errors
    /// A log cannot be opened.
    pub(crate) fn prepare(&self, old: &Config, judged: Judged) -> Result<Prepared, Unprepared> {
        let Judged { config: new, plan, kv } = judged;
        let new = &*new;
        let report_to = match &new.log.file {
            LogFile::Path(path) if new.log.file != old.log.file => Some(open(&self.log, path)?),
            LogFile::Path(_) | LogFile::Stderr => None,
        };
        let access_log = (new.http.access_log != old.http.access_log).then(|| access_log(&self.log, new));
        Ok(Prepared {
            plan,
            kv,
            names: names_options(new),
            pool: pool_options(new, self.processor.net().len(), self.origins),
            level: level(new.log.level),
            ram: new.cache.ram,
            report_to,
            access_log: access_log.transpose()?,
        })
    }

    /// Puts it in force, and waits for nobody.
    pub(crate) fn commit(&self, prepared: Prepared) -> Committing {
        let Prepared { plan, kv, names, pool, level, ram, report_to, access_log } = prepared;
        self.log.set_level(level);
        let cache = self.cache.clone();
        // With less memory there is much to evict.
        let evict = {
            let cache = cache.clone();
            move |_: &Thread| cache.set_budget(ram)
        };
        if self.chores.iter().all(|thread| thread.run(evict.clone()).is_err()) {
            cache.set_budget(ram);
        }
        if let Some(sink) = report_to {
            self.log.report_to(sink);
        }
        let until = SystemClock.now() + TAKEN_WITHIN;
        let http = Awaited::begin(self.processor.net(), &self.bell, until, |thread, taken| {
            let plan = Arc::clone(&plan);
            let log = access_log.as_ref().map(|sink| (self.log.clone(), sink.clone()));
            // A thread that has ended serves nobody.
            let _ = thread.run(move |_| {
                with_worker(|worker| {
                    let log = match log {
                        None => LogRenewal::Keep,
                        Some((log, sink)) => LogRenewal::Replace(sink.map(|sink| (log.writer(), sink))),
                    };
                    worker.renew(Renewal { plan, names, pool, log });
                });
                taken.say(());
            });
        });
        let kv = self.kv.commit(kv, names, self.processor.net(), (&self.bell, until), &self.log);
        Committing { http, kv, log: self.log.clone() }
    }

    /// How much the log tells from now on.
    pub fn set_log_level(&self, level: supervise::log::Level) {
        self.log.set_level(match level {
            supervise::log::Level::Error => Level::Error,
            supervise::log::Level::Warning => Level::Warn,
            supervise::log::Level::Info => Level::Info,
            supervise::log::Level::Debug => Level::Debug,
        });
    }
}

pub(super) fn level(level: config::Level) -> Level {
    match level {
        config::Level::Error => Level::Error,
        config::Level::Warn => Level::Warn,
        config::Level::Info => Level::Info,
        config::Level::Debug => Level::Debug,
    }
}

pub(super) fn names_options(config: &Config) -> NamesOptions {
    NamesOptions {
        ttl: config.names.ttl,
        negative_ttl: config.names.negative_ttl,
        timeout: config.names.timeout,
        stale: config.names.stale,
    }
}

/// How many idle connections to origins are kept: what is configured, but all threads together and the stack that they
/// share no more than `places`.
pub(super) fn pool_options(config: &Config, threads: usize, places: usize) -> PoolOptions {
    let limits = &config.http.limits;
    let idle_shared = limits.origin_idle_shared.min(places / SHARED_PART);
    // One thread alone gives nothing to the stack.
    let most = if threads > 1 { (places - idle_shared) / threads } else { places };
    PoolOptions {
        idle_per_thread: limits.origin_idle_per_thread.min(most),
        idle_shared,
        keep_alive: config.http.timeouts.origin_keep_alive,
        threads,
    }
}

pub(super) fn access_log(log: &LogSender, config: &Config) -> Result<Option<Sink>, Unprepared> {
    match config.http.access_log.as_ref().map(|log| &log.file) {
        None => Ok(None),
        Some(LogFile::Stderr) => Ok(Some(log.standard_error())),
        Some(LogFile::Path(path)) => open(log, path).map(Some),
    }
}

fn open(log: &LogSender, path: &std::path::Path) -> Result<Sink, Unprepared> {
    log.open(path).map_err(|error| Unprepared::Failed(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests;
