//! One change at a time: a configuration that is judged, put in force in the running server, or put in force with a new
//! server side by side.
//!
//! ```text
//! judge, reload   read ─> the server prepares ─> committed.yaml ─> the server commits ─> manager follows
//! restart         read ─> the server judges ─> the next generation starts ─> ready ─> committed.yaml ─> the old drains
//! ```
//!
//! A restart goes on without a judgment that is late: the next generation judges by starting.
//!
//! Supervision never waits here: each turn looks whether the answer has come. Until the configuration is committed
//! every failure leaves everything as it was. From then on whoever dies comes back with the new one.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Instant, SystemClock};
use config::{Config, Diagnostics, LogFile};
use supervise::change::{ChangedKey, Outcome, Proposal, Step, Verdict, changed_keys, told};
use supervise::configuration::{self, history};
use supervise::control::{Connection, Question, Reply, Request};
use supervise::directory;
use supervise::listener::Listener;
use supervise::status::ServerState;
use supervise::{error, info, warn};

use crate::listeners;
use crate::servers::{How, Server};
use crate::staged::{self, Staged};
use crate::supervisor::Supervisor;

/// How long the server may take to judge a configuration, and to put it in force.
const SERVER_WITHIN: Duration = Duration::from_secs(10);

/// Who wants to know what became of it.
#[derive(Debug)]
pub(crate) enum Asker {
    /// A signal, or manager itself: the log.
    Log,
    /// Somebody on the control socket.
    Control(Question),
    /// The replacement of this program by another, of which this is a part.
    Upgrade,
}

/// A change that is under way.
#[derive(Debug)]
pub(crate) struct Change {
    step: Step,
    config: Arc<Config>,
    digest: String,
    changed: Vec<ChangedKey>,
    asker: Asker,
    /// The file to write when it is in force.
    file: Option<Staged>,
    /// It comes from the history.
    from_past: bool,
    phase: Phase,
    since: Instant,
    until: Instant,
}

#[derive(Debug)]
enum Phase {
    /// The server judges.
    Preparing(Connection),
    /// The server puts it in force; the copy for those to come is written.
    Committing(Connection),
    /// The next generation starts on these listeners.
    Starting { generation: u64, listeners: Vec<Listener> },
}

impl Change {
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.phase {
            Phase::Preparing(connection) | Phase::Committing(connection) => Some(connection.as_fd()),
            Phase::Starting { .. } => None,
        }
    }

    pub(crate) const fn until(&self) -> Instant {
        self.until
    }

    /// The generation that is to take over.
    pub(crate) const fn successor(&self) -> Option<u64> {
        match self.phase {
            Phase::Starting { generation, .. } => Some(generation),
            Phase::Preparing(_) | Phase::Committing(_) => None,
        }
    }
}

impl Supervisor {
    /// Begins a change, or says why not.
    pub(crate) fn begin_change(&mut self, now: Instant, proposal: Proposal, step: Step, asker: Asker) {
        if step == Step::Upgrade && !matches!(asker, Asker::Upgrade) {
            return self.begin_upgrade(now, asker);
        }
        let verdict = match self.consider(now, proposal, step) {
            Ok(change) => {
                self.change = Some(Change { asker, ..change });
                return;
            }
            Err(verdict) => verdict,
        };
        self.conclude(step, asker, verdict);
    }

    /// What a change begins with. The error is the verdict when it ends here.
    fn consider(&mut self, now: Instant, proposal: Proposal, step: Step) -> Result<Change, Box<Verdict>> {
        let failed = |why: String| Box::new(Verdict::new(Outcome::Failed, why));
        if self.stopping {
            return Err(failed("everything is being stopped".to_owned()));
        }
        if self.change.is_some() || (self.upgrade.is_some() && step != Step::Upgrade) {
            return Err(failed("another change is under way: wait for its end".to_owned()));
        }
        let mut file = None;
        let from_past = matches!(proposal, Proposal::Past(_));
        let config = match proposal {
            Proposal::Set { key, value } => {
                let (config, staged) = staged::stage(&self.family.source, &self.config, &key, Some(&value))?;
                file = Some(staged);
                config
            }
            Proposal::Unset { key } => {
                let (config, staged) = staged::stage(&self.family.source, &self.config, &key, None)?;
                file = Some(staged);
                config
            }
            Proposal::File => self.family.source.load().map_err(|Diagnostics(wrong)| Verdict::wrong(&wrong))?,
            Proposal::Past(number) => history::recall(&self.family.directory, number).map_err(failed)?,
        };
        let changed = changed_keys(&self.config, &config);
        let refused = |outcome, why: &str| {
            Box::new(Verdict { outcome, changed: changed.clone(), why: why.to_owned(), ..Verdict::default() })
        };
        let is_new_server = matches!(step, Step::Restart | Step::Upgrade);
        let is_too_much = |key: &str| key == "runtime_dir" || (key == "user" && is_new_server);
        if let Some(changed) = changed.iter().find(|changed| is_too_much(&changed.key)) {
            return Err(refused(Outcome::Failed, &format!("another `{}` takes a stop and a start", changed.key)));
        }
        let log = (&self.config.log.file, &config.log.file);
        if matches!(log, (LogFile::Path(_), LogFile::Stderr)) {
            return Err(refused(Outcome::Failed, "`log.file: stderr` takes a stop and a start"));
        }
        // A key that is written as it is by default, or taken out then, is in the file what was asked for.
        let is_to_write = step != Step::Judge && file.as_ref().is_some_and(|file| !file.is_same(&config));
        if changed.is_empty() && !is_new_server && !is_to_write {
            return Err(refused(Outcome::Unchanged, ""));
        }
        if step == Step::Reload && changed.iter().any(|changed| changed.needs_restart) {
            return Err(refused(Outcome::NeedsRestart, "nothing has changed"));
        }
        let change = self.start_change(now, Arc::new(config), changed, step)?;
        Ok(Change { file, from_past, ..change })
    }

    /// Puts the configuration in force to a server that runs another.
    pub(crate) fn enforce(&mut self, now: Instant) {
        match self.start_change(now, Arc::clone(&self.config), Vec::new(), Step::Reload) {
            Ok(change) => self.change = Some(change),
            Err(verdict) => self.conclude(Step::Reload, Asker::Log, verdict),
        }
    }

    fn start_change(
        &mut self,
        now: Instant,
        config: Arc<Config>,
        changed: Vec<ChangedKey>,
        step: Step,
    ) -> Result<Change, Box<Verdict>> {
        let failed = |why: String| Box::new(Verdict::new(Outcome::Failed, why));
        let mut change = Change {
            step,
            digest: configuration::digest(&config),
            config,
            changed,
            asker: Asker::Log,
            file: None,
            from_past: false,
            phase: Phase::Starting { generation: 0, listeners: Vec::new() },
            since: now,
            until: now + SERVER_WITHIN,
        };
        let directory = &self.family.directory;
        configuration::propose(directory, &change.config)
            .map_err(|error| failed(format!("{}: {error}", directory.candidate_configuration().display())))?;
        match self.serving() {
            // A server of the former program cannot judge what is written for this one.
            Some(server) if step != Step::Upgrade => {
                let connection = Connection::open(&directory.server_socket(server.generation))
                    .and_then(|connection| {
                        connection.send(1, Request::Prepare(change.digest.clone()), &[]).map(|()| connection)
                    })
                    .map_err(|error| failed(format!("the server cannot be asked: {error}")))?;
                change.phase = Phase::Preparing(connection);
            }
            // Nobody is there to judge it: a new server judges by starting.
            _ if matches!(step, Step::Restart | Step::Upgrade) => {
                self.start_successor(&mut change, now).map_err(failed)?
            }
            _ => return Err(failed("no server is ready to judge it".to_owned())),
        }
        Ok(change)
    }

    /// Takes a change as far as it goes.
    pub(crate) fn turn_change(&mut self, now: Instant) {
        let Some(mut change) = self.change.take() else { return };
        // Also of one that is over before anybody looks again: what servers said before it means nothing after it.
        self.unlike.look_away();
        match self.advance(&mut change, now) {
            Ok(None) => self.change = Some(change),
            Ok(Some(verdict)) => {
                let mut verdict = verdict.of(&change, now);
                if let (Outcome::Applied, Some(file)) = (verdict.outcome, change.file.take())
                    && let Err(why) = file.put()
                {
                    verdict.diagnostics.push(format!("in force, but not in the file: {why}"));
                }
                if verdict.outcome == Outcome::Applied && change.from_past {
                    let source = &self.family.source;
                    verdict.diagnostics.push(format!("{source} is as it was: a reload puts in force what that says"));
                }
                self.conclude(change.step, change.asker, verdict);
            }
            Err(why) => {
                self.abandon(&change);
                let verdict = Verdict::new(Outcome::Failed, why).of(&change, now);
                self.conclude(change.step, change.asker, verdict);
            }
        }
    }

    fn advance(&mut self, change: &mut Change, now: Instant) -> Result<Option<Verdict>, String> {
        if self.stopping {
            return Err("everything is being stopped".to_owned());
        }
        match &change.phase {
            Phase::Preparing(connection) => {
                let Some(reply) = heard(connection)? else {
                    if change.step == Step::Restart && now >= change.until {
                        // What it is stuck in must not keep it in its place.
                        warn!("the server did not judge the configuration within {SERVER_WITHIN:?}: the new one does");
                        return self.start_successor(change, now).map(|()| None);
                    }
                    return change.patience(now, "judge the configuration");
                };
                let Reply::Verdict(verdict) = reply else { return Err(format!("the server answers {reply:?}")) };
                if !verdict.is_success() {
                    return Ok(Some(*verdict));
                }
                match change.step {
                    Step::Judge => {
                        let diagnostics = told(change.config.warnings());
                        Ok(Some(Verdict { outcome: Outcome::Possible, diagnostics, ..Verdict::default() }))
                    }
                    Step::Reload => {
                        self.forget_log_level();
                        // First the copy: whoever dies from here on comes back with the new configuration.
                        configuration::commit(&self.family.directory, &change.config)
                            .map_err(|error| format!("the configuration cannot be committed: {error}"))?;
                        connection
                            .send(2, Request::Commit(change.digest.clone()), &[])
                            .map_err(|error| format!("the server cannot be told: {error}"))?;
                        change.until = now + SERVER_WITHIN;
                        change.phase = match std::mem::replace(&mut change.phase, NOBODY) {
                            Phase::Preparing(connection) => Phase::Committing(connection),
                            other => other,
                        };
                        Ok(None)
                    }
                    Step::Restart | Step::Upgrade => self.start_successor(change, now).map(|()| None),
                }
            }
            Phase::Committing(connection) => match heard(connection)? {
                None => change.patience(now, "put the configuration in force"),
                Some(Reply::Done) => {
                    self.follow(Arc::clone(&change.config));
                    Ok(Some(change.applied(self.forget_held())))
                }
                Some(Reply::Verdict(told)) if told.outcome == Outcome::Applied => {
                    self.follow(Arc::clone(&change.config));
                    let mut more = self.forget_held();
                    more.extend(told.diagnostics);
                    Ok(Some(change.applied(more)))
                }
                Some(Reply::Refused(why)) => Err(why),
                Some(other) => Err(format!("the server answers {other:?}")),
            },
            Phase::Starting { generation, .. } => {
                let generation = *generation;
                let successor = self.servers.iter().find(|server| server.generation == generation);
                match successor.map(|server| server.state) {
                    None => Err(format!("the new server {}", self.last_end_of(generation))),
                    Some(ServerState::Starting | ServerState::Standby) => change.patience(now, "get ready"),
                    Some(ServerState::Ready | ServerState::Draining) => {
                        self.replace_servers(change, generation, now)?;
                        Ok(Some(change.applied(self.forget_held())))
                    }
                }
            }
        }
    }

    /// The level of the log is the configuration's again.
    fn forget_log_level(&self) {
        let file = self.family.directory.log_level();
        if let Err(error) = directory::remove(&file) {
            warn!("{}: {error}", file.display());
        }
    }

    /// Starts the next generation beside the one that serves.
    fn start_successor(&mut self, change: &mut Change, now: Instant) -> Result<(), String> {
        let listeners = listeners::renew(&change.config, &self.listeners)?;
        let interval = self.config.supervise.heartbeat_interval;
        let server = Server::start(&self.family, &listeners, interval, How::Candidate, now)?;
        change.until = now + change.config.supervise.start_timeout;
        change.phase = Phase::Starting { generation: server.generation, listeners };
        self.servers.push(server);
        Ok(())
    }

    /// The successor serves: it is the server from now on, and all others finish what they have.
    fn replace_servers(&mut self, change: &mut Change, generation: u64, now: Instant) -> Result<(), String> {
        configuration::commit(&self.family.directory, &change.config)
            .map_err(|error| format!("the configuration cannot be committed: {error}"))?;
        self.forget_log_level();
        if let Phase::Starting { listeners, .. } = &mut change.phase {
            self.listeners = std::mem::take(listeners);
            self.listeners_epoch += 1;
        }
        self.follow(Arc::clone(&change.config));
        self.reopen_admin();
        self.drain_all_but(Some(generation), now);
        Ok(())
    }

    /// Takes back what failed.
    fn abandon(&mut self, change: &Change) {
        match &change.phase {
            Phase::Preparing(_) => {}
            // What the server runs is not known; what it ran is what those to come get, and it is told to run that again.
            Phase::Committing(_) => {
                if let Err(error) = configuration::commit(&self.family.directory, &self.config) {
                    error!("the configuration in force cannot be put back: {error}");
                }
            }
            Phase::Starting { generation, .. } => {
                let directory = &self.family.directory;
                if let Some(server) = self.servers.iter_mut().find(|server| server.generation == *generation) {
                    server.stop_by = Some(SystemClock.now());
                    server.signal(directory, sys::process::Signal::KILL);
                }
            }
        }
    }

    /// Tells whoever asked, and the log.
    pub(crate) fn conclude(&mut self, step: Step, asker: Asker, verdict: impl Into<Box<Verdict>>) {
        let mut verdict = verdict.into();
        if matches!(asker, Asker::Upgrade) {
            return self.server_followed(*verdict);
        }
        verdict.generation = self.serving().map_or(0, |server| server.generation);
        let what = match step {
            Step::Judge => "judged",
            Step::Reload => "reload",
            Step::Restart => "restart",
            Step::Upgrade => "upgrade",
        };
        let keys = verdict.changed.iter().map(|changed| changed.key.as_str()).collect::<Vec<_>>().join(", ");
        let keys = if keys.is_empty() { "nothing".to_owned() } else { keys };
        let text = verdict.diagnostics.join("\n");
        match verdict.outcome {
            Outcome::Applied => {
                info!("{what}: in force after {} ms; changed: {keys}", verdict.took_ms);
                for text in &verdict.diagnostics {
                    warn!("{}", text.strip_prefix("warning: ").unwrap_or(text));
                }
            }
            Outcome::Possible => info!("{what}: would be possible; would change: {keys}"),
            Outcome::Unchanged => info!("{what}: the configuration says what is in force already"),
            Outcome::NeedsRestart => {
                let keys = verdict.restart_keys().join(", ");
                warn!("{what}: nothing has changed: {keys} take a new server: restart");
            }
            Outcome::Wrong => error!("{what}: the configuration is wrong, the one in force stays:\n{text}"),
            Outcome::Failed => error!("{what}: it failed, what runs stays: {}", verdict.why),
        }
        if let Asker::Control(question) = asker {
            self.endpoint.answer(&question, Reply::Verdict(verdict), &[]);
        }
    }
}

const NOBODY: Phase = Phase::Starting { generation: 0, listeners: Vec::new() };

impl Change {
    /// The verdict when it is in force, with what is allowed and hardly meant, and what else there is to say.
    fn applied(&self, more: Vec<String>) -> Verdict {
        let mut diagnostics = told(self.config.warnings());
        diagnostics.extend(more);
        Verdict { outcome: Outcome::Applied, diagnostics, ..Verdict::default() }
    }

    fn patience(&self, now: Instant, what: &str) -> Result<Option<Verdict>, String> {
        if now < self.until {
            return Ok(None);
        }
        Err(format!("the server did not {what} within {:?}", self.until - self.since))
    }
}

/// Fills in what every verdict of a change says.
trait Of {
    fn of(self, change: &Change, now: Instant) -> Self;
}

impl Of for Verdict {
    fn of(self, change: &Change, now: Instant) -> Self {
        let took_ms = u64::try_from((now - change.since).as_millis()).unwrap_or(u64::MAX);
        Self { changed: change.changed.clone(), took_ms, ..self }
    }
}

fn heard(connection: &Connection) -> Result<Option<Reply>, String> {
    match connection.receive::<Reply>() {
        Ok(answer) => Ok(answer.map(|(packet, _)| packet.body)),
        Err(error) => Err(format!("the server died or broke off: {error}")),
    }
}
