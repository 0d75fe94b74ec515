//! The largest value that Redis takes, 512 MiB, both ways: held nowhere, and nobody waits behind it.
//!
//! Client and server make it and look at it piece by piece, so that what this process holds is what the proxy holds.

#![allow(clippy::unwrap_used, reason = "a failure of a test is a panic")]

mod world;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread::Builder;

use kv::{Address, PoolSource, ServerSource};
use world::{Client, Proxy};

/// The longest argument of all.
const SIZE: usize = 512 << 20;
/// How much is made and looked at in one.
const PIECE: usize = 1 << 20;
/// What client, server and proxy may hold of it together.
const HELD_MAX: usize = 64 << 20;

/// Piece `number` of the value: the number, and what is the same in all.
struct Pieces {
    piece: Vec<u8>,
}

impl Pieces {
    fn new() -> Self {
        Self { piece: (0..PIECE).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect() }
    }

    fn at(&mut self, number: usize) -> &[u8] {
        self.piece[..8].copy_from_slice(&number.to_be_bytes());
        &self.piece
    }

    fn send(&mut self, to: &mut impl Write, numbers: std::ops::Range<usize>) {
        numbers.for_each(|number| to.write_all(self.at(number)).unwrap());
    }

    fn expect(&mut self, from: &mut impl Read, numbers: std::ops::Range<usize>) {
        let mut got = vec![0; PIECE];
        for number in numbers {
            from.read_exact(&mut got).unwrap();
            assert!(got == self.at(number), "piece {number} is not what was sent");
        }
    }
}

/// A header line, `*2` or `$5`: its number. None at the end.
fn header(from: &mut impl BufRead) -> Option<usize> {
    let mut line = String::new();
    from.read_line(&mut line).ok().filter(|len| *len > 0)?;
    Some(line[1..].trim_end().parse().unwrap())
}

/// Serves one connection: a large value is looked at and forgotten, or made; a small one is always the same.
fn serve(stream: TcpStream) {
    let mut pieces = Pieces::new();
    let mut to = stream.try_clone().unwrap();
    let mut from = BufReader::with_capacity(PIECE, stream);
    while let Some(count) = header(&mut from) {
        let mut words: Vec<Vec<u8>> = Vec::new();
        for _ in 0..count {
            let size = header(&mut from).unwrap();
            if size == SIZE {
                pieces.expect(&mut from, 0..SIZE / PIECE);
            } else {
                words.push(vec![0; size]);
                from.read_exact(words.last_mut().unwrap()).unwrap();
            }
            from.read_exact(&mut [0; 2]).unwrap();
        }
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        match words.as_slice() {
            [b"SET", b"large"] => to.write_all(b"+OK\r\n").unwrap(),
            [b"GET", b"large"] => {
                to.write_all(format!("${SIZE}\r\n").as_bytes()).unwrap();
                pieces.send(&mut to, 0..SIZE / PIECE);
                to.write_all(b"\r\n").unwrap();
            }
            [b"GET", _] => to.write_all(b"$5\r\nsmall\r\n").unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

/// A server on threads of their own, which end with their connections, or with this process.
fn server() -> ServerSource {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = Address::Ip(Ipv4Addr::LOCALHOST.into(), listener.local_addr().unwrap().port());
    let accept = move || {
        for stream in listener.incoming() {
            Builder::new().spawn(move || serve(stream.unwrap())).unwrap();
        }
    };
    Builder::new().spawn(accept).unwrap();
    ServerSource { address, weight: 1, name: None }
}

/// Bytes of memory that this process holds.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[test]
fn the_largest_value_passes_both_ways_and_is_held_nowhere_and_nobody_waits_for_it() {
    let proxy = Proxy::start(PoolSource { redis: true, ..PoolSource::new("test", vec![server()]) }, 1);
    let (mut client, mut other) = (proxy.client(), proxy.client());
    let mut pieces = Pieces::new();
    // Half of it is under way: who asks for something else is answered, on the same server.
    let others_go_on = |other: &mut Client| {
        (0..50).for_each(|_| assert_eq!(other.say("GET small"), "$5\r\nsmall\r\n"));
    };
    others_go_on(&mut other);
    let before = resident();
    let look = |when: &str| {
        let held = resident().saturating_sub(before);
        assert!(held < HELD_MAX, "{held} bytes {when}");
    };
    let (whole, half) = (SIZE / PIECE, SIZE / PIECE / 2);

    client.send(format!("*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n${SIZE}\r\n").as_bytes());
    pieces.send(&mut client.stream, 0..half);
    others_go_on(&mut other);
    look("when half of it has gone");
    pieces.send(&mut client.stream, half..whole);
    client.send(b"\r\n");
    assert_eq!(client.reply(), b"+OK\r\n");
    look("when it has gone");

    client.send(b"*2\r\n$3\r\nGET\r\n$5\r\nlarge\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
    let head = format!("${SIZE}\r\n");
    let mut got = vec![0; head.len()];
    client.stream.read_exact(&mut got).unwrap();
    assert_eq!(got, head.as_bytes());
    pieces.expect(&mut client.stream, 0..half);
    others_go_on(&mut other);
    look("when half of it has come");
    pieces.expect(&mut client.stream, half..whole);
    let mut end = [0; 2];
    client.stream.read_exact(&mut end).unwrap();
    assert_eq!(&end, b"\r\n");
    assert_eq!(client.reply(), b"$5\r\nsmall\r\n", "what was asked behind it");
    look("when it has come");
    others_go_on(&mut other);
}
