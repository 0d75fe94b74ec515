//! What manager answers on its control socket.
//!
//! Cop has manager killed when it gives no sign of life. So signs of life come first, and of what waits for the disk or for
//! servers one question is answered a turn, however many ask: those of servers of pools, which many may ask, after the others.
//! What nobody waits for any longer is not done. Start at `answer`.

use std::os::fd::AsFd;
use std::time::Duration;

use base::Instant;
use supervise::control::{Connection, Pong, Question, Reply, Request};
use supervise::kv::KvQuestion;
use supervise::role::Role;
use supervise::{info, warn};

use super::Supervisor;
use crate::change::Asker;

/// How long each process may take to set the level of its log.
const LEVEL_WITHIN: Duration = Duration::from_millis(200);
/// Questions that wait for their turn, those of servers of pools and beside them the others. Who asks one more is refused.
const WAITING_MAX: usize = 256;

impl Supervisor {
    /// Answers what was asked on the control socket: signs of life, then what is known, then one thing that takes long.
    pub(super) fn answer(&mut self, now: Instant) {
        let asked = self.endpoint.questions();
        let (pings, others): (Vec<_>, Vec<_>) =
            asked.into_iter().partition(|question| question.request == Request::Ping);
        for ping in pings {
            self.answer_one(now, ping);
        }
        for question in others {
            let is_hold = is_hold(&question);
            if !takes_long(&question.request) {
                self.answer_one(now, question);
            } else if self.waiting.iter().filter(|other| self::is_hold(other) == is_hold).count() < WAITING_MAX {
                self.waiting.push_back(question);
            } else {
                let why = "too many questions wait for an answer here: ask again".to_owned();
                self.endpoint.answer(&question, Reply::Refused(why), &[]);
            }
        }
        self.waiting.retain(|question| self.endpoint.is_there(question));
        let at = self.waiting.iter().position(|question| !is_hold(question)).unwrap_or(0);
        if let Some(question) = self.waiting.remove(at) {
            self.answer_one(now, question);
        }
    }

    /// Refuses what waits for its turn: another program takes over, and does not know of it.
    pub(crate) fn refuse_waiting(&mut self) {
        for question in std::mem::take(&mut self.waiting) {
            let why = "another program takes manager's place: ask again".to_owned();
            self.endpoint.answer(&question, Reply::Refused(why), &[]);
        }
    }

    fn answer_one(&mut self, now: Instant, question: Question) {
        match &question.request {
            Request::Ping => {
                let pong = Reply::Pong(self.pong(now));
                self.endpoint.answer(&question, pong, &[]);
            }
            Request::Status => {
                self.publish();
                let status = Reply::Status(Box::new(self.published.newest()));
                self.endpoint.answer(&question, status, &[]);
            }
            Request::Listeners => {
                let names = self.listeners.iter().map(|listener| listener.name.clone()).collect();
                let fds: Vec<_> = self.listeners.iter().map(|listener| listener.fd.as_fd()).collect();
                self.endpoint.answer(&question, Reply::Listeners(names), &fds);
            }
            Request::ReopenLogs => {
                self.reopen_logs();
                self.endpoint.answer(&question, Reply::Done, &[]);
            }
            Request::Change { proposal, step } => {
                let (proposal, step) = (proposal.clone(), *step);
                self.begin_change(now, proposal, step, Asker::Control(question));
            }
            &Request::LogLevel(level) => {
                let reply = self.set_log_level(level);
                self.endpoint.answer(&question, reply, &[]);
            }
            Request::Numbers(pattern) => {
                let reply = Reply::Numbers(self.published.numbers(pattern));
                self.endpoint.answer(&question, reply, &[]);
            }
            &Request::Serve(wanted) => {
                self.serve(now, wanted);
                self.endpoint.answer(&question, Reply::Done, &[]);
            }
            &Request::Drain(wanted) => {
                let reply = self.leave(wanted).map_or_else(Reply::Refused, |()| Reply::Done);
                self.endpoint.answer(&question, reply, &[]);
            }
            Request::Kv(KvQuestion::Hold { pool, server, out }) => {
                let reply = self.hold(pool.as_deref(), server, *out);
                self.endpoint.answer(&question, reply, &[]);
            }
            Request::Promote
            | Request::Prepare(_)
            | Request::Commit(_)
            | Request::Retire(_)
            | Request::TakeOver(_)
            | Request::Kv(
                KvQuestion::Report | KvQuestion::More(_) | KvQuestion::Held { .. } | KvQuestion::WhatIsHeld,
            )
            | Request::Cache(_)
            | Request::Become => {
                let why = "that is not manager's business".to_owned();
                self.endpoint.answer(&question, Reply::Refused(why), &[]);
            }
        }
    }

    /// Sets the level of everybody's log.
    fn set_log_level(&self, level: supervise::log::Level) -> Reply {
        supervise::log::set_level(level);
        let directory = &self.family.directory;
        // For the stub, which has no control socket, and for those that are started from now on.
        let file = directory.log_level();
        if let Err(error) = supervise::directory::replace(&file, level.as_str().as_bytes()) {
            return Reply::Refused(format!("{}: {error}", file.display()));
        }
        let sockets = self.servers.iter().map(|server| directory.server_socket(server.generation));
        let sockets = sockets.chain(self.cop.as_ref().map(|_| directory.cop_socket()));
        for socket in sockets {
            let told = Connection::open(&socket).and_then(|c| c.ask(Request::LogLevel(level), LEVEL_WITHIN));
            if let Err(error) = told {
                return Reply::Refused(format!("{}: {error}", socket.display()));
            }
        }
        Reply::Done
    }

    /// Whether a server is to run at all.
    fn serve(&mut self, now: Instant, wanted: bool) {
        self.down = !wanted;
        if let Err(why) = self.leave(false) {
            warn!("readiness goes on failing: {why}");
        }
        if wanted {
            self.not_before = now;
        } else {
            info!("no server is to run, until told otherwise");
            self.drain_all_but(None, now);
        }
    }

    fn pong(&self, now: Instant) -> Pong {
        Pong {
            name: Role::Manager.name().to_owned(),
            pid: std::process::id(),
            version: base::VERSION.to_owned(),
            age_ms: u64::try_from((now - self.started_at).as_millis()).unwrap_or(u64::MAX),
            configuration: self.configuration.digest.clone(),
            stopping: self.stopping,
            generation: self.serving().map_or(0, |server| server.generation),
            listeners_epoch: if self.stopping { 0 } else { self.listeners_epoch },
            ..Pong::default()
        }
    }
}

/// Whether the answer waits for the disk or for servers.
const fn takes_long(request: &Request) -> bool {
    matches!(
        request,
        Request::Kv(KvQuestion::Hold { .. }) | Request::LogLevel(_) | Request::Drain(_) | Request::Serve(_)
    )
}

/// Many may eject and restore servers of pools at once.
const fn is_hold(question: &Question) -> bool {
    matches!(question.request, Request::Kv(KvQuestion::Hold { .. }))
}
