//! What pools and servers there are, and how they are: of the configuration and of the threads that use them.

use std::collections::HashMap;

use config::Config;
use config::kv::{COUNTED_POOLS_MAX, COUNTED_SERVERS_MAX, KvServer};
use kv::ServerState;

/// What the configuration says of a pool.
#[derive(Clone, Debug)]
pub(crate) struct PoolFacts {
    pub(crate) name: String,
    pub(crate) redis: bool,
    pub(crate) listen: String,
    pub(crate) keep_alive: bool,
    pub(crate) memory: u64,
    pub(crate) servers: Vec<String>,
    /// Whether a server process that starts with this configuration counts it by itself, and how many of its servers.
    counts: Option<usize>,
}

impl PoolFacts {
    /// Of every pool.
    pub(crate) fn of(config: &Config) -> Vec<Self> {
        let mut room = COUNTED_SERVERS_MAX;
        let pools = config.kv.pools.iter().enumerate().map(|(at, pool)| Self {
            counts: (at < COUNTED_POOLS_MAX).then(|| {
                let counts = pool.servers.len().min(room);
                room -= counts;
                counts
            }),
            name: pool.name.value.clone(),
            redis: pool.redis,
            listen: pool.listen.to_string(),
            keep_alive: pool.tcpkeepalive,
            memory: pool.memory.0,
            servers: pool.servers.iter().map(|server| KvServer::ring_name(server).into_owned()).collect(),
        });
        pools.collect()
    }
}

impl PoolFacts {
    /// Why this pool, which the running server does not count by itself, is not.
    pub(super) fn why_uncounted(&self) -> String {
        match self.counts {
            Some(_) => "counted from the next restart on".to_owned(),
            None => format!("only the first {COUNTED_POOLS_MAX} pools are counted by themselves"),
        }
    }

    /// The same of one of its servers.
    pub(super) fn why_server_is_uncounted(&self, at: usize) -> String {
        match self.counts {
            Some(counts) if at < counts => "counted from the next restart on".to_owned(),
            Some(_) => format!("only the first {COUNTED_SERVERS_MAX} servers are counted by themselves"),
            None => self.why_uncounted(),
        }
    }
}

/// What the event threads say of their servers, at about one moment.
#[derive(Debug, Default)]
pub(crate) struct States {
    threads: usize,
    /// What each thread said that did.
    said: Vec<HashMap<(String, String), ServerState>>,
}

impl States {
    /// Of so many threads, some of which have said how their servers are.
    pub(crate) fn new(threads: usize, said: Vec<Vec<ServerState>>) -> Self {
        let by_name = |states: Vec<ServerState>| {
            states.into_iter().map(|state| ((state.pool.clone(), state.server.clone()), state)).collect()
        };
        Self { threads, said: said.into_iter().map(by_name).collect() }
    }

    /// How many threads have not said.
    pub(super) fn silent(&self) -> usize {
        self.threads.saturating_sub(self.said.len())
    }

    /// The state of a server in words, and on how many threads it is out of its ring, by those that have said: who is silent
    /// is busy, and its servers may be either.
    pub(super) fn of(&self, pool: &str, server: &str) -> (String, usize) {
        let key = (pool.to_owned(), server.to_owned());
        let own: Vec<_> = self.said.iter().map(|states| states.get(&key)).collect();
        // A thread that does not know it has a newer configuration still to take, and sends it nothing until then.
        let ejected = own.iter().filter(|state| state.is_none_or(|state| !state.is_live)).count();
        let words: Vec<&str> = own.iter().map(|state| state.map_or("new", |state| state.state)).collect();
        let on = |word: &str| words.iter().filter(|other| **other == word).count();
        let text = match words.first() {
            None => "unknown".to_owned(),
            Some(first) if on(first) == words.len() => (*first).to_owned(),
            Some(_) => format!("live on {} of {} threads", on("live"), words.len()),
        };
        (text, ejected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_server_is_comes_from_the_threads_that_use_it_and_from_nothing_else() {
        let state = |state, is_live| vec![ServerState { pool: "a".to_owned(), server: "s".to_owned(), state, is_live }];
        let told = |threads, said: Vec<Vec<ServerState>>| {
            let states = States::new(threads, said);
            let (text, ejected) = states.of("a", "s");
            (text, ejected, states.silent())
        };
        let (live, out, down) = (state("live", true), state("ejected", false), state("down", true));
        assert_eq!(told(2, vec![out.clone(), out.clone()]), ("ejected".to_owned(), 2, 0));
        assert_eq!(told(2, vec![live.clone(), out.clone()]), ("live on 1 of 2 threads".to_owned(), 1, 0));
        assert_eq!(told(2, vec![down.clone(), down]), ("down".to_owned(), 0, 0));
        assert_eq!(told(2, vec![out.clone()]), ("ejected".to_owned(), 1, 1), "the other one is busy");
        assert_eq!(told(2, vec![live.clone()]), ("live".to_owned(), 0, 1));
        assert_eq!(told(3, vec![live.clone(), out]), ("live on 1 of 2 threads".to_owned(), 1, 1));
        assert_eq!(told(2, vec![Vec::new(), Vec::new()]), ("new".to_owned(), 2, 0), "nobody sends it anything");
        assert_eq!(told(2, vec![Vec::new(), live]), ("live on 1 of 2 threads".to_owned(), 1, 0));
        assert_eq!(told(2, Vec::new()), ("unknown".to_owned(), 0, 2));
    }

    #[test]
    fn what_is_not_counted_says_why_and_truly() {
        let servers = |count: usize| (0..count).map(|at| format!("      - 127.0.0.1:1:1 s{at}\n")).collect::<String>();
        let pool = |name: &str, port: u16, count| {
            format!("    {name}:\n      listen: 127.0.0.1:{port}\n      servers:\n{}", servers(count))
        };
        let text = format!("kv:\n  pools:\n{}{}", pool("a", 1, 100), pool("b", 2, 33));
        let config = config::parse("f", &text).unwrap();
        let warnings: Vec<String> = config.warnings().iter().map(ToString::to_string).collect();
        assert!(warnings.len() == 1 && warnings[0].contains("133 servers: from `s28` on"), "{warnings:?}");
        let facts = PoolFacts::of(&config);
        assert!(facts[1].why_server_is_uncounted(27).contains("next restart"));
        assert!(facts[1].why_server_is_uncounted(28).contains("the first 128 servers"));
        assert!(facts[0].why_server_is_uncounted(99).contains("next restart"));
        let pools: String = (0..66).map(|at| pool(&format!("p{at}"), at + 1, 1)).collect();
        let config = config::parse("f", &format!("kv:\n  pools:\n{pools}")).unwrap();
        assert_eq!(config.warnings().len(), 1);
        let facts = PoolFacts::of(&config);
        assert!(facts[63].why_uncounted().contains("next restart"));
        assert!(facts[64].why_uncounted().contains("the first 64 pools"));
        assert!(facts[64].why_server_is_uncounted(0).contains("the first 64 pools"));
    }
}
