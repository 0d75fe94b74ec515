//! Promises between threads: events that others schedule, their cancel, channels, ET_TASK.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::*;

fn processor(net: usize) -> Processor {
    Processor::start(&ProcessorOptions { net, task: 1, pin: false, seed: 1 }, |_| Ok(())).unwrap()
}

pub(super) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let clock = base::SystemClock;
    let began = base::Clock::now(&clock);
    while !holds() {
        assert!(base::Clock::now(&clock) - began < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs `f` on that thread and waits for what it says.
fn ask<T: Send + 'static>(handle: &Handle, f: impl FnOnce(&Thread) -> T + Send + 'static) -> T {
    let (send, answer) = mpsc::channel();
    handle.run(move |thread| send.send(f(thread)).unwrap()).unwrap();
    answer.recv_timeout(PATIENCE).unwrap()
}

/// Tells each event with the name of the thread it came on, and its own end.
struct Teller(mpsc::Sender<(Option<Event>, String)>);

fn here() -> String {
    std::thread::current().name().unwrap_or_default().to_owned()
}

impl Continuation for Teller {
    fn handle_event(&mut self, event: Event, _thread: &Thread) {
        let _ = self.0.send((Some(event), here()));
    }
    fn name(&self) -> &'static str {
        "teller"
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        let _ = self.0.send((None, here()));
    }
}

fn teller() -> (Teller, impl Fn() -> (Option<Event>, String)) {
    let (send, told) = mpsc::channel();
    (Teller(send), move || told.recv_timeout(PATIENCE).unwrap())
}

#[test]
fn an_event_scheduled_on_a_group_is_delivered_and_dropped_on_a_thread_of_it() {
    let mut processor = processor(1);
    let dedicated = processor.spawn_event_threads("ET_TEST", 1, |_| Ok(())).unwrap();
    assert!(processor.spawn_event_threads("ET_TEST", 1, |_| Ok(())).is_err(), "names are unique");
    assert_eq!(processor.groups().named("ET_CALL"), Some(ET_NET));
    for (group, name) in
        [(ET_NET, "[ET_NET 0]"), (ET_CALL, "[ET_NET 0]"), (ET_TASK, "[ET_TASK 0]"), (dedicated, "[ET_TEST 0]")]
    {
        let (cont, told) = teller();
        processor.groups().schedule_imm(group, cont).unwrap().detach();
        assert_eq!(told(), (Some(Event::Immediate), name.into()));
        assert_eq!(told(), (None, name.into()));
        let (cont, told) = teller();
        processor.groups().schedule_in(group, cont, Duration::from_millis(2)).unwrap().detach();
        assert_eq!(told(), (Some(Event::Interval), name.into()));
        assert_eq!(told(), (None, name.into()));
    }
    assert!(processor.is_whole());
    assert!(processor.stop(PATIENCE));
}

#[test]
fn a_group_is_used_in_turns() {
    let processor = processor(2);
    let mut names = Vec::new();
    for _ in 0..4 {
        let (cont, told) = teller();
        processor.groups().schedule_imm(ET_NET, cont).unwrap().detach();
        names.push(told().1);
    }
    assert_eq!(names, ["[ET_NET 0]", "[ET_NET 1]", "[ET_NET 0]", "[ET_NET 1]"]);
    assert!(processor.stop(PATIENCE));
}

#[test]
fn a_cancel_from_another_thread_says_whether_it_was_in_time() {
    let processor = processor(1);
    let thread = &processor.net()[0];
    let (cont, told) = teller();
    let action = thread.schedule_in(cont, Duration::from_secs(3_600)).unwrap();
    assert_eq!(ask(thread, Thread::timers_pending), 1);
    assert_eq!(action.cancel(), Cancelled::Prevented);
    assert_eq!(told(), (None, "[ET_NET 0]".into()), "let go at once, where it lived, and not in an hour");
    assert_eq!(ask(thread, Thread::timers_pending), 0);
    let (cont, told) = teller();
    let action = thread.schedule_imm(cont).unwrap();
    assert_eq!(told().0, Some(Event::Immediate));
    assert_eq!(action.cancel(), Cancelled::AlreadyBegun);
    assert!(processor.stop(PATIENCE));
}

#[test]
fn dropping_a_remote_action_cancels_it() {
    let processor = processor(1);
    let (cont, told) = teller();
    drop(processor.net()[0].schedule_in(cont, Duration::from_secs(3_600)).unwrap());
    assert_eq!(told(), (None, "[ET_NET 0]".into()), "no event before its end");
    assert!(processor.stop(PATIENCE));
}

#[test]
fn a_periodic_event_of_another_thread_comes_until_it_is_cancelled() {
    let processor = processor(1);
    let (cont, told) = teller();
    let action = processor.net()[0].schedule_every(cont, Duration::from_millis(1)).unwrap();
    for _ in 0..3 {
        assert_eq!(told().0, Some(Event::Interval));
    }
    action.cancel();
    // What had begun when the cancel returned may still be told; then the end, and nothing after it.
    let mut late = 0;
    while told().0.is_some() {
        late += 1;
    }
    assert!(late <= 1_000, "{late}");
    assert_eq!(ask(&processor.net()[0], Thread::timers_pending), 0);
    assert!(processor.stop(PATIENCE));
}

/// Counts deliveries.
struct Count(Arc<AtomicU64>);

impl Continuation for Count {
    fn handle_event(&mut self, _event: Event, _thread: &Thread) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn name(&self) -> &'static str {
        "count"
    }
}

#[test]
fn of_many_events_cancelled_at_all_moments_exactly_the_ones_begun_are_delivered() {
    let processor = processor(1);
    let delivered = Arc::new(AtomicU64::new(0));
    let mut begun = 0;
    for n in 0..20_000 {
        let cont = Count(Arc::clone(&delivered));
        let action = if n % 3 == 0 {
            processor.net()[0].schedule_in(cont, Duration::ZERO).unwrap()
        } else {
            processor.net()[0].schedule_imm(cont).unwrap()
        };
        for _ in 0..n % 500 {
            std::hint::spin_loop();
        }
        begun += u64::from(action.cancel() == Cancelled::AlreadyBegun);
    }
    wait_until("all are delivered", || delivered.load(Ordering::Relaxed) >= begun);
    ask(&processor.net()[0], |_| ());
    assert_eq!(delivered.load(Ordering::Relaxed), begun);
    assert!(processor.stop(PATIENCE));
}

/// Notes its number, and carries some weight.
struct Noted<const WORDS: usize>(usize, Arc<Mutex<Vec<usize>>>, [u64; WORDS]);

impl<const WORDS: usize> Continuation for Noted<WORDS> {
    fn handle_event(&mut self, event: Event, _thread: &Thread) {
        assert_eq!(event, Event::Immediate);
        assert_eq!(self.2, [7; WORDS]);
        self.1.lock().unwrap().push(self.0);
    }
    fn name(&self) -> &'static str {
        "noted"
    }
}

#[test]
fn what_one_thread_sends_to_another_keeps_its_order_in_ring_and_overflow_and_any_of_it_can_be_taken_back() {
    let thread = thread();
    let handle = thread.handle();
    let noted = Arc::new(Mutex::new(Vec::new()));
    let mut sent = 0;
    let mut kept = Vec::new();
    for round in 0..3 {
        // More than the ring holds, then again as much while half of it is still there.
        for _ in 0..3_000 {
            let list = Arc::clone(&noted);
            match sent % 4 {
                0 => handle.run(move |_| list.lock().unwrap().push(sent)).unwrap(),
                1 => kept.push(handle.schedule_imm(Noted(sent, list, [7; 1])).unwrap()),
                2 => handle.schedule_imm(Noted(sent, list, [7; 32])).unwrap().detach(),
                // Cancelled before the thread looks.
                _ => assert_eq!(handle.schedule_imm(Noted(sent, list, [7; 2])).unwrap().cancel(), Cancelled::Prevented),
            }
            sent += 1;
        }
        thread.turn(false).unwrap();
        assert!(handle.queued() > 1_000, "there is a rest in round {round}");
    }
    while handle.queued() > 0 {
        thread.turn(false).unwrap();
    }
    assert!(noted.lock().unwrap().iter().copied().eq((0..sent).filter(|n| n % 4 != 3)));
    assert_eq!(Arc::strong_count(&noted), 1, "each was dropped, cancelled ones too");
    assert!(kept.into_iter().all(|action| action.cancel() == Cancelled::AlreadyBegun));
}

#[test]
fn a_handle_whose_slot_is_used_again_cancels_nothing_even_when_another_thread_has_the_ring() {
    let delivered = Arc::new(AtomicU64::new(0));
    let mut stale: Vec<RemoteAction> = Vec::new();
    let mut sent = 0;
    // One thread after the other: each takes over the ring of the one before it, unless another test is quicker.
    for _ in 0..3 {
        let thread = thread();
        for _ in 0..4 {
            let fresh: Vec<_> =
                (0..1_500).map(|_| thread.handle().schedule_imm(Count(Arc::clone(&delivered))).unwrap()).collect();
            sent += 1_500;
            assert!(stale.drain(..).all(|action| action.cancel() == Cancelled::AlreadyBegun));
            while thread.handle().queued() > 0 {
                thread.turn(false).unwrap();
            }
            assert_eq!(delivered.load(Ordering::Relaxed), sent);
            stale = fresh;
        }
    }
}

#[test]
fn an_event_that_waits_for_its_turn_when_its_thread_ends_is_told_so() {
    let thread = thread();
    let (cont, told) = teller();
    let action = thread.handle().schedule_imm(cont).unwrap();
    let (other, other_told) = teller();
    assert_eq!(thread.handle().schedule_imm(other).unwrap().cancel(), Cancelled::Prevented);
    thread.clear();
    assert_eq!(told().0, Some(Event::Cancelled));
    assert_eq!(told().0, None);
    assert_eq!(other_told().0, None, "that one was taken back");
    assert_eq!(action.cancel(), Cancelled::AlreadyBegun);
    assert!(matches!(thread.handle().schedule_imm(teller().0), Err(Refused::Ended)));
}

#[test]
fn a_continuation_that_cannot_be_sent_is_made_where_it_lives() {
    let processor = processor(1);
    let (send, told) = mpsc::channel();
    let cont = made_there("not Send", move |_| {
        let made_on = here();
        struct NotSend(Rc<String>, mpsc::Sender<(String, String)>);
        impl Continuation for NotSend {
            fn handle_event(&mut self, _event: Event, _thread: &Thread) {
                let _ = self.1.send((self.0.to_string(), here()));
            }
            fn name(&self) -> &'static str {
                "not Send"
            }
        }
        Rc::new(RefCell::new(NotSend(Rc::new(made_on), send)))
    });
    let action = processor.net()[0].schedule_every(cont, Duration::from_millis(1)).unwrap();
    for _ in 0..2 {
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), ("[ET_NET 0]".into(), "[ET_NET 0]".into()));
    }
    drop(action);
    assert!(processor.stop(PATIENCE));
}

#[test]
fn what_is_scheduled_on_a_thread_that_ends_is_told_so_and_then_the_thread_refuses() {
    let processor = processor(1);
    let handle = processor.net()[0].clone();
    let (cont, told) = teller();
    handle.schedule_in(cont, Duration::from_secs(3_600)).unwrap().detach();
    assert!(processor.stop(PATIENCE));
    assert_eq!(told().0, Some(Event::Cancelled));
    assert_eq!(told().0, None);
    assert_eq!(handle.run(|_| ()), Err(Refused::Ended));
    assert!(matches!(handle.schedule_imm(teller().0), Err(Refused::Ended)));
}

#[test]
fn a_full_queue_refuses_and_the_thread_takes_it_in_parts() {
    let thread = thread();
    let handle = thread.handle();
    for _ in 0..MESSAGES_MAX {
        handle.run(|_| ()).unwrap();
    }
    assert_eq!(handle.run(|_| ()), Err(Refused::Full));
    thread.turn(false).unwrap();
    let left = handle.queued();
    assert!(left < MESSAGES_MAX && left > MESSAGES_MAX - 5_000, "one turn takes a bounded number: {left}");
    assert_eq!(handle.run(|_| ()), Ok(()));
}

#[test]
fn wakes_to_a_full_queue_take_no_memory_and_lose_no_task() {
    let thread = thread();
    let handle = thread.handle();
    let (waker, polls) = (Rc::new(RefCell::new(None)), Rc::new(Cell::new(0)));
    thread.spawn("waits", {
        let (waker, polls) = (Rc::clone(&waker), Rc::clone(&polls));
        std::future::poll_fn(move |context| {
            *waker.borrow_mut() = Some(context.waker().clone());
            polls.set(polls.get() + 1);
            std::task::Poll::<()>::Pending
        })
    });
    thread.turn(false).unwrap();
    assert_eq!(polls.get(), 1);
    for _ in 0..MESSAGES_MAX {
        handle.run(|_| ()).unwrap();
    }
    let waker = waker.borrow_mut().take().unwrap();
    let wakes = move || (0..1_000).for_each(|_| waker.wake_by_ref());
    std::thread::Builder::new().spawn(wakes).unwrap().join().unwrap();
    assert_eq!(handle.queued(), MESSAGES_MAX, "bounded");
    thread.turn(false).unwrap();
    assert_eq!(polls.get(), 2, "woken, and once");
}

#[test]
fn a_channel_keeps_order_gives_back_what_does_not_fit_and_ends_with_its_senders() {
    let processor = processor(1);
    let (sender, receiver) = channel::channel::<u32>(64);
    let (send, sums) = mpsc::channel();
    let receive = move |thread: &Thread| {
        thread.spawn("receiver", async move {
            let mut seen = Vec::new();
            while let Some(n) = receiver.recv().await {
                seen.push(n);
            }
            send.send(seen).unwrap();
        });
    };
    processor.net()[0].run(receive).unwrap();
    let mut full = 0;
    for n in 0..50_000 {
        let mut item = n;
        while let Err(error) = sender.try_send(item) {
            assert!(matches!(error, channel::SendError::Full(_)));
            item = error.into_inner();
            full += 1;
            std::thread::yield_now();
        }
    }
    drop(sender);
    let seen = sums.recv_timeout(PATIENCE).unwrap();
    assert!(seen.iter().copied().eq(0..50_000), "each once, in order ({full} times full)");
    assert!(processor.stop(PATIENCE));
}

#[test]
fn a_channel_whose_reader_is_gone_says_so_and_drops_what_waits() {
    let (sender, receiver) = channel::channel(4);
    let held = Arc::new(());
    sender.try_send(Arc::clone(&held)).unwrap();
    drop(receiver);
    assert_eq!(Arc::strong_count(&held), 1);
    assert!(matches!(sender.try_send(Arc::clone(&held)), Err(channel::SendError::Closed(_))));
}

#[test]
fn a_reader_that_waits_learns_that_the_last_sender_is_gone() {
    let thread = thread();
    let (sender, receiver) = channel::channel::<u32>(4);
    let end = Rc::new(Cell::new(None));
    thread.spawn("reader", {
        let end = Rc::clone(&end);
        async move { end.set(Some(receiver.recv().await)) }
    });
    thread.turn(false).unwrap();
    let second = sender.clone();
    drop(sender);
    thread.turn(false).unwrap();
    assert_eq!(end.get(), None, "one is left");
    std::thread::Builder::new().spawn(move || drop(second)).unwrap().join().unwrap();
    turn_until(&thread, || end.get().is_some());
    assert_eq!(end.get(), Some(None));
}

struct Taker {
    receiver: Rc<channel::Receiver<u32>>,
    taken: Rc<RefCell<Vec<u32>>>,
    events: Rc<Cell<u32>>,
}

impl Continuation for Taker {
    fn handle_event(&mut self, event: Event, _thread: &Thread) {
        assert_eq!(event, Event::Message);
        self.events.set(self.events.get() + 1);
        while let Some(n) = self.receiver.try_recv() {
            self.taken.borrow_mut().push(n);
        }
    }
    fn name(&self) -> &'static str {
        "taker"
    }
}

#[test]
fn messages_of_a_channel_are_events_to_a_hand_written_machine() {
    let thread = thread();
    let (sender, receiver) = channel::channel(8);
    let receiver = Rc::new(receiver);
    let (taken, events) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(0)));
    let taker = Taker { receiver: Rc::clone(&receiver), taken: Rc::clone(&taken), events: Rc::clone(&events) };
    let _task = receiver.deliver_to(&thread, Rc::new(RefCell::new(taker)));
    thread.turn(false).unwrap();
    assert_eq!(events.get(), 0);
    let join = std::thread::Builder::new()
        .spawn(move || {
            for n in 0..5 {
                sender.try_send(n).unwrap();
            }
        })
        .unwrap();
    join.join().unwrap();
    turn_until(&thread, || thread.tasks_live() == 1);
    assert_eq!(*taken.borrow(), [0, 1, 2, 3, 4]);
    assert!(events.get() <= 3, "five messages, one or two events, and one for the end: {}", events.get());
}

#[test]
fn background_work_that_is_late_is_told_so_and_waiting_work_is_never_begun() {
    let (background, threads) = Background::start(1).unwrap();
    // Nothing is late before the work is seen to run, however long that takes.
    let clock = base::ManualClock::default();
    let thread = measure::thread_at(&clock);
    let (release, gate) = mpsc::channel::<()>();
    let begun = Arc::new(AtomicBool::new(false));
    let results = Rc::new(RefCell::new(Vec::new()));
    let blocking = background.run_within(&thread, Duration::from_millis(20), move || {
        let _ = gate.recv_timeout(PATIENCE);
    });
    wait_until("it runs", || background.counts()[1] == 1);
    let flag = Arc::clone(&begun);
    let waiting =
        background.run_within(&thread, Duration::from_millis(10), move || flag.store(true, Ordering::Relaxed));
    for work in [Box::pin(blocking) as std::pin::Pin<Box<dyn Future<Output = _>>>, Box::pin(waiting)] {
        let results = Rc::clone(&results);
        thread.spawn("asks", async move {
            let result = work.await;
            results.borrow_mut().push(result);
        });
    }
    thread.turn(false).unwrap();
    assert!(results.borrow().is_empty());
    clock.advance(Duration::from_millis(25));
    // One turn for the timers, one for what they wake.
    thread.turn(false).unwrap();
    thread.turn(false).unwrap();
    assert_eq!(*results.borrow(), [Err(BackgroundError::Late), Err(BackgroundError::Late)]);
    wait_until("the stuck work is visible", || background.oldest_running() >= Some(Duration::from_millis(15)));
    assert_eq!(background.counts()[1], 1);
    release.send(()).unwrap();
    wait_until("both are through", || background.counts()[2] == 2);
    assert!(!begun.load(Ordering::Relaxed));
    assert_eq!(background.oldest_running(), None);
    assert!(threads.stop_within(PATIENCE));
}

#[test]
fn the_background_queue_is_bounded_and_refuses_at_once() {
    let (background, threads) = Background::start(1).unwrap();
    let (release, gate) = mpsc::channel::<()>();
    let done = Arc::new(AtomicUsize::new(0));
    let first = background.run(move || gate.recv_timeout(PATIENCE).is_ok());
    wait_until("it runs", || background.counts()[1] == 1);
    let mut waiting = Vec::new();
    for _ in 0..QUEUE_MAX {
        let done = Arc::clone(&done);
        waiting.push(background.run(move || done.fetch_add(1, Ordering::Relaxed)));
    }
    let thread = thread();
    let refused = Rc::new(Cell::new(None));
    let (one_more, told) = (background.run(|| ()), Rc::clone(&refused));
    thread.spawn("one more", async move { told.set(Some(one_more.await)) });
    turn_until(&thread, || refused.get().is_some());
    assert_eq!(refused.get(), Some(Err(BackgroundError::QueueFull)));
    assert_eq!(background.counts()[4], 1);
    release.send(()).unwrap();
    wait_until("all is done", || done.load(Ordering::Relaxed) == QUEUE_MAX);
    drop((first, waiting));
    assert!(threads.stop_within(PATIENCE));
}

#[test]
fn threads_end_in_order_and_within_the_bound_even_when_work_is_stuck() {
    let processor = processor(1);
    let (release, gate) = mpsc::channel::<()>();
    drop(processor.background().run(move || gate.recv_timeout(PATIENCE).is_ok()));
    let background = processor.background().clone();
    wait_until("it runs", || background.counts()[1] == 1);
    let clock = base::SystemClock;
    let began = base::Clock::now(&clock);
    assert!(!processor.stop(Duration::from_millis(200)), "stuck work does not end");
    assert!(base::Clock::now(&clock) - began < PATIENCE / 2, "it was not waited for");
    drop(release);
}
