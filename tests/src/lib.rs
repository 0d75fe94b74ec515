//! What the walks share: real processes of Beltway, real peers, raw sockets.
//!
//! - [`Server`]: one server process by itself; [`Tree`]: all three, as `beltway run` starts them.
//! - [`Origin`]: an origin that a test scripts byte by byte; [`Nginx`]: one nobody of us wrote.
//! - [`Peer`]: one end of a raw connection, with [`Message`], what was read from it.
//! - [`kv`]: pools, with real stores behind them.
//! - [`process`]: what `/proc` says, and a child that does not outlive its test.
//!
//! Every walk has its own directory, its own ports, and a bound on every wait. What it starts it kills by pid when it
//! ends, however it ends.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a walk that cannot set up its surroundings fails")]

pub mod kv;
mod message;
mod nginx;
mod origin;
mod peer;
pub mod process;
mod server;
mod tree;

pub use message::{Chunked, End, Kind, Message};
pub use nginx::Nginx;
pub use origin::{Accepted, Origin, Received};
pub use peer::Peer;
pub use server::Server;
pub use tree::Tree;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What is waited for comes within this, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(2);

/// The time.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "a test's own patience")]
pub fn now() -> Instant {
    Instant::now()
}

/// Sleeps: to pace what a test does, never to wait for something.
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Waits until `look` yields something.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, look).0
}

/// Waits until `look` yields something, no longer than `limit`, and says how long it took.
pub fn within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> (T, Duration) {
    let begin = now();
    loop {
        if let Some(found) = look() {
            return (found, begin.elapsed());
        }
        assert!(begin.elapsed() < limit, "{what}: not within {limit:?}");
        pause(LOOK);
    }
}

/// Starts a thread of the test.
pub fn thread<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).unwrap()
}

/// An address on 127.0.0.1 that nobody listens on. Below the ports that the kernel gives to outgoing connections, so
/// that none of those takes it before it is listened on.
#[must_use]
pub fn free_address() -> SocketAddr {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..COUNT {
        let at = std::process::id().wrapping_mul(37).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + at % COUNT).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port");
}

/// A directory of one test, removed when it ends.
#[derive(Debug)]
pub struct Home(PathBuf);

impl Home {
    /// A new, empty one.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("beltway-walk-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What a file in it holds; nothing when there is none.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.file(name)).unwrap_or_default()).into_owned()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
