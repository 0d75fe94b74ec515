//! Serves one stored object over HTTP/1.1 to whoever asks for anything, on one event thread: what sending costs when all
//! else is left out. `copied` keeps the body where its pages cannot be lent.
//!
//! ```text
//! cargo run --release -p beltway-cache --example serve -- 8081 1048576 [copied]
//! wrk -t1 -c16 -d5s http://127.0.0.1:8081/
//! ```

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base::{ByteCount, Instant};
use buf::{Block, SizeClass};
use cache::{Alternates, Entrance, Found, Fragment, Head, Key, Lane, RamOptions, RamStore, Role, Seen, Store, Tags};
use event::{Listener, Processor, ProcessorOptions, Shares, Tcp};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SILENCE_MAX: Duration = Duration::from_secs(30);
const UNSENT_MAX: usize = 1 << 20;

fn any(alternates: Alternates<'_>) -> Option<usize> {
    (alternates.len() > 0).then_some(0)
}

async fn serve(tcp: Tcp, store: RamStore, key: Key) {
    loop {
        let mut block = Block::new(SizeClass::Small);
        tcp.set_read_deadline(tcp.thread().now() + SILENCE_MAX);
        // A request comes in one piece here; this is no HTTP server.
        match tcp.recv(&mut block).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let Ok(Found::Hit(hit)) = store.look_up(key, &any).now() else { return };
        tcp.send(Fragment::new(Arc::clone(hit.metadata())).into_chunk());
        for fragment in hit.body().fragments(0..u64::MAX) {
            tcp.send(fragment.into_chunk());
        }
        tcp.set_write_deadline(tcp.thread().now() + SILENCE_MAX);
        if tcp.room(UNSENT_MAX).await.is_err() {
            return;
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().ok_or("which port?")?.parse()?;
    let length: usize = arguments.next().ok_or("how many bytes?")?.parse()?;
    let copied = arguments.next().is_some_and(|word| word == "copied");
    // Only a store worth it has huge pages, and only what lies in them is lent.
    let budget = if copied { ByteCount(48 << 20) } else { ByteCount(1 << 30) };
    let store = RamStore::new(RamOptions { object_max: Some(ByteCount(24 << 20)), ..RamOptions::new(budget, 1) });
    let (key, now) = (Key::of(b"the one"), Instant::from_nanos(1));
    let entrance = Entrance { key, lane: Lane::PRIMARY, seen: Seen::NOTHING, now };
    let Role::Writer(mut writer) = store.enter(entrance) else { return Err("no writer".into()) };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    let metadata = Arc::from(head.as_bytes());
    writer.start(Head { metadata, tags: Tags::NONE, expected: Some(length as u64) }, now);
    writer.append(&vec![b'x'; length], now);
    writer.finish(None, &|_| true, now).map_err(|reason| format!("{reason:?}"))?;
    let fd = sys::socket::listen(([127, 0, 0, 1], port).into(), 128)?;
    let peers = Arc::new(OnceLock::new());
    let listener = Listener::new(fd, Shares::new(1, 1_000), Arc::clone(&peers), move |thread, tcp| {
        drop(thread.spawn("serve", serve(tcp, store.clone(), key)));
    })?;
    let options = ProcessorOptions { net: 1, task: 1, pin: false, seed: 1 };
    let processor = Processor::start(&options, move |thread| listener.accept_on(thread))?;
    let _ = peers.set(processor.net().to_vec());
    while processor.is_whole() {
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}
