//! What becomes of connections when the server leaves: a request that has come is answered, one that may be under way is
//! awaited for a moment, and who has nothing to say is let go of.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

mod turns;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::local::{Request, Response, Service, Whole};
use turns::{Server, server};

/// How long at least who has not asked yet may still do so: a second, less what a timer may be early.
const MOMENT: Duration = Duration::from_millis(900);

/// How often a machine may stand still.
const ASKS_MAX: u32 = 20;

/// More turns than it takes to let go of somebody at once.
const TURNS: u32 = 1_000;

struct Greeter;

impl Service for Greeter {
    fn respond(&self, request: &Request<'_>) -> Response {
        let more = if request.keep_alive { "" } else { "Connection: close\r\n" };
        Response {
            head: format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{more}\r\n").into_bytes(),
            keep: request.keep_alive,
            chunked: false,
            body: Box::new(Whole(Some(b"ok".as_slice().into()))),
        }
    }
}

/// The two ways to leave: to stop, and to make room for another, who takes clients but not those of own pages.
fn ways() -> [fn(&Server); 2] {
    [|server| server.worker().drain(), |server| server.worker().hand_over(Rc::new(|_, _, _| panic!("own pages stay")))]
}

fn greeter() -> Server {
    server("", Some(Arc::new(Greeter)), None)
}

#[test]
fn who_has_just_come_may_still_ask() {
    for leave in ways() {
        let ask = || {
            let server = greeter();
            let mut client = server.connect();
            server.turn_until("the connection", || server.shares.open() == 1);
            let begun = server.thread.precise_now();
            leave(&server);
            (0..10).for_each(|_| server.thread.turn(false).map(drop).unwrap());
            client.get("/");
            let answer = client.read_to_close();
            let was_late = server.thread.precise_now() - begun >= MOMENT;
            drop(client);
            server.turn_until("the client's place", || server.shares.open() == 0);
            (answer, was_late)
        };
        // Who is let go of on a machine that stood still for all of the moment says nothing: it asks another server.
        let told = (0..ASKS_MAX).map(|_| ask()).find(|(answer, was_late)| !answer.is_empty() || !was_late);
        let (answer, _) = told.expect("the machine does not always stand still");
        assert!(answer.ends_with("\r\n\r\nok"), "{answer:?}");
    }
}

#[test]
fn a_request_that_came_before_the_word_to_leave_is_answered() {
    for leave in ways() {
        let server = greeter();
        let mut client = server.connect();
        client.get("/first");
        client.read_to("\r\n\r\nok");
        // It lies in the kernel when the thread hears that it leaves.
        client.get("/second");
        leave(&server);
        assert!(client.read_to_close().ends_with("\r\n\r\nok"));
    }
}

#[test]
fn who_says_nothing_is_let_go_of_at_once_when_it_was_served_and_after_a_moment_when_not() {
    for leave in ways() {
        let server = greeter();
        let mut served = server.connect();
        served.get("/");
        served.read_to("\r\n\r\nok");
        let mut fresh = server.connect();
        server.turn_until("both connections", || server.shares.open() == 2);
        let begun = server.thread.precise_now();
        leave(&server);
        // Whether each has ended is looked at after every turn, the one that was served last: so it is known to end no later
        // than the other, however long a turn takes.
        let (mut served_ended, mut fresh_ended, mut turns) = (None, None, 0);
        server.turn_until("both ends", || {
            turns += 1;
            if fresh_ended.is_none() && fresh.has_ended() {
                fresh_ended = Some(server.thread.precise_now());
            }
            if served_ended.is_none() && served.has_ended() {
                served_ended = Some(server.thread.precise_now());
                let is_late = server.thread.precise_now() - begun >= MOMENT;
                assert!(!is_late || turns < TURNS, "it had to wait, and not for a slow machine: {turns} turns");
            }
            assert!(fresh_ended.is_none() || served_ended.is_some(), "who was served goes first");
            served_ended.is_some() && fresh_ended.is_some()
        });
        assert!(fresh_ended.unwrap() - begun >= MOMENT, "who may be about to ask has a moment for it");
    }
}
