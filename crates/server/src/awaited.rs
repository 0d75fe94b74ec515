//! What all event threads were told, and what they say to it. Nobody waits for them: the main thread, which must always
//! answer for the process, looks when its bell rings, and from a moment on does without those that have said nothing.
//!
//! ```text
//! main thread   begin ─> each event thread: Saying ─ say ─┐
//!               poll <──────────── Bell ──────────────────┘  turn ─> turn ─> what was said
//! ```
//!
//! Start at [`Awaited::begin`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use base::Instant;
use event::Handle;
use sys::wake::Wake;

/// Ends the main thread's wait. [`Bell::hush`] it before looking for what it rang for.
#[derive(Clone, Debug)]
pub(crate) struct Bell(Arc<Wake>);

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        Wake::new().map(|wake| Self(Arc::new(wake)))
    }

    pub(crate) fn hush(&self) {
        self.0.drain();
    }

    fn ring(&self) {
        // Fails only when it is closed, which it is not while somebody has it; and who waits has a deadline, too.
        let _ = self.0.wake();
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What one event thread has to say, once. One that is dropped says that nothing comes: the thread has ended, or was told
/// something newer.
#[derive(Debug)]
pub(crate) struct Saying<T> {
    to: Option<mpsc::Sender<T>>,
    bell: Bell,
    in_vain: Arc<AtomicBool>,
}

impl<T> Saying<T> {
    /// Nobody waits for it any more.
    pub(crate) fn is_in_vain(&self) -> bool {
        self.in_vain.load(Ordering::Relaxed)
    }

    pub(crate) fn say(mut self, what: T) {
        if let Some(to) = self.to.take() {
            // Who waited for it may have lost patience.
            let _ = to.send(what);
        }
    }
}

impl<T> Drop for Saying<T> {
    fn drop(&mut self) {
        // Before it rings: whoever comes sees that this one says nothing more.
        self.to = None;
        self.bell.ring();
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Awaited<T> {
    from: mpsc::Receiver<T>,
    said: Vec<T>,
    told: usize,
    until: Instant,
    is_over: bool,
    in_vain: Arc<AtomicBool>,
}

impl<T> Awaited<T> {
    /// Has `tell` pass a [`Saying`] to each thread; whoever has said nothing by `until` is done without.
    pub(crate) fn begin(threads: &[Handle], bell: &Bell, until: Instant, tell: impl Fn(&Handle, Saying<T>)) -> Self {
        let (to, from) = mpsc::channel();
        let in_vain = Arc::new(AtomicBool::new(false));
        for thread in threads {
            tell(thread, Saying { to: Some(to.clone()), bell: bell.clone(), in_vain: Arc::clone(&in_vain) });
        }
        Self { from, said: Vec::new(), told: threads.len(), until, is_over: false, in_vain }
    }

    /// Takes what was said. `true`: nothing more is waited for. Never waits.
    pub(crate) fn turn(&mut self, now: Instant) -> bool {
        while !self.is_over {
            match self.from.try_recv() {
                Ok(what) => {
                    self.said.push(what);
                    self.is_over = self.said.len() == self.told;
                }
                Err(mpsc::TryRecvError::Empty) => {
                    self.is_over = now >= self.until;
                    break;
                }
                // The others have ended.
                Err(mpsc::TryRecvError::Disconnected) => self.is_over = true,
            }
        }
        self.is_over
    }

    /// When to look at the latest.
    pub(crate) const fn until(&self) -> Instant {
        self.until
    }

    /// How many have said nothing.
    pub(crate) const fn missing(&self) -> usize {
        self.told - self.said.len()
    }

    /// What was said until now.
    pub(crate) fn into_said(mut self) -> Vec<T> {
        std::mem::take(&mut self.said)
    }
}

impl<T> Drop for Awaited<T> {
    fn drop(&mut self) {
        self.in_vain.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use base::{Clock, SystemClock};
    use event::{Processor, ProcessorOptions};

    use super::*;

    const SOON: Duration = Duration::from_millis(400);

    /// Two event threads, what was told to them, and the bell.
    fn told() -> (Processor, Awaited<u8>, Vec<Saying<u8>>, Bell) {
        let options = ProcessorOptions { net: 2, task: 1, pin: false, seed: 1 };
        let processor = Processor::start(&options, |_| Ok(())).unwrap();
        let (bell, sayings) = (Bell::new().unwrap(), RefCell::new(Vec::new()));
        let awaited = Awaited::begin(processor.net(), &bell, Instant::ORIGIN + SOON, |_, saying| {
            sayings.borrow_mut().push(saying);
        });
        (processor, awaited, sayings.into_inner(), bell)
    }

    fn has_rung(bell: &Bell) -> bool {
        let began = SystemClock.now();
        supervise::wait::readable(&[bell.as_fd()], Duration::from_secs(60)).unwrap();
        bell.hush();
        SystemClock.now().since(began) < Duration::from_secs(60)
    }

    #[test]
    fn each_that_speaks_rings_and_with_the_last_one_it_is_over() {
        let (processor, mut awaited, mut sayings, bell) = told();
        assert!(!awaited.turn(Instant::ORIGIN));
        sayings.pop().unwrap().say(1);
        assert!(has_rung(&bell));
        assert!(!awaited.turn(Instant::ORIGIN));
        assert_eq!(awaited.missing(), 1);
        sayings.pop().unwrap().say(2);
        assert!(has_rung(&bell));
        assert!(awaited.turn(Instant::ORIGIN));
        assert_eq!(awaited.into_said(), [1, 2]);
        assert!(processor.stop(Duration::from_secs(5)));
    }

    #[test]
    fn who_is_late_is_done_without_and_who_will_not_speak_is_not_waited_for() {
        let (processor, mut awaited, mut sayings, _) = told();
        sayings.pop().unwrap().say(1);
        let until = awaited.until();
        assert!(!awaited.turn(Instant::ORIGIN + (SOON - Duration::from_nanos(1))));
        assert!(awaited.turn(until));
        assert_eq!(awaited.missing(), 1);
        sayings.pop().unwrap().say(2);
        assert!(awaited.turn(until), "what comes later changes nothing");
        assert_eq!(awaited.into_said(), [1]);

        let (other, mut awaited, sayings, bell) = told();
        drop(sayings);
        assert!(has_rung(&bell));
        assert!(awaited.turn(Instant::ORIGIN));
        assert_eq!(awaited.missing(), 2);
        assert!(processor.stop(Duration::from_secs(5)) && other.stop(Duration::from_secs(5)));
    }
}
