//! An echo server on two event threads. It serves one client of its own and ends; with `--stay` it goes on.
//!
//! ```text
//! cargo run -p beltway-event --example echo
//! cargo run -p beltway-event --example echo -- --stay     then: nc 127.0.0.1 PORT
//! ```

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use buf::{Block, SizeClass};
use event::{Listener, Processor, ProcessorOptions, Shares, Tcp};

/// How long a client may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Bytes that may wait for a slow client.
const UNSENT_MAX: usize = 64 << 10;

/// One connection, as a future: the compiler writes the state machine.
async fn echo(tcp: Tcp) {
    loop {
        let mut block = Block::new(SizeClass::Medium);
        tcp.set_read_deadline(tcp.thread().now() + SILENCE_MAX);
        match tcp.recv(&mut block).await {
            // The end, a reset, or too long a silence: dropping `tcp` closes.
            Ok(0) | Err(_) => return,
            // Leaves at the end of the turn, with all else that is queued, in one system call.
            Ok(_) => tcp.send(block.into_chunk()),
        }
        tcp.set_write_deadline(tcp.thread().now() + SILENCE_MAX);
        if tcp.room(UNSENT_MAX).await.is_err() {
            return;
        }
    }
}

fn main() -> io::Result<()> {
    let fd = sys::socket::listen(([127, 0, 0, 1], 0).into(), 128)?;
    let address = sys::socket::local_address(&fd)?.ok_or_else(|| io::Error::other("no address"))?;
    let threads = 2;
    // One listener for all threads; who has more than its share of connections hands the next one on.
    let shares = Shares::new(threads, 1_000);
    let peers = Arc::new(OnceLock::new());
    let listener = Listener::new(fd, Arc::clone(&shares), Arc::clone(&peers), |thread, tcp| {
        thread.spawn("echo", echo(tcp));
    })?;
    let options = ProcessorOptions { net: threads, task: 1, pin: false, seed: 1 };
    let processor = Processor::start(&options, move |thread| listener.accept_on(thread))?;
    // Set here alone, once.
    let _ = peers.set(processor.net().to_vec());
    println!("echo on {address}");
    if std::env::args().any(|argument| argument == "--stay") {
        while processor.is_whole() {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    let mut client = TcpStream::connect(address)?;
    client.write_all(b"hello, event system")?;
    let mut answer = [0; 19];
    client.read_exact(&mut answer)?;
    println!("answered: {}", String::from_utf8_lossy(&answer));
    println!("open connections by thread: {:?}", shares.open_by_thread());
    shares.drain();
    processor.drain();
    if processor.stop(Duration::from_secs(5)) { Ok(()) } else { Err(io::Error::other("a thread did not end")) }
}
