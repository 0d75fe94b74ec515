//! What the server answers on its control socket. It is asked by manager and cop, and never asks.

use std::os::fd::AsFd;
use std::time::Duration;

use supervise::control::{Endpoint, Pong, Reply, Request};
use supervise::listener::Listener;
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

/// Answers everything that was asked. `engine` is `None` before it runs. Returns whether the logs are to be reopened.
pub(crate) fn answer(
    endpoint: &mut Endpoint,
    identity: &Identity,
    engine: Option<&Engine>,
    listeners: &[Listener],
    age: Duration,
) -> bool {
    let mut reopen = false;
    for question in endpoint.questions() {
        match question.request {
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
                reopen = true;
                endpoint.answer(&question, Reply::Done, &[]);
            }
            Request::Status => {
                let why = "a server knows nothing of the others: ask manager".to_owned();
                endpoint.answer(&question, Reply::Refused(why), &[]);
            }
        }
    }
    reopen
}

fn pong(identity: &Identity, engine: Option<&Engine>, listeners: &[Listener], age: Duration) -> Pong {
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
        open_connections: engine.map_or(0, Engine::open_connections),
        threads: engine.map(Engine::beats).unwrap_or_default(),
    }
}
