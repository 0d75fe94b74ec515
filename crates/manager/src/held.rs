//! Servers of pools that an operator took out of their rings: manager remembers them, and sees to it that every server
//! process knows.
//!
//! The file comes first ([`supervise::held`]): a server that starts reads it before it serves, so that what follows here
//! concerns those that run. One that says other than what is remembered, or has not heard that a server is restored, is
//! told with the next house-keeping; after one that did not answer nobody is waited for, for a while. Who has yet to hear
//! of a restore is written down before anybody is told, so that the next manager goes on with it.
//!
//! Of a damaged file what is whole counts, and what the servers say that live. While it cannot be read at all nobody is told
//! anything and it is not written: what the servers hold they go on holding. Start at [`Holding`].

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::{Clock, Instant, SystemClock};
use config::kv::Kv;
use supervise::control::{Connection, ControlError, Pong, Reply, Request};
use supervise::directory::RuntimeDir;
use supervise::held::{Held, HeldServer, Restores, pool_of};
use supervise::kv::KvQuestion;
use supervise::role::Role;
use supervise::status::ServerState;
use supervise::{error, info, warn};

use crate::servers::Server;
use crate::supervisor::Supervisor;

/// How long servers may take to hear it. The main thread of one waits for nobody, but may have much to answer.
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
    /// What is wrong with the file, as it was said last.
    trouble: String,
    /// Writing the file failed: it may say what was before or what was to come, and it may not be on the disk.
    is_in_doubt: bool,
    /// What was restored, with each generation that has not heard it.
    untold: Restores,
    /// A server did not answer in time: nobody is told before.
    deaf_until: Option<Instant>,
    /// What there is to say of files that were damaged and are written anew: nobody finds it in them again.
    unsaid: Vec<String>,
}

impl Holding {
    /// Reads what is remembered; of generations that do not live it is forgotten what they were to hear. Of what is damaged
    /// the rest is whatever `ask` says that the servers hold. What there is to say is in `unsaid`, also after a failure.
    fn recall(
        &mut self,
        directory: &RuntimeDir,
        living: &[u64],
        ask: impl FnOnce() -> Result<Vec<(u64, Held)>, String>,
    ) -> Result<(), String> {
        let in_file = |file: PathBuf| move |error: io::Error| format!("{}: {error}", file.display());
        let (mut untold, missed) = Restores::read(directory).map_err(in_file(directory.restored_servers()))?;
        let (mut held, damage) = Held::read(directory).map_err(in_file(directory.held_servers()))?;
        untold.retain(|(generation, one)| living.contains(generation) && !held.contains(one));
        if !missed.is_empty() {
            kept(&directory.restored_servers(), untold.keep(directory))?;
            self.unsaid.extend(missed);
        }
        if !damage.is_empty() {
            let mut said = damage;
            for (generation, theirs) in ask()? {
                let more = theirs.iter().filter(|one| !untold.of(generation).any(|restored| restored == *one));
                for one in more {
                    if !held.contains(one) {
                        let HeldServer { pool, server } = one;
                        said.push(format!(
                            "pool {pool}: {server} is held still by generation {generation}, and stays so"
                        ));
                        held.set(one.clone(), true)?;
                    }
                }
            }
            self.write(directory, &held)?;
            self.unsaid.extend(said);
        }
        (self.known, self.untold) = (Some(held), untold);
        Ok(())
    }

    /// Sees to it that the file says what is known. In words what there is to say.
    fn assure(&mut self, directory: &RuntimeDir) -> Result<Option<String>, String> {
        let Some(known) = self.known.clone() else { return Ok(None) };
        let was_in_doubt = self.is_in_doubt;
        let is_known = |(held, damage): (Held, Vec<_>)| damage.is_empty() && held == known;
        if !was_in_doubt && Held::read(directory).is_ok_and(is_known) {
            return Ok(None);
        }
        self.write(directory, &known)?;
        let what = if was_in_doubt {
            "it could not be written before, and is written now"
        } else {
            "somebody changed it: it is written again as it was"
        };
        Ok(Some(format!("{}: {what}", directory.held_servers().display())))
    }

    /// Writes that these are held.
    fn write(&mut self, directory: &RuntimeDir, held: &Held) -> Result<(), String> {
        let written = kept(&directory.held_servers(), held.keep(directory));
        self.is_in_doubt = written.is_err();
        written
    }

    /// Remembers that a server is out, or back, of which these generations are to hear. In words why that cannot be.
    fn set(&mut self, directory: &RuntimeDir, one: &HeldServer, out: bool, generations: &[u64]) -> Result<(), String> {
        let Some(known) = &self.known else {
            return Err(format!("which servers are held by hand is not known: {}", self.trouble));
        };
        let mut held = known.clone();
        held.set(one.clone(), out)?;
        if !out {
            // First: where both files name it, it is held, and nobody was told that it is not.
            let mut untold = self.untold.clone();
            generations.iter().for_each(|generation| untold.add(*generation, one.clone()));
            kept(&directory.restored_servers(), untold.keep(directory))?;
            self.untold = untold;
        }
        self.write(directory, &held)?;
        self.known = Some(held);
        if out {
            self.settle(directory, |(_, restored)| restored != one);
        }
        Ok(())
    }

    /// Of what servers are to hear, keeps just that.
    fn settle(&mut self, directory: &RuntimeDir, is_kept: impl FnMut(&(u64, HeldServer)) -> bool) {
        let before = self.untold.clone();
        self.untold.retain(is_kept);
        if self.untold != before
            && let Err(why) = kept(&directory.restored_servers(), self.untold.keep(directory))
        {
            warn!("{why}: a restore may be told again");
        }
    }

    /// What a server is to be told that says this digest: what it holds is other, or a server is restored; one at a time.
    fn tellings(&self, generation: u64, says: &str) -> Vec<Option<HeldServer>> {
        let Some(held) = &self.known else { return Vec::new() };
        let restored: Vec<_> = self.untold.of(generation).map(|one| Some(one.clone())).collect();
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
    fn forget_unknown(&mut self, directory: &RuntimeDir, kv: &Kv) -> Vec<HeldServer> {
        let mut untold: Held = self.untold.iter().map(|(_, one)| one.clone()).collect();
        let gone = untold.forget_unknown(kv);
        self.settle(directory, |(_, one)| !gone.contains(one));
        let Some(mut held) = self.known.clone() else { return Vec::new() };
        let forgotten = held.forget_unknown(kv);
        if !forgotten.is_empty() {
            if let Err(why) = self.write(directory, &held) {
                warn!("{why}");
            }
            self.known = Some(held);
        }
        forgotten
    }

    /// Says what is wrong with the file, unless that was said last.
    fn complain(&mut self, why: String, what: &str) {
        if self.trouble != why {
            error!("{why}: {what}");
            self.trouble = why;
        }
    }
}

/// What became of writing a file. What it was before, if that was damaged, is named.
fn kept(file: &Path, aside: io::Result<Option<PathBuf>>) -> Result<(), String> {
    match aside {
        Ok(None) => Ok(()),
        Ok(Some(aside)) => {
            warn!("{}: it was damaged, and is kept as {}", file.display(), aside.display());
            Ok(())
        }
        Err(error) => Err(format!("{}: {error}", file.display())),
    }
}

/// Whether a server that says this in its signs of life is of a version that cannot hold anything.
fn holds_nothing(pong: Option<&Pong>) -> bool {
    pong.is_some_and(|pong| pong.held.is_none())
}

/// What a server holds that was asked. A refusal says nothing of it: it may have been asked too much. Nor does it that nobody
/// was there: the socket may have been removed, and is put back.
fn said_to_be_held(answer: Result<Reply, ControlError>) -> Result<Held, String> {
    match answer {
        Ok(Reply::Held(held)) => Ok(held),
        Ok(other) => Err(format!("it answers {other:?}")),
        Err(error) => Err(error.to_string()),
    }
}

impl Supervisor {
    /// Takes up what the manager before remembered; once that is done, sees to it that it stays written.
    pub(crate) fn recall_held(&mut self) {
        let directory = self.family.directory.clone();
        let mut held = std::mem::take(&mut self.held);
        if held.known.is_some() {
            match held.assure(&directory) {
                Ok(None) => held.trouble.clear(),
                Ok(Some(said)) => warn!("{said}"),
                Err(why) => held.complain(why, "it does not say which servers are held by hand"),
            }
            self.held = held;
            return;
        }
        let living: Vec<_> = self.servers.iter().map(|server| server.generation).collect();
        let now = SystemClock.now();
        let patience = held.patience(now);
        let recalled = held.recall(&directory, &living, || self.what_servers_hold(patience));
        if let Some(until) = patience {
            held.was_told(SystemClock.now(), until);
        }
        self.held = held;
        for said in std::mem::take(&mut self.held.unsaid) {
            error!("{said}");
        }
        match recalled {
            Ok(()) => {
                for HeldServer { pool, server } in self.held.known.iter().flat_map(Held::iter) {
                    info!("pool {pool}: {server} is held out of its ring by hand");
                }
                for forgotten in self.forget_held() {
                    info!("{forgotten}");
                }
            }
            Err(why) => {
                let what =
                    "which servers are held by hand is not known, and nothing about it changes before that is mended";
                self.held.complain(why, what);
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
        let to_hear = self.servers.iter().filter(|server| server.state != ServerState::Draining);
        let to_hear: Vec<_> = to_hear.map(|server| server.generation).collect();
        if let Err(why) = self.held.set(&self.family.directory, &one, out, &to_hear) {
            return Reply::Refused(why);
        }
        let what = if out { "is held out of its ring by hand" } else { "is restored by hand" };
        info!("pool {}: {server} {what}", one.pool);
        let mut reply = Reply::Done;
        let mut told = Vec::new();
        let until = self.held.patience(SystemClock.now());
        for server in self.running() {
            match self.tell_held(server, (!out).then(|| one.clone()), until) {
                Ok(()) => told.push(server.generation),
                Err(why) => {
                    let why = format!("it is remembered, and told again to generation {}: {why}", server.generation);
                    warn!("{why}");
                    reply = Reply::Refused(why);
                }
            }
        }
        if let Some(until) = until {
            self.held.was_told(SystemClock.now(), until);
        }
        let directory = &self.family.directory;
        self.held.settle(directory, |(generation, restored)| *restored != one || !told.contains(generation));
        reply
    }

    /// Tells the servers that do not say the same, or have not heard what is restored.
    pub(crate) fn spread_held(&mut self) {
        self.recall_held();
        let mut told = Vec::new();
        let mut deaf = Vec::new();
        let patience = self.held.patience(SystemClock.now());
        for server in self.running() {
            // One that does not tell is of a version that cannot be told, either.
            if holds_nothing(server.pong()) {
                deaf.push(server.generation);
            }
            let says = server.pong().and_then(|pong| pong.held.as_ref());
            let tellings = says.map(|says| self.held.tellings(server.generation, says));
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
        let living = self.servers.iter().filter(|server| server.state != ServerState::Draining);
        let living: Vec<_> = living.map(|server| server.generation).collect();
        let can_hear = |generation: &u64| living.contains(generation) && !deaf.contains(generation);
        self.held.settle(&self.family.directory, |of| can_hear(&of.0) && !told.contains(of));
    }

    /// The servers that may be told: they run, or another manager has started them.
    fn running(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(|server| match server.state {
            ServerState::Ready | ServerState::Standby => true,
            ServerState::Starting => server.adopted,
            ServerState::Draining => false,
        })
    }

    /// What each of the servers holds that run.
    fn what_servers_hold(&self, until: Option<Instant>) -> Result<Vec<(u64, Held)>, String> {
        let mut held = Vec::new();
        for server in self.running().filter(|server| !holds_nothing(server.pong())) {
            let theirs = said_to_be_held(self.ask_about_held(server, KvQuestion::WhatIsHeld, until));
            let theirs =
                theirs.map_err(|why| format!("generation {} does not say what it holds: {why}", server.generation))?;
            held.push((server.generation, theirs));
        }
        Ok(held)
    }

    fn tell_held(&self, server: &Server, restored: Option<HeldServer>, until: Option<Instant>) -> Result<(), String> {
        let Some(servers) = self.held.known.clone() else {
            return Err("which servers are held by hand is not known".to_owned());
        };
        match self.ask_about_held(server, KvQuestion::Held { servers, restored }, until) {
            Ok(Reply::Done) => Ok(()),
            Ok(other) => Err(format!("it answers {other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// `until` bounds what all of them take: manager gives no sign of life meanwhile. None: nobody is waited for.
    fn ask_about_held(
        &self,
        server: &Server,
        question: KvQuestion,
        until: Option<Instant>,
    ) -> Result<Reply, ControlError> {
        let within = until.map_or(Duration::ZERO, |until| until.since(SystemClock.now()));
        if within.is_zero() {
            let error = io::Error::new(io::ErrorKind::TimedOut, "it, or another one, did not answer a short time ago");
            return Err(ControlError::Io(error));
        }
        let socket = self.family.directory.server_socket(server.generation);
        Connection::open(&socket)?.ask(Request::Kv(question), within).map(|(reply, _)| reply)
    }

    /// Forgets the servers that the configuration in force does not have. What is to be said of each.
    pub(crate) fn forget_held(&mut self) -> Vec<String> {
        let forgotten = self.held.forget_unknown(&self.family.directory, &self.config.kv);
        let text = |HeldServer { pool, server }: HeldServer| {
            format!("pool {pool}: {server} is there no more, and is no longer held by hand")
        };
        forgotten.into_iter().map(text).collect()
    }
}

#[cfg(test)]
mod tests;
