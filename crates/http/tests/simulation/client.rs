//! A client: asks what its script says, in its own manner, and judges every byte of what it is answered.

use std::cell::Cell;
use std::fmt::Write;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use base::Rng;
use event::{Tcp, Thread, timeout};

use crate::peer::{Framing, Head, Lost, Manner, Peer, beside, write};
use crate::script::{Act, Exchange, Ledger, Spoil, answer_byte, request_byte};

/// Requests of one connection; ids of one client begin at a multiple of this.
const REQUESTS_MAX: u64 = 6;
pub(crate) const IDS_PER_CLIENT: u64 = 1_000;

/// How one connection is used.
struct Session {
    http10: bool,
    keeps: bool,
    /// Requests on their way before an answer.
    depth: u64,
    manner: Manner,
    /// Ends its direction after the last request.
    half_closes: bool,
    /// Goes away after so many bytes of so manieth answer.
    leaves: Option<(u64, u64)>,
    /// Reads slowly.
    slow: bool,
}

/// What is agreed between the writing and the reading half.
#[derive(Default)]
struct Progress {
    answered: Cell<u64>,
    may_continue: Cell<Option<u64>>,
}

/// Opens one connection after the other and asks for `ids`.
pub(crate) async fn run(thread: Thread, proxy: SocketAddr, ids: Vec<u64>, http10: bool, ledger: Rc<Ledger>) {
    let mut rng = Rng::new(thread.random());
    let mut rest = &ids[..];
    while !rest.is_empty() {
        thread.sleep(Duration::from_millis(rng.below(1 << 7))).await;
        let count = usize::try_from(1 + rng.below(REQUESTS_MAX)).unwrap_or(1).min(rest.len());
        let (now, later) = rest.split_at(count);
        rest = later;
        let calm = ledger.calm;
        let session = Session {
            http10,
            keeps: !rng.one_in(4),
            // HTTP/1.0 knows no pipelining.
            depth: if http10 || rng.one_in(2) { 1 } else { 1 + rng.below(4) },
            manner: Manner::drawn(&mut rng),
            half_closes: rng.one_in(6),
            leaves: (!calm && rng.one_in(6)).then(|| (rng.below(count as u64), rng.below(2_000))),
            slow: rng.one_in(5),
        };
        let deadline = thread.now() + Duration::from_secs(60);
        match Tcp::connect(&thread, proxy, deadline).await {
            Ok(tcp) => converse(Peer::new(tcp), now, &session, &mut rng, &ledger).await,
            Err(error) if calm => ledger.wrong(now[0], format!("no connection to the proxy: {error}")),
            Err(_) => {}
        }
    }
    ledger.client_over();
}

async fn converse(mut peer: Peer, ids: &[u64], session: &Session, rng: &mut Rng, ledger: &Rc<Ledger>) {
    let progress = Progress::default();
    let tcp = Rc::clone(&peer.tcp);
    peer.slow = session.slow.then(|| Rng::new(rng.next_u64()));
    let asking = ask(&tcp, ids, session, &progress, Rng::new(rng.next_u64()), ledger);
    beside(hear(&mut peer, ids, session, &progress, ledger), asking).await;
}

/// The writing half.
async fn ask(tcp: &Tcp, ids: &[u64], session: &Session, progress: &Progress, mut rng: Rng, ledger: &Ledger) {
    for (number, &id) in (0..).zip(ids) {
        poll_fn(|_| if progress.answered.get() + session.depth > number { Poll::Ready(()) } else { Poll::Pending })
            .await;
        let Some(exchange) = ledger.exchange(id) else { return };
        let head = head(id, &exchange, session, number + 1 == ids.len() as u64);
        if !write(tcp, head.as_bytes(), &session.manner, &mut rng).await {
            return;
        }
        if exchange.expects {
            let told = poll_fn(|_| {
                let told = progress.may_continue.get() == Some(id) || progress.answered.get() > number;
                if told { Poll::Ready(()) } else { Poll::Pending }
            });
            let _ = timeout(tcp.thread(), Duration::from_secs(3), told).await;
        }
        if let Some((length, chunked)) = exchange.body
            && !send_body(tcp, id, length, chunked, session, &mut rng).await
        {
            return;
        }
    }
    if session.half_closes {
        tcp.end();
    }
}

fn head(id: u64, exchange: &Exchange, session: &Session, last: bool) -> String {
    let version = if session.http10 { "1.0" } else { "1.1" };
    let mut head = format!("{} /{}/{id} HTTP/{version}\r\n", exchange.method, exchange.rule);
    let _ = match exchange.body {
        None => Ok(()),
        Some((_, true)) => write!(head, "Transfer-Encoding: chunked\r\n"),
        Some((length, false)) => write!(head, "Content-Length: {length}\r\n"),
    };
    if exchange.expects {
        head.push_str("Expect: 100-continue\r\n");
    }
    match (session.http10, session.keeps) {
        (true, true) => head.push_str("Connection: keep-alive\r\n"),
        (false, false) if last => head.push_str("Connection: close\r\n"),
        _ => {}
    }
    let _ = write!(head, "Host: sim.example\r\nX-Id: {id}\r\n\r\n");
    head
}

async fn send_body(tcp: &Tcp, id: u64, length: u64, chunked: bool, session: &Session, rng: &mut Rng) -> bool {
    let whole: Vec<u8> = (0..length).map(|at| request_byte(id, at)).collect();
    if !chunked {
        return write(tcp, &whole, &session.manner, rng).await;
    }
    let mut rest = &whole[..];
    while !rest.is_empty() {
        let n = usize::try_from(1 + rng.below(3_000)).unwrap_or(1).min(rest.len());
        let mut chunk = format!("{n:x}\r\n").into_bytes();
        chunk.extend_from_slice(&rest[..n]);
        chunk.extend_from_slice(b"\r\n");
        if !write(tcp, &chunk, &session.manner, rng).await {
            return false;
        }
        rest = &rest[n..];
    }
    write(tcp, b"0\r\n\r\n", &session.manner, rng).await
}

/// The reading half; it ends the conversation.
async fn hear(peer: &mut Peer, ids: &[u64], session: &Session, progress: &Progress, ledger: &Ledger) {
    for (number, &id) in (0..).zip(ids) {
        if let Some((leaves_at, bytes)) = session.leaves
            && leaves_at == number
        {
            peer.read_at_least(bytes).await;
            ledger.was_broken();
            return;
        }
        match answer(peer, id, session, progress, ledger).await {
            Ok(true) => progress.answered.set(progress.answered.get() + 1),
            Ok(false) => return,
            Err(lost) => {
                ledger.was_broken();
                match lost {
                    Lost::Nonsense(what) => ledger.wrong(id, format!("answered with {what}")),
                    Lost::Late if !ledger.cuts => ledger.wrong(id, "neither answered nor ended"),
                    lost if ledger.calm => ledger.wrong(id, format!("{lost:?}")),
                    _ => {}
                }
                return;
            }
        }
    }
}

/// One answer; true when the connection goes on.
async fn answer(
    peer: &mut Peer,
    id: u64,
    session: &Session,
    progress: &Progress,
    ledger: &Ledger,
) -> Result<bool, Lost> {
    let Some(exchange) = ledger.exchange(id) else { return Ok(false) };
    let head = loop {
        let head = peer.read_head().await?;
        let status = status(&head)?;
        if head.number("x-id").is_some_and(|said| said != id) {
            return Err(Lost::Nonsense("the answer to another request"));
        }
        if status >= 200 {
            break head;
        }
        if session.http10 || (status == 100 && !exchange.expects) {
            return Err(Lost::Nonsense("an interim answer it cannot know"));
        }
        if status == 100 {
            progress.may_continue.set(Some(id));
        }
    };
    let own = head.field("x-id").is_none();
    let status = status(&head)?;
    let attempt = head.number("x-attempt").unwrap_or(0);
    let act = exchange.act(attempt);
    if own {
        if status < 400 || ledger.calm {
            return Err(Lost::Nonsense("an answer of the proxy's own making"));
        }
    } else if status != act.status || attempt >= ledger.arrivals.borrow().get(&id).copied().unwrap_or(0) {
        return Err(Lost::Nonsense("an answer that no origin gave"));
    }
    let bodiless = exchange.method == "HEAD" || matches!(status, 204 | 304);
    let framing = head.framing().unwrap_or(Framing::UntilClose);
    if session.http10 && framing == Framing::Chunked {
        return Err(Lost::Nonsense("chunks for HTTP/1.0"));
    }
    if !bodiless {
        let mut strange = None;
        let result = peer
            .read_body(framing, |at, bytes| {
                for (at, &byte) in (at..).zip(bytes) {
                    if !own && strange.is_none() && (at >= act.length || byte != answer_byte(id, attempt, at)) {
                        strange = Some(at);
                    }
                }
            })
            .await;
        if let Some(at) = strange {
            ledger.wrong(id, format!("byte {at} of the answer is not what the origin said"));
        }
        let length = result?;
        if !own && (length != act.length || breaks_off(act)) {
            ledger.wrong(id, format!("{length} of {} bytes look whole", act.length));
        }
    }
    if own {
        ledger.was_own()
    } else {
        ledger.was_whole()
    }
    let until_close = !bodiless && framing == Framing::UntilClose;
    let goes_on = !head.says("connection", "close") && (!session.http10 || head.says("connection", "keep-alive"));
    if goes_on && !until_close {
        return Ok(true);
    }
    if !until_close {
        match peer.ends().await {
            Err(Lost::Nonsense(what)) => ledger.wrong(id, format!("{what} that is the connection's last")),
            Err(Lost::Late) if !ledger.cuts => ledger.wrong(id, "a connection that was to be closed stays open"),
            _ => {}
        }
    }
    Ok(false)
}

/// Whether what the origin says of its answer is never said to the end.
fn breaks_off(act: &Act) -> bool {
    match act.spoil {
        Spoil::Not | Spoil::ExtraBytes => false,
        Spoil::ResetAt(_) => act.framing != Framing::Length(0),
        _ => true,
    }
}

fn status(head: &Head) -> Result<u16, Lost> {
    let mut words = head.start.split(' ');
    match (words.next(), words.next().and_then(|code| code.parse().ok())) {
        (Some("HTTP/1.1"), Some(status)) => Ok(status),
        _ => Err(Lost::Nonsense("a strange status line")),
    }
}
