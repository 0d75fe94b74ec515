//! The pools of Beltway's own file.

use std::time::Duration;

use config::kv::{KvAddress, KvListen, KvTimeouts};
use config::{Applied, Config, Diagnostics, EjectPolicy, KvDistribution, KvHash, MultigetPolicy, parse_as_if};

const FULL: &str = include_str!("good/pools.yaml");

fn read(text: &str) -> Result<Config, Diagnostics> {
    parse_as_if("t.yaml", text, true)
}

fn pool(keys: &str) -> String {
    format!("kv: {{pools: {{a: {{listen: 127.0.0.1:1, servers: [\"127.0.0.1:2:1\"], {keys}}}}}}}")
}

fn refusal(text: &str) -> String {
    read(text).expect_err(text).to_string()
}

#[test]
fn every_key_of_a_pool_arrives_in_its_field() {
    let config = read(FULL).unwrap_or_else(|wrong| panic!("{wrong}"));
    let stats = config.kv.stats.as_ref().unwrap();
    assert_eq!((stats.listen.to_string().as_str(), stats.interval), ("0.0.0.0:22222", Duration::from_secs(30)));
    let alpha = config.kv.pool("alpha").unwrap();
    assert_eq!(alpha.name.place.line, 4);
    assert_eq!(alpha.listen.value, KvListen::Tcp("127.0.0.1:22121".parse().unwrap()));
    assert_eq!((alpha.hash.value, alpha.distribution), (KvHash::Murmur, KvDistribution::Modula));
    assert_eq!((alpha.hash_tag, alpha.timeout), (Some(*b"{}"), Some(Duration::from_millis(400))));
    assert_eq!((alpha.backlog, alpha.client_connections), (1024, Some(100)));
    assert_eq!((alpha.redis, alpha.redis_auth.as_ref().unwrap().reveal(), alpha.redis_db), (true, "open sesame", 3));
    assert!(alpha.preconnect && alpha.tcpkeepalive && alpha.reuseport && alpha.auto_eject_hosts);
    assert_eq!((alpha.server_connections, alpha.server_failure_limit), (2, 1));
    assert_eq!((alpha.server_retry_timeout, alpha.eject_policy), (Duration::from_secs(2), EjectPolicy::Miss));
    let ms = Duration::from_millis;
    let times = KvTimeouts { read: Some(ms(200)), script: Some(ms(30_000)), ..KvTimeouts::default() };
    assert_eq!((alpha.timeouts, alpha.multiget_policy, alpha.memory.0), (times, MultigetPolicy::Miss, 64 << 20));
    assert_eq!(alpha.servers[0].name.as_deref(), Some("one"));
    assert_eq!((alpha.servers[1].weight, alpha.servers[1].place.line), (2, 25));
    assert_eq!(alpha.servers[1].address, KvAddress::Tcp { host: "cache.internal".to_owned(), port: 6380 });
    let beta = config.kv.pool("beta").unwrap();
    assert_eq!(beta.listen.to_string(), "/run/beta.sock 0660");
    assert_eq!(beta.servers[0].address, KvAddress::Unix("/run/memcached.sock".into()));
    assert_eq!(beta.servers[1].ring_name(), "::1");
    assert!(!format!("{config:?}").contains("open sesame\")"), "a password is not shown");
}

#[test]
fn what_is_not_written_is_as_with_twemproxy_but_for_the_bounded_timeout() {
    let config = read(&pool("")).unwrap();
    let pool = &config.kv.pools[0];
    assert_eq!((pool.hash.value, pool.distribution, pool.hash_tag), (KvHash::Fnv1a64, KvDistribution::Ketama, None));
    assert_eq!(pool.timeout, Some(Duration::from_secs(5)));
    assert_eq!((pool.backlog, pool.client_connections, pool.redis_db), (512, None, 0));
    assert_eq!((pool.server_connections, pool.server_failure_limit), (1, 2));
    assert_eq!((pool.server_retry_timeout, pool.eject_policy), (Duration::from_secs(30), EjectPolicy::Rehash));
    assert!(!pool.redis && !pool.preconnect && !pool.tcpkeepalive && !pool.reuseport && !pool.auto_eject_hosts);
    assert_eq!((pool.timeouts, pool.multiget_policy), (KvTimeouts::default(), MultigetPolicy::Error));
    assert_eq!(pool.memory.0, 256 << 20);
    assert!(pool.redis_auth.is_none() && config.kv.stats.is_none());
    assert_eq!(config.warnings(), [], "a file with pools and no HTTP listener is a whole one");
    assert_eq!(read("").unwrap().kv, config::kv::Kv::default());
}

#[test]
fn what_is_wrong_is_pointed_at() {
    let cases = [
        ("lisen: 1", "unknown key `lisen` in `kv.pools.NAME`", "did you mean `listen`?"),
        ("timeout: 0", "`kv.pools.NAME.timeout` is out of bounds", "from 1ms up to 24h; the default is 5000"),
        ("timeout: -1", "`kv.pools.NAME.timeout` takes a time, not `-1`", "400, or 5s"),
        ("hash: murmer", "cannot be `murmer`", "did you mean `murmur`?"),
        ("hash_tag: \"{\"", "takes two characters", "in quotes"),
        ("redis: yes", "takes `true` or `false`", "write `true`"),
        ("redis: true, redis_auth: \"\"", "`kv.pools.NAME.redis_auth` is empty", "remove the key"),
        ("redis_auth: x", "speaks memcached's protocol", "`redis: true`"),
        ("server_connections: 0", "out of bounds", "from 1 up to 64"),
        ("eject_policy: drop", "cannot be `drop`", "`rehash`, `error` or `miss`"),
        ("distribution: slots, hash: murmur", "pool `a` has a `hash`, and `distribution: slots` hashes", "remove one"),
        ("hash: fnv1a_64, distribution: rendezvous", "`distribution: rendezvous` hashes by itself", "remove one"),
        ("distribution: random, eject_policy: miss", "with `distribution: random` no key belongs", "remove one"),
        ("redis_db: 3", "speaks memcached's protocol", "remove the database"),
        ("timeouts: {reads: 1}", "unknown key `reads` in `kv.pools.NAME.timeouts`", "did you mean `read`?"),
        ("memory: 1KiB", "`kv.pools.NAME.memory` is out of bounds", "1MiB"),
    ];
    for (keys, message, hint) in cases {
        let said = refusal(&pool(keys));
        assert!(said.contains(message) && said.contains(hint), "{keys}: {said}");
    }
    assert!(refusal("kv: {pools: {a: {}}}").contains("`kv.pools.NAME.listen` is missing"));
    assert!(refusal("kv: {pools: {a: {}}}").contains("`kv.pools.NAME.servers` is missing"));
    assert!(refusal("kv: {pools: {a b: {}}}").contains("a name in kv.pools"));
    assert!(refusal("kv: {pools: [a]}").contains("`kv.pools` takes"));
    assert!(refusal("kv: {pools: {a: x}}").contains("pool `a` takes keys, not `x`"));
    for servers in ["[]", "x", "[[x]]", "[\"127.0.0.1:2\"]", "[\"a:1:1\", \"a:1:2\"]", "[\"a:1:1 n\", \"b:1:1 n\"]"] {
        let text = format!("kv: {{pools: {{a: {{listen: 127.0.0.1:1, servers: {servers}}}}}}}");
        assert!(refusal(&text).contains(":1:"), "{servers}");
    }
}

#[test]
fn a_pool_and_another_listener_cannot_have_one_address() {
    let two = |a: &str, b: &str| {
        let pool = |listen: &str| format!("{{listen: \"{listen}\", servers: [\"s:2:1\"]}}");
        format!("kv: {{pools: {{a: {}, b: {}}}}}", pool(a), pool(b))
    };
    assert!(refusal(&two("127.0.0.1:5", "0.0.0.0:5")).contains("cannot listen on 0.0.0.0:5"));
    assert!(refusal(&two("127.0.0.1:5", "127.0.0.1:9001")).contains("the default of `admin.listen`"));
    assert!(refusal(&two("/run/a.sock", "/run/a.sock 0600")).contains("listen on the same socket"));
    assert!(read(&two("127.0.0.1:0", "127.0.0.1:0")).is_ok());
    assert!(refusal("kv: {stats: {listen: 127.0.0.1:9001}}").contains("kv.stats.listen"));
}

#[test]
fn a_changed_pool_needs_a_restart_only_for_what_its_listener_is() {
    let changed = |old: &str, new: &str| -> Vec<(&str, Applied)> {
        let (old, new) = (read(old).unwrap(), read(new).unwrap());
        old.changed(&new).collect()
    };
    let text = FULL;
    assert_eq!(changed(text, &format!("\n{text}")), []);
    let servers = text.replace("6379:1 one", "6379:3 one").replace("timeout: 400", "timeout: 500");
    let reload = |name| (name, Applied::Reload);
    assert_eq!(changed(text, &servers), [reload("kv.pools.NAME.timeout"), reload("kv.pools.NAME.servers")]);
    let listen = text.replace("22121", "22131");
    assert_eq!(changed(text, &listen), [("kv.pools.NAME.listen", Applied::Restart)]);
    let renamed = text.replace("beta:", "gamma:");
    assert_eq!(changed(text, &renamed), [reload("kv.pools"), ("kv.pools.NAME.listen", Applied::Restart)]);
    let at = text.find("    beta:").unwrap();
    assert_eq!(changed(&text[..at], text), [reload("kv.pools"), ("kv.pools.NAME.listen", Applied::Restart)]);
}

#[test]
fn keys_are_placed_by_a_clusters_slots_where_every_server_gets_one() {
    let servers = |weights: [u32; 3]| {
        let servers: Vec<String> = weights.iter().enumerate().map(|(at, w)| format!("\"s{at}:1:{w}\"")).collect();
        let servers = servers.join(", ");
        format!("kv: {{pools: {{a: {{listen: 127.0.0.1:1, distribution: slots, servers: [{servers}]}}}}}}")
    };
    assert_eq!(read(&servers([1, 2, 3])).unwrap().kv.pools[0].distribution, KvDistribution::Slots);
    assert!(read(&servers([16_000, 1, 383])).is_ok());
    let wrong = refusal(&servers([40_000, 1, 40_000]));
    assert!(wrong.starts_with("t.yaml:1:") && wrong.contains("the weight of `s1:1` is too small"), "{wrong}");
}

#[test]
fn a_key_within_a_section_of_a_pool_is_asked_about_as_any_other() {
    let text = "kv: {pools: {a: {listen: 127.0.0.1:1, servers: [\"s:1:1\"], timeouts: {read: 5s}, hash: md5}}}";
    let config = read(text).unwrap();
    let value = |key: &str| config.setting(key).map(|setting| setting.value);
    assert_eq!(value("kv.pools.a.timeouts.read").as_deref(), Some("5s"));
    assert_eq!(value("kv.pools.a.timeouts.write").as_deref(), Some("0"));
    assert_eq!(value("kv.pools.a.hash").as_deref(), Some("md5"));
    assert_eq!(value("kv.pools.a.timeouts"), None);
}
