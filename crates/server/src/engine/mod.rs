//! The event threads and all they do.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use config::Config;
use supervise::status::ThreadBeat;

/// Listeners for the engine to accept from.
#[derive(Debug)]
pub struct EngineListeners {
    /// HTTP clients.
    pub http: Vec<OwnedFd>,
    /// The server's own page.
    pub server_page: Option<OwnedFd>,
    /// The embedded origin.
    pub demo: Option<OwnedFd>,
}

/// Who serves.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Its pid.
    pub pid: u32,
    /// Its generation.
    pub generation: u64,
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A thread could not be started.
    #[error("no event thread could be started: {0}")]
    Thread(#[source] std::io::Error),
}

/// The running engine.
#[derive(Debug)]
pub struct Engine {
    stopping: Arc<AtomicBool>,
    open: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

const LOOK: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_millis(500);

impl Engine {
    /// Starts the event threads; they accept when this returns.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(
        _config: Arc<Config>,
        listeners: EngineListeners,
        identity: Identity,
        _segment: Option<PathBuf>,
    ) -> Result<Self, StartError> {
        let stopping = Arc::new(AtomicBool::new(false));
        let open = Arc::new(AtomicU64::new(0));
        let mut threads = Vec::new();
        for fd in listeners.http.into_iter().chain(listeners.server_page).chain(listeners.demo) {
            let (stopping, open) = (Arc::clone(&stopping), Arc::clone(&open));
            let body = format!("{} {}\n", identity.pid, identity.generation);
            let answer =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
            let serve = move || accept(&TcpListener::from(fd), &answer, &stopping, &open);
            let name = format!("[ET_NET {}]", threads.len());
            threads.push(std::thread::Builder::new().name(name).spawn(serve).map_err(StartError::Thread)?);
        }
        Ok(Self { stopping, open, threads })
    }

    /// Accepts nothing more.
    pub fn drain(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Client connections open.
    #[must_use]
    pub fn open_connections(&self) -> u64 {
        self.open.load(Ordering::Acquire)
    }

    /// Signs of life of the event threads.
    #[must_use]
    pub fn beats(&self) -> Vec<ThreadBeat> {
        Vec::new()
    }

    /// Closes and opens the log files.
    pub fn reopen_logs(&self) {}

    /// Ends it.
    pub fn stop(self) {
        self.drain();
        for thread in self.threads {
            let _ = thread.join(); // a thread that panicked has ended, too
        }
    }
}

fn accept(listener: &TcpListener, answer: &str, stopping: &AtomicBool, open: &AtomicU64) {
    while !stopping.load(Ordering::Acquire) {
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::sleep(LOOK);
            continue;
        };
        open.fetch_add(1, Ordering::AcqRel);
        let mut request = [0; 4096];
        let set = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(PATIENCE)));
        if set.and_then(|()| stream.read(&mut request)).is_ok_and(|read| read > 0) {
            let _ = stream.write_all(answer.as_bytes()); // the client may have gone
        }
        open.fetch_sub(1, Ordering::AcqRel);
    }
}
