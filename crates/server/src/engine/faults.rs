//! Faults on demand, for tests of those who watch: `POST /fault/spin` on the server's own page, and the like.
//!
//! They exist only in a server in whose environment somebody wrote [`CONSENT`], word for word, before it was started; it
//! says so in its log. No option, no configuration and no request brings them into being.

use std::borrow::Cow;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::local::{Piece, Pieces, Whole};
use supervise::warn;

/// The variable, and what it must say.
const CONSENT: (&str, &str) = ("BELTWAY_FAULTS_FOR_TESTS", "let this server be broken by requests");

/// How long a thread dawdles: less than any hang.
const DAWDLED: Duration = Duration::from_millis(500);

/// Whether there are faults in this process.
pub(super) fn are_wanted() -> bool {
    let wanted = std::env::var(CONSENT.0).is_ok_and(|consent| consent == CONSENT.1);
    if wanted {
        warn!("{} is set: whoever reaches this server's own page can break it", CONSENT.0);
    }
    wanted
}

/// Whether pages are to be left without an answer from now on.
static DEAF: AtomicBool = AtomicBool::new(false);

/// The content of an answer; it waits for an hour when answers are to fail.
pub(super) fn held_back(content: Option<Cow<'static, [u8]>>) -> Box<dyn Pieces> {
    if DEAF.load(Ordering::Relaxed) { Box::new(HeldBack(content)) } else { Box::new(Whole(content)) }
}

struct HeldBack(Option<Cow<'static, [u8]>>);

impl Pieces for HeldBack {
    fn next_piece(&mut self) -> Option<Piece> {
        self.0.take().map(|bytes| Piece { delay: Duration::from_secs(3600), bytes })
    }
}

/// Has the calling event thread do what is asked; returns only when it goes on after that.
pub(super) fn commit(path: &[u8]) {
    match path {
        b"/fault/spin" => spin(),
        b"/fault/block" => block(),
        b"/fault/dawdle" => std::thread::sleep(DAWDLED),
        b"/fault/abort" => std::process::abort(),
        b"/fault/overflow" => drop(black_box(overflow(0))),
        b"/fault/deaf" => DEAF.store(true, Ordering::Relaxed),
        b"/fault/panic" => panic!("a request asked for it"),
        _ => {}
    }
}

/// Runs for ever, and gives its turn to nobody.
#[inline(never)]
fn spin() {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Waits for ever, as if for a lock that nobody releases.
#[inline(never)]
fn block() {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Leaves the stack, which is a segmentation fault.
#[inline(never)]
fn overflow(depth: u64) -> u64 {
    let room = black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { overflow(black_box(depth + 1)) + room[3] }
}
