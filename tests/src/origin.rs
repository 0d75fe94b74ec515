//! An origin that a test scripts: what it receives is recorded, what it sends and when is the script's.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::message::{Kind, Message};
use crate::peer::Peer;
use crate::{eventually, thread};

/// A request that an origin received, whole or not.
#[derive(Clone, Debug)]
pub struct Received {
    /// Which of the origin's connections it came on, from 0.
    pub connection: usize,
    /// What came.
    pub message: Message,
}

#[derive(Debug, Default)]
struct Record {
    accepted: AtomicUsize,
    open: AtomicUsize,
    ended: AtomicBool,
    received: Mutex<Vec<Received>>,
}

/// A connection that an origin accepted.
#[derive(Debug)]
pub struct Accepted {
    /// Which, from 0.
    pub number: usize,
    peer: Peer,
    record: Arc<Record>,
}

impl Accepted {
    /// Reads and records a request; `None` when the connection ended before one began.
    pub fn request(&mut self) -> Option<Message> {
        let message = self.peer.receive(Kind::Request);
        self.record(&message)
    }

    /// Reads and records the head of a request alone.
    pub fn request_head(&mut self) -> Option<Message> {
        let message = self.peer.receive_head();
        self.record(&message)
    }

    fn record(&self, message: &Message) -> Option<Message> {
        if message.start.is_empty() {
            return None;
        }
        self.record.received.lock().unwrap().push(Received { connection: self.number, message: message.clone() });
        Some(message.clone())
    }

    /// Closes with a reset.
    pub fn reset(self) {
        self.peer.reset();
    }
}

impl Deref for Accepted {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        &self.peer
    }
}

impl DerefMut for Accepted {
    fn deref_mut(&mut self) -> &mut Peer {
        &mut self.peer
    }
}

/// The origin. Its script runs for each connection in a thread of its own; the connection closes when it returns.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    record: Arc<Record>,
    thread: Option<JoinHandle<()>>,
}

impl Origin {
    /// Listens on a free port of 127.0.0.1.
    pub fn scripted(script: impl Fn(Accepted) + Send + Sync + 'static) -> Self {
        Self::listening(TcpListener::bind("127.0.0.1:0").unwrap(), script)
    }

    /// Answers every request, and keeps connections.
    pub fn answering(answer: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::scripted(move |mut connection| {
            while let Some(request) = connection.request() {
                if connection.try_send(answer(&request)).is_err() {
                    return;
                }
            }
        })
    }

    /// Answers every request with 200 and this text.
    #[must_use]
    pub fn saying(text: &str) -> Self {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        Self::answering(move |_| answer.clone().into_bytes())
    }

    /// Accepts from `listener`.
    pub fn listening(listener: TcpListener, script: impl Fn(Accepted) + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().unwrap();
        let record = Arc::new(Record::default());
        let script = Arc::new(script);
        let accepting = Arc::clone(&record);
        let thread = thread("origin", move || {
            for stream in listener.incoming() {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let number = accepting.accepted.fetch_add(1, Ordering::SeqCst);
                accepting.open.fetch_add(1, Ordering::SeqCst);
                let connection = Accepted { number, peer: Peer::over(stream), record: Arc::clone(&accepting) };
                let (script, record) = (Arc::clone(&script), Arc::clone(&accepting));
                crate::thread(&format!("origin {number}"), move || {
                    let _open = Open(record);
                    script(connection);
                });
            }
        });
        Self { address, record, thread: Some(thread) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// How many connections it has accepted.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.record.accepted.load(Ordering::SeqCst)
    }

    /// How many connections its scripts have not ended.
    #[must_use]
    pub fn open(&self) -> usize {
        self.record.open.load(Ordering::SeqCst)
    }

    /// What it has received, in order.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.record.received.lock().unwrap().clone()
    }

    /// The last request it received, once there is one.
    #[must_use]
    pub fn last(&self) -> Message {
        eventually("a request at the origin", || self.received().pop()).message
    }
}

struct Open(Arc<Record>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.record.ended.store(true, Ordering::SeqCst);
        // Wakes it from accepting.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
