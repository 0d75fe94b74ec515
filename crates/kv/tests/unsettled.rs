//! A write that was given up while the connection it was sent on stood still, and what its client writes after it.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

mod stage;

use kv::PoolSource;
use stage::{millis, pool, run, server};

#[test]
fn what_a_client_writes_after_a_write_that_was_given_up_does_not_overtake_it() {
    let source = PoolSource { timeout: Some(millis(300)), ..pool("p", vec![server(1)]) };
    run(vec![source], 1, async |stage| {
        let (mut slow, mut writes, mut other) = (stage.client(0).await, stage.client(0).await, stage.client(0).await);
        assert_eq!(slow.ask(&["GET", "warm"]).await, "$1\r\nx\r\n");
        stage.store(1).is_meek.set(true);
        stage.store(1).value_len.set(2 << 20);
        slow.put(&["GET", "large"]);
        stage.sleep(millis(2)).await;
        writes.put(&["SET", "first", "x"]);
        assert_eq!(writes.reply().await, "-ERR Connection timed out\r\n");
        let begun = stage.now();
        writes.put(&["SET", "second", "x"]);
        other.put(&["SET", "other", "x"]);
        assert_eq!(other.reply().await, "+OK\r\n");
        assert!(stage.now() - begun < millis(100), "others are not held up: {:?}", stage.now() - begun);
        assert_eq!(writes.reply().await, "+OK\r\n");
        assert!(stage.now() - begun < millis(10_000), "nor is it for long: {:?}", stage.now() - begun);
        let done: Vec<_> = stage.asked().into_iter().map(|(_, key)| key).collect();
        assert_eq!(done, ["warm", "large", "other", "first", "second"]);
    });
}
