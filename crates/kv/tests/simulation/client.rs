//! Scripted clients: requests in bursts, in pieces of any size; every reply is judged.

use std::rc::Rc;
use std::time::Duration;

use base::Rng;
use buf::{Block, SizeClass};
use event::{Tcp, Thread};
use kv::wire::{Reply, Scanned};

use crate::dialect::{Ask, Bytes, Dialect, value_of};
use crate::ledger::{Asked, Ledger, Size};
use crate::scene::{PROXY, chunk};

/// Longest wait of a client for a reply.
const REPLY_MAX: Duration = Duration::from_secs(400);
/// How long who hoards lets what it was sent lie. All clients, one after the other, are done before any is cut for it.
const LEISURE_MAX_MS: u64 = 700;
/// Keys of each client.
const KEYS: u64 = 9;

struct Script {
    name: u64,
    /// Of how many clients.
    count: u64,
    counter: u64,
    large: bool,
    ledger: Rc<Ledger>,
}

impl Script {
    fn key_of(&self, owner: u64, rng: &mut Rng) -> Bytes {
        let n = rng.below(KEYS);
        format!("{owner}:{n}:{}", n * 7_919).into_bytes().into()
    }

    fn own_key(&self, rng: &mut Rng) -> Bytes {
        self.key_of(self.name, rng)
    }

    /// One that is read: at times another's.
    fn key(&self, rng: &mut Rng) -> Bytes {
        let owner = if rng.one_in(8) { rng.below(self.count) } else { self.name };
        self.key_of(owner, rng)
    }

    fn value(&mut self, key: &Bytes, rng: &mut Rng) -> Bytes {
        self.counter += 1;
        let len = match rng.below(36) {
            0 if self.large => 66_000 + rng.below(20_000),
            1..4 if self.large => rng.below(20_000),
            _ => rng.below(100),
        };
        value_of(key, self.counter, usize::try_from(len).unwrap())
    }

    fn set(&mut self, key: Bytes, rng: &mut Rng) -> Ask {
        let value = self.value(&key, rng);
        Ask::Set(vec![(key, value)])
    }

    /// One thing to ask, or more that belong together.
    fn asks(&mut self, rng: &mut Rng) -> Vec<Ask> {
        let redis = self.ledger.dialect.is_redis();
        match rng.below(14) {
            0..3 => {
                let key = self.own_key(rng);
                vec![self.set(key, rng)]
            }
            3..7 => vec![Ask::Get(self.key(rng))],
            7..9 => vec![Ask::Many((0..1 + rng.below(6)).map(|_| self.key(rng)).collect())],
            9 => {
                let count = if redis { 1 + rng.below(3) } else { 1 };
                vec![Ask::Delete((0..count).map(|_| self.own_key(rng)).collect())]
            }
            10 if redis => {
                let keys: Vec<Bytes> = (0..2 + rng.below(3)).map(|_| self.own_key(rng)).collect();
                vec![Ask::Set(keys.into_iter().map(|key| (Bytes::clone(&key), self.value(&key, rng))).collect())]
            }
            // The old value, and the new one.
            10..12 => {
                let key = self.own_key(rng);
                let change = if rng.one_in(3) { Ask::Delete(vec![key.clone()]) } else { self.set(key.clone(), rng) };
                vec![Ask::Get(key.clone()), change, Ask::Get(key)]
            }
            _ => vec![Ask::Word(format!("{}!{}", self.name, rng.next_u64()).into_bytes())],
        }
    }

    /// A large value, many times, and something else behind.
    fn hoard(&mut self, connection: u64, rng: &mut Rng) -> (Vec<u8>, Vec<Asked>) {
        let key = self.own_key(rng);
        self.counter += 1;
        let value = value_of(&key, self.counter, 80_000);
        let mut asks = vec![Ask::Set(vec![(Bytes::clone(&key), value)])];
        asks.extend((0..6 + rng.below(6)).map(|_| Ask::Get(Bytes::clone(&key))));
        asks.extend(self.asks(rng));
        let dialect = self.ledger.dialect;
        let bytes = asks.iter().flat_map(|ask| dialect.write(ask, false)).collect();
        (bytes, asks.into_iter().map(|ask| self.ledger.note(self.name, connection, ask)).collect())
    }

    /// The bytes of a burst, and what of it is answered.
    fn burst(&mut self, connection: u64, rng: &mut Rng) -> (Vec<u8>, Vec<Asked>) {
        let dialect = self.ledger.dialect;
        let depth = if rng.one_in(3) { 1 } else { 1 + rng.below(30) };
        let (mut bytes, mut asked, mut last_is_quiet) = (Vec::new(), Vec::new(), false);
        for _ in 0..depth {
            for ask in self.asks(rng) {
                let changes = matches!(ask, Ask::Set(_) | Ask::Delete(_));
                let quiet = changes && dialect == Dialect::Memcached && rng.one_in(3);
                bytes.extend(dialect.write(&ask, quiet));
                let noted = self.ledger.note(self.name, connection, ask);
                last_is_quiet = quiet;
                asked.extend((!quiet).then_some(noted));
            }
        }
        if last_is_quiet {
            // By its answer it is known that all of it was carried out.
            let ask = Ask::Get(self.own_key(rng));
            bytes.extend(dialect.write(&ask, false));
            asked.push(self.ledger.note(self.name, connection, ask));
        }
        (bytes, asked)
    }
}

/// In pieces of any size.
async fn send(thread: &Thread, tcp: &Tcp, bytes: &[u8], rng: &mut Rng) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let len = if rng.one_in(2) { rest.len() } else { 1 + usize::try_from(rng.below(rest.len() as u64)).unwrap() };
        let (piece, behind) = rest.split_at(len);
        tcp.send(chunk(piece.to_vec()));
        rest = behind;
        if rng.one_in(4) {
            thread.sleep(Duration::from_millis(rng.below(50))).await;
        }
    }
}

/// One of `count` clients, who connects that often.
pub(crate) async fn client(thread: Thread, name: u64, count: u64, rounds: u64, ledger: Rc<Ledger>) {
    let mut rng = Rng::new(thread.random());
    let large = ledger.size == Size::Large && rng.one_in(8);
    let hoards = ledger.size == Size::Hoards && rng.one_in(3);
    let mut script = Script { name, count, counter: 0, large, ledger: Rc::clone(&ledger) };
    for connection in 0..rounds {
        thread.sleep(Duration::from_millis(rng.below(200))).await;
        let Ok(tcp) = Tcp::connect(&thread, PROXY, thread.now() + REPLY_MAX).await else { continue };
        let leaves = !ledger.calm && rng.one_in(6);
        for _ in 0..1 + rng.below(5) {
            let (bytes, asked) =
                if hoards { script.hoard(connection, &mut rng) } else { script.burst(connection, &mut rng) };
            send(&thread, &tcp, &bytes, &mut rng).await;
            let half_closes = rng.one_in(10);
            if half_closes {
                tcp.end();
            }
            if hoards {
                thread.sleep(Duration::from_millis(rng.below(LEISURE_MAX_MS))).await;
            }
            if !replies(&thread, &tcp, &script, &asked, leaves.then_some(&mut rng)).await || half_closes {
                break;
            }
        }
    }
    ledger.over.set(ledger.over.get() + 1);
}

/// Takes the replies to all of this. False when not all come, or who `leaves` has left.
async fn replies(thread: &Thread, tcp: &Tcp, script: &Script, asked: &[Asked], mut leaves: Option<&mut Rng>) -> bool {
    let (ledger, name, depth) = (&script.ledger, script.name, asked.len());
    let protocol = if ledger.dialect.is_redis() { kv::Protocol::Redis } else { kv::Protocol::Memcached };
    let (mut have, mut next) = (Vec::new(), 0);
    while next < depth {
        if leaves.as_mut().is_some_and(|rng| rng.one_in(10)) {
            return false;
        }
        let mut block = Block::new(SizeClass::Medium);
        tcp.set_read_deadline(thread.now() + REPLY_MAX);
        match tcp.recv(&mut block).await {
            Ok(got) if got > 0 => have.extend_from_slice(&block),
            other => {
                ledger.count(2);
                if ledger.calm {
                    ledger.blame(format!("client {name} has {next} of {depth}, then {other:?}"));
                }
                return false;
            }
        }
        while let Scanned::Whole(len) = Reply::new(protocol).scan(&have) {
            let got: Vec<u8> = have.drain(..len).collect();
            let Some(asked) = asked.get(next) else {
                ledger.blame(format!("client {name} got more than it asked for"));
                return false;
            };
            if let Err(wrong) = ledger.judge(name, asked, &got) {
                ledger.blame(format!("client {name}, reply {next} of {depth}: {wrong}"));
            }
            next += 1;
        }
    }
    true
}
