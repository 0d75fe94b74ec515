//! What the server answers on its control socket. It is asked by manager and cop, and never asks.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use supervise::control::{Endpoint, Moved, Pong, Question, Reply, Request};
use supervise::listener::Listener;
use supervise::log::Level;
use supervise::status::ServerState;

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

/// Answers everything that was asked, but what is an errand for the shell.
pub(crate) fn answer(
    endpoint: &mut Endpoint,
    identity: &Identity,
    engine: &Engine,
    listeners: &[Listener],
    age: Duration,
) -> Vec<Errand> {
    let mut errands = Vec::new();
    for mut question in endpoint.questions() {
        let descriptors = std::mem::take(&mut question.descriptors);
        match &question.request {
            Request::Ping => {
                let pong = Reply::Pong(pong(identity, engine, listeners, age));
                endpoint.answer(&question, pong, &[]);
            }
            Request::Listeners => {
                let names = listeners.iter().map(|listener| listener.name.clone()).collect();
                let fds: Vec<_> = listeners.iter().map(|listener| listener.fd.as_fd()).collect();
                endpoint.answer(&question, Reply::Listeners(names), &fds);
            }
            Request::ReopenLogs => {
                errands.push(Errand::ReopenLogs);
                endpoint.answer(&question, Reply::Done, &[]);
            }
            Request::LogLevel(level) => {
                errands.push(Errand::LogLevel(*level));
                endpoint.answer(&question, Reply::Done, &[]);
            }
            Request::Prepare(digest) => {
                let digest = digest.clone();
                errands.push(Errand::Prepare(question, digest));
            }
            Request::Commit(digest) => {
                let digest = digest.clone();
                errands.push(Errand::Commit(question, digest));
            }
            &Request::Retire(successor) => {
                errands.push(Errand::Retire(successor));
                endpoint.answer(&question, Reply::Done, &[]);
            }
            Request::TakeOver(moved) => {
                let whole = moved.len() == descriptors.len() && moved.iter().all(Moved::is_understood);
                let reply = if whole {
                    errands.push(Errand::TakeOver(descriptors.into_iter().zip(moved.iter().cloned()).collect()));
                    Reply::Done
                } else {
                    Reply::Refused("these connections are not understood".to_owned())
                };
                endpoint.answer(&question, reply, &[]);
            }
            Request::Promote => errands.push(Errand::Promote(question)),
            &Request::Drain(wanted) => {
                engine.set_leaving(wanted);
                endpoint.answer(&question, Reply::Done, &[]);
            }
            Request::Cache(asked) => {
                let reply = engine.cache(asked);
                endpoint.answer(&question, reply, &[]);
            }
            Request::Kv(asked) => {
                let reply = engine.kv(asked);
                endpoint.answer(&question, reply, &[]);
            }
            Request::Status | Request::Change { .. } | Request::Numbers(_) | Request::Serve(_) | Request::Become => {
                let why = "a server knows nothing of the others: ask manager".to_owned();
                endpoint.answer(&question, Reply::Refused(why), &[]);
            }
        }
    }
    errands
}

fn pong(identity: &Identity, engine: &Engine, listeners: &[Listener], age: Duration) -> Pong {
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
