//! What all pools keep together: each less than it may, and all more than they may.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

mod stage;

use std::cell::RefCell;
use std::rc::Rc;

use kv::PoolSource;
use stage::{Client, Stage, millis, pool, run_within, server};

/// What a pool may keep by itself, and all together.
const OWN: usize = 6 << 20;
const ALL: usize = 8 << 20;
const VALUE: usize = 64 << 10;
/// Clients of each pool, and the values that each asks for behind one that is late.
const CLIENTS: usize = 8;
const VALUES: usize = 10;

const TOO_LARGE: &str = "-ERR the reply is too large to wait for earlier ones\r\n";

/// Two pools, each of a server that is late and one that is quick.
fn pools() -> Vec<PoolSource> {
    let of = |name, servers: [u8; 2]| PoolSource { memory: OWN, ..pool(name, servers.map(server).to_vec()) };
    vec![of("one", [1, 2]), of("two", [3, 4])]
}

/// Clients of a pool that have asked for a late value and many quick ones, of which nothing has come.
async fn hoarders(stage: &Stage, pool: u16, count: usize) -> Vec<Client> {
    let first = u8::try_from(pool).unwrap() * 2 + 1;
    let mut clients = Vec::new();
    let mut any = stage.client(pool).await;
    let (late, quick) = (any.key_on(first).await, any.key_on(first + 1).await);
    for number in [first, first + 1] {
        stage.store(number).stopped.set(true);
    }
    stage.store(first + 1).value_len.set(VALUE);
    for _ in 0..count {
        let client = stage.client(pool).await;
        client.put(&["GET", &late]);
        (0..VALUES).for_each(|_| client.put(&["GET", &quick]));
        clients.push(client);
    }
    clients
}

/// Whether somebody who asks of that pool is answered soon.
async fn is_heard(stage: &Stage, client: &mut Client) -> bool {
    client.put(&["PING"]);
    event::timeout(&stage.thread, millis(500), client.reply()).await.is_ok()
}

/// Lets the quick servers answer until nothing more comes.
async fn quick_answer(stage: &Stage) {
    [2, 4].into_iter().for_each(|number| stage.store(number).stopped.set(false));
    loop {
        let before = kept(stage);
        stage.sleep(millis(1_000)).await;
        if kept(stage) == before {
            return;
        }
    }
}

fn kept(stage: &Stage) -> usize {
    usize::try_from(stage.number("beltway_kv_memory_bytes")).unwrap()
}

#[test]
fn pools_that_keep_less_than_each_may_and_more_than_half_of_what_all_may_read_no_more_and_lose_nothing() {
    run_within(ALL, pools(), 4, async |stage| {
        const FEW: usize = 4;
        let (mut other, mut third) = (stage.client(0).await, stage.client(1).await);
        let mut one = hoarders(&stage, 0, FEW).await;
        quick_answer(&stage).await;
        assert!(kept(&stage) < OWN / 2 && is_heard(&stage, &mut other).await, "one alone is not bothered");
        let mut two = hoarders(&stage, 1, FEW).await;
        quick_answer(&stage).await;
        assert!((ALL / 2..ALL).contains(&kept(&stage)), "{}", kept(&stage));
        assert!(!is_heard(&stage, &mut other).await && !is_heard(&stage, &mut third).await, "nobody is read from");
        [1, 3].into_iter().for_each(|number| stage.store(number).stopped.set(false));
        for client in one.iter_mut().chain(&mut two) {
            for _ in 0..=VALUES {
                assert!(client.reply().await.starts_with('$'), "all of it comes");
            }
        }
        assert_eq!([other.reply().await, third.reply().await], ["+PONG\r\n", "+PONG\r\n"], "they are read from again");
        stage.sleep(millis(400)).await;
        assert_eq!(kept(&stage), 0, "all of it was given back");
    });
}

#[test]
fn what_is_more_than_all_may_keep_is_an_error_for_the_newest() {
    run_within(ALL, pools(), 4, async |stage| {
        let one = hoarders(&stage, 0, CLIENTS).await.into_iter();
        let two = hoarders(&stage, 1, CLIENTS).await.into_iter();
        quick_answer(&stage).await;
        assert_eq!(stage.number("beltway_kv_memory_max_bytes"), ALL as u64);
        assert!((ALL - 4 * VALUE..=ALL).contains(&kept(&stage)), "{}", kept(&stage));
        let by_pools = usize::try_from(stage.number("beltway_kv_pool_memory_bytes")).unwrap();
        assert_eq!(by_pools, kept(&stage), "what pools keep is what all keep");
        [1, 3].into_iter().for_each(|number| stage.store(number).stopped.set(false));
        let came: Rc<RefCell<[[usize; 2]; 2]>> = Rc::default();
        let mut takers = Vec::new();
        for (pool, mut client) in one.map(|client| (0, client)).chain(two.map(|client| (1, client))) {
            let came = Rc::clone(&came);
            takers.push(stage.spawn(async move {
                assert_eq!(client.reply().await, "$1\r\nx\r\n");
                let mut was_refused = false;
                for _ in 0..VALUES {
                    let reply = client.reply().await;
                    let is_refused = reply == TOO_LARGE;
                    assert!(is_refused || reply.len() > VALUE && !was_refused, "the newest are refused: {reply:.80}");
                    was_refused = is_refused;
                    came.borrow_mut()[pool][usize::from(is_refused)] += 1;
                }
                assert_eq!(client.ask(&["PING"]).await, "+PONG\r\n", "it is heard again");
            }));
        }
        stage.until("all have got their replies", || takers.iter().all(|over| over.get())).await;
        let [whole, refused] = [0, 1].map(|what| came.borrow().map(|of_pool| of_pool[what]));
        assert!(whole.iter().all(|count| count * VALUE < OWN), "none of them reached its own: {whole:?}");
        assert!(whole.iter().sum::<usize>() * VALUE > ALL * 9 / 10 && refused.iter().sum::<usize>() > 20, "{whole:?}");
        stage.sleep(millis(400)).await;
        assert_eq!(kept(&stage), 0, "all of it was given back");
    });
}

#[test]
fn clients_that_take_nothing_keep_those_of_all_pools_waiting_for_seconds_only() {
    const LITTLE: usize = 1 << 20;
    run_within(LITTLE, pools(), 4, async |stage| {
        let mut other = stage.client(1).await;
        let mut deaf = Vec::new();
        for pool in [0, 1] {
            let quick = u8::try_from(pool).unwrap() * 2 + 2;
            let key = stage.client(pool).await.key_on(quick).await;
            stage.store(quick).value_len.set(1 << 20);
            for _ in 0..CLIENTS {
                let client = stage.client(pool).await;
                client.put(&["GET", &key]);
                deaf.push(client);
            }
        }
        stage.until("all keep more than half of what they may", || kept(&stage) > LITTLE / 2).await;
        let asked = stage.now();
        other.put(&["PING"]);
        assert_eq!(other.reply().await, "+PONG\r\n");
        assert!((millis(1_000)..millis(10_000)).contains(&(stage.now() - asked)), "{:?}", stage.now() - asked);
    });
}
