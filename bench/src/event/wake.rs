//! How long it takes to wake a thread that sleeps, there and back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use base::{Clock, Instant, SystemClock};
use event::{Handle, Processor, ProcessorOptions};
use rustix::event::{EventfdFlags, eventfd};

use super::PATIENCE;
use crate::error::{Doing, Outcome, Trouble};

const EXCHANGES: u32 = 10_000;
/// Exchanges before the first that counts.
const WARM_UP: u32 = 500;

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of one exchange")]
fn middle(mut trips: Vec<u64>) -> Outcome<f64> {
    trips.sort_unstable();
    // Half a round trip is one wake-up.
    trips.get(trips.len() / 2).map(|&trip| trip as f64 / 2.0).ok_or_else(|| Trouble::Wrong("no exchange".to_owned()))
}

fn nanos(from: Instant, to: Instant) -> u64 {
    u64::try_from((to - from).as_nanos()).unwrap_or(u64::MAX)
}

/// The one end of the game, which measures.
struct Game {
    here: Handle,
    there: Handle,
    trips: Vec<u64>,
    left: u32,
    done: mpsc::Sender<Vec<u64>>,
}

fn serve(mut game: Game) {
    let begun = SystemClock.now();
    let there = game.there.clone();
    // A thread that has ended takes nothing, and the game is over.
    let _ = there.run(move |_| {
        let here = game.here.clone();
        // As above.
        let _ = here.run(move |_| {
            let trip = nanos(begun, SystemClock.now());
            if game.left < EXCHANGES {
                game.trips.push(trip);
            }
            if game.left == 0 {
                // The receiver gave up: nothing to do.
                let _ = game.done.send(std::mem::take(&mut game.trips));
            } else {
                game.left -= 1;
                serve(game);
            }
        });
    });
}

pub(super) fn threads() -> Outcome<f64> {
    let options = ProcessorOptions { net: 2, task: 1, pin: true, seed: 1 };
    let processor = Processor::start(&options, |_| Ok(())).doing("event threads")?;
    let (done, finished) = mpsc::channel();
    let (here, there) = (processor.net()[0].clone(), processor.net()[1].clone());
    let game = Game { here: here.clone(), there, trips: Vec::new(), left: EXCHANGES + WARM_UP, done };
    here.run(move |_| serve(game)).map_err(|refused| Trouble::Wrong(refused.to_string()))?;
    let trips = finished.recv_timeout(PATIENCE).map_err(|_| Trouble::Late("ping-pong".to_owned(), PATIENCE.as_secs()));
    processor.stop(PATIENCE);
    middle(trips?)
}

/// Two threads that do nothing else: one writes the other's eventfd and reads its own.
pub(super) fn bare() -> Outcome<f64> {
    let make = || eventfd(0, EventfdFlags::CLOEXEC).doing("eventfd");
    let (ping, pong) = (Arc::new(make()?), Arc::new(make()?));
    let over = Arc::new(AtomicBool::new(false));
    let ended = Arc::new((Mutex::new(false), Condvar::new()));
    let (theirs, stop, end) = ((Arc::clone(&ping), Arc::clone(&pong)), Arc::clone(&over), Arc::clone(&ended));
    let (first, second) = cores();
    let other = move || {
        if let Some(core) = second {
            // Unpinned it measures too.
            let _ = crate::leash::pin_to(core);
        }
        let mut counter = [0; 8];
        while rustix::io::read(&*theirs.0, &mut counter).is_ok() && !stop.load(Ordering::Relaxed) {
            if rustix::io::write(&*theirs.1, &1_u64.to_ne_bytes()).is_err() {
                break;
            }
        }
        *end.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        end.1.notify_one();
    };
    let mine = move || -> Outcome<Vec<u64>> {
        if let Some(core) = first {
            // As above.
            let _ = crate::leash::pin_to(core);
        }
        let mut trips = Vec::new();
        let mut counter = [0; 8];
        for n in 0..EXCHANGES + WARM_UP {
            let begun = SystemClock.now();
            rustix::io::write(&*ping, &1_u64.to_ne_bytes()).doing("eventfd")?;
            rustix::io::read(&*pong, &mut counter).doing("eventfd")?;
            if n >= WARM_UP {
                trips.push(nanos(begun, SystemClock.now()));
            }
        }
        over.store(true, Ordering::Relaxed);
        rustix::io::write(&*ping, &1_u64.to_ne_bytes()).doing("eventfd")?;
        Ok(trips)
    };
    std::thread::scope(|scope| {
        let spawn = |work| std::thread::Builder::new().spawn_scoped(scope, work).doing("a thread");
        let _other = std::thread::Builder::new().spawn_scoped(scope, other).doing("a thread")?;
        let trips = spawn(mine)?.join().map_err(|_| Trouble::Wrong("ping-pong panicked".to_owned()))?;
        let over = ended.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(ended.1.wait_timeout_while(over, PATIENCE, |over| !*over));
        middle(trips?)
    })
}

pub(super) fn cores() -> (Option<usize>, Option<usize>) {
    let set = rustix::thread::sched_getaffinity(None).ok();
    let mut mine =
        (0..rustix::thread::CpuSet::MAX_CPU).filter(|&core| set.as_ref().is_some_and(|set| set.is_set(core)));
    let first = mine.next();
    (first, mine.next())
}
