//! How long what may take: requests of each kind, behind a server that is slow or says nothing.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

mod scene;

use kv::{PoolSource, Timeouts};
use scene::{Client, FIRST_PORT, millis, pool, run};

#[test]
fn each_kind_of_request_has_its_own_time() {
    let timeouts = Timeouts { read: Some(millis(300)), script: Some(millis(8_000)), ..Timeouts::default() };
    let source = PoolSource { timeout: Some(millis(2_000)), timeouts, ..pool() };
    run(source, 1, async |thread, _| {
        let (mut slow, mut reads, mut writes) =
            (Client::new(&thread).await, Client::new(&thread).await, Client::new(&thread).await);
        assert_eq!(reads.ask(&["GET", "a"]).await, "$1\r\nx\r\n");
        slow.put(&["EVAL", "1200", "1", "k"]);
        thread.sleep(millis(100)).await;
        let asked = thread.now();
        reads.put(&["GET", "a"]);
        writes.put(&["SET", "b", "2"]);
        let (reply, at) = reads.reply().await;
        assert_eq!(reply, "-ERR Connection timed out\r\n");
        assert!((millis(300)..millis(400)).contains(&(at - asked)), "{:?}", at - asked);
        assert_eq!(
            slow.reply().await.0,
            "$4\r\ndone\r\n",
            "it has time, and those behind it do not cost it its connection"
        );
        let (reply, at) = writes.reply().await;
        assert_eq!(reply, "+OK\r\n");
        assert!(at - asked > millis(1_000), "when the script was done");
        assert_eq!(reads.ask(&["GET", "a"]).await, "$1\r\nx\r\n", "and not the late reply");
    });
}

#[test]
fn a_late_reply_belongs_to_nobody_and_the_others_live_on() {
    run(PoolSource { timeout: Some(millis(1_000)), ..pool() }, 1, async |thread, _| {
        let (mut slow, mut other) = (Client::new(&thread).await, Client::new(&thread).await);
        assert_eq!(other.ask(&["GET", "a"]).await, "$1\r\nx\r\n");
        // Longer than the timeout; the connection stays.
        slow.put(&["EVAL", "1300", "1", "k"]);
        thread.sleep(millis(700)).await;
        let asked = thread.now();
        other.put(&["GET", "a"]);
        let (reply, at) = slow.reply().await;
        assert_eq!(reply, "-ERR Connection timed out\r\n");
        assert!(at - asked < millis(400), "{:?}", at - asked);
        let (reply, at) = other.reply().await;
        assert_eq!(reply, "$1\r\nx\r\n", "asked later, answered in time");
        assert!((millis(500)..millis(700)).contains(&(at - asked)), "{:?}", at - asked);
        assert_eq!(slow.ask(&["GET", "a"]).await, "$1\r\nx\r\n", "and not the late reply");
    });
}

#[test]
fn a_server_that_hangs_is_a_timeout_for_its_own_keys_only() {
    run(PoolSource { timeout: Some(millis(200)), ..pool() }, 2, async |thread, stores| {
        let (mut client, mut other) = (Client::new(&thread).await, Client::new(&thread).await);
        let (here, there) = (client.key_on(&stores[0]).await, client.key_on(&stores[1]).await);
        stores[1].stopped.set(true);
        let asked = thread.now();
        client.put(&["GET", &there]);
        for _ in 0..20 {
            assert_eq!(other.ask(&["GET", &here]).await, "$1\r\nx\r\n");
        }
        assert!(thread.now() - asked < millis(150), "{:?}", thread.now() - asked);
        let (reply, at) = client.reply().await;
        assert_eq!(reply, "-ERR Connection timed out\r\n");
        assert!((millis(200)..millis(300)).contains(&(at - asked)), "{:?}", at - asked);
        stores[1].stopped.set(false);
        let mut replies = 0;
        while client.ask(&["GET", &there]).await != "$1\r\nx\r\n" {
            replies += 1;
            assert!(replies < 100, "it goes on");
            thread.sleep(millis(100)).await;
        }
    });
}

#[test]
fn a_server_that_hangs_is_ejected_when_those_in_flight_have_timed_out() {
    let source = PoolSource {
        auto_eject_hosts: true,
        server_failure_limit: 2,
        server_retry_timeout: millis(300),
        timeout: Some(millis(300)),
        ..pool()
    };
    run(source, 2, async |thread, stores| {
        let mut clients = Vec::new();
        for _ in 0..6 {
            clients.push(Client::new(&thread).await);
        }
        let there = clients[0].key_on(&stores[1]).await;
        stores[1].stopped.set(true);
        clients.iter().for_each(|client| client.put(&["TYPE", &there]));
        let mut timed_out = 0;
        for client in &mut clients {
            timed_out += usize::from(client.reply().await.0.starts_with('-'));
        }
        assert!((1..=6).contains(&timed_out), "{timed_out}");
        for client in &mut clients {
            assert_eq!(client.ask(&["TYPE", &there]).await, format!("+{FIRST_PORT}\r\n"), "the other server answers");
        }
        stores[1].stopped.set(false);
        let mut replies = 0;
        while clients[0].ask(&["TYPE", &there]).await != format!("+{}\r\n", stores[1].port) {
            replies += 1;
            assert!(replies < 100, "it is back");
            thread.sleep(millis(100)).await;
        }
    });
}
