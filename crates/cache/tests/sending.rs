//! Bodies on their way to real sockets while the store turns over: every byte that arrives is that of the version that
//! was found, however slow the reader, whatever became of the memory meanwhile.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use base::{ByteCount, Clock, Instant, Rng, SystemClock};
use buf::{Block, SizeClass};
use cache::{
    Alternates, Entrance, Found, Fragment, Head, Key, Lane, Purge, RamOptions, RamStore, Role, Seen, Store, Tags,
};
use event::{Listener, Processor, ProcessorOptions, Shares, Tcp};

const MIB: u64 = 1 << 20;
const OBJECTS: u64 = 40;
const READERS: u64 = 4;
/// At least so long, and until so much is checked.
const RUN: Duration = Duration::from_secs(3);
const CHECKED_MIN: u64 = 10 * MIB;
/// How long anything may take, on a machine however busy.
const LIMIT: Duration = Duration::from_secs(30);

/// Lengths on both sides of all that makes a difference: short, one granule, a piece, several pieces.
fn length_of(object: u64) -> u64 {
    [100, 40_000, 65_535, 65_536, 65_537, 200_000, MIB - 1, MIB, MIB + 70_000, 3 * MIB + 5]
        [usize::try_from(object % 10).unwrap_or(0)]
}

fn byte_at(object: u64, version: u64, place: u64) -> u8 {
    u8::try_from((object * 31 + version * 7 + place + place / 4_096) % 251).expect("it fits")
}

fn key(object: u64) -> Key {
    Key::of(&object.to_le_bytes())
}

fn any(alternates: Alternates<'_>) -> Option<usize> {
    (alternates.len() > 0).then_some(0)
}

/// Stores a version of an object; the metadata says which.
fn put(store: &RamStore, object: u64, version: u64, announced: bool) {
    store.purge(key(object), Purge::Remove);
    let entrance = Entrance { key: key(object), lane: Lane::PRIMARY, seen: Seen::NOTHING, now: SystemClock.now() };
    let Role::Writer(mut writer) = store.enter(entrance) else { return };
    let length = length_of(object);
    let metadata: Arc<[u8]> = Arc::from([object.to_le_bytes(), version.to_le_bytes(), length.to_le_bytes()].concat());
    let expected = announced.then_some(length);
    writer.start(Head { metadata, tags: Tags::NONE, expected }, SystemClock.now());
    let mut place = 0;
    while place < length {
        let part = 16_384.min(length - place);
        let bytes: Vec<u8> = (place..place + part).map(|place| byte_at(object, version, place)).collect();
        writer.append(&bytes, SystemClock.now());
        place += part;
    }
    // Refused for want of room is all right here.
    let _ = writer.finish(None, &|_| true, SystemClock.now());
}

/// Answers each byte `n` with 24 bytes of metadata and the body of object `n`; zeros for what is not there.
async fn serve(tcp: Tcp, store: RamStore) {
    loop {
        let mut block = Block::new(SizeClass::Small);
        tcp.set_read_deadline(tcp.thread().now() + LIMIT);
        match tcp.recv(&mut block).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        for object in block.bytes() {
            let found = store.look_up(key(u64::from(*object)), &any).now();
            let Ok(Found::Hit(hit)) = found else {
                tcp.send(buf::Chunk::from_static(&[0; 24]));
                continue;
            };
            tcp.send(Fragment::new(Arc::clone(hit.metadata())).into_chunk());
            for fragment in hit.body().fragments(0..u64::MAX) {
                tcp.send(fragment.into_chunk());
            }
        }
        tcp.set_write_deadline(tcp.thread().now() + LIMIT);
        if tcp.room(2 * 1_048_576).await.is_err() {
            return;
        }
    }
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

/// Asks for objects at random, several at a time, and reads at its own pace. Counts the bytes it checked.
fn read(address: SocketAddr, seed: u64, begun: Instant, checked: &AtomicU64) {
    let mut rng = Rng::new(seed);
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a time is a time");
    let slow = seed.is_multiple_of(2);
    let goes_on = || {
        let (lasted, checked) = (SystemClock.now() - begun, checked.load(Ordering::Relaxed));
        lasted < RUN || (checked <= CHECKED_MIN && lasted < LIMIT)
    };
    while goes_on() {
        let asked: Vec<u8> =
            (0..1 + rng.below(3)).map(|_| u8::try_from(rng.below(OBJECTS)).expect("it fits")).collect();
        stream.write_all(&asked).expect("the server reads");
        for _ in asked {
            let mut head = [0; 24];
            stream.read_exact(&mut head).expect("a head comes");
            let (object, version, length) = (word(&head[..8]), word(&head[8..16]), word(&head[16..]));
            let mut place = 0;
            let mut part = vec![0; 1 + usize::try_from(rng.below(100_000)).expect("it fits")];
            while place < length {
                let n = part.len().min(usize::try_from(length - place).expect("it fits"));
                if slow && rng.one_in(8) {
                    thread::park_timeout(Duration::from_millis(2));
                }
                stream.read_exact(&mut part[..n]).expect("the body comes");
                for byte in &part[..n] {
                    assert_eq!(*byte, byte_at(object, version, place), "object {object} version {version} at {place}");
                    place += 1;
                }
            }
            checked.fetch_add(place, Ordering::Relaxed);
        }
    }
}

#[test]
fn what_is_being_sent_stays_as_it_was_found_while_everything_else_is_evicted_and_replaced() {
    let store =
        RamStore::new(RamOptions { object_max: Some(ByteCount(4 * MIB)), ..RamOptions::new(ByteCount(64 * MIB), 1) });
    assert!(store.arena_error().is_none(), "{:?}", store.arena_error());
    let empty = store.used();
    let fd = sys::socket::listen(([127, 0, 0, 1], 0).into(), 16).expect("a port");
    let address = sys::socket::local_address(&fd).expect("it is bound").expect("to an address");
    let shares = Shares::new(1, 100);
    let peers = Arc::new(OnceLock::new());
    let served = store.clone();
    let listener = Listener::new(fd, Arc::clone(&shares), Arc::clone(&peers), move |thread, tcp| {
        drop(thread.spawn("serve", serve(tcp, served.clone())));
    })
    .expect("a listener");
    let options = ProcessorOptions { net: 1, task: 1, pin: false, seed: 1 };
    let processor = Processor::start(&options, move |thread| listener.accept_on(thread)).expect("a processor");
    let _ = peers.set(processor.net().to_vec());
    (0..OBJECTS).for_each(|object| put(&store, object, 0, object.is_multiple_of(2)));
    let begun = SystemClock.now();
    let (stop, versions, checked) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let churn = scope.spawn(|| {
            let mut rng = Rng::new(99);
            while !stop.load(Ordering::Relaxed) {
                let version = versions.fetch_add(1, Ordering::Relaxed) + 1;
                put(&store, rng.below(OBJECTS), version, rng.one_in(2));
                if rng.one_in(200) {
                    store.clear();
                }
                assert!(store.used().0 <= 64 * MIB);
            }
        });
        let checked = &checked;
        let readers: Vec<_> =
            (1..=READERS).map(|seed| scope.spawn(move || read(address, seed, begun, checked))).collect();
        readers.into_iter().for_each(|reader| reader.join().expect("all it read was right"));
        stop.store(true, Ordering::Relaxed);
        churn.join().expect("it put");
    });
    let checked = checked.into_inner();
    println!("{checked} bytes checked, {} versions", versions.into_inner());
    assert!(checked > CHECKED_MIN);
    shares.drain();
    processor.drain();
    assert!(processor.stop(LIMIT));
    store.clear();
    assert_eq!(store.used(), empty, "nothing is held once all is sent");
}
