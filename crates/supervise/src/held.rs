//! Servers of pools that an operator took out of their rings: remembered until somebody takes them back, whoever dies.
//!
//! They stand in one file of the runtime directory, which manager writes before it tells anybody, and a server reads before
//! it serves; one that runs without a manager writes it itself. Whoever is named and is not in the configuration is
//! forgotten. Of those that were taken back it is remembered which server processes have yet to hear it, in a file beside;
//! where both name a server it is held. Start at [`Held`]; how such a file is written and what becomes of a damaged one is
//! the business of `lines`.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use config::kv::Kv;
use serde::{Deserialize, Serialize};

use crate::directory::RuntimeDir;
use crate::lines::{self, Damage, Outlives};

/// Bytes of all their names, at most: they are told in one packet.
const NAMES_BYTES_MAX: usize = 64 << 10;
/// What each takes besides.
const BYTES_BESIDE: usize = 32;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HeldServer {
    /// Its pool.
    pub pool: String,
    /// The name that places its keys.
    pub server: String,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held(BTreeSet<HeldServer>);

impl Held {
    /// What is remembered in this directory, as far as it can be read; and in words what cannot.
    ///
    /// # Errors
    /// The file cannot be read at all.
    pub fn read(directory: &RuntimeDir) -> io::Result<(Self, Vec<String>)> {
        let file = directory.held_servers();
        let read = lines::read(&file)?;
        let remedy = "what it named is held no more, unless a server process that runs holds it still: `beltway ctl kv eject \
                      SERVER` takes it out again";
        let mut complaints = in_words(&file, &read.damage, remedy);
        let mut held = Self::default();
        for server in read.entries {
            complaints.extend(held.set(server, true).err());
        }
        Ok((held, complaints))
    }

    /// Remembers them in this directory. What was there and is damaged is kept; the answer says where.
    ///
    /// # Errors
    /// What writing says; what was remembered before still is.
    pub fn keep(&self, directory: &RuntimeDir) -> io::Result<Option<PathBuf>> {
        lines::replace(&directory.held_servers(), &self.0.iter().cloned().collect::<Vec<_>>(), Outlives::Power)
    }

    /// Takes one in, or out.
    ///
    /// # Errors
    /// There are as many as may be; in words.
    pub fn set(&mut self, server: HeldServer, out: bool) -> Result<(), String> {
        if !out {
            self.0.remove(&server);
            return Ok(());
        }
        let len = |server: &HeldServer| server.pool.len() + server.server.len() + BYTES_BESIDE;
        if !self.0.contains(&server) && self.0.iter().map(len).sum::<usize>() + len(&server) > NAMES_BYTES_MAX {
            return Err(format!("{} servers are held already, and no more can be", self.0.len()));
        }
        self.0.insert(server);
        Ok(())
    }

    /// Forgets those that are not in this configuration, and says which.
    pub fn forget_unknown(&mut self, kv: &Kv) -> Vec<HeldServer> {
        let known = |held: &HeldServer| {
            let servers = kv.pool(&held.pool).map(|pool| pool.servers.as_slice()).unwrap_or_default();
            servers.iter().any(|server| server.ring_name() == held.server)
        };
        let (known, unknown) = std::mem::take(&mut self.0).into_iter().partition(known);
        self.0 = known;
        let unknown: BTreeSet<HeldServer> = unknown;
        unknown.into_iter().collect()
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn contains(&self, server: &HeldServer) -> bool {
        self.0.contains(server)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &HeldServer> {
        self.0.iter()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A few letters that tell these from others.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        for name in self.0.iter().flat_map(|held| [&held.pool, &held.server]) {
            hasher.update(&name.len().to_le_bytes());
            hasher.update(name.as_bytes());
        }
        format!("{:016x}", hasher.digest())
    }
}

impl FromIterator<HeldServer> for Held {
    fn from_iter<I: IntoIterator<Item = HeldServer>>(servers: I) -> Self {
        Self(servers.into_iter().collect())
    }
}

/// Servers that were taken back, each with the generation of a server process that has yet to hear it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restores(BTreeSet<(u64, HeldServer)>);

/// One of them, as it is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Restore {
    generation: u64,
    #[serde(flatten)]
    server: HeldServer,
}

impl Restores {
    /// What is remembered in this directory, as far as it can be read; and in words what cannot.
    ///
    /// # Errors
    /// The file cannot be read at all.
    pub fn read(directory: &RuntimeDir) -> io::Result<(Self, Vec<String>)> {
        let file = directory.restored_servers();
        let read = lines::read(&file)?;
        let remedy = "a server that it named may still be out: `beltway ctl kv restore SERVER` takes it back";
        let complaints = in_words(&file, &read.damage, remedy);
        Ok((
            Self(read.entries.into_iter().map(|Restore { generation, server }| (generation, server)).collect()),
            complaints,
        ))
    }

    /// Remembers them in this directory, as long as the machine has power. What was there and is damaged is kept; the
    /// answer says where.
    ///
    /// # Errors
    /// What writing says; what was remembered before still is.
    pub fn keep(&self, directory: &RuntimeDir) -> io::Result<Option<PathBuf>> {
        let restores =
            self.0.iter().map(|(generation, server)| Restore { generation: *generation, server: server.clone() });
        // Whoever is to hear it dies with the machine.
        lines::replace(&directory.restored_servers(), &restores.collect::<Vec<_>>(), Outlives::Process)
    }

    /// That generation is to hear it.
    pub fn add(&mut self, generation: u64, server: HeldServer) {
        self.0.insert((generation, server));
    }

    /// Keeps those of which this is true.
    pub fn retain(&mut self, is_kept: impl FnMut(&(u64, HeldServer)) -> bool) {
        self.0.retain(is_kept);
    }

    /// What a generation is to hear.
    pub fn of(&self, generation: u64) -> impl Iterator<Item = &HeldServer> {
        self.0.iter().filter(move |(of, _)| *of == generation).map(|(_, server)| server)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &(u64, HeldServer)> {
        self.0.iter()
    }
}

/// Each damaged place of a file, and what to do about it.
fn in_words(file: &Path, damage: &[Damage], remedy: &str) -> Vec<String> {
    damage.iter().map(|damage| format!("{}:{}: {damage}; {remedy}", file.display(), damage.line)).collect()
}

/// The pool that is meant by a server's name: the one that was named, or the only one of `pools` that has it. Each comes
/// with its name and whether it has such a server.
///
/// # Errors
/// There is none, or there are several; in words.
pub fn pool_of<'p>(
    pools: impl Iterator<Item = (&'p str, bool)>,
    named: Option<&str>,
    server: &str,
) -> Result<String, String> {
    let found: Vec<&str> =
        pools.filter(|(name, has)| *has && named.is_none_or(|named| named == *name)).map(|(name, _)| name).collect();
    match (found.as_slice(), named) {
        ([only], _) => Ok((*only).to_owned()),
        ([], Some(pool)) => Err(format!("there is no pool \"{pool}\" with a server \"{server}\"")),
        ([], None) => Err(format!("no pool has a server \"{server}\"")),
        (several, _) => Err(format!("several pools have a server \"{server}\": {}", several.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn one(pool: &str, server: &str) -> HeldServer {
        HeldServer { pool: pool.to_owned(), server: server.to_owned() }
    }

    #[test]
    fn what_is_held_is_remembered_until_it_is_taken_back_or_is_no_more() {
        let home = std::env::temp_dir().join(format!("beltway-held-{}", std::process::id()));
        let _ = fs::remove_dir_all(&home);
        let directory = RuntimeDir::new(&home);
        directory.create().unwrap();
        let (mut held, damage) = Held::read(&directory).unwrap();
        assert!(held.is_empty() && damage.is_empty());
        held.set(one("a", "127.0.0.1:1"), true).unwrap();
        held.set(one("a", "gone"), true).unwrap();
        held.set(one("b", "127.0.0.1:1"), true).unwrap();
        held.keep(&directory).unwrap();
        directory.forget_run().unwrap();
        let (mut read, _) = Held::read(&directory).unwrap();
        assert_eq!((read.digest(), &read), (held.digest(), &held), "also when everything was stopped meanwhile");
        let pools = "kv: {pools: {a: {listen: 127.0.0.1:2, servers: [\"127.0.0.1:1:1\"]}}}";
        let config = config::parse("f", pools).unwrap();
        assert_eq!(read.forget_unknown(&config.kv), [one("a", "gone"), one("b", "127.0.0.1:1")]);
        assert_eq!(read.iter().count(), 1);
        assert_ne!(read.digest(), held.digest());
        read.set(one("a", "127.0.0.1:1"), false).unwrap();
        read.keep(&directory).unwrap();
        assert!(!directory.held_servers().exists());
        fs::create_dir(directory.held_servers()).unwrap();
        assert!(Held::read(&directory).is_err() && held.keep(&directory).is_err());
        fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn what_is_damaged_is_named_with_its_line_and_a_remedy_and_the_rest_is_read() {
        let home = std::env::temp_dir().join(format!("beltway-held-damaged-{}", std::process::id()));
        let _ = fs::remove_dir_all(&home);
        let directory = RuntimeDir::new(&home);
        directory.create().unwrap();
        let held: Held = ["s", "t", "u"].map(|server| one("a", server)).into_iter().collect();
        held.keep(&directory).unwrap();
        let file = directory.held_servers();
        let damaged = fs::read_to_string(&file).unwrap().replace("\"t\"", "\"t");
        fs::write(&file, &damaged).unwrap();
        let (read, complaints) = Held::read(&directory).unwrap();
        assert_eq!(read, ["s", "u"].map(|server| one("a", server)).into_iter().collect());
        assert!(
            complaints.len() == 1 && complaints[0].starts_with(&format!("{}:3: ", file.display())),
            "{complaints:?}"
        );
        assert!(complaints[0].contains("beltway ctl kv eject SERVER"), "{complaints:?}");
        let aside = read.keep(&directory).unwrap().unwrap();
        assert_eq!(fs::read_to_string(aside).unwrap(), damaged);
        assert_eq!(Held::read(&directory).unwrap(), (read, vec![]));

        let mut restores = Restores::default();
        restores.add(3, one("a", "s"));
        restores.add(4, one("a", "s"));
        restores.keep(&directory).unwrap();
        assert_eq!(Restores::read(&directory).unwrap(), (restores.clone(), vec![]));
        assert_eq!(restores.of(4).collect::<Vec<_>>(), [&one("a", "s")]);
        directory.forget_run().unwrap();
        assert_eq!(Restores::read(&directory).unwrap().0, Restores::default(), "whoever was to hear it is dead");
        fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn no_more_are_held_than_one_packet_tells() {
        let mut held = Held::default();
        let count = (0..10_000).take_while(|at| held.set(one("pool", &format!("server{at}")), true).is_ok()).count();
        assert!(count > 1_000 && count < 2_000, "{count}");
        assert_eq!(held.set(one("pool", "server0"), true), Ok(()), "it is there already");
        assert!(serde_json::to_vec(&held).unwrap().len() < crate::control::PACKET_MAX);
    }

    #[test]
    fn a_server_is_found_by_its_name_alone_when_one_pool_has_it() {
        let of = |named| pool_of([("a", true), ("b", true), ("c", false)].into_iter(), named, "s");
        assert_eq!(of(Some("b")), Ok("b".to_owned()));
        assert!(of(None).unwrap_err().contains("several pools have a server \"s\": a, b"));
        assert!(of(Some("c")).is_err() && pool_of(std::iter::empty(), None, "s").is_err());
        assert_eq!(pool_of([("a", false), ("b", true)].into_iter(), None, "s"), Ok("b".to_owned()));
    }
}
