//! What is in the middle of something long while servers and programs are replaced: it goes on where it is, to its end.
//!
//! A download whose end nobody knows, an upload, and a value that is half sent to a pool: none can move to another server,
//! so the first one finishes them while others serve.

#![allow(clippy::unwrap_used, reason = "a walk that cannot set up its surroundings fails")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use walks::kv::{KvClient, Store};
use walks::{Accepted, End, Kind, Origin, Peer, Tree, eventually, free_address, pause, thread};

/// Between two pieces of anything.
const PACE: Duration = Duration::from_millis(10);
/// What the first server may take to finish; the walk itself tells it when.
const DRAIN_SECS: u32 = 60;
/// Changes while all is under way.
const CHANGES: [&str; 5] = ["reload", "restart", "upgrade", "restart", "upgrade"];

/// One chunk: its number on a line.
fn chunk(number: u64) -> String {
    let line = format!("{number}\n");
    format!("{:x}\r\n{line}\r\n", line.len())
}

fn lines(count: u64) -> String {
    (0..count).map(|number| format!("{number}\n")).collect()
}

/// What is done in small pieces until it is told that there are enough.
#[derive(Clone, Default)]
struct Pieces {
    done: Arc<AtomicU64>,
    enough: Arc<AtomicBool>,
}

impl Pieces {
    /// Does one after the other, at least one; says how many.
    fn run(&self, mut one: impl FnMut(u64)) -> u64 {
        let mut number = 0;
        loop {
            one(number);
            number += 1;
            self.done.store(number, Ordering::Relaxed);
            if self.enough.load(Ordering::Relaxed) {
                return number;
            }
            pause(PACE);
        }
    }

    /// Waits until it has gone on.
    fn more(&self) {
        let before = self.done.load(Ordering::Relaxed);
        eventually("it goes on", || (self.done.load(Ordering::Relaxed) > before + 2).then_some(()));
    }

    fn finish(&self) {
        self.enough.store(true, Ordering::Relaxed);
    }
}

/// Sends chunks for as long as is wanted, or counts what comes.
fn origin(download: Pieces) -> Origin {
    Origin::scripted(move |mut accepted: Accepted| {
        let Some(head) = accepted.request_head() else { return };
        if head.start.contains("/down") {
            accepted.send(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\nCache-Control: no-store\r\n\r\n",
            );
            download.run(|number| accepted.send(chunk(number)));
            accepted.send("0\r\n\r\n");
        } else {
            let whole = accepted.receive_content(head, Kind::Request);
            assert_eq!(whole.end, End::Whole);
            let length = whole.body.len();
            let text = format!("{length}\n");
            accepted
                .send(format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}", text.len()));
        }
    })
}

/// A value of this many lines on its way to a pool, line by line; the connection and what it was.
fn half_sent(pool: SocketAddr, pieces: Pieces, lines: u64) -> JoinHandle<(KvClient, String)> {
    thread("half-sent value", move || {
        let mut client = KvClient::connect(pool);
        let value: String = (0..lines).map(|number| format!("{number:1023}\n")).collect();
        let head = format!("*3\r\n$3\r\nSET\r\n$4\r\nlong\r\n${}\r\n", value.len());
        client.send(head.as_bytes()).unwrap();
        let mut rest = value.as_bytes();
        pieces.run(|_| {
            // The last line waits for the end.
            if rest.len() > 1024 {
                let (piece, more) = rest.split_at(1024);
                client.send(piece).unwrap();
                rest = more;
            }
        });
        client.send(rest).unwrap();
        client.send(b"\r\n").unwrap();
        (client, value)
    })
}

#[test]
fn a_download_an_upload_and_a_half_sent_value_outlive_every_planned_change() {
    let [download, upload, value] = [(); 3].map(|()| Pieces::default());
    let origin = origin(download.clone());
    let store = Store::redis(&[]);
    let pool = free_address();
    let servers = format!("servers: [\"{}:1\"]", store.address());
    let kv = format!("kv: {{pools: {{alpha: {{listen: \"{pool}\", redis: true, {servers}}}}}}}");
    let http = format!("remap: [{{from: \"/\", to: \"{}\"}}]", origin.url());
    let tree = Tree::run_patient(&http, &kv, DRAIN_SECS);
    let address = tree.address();

    let downloading = thread("download", move || {
        let mut peer = Peer::connect(address);
        peer.send("GET /down HTTP/1.1\r\nHost: a.example\r\n\r\n");
        peer.receive(Kind::ResponseTo("GET"))
    });
    let sent = upload.clone();
    let uploading = thread("upload", move || {
        let mut peer = Peer::connect(address);
        peer.send("POST /up HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n");
        let count = sent.run(|number| peer.send(chunk(number)));
        peer.send("0\r\n\r\n");
        (count, peer.receive(Kind::ResponseTo("POST")))
    });
    // More than a block holds, so that it passes through while it comes.
    let storing = half_sent(pool, value.clone(), 1_024);
    let all = [&download, &upload, &value];
    all.into_iter().for_each(Pieces::more);

    for change in CHANGES {
        let output = tree.ask(&[change]);
        assert!(output.status.success(), "{change}: {output:?}\n{}", tree.log());
        all.into_iter().for_each(Pieces::more);
        assert_eq!(
            Peer::connect(address).ask("POST /up HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\n\r\nx").body,
            b"1\n"
        );
        assert_eq!(KvClient::connect(pool).ask("GET short").as_deref(), Some("$-1\r\n"));
    }
    let status = tree.status().unwrap();
    let servers = status["servers"].as_array().unwrap();
    assert!(servers.iter().any(|server| server["state"] == "draining"), "the first one still has them: {status:#}");

    all.into_iter().for_each(Pieces::finish);
    let downloaded = downloading.join().unwrap();
    assert_eq!(downloaded.end, End::Whole);
    assert_eq!(String::from_utf8(downloaded.body).unwrap(), lines(download.done.load(Ordering::Relaxed)));
    let (count, answer) = uploading.join().unwrap();
    assert_eq!(
        (answer.end, String::from_utf8(answer.body).unwrap()),
        (End::Whole, format!("{}\n", lines(count).len()))
    );
    let (mut client, value) = storing.join().unwrap();
    assert_eq!(client.reply().as_deref(), Some("+OK\r\n"));
    let stored = KvClient::connect(pool).ask("GET long").unwrap();
    assert_eq!(stored, format!("${}\r\n{value}\r\n", value.len()));
    drop(client);
    eventually("the first server is done", || (tree.status()?["servers"].as_array()?.len() == 1).then_some(()));
    assert_eq!(tree.status().unwrap()["server_deaths"], 0, "none was an accident");
}
