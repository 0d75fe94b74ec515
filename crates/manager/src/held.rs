//! Servers of pools that an operator took out of their rings: manager remembers them, and sees to it that every server
//! process knows.
//!
//! The file comes first ([`supervise::held`]): a server that starts reads it before it serves, so that what follows here
//! concerns those that run. One that says other than what is remembered is told with the next house-keeping.

use std::time::Duration;

use supervise::control::{Connection, Reply, Request};
use supervise::held::{Held, HeldServer, pool_of};
use supervise::kv::KvQuestion;
use supervise::role::Role;
use supervise::status::ServerState;
use supervise::{error, info, warn};

use crate::servers::Server;
use crate::supervisor::Supervisor;

/// How long a server may take to hear it. Its main thread has nothing else to do.
const HEARD_WITHIN: Duration = Duration::from_millis(200);

impl Supervisor {
    /// Takes up what the manager before remembered.
    pub(crate) fn recall_held(&mut self) {
        match Held::read(&self.family.directory) {
            Ok(held) => self.held = held,
            Err(error) => {
                let file = self.family.directory.held_servers();
                error!("{}: which servers are held by hand is not known: {error}", file.display());
            }
        }
        for HeldServer { pool, server } in self.held.iter() {
            info!("pool {pool}: {server} is held out of its ring by hand");
        }
        for forgotten in self.forget_held() {
            info!("{forgotten}");
        }
    }

    /// Takes a server out of its ring until it is restored by hand, or takes it back.
    pub(crate) fn hold(&mut self, named: Option<&str>, server: &str, out: bool) -> Reply {
        let pools = self.config.kv.pools.iter();
        let pools =
            pools.map(|pool| (pool.name.value.as_str(), pool.servers.iter().any(|other| other.ring_name() == server)));
        let pool = match pool_of(pools, named, server) {
            Ok(pool) => pool,
            Err(why) => return Reply::Refused(why),
        };
        let one = HeldServer { pool, server: server.to_owned() };
        let mut held = self.held.clone();
        let remembered = held.set(one.clone(), out).and_then(|()| {
            let file = self.family.directory.held_servers();
            held.keep(&self.family.directory).map_err(|error| format!("{}: {error}", file.display()))
        });
        if let Err(why) = remembered {
            return Reply::Refused(why);
        }
        self.held = held;
        let what = if out { "is held out of its ring by hand" } else { "is restored by hand" };
        info!("pool {}: {server} {what}", one.pool);
        let mut reply = Reply::Done;
        let told =
            self.servers.iter().filter(|server| matches!(server.state, ServerState::Ready | ServerState::Standby));
        for server in told {
            if let Err(why) = self.tell_held(server, (!out).then(|| one.clone())) {
                let why = format!("it is remembered, and told again to generation {}: {why}", server.generation);
                warn!("{why}");
                reply = Reply::Refused(why);
            }
        }
        reply
    }

    /// Tells the servers that do not say the same.
    pub(crate) fn spread_held(&self) {
        let digest = self.held.digest();
        let running = self.servers.iter().filter(|s| matches!(s.state, ServerState::Ready | ServerState::Standby));
        for server in running {
            // One that does not tell is of a version that cannot be told, either.
            let other = server.pong().and_then(|pong| pong.held.as_ref()).is_some_and(|said| *said != digest);
            if other && let Err(why) = self.tell_held(server, None) {
                warn!("{}[{}] is told again: {why}", Role::Server.name(), server.process.pid());
            }
        }
    }

    fn tell_held(&self, server: &Server, restored: Option<HeldServer>) -> Result<(), String> {
        let question = KvQuestion::Held { servers: self.held.clone(), restored };
        let socket = self.family.directory.server_socket(server.generation);
        let told = Connection::open(&socket).and_then(|connection| connection.ask(Request::Kv(question), HEARD_WITHIN));
        match told {
            Ok((Reply::Done, _)) => Ok(()),
            Ok((other, _)) => Err(format!("it answers {other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Forgets the servers that the configuration in force does not have. What is to be said of each.
    pub(crate) fn forget_held(&mut self) -> Vec<String> {
        let forgotten = self.held.forget_unknown(&self.config.kv);
        if !forgotten.is_empty()
            && let Err(error) = self.held.keep(&self.family.directory)
        {
            warn!("{}: {error}", self.family.directory.held_servers().display());
        }
        let text = |HeldServer { pool, server }: HeldServer| {
            format!("pool {pool}: {server} is there no more, and is no longer held by hand")
        };
        forgotten.into_iter().map(text).collect()
    }
}
