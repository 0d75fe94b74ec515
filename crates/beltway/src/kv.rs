//! `beltway kv where`: which server a key belongs to and why, from a file alone. Nobody is asked, nothing runs.
//!
//! All servers count as live. The running server's own view, with those that are ejected, is `ctl kv where`.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::ToSocketAddrs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use base::Rng;
use config::kv::{Kv, KvPool, nutcracker};
use config::{Diagnostics, EjectPolicy};
use hashring::{Continuum, HashTag, Rules, Server, UnknownName, Way};
use serde_json::json;
use supervise::failure::{COULD_NOT, DONE, WRONG_CONFIGURATION, WRONG_USAGE};

use crate::cli::{KvCommand, Where};

pub(crate) fn dispatch(command: &KvCommand) -> u8 {
    match command {
        KvCommand::Where(asked) => whereabouts(asked),
    }
}

fn whereabouts(asked: &Where) -> u8 {
    let file = asked.config.clone().unwrap_or_else(|| config::DEFAULT_FILE.into());
    let kv = match read(&file) {
        Ok(kv) => kv,
        Err(wrong) => {
            eprintln!("{wrong}");
            return WRONG_CONFIGURATION;
        }
    };
    let text = match answer(&kv, &asked.pool, &asked.keys, asked.json, &|_| true) {
        Ok(text) => text,
        Err(why) => {
            eprintln!("beltway: {}: {why}", file.display());
            return if kv.pool(&asked.pool).is_none() { WRONG_USAGE } else { COULD_NOT };
        }
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => DONE,
        Err(error) => {
            eprintln!("beltway: the answer cannot be written: {error}");
            COULD_NOT
        }
    }
}

/// Where keys of a pool are when its live servers are these, by their names.
pub(crate) fn answer(
    kv: &Kv,
    pool: &str,
    keys: &[OsString],
    json: bool,
    live: &dyn Fn(&str) -> bool,
) -> Result<String, String> {
    let Some(pool) = kv.pool(pool) else {
        let names: Vec<&str> = kv.pools.iter().map(|pool| pool.name.as_str()).collect();
        let known =
            if names.is_empty() { "there is none".to_owned() } else { format!("there is {}", names.join(", ")) };
        return Err(format!("no pool {pool:?}; {known}"));
    };
    let ring = Ring::build(pool, live).map_err(|why| format!("pool {}: {why}", pool.name))?;
    let mut text = String::new();
    for key in keys {
        let mut found = ring.find(key.as_bytes());
        found.ejected = found.server.is_some_and(|at| !live(&pool.servers[at].ring_name()));
        // Writing to a string cannot fail.
        let _ =
            if json { writeln!(text, "{}", found.json(pool, key)) } else { write!(text, "{}", found.text(pool, key)) };
    }
    Ok(text)
}

/// The pools of Beltway's own file or of twemproxy's, whichever `file` is.
fn read(file: &Path) -> Result<Kv, Diagnostics> {
    let ours = match config::load_as_if(file, true) {
        Ok(config) => return Ok(config.kv),
        Err(wrong) => wrong,
    };
    let resolve = |host: &str, port: u16| {
        (host, port).to_socket_addrs()?.next().ok_or_else(|| std::io::Error::other("the name has no address"))
    };
    match nutcracker::load(file, &resolve) {
        Ok(read) => Ok(read.kv),
        Err(theirs) => Err(if has_keys_of_ours(file) { ours } else { theirs }),
    }
}

/// Whether a line begins with a key of Beltway's own file: then that is what it was meant to be.
fn has_keys_of_ours(file: &Path) -> bool {
    let is_ours = |line: &str| {
        config::table().iter().any(|key| line.strip_prefix(key.path).is_some_and(|rest| rest.starts_with(':')))
    };
    // One that cannot be read was refused for that by both.
    std::fs::read_to_string(file).is_ok_and(|text| text.lines().any(is_ours))
}

/// What chooses among a pool's servers.
struct Ring(Continuum);

/// Where one key is.
struct Found {
    /// The server's index; none when the pool has none.
    server: Option<usize>,
    hash: Option<u32>,
    why: String,
    /// Whether the next request may go elsewhere.
    by_chance: bool,
    /// Whether the server is ejected and keeps its keys all the same, by the pool's policy.
    ejected: bool,
}

impl Ring {
    fn build(pool: &KvPool, live: &dyn Fn(&str) -> bool) -> Result<Self, String> {
        let names: Vec<_> = pool.servers.iter().map(|server| (server.ring_name(), server.weight)).collect();
        let tag = pool.hash_tag.map(|[open, close]| HashTag::new(open, close));
        let unknown = |error: UnknownName| error.to_string();
        let distribution = pool.distribution.word().parse().map_err(unknown)?;
        let hash = pool.hash.word().parse().map_err(unknown)?;
        let servers: Vec<Server<'_>> =
            names.iter().map(|(name, weight)| Server { name: name.as_ref(), weight: *weight }).collect();
        let rehash = pool.eject_policy == EjectPolicy::Rehash;
        let rules = Rules { hash, distribution, tag };
        let ring = Continuum::build(&servers, rules, |at| !rehash || live(servers[at].name));
        ring.map(Self).map_err(|error| error.to_string())
    }

    fn find(&self, key: &[u8]) -> Found {
        // Only the distribution `random` draws from it, and says so.
        const SEED: u64 = 1;
        let placement = self.0.explain(key, &mut Rng::new(SEED));
        let by_chance = matches!(placement.way, Way::Random { .. }) && !placement.alone;
        let hashed = matches!(placement.way, Way::Ketama { .. } | Way::Modula { .. } | Way::Slots { .. });
        let hash = (hashed && !placement.alone).then_some(placement.hash);
        Found { server: placement.server, hash, why: placement.to_string(), by_chance, ejected: false }
    }
}

impl Found {
    fn text(&self, pool: &KvPool, key: &OsString) -> String {
        let key = key.as_bytes().escape_ascii();
        match self.server.map(|at| &pool.servers[at]) {
            Some(_) if self.by_chance => format!("{key}: {}\n", self.why),
            Some(server) => {
                let (address, name) = (server.address.to_string(), server.ring_name());
                let called = if name == address { String::new() } else { format!(" called {name}") };
                let policy = if self.ejected {
                    format!("\n  ejected, eject_policy: {}", pool.eject_policy)
                } else {
                    String::new()
                };
                format!("{key}: {address}{called}, weight {}\n  {}{policy}\n", server.weight, self.why)
            }
            None => format!("{key}: {}\n", self.why),
        }
    }

    fn json(&self, pool: &KvPool, key: &OsString) -> serde_json::Value {
        let server = self.server.filter(|_| !self.by_chance).map(|at| &pool.servers[at].value);
        json!({
            "key": key.as_bytes().escape_ascii().to_string(),
            "pool": pool.name.as_str(),
            "server": server.map(|server| server.address.to_string()),
            "name": server.map(config::kv::KvServer::ring_name),
            "weight": server.map(|server| server.weight),
            "hash": self.hash,
            "ejected": self.ejected,
            "why": self.why,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// The file that a pool of the recordings was made from.
    fn file(pool: &Value) -> String {
        let mut text = "p:\n  listen: 127.0.0.1:1\n  timeout: 1\n".to_owned();
        for key in ["hash", "distribution"] {
            let _ = writeln!(text, "  {key}: {}", pool[key].as_str().unwrap());
        }
        if let Some(tag) = pool["hash_tag"].as_str() {
            let _ = writeln!(text, "  hash_tag: \"{tag}\"");
        }
        text.push_str("  servers:\n");
        for (i, server) in pool["servers"].as_array().unwrap().iter().enumerate() {
            let (name, weight) = (server[0].as_str().unwrap(), server[1].as_u64().unwrap());
            // Without a name when the address makes it, so that this too is compared.
            let _ = match name.parse::<std::net::SocketAddr>() {
                Ok(address) => writeln!(text, "    - {address}:{weight}"),
                Err(_) if name.parse::<std::net::Ipv4Addr>().is_ok() => writeln!(text, "    - {name}:11211:{weight}"),
                Err(_) => writeln!(text, "    - 127.0.0.1:{}:{weight} {name}", i + 1),
            };
        }
        text
    }

    #[test]
    fn every_key_is_where_twemproxy_was_seen_to_put_it() {
        let recordings =
            [include_str!("../../hashring/vectors/nutcracker.json"), include_str!("../../hashring/vectors/more.json")];
        let mut compared = 0;
        for recording in recordings {
            let recording: Value = serde_json::from_str(recording).unwrap();
            let unhex = |hex: &Value| -> Vec<u8> {
                let hex = hex.as_str().unwrap().as_bytes().chunks(2);
                hex.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
            };
            let keys: Vec<Vec<u8>> = recording["keys_hex"].as_array().unwrap().iter().map(unhex).collect();
            for pool in recording["pools"].as_array().unwrap() {
                // Ejection is the running server's to tell.
                if pool["ejected"].as_array().is_some_and(|ejected| !ejected.is_empty()) {
                    continue;
                }
                let resolve = |_: &str, _: u16| Err(std::io::Error::other("not asked"));
                let read = nutcracker::parse("t", &file(pool), &resolve).unwrap_or_else(|wrong| panic!("{wrong}"));
                let ring = Ring::build(&read.kv.pools[0], &|_| true).unwrap();
                for (key, seen) in keys.iter().zip(pool["map"].as_str().unwrap().chars()) {
                    let seen = seen.to_digit(36).unwrap() as usize;
                    assert_eq!(ring.find(key).server, Some(seen), "{key:?} in\n{}", file(pool));
                    compared += 1;
                }
            }
        }
        assert!(compared > 9_000, "{compared}");
    }

    #[test]
    fn an_ejected_server_keeps_its_keys_where_the_policy_says_so() {
        let answer = |policy: &str| {
            let text = format!(
                "kv: {{pools: {{a: {{listen: 127.0.0.1:1, eject_policy: {policy}, servers: [\"s:1:1 one\", \"t:1:1 two\"]}}}}}}"
            );
            let config = config::parse_as_if("t", &text, true).unwrap();
            let keys: Vec<OsString> = (0..20).map(|n| format!("{n}:{}", n * 7_919).into()).collect();
            answer(&config.kv, "a", &keys, false, &|name| name != "one").unwrap()
        };
        assert!(!answer("rehash").contains("called one"));
        let kept = answer("miss");
        assert!(kept.contains("called one") && kept.contains("called two"), "{kept}");
        assert_eq!(kept.matches("called one").count(), kept.matches("ejected, eject_policy: miss").count());
    }

    #[test]
    fn the_answer_names_the_server_and_the_reason() {
        let answer = |distribution: &str| {
            let text = format!(
                "kv: {{pools: {{a: {{listen: 127.0.0.1:1, distribution: {distribution}, hash_tag: \"{{}}\", \
                 servers: [\"10.0.0.1:6379:1 one\", \"10.0.0.2:6379:2\"]}}}}}}"
            );
            let config = config::parse_as_if("t", &text, true).unwrap();
            let pool = config.kv.pools[0].clone();
            let found = Ring::build(&pool, &|_| true).unwrap().find(b"user:{7}\n");
            (found.text(&pool, &"user:{7}\n".into()), found.json(&pool, &"user:{7}\n".into()))
        };
        let (text, json) = answer("modula");
        assert!(text.starts_with("user:{7}\\n: 10.0.0."), "{text}");
        assert!(text.contains("bytes 6..7 hash to") && text.contains("by 3 leaves"), "{text}");
        assert!(json["server"].is_string() && json["hash"].is_u64() && json["pool"] == "a", "{json}");
        assert!(answer("ketama").0.contains("point"));
        assert!(answer("rendezvous").0.contains("the highest of 2 bids for bytes 6..7"));
        assert!(
            answer("slots").0.contains("slot 1716 of 0 to 5460") && answer("slots").1["hash"].is_u64(),
            "{}",
            answer("slots").0
        );
        let (text, json) = answer("random");
        assert!(text.contains("by chance one of 2") && !text.contains("10.0.0") && json["server"].is_null(), "{text}");
    }
}
