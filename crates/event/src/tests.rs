//! The loop with real sockets: promises that need more than one module.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use buf::{Block, Chunk, SizeClass};

use super::*;

mod across;
mod descriptors;
mod measure;
mod waiting;

fn thread() -> Thread {
    Thread::new(ThreadOptions { name: "[test]".into(), index: 0, seed: 1 }).unwrap()
}

/// How long anything in a test may take, on a machine however busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// Turns until `done`, within a bound.
fn turn_until(thread: &Thread, done: impl Fn() -> bool) {
    let limit = thread.precise_now() + PATIENCE;
    let _tick = thread.spawn("tick", {
        let thread = thread.clone();
        async move {
            loop {
                thread.sleep(Duration::from_millis(5)).await;
            }
        }
    });
    while !done() {
        assert!(thread.precise_now() < limit, "not done within {PATIENCE:?}");
        thread.turn(true).unwrap();
    }
}

struct Recorder {
    events: Vec<Event>,
}

impl Continuation for Recorder {
    fn handle_event(&mut self, event: Event, _thread: &Thread) {
        self.events.push(event);
    }
    fn name(&self) -> &'static str {
        "recorder"
    }
}

fn recorder() -> (Rc<RefCell<Recorder>>, Cont) {
    let recorder = Rc::new(RefCell::new(Recorder { events: Vec::new() }));
    (Rc::clone(&recorder), recorder)
}

#[test]
fn events_come_at_once_at_their_time_and_never_after_a_cancel() {
    let clock = base::ManualClock::default();
    let thread = measure::thread_at(&clock);
    let (seen, cont) = recorder();
    let imm = thread.schedule_imm(Rc::clone(&cont));
    let soon = thread.schedule_in(Rc::clone(&cont), Duration::from_millis(100));
    let never = thread.schedule_in(Rc::clone(&cont), Duration::from_millis(1));
    never.cancel();
    let not_either = thread.schedule_imm(Rc::clone(&cont));
    drop(not_either);
    thread.turn(false).unwrap();
    assert_eq!(seen.borrow().events, [Event::Immediate]);
    clock.advance(Duration::from_millis(99));
    thread.turn(false).unwrap();
    assert_eq!(seen.borrow().events.len(), 1);
    clock.advance(Duration::from_millis(2));
    thread.turn(false).unwrap();
    assert_eq!(seen.borrow().events, [Event::Immediate, Event::Interval]);
    drop((imm, soon));
    for _ in 0..10 {
        thread.turn(false).unwrap();
    }
    assert_eq!(seen.borrow().events.len(), 2);
}

#[test]
fn a_periodic_event_comes_until_its_action_is_dropped() {
    let thread = thread();
    let (seen, cont) = recorder();
    let every = thread.schedule_every(cont, Duration::from_millis(2));
    turn_until(&thread, || seen.borrow().events.len() >= 3);
    drop(every);
    let count = seen.borrow().events.len();
    let done = Rc::new(Cell::new(false));
    thread.spawn("wait", {
        let (thread, done) = (thread.clone(), Rc::clone(&done));
        async move {
            thread.sleep(Duration::from_millis(20)).await;
            done.set(true);
        }
    });
    turn_until(&thread, || done.get());
    assert_eq!(seen.borrow().events.len(), count);
}

#[test]
fn a_periodic_event_keeps_its_grid_and_does_not_catch_up_after_a_suspend() {
    let clock = base::ManualClock::default();
    let external = Arc::new(crate::external::External::new().unwrap());
    let driver = crate::driver::Driver::epoll(external.wake()).unwrap();
    let options = ThreadOptions { name: "[test]".into(), index: 0, seed: 1 };
    let time = crate::thread::ThreadClock::Manual(clock.clone());
    let thread = Thread::with(options, external, driver, time).unwrap();
    let (seen, cont) = recorder();
    let start = thread.now();
    let _every = thread.schedule_every(cont, Duration::from_millis(100));
    let count_at = |ms: u64| {
        clock.advance_to(start + Duration::from_millis(ms));
        thread.turn(false).unwrap();
        seen.borrow().events.len()
    };
    // Late by 60 ms each time: the grid stays where it was.
    assert_eq!([count_at(99), count_at(160), count_at(199), count_at(260), count_at(300)], [0, 1, 1, 2, 3]);
    // An hour away: one event, and then the grid again.
    assert_eq!([count_at(3_600_050), count_at(3_600_099), count_at(3_600_100)], [4, 4, 5]);
}

#[test]
fn a_task_that_always_wakes_itself_does_not_starve_timers_and_sockets() {
    let thread = thread();
    thread.spawn("greedy", async {
        loop {
            let mut yielded = false;
            std::future::poll_fn(|context| {
                if std::mem::replace(&mut yielded, true) {
                    return std::task::Poll::Ready(());
                }
                context.waker().wake_by_ref();
                std::task::Poll::Pending
            })
            .await;
        }
    });
    let done = Rc::new(Cell::new(false));
    thread.spawn("modest", {
        let (thread, done) = (thread.clone(), Rc::clone(&done));
        async move {
            thread.sleep(Duration::from_millis(3)).await;
            done.set(true);
        }
    });
    turn_until(&thread, || done.get());
}

#[test]
fn a_panic_ends_one_task_and_the_loop_goes_on() {
    let thread = thread();
    let done = Rc::new(Cell::new(false));
    thread.spawn("bad", async { panic!("on purpose") });
    thread.spawn("good", {
        let done = Rc::clone(&done);
        async move { done.set(true) }
    });
    turn_until(&thread, || done.get());
    assert_eq!(thread.stats().panics(), (1, "bad"));
}

#[test]
fn a_cancelled_task_drops_what_it_holds_at_once() {
    let thread = thread();
    let held = Rc::new(());
    let task = thread.spawn("holder", {
        let held = Rc::clone(&held);
        async move {
            let _held = held;
            std::future::pending::<()>().await;
        }
    });
    thread.turn(false).unwrap();
    assert_eq!(Rc::strong_count(&held), 2);
    task.cancel();
    assert_eq!(Rc::strong_count(&held), 1);
    assert_eq!(thread.tasks_live(), 0);
}

#[test]
fn a_timeout_drops_the_late_future() {
    let thread = thread();
    let result = Rc::new(Cell::new(None));
    thread.spawn("late", {
        let (thread, result) = (thread.clone(), Rc::clone(&result));
        async move {
            let late = timeout(&thread, Duration::from_millis(3), std::future::pending::<()>()).await;
            result.set(Some(late));
        }
    });
    turn_until(&thread, || result.get().is_some());
    assert_eq!(result.get(), Some(Err(Elapsed)));
}

#[test]
fn messages_and_wakes_from_other_threads_reach_a_sleeping_loop() {
    let processor = Processor::start(&ProcessorOptions { net: 2, task: 1, pin: false, seed: 1 }, |_| Ok(())).unwrap();
    let (send, received) = mpsc::channel();
    let second = processor.net()[1].clone();
    // Thread 0 asks the background; the answer wakes a task of thread 0; that tells thread 1.
    let asks = move |thread: &Thread| {
        thread.spawn("asks", async move {
            let answer = background().unwrap().run(|| 6 * 7).await;
            second.run(move |thread| send.send((answer, thread.index())).unwrap()).unwrap();
        });
    };
    processor.net()[0].run(asks).unwrap();
    assert_eq!(received.recv_timeout(PATIENCE), Ok((Ok(42), 1)));
    assert!(processor.is_whole());
    assert!(processor.stop(PATIENCE));
}

#[test]
fn panicking_background_work_answers_so() {
    let (background, threads) = Background::start(1).unwrap();
    let thread = thread();
    let result = Rc::new(RefCell::new(None));
    let work = background.run(|| -> () { panic!("on purpose") });
    thread.spawn("asks", {
        let result = Rc::clone(&result);
        async move { *result.borrow_mut() = Some(work.await) }
    });
    turn_until(&thread, || result.borrow().is_some());
    assert_eq!(*result.borrow(), Some(Err(BackgroundError::Panicked)));
    threads.stop();
}

/// Echoes until the client ends.
async fn echo(tcp: Tcp) {
    loop {
        let mut block = Block::new(SizeClass::Medium);
        match tcp.recv(&mut block).await {
            Ok(0) | Err(_) => return,
            Ok(_) => tcp.send(block.into_chunk()),
        }
        if tcp.room(64 << 10).await.is_err() {
            return;
        }
    }
}

fn echo_server(threads: usize, limit: usize) -> (Processor, Arc<Shares>, SocketAddr) {
    let fd = sys::socket::listen("127.0.0.1:0".parse().unwrap(), 1_024).unwrap();
    let address = sys::socket::local_address(&fd).unwrap().unwrap();
    let shares = Shares::new(threads, limit);
    let peers = Arc::new(OnceLock::new());
    let listener = Listener::new(fd, Arc::clone(&shares), Arc::clone(&peers), |thread, tcp| {
        thread.spawn("echo", echo(tcp));
    })
    .unwrap();
    let options = ProcessorOptions { net: threads, task: 1, pin: false, seed: 1 };
    let processor = Processor::start(&options, move |thread| listener.accept_on(thread)).unwrap();
    peers.set(processor.net().to_vec()).unwrap();
    (processor, shares, address)
}

#[test]
fn a_megabyte_is_echoed_whole_through_short_writes() {
    let (processor, _, address) = echo_server(1, 100);
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    let mut writer = client.try_clone().unwrap();
    let copy = sent.clone();
    let join = std::thread::Builder::new().spawn(move || writer.write_all(&copy)).unwrap();
    let mut received = vec![0; sent.len()];
    client.read_exact(&mut received).unwrap();
    join.join().unwrap().unwrap();
    assert!(received == sent);
    assert!(processor.stop(PATIENCE));
}

#[test]
fn a_thousand_long_connections_are_shared_between_two_threads() {
    // Two descriptors each, and some for all else; where fewer may be had, fewer connections.
    let allowed = usize::try_from(sys::thread::raise_descriptor_limit()).unwrap_or(usize::MAX);
    let count = 1_000.min(allowed.saturating_sub(100) / 2);
    let (processor, shares, address) = echo_server(2, 10_000);
    let clients: Vec<_> = (0..count).map(|_| TcpStream::connect(address).unwrap()).collect();
    for mut client in &clients {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    let open = shares.open_by_thread();
    assert_eq!(open.iter().sum::<usize>(), count);
    assert!(open.iter().all(|&open| open <= count / 2 + count / 10 + 2), "{open:?}");
    assert!(processor.stop(PATIENCE));
}

#[test]
fn at_the_limit_a_connection_waits_until_another_ends() {
    let (processor, shares, address) = echo_server(1, 1);
    let mut first = TcpStream::connect(address).unwrap();
    first.write_all(b"a").unwrap();
    first.read_exact(&mut [0]).unwrap();
    let mut second = TcpStream::connect(address).unwrap();
    second.write_all(b"b").unwrap();
    across::wait_until("it is counted as one that waits", || shares.counts()[2] > 0);
    second.set_read_timeout(Some(Duration::from_millis(60))).unwrap();
    assert!(second.read_exact(&mut [0]).is_err(), "beyond the limit it is not served");
    drop(first);
    second.set_read_timeout(Some(PATIENCE)).unwrap();
    second.read_exact(&mut [0]).unwrap();
    assert!(processor.stop(PATIENCE));
}

#[test]
fn a_deadline_ends_a_wait_and_what_was_sent_before_a_close_still_arrives() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = thread();
    let outcome = Rc::new(RefCell::new(None));
    thread.spawn("client", {
        let (thread, outcome) = (thread.clone(), Rc::clone(&outcome));
        async move {
            let tcp = Tcp::connect(&thread, address, thread.now() + PATIENCE).await.unwrap();
            tcp.set_read_deadline(thread.now() + Duration::from_millis(10));
            let mut block = Block::new(SizeClass::Small);
            let late = tcp.recv(&mut block).await;
            tcp.send(Chunk::from_static(b"good bye"));
            drop(tcp);
            *outcome.borrow_mut() = Some(late.map_err(|error| error.kind()));
        }
    });
    let (mut peer, _) = {
        turn_until(&thread, || outcome.borrow().is_some());
        listener.accept().unwrap()
    };
    assert_eq!(*outcome.borrow(), Some(Err(std::io::ErrorKind::TimedOut)));
    let mut text = String::new();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer.read_to_string(&mut text).unwrap();
    assert_eq!(text, "good bye");
}

#[test]
fn a_refused_connect_says_so() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let thread = thread();
    let outcome = Rc::new(RefCell::new(None));
    thread.spawn("client", {
        let (thread, outcome) = (thread.clone(), Rc::clone(&outcome));
        async move {
            let result = Tcp::connect(&thread, free, thread.now() + PATIENCE).await;
            *outcome.borrow_mut() = Some(result.map(|_| ()).map_err(|error| error.kind()));
        }
    });
    turn_until(&thread, || outcome.borrow().is_some());
    assert_eq!(*outcome.borrow(), Some(Err(std::io::ErrorKind::ConnectionRefused)));
}

#[test]
fn a_detached_connection_goes_on_on_another_thread() {
    let (processor, _, address) = echo_server(1, 10);
    let first = thread();
    let detached = Rc::new(RefCell::new(None));
    first.spawn("first", {
        let (thread, detached) = (first.clone(), Rc::clone(&detached));
        async move {
            let tcp = Tcp::connect(&thread, address, thread.now() + PATIENCE).await.unwrap();
            *detached.borrow_mut() = tcp.detach();
        }
    });
    turn_until(&first, || detached.borrow().is_some());
    let connection = detached.borrow_mut().take().unwrap();
    assert!(connection.is_quiet());
    let second = thread();
    let done = Rc::new(Cell::new(false));
    second.spawn("second", {
        let (thread, done) = (second.clone(), Rc::clone(&done));
        async move {
            let tcp = Tcp::attach(&thread, connection).unwrap();
            tcp.send(Chunk::from_static(b"still here"));
            let mut block = Block::new(SizeClass::Small);
            while block.len() < 10 {
                tcp.recv(&mut block).await.unwrap();
            }
            assert_eq!(block.bytes(), b"still here");
            done.set(true);
        }
    });
    turn_until(&second, || done.get());
    assert!(processor.stop(PATIENCE));
}

#[test]
fn a_handler_is_told_of_bytes_at_the_time_they_come_and_not_at_the_time_the_loop_fell_asleep() {
    struct Watch(Rc<Cell<Option<base::Instant>>>);
    impl Continuation for Watch {
        fn handle_event(&mut self, _event: Event, thread: &Thread) {
            self.0.set(Some(thread.now()));
        }
        fn name(&self) -> &'static str {
            "watch"
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    let thread = thread();
    let tcp = Tcp::attach(&thread, Detached::from_fd(socket.into(), None)).unwrap();
    let told = Rc::new(Cell::new(None));
    tcp.set_handler(Rc::new(RefCell::new(Watch(Rc::clone(&told)))));
    let slept = Duration::from_millis(50);
    let fell_asleep = thread.precise_now();
    let late = std::thread::Builder::new()
        .spawn(move || {
            std::thread::sleep(slept);
            peer.write_all(b"x").unwrap();
            peer
        })
        .unwrap();
    // The byte comes for certain, so a turn that sleeps without a bound ends.
    while told.get().is_none() {
        thread.turn(true).unwrap();
    }
    let at = told.get().unwrap();
    assert!(at - fell_asleep >= slept, "{:?}", at - fell_asleep);
    drop((tcp, late.join().unwrap()));
}
