//! One end of an HTTP connection, read and written without the engine's own code: what the engine says is judged by
//! another reading of the same rules.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use base::Rng;
use buf::{Block, Chunk, SizeClass};
use event::Tcp;
use event::sim::Seeds;

/// Longer than all the engine's limits together: who waits so long waits for ever.
const PATIENCE: Duration = Duration::from_secs(400);
/// No head in these worlds is longer.
const HEAD_MAX: usize = 64 << 10;

/// Why a message was not read to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lost {
    /// The connection ended before the first byte.
    Ended,
    /// It ended within the message.
    Torn,
    /// It was reset, or failed otherwise.
    Failed(ErrorKind),
    /// Nothing came for [`PATIENCE`].
    Late,
    /// What came is not HTTP.
    Nonsense(&'static str),
}

/// How a body is delimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// A start line and field lines, names in lower case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    pub(crate) start: String,
    pub(crate) fields: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.parse().ok()
    }

    pub(crate) fn says(&self, name: &str, token: &str) -> bool {
        let mut fields = self.fields.iter().filter(|(field, _)| field == name);
        fields.any(|(_, value)| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
    }

    /// `None` when it says nothing of a body.
    pub(crate) fn framing(&self) -> Option<Framing> {
        if self.says("transfer-encoding", "chunked") {
            return Some(Framing::Chunked);
        }
        self.number("content-length").map(Framing::Length)
    }
}

/// How somebody writes: in which pieces, with which pauses.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    pub(crate) piece_max: u64,
    /// In 1,000, before each piece.
    pub(crate) pause: u64,
    pub(crate) pause_max: Duration,
}

impl Manner {
    pub(crate) fn drawn(rng: &mut Rng) -> Self {
        let dribbles = rng.one_in(4);
        Self {
            piece_max: if dribbles { 1 + rng.below(40) } else { 1 << (8 + rng.below(7)) },
            pause: if rng.one_in(2) { 0 } else { rng.below(if dribbles { 60 } else { 300 }) },
            pause_max: Duration::from_millis(1 << rng.below(12)),
        }
    }
}

/// In about so many pieces a text is written at most.
const PIECES_MAX: u64 = 64;
/// How long a slow reader pauses at most.
const PAUSE_MAX_MS: u64 = 2_000;

pub(crate) struct Peer {
    pub(crate) tcp: Rc<Tcp>,
    /// Received and not used up.
    inbox: Vec<u8>,
    /// Reads with pauses.
    pub(crate) slow: Option<Rng>,
}

impl Peer {
    pub(crate) fn new(tcp: Tcp) -> Self {
        Self { tcp: Rc::new(tcp), inbox: Vec::new(), slow: None }
    }

    /// Receives more; false at the end of the stream.
    async fn more(&mut self) -> Result<bool, Lost> {
        if let Some(rng) = &mut self.slow
            && rng.one_in(8)
        {
            let pause = Duration::from_millis(rng.below(PAUSE_MAX_MS));
            self.tcp.thread().sleep(pause).await;
        }
        loop {
            let mut block = Block::new(SizeClass::Small);
            let sent = self.tcp.sent();
            self.tcp.set_read_deadline(self.tcp.thread().now() + PATIENCE);
            match self.tcp.recv(&mut block).await {
                Ok(0) => return Ok(false),
                Ok(_) => {
                    self.inbox.extend_from_slice(block.bytes());
                    return Ok(true);
                }
                // As long as the other half can still ask, there is hope.
                Err(error) if error.kind() == ErrorKind::TimedOut && self.tcp.sent() > sent => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => return Err(Lost::Late),
                Err(error) => return Err(Lost::Failed(error.kind())),
            }
        }
    }

    /// Reads so much, or all there is.
    pub(crate) async fn read_at_least(&mut self, bytes: u64) {
        while (self.inbox.len() as u64) < bytes && self.more().await == Ok(true) {}
    }

    /// Whether the connection ends now, and says nothing before.
    pub(crate) async fn ends(&mut self) -> Result<(), Lost> {
        if self.inbox.is_empty() && !self.more().await? {
            return Ok(());
        }
        Err(Lost::Nonsense("bytes behind the last message"))
    }

    pub(crate) async fn read_head(&mut self) -> Result<Head, Lost> {
        let end = loop {
            if let Some(at) = self.inbox.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if self.inbox.len() > HEAD_MAX {
                return Err(Lost::Nonsense("a head without end"));
            }
            if !self.more().await? {
                return Err(if self.inbox.is_empty() { Lost::Ended } else { Lost::Torn });
            }
        };
        let text: Vec<u8> = self.inbox.drain(..end).collect();
        let text = String::from_utf8(text).map_err(|_| Lost::Nonsense("a head that is not text"))?;
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let mut fields = Vec::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').ok_or(Lost::Nonsense("a field line without a colon"))?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        if Seeds::is_replay() {
            eprintln!("{:?} reads {start} {fields:?}", self.tcp.thread());
        }
        Ok(Head { start, fields })
    }

    async fn line(&mut self) -> Result<String, Lost> {
        loop {
            if let Some(at) = self.inbox.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.inbox.drain(..at + 2).collect();
                return String::from_utf8(line[..at].to_vec()).map_err(|_| Lost::Nonsense("a line that is not text"));
            }
            if self.inbox.len() > HEAD_MAX {
                return Err(Lost::Nonsense("a line without end"));
            }
            if !self.more().await? {
                return Err(Lost::Torn);
            }
        }
    }

    /// Reads a body, shows each piece to `see` with its place, and says how long it was.
    pub(crate) async fn read_body(&mut self, framing: Framing, mut see: impl FnMut(u64, &[u8])) -> Result<u64, Lost> {
        let mut at = 0;
        match framing {
            Framing::Length(length) => self.read_exactly(length, &mut at, &mut see).await?,
            Framing::UntilClose => loop {
                see(at, &self.inbox);
                at += self.inbox.len() as u64;
                self.inbox.clear();
                if !self.more().await? {
                    break;
                }
            },
            Framing::Chunked => loop {
                let line = self.line().await?;
                let size = line.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16).map_err(|_| Lost::Nonsense("a chunk without a size"))?;
                if size == 0 {
                    while !self.line().await?.is_empty() {}
                    break;
                }
                self.read_exactly(size, &mut at, &mut see).await?;
                if !self.line().await?.is_empty() {
                    return Err(Lost::Nonsense("a chunk longer than it says"));
                }
            },
        }
        Ok(at)
    }

    async fn read_exactly(&mut self, length: u64, at: &mut u64, see: &mut impl FnMut(u64, &[u8])) -> Result<(), Lost> {
        let end = *at + length;
        while *at < end {
            let n = usize::try_from(end - *at).unwrap_or(usize::MAX).min(self.inbox.len());
            see(*at, &self.inbox[..n]);
            self.inbox.drain(..n);
            *at += n as u64;
            if *at < end && !self.more().await? {
                return Err(Lost::Torn);
            }
        }
        Ok(())
    }
}

/// Writes `bytes` in the given manner; false when the other end takes no more.
pub(crate) async fn write(tcp: &Tcp, bytes: &[u8], manner: &Manner, rng: &mut Rng) -> bool {
    let mut rest = bytes;
    // Long texts in not too many pieces: a world is to be short.
    let piece_max = manner.piece_max.max(bytes.len() as u64 / PIECES_MAX);
    while !rest.is_empty() {
        if manner.pause > 0 && rng.below(1_000) < manner.pause {
            let nanos = u64::try_from(manner.pause_max.as_nanos()).unwrap_or(u64::MAX);
            tcp.thread().sleep(Duration::from_nanos(rng.below(nanos.max(1)))).await;
        }
        let n = usize::try_from(1 + rng.below(piece_max)).unwrap_or(1).min(rest.len());
        let piece: Arc<[u8]> = rest[..n].into();
        tcp.send(Chunk::from_shared(piece, 0..n));
        rest = &rest[n..];
        tcp.set_write_deadline(tcp.thread().now() + PATIENCE);
        if tcp.room(8 << 10).await.is_err() {
            return false;
        }
    }
    true
}

/// Runs `main` to its end and `side` meanwhile, as far as it comes.
pub(crate) async fn beside<T>(main: impl Future<Output = T>, side: impl Future<Output = ()>) -> T {
    let (mut main, mut side) = (pin!(main), pin!(side));
    let mut over = false;
    poll_fn(|context| {
        over = over || side.as_mut().poll(context).is_ready();
        if let Poll::Ready(value) = main.as_mut().poll(context) {
            return Poll::Ready(value);
        }
        // The one may just have told the other to go on.
        over = over || side.as_mut().poll(context).is_ready();
        Poll::Pending
    })
    .await
}
