//! Processes of one protocol version understand each other: what the first release says, and what a later one may.
//!
//! `messages-1.jsonl` is what was said when the protocol was made; it never changes. Questions have even numbers there,
//! answers odd ones. Each goes over a real control connection to a process of today.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use serde_json::{Value, json};
use supervise::control::{Connection, Endpoint, PROTOCOL, Packet, Pong, Reply, Request};
use supervise::listener::ListenerKind;
use supervise::status::ServerState;

const FIRST: &str = include_str!("messages-1.jsonl");

/// A process of today, and one of another day.
struct Pair {
    home: PathBuf,
    endpoint: Endpoint,
    asks: Connection,
    /// Where the other answers by hand what `heard` asks.
    listener: OwnedFd,
}

impl Pair {
    fn new(name: &str) -> Self {
        let home = std::env::temp_dir().join(format!("beltway-older-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&home);
        std::fs::create_dir_all(&home).unwrap();
        let endpoint = Endpoint::bind(&home.join("today.sock")).unwrap();
        let asks = Connection::open(&home.join("today.sock")).unwrap();
        let listener = sys::ancillary::listen(&home.join("other.sock"), 4).unwrap();
        Self { home, endpoint, asks, listener }
    }

    /// What a process of today makes of a question.
    fn ask(&mut self, body: &Value) -> Option<Request> {
        self.asks.send(1, body, &[]).unwrap();
        self.endpoint.questions().pop().map(|question| question.request)
    }

    /// What a process of today makes of an answer.
    fn answer(&self, body: &Value) -> Reply {
        let heard = Connection::open(&self.home.join("other.sock")).unwrap();
        let other = sys::ancillary::accept(&self.listener).unwrap();
        let packet = serde_json::to_vec(&Packet { protocol: PROTOCOL, sequence: 1, body }).unwrap();
        sys::ancillary::send(other.as_fd(), &packet, &[]).unwrap();
        let (packet, _) = heard.receive::<Reply>().unwrap_or_else(|error| panic!("{body}: {error}")).unwrap();
        packet.body
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

fn packets() -> impl Iterator<Item = Packet<Value>> {
    FIRST.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
}

/// As a later version might say it: with a field that nobody here knows in every record. An object of one field is a word
/// with what belongs to it, and no record.
fn later(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(later);
            if map.len() > 1 {
                map.insert("unheard_of".to_owned(), json!({"a": [1, 2, {"b": null}]}));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(later),
        _ => {}
    }
}

#[test]
fn what_the_first_release_says_is_understood_and_so_is_what_a_later_one_adds() {
    let mut pair = Pair::new("words");
    let (mut questions, mut answers) = (0, 0);
    for packet in packets() {
        assert_eq!(packet.protocol, PROTOCOL);
        let mut added = packet.body.clone();
        later(&mut added);
        if packet.sequence % 2 == 0 {
            questions += 1;
            assert_eq!(pair.ask(&packet.body).expect("understood"), pair.ask(&added).expect("understood"), "{added}");
        } else {
            answers += 1;
            assert_eq!(pair.answer(&packet.body), pair.answer(&added), "{added}");
        }
    }
    assert_eq!((questions, answers), (14, 7));
}

#[test]
fn an_older_sign_of_life_lacks_fields_and_a_later_one_has_states_and_listeners_that_are_not_known() {
    let pair = Pair::new("pong");
    let pong = pair.answer(&json!({"pong": {"name": "traffic_server", "pid": 7}}));
    assert_eq!(pong, Reply::Pong(Pong { name: "traffic_server".to_owned(), pid: 7, ..Pong::default() }));
    let pong = pair.answer(&json!({"pong": {"pid": 7, "state": "levitating"}}));
    assert_eq!(pong, Reply::Pong(Pong { pid: 7, state: ServerState::Starting, ..Pong::default() }));
    let Reply::Listeners(names) = pair.answer(&json!({"listeners": [
        {"kind": "http", "index": 0, "configured": "127.0.0.1:80", "backlog": 16},
        {"kind": "quic", "index": 0, "configured": "127.0.0.1:443", "backlog": 16, "datagrams": true},
    ]})) else {
        panic!("no listeners")
    };
    assert_eq!(names.iter().map(|name| name.kind).collect::<Vec<_>>(), [ListenerKind::Http, ListenerKind::Unknown]);
}

#[test]
fn a_question_of_a_later_version_is_refused_and_the_next_one_is_heard() {
    let mut pair = Pair::new("question");
    assert_eq!(pair.ask(&json!({"levitate": {"height": 3}})), None);
    let (packet, _) = pair.asks.receive::<Reply>().unwrap().unwrap();
    assert!(matches!(packet.body, Reply::Refused(_)));
    assert_eq!(pair.ask(&json!("ping")), Some(Request::Ping));
}
