//! What the server answers on its control socket. It is asked by manager and cop, and never asks.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use base::{Clock, Instant, SystemClock};
use supervise::control::{Moved, Pong, Question, Reply, Request};
use supervise::kv::KvQuestion;
use supervise::listener::Listener;
use supervise::log::Level;
use supervise::status::ServerState;

use crate::desk::{DONE_WITHIN, Desk, Work};
use crate::engine::Engine;

/// What the answers tell of this process.
#[derive(Debug)]
pub(crate) struct Identity {
    /// Its generation.
    pub(crate) generation: u64,
    /// Digest of its configuration.
    pub(crate) configuration: String,
    /// What it does.
    pub(crate) state: ServerState,
}

/// What an answer cannot do itself.
#[derive(Debug)]
pub(crate) enum Errand {
    /// Open the log files anew.
    ReopenLogs,
    /// Set the level of the log.
    LogLevel(Level),
    /// Judge the candidate with this digest; the question waits for the verdict.
    Prepare(Question, String),
    /// Put in force what was prepared under this digest; the question waits for the outcome.
    Commit(Question, String),
    /// Serve from now on; the question waits until it does.
    Promote(Question),
    /// Finish what runs, and end; idle connections go to that generation.
    Retire(u64),
    /// Serve these connections.
    TakeOver(Vec<(OwnedFd, Moved)>),
}

/// Answers what was asked, one after the other, until there is an errand for the shell, or nothing more to do before
/// `until`.
pub(crate) fn next_errand(desk: &mut Desk, engine: &Engine, listeners: &[Listener], until: Instant) -> Option<Errand> {
    while SystemClock.now() < until
        && let Some(work) = desk.next()
    {
        match work {
            Work::Question(question) => {
                let errand = answer(desk, question, engine, listeners);
                if errand.is_some() {
                    return errand;
                }
            }
            Work::Report(askers, report) => {
                let part = engine.first_part(*report, askers.len());
                desk.tell_part(askers, part);
            }
            Work::Part(question, part) => desk.answer(&question, Reply::Kv(Box::new((*part).clone())), &[]),
            Work::Answer(question, reply) => desk.answer(&question, reply, &[]),
        }
    }
    None
}

fn answer(desk: &mut Desk, mut question: Question, engine: &Engine, listeners: &[Listener]) -> Option<Errand> {
    let descriptors = std::mem::take(&mut question.descriptors);
    let (reply, errand) = match &question.request {
        Request::Listeners => {
            let names = listeners.iter().map(|listener| listener.name.clone()).collect();
            let fds: Vec<_> = listeners.iter().map(|listener| listener.fd.as_fd()).collect();
            desk.answer(&question, Reply::Listeners(names), &fds);
            return None;
        }
        Request::ReopenLogs => (Reply::Done, Some(Errand::ReopenLogs)),
        Request::LogLevel(level) => (Reply::Done, Some(Errand::LogLevel(*level))),
        Request::Prepare(digest) => {
            let digest = digest.clone();
            return Some(Errand::Prepare(question, digest));
        }
        Request::Commit(digest) => {
            let digest = digest.clone();
            return Some(Errand::Commit(question, digest));
        }
        &Request::Retire(successor) => (Reply::Done, Some(Errand::Retire(successor))),
        Request::TakeOver(moved) => {
            if moved.len() == descriptors.len() && moved.iter().all(Moved::is_understood) {
                let connections = descriptors.into_iter().zip(moved.iter().cloned()).collect();
                (Reply::Done, Some(Errand::TakeOver(connections)))
            } else {
                (Reply::Refused("these connections are not understood".to_owned()), None)
            }
        }
        Request::Promote => return Some(Errand::Promote(question)),
        &Request::Drain(wanted) => {
            engine.set_leaving(wanted);
            (Reply::Done, None)
        }
        Request::Cache(asked) => match engine.cache(asked, SystemClock.now() + DONE_WITHIN) {
            Ok(reply) => (reply, None),
            Err(reply) => {
                desk.reply_to(question, reply);
                return None;
            }
        },
        Request::Kv(KvQuestion::Report) => {
            desk.report_to(question);
            return None;
        }
        Request::Kv(asked) => (engine.kv(asked), None),
        // A sign of life is not left to wait here, nor is any other asked for of a server.
        Request::Ping
        | Request::Status
        | Request::Change { .. }
        | Request::Numbers(_)
        | Request::Serve(_)
        | Request::Become => (Reply::Refused("a server knows nothing of the others: ask manager".to_owned()), None),
    };
    desk.answer(&question, reply, &[]);
    errand
}

/// A sign of life.
pub(crate) fn pong(identity: &Identity, engine: &Engine, listeners: &[Listener], age: Duration) -> Pong {
    Pong {
        name: supervise::role::Role::Server.name().to_owned(),
        pid: std::process::id(),
        version: base::VERSION.to_owned(),
        age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        configuration: identity.configuration.clone(),
        stopping: identity.state == ServerState::Draining,
        generation: identity.generation,
        listeners_epoch: u64::from(!listeners.is_empty()),
        state: identity.state,
        leaving: engine.is_leaving(),
        open_connections: engine.open_connections(),
        threads: engine.beats(),
        pages_full: engine.pages_are_full(),
        held: Some(engine.held()),
    }
}
