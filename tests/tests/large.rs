//! Much at a time: bodies larger than memory is meant for, and a thousand clients that hardly move.
//!
//! With `BELTWAY_FULL=1` the bodies are 1 GiB, else 256 MiB.

#![allow(clippy::unwrap_used, reason = "a walk that cannot set up its surroundings fails")]

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use sha2::{Digest, Sha256};
use walks::process::{descriptors, raise_descriptor_limit, resident};
use walks::{Nginx, Origin, PATIENCE, Peer, Server, eventually, now, pause, thread, within};

/// What the resident memory of a server may grow by while large bodies pass.
const GROWTH_MAX: u64 = 32 << 20;
/// Clients that hardly move.
const SLOW: usize = 1_000;
/// What a server may hold for all of them: a window's worth for each that downloads, and some.
const HELD_MAX: u64 = 160 << 20;
/// What the 99th percentile of a normal client's answers may take beside them, also on a slow machine: who waits for one
/// that hardly moves waits for many seconds.
const P99_MAX: Duration = Duration::from_secs(1);

fn large() -> u64 {
    if std::env::var_os("BELTWAY_FULL").is_some_and(|value| value == "1") { 1 << 30 } else { 256 << 20 }
}

/// A configuration as an operator would write it.
fn ten_lines(origin: &str) -> Server {
    Server::with(&format!("remap:\n- {{from: \"/\", to: \"{origin}\"}}"))
}

/// Bytes that look like chance, of which no two pieces are alike.
struct Content {
    state: u64,
    left: u64,
}

impl Content {
    fn of(bytes: u64) -> Self {
        Self { state: 0x9E37_79B9_7F4A_7C15, left: bytes }
    }

    /// Fills `piece`; says how much of it.
    fn fill(&mut self, piece: &mut [u8]) -> usize {
        let count = piece.len().min(usize::try_from(self.left).unwrap());
        for word in piece[..count].chunks_mut(8) {
            // xorshift64 (Marsaglia, "Xorshift RNGs", 2003)
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            word.copy_from_slice(&self.state.to_le_bytes()[..word.len()]);
        }
        self.left -= count as u64;
        count
    }
}

/// Puts all of it into `each`, piece by piece, and returns its digest.
fn pour(bytes: u64, mut each: impl FnMut(&[u8])) -> String {
    let (mut content, mut digest) = (Content::of(bytes), Sha256::new());
    let mut piece = vec![0; 1 << 20];
    loop {
        let count = content.fill(&mut piece);
        if count == 0 {
            return hex(&digest.finalize());
        }
        digest.update(&piece[..count]);
        each(&piece[..count]);
    }
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Watches a process's resident memory while something goes on.
struct Growth {
    before: u64,
    most: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    watcher: JoinHandle<()>,
}

impl Growth {
    fn watch(pid: u32) -> Self {
        let before = resident(pid);
        let (most, ended) = (Arc::new(AtomicU64::new(before)), Arc::new(AtomicBool::new(false)));
        let (seen, end) = (Arc::clone(&most), Arc::clone(&ended));
        let watcher = thread("memory", move || {
            while !end.load(Ordering::Relaxed) {
                seen.fetch_max(resident(pid), Ordering::Relaxed);
                pause(Duration::from_millis(5));
            }
        });
        Self { before, most, ended, watcher }
    }

    /// How much it grew at most.
    fn end(self) -> u64 {
        self.ended.store(true, Ordering::Relaxed);
        self.watcher.join().unwrap();
        self.most.load(Ordering::Relaxed) - self.before
    }
}

#[test]
fn a_large_download_is_unchanged_and_is_never_held_in_memory() {
    let size = large();
    let mut expected = String::new();
    let nginx = Nginx::start(|files| {
        let mut file = BufWriter::new(File::create(files.join("large")).unwrap());
        expected = pour(size, |piece| file.write_all(piece).unwrap());
        file.flush().unwrap();
    });
    let server = ten_lines(&nginx.url());
    let growth = Growth::watch(server.pid());
    let begin = now();
    let mut client = server.client();
    client.send("GET /large HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let head = client.receive_head();
    assert_eq!((head.status(), head.field("Content-Length")), (200, Some(size.to_string().as_str())));
    let mut digest = Sha256::new();
    assert_eq!(client.stream_body(size, |piece| digest.update(piece)), size);
    assert_eq!(hex(&digest.finalize()), expected);
    let grown = growth.end();
    println!("{} MiB in {:?}, {} KiB more memory", size >> 20, begin.elapsed(), grown >> 10);
    assert!(grown < GROWTH_MAX, "{grown} bytes");
    // The connection is in step.
    assert_eq!(client.get("/none").status(), 404);
}

#[test]
fn a_large_upload_is_unchanged_and_is_never_held_in_memory() {
    let size = large();
    let origin = Origin::scripted(|mut connection| {
        while let Some(head) = connection.request_head() {
            let mut digest = Sha256::new();
            let length = head.field("Content-Length").unwrap().parse().unwrap();
            let mut count = 0;
            connection.stream_body(length, |piece| {
                digest.update(piece);
                // Slower than the client: what cannot go on must wait outside.
                count += 1;
                if count % 64 == 0 {
                    pause(Duration::from_millis(1));
                }
            });
            let text = hex(&digest.finalize());
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()));
        }
    });
    let server = ten_lines(&origin.url());
    let growth = Growth::watch(server.pid());
    let begin = now();
    let mut client = server.client();
    client.send(format!("PUT /large HTTP/1.1\r\nHost: a.example\r\nContent-Length: {size}\r\n\r\n"));
    let expected = pour(size, |piece| client.send(piece));
    assert_eq!(client.response_to("PUT").text(), expected);
    let grown = growth.end();
    println!("{} MiB in {:?}, {} KiB more memory", size >> 20, begin.elapsed(), grown >> 10);
    assert!(grown < GROWTH_MAX, "{grown} bytes");
}

#[test]
fn a_large_download_to_a_client_that_reads_in_bursts_waits_at_the_origin() {
    let size = 64 << 20;
    let origin = Origin::scripted(move |mut connection| {
        connection.request();
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        pour(size, |piece| {
            let _ = connection.try_send(format!("{:x}\r\n", piece.len()));
            let _ = connection.try_send(piece);
            let _ = connection.try_send("\r\n");
        });
        connection.send("0\r\n\r\n");
    });
    let server = ten_lines(&origin.url());
    let growth = Growth::watch(server.pid());
    let mut client = server.client();
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    pause(Duration::from_millis(300));
    let response = client.response();
    assert_eq!(response.body.len() as u64, size);
    assert_eq!(hex(&Sha256::digest(&response.body)), pour(size, |_| ()));
    let grown = growth.end();
    assert!(grown < GROWTH_MAX, "{grown} bytes");
}

#[test]
fn content_that_comes_in_small_pieces_holds_no_more_than_it_is_worth() {
    const CLIENTS: usize = 20;
    const PIECES: usize = 300;
    let origin = Origin::scripted(|mut connection| {
        connection.request();
        connection.send("HTTP/1.1 204 No Content\r\n\r\n");
    });
    let server = ten_lines(&origin.url());
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 100_000 + PIECES));
    }
    let growth = Growth::watch(server.pid());
    for _ in 0..PIECES {
        for client in &mut clients {
            client.send("x");
        }
        pause(Duration::from_micros(500));
    }
    for client in &mut clients {
        client.send([b'x'; 100_000]);
        assert_eq!(client.response_to("PUT").status(), 204);
    }
    let grown = growth.end();
    println!("{} KiB for each client", (grown >> 10) / CLIENTS as u64);
    assert!(grown < (CLIENTS as u64) << 20, "{grown} bytes");
}

/// A client that hardly moves.
enum Slow {
    /// Takes a few bytes of a large download.
    Reads(TcpStream),
    /// Sends a head, a byte at a time.
    Asks(TcpStream),
    /// Sends content, a byte at a time.
    Sends(TcpStream),
}

impl Slow {
    fn start(server: &Server, number: usize) -> Self {
        match number % 3 {
            0 => {
                let mut client = Peer::connect_narrow(server.address());
                client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
                Self::Reads(client.into_stream())
            }
            1 => {
                let mut client = server.client();
                client.send("GET / HTTP/1.1\r\nHost: a\r\nX: ");
                Self::Asks(client.into_stream())
            }
            _ => {
                let mut client = server.client();
                client.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nx");
                Self::Sends(client.into_stream())
            }
        }
    }

    /// Moves by a byte or some; false when the connection is gone.
    fn step(&mut self) -> bool {
        match self {
            Self::Reads(stream) => {
                let mut few = [0; 16];
                // Without waiting: what is not there is not read.
                stream.set_nonblocking(true).unwrap();
                match stream.read(&mut few) {
                    Ok(n) => n > 0,
                    Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
                }
            }
            Self::Asks(stream) | Self::Sends(stream) => stream.write_all(b"x").is_ok(),
        }
    }
}

#[test]
fn a_thousand_slow_clients_disturb_nobody_and_all_they_held_is_given_back() {
    raise_descriptor_limit();
    let nginx = Nginx::start(|files| {
        std::fs::write(files.join("large"), vec![b'x'; 8 << 20]).unwrap();
        std::fs::write(files.join("small"), vec![b'x'; 1 << 10]).unwrap();
    });
    let upload = Origin::scripted(|mut connection| {
        if connection.request_head().is_some() {
            connection.rest();
        }
    });
    let server = Server::with(&format!(
        "remap:\n- {{from: \"/upload\", to: \"{}\"}}\n- {{from: \"/\", to: \"{}\"}}",
        upload.url(),
        nginx.url()
    ));
    assert_eq!(server.get("/small").body.len(), 1 << 10);
    let (memory, files) = (resident(server.pid()), descriptors(server.pid()));

    let begin = now();
    let mut slow: Vec<_> = (0..SLOW).map(|number| Slow::start(&server, number)).collect();
    eventually("all are served", || (server.number("beltway_http_client_connections_open") >= 1000.0).then_some(()));
    println!("{SLOW} slow clients after {:?}", begin.elapsed());
    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    let mover = thread("slow clients", move || {
        while !end.load(Ordering::Relaxed) {
            for client in &mut slow {
                assert!(client.step(), "a slow client was cut");
            }
            pause(Duration::from_millis(200));
        }
        slow
    });

    let mut client = server.client();
    let mut times: Vec<_> = (0..200)
        .map(|_| {
            let begin = now();
            assert_eq!(client.get("/small").body.len(), 1 << 10);
            let took = begin.elapsed();
            pause(Duration::from_millis(5));
            took
        })
        .collect();
    times.sort_unstable();
    let held = resident(server.pid());
    println!(
        "beside them: p50 {:?}, p99 {:?}, longest {:?}; {} MiB held for them",
        times[100],
        times[197],
        times[199],
        held.saturating_sub(memory) >> 20
    );
    assert!(times[197] < P99_MAX, "{:?}", &times[190..]);
    assert!(held.saturating_sub(memory) < HELD_MAX, "{held} bytes");

    ended.store(true, Ordering::Relaxed);
    drop(mover.join().unwrap());
    drop(client);
    server.await_no_clients();
    eventually("connections to the origin are given back", || (upload.open() == 0).then_some(()));
    // What stays are idle connections to origins, which are kept for the next client on purpose.
    eventually("descriptors are given back", || (descriptors(server.pid()) <= files + 16).then_some(()));
    eventually("buffers are given back", || (server.number("beltway_buffer_used_bytes") < 1e6).then_some(()));
    // The allocator gives back what it keeps when it is next asked for something.
    let (_, took) = within(PATIENCE, "memory is given back", || {
        assert!(server.number("beltway_buffer_free_bytes") < 8e6);
        (resident(server.pid()) < memory + GROWTH_MAX).then_some(())
    });
    println!("{took:?} later {} MiB more than before", resident(server.pid()).saturating_sub(memory) >> 20);
}
