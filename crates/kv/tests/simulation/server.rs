//! Scripted servers, of which some go wrong in a world that is not calm.

use std::rc::Rc;
use std::time::Duration;

use base::Rng;
use buf::{Block, SizeClass};
use event::{Tcp, Thread};

use crate::dialect::{Bytes, Dialect, bulk, counter_of};
use crate::ledger::{Ledger, Store, Weather};
use crate::scene::chunk;

/// How a server's connection goes wrong, after so many replies.
#[derive(Clone, Copy)]
enum Spoil {
    Never,
    Closes(u64),
    Aborts(u64),
    Ends(u64),
    Babbles(u64),
    Loads(u64),
    Breaks(u64),
}

impl Spoil {
    fn drawn(rng: &mut Rng) -> Self {
        let after = rng.below(40);
        match rng.below(12) {
            0 => Self::Closes(after),
            1 => Self::Aborts(after),
            2 => Self::Ends(after),
            3 => Self::Babbles(after),
            4 => Self::Loads(after),
            5 => Self::Breaks(after),
            _ => Self::Never,
        }
    }
}

/// One connection.
pub(crate) async fn serve(thread: Thread, tcp: Tcp, port: u16, ledger: Rc<Ledger>) {
    let mut rng = Rng::new(thread.random());
    let spoil = if ledger.weather == Weather::Foul { Spoil::drawn(&mut rng) } else { Spoil::Never };
    // What is less than twice the time that requests have ends no connection.
    let (slow, pause_max) = match ledger.weather {
        Weather::Calm => (false, 0),
        Weather::Sluggish => (true, 1_500),
        Weather::Foul => (rng.one_in(4), 3_000),
    };
    let mut have: Vec<u8> = Vec::new();
    let mut answered = 0;
    loop {
        let mut block = Block::new(SizeClass::Medium);
        match tcp.recv(&mut block).await {
            Ok(got) if got > 0 => have.extend_from_slice(&block),
            _ => return,
        }
        while let Some(words) = ledger.dialect.take_request(&mut have) {
            if slow && rng.one_in(8) {
                thread.sleep(Duration::from_millis(rng.below(pause_max))).await;
            }
            let mut reply = answer(&words, port, &ledger);
            match (spoil, ledger.dialect) {
                (Spoil::Closes(after), _) if answered >= after => return,
                (Spoil::Aborts(after), _) if answered >= after => return tcp.abort(),
                (Spoil::Ends(after), _) if answered >= after => return tcp.end(),
                // No reply of either protocol.
                (Spoil::Babbles(after), _) if answered >= after => reply = b"VALUE ?\r\n".to_vec(),
                (Spoil::Loads(after), Dialect::Redis) if answered >= after => reply = b"-LOADING wait\r\n".to_vec(),
                (Spoil::Loads(after), _) if answered >= after => reply = b"SERVER_ERROR wait\r\n".to_vec(),
                (Spoil::Breaks(after), _) if answered >= after => {
                    reply.truncate(usize::try_from(rng.below(reply.len() as u64)).unwrap());
                    tcp.send(chunk(reply));
                    return;
                }
                _ => {}
            }
            answered += 1;
            tcp.send(chunk(reply));
            if tcp.room(64 << 10).await.is_err() {
                return;
            }
        }
    }
}

/// Carries out one request, and says what comes of it.
fn answer(words: &[Bytes], port: u16, ledger: &Ledger) -> Vec<u8> {
    let mut stores = ledger.stores.borrow_mut();
    let store = stores.entry(port).or_default();
    let set = |store: &mut Store, key: &[u8], value: &Bytes| {
        let counter = counter_of(value).unwrap();
        ledger.written.borrow_mut().entry((port, key.to_vec())).or_default().push(counter);
        store.insert(key.to_vec(), Rc::clone(value));
    };
    let name = words[0].to_ascii_lowercase();
    match (ledger.dialect, name.as_slice(), &words[1..]) {
        (Dialect::Redis, b"ping", []) => b"+PONG\r\n".to_vec(),
        (Dialect::Redis, b"set" | b"mset", pairs) if pairs.len().is_multiple_of(2) => {
            pairs.chunks(2).for_each(|pair| set(store, &pair[0], &pair[1]));
            b"+OK\r\n".to_vec()
        }
        (Dialect::Redis, b"get", [key]) => store.get(&**key).map_or(b"$-1\r\n".to_vec(), |value| bulk(value)),
        (Dialect::Redis, b"mget", keys) => {
            let values = keys.iter().flat_map(|key| store.get(&**key).map_or(b"$-1\r\n".to_vec(), |value| bulk(value)));
            [format!("*{}\r\n", keys.len()).into_bytes(), values.collect()].concat()
        }
        (Dialect::Redis, b"del", keys) => {
            let removed = keys.iter().filter(|key| store.remove(&***key).is_some()).count();
            format!(":{removed}\r\n").into_bytes()
        }
        (Dialect::Memcached, b"version", []) => b"VERSION 1\r\n".to_vec(),
        // Nobody but the client wants no reply.
        (Dialect::Memcached, b"set", [key, flags, time, _, value]) => {
            assert_eq!((&**flags, &**time), (counter_of(value).unwrap().to_string().as_bytes(), &b"0"[..]));
            set(store, key, value);
            b"STORED\r\n".to_vec()
        }
        (Dialect::Memcached, b"get" | b"gets", keys) if !keys.is_empty() => {
            let line = |key: &Bytes, value: &Bytes| {
                let (key, counter) = (String::from_utf8_lossy(key), counter_of(value).unwrap());
                let unique = if name == b"gets" { format!(" {counter}") } else { String::new() };
                let line = format!("VALUE {key} {counter} {}{unique}\r\n", value.len());
                [line.as_bytes(), value, b"\r\n"].concat()
            };
            let values = keys.iter().filter_map(|key| Some(line(key, store.get(&**key)?)));
            [values.flatten().collect(), b"END\r\n".to_vec()].concat()
        }
        (Dialect::Memcached, b"delete", [key]) => {
            if store.remove(&**key).is_some() {
                b"DELETED\r\n".to_vec()
            } else {
                b"NOT_FOUND\r\n".to_vec()
            }
        }
        (_, _, rest) => panic!("asked for {} with {} words", String::from_utf8_lossy(&name), rest.len()),
    }
}
