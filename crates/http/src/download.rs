//! The response's body, from the origin to the client and to the cache.

use std::io;

use buf::Chunk;
use cache::{Kept, Writer};
use event::{Tcp, Thread};

use crate::inbox::Inbox;
use crate::plan::Plan;
use crate::rules::framing::Framing;
use crate::sending::room;
use crate::upload::{Framer, class_for};
use crate::wire::Body;
use crate::wire::body::Decoder;

/// Why a body did not reach the client whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DownloadError {
    /// The origin ended or failed in the middle of it, or its framing is broken.
    OriginBroke,
    /// The origin sent nothing for too long.
    OriginLate,
    /// The client's connection failed.
    ClientGone,
    /// The client took nothing for too long.
    ClientLate,
}

/// What became of a body that came whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Delivery {
    /// All of it is queued for the client, if it was to have it.
    Made,
    /// Its client left on the way: it came for others.
    ClientGone,
}

/// A body on its way, and how it goes on.
pub(crate) struct Download<'a> {
    pub(crate) thread: &'a Thread,
    /// Who is to have it, if anybody is.
    pub(crate) client: Option<&'a Tcp>,
    pub(crate) origin: &'a Tcp,
    /// What has come from the origin behind the head.
    pub(crate) inbox: &'a mut Inbox,
    pub(crate) body: Body,
    pub(crate) framing: Framing,
    pub(crate) framer: Framer,
    pub(crate) plan: &'a Plan,
    /// Counts the bytes made on the client's side, chunk framing included, whatever the outcome.
    pub(crate) sent: &'a mut u64,
    /// Where it is stored, as long as it is. Set to none when nobody needs that any more.
    pub(crate) writer: &'a mut Option<Writer>,
    /// Why it is stored no more.
    pub(crate) unkept: &'a mut Option<cache::Reason>,
}

/// The client's side of a body.
struct Client<'a> {
    tcp: Option<&'a Tcp>,
    framing: Framing,
    framer: Framer,
    sent: &'a mut u64,
}

impl Client<'_> {
    fn send(&mut self, chunk: Chunk) {
        let Some(tcp) = self.tcp else { return };
        let sent = &mut *self.sent;
        let mut send = |chunk: Chunk| {
            *sent += chunk.len() as u64;
            tcp.send(chunk);
        };
        if self.framing == Framing::Chunked { self.framer.send_chunk(chunk, &mut send) } else { send(chunk) }
    }

    fn end(&mut self, decoder: &Decoder) {
        let (Some(tcp), Framing::Chunked) = (self.tcp, self.framing) else { return };
        let sent = &mut *self.sent;
        self.framer.send_last(decoder, &mut |chunk| {
            *sent += chunk.len() as u64;
            tcp.send(chunk);
        });
    }
}

/// Passes a body on.
pub(crate) async fn run(download: Download<'_>) -> Result<Delivery, DownloadError> {
    let Download { thread, client, origin, inbox, body, framing, framer, plan, sent, writer, unkept } = download;
    let mut decoder = Decoder::new(body, &plan.limits);
    let wanted = client.is_some();
    let mut client = Client { tcp: client, framing, framer, sent };
    loop {
        while !decoder.is_done() && !inbox.is_empty() {
            let step = decoder.step(inbox.bytes()).map_err(|_| DownloadError::OriginBroke)?;
            if !step.data.is_empty() {
                let stored = store(writer, unkept, &inbox.bytes()[step.data.clone()], thread, &mut client);
                if stored < step.data.len() {
                    client.send(inbox.chunk(step.data.start + stored..step.data.end));
                }
            }
            inbox.consume(step.consumed);
            if step.consumed == 0 && !step.done {
                break;
            }
        }
        let made = if wanted && client.tcp.is_none() { Delivery::ClientGone } else { Delivery::Made };
        if decoder.is_done() {
            client.end(&decoder);
            return Ok(made);
        }
        if let Some(tcp) = client.tcp {
            let lost = if tcp.failure().is_some() {
                Some(DownloadError::ClientGone)
            } else if tcp.queued() > plan.body_window && (writer.is_none() || unkept.is_some()) {
                // What is kept needs no room of ours, and others may be waiting for it: it comes as fast as it does.
                room(tcp, plan.body_window, plan.timeouts.client_send).await.err().map(|error| match error.kind() {
                    io::ErrorKind::TimedOut => DownloadError::ClientLate,
                    _ => DownloadError::ClientGone,
                })
            } else {
                None
            };
            if let Some(lost) = lost {
                if !writer.as_ref().is_some_and(|writer| writer.progress().is_worthwhile()) {
                    return Err(lost);
                }
                client.tcp = None;
            }
        }
        // Without a client it goes on only as long as it is worth it.
        if made == Delivery::ClientGone && !writer.as_ref().is_some_and(|writer| writer.progress().is_worthwhile()) {
            return Err(DownloadError::ClientGone);
        }
        origin.set_read_deadline(thread.now() + plan.timeouts.origin_idle);
        match inbox.fill(origin, class_for(decoder.expected())).await {
            Ok(0) => {
                decoder.feed_eof().map_err(|_| DownloadError::OriginBroke)?;
                client.end(&decoder);
                return Ok(made);
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(DownloadError::OriginLate),
            Err(_) => return Err(DownloadError::OriginBroke),
        }
    }
}

/// Stores bytes, if they are to be stored, and sends the client the memory they lie in. Says how many went to it so.
fn store(
    writer: &mut Option<Writer>,
    unkept: &mut Option<cache::Reason>,
    bytes: &[u8],
    thread: &Thread,
    client: &mut Client<'_>,
) -> usize {
    let Some(filling) = writer else { return 0 };
    let mut sent = 0;
    let kept = filling.append_and(bytes, thread.now(), |fragment| {
        sent += fragment.len();
        client.send(fragment.chunk());
    });
    if let Kept::No(reason) = kept {
        *unkept = Some(reason);
        if filling.followers() == 0 {
            *writer = None;
        }
    }
    sent
}
