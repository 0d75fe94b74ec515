//! What a pool keeps has a bound: first nothing new is asked, then the newest gets an error, then all is as it was.

#![allow(clippy::unwrap_used, reason = "a failure of a test is a panic")]

mod scene;
mod world;

use kv::PoolSource;
use world::{Proxy, Server, pool};

const VALUE: usize = 20 << 10;
const TOO_LARGE: &str = "-ERR the reply is too large to wait for earlier ones\r\n";

/// Keys with large values on the second server, and one key on the first.
fn fill(servers: &[Server], proxy: &Proxy) -> (String, Vec<String>) {
    let mut client = proxy.client();
    let (mut first, mut second) = (None, Vec::new());
    for n in 0..200 {
        let key = format!("{n}:{}", n * 7919);
        let is_first = {
            assert_eq!(client.ask(&["SET", &key, "x"]), "+OK\r\n");
            servers[0].client().ask(&["EXISTS", &key]) == ":1\r\n"
        };
        if is_first {
            first = Some(key);
        } else if second.len() < 40 {
            assert_eq!(client.ask(&["SET", &key, &"v".repeat(VALUE)]), "+OK\r\n");
            second.push(key);
        }
    }
    assert_eq!(second.len(), 40);
    (first.unwrap(), second)
}

#[test]
fn beyond_half_of_its_memory_a_pool_asks_nothing_new_and_beyond_all_of_it_the_newest_gets_an_error() {
    const ASKED: usize = 40;
    let whole_len = format!("${VALUE}\r\n\r\n").len() + VALUE;
    scene::run(PoolSource { memory: 400 << 10, ..scene::pool() }, 2, async move |thread, stores| {
        let mut client = scene::Client::new(&thread).await;
        let (late, large) = (client.key_on(&stores[0]).await, client.key_on(&stores[1]).await);
        stores[1].value_len.set(VALUE);
        stores[0].stopped.set(true);
        // The first is answered last: what comes for the others waits.
        client.put(&["GET", &late]);
        (0..ASKED).for_each(|_| client.put(&["GET", &large]));
        // When somebody else is no longer heard, half of the memory is in use.
        let mut other = scene::Client::new(&thread).await;
        let mut heard = 0;
        loop {
            other.put(&["PING"]);
            let answer = event::timeout(&thread, scene::millis(100), other.reply()).await;
            let Ok((answer, _)) = answer else { break };
            assert_eq!(answer, "+PONG\r\n");
            heard += 1;
            assert!(heard < 2_000, "the others are heard for ever");
            thread.sleep(scene::millis(1)).await;
        }
        // By and by, all has come that was asked.
        thread.sleep(scene::millis(60_000)).await;
        stores[0].stopped.set(false);
        assert_eq!(client.reply().await.0, "$1\r\nx\r\n");
        let (mut whole, mut refused) = (0, 0);
        for _ in 0..ASKED {
            let (reply, _) = client.reply().await;
            if reply == TOO_LARGE {
                refused += 1;
                continue;
            }
            assert_eq!(reply.len(), whole_len);
            assert_eq!(refused, 0, "the newest are refused, in their order");
            whole += 1;
        }
        // Each thread's count is exact for itself.
        assert!((10..=20).contains(&whole) && refused >= 20, "{whole} whole, {refused} refused");
        assert_eq!(other.reply().await.0, "+PONG\r\n", "and is heard again");
        for _ in 0..ASKED {
            assert_eq!(client.ask(&["GET", &large]).await.len(), whole_len, "all of it was given back");
        }
    });
}

#[test]
fn parts_of_a_joined_reply_count_while_they_wait_for_each_other() {
    let servers: Vec<Server> = (0..2).map(|_| Server::redis(&[])).collect();
    let proxy = Proxy::start(PoolSource { memory: 400 << 10, ..pool(&servers, true) }, 1);
    let (late, large) = fill(&servers, &proxy);
    let mut client = proxy.client();
    let mut words = vec!["MGET".to_owned(), late];
    words.extend(large.iter().cloned());
    let reply = client.ask(&words);
    let expected = format!("*{}\r\n$1\r\nx\r\n-ERR the reply is too large", large.len() + 1);
    assert!(reply.starts_with(&expected), "{}", &reply[..80]);
    assert_eq!(client.ask(&["MGET", &words[1], &large[0], &large[1]]).len(), 4 + 7 + 2 * (VALUE + 10));
}
