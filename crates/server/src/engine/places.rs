//! How many connections there may be: the descriptors that a process may open, divided among all who open some.
//!
//! ```text
//! the limit ─┬─ a reserve: logs, listeners, leases, what the process needs itself
//!            ├─ the own pages; the origin and the stores that demonstrate rules and pools
//!            ├─ to servers of pools, and to origins
//!            └─ clients of both engines together, of which neither may take the other's last ones
//! ```
//!
//! So however many come, of whichever kind, they leave descriptors for the others: clients wait in the kernel's queue
//! instead. Connections to origins have places set aside, and keep no more than those when they are idle; how many are in
//! use at a time is for requests to say, and nobody counts them. Pure: [`Places::divide`] takes the limit and what is
//! configured.

use config::Config;

/// Descriptors that connections may not take: logs, listeners, and what the process needs itself.
const RESERVE: usize = 256;
/// Those that an event thread takes for itself: its poll, what wakes it, and the pipe and the null device by which it
/// lends pages to the kernel.
const RESERVE_A_THREAD: usize = 5;
/// Connections to the own pages, to the embedded origin, and to the stores, each: so many, ...
const LOCAL_MIN: usize = 32;
/// ... and one in so many beyond the reserve, ...
const LOCAL_SHARE: usize = 32;
/// ... but never more.
const LOCAL_MAX: usize = 1_024;
/// Of what is left, one in so many is for origins.
const ORIGIN_SHARE: usize = 3;
/// Servers of pools may take two of so many, whatever is configured.
const OUTWARD_SHARE: usize = 3;
/// Where both engines have clients, one in so many places of all is the other's alone.
const OTHERS_SHARE: usize = 8;

/// Who may have how many connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Places {
    /// Clients of both engines together.
    pub(crate) clients: usize,
    /// Of these, HTTP's at most.
    pub(crate) http: usize,
    /// Of these, the pools' at most.
    pub(crate) kv: usize,
    /// To the server's own pages.
    pub(crate) pages: usize,
    /// To the embedded origin: of its own, for the proxy keeps connections to it, and pages must answer all the same.
    pub(crate) demo: usize,
    /// To the embedded stores and the port of twemproxy's numbers.
    pub(crate) stores: usize,
    /// To origins, set aside for all threads together: as many may be kept while they are idle.
    pub(crate) origins: usize,
}

impl Places {
    /// With as many descriptors as this process may have.
    pub(crate) fn of(config: &Config, threads: usize) -> Self {
        Self::with(usize::try_from(sys::thread::raise_descriptor_limit()).unwrap_or(usize::MAX), config, threads)
    }

    fn with(descriptors: usize, config: &Config, threads: usize) -> Self {
        let servers = config.kv.pools.iter().map(|pool| pool.servers.len() * pool.server_connections as usize);
        let has_stores = config.kv.stats.is_some() || config.demo.redis.is_some() || config.demo.memcached.is_some();
        Self::divide(&Wanted {
            descriptors,
            threads,
            http: !config.http.listen.is_empty(),
            kv: !config.kv.pools.is_empty(),
            http_most: config.http.limits.connections,
            servers: servers.sum::<usize>() * threads,
            has_stores,
            has_demo: config.demo.origin.is_some(),
        })
    }

    fn divide(wanted: &Wanted) -> Self {
        let rest = wanted.descriptors.saturating_sub(reserve(wanted.threads)).max(1);
        let local = (LOCAL_MIN + rest / LOCAL_SHARE).min(LOCAL_MAX).min(rest / 4).max(1);
        let stores = if wanted.has_stores { local } else { 0 };
        let demo = if wanted.has_demo { local } else { 0 };
        let rest = rest.saturating_sub(local + stores + demo).max(1);
        let servers = wanted.servers.min(rest - rest.div_ceil(OUTWARD_SHARE));
        let origins = if wanted.http { (rest - servers) / ORIGIN_SHARE } else { 0 };
        let clients = (rest - servers - origins).max(1);
        let each = if wanted.http && wanted.kv { (clients - clients / OTHERS_SHARE).max(1) } else { clients };
        let http = wanted.http_most.map_or(each, |most| most.min(each));
        Self { clients, http, kv: each, pages: local, demo, stores, origins }
    }
}

/// Descriptors that no connection may take.
const fn reserve(threads: usize) -> usize {
    RESERVE.saturating_add(threads.saturating_mul(RESERVE_A_THREAD))
}

/// What places are divided by.
#[derive(Clone, Copy)]
struct Wanted {
    descriptors: usize,
    threads: usize,
    /// There are clients of HTTP, of pools.
    http: bool,
    kv: bool,
    /// As it is configured.
    http_most: Option<usize>,
    /// Connections to servers of pools, on all threads.
    servers: usize,
    has_stores: bool,
    has_demo: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Wanted = Wanted {
        descriptors: 1_024,
        threads: 2,
        http: true,
        kv: true,
        http_most: None,
        servers: 0,
        has_stores: true,
        has_demo: true,
    };

    fn fits(wanted: &Wanted) {
        let places = Places::divide(wanted);
        let what = format!("{} descriptors, {} servers: {places:?}", wanted.descriptors, wanted.servers);
        // Who is allowed next to nothing has the reserve to live on.
        let rest = wanted.descriptors.saturating_sub(reserve(wanted.threads)).max(4);
        let local = places.pages + places.stores + places.demo;
        assert!(places.clients + local <= rest, "{what}");
        let outward = rest - places.clients - local;
        assert!(places.origins <= outward, "{what}");
        assert!(outward >= wanted.servers.min((rest - local) / 2), "{what}");
        assert!(places.clients > 0 && places.http > 0 && places.kv > 0 && places.pages > 0, "{what}");
        assert!(places.http <= places.clients && places.kv <= places.clients, "{what}");
        assert!(wanted.http_most.is_none_or(|most| places.http <= most), "{what}");
    }

    #[test]
    fn whatever_is_configured_all_together_fit_into_the_limit() {
        for descriptors in [0, 1, 255, 256, 257, 300, 400, 1_023, 1_024, 4_096, 65_536, 1 << 20] {
            for servers in [0, 1, 100, 10_000, usize::MAX / 4] {
                for [http, kv, has_stores] in [[true, true, true], [true, false, false], [false, true, true]] {
                    for (http_most, threads) in [(None, 1), (Some(1), 8), (Some(5_000), 200), (None, usize::MAX)] {
                        let wanted = Wanted { descriptors, threads, http, kv, http_most, servers, ..ALL };
                        fits(&Wanted { has_stores, ..wanted });
                        fits(&Wanted { has_stores, has_demo: false, ..wanted });
                    }
                }
            }
        }
    }

    #[test]
    fn what_event_threads_take_for_themselves_is_nobody_elses() {
        let of = |threads, descriptors| Places::divide(&Wanted { threads, descriptors, ..ALL });
        assert!(of(64, 1_024).clients < of(1, 1_024).clients);
        assert_eq!(of(64, 1_024 + 63 * RESERVE_A_THREAD), of(1, 1_024));
    }

    #[test]
    fn what_root_raises_the_limit_to_is_enough_for_the_connections_that_are_configured() {
        let pool = |n: usize, connections: usize| {
            let servers: Vec<_> = (0..n).map(|server| format!("\"127.0.0.1:{}:1\"", 2_000 + server)).collect();
            format!(
                "kv: {{pools: {{a: {{listen: \"127.0.0.1:1\", redis: true, server_connections: {connections}, \
                 servers: [{}]}}}}}}\ndemo: {{redis: \"127.0.0.1:3\", origin: \"127.0.0.1:4\"}}\n",
                servers.join(",")
            )
        };
        for kv in [String::new(), pool(1, 1), pool(300, 4)] {
            let text = format!("http: {{listen: [\"127.0.0.1:8080\"]}}\n{kv}");
            let mut config = config::parse("test.yaml", &text).unwrap();
            for connections in [1, 100, 10_000, 1_000_000] {
                config.http.limits.connections = Some(connections);
                for threads in [1, 8, 128] {
                    let raised = supervise::privilege::descriptors_for(connections, &config, threads);
                    let places = Places::with(usize::try_from(raised).unwrap(), &config, threads);
                    assert_eq!(places.http, connections, "{threads} threads, {raised} descriptors: {places:?}");
                }
            }
        }
    }

    #[test]
    fn neither_engine_takes_the_last_places_of_the_other() {
        let wanted = |http, kv| Places::divide(&Wanted { http, kv, has_stores: false, has_demo: false, ..ALL });
        let both = wanted(true, true);
        assert!(both.http < both.clients && both.kv < both.clients);
        assert!(both.http + both.kv > both.clients, "and what one does not use is the other's");
        let alone = wanted(true, false);
        assert_eq!(alone.http, alone.clients);
        assert!(wanted(false, true).kv > alone.http, "nobody keeps places for origins where none are asked");
    }
}
