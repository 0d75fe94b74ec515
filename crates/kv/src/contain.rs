//! Doing something with each of many, or one thing after the other, whatever becomes of one.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a panic says.
pub(crate) type Panic = Box<dyn Any + Send>;

/// Does `work` with each. One at which that panics is given up, and the others are worked on all the same; `first` keeps
/// what the first such panic said.
pub(crate) fn each<T>(list: &[T], first: &mut Option<Panic>, mut work: impl FnMut(&T), mut give_up: impl FnMut(&T)) {
    let mut next = 0;
    while next < list.len() {
        // Of all that is left in one go: nothing is set up for each.
        let rest = catch_unwind(AssertUnwindSafe(|| {
            while let Some(it) = list.get(next) {
                next += 1;
                work(it);
            }
        }));
        if let (Err(panic), Some(it)) = (rest, list.get(next.saturating_sub(1))) {
            first.get_or_insert(panic);
            // A second panic says nothing new.
            let _ = catch_unwind(AssertUnwindSafe(|| give_up(it)));
        }
    }
}

/// Does this. False when it panics; `first` keeps what the first panic said.
pub(crate) fn one(first: &mut Option<Panic>, work: impl FnOnce()) -> bool {
    let outcome = catch_unwind(AssertUnwindSafe(work));
    outcome.map_err(|panic| _ = first.get_or_insert(panic)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_panics_is_given_up_and_the_others_are_done() {
        let (mut done, mut given_up, mut panic) = (Vec::new(), Vec::new(), None);
        let work = |number: &u32| {
            assert!(!number.is_multiple_of(3), "{number} as the test wants it");
            done.push(*number);
        };
        let give_up = |number: &u32| {
            given_up.push(*number);
            assert!(*number != 3, "a second one");
        };
        each(&[1, 2, 3, 4, 6, 5, 9], &mut panic, work, give_up);
        assert_eq!((done, given_up), (vec![1, 2, 4, 5], vec![3, 6, 9]));
        assert_eq!(panic.unwrap().downcast_ref::<String>().unwrap(), "3 as the test wants it");
        let mut none = None;
        each(&[1], &mut none, |_| {}, |_| panic!("nothing is given up"));
        assert!(none.is_none());
    }
}
