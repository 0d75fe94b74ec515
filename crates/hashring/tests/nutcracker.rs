//! Keys go where twemproxy's `nutcracker` 0.5.0 was seen to send them, on x86-64, by watching which of its servers got
//! which key. `vectors/nutcracker.json` covers hashes, tags and names, `vectors/more.json` (made by `vectors/record.py`)
//! ejected servers, weights, numbers of servers and the order of names.

#![allow(clippy::unwrap_used, reason = "a broken recording is a failed test")]

use base::Rng;
use hashring::{Continuum, Rules, Server};
use serde_json::Value;

fn check(recording: &str) {
    let recording: Value = serde_json::from_str(recording).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let keys: Vec<Vec<u8>> = recording["keys_hex"].as_array().unwrap().iter().map(|hex| unhex(&text(hex))).collect();
    let pools = recording["pools"].as_array().unwrap();
    let mut chance = Rng::new(1);
    for pool in pools {
        let rules = Rules {
            hash: text(&pool["hash"]).parse().unwrap(),
            distribution: text(&pool["distribution"]).parse().unwrap(),
            tag: pool["hash_tag"].as_str().map(|tag| tag.parse().unwrap()),
        };
        let servers: Vec<(String, u32)> = pool["servers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|server| (text(&server[0]), u32::try_from(server[1].as_u64().unwrap()).unwrap()))
            .collect();
        let servers: Vec<Server<'_>> = servers.iter().map(|(name, weight)| Server { name, weight: *weight }).collect();
        let ejected =
            |index: usize| pool["ejected"].as_array().is_some_and(|list| list.iter().any(|ejected| *ejected == index));
        let ring = Continuum::build(&servers, rules, |index| !ejected(index)).unwrap();
        let seen = text(&pool["map"]);
        assert_eq!(seen.len(), keys.len());
        for (key, server) in keys.iter().zip(seen.chars()) {
            let server = server.to_digit(36).unwrap() as usize;
            let placement = ring.explain(key, &mut chance);
            let key = String::from_utf8_lossy(key);
            assert_eq!(placement.server, Some(server), "{key:?} in {rules:?} over {servers:?}: {placement}");
            assert!(!ejected(server));
        }
    }
    assert!(pools.len() * keys.len() > 1_000, "only {} pools of {} keys", pools.len(), keys.len());
}

fn unhex(hex: &str) -> Vec<u8> {
    hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn keys_go_where_nutcracker_sends_them() {
    check(include_str!("../vectors/nutcracker.json"));
}

#[test]
fn ejected_weighted_and_oddly_named_servers_are_treated_as_nutcracker_does() {
    check(include_str!("../vectors/more.json"));
}
