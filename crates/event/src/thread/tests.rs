//! What a thread keeps ready, and what it gives back.

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
