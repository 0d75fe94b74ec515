//! The admin thread: accepts, bounds, and hands each connection to the routes.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use supervise::log::{Level, write};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

use super::{StatusSource, routes};

/// Connections served at once; others wait in the accept queue.
pub const CONNECTIONS_MAX: usize = 64;
/// A request's head must be there after so long; an idle connection is closed then, too.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(10);
/// A connection is closed after so long, whatever it does.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(300);
/// Largest request head, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Questions to manager under way at a time; others wait for their turn.
const ASKING_MAX: usize = 8;
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The running admin thread. Dropping it lets the thread end by itself.
#[derive(Debug)]
pub struct AdminHandle {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: mpsc::Receiver<()>,
}

impl AdminHandle {
    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the listener and all connections, waiting at most `within`. Says whether the thread has ended.
    pub fn stop(self, within: Duration) -> bool {
        // An error means that the thread has ended already.
        let _ = self.stop.send(());
        self.ended.recv_timeout(within) != Err(mpsc::RecvTimeoutError::Timeout)
    }
}

/// Serves the admin port on `listener` from a thread named `[ADMIN]`.
///
/// # Errors
/// What the system says: no more threads or descriptors.
pub fn spawn(listener: TcpListener, source: Arc<dyn StatusSource>) -> io::Result<AdminHandle> {
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(ASKING_MAX)
        .build()?;
    let (stop, stopped) = oneshot::channel();
    let (ending, ended) = mpsc::sync_channel::<()>(1);
    std::thread::Builder::new().name("[ADMIN]".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = accept(listener, address, source) => {}
                // An error means that the handle was dropped.
                _ = stopped => {}
            }
        });
        // Connections end with the runtime.
        drop(runtime);
        drop(ending);
    })?;
    Ok(AdminHandle { address, stop, ended })
}

async fn accept(listener: TcpListener, address: SocketAddr, source: Arc<dyn StatusSource>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            write(Level::Error, format_args!("admin port {address} cannot be served: {error}"));
            return;
        }
    };
    let router = routes::router(address, source);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // Never closed.
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                write(Level::Warning, format_args!("admin port {address} cannot accept: {error}"));
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_WAIT_MAX)
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service);
            // A client that goes away, is late or talks nonsense is its own business; nobody is told.
            let _ = timeout(CONNECTION_AGE_MAX, connection).await;
            drop(permit);
        });
    }
}
