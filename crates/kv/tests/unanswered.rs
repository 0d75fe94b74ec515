//! Requests that never get a reply, as operators see them afterwards: in the slow log and in the clients' times.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

mod stage;

use std::time::Duration;

use kv::{PoolSource, Slow};
use stage::{millis, pool, run, server};

const LIMIT: Duration = millis(300);

/// A pool of one server whose slow log takes what a tenth of a second is not enough for.
fn slow_pool() -> PoolSource {
    PoolSource { timeout: Some(LIMIT), slowlog: Some(millis(100)), ..pool("p", vec![server(1)]) }
}

fn told(slow: &Slow) -> (&str, &str, &'static str) {
    (slow.command, std::str::from_utf8(&slow.argument).unwrap(), slow.outcome)
}

#[test]
fn who_waits_in_vain_is_in_the_slow_log_once_with_its_key_and_its_client() {
    run(vec![slow_pool()], 1, async |stage| {
        let (mut first, mut second) = (stage.client(0).await, stage.client(0).await);
        assert_eq!(first.ask(&["CLIENT", "SETNAME", "app"]).await, "+OK\r\n");
        assert_eq!(first.ask(&["GET", "warm"]).await, "$1\r\nx\r\n");
        let times = stage.number("beltway_kv_pool_client_seconds");
        stage.store(1).stopped.set(true);
        first.put(&["GET", "on-its-way"]);
        stage.sleep(millis(50)).await;
        second.put(&["SET", "held-back", "value"]);
        assert_eq!(first.reply().await, "-ERR Connection timed out\r\n");
        assert_eq!(second.reply().await, "-ERR Connection timed out\r\n");
        let slow = stage.slow();
        assert_eq!(
            slow.iter().map(told).collect::<Vec<_>>(),
            [("set", "held-back", "timed out"), ("get", "on-its-way", "timed out")]
        );
        assert!(slow.iter().all(|slow| (LIMIT..LIMIT + millis(50)).contains(&slow.took)), "{slow:?}");
        assert!(
            slow.iter().all(|slow| slow.client.address.starts_with("127.0.0.1:") && slow.server == "127.0.0.1:6379")
        );
        assert_eq!((slow[1].client.name.as_slice(), slow[0].bytes), (b"app".as_slice(), 39));
        assert_eq!(stage.number("beltway_kv_pool_client_seconds"), times + 2);
        // What comes now belongs to nobody.
        stage.store(1).stopped.set(false);
        stage.until("it has answered all", || stage.number("beltway_kv_late_replies_total") > 0).await;
        assert_eq!(stage.slow().len(), 2, "a late reply is no second request");
        let reply = first.ask(&["SLOWLOG", "GET", "1"]).await;
        assert!(
            reply.contains("held-back") && reply.contains("(39 bytes in all, timed out at 127.0.0.1:6379)"),
            "{reply}"
        );
    });
}

#[test]
fn who_loses_its_connection_after_a_while_is_in_the_slow_log_too() {
    let source = PoolSource { timeout: None, ..slow_pool() };
    run(vec![source], 1, async |stage| {
        let mut client = stage.client(0).await;
        stage.store(1).stopped.set(true);
        client.put(&["SET", "a", "1"]);
        stage.sleep(millis(50)).await;
        let mut late = stage.client(0).await;
        late.put(&["SET", "b", "1"]);
        stage.sleep(millis(70)).await;
        stage.store(1).dies.set(true);
        assert_eq!(client.reply().await, "-ERR the server closed the connection\r\n");
        assert!(late.try_reply().await.is_some());
        let slow = stage.slow();
        assert_eq!(
            slow.iter().map(told).collect::<Vec<_>>(),
            [("set", "a", "connection closed")],
            "the other was quick"
        );
        assert!((millis(120)..millis(140)).contains(&slow[0].took), "{slow:?}");
    });
}

#[test]
fn a_client_that_goes_before_its_time_is_told_with_the_time_that_it_waited() {
    run(vec![slow_pool()], 1, async |stage| {
        stage.store(1).stopped.set(true);
        let (patient, hasty) = (stage.client(0).await, stage.client(0).await);
        patient.put(&["GET", "patient"]);
        hasty.put(&["GET", "hasty"]);
        stage.sleep(millis(20)).await;
        hasty.leave();
        stage.sleep(millis(130)).await;
        patient.leave();
        stage.until("it is told", || !stage.slow().is_empty()).await;
        stage.sleep(LIMIT).await;
        let slow = stage.slow();
        assert_eq!(slow.iter().map(told).collect::<Vec<_>>(), [("get", "patient", "client left")]);
        assert!((millis(150)..millis(160)).contains(&slow[0].took), "{slow:?}");
        assert!(slow[0].client.address.starts_with("127.0.0.1:"), "{slow:?}");
        assert_eq!(stage.number("beltway_kv_pool_client_seconds"), 2, "and they waited as long as they did");
    });
}
