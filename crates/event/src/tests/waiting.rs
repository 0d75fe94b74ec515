//! Waiting for one of several things, on one thread.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::local;

#[test]
fn the_first_of_two_wins_and_the_other_is_dropped() {
    let thread = thread();
    let held = Rc::new(());
    let result = Rc::new(Cell::new(None));
    thread.spawn("selects", {
        let (thread, held, result) = (thread.clone(), Rc::clone(&held), Rc::clone(&result));
        async move {
            let never = async move {
                let _held = held;
                std::future::pending::<u32>().await
            };
            result.set(Some(select(never, thread.sleep(Duration::from_millis(2))).await));
        }
    });
    turn_until(&thread, || result.get().is_some());
    assert_eq!(result.get(), Some(Either::Second(())));
    assert_eq!(Rc::strong_count(&held), 1);
}

#[test]
fn when_both_are_ready_the_first_is_taken() {
    let thread = thread();
    let result = Rc::new(Cell::new(None));
    thread.spawn("selects", {
        let result = Rc::clone(&result);
        async move { result.set(Some(select(async { 1 }, async { 2 }).await)) }
    });
    turn_until(&thread, || result.get().is_some());
    assert_eq!(result.get(), Some(Either::First(1)));
}

#[test]
fn a_local_channel_holds_no_more_than_it_may_and_senders_wait_for_room() {
    let thread = thread();
    let (sender, receiver) = local::channel(2);
    let most = Rc::new(Cell::new(0));
    let sent = Rc::new(Cell::new(0));
    for first in [0, 100] {
        let (sender, sent, most) = (sender.clone(), Rc::clone(&sent), Rc::clone(&most));
        thread.spawn("sends", async move {
            for n in 0..50 {
                sender.send(first + n).await.unwrap();
                sent.set(sent.get() + 1);
                most.set(most.get().max(sent.get()));
            }
        });
    }
    drop(sender);
    thread.turn(false).unwrap();
    thread.turn(false).unwrap();
    assert_eq!(sent.get(), 2, "the channel is full");
    let received = Rc::new(RefCell::new(Vec::new()));
    thread.spawn("receives", {
        let received = Rc::clone(&received);
        async move {
            while let Some(n) = receiver.recv().await {
                received.borrow_mut().push(n);
            }
        }
    });
    turn_until(&thread, || thread.tasks_live() <= 1 && received.borrow().len() == 100);
    let of =
        |from: i32| received.borrow().iter().copied().filter(|n| (from..from + 100).contains(n)).collect::<Vec<_>>();
    assert!(of(0).into_iter().eq(0..50) && of(100).into_iter().eq(100..150), "each sender's order is kept");
}

#[test]
fn a_local_channel_gives_back_what_does_not_fit_or_nobody_reads() {
    let (sender, receiver) = local::channel(1);
    sender.try_send(1).unwrap();
    assert_eq!(sender.try_send(2), Err(channel::SendError::Full(2)));
    assert_eq!(receiver.try_recv(), Some(1));
    drop(receiver);
    assert_eq!(sender.try_send(3), Err(channel::SendError::Closed(3)));
}

#[test]
fn a_oneshot_brings_one_answer_or_the_news_that_none_will_come() {
    let thread = thread();
    let answers = Rc::new(RefCell::new(Vec::new()));
    let (first, second) = (local::oneshot(), local::oneshot::<u32>());
    for receiver in [first.1, second.1] {
        let answers = Rc::clone(&answers);
        thread.spawn("waits", async move {
            let answer = receiver.recv().await;
            answers.borrow_mut().push(answer);
        });
    }
    thread.turn(false).unwrap();
    assert!(!first.0.is_closed());
    first.0.send(7).unwrap();
    drop(second.0);
    turn_until(&thread, || answers.borrow().len() == 2);
    assert_eq!(*answers.borrow(), [Some(7), None]);
    let (sender, receiver) = local::oneshot();
    drop(receiver);
    assert!(sender.is_closed());
    assert_eq!(sender.send(1), Err(1));
}

#[test]
fn what_a_timer_or_a_message_leaves_for_the_tail_is_done_before_the_loop_sleeps() {
    struct Leaves(Arc<AtomicBool>);
    impl Continuation for Leaves {
        fn handle_event(&mut self, _event: Event, _thread: &Thread) {
            self.0.store(true, Ordering::Relaxed);
        }
        fn name(&self) -> &'static str {
            "leaves work"
        }
    }
    let far = Duration::from_secs(20);
    for by_message in [false, true] {
        let thread = thread();
        let left = Arc::new(AtomicBool::new(false));
        thread.at_tail({
            let left = Arc::clone(&left);
            move |thread| {
                if left.load(Ordering::Relaxed) {
                    // The loop ends, if it does not sleep first.
                    thread.stop();
                }
            }
        });
        let _far = thread.schedule_in(Rc::new(RefCell::new(Leaves(Arc::clone(&left)))), far);
        let began = thread.precise_now();
        if by_message {
            thread.handle().schedule_imm(Leaves(left)).unwrap().detach();
        } else {
            thread.schedule_in(Rc::new(RefCell::new(Leaves(left))), Duration::from_millis(2)).detach();
        }
        thread.run().unwrap();
        assert!(thread.precise_now() - began < far / 2, "the loop slept first");
    }
}
