//! How much a connection to a server takes before those who ask more wait.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

mod stage;

use kv::PoolSource;
use stage::{millis, pool, run, server};

/// What one connection may have of requests, held and on their way, in bytes.
const BYTES_MAX: u64 = 4 << 20;

#[test]
fn a_connection_takes_one_request_beyond_what_it_may_have_and_the_others_wait_their_turn() {
    const EACH: usize = 1_500_000;
    let patient = PoolSource { timeout: Some(millis(500_000)), ..pool("p", vec![server(1)]) };
    run(vec![patient], 1, async |stage| {
        stage.store(1).stopped.set(true);
        let value = "x".repeat(EACH);
        let mut clients = Vec::new();
        for number in 0..4 {
            let client = stage.client(0).await;
            // One that is put together before it is asked.
            client.put(&["MSET", &format!("{number}"), &value]);
            clients.push(client);
        }
        let waiting = || {
            ["beltway_kv_server_in_queue_bytes", "beltway_kv_server_out_queue_bytes"]
                .map(|name| stage.number(name))
                .iter()
                .sum::<u64>()
        };
        stage.until("it has more than it may have", || waiting() > BYTES_MAX).await;
        for _ in 0..100 {
            stage.sleep(millis(500)).await;
            assert!(waiting() <= BYTES_MAX + EACH as u64 + 100, "{}", waiting());
        }
        stage.store(1).stopped.set(false);
        for mut client in clients {
            assert_eq!(client.reply().await, "+OK\r\n");
        }
        assert_eq!(stage.asked().len(), 4);
        stage.until("nothing is left", || waiting() == 0).await;
    });
}
