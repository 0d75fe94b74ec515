//! Clients that must not notice a planned change: many that idle on kept connections, and one with a long download.
//!
//! The download comes from an origin of its own, a thread that sends a piece every so often; so it takes as long as it is
//! told to, whatever the buffers on the way hold.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::RecvFlags;

use crate::error::{Doing, Outcome, Trouble};
use crate::probe;

/// Between two pieces of the download.
const PIECE_EVERY: Duration = Duration::from_millis(100);
/// Bytes of one.
const PIECE: usize = 1024;
/// Bound of each wait on a connection.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often the origin looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The origin of the long download. Dropping it ends it.
pub(super) struct SlowOrigin {
    /// Its port on 127.0.0.1.
    pub(super) port: u16,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SlowOrigin {
    /// Serves one download after another, each as long as `lasts`.
    pub(super) fn start(lasts: Duration) -> Outcome<Self> {
        let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).doing("the slow origin's port")?;
        listener.set_nonblocking(true).doing("the slow origin's port")?;
        let port = listener.local_addr().doing("the slow origin's port")?.port();
        let ended = Arc::new(AtomicBool::new(false));
        let ending = Arc::clone(&ended);
        let thread = std::thread::Builder::new()
            .name("slow origin".to_owned())
            .spawn(move || {
                while !ending.load(Ordering::Relaxed) {
                    match listener.accept() {
                        // A client that goes away has ended its download itself.
                        Ok((stream, _)) => drop(serve(stream, lasts, &ending)),
                        Err(_) => std::thread::sleep(LOOK_EVERY),
                    }
                }
            })
            .doing("the slow origin's thread")?;
        Ok(Self { port, ended, thread: Some(thread) })
    }
}

impl Drop for SlowOrigin {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn pieces(lasts: Duration) -> usize {
    usize::try_from(lasts.as_millis() / PIECE_EVERY.as_millis()).unwrap_or(0).max(1)
}

fn serve(mut stream: TcpStream, lasts: Duration, ended: &AtomicBool) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut head = Vec::new();
    let mut byte = [0; 1];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(());
        }
        head.extend_from_slice(&byte);
    }
    let pieces = pieces(lasts);
    let length = pieces * PIECE;
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    for _ in 0..pieces {
        if ended.load(Ordering::Relaxed) {
            break;
        }
        stream.write_all(&[b'x'; PIECE])?;
        std::thread::sleep(PIECE_EVERY);
    }
    Ok(())
}

/// The clients.
pub(super) struct Witnesses {
    port: u16,
    idle: Vec<TcpStream>,
    download: JoinHandle<Result<usize, String>>,
    expected: usize,
}

/// What they saw.
pub(super) struct Testimony {
    /// Idle clients.
    pub(super) idle: usize,
    /// Of these: connections that ended, or did not answer the request they made at the end.
    pub(super) resets: usize,
    /// What became of the download; none: it is whole.
    pub(super) download: Option<String>,
}

impl Witnesses {
    /// `idle` clients make one request each and wait; another begins the download at `path`, which takes as long as
    /// `lasts`.
    pub(super) fn call(port: u16, idle: usize, path: &str, lasts: Duration) -> Outcome<Self> {
        let mut streams = Vec::with_capacity(idle);
        for _ in 0..idle {
            let mut stream = connect(port).doing("an idle client")?;
            let answer = probe::exchange(&mut stream, port, "/pass/1k", &[])?;
            if answer.status != 200 {
                return Err(Trouble::Wrong(format!("an idle client was answered {}", answer.status)));
            }
            streams.push(stream);
        }
        let path = path.to_owned();
        let download = std::thread::Builder::new()
            .name("download".to_owned())
            .spawn(move || download(port, &path).map_err(|error| error.to_string()))
            .doing("the download's thread")?;
        Ok(Self { port, idle: streams, download, expected: pieces(lasts) * PIECE })
    }

    /// Whether the download has ended.
    pub(super) fn is_downloaded(&self) -> bool {
        self.download.is_finished()
    }

    /// Waits for the end of the download and asks the idle once more.
    pub(super) fn hear(self) -> Testimony {
        let download = match self.download.join() {
            Ok(Ok(length)) if length == self.expected => None,
            Ok(Ok(length)) => Some(format!("the download ended after {length} of {} bytes", self.expected)),
            Ok(Err(error)) => Some(format!("the download broke: {error}")),
            Err(_) => Some("the download's thread panicked".to_owned()),
        };
        let idle = self.idle.len();
        let mut resets = 0;
        for mut stream in self.idle {
            let mut byte = [0_u8; 1];
            let peeked = rustix::net::recv(&stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
            let lives = matches!(peeked, Err(rustix::io::Errno::AGAIN));
            let answers = lives
                && probe::exchange(&mut stream, self.port, "/pass/1k", &[]).is_ok_and(|answer| answer.status == 200);
            resets += usize::from(!answers);
        }
        Testimony { idle, resets, download }
    }
}

fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The bytes of content that came.
fn download(port: u16, path: &str) -> std::io::Result<usize> {
    let mut stream = connect(port)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    if !bytes.starts_with(b"HTTP/1.1 200") {
        let line = String::from_utf8_lossy(&bytes).lines().next().unwrap_or_default().to_owned();
        return Err(std::io::Error::other(format!("the answer begins {line:?}")));
    }
    Ok(bytes.len() - probe::head_length(&bytes).unwrap_or(bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_lasts_as_long_as_it_is_told_to_and_a_cut_one_is_told_of() {
        let lasts = PIECE_EVERY * 3;
        let origin = SlowOrigin::start(lasts).unwrap();
        let witnesses = Witnesses::call(origin.port, 0, "/", lasts).unwrap();
        let testimony = witnesses.hear();
        assert_eq!((testimony.download, testimony.resets), (None, 0));
        let long = Duration::from_secs(60);
        let origin = SlowOrigin::start(long).unwrap();
        let witnesses = Witnesses::call(origin.port, 0, "/", long).unwrap();
        drop(origin);
        assert!(witnesses.hear().download.is_some());
    }
}
