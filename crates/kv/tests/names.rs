//! Servers that are told by name, and a name that leads elsewhere after a while.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

mod stage;

use stage::{NAMES, Stage, millis, named, pool, run};

const NAME: &str = "db";

/// Long enough for what is remembered of a name to be renewed and followed.
async fn names_age(stage: &Stage) {
    stage.sleep(NAMES.ttl + millis(2_500)).await;
}

#[test]
fn a_name_that_leads_elsewhere_is_followed_though_its_connections_live() {
    run(vec![pool("p", vec![named(NAME)])], 2, async |stage| {
        stage.name(NAME, &[1]);
        let mut client = stage.client(0).await;
        assert_eq!(client.ask(&["TYPE", "k"]).await, "+1\r\n");
        names_age(&stage).await;
        assert_eq!((stage.store(1).connections.get(), stage.store(1).ended.get()), (1, 0), "it stays where it was");
        stage.name(NAME, &[2]);
        names_age(&stage).await;
        assert_eq!(client.ask(&["TYPE", "k"]).await, "+2\r\n");
        assert_eq!((stage.store(1).ended.get(), stage.store(2).connections.get()), (1, 1));
        assert_eq!(stage.number("beltway_kv_server_failures_total"), 0, "nobody has failed");
    });
}

#[test]
fn what_was_asked_where_the_name_led_is_answered_there_and_nothing_overtakes_it() {
    const CLIENTS: usize = 8;
    /// Requests that each has on their way at a time.
    const AHEAD: usize = 4;
    run(vec![pool("p", vec![named(NAME)])], 2, async |stage| {
        stage.name(NAME, &[1]);
        // The old server always has much to do.
        stage.store(1).pace.set(millis(40));
        let moved = stage.now() + millis(3_000);
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let (mut client, its) = (stage.client(0).await, stage.clone());
            clients.push(stage.spawn(async move {
                let ask = |client: &stage::Client, asked: usize| {
                    client.put(&["SET", &format!("{number}:{asked:06}"), "x"]);
                };
                (0..AHEAD).for_each(|asked| ask(&client, asked));
                let mut asked = AHEAD;
                while its.now() < moved + millis(6_000) {
                    assert_eq!(client.reply().await, "+OK\r\n", "no request fails");
                    ask(&client, asked);
                    asked += 1;
                }
            }));
        }
        stage.sleep(moved - stage.now()).await;
        assert_eq!(stage.store(2).connections.get(), 0);
        stage.name(NAME, &[2]);
        stage.until("all have asked what they wanted", || clients.iter().all(|over| over.get())).await;
        stage.until("the old connection is closed", || stage.store(1).ended.get() == 1).await;
        for number in 0..CLIENTS {
            let own = format!("{number}:");
            let done: Vec<_> = stage.asked().into_iter().filter(|(_, key)| key.starts_with(&own)).collect();
            assert!(done.windows(2).all(|two| two[0].1 < two[1].1), "in its order: {done:?}");
            assert!(done.first().unwrap().0 == 1 && done.last().unwrap().0 == 2, "first there, then here");
        }
    });
}

#[test]
fn what_was_asked_where_the_name_led_is_waited_for_as_long_as_whoever_is_there_answers() {
    for stops in [false, true] {
        run(vec![pool("p", vec![named(NAME)])], 2, async move |stage| {
            stage.name(NAME, &[1]);
            let mut client = stage.client(0).await;
            assert_eq!(client.ask(&["TYPE", "k"]).await, "+1\r\n");
            let begun = stage.now();
            stage.store(1).pace.set(millis(60_000));
            client.put(&["SET", "slow", "x"]);
            stage.sleep(millis(100)).await;
            stage.store(1).pace.set(millis(0));
            stage.store(1).stopped.set(stops);
            stage.name(NAME, &[2]);
            let reply = client.reply().await;
            let waited = stage.now() - begun;
            if stops {
                assert_eq!(reply, "-ERR Connection timed out\r\n");
                assert!(waited > millis(15_000) && waited < millis(21_000), "{waited:?}");
            } else {
                assert_eq!(reply, "+OK\r\n");
                assert!(waited > millis(59_000), "{waited:?}");
            }
            assert_eq!(client.ask(&["TYPE", "k"]).await, "+2\r\n");
        });
    }
}

#[test]
fn of_several_addresses_the_one_in_use_stays_while_it_is_among_them() {
    run(vec![pool("p", vec![named(NAME)])], 3, async |stage| {
        stage.name(NAME, &[1, 2]);
        let mut client = stage.client(0).await;
        assert_eq!(client.ask(&["TYPE", "k"]).await, "+1\r\n");
        stage.name(NAME, &[3, 2, 1]);
        names_age(&stage).await;
        assert_eq!(client.ask(&["TYPE", "k"]).await, "+1\r\n");
        assert_eq!(stage.store(1).connections.get(), 1, "the same connection");
        // Though its connection ends.
        stage.store(1).dies.set(true);
        client.put(&["SET", "k", "x"]);
        assert!(client.reply().await.starts_with('-'));
        stage.store(1).dies.set(false);
        assert_eq!(client.ask(&["TYPE", "k"]).await, "+1\r\n");
        stage.name(NAME, &[3, 2]);
        names_age(&stage).await;
        assert_eq!(client.ask(&["TYPE", "k"]).await, "+3\r\n");
    });
}

#[test]
fn a_look_up_that_fails_changes_nothing() {
    run(vec![pool("p", vec![named(NAME)])], 2, async |stage| {
        stage.name(NAME, &[1]);
        let mut client = stage.client(0).await;
        assert_eq!(client.ask(&["TYPE", "k"]).await, "+1\r\n");
        stage.unname(NAME);
        names_age(&stage).await;
        names_age(&stage).await;
        assert_eq!(client.ask(&["TYPE", "k"]).await, "+1\r\n");
        assert_eq!((stage.store(1).connections.get(), stage.store(1).ended.get()), (1, 0));
        stage.name(NAME, &[2]);
        names_age(&stage).await;
        assert_eq!(client.ask(&["TYPE", "k"]).await, "+2\r\n", "and it is followed again when it is known again");
    });
}

#[test]
fn who_waits_without_a_time_for_a_server_that_hangs_and_that_its_name_has_left_waits_not_for_ever() {
    run(vec![pool("p", vec![named(NAME)])], 2, async |stage| {
        stage.name(NAME, &[1]);
        let (mut reads, mut writes) = (stage.client(0).await, stage.client(0).await);
        assert_eq!(reads.ask(&["TYPE", "k"]).await, "+1\r\n");
        stage.store(1).stopped.set(true);
        writes.put(&["SET", "k", "x"]);
        reads.put(&["TYPE", "k"]);
        stage.name(NAME, &[2]);
        let asked = stage.now();
        assert_eq!(writes.reply().await, "-ERR Connection timed out\r\n");
        assert!((millis(15_000)..millis(26_000)).contains(&(stage.now() - asked)), "{:?}", stage.now() - asked);
        assert_eq!(reads.reply().await, "+2\r\n", "what may be asked twice is asked of the other");
    });
}
