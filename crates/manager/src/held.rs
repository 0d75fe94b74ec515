//! Servers of pools that an operator took out of their rings: manager remembers them, and sees to it that every server
//! process knows.
//!
//! The file comes first ([`supervise::held`]): a server that starts reads it before it serves, so that what follows here
//! concerns those that run. One that says other than what is remembered, or has not heard that a server is restored, is
//! told with the next house-keeping; after one that did not answer nobody is waited for, for a while. While the file cannot be read nobody is told anything and it is not written: what
//! the servers hold they go on holding. Start at [`Holding`].

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use base::{Clock, Instant, SystemClock};
use config::kv::Kv;
use supervise::control::{Connection, Reply, Request};
use supervise::directory::RuntimeDir;
use supervise::held::{Held, HeldServer, pool_of};
use supervise::kv::KvQuestion;
use supervise::role::Role;
use supervise::status::ServerState;
use supervise::{error, info, warn};

use crate::servers::Server;
use crate::supervisor::Supervisor;

/// How long servers may take to hear it. The main thread of one may just be waiting for its event threads to say how their
/// servers are, which takes no longer than 400 ms.
const HEARD_WITHIN: Duration = Duration::from_millis(600);
/// For how long nobody is told after one did not answer. Manager gives no sign of life while it waits, and more may be asked
/// of it at once: one wait in this time is less than `supervise.hang_timeout` may be, or a server that hangs would have
/// manager killed.
const DEAF_FOR: Duration = Duration::from_secs(2);

/// What is remembered, and who is still to hear of it.
#[derive(Debug, Default)]
pub(crate) struct Holding {
    /// None: that is not known, since the file could not be read.
    known: Option<Held>,
    /// Why not, as it was said last.
    unknown: String,
    /// What was restored, with each generation that has not heard it.
    untold: BTreeSet<(u64, HeldServer)>,
    /// A server did not answer in time: nobody is told before.
    deaf_until: Option<Instant>,
}

impl Holding {
    /// Reads the file, if what is in it is not known. `true`: it was not, and is now.
    fn recall(&mut self, directory: &RuntimeDir) -> io::Result<bool> {
        if self.known.is_some() {
            return Ok(false);
        }
        self.known = Some(Held::read(directory)?);
        self.unknown.clear();
        Ok(true)
    }

    /// Remembers that a server is out, or back. In words why that cannot be.
    fn set(&mut self, directory: &RuntimeDir, one: &HeldServer, out: bool) -> Result<(), String> {
        let in_file = |error: io::Error| format!("{}: {error}", directory.held_servers().display());
        let Some(known) = &self.known else {
            return Err(format!(
                "{}: which servers are held by hand is not known: {}",
                directory.held_servers().display(),
                self.unknown
            ));
        };
        let mut held = known.clone();
        held.set(one.clone(), out)?;
        held.keep(directory).map_err(in_file)?;
        self.known = Some(held);
        if out {
            self.untold.retain(|(_, restored)| restored != one);
        }
        Ok(())
    }

    /// What a server is to be told that says this digest: what it holds is other, or a server is restored; one at a time.
    fn tellings(&self, generation: u64, says: &str) -> Vec<Option<HeldServer>> {
        let Some(held) = &self.known else { return Vec::new() };
        let own = self.untold.iter().filter(|(of, _)| *of == generation);
        let restored: Vec<_> = own.map(|(_, one)| Some(one.clone())).collect();
        if restored.is_empty() && says != held.digest() { vec![None] } else { restored }
    }

    /// Until when those may be waited for who are told now. None: another did not answer a short time ago.
    fn patience(&self, now: Instant) -> Option<Instant> {
        self.deaf_until.is_none_or(|until| now >= until).then(|| now + HEARD_WITHIN)
    }

    /// Somebody was told something. Whoever used up the patience has not heard it, or as good as not.
    fn was_told(&mut self, now: Instant, patience: Instant) {
        if now >= patience {
            self.deaf_until = Some(now + DEAF_FOR);
        }
    }

    /// Forgets those that the configuration does not have, and says which were held.
    fn forget_unknown(&mut self, kv: &Kv) -> Vec<HeldServer> {
        let mut untold: Held = self.untold.iter().map(|(_, one)| one.clone()).collect();
        let gone = untold.forget_unknown(kv);
        self.untold.retain(|(_, one)| !gone.contains(one));
        self.known.as_mut().map(|held| held.forget_unknown(kv)).unwrap_or_default()
    }
}

impl Supervisor {
    /// Takes up what the manager before remembered, unless that is done.
    pub(crate) fn recall_held(&mut self) {
        match self.held.recall(&self.family.directory) {
            Ok(false) => {}
            Ok(true) => {
                for HeldServer { pool, server } in self.held.known.iter().flat_map(Held::iter) {
                    info!("pool {pool}: {server} is held out of its ring by hand");
                }
                for forgotten in self.forget_held() {
                    info!("{forgotten}");
                }
            }
            Err(error) => {
                let why = error.to_string();
                if self.held.unknown != why {
                    let file = self.family.directory.held_servers();
                    let file = file.display();
                    error!(
                        "{file}: which servers are held by hand is not known, and nothing about it changes before the file \
                         can be read: {why}"
                    );
                    self.held.unknown = why;
                }
            }
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
        self.recall_held();
        if let Err(why) = self.held.set(&self.family.directory, &one, out) {
            return Reply::Refused(why);
        }
        let what = if out { "is held out of its ring by hand" } else { "is restored by hand" };
        info!("pool {}: {server} {what}", one.pool);
        let mut reply = Reply::Done;
        let mut untold = Vec::new();
        let until = self.held.patience(SystemClock.now());
        for server in self.running() {
            if let Err(why) = self.tell_held(server, (!out).then(|| one.clone()), until) {
                let why = format!("it is remembered, and told again to generation {}: {why}", server.generation);
                warn!("{why}");
                reply = Reply::Refused(why);
                untold.push(server.generation);
            }
        }
        if let Some(until) = until {
            self.held.was_told(SystemClock.now(), until);
        }
        if !out {
            self.held.untold.extend(untold.into_iter().map(|generation| (generation, one.clone())));
        }
        reply
    }

    /// Tells the servers that do not say the same, or have not heard what is restored.
    pub(crate) fn spread_held(&mut self) {
        self.recall_held();
        let mut told = Vec::new();
        let mut can_hear = Vec::new();
        let patience = self.held.patience(SystemClock.now());
        for server in self.running() {
            // One that does not tell is of a version that cannot be told, either.
            let says = server.pong().map(|pong| pong.held.as_ref());
            if says.is_none_or(|says| says.is_some()) {
                can_hear.push(server.generation);
            }
            let tellings = says.flatten().map(|says| self.held.tellings(server.generation, says));
            let tellings = tellings.filter(|_| patience.is_some());
            for restored in tellings.unwrap_or_default() {
                if let Err(why) = self.tell_held(server, restored.clone(), patience) {
                    warn!("{}[{}] is told again: {why}", Role::Server.name(), server.process.pid());
                    break;
                }
                told.extend(restored.map(|one| (server.generation, one)));
            }
        }
        if let Some(until) = patience {
            self.held.was_told(SystemClock.now(), until);
        }
        self.held.untold.retain(|of| can_hear.contains(&of.0) && !told.contains(of));
    }

    /// The servers that may be told.
    fn running(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(|server| matches!(server.state, ServerState::Ready | ServerState::Standby))
    }

    /// `until` bounds what all of them take: manager gives no sign of life meanwhile. None: nobody is waited for.
    fn tell_held(&self, server: &Server, restored: Option<HeldServer>, until: Option<Instant>) -> Result<(), String> {
        let Some(servers) = self.held.known.clone() else {
            return Err("which servers are held by hand is not known".to_owned());
        };
        let within = until.map_or(Duration::ZERO, |until| until.since(SystemClock.now()));
        if within.is_zero() {
            return Err("it, or another one, did not answer a short time ago".to_owned());
        }
        let question = KvQuestion::Held { servers, restored };
        let socket = self.family.directory.server_socket(server.generation);
        let told = Connection::open(&socket).and_then(|connection| connection.ask(Request::Kv(question), within));
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
            && let Some(held) = &self.held.known
            && let Err(error) = held.keep(&self.family.directory)
        {
            warn!("{}: {error}", self.family.directory.held_servers().display());
        }
        let text = |HeldServer { pool, server }: HeldServer| {
            format!("pool {pool}: {server} is there no more, and is no longer held by hand")
        };
        forgotten.into_iter().map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn one(server: &str) -> HeldServer {
        HeldServer { pool: "a".to_owned(), server: server.to_owned() }
    }

    fn directory(name: &str) -> RuntimeDir {
        let home = std::env::temp_dir().join(format!("beltway-holding-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&home);
        let directory = RuntimeDir::new(&home);
        directory.create().unwrap();
        directory
    }

    #[test]
    fn while_the_file_cannot_be_read_nobody_is_told_and_it_is_not_written() {
        let directory = directory("unread");
        let file = directory.held_servers();
        [one("s"), one("t")].into_iter().collect::<Held>().keep(&directory).unwrap();
        let good = fs::read(&file).unwrap();
        let mut holding = Holding::default();
        fs::write(&file, "{").unwrap();
        assert!(holding.recall(&directory).is_err());
        assert!(holding.tellings(1, "of others").is_empty(), "nobody lets go of what it holds");
        let kv = config::parse("f", "{}").unwrap().kv;
        assert!(holding.forget_unknown(&kv).is_empty());
        assert!(holding.set(&directory, &one("u"), true).unwrap_err().contains("is not known"));
        assert_eq!(fs::read(&file).unwrap(), b"{");
        fs::write(&file, good).unwrap();
        assert!(holding.recall(&directory).unwrap());
        assert!(!holding.recall(&directory).unwrap(), "what is known is not read again");
        assert_eq!(holding.tellings(1, "of others"), [None]);
        assert_eq!(holding.set(&directory, &one("u"), true), Ok(()));
        assert_eq!(Held::read(&directory).unwrap().iter().count(), 3);
        fs::remove_dir_all(file.parent().unwrap()).unwrap();
    }

    #[test]
    fn what_is_restored_is_told_to_each_generation_until_it_has_heard_it_or_it_is_out_again() {
        let directory = directory("untold");
        let mut holding = Holding::default();
        holding.recall(&directory).unwrap();
        let same = Held::default().digest();
        holding.untold = [(1, one("s")), (1, one("t")), (2, one("s"))].into();
        assert_eq!(holding.tellings(1, &same), [Some(one("s")), Some(one("t"))]);
        assert_eq!(holding.tellings(2, "other"), [Some(one("s"))], "it is told all that is held with it");
        assert!(holding.tellings(3, &same).is_empty());
        holding.set(&directory, &one("s"), true).unwrap();
        assert_eq!(holding.untold, [(1, one("t"))].into());
        assert!(
            holding.forget_unknown(&config::parse("f", "{}").unwrap().kv) == [one("s")] && holding.untold.is_empty()
        );
        fs::remove_dir_all(directory.held_servers().parent().unwrap()).unwrap();
    }

    #[test]
    fn after_one_that_did_not_answer_nobody_is_waited_for_until_a_while_has_passed() {
        let mut holding = Holding::default();
        let now = SystemClock.now();
        let until = holding.patience(now).unwrap();
        holding.was_told(now, until);
        assert!(holding.patience(now).is_some(), "who answers is told again at once");
        holding.was_told(until, until);
        assert_eq!(holding.patience(until), None);
        let later = until + DEAF_FOR;
        assert_eq!(holding.patience(later), Some(later + HEARD_WITHIN));
    }
}
