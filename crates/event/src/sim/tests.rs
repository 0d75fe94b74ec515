//! The simulated world itself: what it promises to the tests above it, and an echo server in all its weathers.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base::Rng;
use buf::{Block, Chunk, SizeClass};

use super::*;
use crate::{Shares, Tcp, Thread, look_up};

fn server_address() -> SocketAddr {
    "127.0.0.1:80".parse().unwrap()
}

/// Byte `n` of what client `client` sends.
fn byte(client: u64, n: u64) -> u8 {
    (client.wrapping_mul(31) ^ n ^ (n >> 8)).to_le_bytes()[0]
}

/// Echoes until the client ends.
async fn echo(tcp: Tcp) {
    loop {
        let mut block = Block::new(SizeClass::Small);
        tcp.set_read_deadline(tcp.thread().now() + Duration::from_secs(30));
        match tcp.recv(&mut block).await {
            Ok(0) | Err(_) => return,
            Ok(_) => tcp.send(block.into_chunk()),
        }
        tcp.set_write_deadline(tcp.thread().now() + Duration::from_secs(30));
        if tcp.room(4 << 10).await.is_err() {
            return;
        }
    }
}

#[derive(Default)]
struct Tally {
    whole: Cell<u32>,
    ended: Cell<u32>,
    wrong: RefCell<Vec<String>>,
}

/// Sends `total` bytes and reads them back; writes down what is not as it was sent.
async fn client(thread: Thread, number: u64, total: u64, tally: Rc<Tally>) {
    if echoed(&thread, number, total, &tally).await == Some(total) {
        tally.whole.set(tally.whole.get() + 1);
    }
    tally.ended.set(tally.ended.get() + 1);
}

async fn echoed(thread: &Thread, number: u64, total: u64, tally: &Tally) -> Option<u64> {
    thread.sleep(Duration::from_millis(thread.random() % 50)).await;
    let soon = || thread.now() + Duration::from_secs(20);
    let tcp = Tcp::connect(thread, server_address(), soon()).await.ok()?;
    let (mut sent, mut received) = (0, 0);
    let mut rng = Rng::new(thread.random());
    while received < total {
        while sent < total && tcp.queued() == 0 {
            let n = (1 + rng.below(4_000)).min(total - sent);
            let bytes: Arc<[u8]> = (sent..sent + n).map(|n| byte(number, n)).collect();
            tcp.send(Chunk::from_shared(bytes, 0..usize::try_from(n).unwrap()));
            sent += n;
        }
        if sent == total {
            tcp.end();
        }
        let mut block = Block::new(SizeClass::Small);
        tcp.set_read_deadline(soon());
        let n = match tcp.recv(&mut block).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => n as u64,
        };
        for (at, &got) in (received..).zip(block.bytes()) {
            if got != byte(number, at) || at >= total {
                tally.wrong.borrow_mut().push(format!("client {number}: byte {at} is {got}"));
            }
        }
        received += n;
    }
    let mut block = Block::new(SizeClass::Small);
    tcp.set_read_deadline(soon());
    if let Ok(n @ 1..) = tcp.recv(&mut block).await {
        tally.wrong.borrow_mut().push(format!("client {number}: {n} bytes too many"));
    }
    Some(received)
}

/// Clients and an echo server of two threads; says how many echoes were whole, of how many, and the story's number.
fn echo_world(seed: u64, faults: Faults) -> (u32, u32, u64) {
    let blocks_before = buf::pool_use().used;
    let world = World::new(seed, faults);
    if Seeds::is_replay() {
        world.narrate();
    }
    let servers = world.group("server", 2).unwrap();
    let clients = world.thread("clients").unwrap();
    let shares = Shares::new(2, 6);
    let peers = Arc::new(OnceLock::new());
    let listener = world.listen(server_address(), 4, Arc::clone(&shares), Arc::clone(&peers), |thread, tcp| {
        thread.spawn("echo", echo(tcp));
    });
    peers.set(servers.iter().map(Thread::handle).collect()).unwrap();
    for server in &servers {
        listener.accept_on(server).unwrap();
    }
    let tally = Rc::new(Tally::default());
    let mut rng = Rng::new(seed);
    let count = 1 + rng.below(10);
    for number in 0..count {
        let order = 4 + rng.below(10);
        let total = 1 + rng.below(1 << order);
        clients.spawn("client", client(clients.clone(), number, total, Rc::clone(&tally)));
    }
    let count = u32::try_from(count).unwrap();
    let over = world.run_until(|| tally.ended.get() == count, Duration::from_secs(3_600));
    assert_eq!(over, Ok(()), "{:?} of {count} ended", tally.ended.get());
    assert!(tally.wrong.borrow().is_empty(), "{:?}", tally.wrong.borrow());
    // Servers whose client fell silent leave at their deadlines.
    world.run_for(Duration::from_secs(120)).unwrap();
    assert_eq!(shares.open(), 0);
    for server in &servers {
        assert_eq!(world.census(server), Census { sources: 1, ..Census::default() }, "but for the listener");
    }
    assert_eq!(world.census(&clients), Census::default());
    assert_eq!(world.connections_held(), 0);
    assert_eq!(buf::pool_use().used, blocks_before);
    (tally.whole.get(), count, world.trace())
}

#[test]
fn an_echo_is_whole_when_nothing_fails() {
    Seeds::new("beltway-event", "sim::tests::an_echo_is_whole_when_nothing_fails").run(0..150, |seed| {
        let (whole, count, _) = echo_world(seed, Faults::none());
        assert_eq!(whole, count);
    });
}

#[test]
fn an_echo_is_a_beginning_of_what_was_sent_whatever_fails_and_nothing_is_left() {
    let (whole, all) = (Cell::new(0), Cell::new(0));
    let test = "sim::tests::an_echo_is_a_beginning_of_what_was_sent_whatever_fails_and_nothing_is_left";
    Seeds::new("beltway-event", test).run(0..600, |seed| {
        let (w, n, _) = echo_world(seed, Faults::drawn(seed));
        whole.set(whole.get() + w);
        all.set(all.get() + n);
    });
    assert!(Seeds::is_replay() || (whole.get() * 3 > all.get() && whole.get() < all.get()), "faults hit some, not all");
}

#[test]
fn the_same_seed_tells_the_same_story_and_another_seed_another() {
    for seed in 0..20 {
        let story = echo_world(seed, Faults::drawn(seed));
        assert_eq!(story, echo_world(seed, Faults::drawn(seed)), "seed {seed}");
        assert_ne!(story.2, echo_world(seed + 1_000, Faults::drawn(seed)).2);
    }
}

/// Both ends of one connection, on one thread each.
fn connected(world: &World) -> (Thread, Tcp, Thread, Tcp) {
    let (near, far) = (world.thread("near").unwrap(), world.thread("far").unwrap());
    thread_local! { static ACCEPTED: RefCell<Option<Tcp>> = const { RefCell::new(None) } }
    let listener = world.listen(server_address(), 4, Shares::new(1, 10), Arc::default(), |_, tcp| {
        ACCEPTED.with(|accepted| *accepted.borrow_mut() = Some(tcp));
    });
    listener.accept_on(&far).unwrap();
    let tcp = Rc::new(RefCell::new(None));
    near.spawn("connect", {
        let (thread, tcp) = (near.clone(), Rc::clone(&tcp));
        async move {
            let deadline = thread.now() + Duration::from_secs(5);
            *tcp.borrow_mut() = Some(Tcp::connect(&thread, server_address(), deadline).await.unwrap());
        }
    });
    let both = || tcp.borrow().is_some() && ACCEPTED.with(|accepted| accepted.borrow().is_some());
    world.run_until(both, Duration::from_secs(5)).unwrap();
    let near_tcp = tcp.borrow_mut().take().unwrap();
    (near, near_tcp, far, ACCEPTED.with(|accepted| accepted.borrow_mut().take()).unwrap())
}

/// Runs one future of `thread` to its end.
fn run<T: 'static>(world: &World, thread: &Thread, future: impl Future<Output = T> + 'static) -> T {
    let result = Rc::new(RefCell::new(None));
    thread.spawn("test", {
        let result = Rc::clone(&result);
        async move {
            let value = future.await;
            *result.borrow_mut() = Some(value);
        }
    });
    world.run_until(|| result.borrow().is_some(), Duration::from_secs(600)).unwrap();
    result.borrow_mut().take().unwrap()
}

async fn receive(tcp: &Tcp) -> Result<Vec<u8>, ErrorKind> {
    let mut block = Block::new(SizeClass::Small);
    tcp.set_read_deadline(tcp.thread().now() + Duration::from_secs(60));
    match tcp.recv(&mut block).await {
        Ok(_) => Ok(block.bytes().to_vec()),
        Err(error) => Err(error.kind()),
    }
}

async fn receive_all(tcp: &Tcp) -> Vec<u8> {
    let (mut heard, mut more) = (Vec::new(), receive(tcp).await.unwrap());
    while !more.is_empty() {
        heard.append(&mut more);
        more = receive(tcp).await.unwrap();
    }
    heard
}

#[test]
fn a_half_closed_connection_still_carries_bytes_the_other_way() {
    let world = World::new(1, Faults::none());
    let (near, near_tcp, far, far_tcp) = connected(&world);
    near_tcp.send(Chunk::from_static(b"ping"));
    near_tcp.end();
    let far_tcp = Rc::new(far_tcp);
    let heard = run(&world, &far, {
        let tcp = Rc::clone(&far_tcp);
        async move {
            let heard = receive_all(&tcp).await;
            tcp.send(Chunk::from_static(b"pong"));
            tcp.end();
            heard
        }
    });
    assert_eq!(heard, b"ping");
    assert_eq!(run(&world, &near, async move { receive_all(&near_tcp).await }), b"pong");
}

#[test]
fn bytes_unread_at_a_close_make_it_a_reset() {
    let world = World::new(2, Faults::none());
    let (near, near_tcp, _far, far_tcp) = connected(&world);
    near_tcp.send(Chunk::from_static(b"never read"));
    world.run_for(Duration::from_millis(10)).unwrap();
    drop(far_tcp);
    assert_eq!(run(&world, &near, async move { receive(&near_tcp).await }), Err(ErrorKind::ConnectionReset));
}

#[test]
fn bytes_for_a_closed_end_are_answered_with_a_reset_and_the_error_is_told_once() {
    let world = World::new(3, Faults::none());
    let (near, near_tcp, _far, far_tcp) = connected(&world);
    drop(far_tcp);
    let outcomes = run(&world, &near, async move {
        let ended = receive(&near_tcp).await;
        near_tcp.send(Chunk::from_static(b"too late"));
        near_tcp.thread().sleep(Duration::from_millis(20)).await;
        near_tcp.send(Chunk::from_static(b"much too late"));
        near_tcp.thread().sleep(Duration::from_millis(20)).await;
        (ended, near_tcp.failure().map(|error| error.kind()))
    });
    assert_eq!(outcomes, (Ok(Vec::new()), Some(ErrorKind::BrokenPipe)));
}

#[test]
fn a_reset_that_a_send_was_told_of_is_no_end_to_who_reads() {
    let world = World::new(8, Faults::none());
    let (near, near_tcp, _far, far_tcp) = connected(&world);
    far_tcp.abort();
    drop(far_tcp);
    let read = run(&world, &near, async move {
        for _ in 0..20 {
            near_tcp.send(Chunk::from_static(b"?"));
            near_tcp.thread().sleep(Duration::from_millis(1)).await;
        }
        [receive(&near_tcp).await, receive(&near_tcp).await]
    });
    assert_eq!(read, [Err(ErrorKind::ConnectionReset), Err(ErrorKind::ConnectionReset)]);
}

#[test]
fn a_closed_connection_whose_peer_takes_nothing_is_cut_so_that_the_peer_can_tell() {
    let world = World::new(9, Faults::none());
    let (near, near_tcp, far, far_tcp) = connected(&world);
    let bytes: Arc<[u8]> = vec![7; 1 << 20].into();
    near_tcp.send(Chunk::from_shared(bytes, 0..1 << 20));
    drop(near_tcp);
    world.run_for(Duration::from_secs(60)).unwrap();
    assert_eq!(world.census(&near), Census::default());
    let (read, end) = run(&world, &far, async move {
        let mut read = 0;
        loop {
            match receive(&far_tcp).await {
                Ok(bytes) if !bytes.is_empty() => read += bytes.len(),
                end => break (read, end),
            }
        }
    });
    assert!(read < 1 << 20);
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_connection_that_a_tail_lets_go_of_at_the_very_end_is_let_go_of_with_all_it_had_to_send() {
    let world = World::new(10, Faults::none());
    let (near, near_tcp, far, far_tcp) = connected(&world);
    let bytes: Arc<[u8]> = vec![7; 1 << 20].into();
    let held = Arc::downgrade(&bytes);
    near_tcp.send(Chunk::from_shared(bytes, 0..1 << 20));
    near.at_tail(move |_| assert!(near_tcp.failure().is_none()));
    // Longer than the time it had to connect, so that it has no timer.
    world.run_for(Duration::from_secs(10)).unwrap();
    assert!(held.upgrade().is_some(), "nobody takes it");
    drop((world, near, far, far_tcp));
    assert!(held.upgrade().is_none());
}

#[test]
fn a_full_accept_queue_delays_and_nobody_listening_refuses() {
    let world = World::new(4, Faults::none());
    let (accepting, connecting) = (world.thread("accepting").unwrap(), world.thread("connecting").unwrap());
    let listener = world.listen(server_address(), 1, Shares::new(1, 10), Arc::default(), |_, tcp| drop(tcp));
    let connects = |address: SocketAddr| {
        let thread = connecting.clone();
        async move {
            let began = thread.now();
            let result = Tcp::connect(&thread, address, began + Duration::from_secs(60)).await;
            (result.map(|_| ()).map_err(|error| error.kind()), thread.now() - began)
        }
    };
    let (first, late) = run(&world, &connecting, connects(server_address()));
    assert!(first.is_ok() && late < Duration::from_millis(10));
    connecting.spawn("accepts later", {
        let thread = connecting.clone();
        let (listener, handle) = (Arc::clone(&listener), accepting.handle());
        async move {
            thread.sleep(Duration::from_millis(500)).await;
            handle.run(move |thread| listener.accept_on(thread).unwrap()).unwrap();
        }
    });
    let (second, late) = run(&world, &connecting, connects(server_address()));
    assert!(second.is_ok() && late >= Duration::from_secs(1), "{second:?} after {late:?}");
    let (nobody, _) = run(&world, &connecting, connects("127.0.0.1:81".parse().unwrap()));
    assert_eq!(nobody, Err(ErrorKind::ConnectionRefused));
}

#[test]
fn a_connection_goes_from_thread_to_thread() {
    let world = World::new(5, Faults::none());
    let (_near, near_tcp, far, far_tcp) = connected(&world);
    let other = world.thread("other").unwrap();
    let detached = near_tcp.detach().unwrap();
    assert!(detached.is_quiet());
    let attached = Tcp::attach(&other, detached).unwrap();
    attached.send(Chunk::from_static(b"still here"));
    attached.end();
    assert_eq!(run(&world, &far, async move { receive_all(&far_tcp).await }), b"still here");
}

#[test]
fn names_are_those_of_the_world() {
    let world = World::new(6, Faults::none());
    world.name("origin.example", &["127.0.0.7".parse().unwrap()]);
    let thread = world.thread("asks").unwrap();
    let answers = run(&world, &thread, {
        let thread = thread.clone();
        async move { (look_up(&thread, "origin.example").await, look_up(&thread, "localhost").await) }
    });
    assert_eq!(answers.0, Ok(vec!["127.0.0.7".parse().unwrap()]));
    assert!(answers.1.is_err(), "the machine's own names are not asked");
}

#[test]
fn a_world_says_why_it_stopped() {
    let world = World::new(7, Faults::none());
    let thread = world.thread("waits").unwrap();
    let hour = Duration::from_secs(3_600);
    thread.spawn("waits for ever", std::future::pending());
    assert_eq!(world.run_until(|| false, hour), Err(Stuck::Deadlock));
    thread.spawn("sleeps", thread.sleep(2 * hour));
    assert_eq!(world.run_until(|| false, hour), Err(Stuck::Late));
    thread.spawn("panics", async { panic!("on purpose") });
    assert_eq!(world.run_until(|| false, hour), Err(Stuck::Panicked("waits".into(), "panics")));
}
