//! Another configuration for a running server, step by step; at none of them the main thread waits.
//!
//! ```text
//! Prepare ─> a thread of its own reads and judges ─> logs are opened ─> the verdict; kept
//! Commit  ─> each event thread is told ─> all have taken it, or are late ─> the answer
//! HUP     ─> both, for a server by itself
//! ```
//!
//! A configuration may take its time to be judged: a thousand pools have a thousand rings. Of two that come at once the
//! newer one is meant. Start at [`Shell::prepare`].

use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Instant, SystemClock};
use config::{Config, Diagnostics};
use supervise::change::{Outcome, Verdict};
use supervise::configuration;
use supervise::control::{Question, Reply};
use supervise::{error, info, warn};

use super::Shell;
use crate::awaited::Awaited;
use crate::engine::{Committed, Committing, Judged, Prepared, Unprepared};

/// How long a configuration may take to be judged. Manager waits for less.
const JUDGED_WITHIN: Duration = Duration::from_secs(30);

/// How far the change is that is under way, and what may come of it.
#[derive(Debug, Default)]
pub(super) struct Change {
    judging: Option<Judging>,
    /// What was judged and may be put in force, under its digest.
    prepared: Option<(String, Arc<Config>, Prepared)>,
    /// What the event threads are taking up, and who is told when they have.
    committing: Option<(Option<Question>, Committing)>,
}

/// A configuration that is being judged.
#[derive(Debug)]
struct Judging {
    /// Nobody: it is put in force at once.
    asker: Option<Question>,
    judged: Awaited<Result<Judged, Unprepared>>,
}

impl Change {
    /// When to look at the latest.
    pub(super) fn until(&self) -> Option<Instant> {
        let judging = self.judging.as_ref().map(|judging| judging.judged.until());
        let committing = self.committing.as_ref().map(|(_, committing)| committing.until());
        judging.into_iter().chain(committing).min()
    }
}

impl Shell {
    /// Has the candidate judged. Nothing changes.
    pub(super) fn prepare(&mut self, asker: Question, digest: String) {
        let directory = self.family.directory.clone();
        let read = move || match configuration::proposed(&directory) {
            Ok(config) if configuration::digest(&config) == digest => Ok(config),
            Ok(_) => Err(Unprepared::Failed("the candidate is not the one that is meant".to_owned())),
            Err(why) => Err(Unprepared::Failed(why)),
        };
        self.judge(Some(asker), read);
    }

    /// A server by itself reads its file anew.
    pub(super) fn reload_alone(&mut self) {
        let source = self.family.source.clone();
        self.judge(None, move || source.load().map_err(|Diagnostics(wrong)| Unprepared::Wrong(wrong)));
    }

    fn judge(
        &mut self,
        asker: Option<Question>,
        read: impl FnOnce() -> Result<Config, Unprepared> + Clone + Send + 'static,
    ) {
        self.change.prepared = None;
        if let Some(before) = self.change.judging.take() {
            self.tell_unprepared(before.asker, Unprepared::Failed("a newer one is to be judged".to_owned()));
        }
        let judged = self.engine.judge(read, SystemClock.now() + JUDGED_WITHIN);
        self.change.judging = Some(Judging { asker, judged });
    }

    /// Looks whether a configuration is judged, or the event threads have taken one.
    pub(super) fn turn_change(&mut self, now: Instant) {
        if self.change.committing.as_mut().is_some_and(|(_, committing)| committing.turn(now)) {
            self.conclude_commit();
        }
        if !self.change.judging.as_mut().is_some_and(|judging| judging.judged.turn(now)) {
            return;
        }
        let Some(Judging { asker, judged }) = self.change.judging.take() else { return };
        // It says nothing when it is late, or broke off.
        if judged.missing() > 0 && now >= judged.until() {
            warn!("a configuration is not judged after {JUDGED_WITHIN:?}: the thread for it is busy, or stuck");
        }
        let judged = judged.into_said().pop();
        let judged = judged.unwrap_or_else(|| Err(Unprepared::Failed("it could not be judged".to_owned())));
        if let Err(unprepared) = judged.and_then(|judged| self.keep_or_commit(asker.as_ref(), judged)) {
            self.tell_unprepared(asker, unprepared);
        }
    }

    fn keep_or_commit(&mut self, asker: Option<&Question>, judged: Judged) -> Result<(), Unprepared> {
        let config = judged.config();
        let keys = self.config.restart_needed(&config);
        if asker.is_none() && !keys.is_empty() {
            let why = format!("{} take effect after a stop and a start", keys.join(", "));
            return Err(Unprepared::Failed(why));
        }
        let prepared = self.engine.prepare(&self.config, judged)?;
        let digest = configuration::digest(&config);
        match asker {
            Some(asker) => {
                self.change.prepared = Some((digest, config, prepared));
                let verdict = Verdict::new(Outcome::Possible, "");
                self.desk.answer(asker, Reply::Verdict(Box::new(verdict)), &[]);
            }
            None => self.commit(None, digest, config, prepared),
        }
        Ok(())
    }

    fn tell_unprepared(&mut self, asker: Option<Question>, unprepared: Unprepared) {
        let Some(asker) = asker else {
            return match unprepared {
                Unprepared::Wrong(_) => error!("the configuration is wrong, the one in force stays:\n{unprepared}"),
                Unprepared::Failed(_) => error!("nothing has changed: {unprepared}"),
            };
        };
        let verdict = match unprepared {
            Unprepared::Wrong(diagnostics) => Verdict::wrong(&diagnostics),
            Unprepared::Failed(why) => Verdict::new(Outcome::Failed, why),
        };
        self.desk.answer(&asker, Reply::Verdict(Box::new(verdict)), &[]);
    }

    /// Puts in force what was prepared under this digest.
    pub(super) fn commit_prepared(&mut self, asker: Question, digest: &str) {
        match self.change.prepared.take().filter(|(prepared, ..)| prepared == digest) {
            Some((digest, config, prepared)) => self.commit(Some(asker), digest, config, prepared),
            None => {
                let why = "nothing was prepared under this digest".to_owned();
                self.desk.answer(&asker, Reply::Refused(why), &[]);
            }
        }
    }

    /// For requests that begin from now on. Whoever asked is told when the event threads have taken it: see
    /// [`Shell::conclude_commit`].
    fn commit(&mut self, asker: Option<Question>, digest: String, config: Arc<Config>, prepared: Prepared) {
        // Threads that have not taken the one before take this one.
        self.conclude_commit();
        self.change.committing = Some((asker, self.engine.commit(prepared)));
        self.family.follow(&config);
        self.config = config;
        self.identity.configuration = digest;
    }

    /// The event threads have taken the configuration, or are waited for no longer: says so, with what an operator should
    /// know.
    pub(super) fn conclude_commit(&mut self) {
        let Some((asker, committing)) = self.change.committing.take() else { return };
        let Committed { late, warnings: diagnostics } = committing.conclude();
        if late > 0 {
            warn!("{late} event threads are busy: they take the new configuration when their turn ends");
        }
        info!("configuration {} is in force", self.identity.configuration);
        let Some(asker) = asker else { return };
        let reply = if diagnostics.is_empty() {
            Reply::Done
        } else {
            Reply::Verdict(Box::new(Verdict { outcome: Outcome::Applied, diagnostics, ..Verdict::default() }))
        };
        self.desk.answer(&asker, reply, &[]);
    }
}
