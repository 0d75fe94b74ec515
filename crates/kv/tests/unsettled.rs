//! Who waits behind a connection that stands still, or that a reload takes away: with a write that was given up meanwhile, or
//! ahead of a reply that comes by and by.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

mod stage;

use buf::{Block, SizeClass};
use event::sim::Faults;
use kv::PoolSource;
use stage::{Client, Stage, millis, pool, run, run_in, server};

/// Behind the first write of `writes`, which was given up, while others go on.
async fn assert_the_next_write_comes_after(stage: &Stage, mut writes: Client, mut other: Client) {
    let begun = stage.now();
    writes.put(&["SET", "second", "x"]);
    other.put(&["SET", "other", "x"]);
    assert_eq!(other.reply().await, "+OK\r\n");
    assert!(stage.now() - begun < millis(100), "others are not held up: {:?}", stage.now() - begun);
    assert_eq!(writes.reply().await, "+OK\r\n");
    assert!(stage.now() - begun < millis(10_000), "nor is it for long: {:?}", stage.now() - begun);
    let done: Vec<_> = stage.asked().into_iter().map(|(_, key)| key).collect();
    assert_eq!(done, ["warm", "large", "other", "first", "second"]);
}

#[test]
fn what_a_client_writes_after_a_write_that_was_given_up_does_not_overtake_it() {
    let source = PoolSource { timeout: Some(millis(300)), ..pool("p", vec![server(1)]) };
    run(vec![source], 1, async |stage| {
        let (mut slow, mut writes, other) = (stage.client(0).await, stage.client(0).await, stage.client(0).await);
        assert_eq!(slow.ask(&["GET", "warm"]).await, "$1\r\nx\r\n");
        stage.store(1).is_meek.set(true);
        stage.store(1).value_len.set(2 << 20);
        slow.put(&["GET", "large"]);
        stage.sleep(millis(2)).await;
        writes.put(&["SET", "first", "x"]);
        assert_eq!(writes.reply().await, "-ERR Connection timed out\r\n");
        assert_the_next_write_comes_after(&stage, writes, other).await;
    });
}

#[test]
fn what_a_client_writes_after_a_write_that_was_given_up_before_its_connection_stood_still_does_not_overtake_it() {
    let source = PoolSource { timeout: Some(millis(300)), ..pool("p", vec![server(1)]) };
    run(vec![source], 1, async |stage| {
        let (mut slow, mut writes, other) = (stage.client(0).await, stage.client(0).await, stage.client(0).await);
        assert_eq!(slow.ask(&["GET", "warm"]).await, "$1\r\nx\r\n");
        stage.store(1).is_meek.set(true);
        stage.store(1).trickles.set(millis(100));
        stage.store(1).value_len.set(4 << 20);
        slow.put(&["GET", "large"]);
        stage.sleep(millis(100)).await;
        stage.store(1).trickles.set(millis(0));
        writes.put(&["SET", "first", "x"]);
        assert_eq!(writes.reply().await, "-ERR Connection timed out\r\n");
        // Until too much of the large value has come.
        stage.sleep(millis(4_000)).await;
        assert_the_next_write_comes_after(&stage, writes, other).await;
    });
}

/// The pool with so many connections to its server, and little time for requests.
fn with_connections(server_connections: usize) -> PoolSource {
    PoolSource { timeout: Some(millis(300)), server_connections, ..pool("p", vec![server(1)]) }
}

/// A client with a write that was given up and will be carried out two hundred milliseconds later, on a connection that is
/// not its own any more by then: a reload makes them `after` where they were `before`, ahead of its being given up or not.
async fn write_late(stage: &Stage, before: usize, after: usize, reload_first: bool) -> Client {
    let mut writes = stage.client(0).await;
    assert_eq!(writes.ask(&["SET", "warm", "x"]).await, "+OK\r\n");
    stage.store(1).pace.set(millis(500));
    writes.put(&["SET", "first", "x"]);
    stage.sleep(millis(100)).await;
    stage.store(1).pace.set(millis(0));
    assert_ne!(before, after);
    if reload_first {
        stage.renew(vec![with_connections(after)]);
    }
    assert_eq!(writes.reply().await, "-ERR Connection timed out\r\n");
    if !reload_first {
        stage.renew(vec![with_connections(after)]);
        stage.sleep(millis(1)).await;
    }
    writes
}

#[test]
fn what_a_client_writes_after_a_write_that_was_given_up_does_not_overtake_it_on_connections_that_a_reload_brings() {
    // Its connection is one too many; others are there beside it.
    for (before, after) in [(2, 1), (1, 2), (3, 2), (2, 3)] {
        for reload_first in [false, true] {
            run(vec![with_connections(before)], 1, async move |stage| {
                let mut writes = write_late(&stage, before, after, reload_first).await;
                let begun = stage.now();
                assert_eq!(writes.ask(&["SET", "second", "x"]).await, "+OK\r\n");
                assert!(stage.now() - begun < millis(250), "nor is it for long: {:?}", stage.now() - begun);
                let done: Vec<_> = stage.asked().into_iter().map(|(_, key)| key).collect();
                assert_eq!(done, ["warm", "first", "second"], "{before} to {after}, {reload_first}");
                // Others do not wait, nor does it from then on.
                assert_eq!(writes.ask(&["SET", "third", "x"]).await, "+OK\r\n");
            });
        }
    }
}

#[test]
fn who_waits_for_a_write_that_was_given_up_on_a_connection_that_a_reload_took_goes_on_when_that_ends() {
    run(vec![with_connections(2)], 1, async |stage| {
        let (mut writes, mut other) = (stage.client(0).await, stage.client(0).await);
        assert_eq!(writes.ask(&["SET", "warm", "x"]).await, "+OK\r\n");
        stage.store(1).pace.set(millis(60_000));
        writes.put(&["SET", "first", "x"]);
        assert_eq!(writes.reply().await, "-ERR Connection timed out\r\n");
        stage.store(1).pace.set(millis(0));
        stage.renew(vec![with_connections(1)]);
        stage.sleep(millis(1)).await;
        let begun = stage.now();
        assert_eq!(other.ask(&["SET", "other", "x"]).await, "+OK\r\n");
        assert!(stage.now() - begun < millis(100), "others are not held up: {:?}", stage.now() - begun);
        assert_eq!(writes.ask(&["SET", "second", "x"]).await, "+OK\r\n");
        assert!(stage.now() - begun < millis(700), "as long as a silent connection is kept: {:?}", stage.now() - begun);
    });
}

#[test]
fn what_waits_for_a_connection_that_a_reload_takes_before_it_is_there_is_answered() {
    const OPEN: &str = "beltway_kv_server_connections_open";
    let source = |server_connections| PoolSource { server_connections, ..pool("p", vec![server(1)]) };
    let far = || Faults { latency: [millis(20); 2], ..Faults::none() };
    // One has the connection that is too many then.
    for early in [0, 1] {
        run_in(far(), usize::MAX, vec![source(2)], 1, async move |stage| {
            let mut clients = [stage.client(0).await, stage.client(0).await];
            clients[early].put(&["GET", "early"]);
            while stage.number(OPEN) == 0 {
                stage.sleep(millis(1)).await;
            }
            assert_eq!(stage.store(1).connections.get(), 0, "nobody has connected yet");
            stage.renew(vec![source(1)]);
            assert_eq!(clients[early].reply().await, "$1\r\nx\r\n");
            assert_eq!(clients[1 - early].ask(&["GET", "late"]).await, "$1\r\nx\r\n");
            stage.until("one connection is left", || stage.number(OPEN) == 1).await;
        });
    }
}

#[test]
fn who_waits_for_a_write_that_was_given_up_does_so_for_a_minute_at_most() {
    let source =
        |server_connections| PoolSource { timeout: Some(millis(1_000)), ..with_connections(server_connections) };
    run(vec![source(2)], 1, async move |stage| {
        let (many, _other, mut writes) = (stage.client(0).await, stage.client(0).await, stage.client(0).await);
        assert_eq!(writes.ask(&["SET", "warm", "x"]).await, "+OK\r\n");
        // None of these is answered in time, and something is said all the time.
        stage.store(1).pace.set(millis(1_500));
        (0..80).for_each(|_| many.put(&["GET", "slow"]));
        stage.sleep(millis(100)).await;
        writes.put(&["SET", "first", "x"]);
        assert_eq!(writes.reply().await, "-ERR Connection timed out\r\n");
        stage.renew(vec![source(1)]);
        stage.sleep(millis(1)).await;
        let begun = stage.now();
        writes.put(&["SET", "second", "x"]);
        assert_eq!(writes.reply().await, "-ERR Connection timed out\r\n");
        let waited = stage.now() - begun;
        assert!(waited > millis(60_000) && waited < millis(63_000), "{waited:?}");
        assert!(!stage.asked().iter().any(|(_, key)| key == "first"), "it has yet to be carried out");
    });
}

#[test]
fn who_waits_behind_one_that_takes_nothing_is_not_asked_elsewhere_ahead_of_its_own_write_that_was_given_up() {
    let source = PoolSource { timeout: Some(millis(1_000)), ..pool("p", vec![server(1)]) };
    run(vec![source], 1, async |stage| {
        let (mut slow, mut writes, other) = (stage.client(0).await, stage.client(0).await, stage.client(0).await);
        assert_eq!(slow.ask(&["GET", "warm"]).await, "$1\r\nx\r\n");
        stage.store(1).is_meek.set(true);
        stage.store(1).trickles.set(millis(300));
        stage.store(1).value_len.set(4 << 20);
        slow.put(&["GET", "large"]);
        stage.sleep(millis(100)).await;
        stage.store(1).trickles.set(millis(0));
        stage.store(1).value_len.set(1);
        writes.put(&["SET", "first", "x"]);
        assert_eq!(writes.reply().await, "-ERR Connection timed out\r\n");
        // There is always one that has time left when too much of the large value has come.
        for at in 0..60 {
            writes.put(&["GET", &format!("after {at}")]);
            other.put(&["GET", "other"]);
            stage.sleep(millis(100)).await;
        }
        let is_done = |key: &str| stage.asked().iter().position(|(_, done)| done.starts_with(key));
        stage.until("it is carried out", || is_done("first").is_some()).await;
        assert_eq!(writes.reply().await, "-ERR Connection timed out\r\n", "it was asked before");
        stage.until("all is asked", || is_done("after 59").is_some()).await;
        assert!(is_done("other") < is_done("first"), "others are asked elsewhere: {:?}", stage.asked());
        assert!(is_done("first") < is_done("after"), "{:?}", stage.asked());
    });
}

#[test]
fn who_is_to_go_to_another_process_waits_for_a_write_that_was_given_up_on_a_connection_made_since() {
    run(vec![with_connections(1)], 1, async |stage| {
        let mut writes = stage.client(0).await;
        stage.hand_over();
        stage.store(1).pace.set(millis(500));
        stage.sleep(millis(1)).await;
        writes.put(&["SET", "first", "x"]);
        assert_eq!(writes.reply().await, "-ERR Connection timed out\r\n");
        assert_eq!(stage.asked(), []);
        assert_eq!(writes.ask(&["PING"]).await, "+PONG\r\n");
        assert_eq!(stage.asked(), [(1, "first".to_owned())]);
    });
}

#[test]
fn a_connection_that_was_idle_lives_on_when_the_first_request_on_it_is_late() {
    run(vec![with_connections(1)], 1, async |stage| {
        let (mut late, mut other) = (stage.client(0).await, stage.client(0).await);
        assert_eq!(late.ask(&["SET", "warm", "x"]).await, "+OK\r\n");
        stage.sleep(millis(20_000)).await;
        stage.store(1).pace.set(millis(500));
        late.put(&["SET", "first", "x"]);
        stage.sleep(millis(250)).await;
        stage.store(1).pace.set(millis(0));
        other.put(&["SET", "second", "x"]);
        assert_eq!(late.reply().await, "-ERR Connection timed out\r\n");
        assert_eq!(other.reply().await, "+OK\r\n", "the server is slow, not silent");
        assert_eq!(stage.store(1).connections.get(), 1);
    });
}

#[test]
fn a_large_write_does_not_overtake_one_that_was_given_up_before_it() {
    let source = PoolSource { timeout: Some(millis(5_000)), ..with_connections(1) };
    run(vec![source], 1, async |stage| {
        let mut writes = stage.client(0).await;
        assert_eq!(writes.ask(&["SET", "warm", "x"]).await, "+OK\r\n");
        stage.store(1).pace.set(millis(9_000));
        writes.put(&["SET", "first", "x"]);
        stage.sleep(millis(100)).await;
        stage.store(1).pace.set(millis(0));
        assert_eq!(writes.reply().await, "-ERR Connection timed out\r\n");
        // It goes on a connection of its own, as it comes.
        assert_eq!(writes.ask(&["SET", "second", &"x".repeat(100 << 10)]).await, "+OK\r\n");
        assert_eq!(stage.number("beltway_kv_streamed_commands_total"), 1);
        let done: Vec<_> = stage.asked().into_iter().map(|(_, key)| key).collect();
        assert_eq!(done, ["warm", "first", "second"]);
    });
}

#[test]
fn a_client_that_takes_its_reply_slowly_is_not_cut_while_only_its_own_write_waits_behind_that() {
    const TIMED_OUT: &[u8] = b"-ERR Connection timed out\r\n";
    let source = PoolSource { timeout: Some(millis(1_000)), ..pool("p", vec![server(1)]) };
    run(vec![source], 1, async |stage| {
        let mut slow = stage.client(0).await;
        assert_eq!(slow.ask(&["GET", "warm"]).await, "$1\r\nx\r\n");
        stage.store(1).value_len.set(16 << 20);
        let begun = stage.now();
        slow.put(&["GET", "large"]);
        slow.put(&["SET", "first", "x"]);
        let mut have = Vec::new();
        while !have.ends_with(TIMED_OUT) {
            let mut block = Block::new(SizeClass::Large);
            let got = slow.tcp.recv(&mut block).await.expect("it is not cut");
            assert!(got > 0, "it ends after {} bytes", have.len());
            have.extend_from_slice(&block);
            stage.sleep(millis(50)).await;
        }
        assert!(have.len() > 16 << 20, "{}", have.len());
        assert!(stage.now() - begun > millis(10_000), "slowly: {:?}", stage.now() - begun);
        stage.store(1).value_len.set(1);
        assert_eq!(slow.ask(&["SET", "second", "x"]).await, "+OK\r\n");
        let done: Vec<_> = stage.asked().into_iter().map(|(_, key)| key).collect();
        assert_eq!(done, ["warm", "large", "first", "second"]);
    });
}

#[test]
fn who_is_ahead_of_a_reply_that_comes_by_and_by_waits_for_it_and_loses_nothing() {
    const VALUE: usize = 256 << 10;
    const VALUES: usize = 24;
    let source = PoolSource { memory: 4 << 20, ..pool("p", vec![server(1), server(2)]) };
    run(vec![source], 2, async |stage| {
        let mut client = stage.client(0).await;
        let (late, quick) = (client.key_on(1).await, client.key_on(2).await);
        stage.store(1).value_len.set(4 * VALUE);
        stage.store(1).trickles.set(millis(500));
        stage.store(2).value_len.set(VALUE);
        let begun = stage.now();
        client.put(&["GET", &late]);
        (0..VALUES).for_each(|_| client.put(&["GET", &quick]));
        for _ in 0..=VALUES {
            let reply = client.reply().await;
            assert!(reply.len() > VALUE, "{reply:.80}");
        }
        assert!(stage.now() - begun > millis(10_000), "it took more than the patience of who is ahead");
    });
}
