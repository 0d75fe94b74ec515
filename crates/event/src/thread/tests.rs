//! What a thread keeps ready, and what it gives back.

use crate::Continuation;

use super::*;

#[test]
fn a_list_that_is_in_use_keeps_its_memory_and_one_that_a_crowd_has_left_does_not() {
    for most in [4_096, 3_000, 2_049, 2_048] {
        assert_eq!(places_to_keep(4_096, most), 4_096, "{most}");
    }
    assert_eq!(places_to_keep(4_096, 1_000), 1_024);
    assert_eq!(places_to_keep(1 << 20, 0), LIST_KEPT_MIN);
    assert_eq!(places_to_keep(LIST_KEPT_MIN, 0), LIST_KEPT_MIN);
}

#[test]
fn chains_that_were_needed_since_the_last_call_stay() {
    let thread = Thread::new(ThreadOptions { name: "[test]".into(), index: 0, seed: 1 }).unwrap();
    let core = thread.core();
    (0..8).for_each(|_| core.give_chain(Box::default()));
    core.tidy();
    for _ in 0..3 {
        let taken: Vec<_> = (0..6).map(|_| core.take_chain()).collect();
        taken.into_iter().for_each(|chain| core.give_chain(chain));
        core.tidy();
        assert_eq!(core.chains.borrow().len(), 6);
    }
    core.tidy();
    assert_eq!(core.chains.borrow().len(), 0, "nobody has needed one");
}

/// Begins another as it goes, and some of them panic.
struct Heir {
    thread: Thread,
    left: u32,
    gone: Rc<Cell<u32>>,
}

impl Continuation for Heir {
    fn handle_event(&mut self, _: Event, _: &Thread) {}
    fn name(&self) -> &'static str {
        "heir"
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        self.gone.set(self.gone.get() + 1);
        if self.left > 0 {
            let (thread, left, gone) = (self.thread.clone(), self.left - 1, Rc::clone(&self.gone));
            let heir = Rc::new(RefCell::new(Self { thread: thread.clone(), left, gone }));
            thread.schedule_in(heir, Duration::from_secs(1)).detach();
        }
        assert!(self.left != 3, "as the test wants it");
    }
}

#[test]
fn what_is_begun_while_the_last_is_dropped_ends_too() {
    let thread = Thread::new(ThreadOptions { name: "[test]".into(), index: 0, seed: 1 }).unwrap();
    let gone = Rc::new(Cell::new(0));
    let heir = Heir { thread: thread.clone(), left: 4, gone: Rc::clone(&gone) };
    thread.schedule_in(Rc::new(RefCell::new(heir)), Duration::from_secs(1)).detach();
    thread.clear();
    assert_eq!(gone.get(), 5);
}
