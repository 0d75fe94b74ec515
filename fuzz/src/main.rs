//! One program for all targets: `BELTWAY_FUZZ` names the one that runs. Each is a plain function over bytes that returns
//! when all is well; the ordinary tests replay the corpora through the same functions.
#![no_main]

#[path = "../../crates/kv/tests/second_parser/against.rs"]
mod against;
#[path = "../../crates/kv/tests/second_parser/memcached.rs"]
mod memcached;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

type Target = fn(&[u8]);

const TARGETS: &[(&str, Target)] = &[
    ("request", http::fuzz::fuzz_request),
    ("response", http::fuzz::fuzz_response),
    ("body", http::fuzz::fuzz_body),
    ("remap", http::fuzz::fuzz_remap),
    ("date", http::fuzz::fuzz_date),
    ("cache-control", http::fuzz::fuzz_cache_control),
    ("exchange", http::fuzz::fuzz_exchange),
    ("stored", http::fuzz::fuzz_stored),
    ("redis-request", redis_request),
    ("redis-reply", redis_reply),
    ("memcached-request", memcached_request),
    ("memcached-reply", memcached_reply),
    ("configuration", configuration),
];

fn redis_request(bytes: &[u8]) {
    kv::fuzz::redis_request(bytes);
    against::request(bytes);
}

fn redis_reply(bytes: &[u8]) {
    kv::fuzz::reply(bytes);
    against::reply(bytes);
}

fn memcached_request(bytes: &[u8]) {
    kv::fuzz::memcached_request(bytes);
    memcached::request(bytes);
}

fn memcached_reply(bytes: &[u8]) {
    kv::fuzz::reply(bytes);
    memcached::reply(bytes);
}

fn configuration(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = config::parse("fuzzed.yaml", text);
    }
}

fuzz_target!(|bytes: &[u8]| {
    static CHOSEN: OnceLock<Target> = OnceLock::new();
    let run = CHOSEN.get_or_init(|| {
        let name = std::env::var("BELTWAY_FUZZ").unwrap_or_default();
        let known = TARGETS.iter().find(|(known, _)| *known == name);
        known.unwrap_or_else(|| panic!("BELTWAY_FUZZ names no target")).1
    });
    run(bytes);
});
