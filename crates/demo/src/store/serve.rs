//! The stores' connections. Each store belongs to one event thread, where all its connections are.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use base::Instant;
use buf::{Block, Chunk, SizeClass};
use event::{Tcp, Thread};
use kv::wire::memcached as lines;
use kv::wire::resp::request::inline;
use kv::wire::resp::{Request, Scan};

use super::{Store, VALUE_MAX, memcached, redis};

/// The longest request: a value and what stands around it, or many small ones.
const REQUEST_MAX: usize = VALUE_MAX + (64 << 10);
/// Bytes a client may leave untaken before it is not read from.
const UNTAKEN_MAX: usize = 256 << 10;
/// How long a client may take none of its replies.
const STALLED_MAX: Duration = Duration::from_secs(30);

/// What a store speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Speaks {
    /// Redis' protocol.
    Redis,
    /// memcached's text protocol.
    Memcached,
}

/// A store on the thread that it belongs to. Clones share it.
#[derive(Clone, Debug)]
pub struct Shop {
    store: Rc<RefCell<Store>>,
    speaks: Speaks,
}

impl Shop {
    /// An empty store.
    #[must_use]
    pub fn open(speaks: Speaks) -> Self {
        Self { store: Rc::default(), speaks }
    }

    /// Serves one connection until it ends.
    pub fn serve(&self, thread: &Thread, tcp: Tcp) {
        let shop = self.clone();
        let name = match self.speaks {
            Speaks::Redis => "demo redis",
            Speaks::Memcached => "demo memcached",
        };
        thread.spawn(name, async move { shop.talk(tcp).await });
    }

    async fn talk(self, tcp: Tcp) {
        let thread = tcp.thread().clone();
        let mut heard: Vec<u8> = Vec::new();
        loop {
            let mut block = Block::new(SizeClass::Medium);
            match tcp.recv(&mut block).await {
                Ok(got) if got > 0 => heard.extend_from_slice(&block),
                _ => return,
            }
            drop(block);
            let mut said = Vec::new();
            let (taken, goes_on) = match self.speaks {
                Speaks::Redis => self.redis(&heard, thread.now(), &mut said),
                Speaks::Memcached => {
                    let at = memcached::Moment { now: thread.now(), wall: thread.wall().as_secs() };
                    self.memcached(&heard, at, &mut said)
                }
            };
            heard.drain(..taken);
            if heard.is_empty() {
                heard = Vec::new();
            }
            if !said.is_empty() {
                let len = said.len();
                tcp.send(Chunk::from_shared(said.into(), 0..len));
            }
            if !goes_on || heard.len() > REQUEST_MAX {
                return;
            }
            tcp.set_write_deadline(thread.now() + STALLED_MAX);
            if tcp.room(UNTAKEN_MAX).await.is_err() {
                return;
            }
            tcp.set_write_deadline(Instant::FAR_FUTURE);
        }
    }

    /// Answers the requests at the beginning of `heard`. Says how many bytes they are, and whether more may follow.
    fn redis(&self, heard: &[u8], now: Instant, said: &mut Vec<u8>) -> (usize, bool) {
        let mut store = self.store.borrow_mut();
        let mut at = 0;
        while at < heard.len() {
            let bytes = &heard[at..];
            let mut request = Request::default();
            let goes_on = match request.scan(bytes) {
                Scan::Whole(len) => {
                    at += len;
                    let words: Vec<&[u8]> =
                        request.arguments().iter().map(|word| &bytes[word.start as usize..word.end as usize]).collect();
                    redis::answer(&mut store, &words, now, said)
                }
                Scan::Inline(len) => {
                    at += len;
                    match inline(&bytes[..len]) {
                        Ok(words) => {
                            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                            redis::answer(&mut store, &words, now, said)
                        }
                        Err(why) => {
                            said.extend(why.line());
                            false
                        }
                    }
                }
                Scan::Blank(len) => {
                    at += len;
                    true
                }
                Scan::More(_) => break,
                Scan::Malformed(why) => {
                    said.extend(why.line());
                    false
                }
            };
            if !goes_on {
                return (at, false);
            }
        }
        (at, true)
    }

    /// As [`Shop::redis`].
    fn memcached(&self, heard: &[u8], now: memcached::Moment, said: &mut Vec<u8>) -> (usize, bool) {
        let mut store = self.store.borrow_mut();
        let (mut at, mut places) = (0, Vec::new());
        while at < heard.len() {
            let bytes = &heard[at..];
            match lines::scan(bytes, &mut places) {
                lines::Scan::Whole(len) | lines::Scan::Odd(len) => {
                    at += len;
                    let words: Vec<&[u8]> =
                        places.iter().map(|word| &bytes[word.start as usize..word.end as usize]).collect();
                    let line = memchr::memchr(b'\n', bytes).map_or(len, |end| end + 1);
                    let data = if line < len { &bytes[line..len - 2] } else { &[] };
                    if !memcached::answer(&mut store, &words, data, now, said) {
                        return (at, false);
                    }
                }
                lines::Scan::Refused(len, line) => {
                    at += len.min(bytes.len());
                    said.extend_from_slice(line);
                }
                lines::Scan::More(_) => break,
                lines::Scan::Hopeless(line) => {
                    said.extend_from_slice(line);
                    return (at, false);
                }
                lines::Scan::Binary => {
                    said.extend(lines::binary_refusal(bytes));
                    return (at, false);
                }
            }
        }
        (at, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv::wire::resp::request::encode;

    #[test]
    fn requests_are_taken_as_far_as_they_have_come() {
        let shop = Shop::open(Speaks::Redis);
        let mut bytes = encode(&["SET", "a", "1"]);
        bytes.extend_from_slice(b"GET a\r\n*2\r\n$3\r\nGET\r\n$1\r\n");
        let mut said = Vec::new();
        let (taken, goes_on) = shop.redis(&bytes, Instant::ORIGIN, &mut said);
        assert_eq!((&bytes[taken..], goes_on), (&b"*2\r\n$3\r\nGET\r\n$1\r\n"[..], true));
        assert_eq!(said, b"+OK\r\n$1\r\n1\r\n");
        assert!(!shop.redis(b"*1\r\nx", Instant::ORIGIN, &mut said).1);

        let shop = Shop::open(Speaks::Memcached);
        let at = memcached::Moment { now: Instant::ORIGIN, wall: 0 };
        let mut said = Vec::new();
        let (taken, goes_on) = shop.memcached(b"set a 0 0 1\r\n1\r\nget a\r\nset b 0 0 5\r\n12", at, &mut said);
        assert_eq!((taken, goes_on), (23, true));
        assert_eq!(said, b"STORED\r\nVALUE a 0 1\r\n1\r\nEND\r\n");
        assert!(!shop.memcached(b"quit\r\n", at, &mut said).1);
    }
}
