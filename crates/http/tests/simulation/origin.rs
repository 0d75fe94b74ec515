//! An origin that does what the script of each request says, and checks what reaches it.

use std::fmt::Write;
use std::rc::Rc;
use std::time::Duration;

use base::Rng;
use buf::Chunk;
use event::{Tcp, timeout};

use crate::peer::{Framing, Lost, Peer, write};
use crate::script::{Act, Exchange, Ledger, Spoil, answer_byte, request_byte};

/// How long an origin keeps an idle connection: sometimes shorter than the proxy does.
const IDLE_MAX_MS: u64 = 40_000;
/// Longer than the proxy waits for an answer.
const SILENCE: Duration = Duration::from_secs(300);

/// Serves one connection.
pub(crate) async fn serve(tcp: Tcp, ledger: Rc<Ledger>) {
    let thread = tcp.thread().clone();
    let mut rng = Rng::new(thread.random());
    let mut peer = Peer::new(tcp);
    loop {
        let patience = Duration::from_millis(if ledger.calm { 600_000 } else { 1 + rng.below(IDLE_MAX_MS) });
        let Ok(Ok(head)) = timeout(&thread, patience, peer.read_head()).await else { return };
        let mut words = head.start.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let Some(id) = head.number("x-id") else {
            ledger.wrong(0, format!("an origin was sent {:?}", head.start));
            return;
        };
        let Some(exchange) = ledger.exchange(id) else {
            ledger.wrong(id, "an origin was sent a request that nobody made");
            return;
        };
        if method != exchange.method || !target.ends_with(&format!("/{id}")) || words.next() != Some("HTTP/1.1") {
            ledger.wrong(id, format!("an origin was sent {:?}", head.start));
        }
        if head.fields.iter().filter(|(name, _)| name == "host").count() != 1 || head.field("via").is_none() {
            ledger.wrong(id, format!("an origin was sent {:?}", head.fields));
        }
        let attempt = {
            let mut arrivals = ledger.arrivals.borrow_mut();
            let count = arrivals.entry(id).or_default();
            *count += 1;
            *count - 1
        };
        if attempt > 0 && !exchange.is_idempotent() {
            ledger.wrong(id, "reached origins twice");
        }
        let framing = head.framing();
        if framing.is_none() && exchange.body.is_some_and(|(length, _)| length > 0) {
            ledger.wrong(id, format!("its body was lost: {:?}", head.fields));
        }
        let act = exchange.act(attempt).clone();
        // A second hold on the same connection would be needed to read and write at once; so the hasty one answers
        // first and reads afterwards, and the other way round.
        if !act.hasty && !body_arrives(&mut peer, id, &exchange, framing, &ledger).await {
            return;
        }
        thread.sleep(act.delay).await;
        if !answer(&peer.tcp, id, attempt, &exchange, &act, &mut rng).await {
            return;
        }
        if act.hasty && !body_arrives(&mut peer, id, &exchange, framing, &ledger).await {
            return;
        }
        match act.close {
            None if act.spoil == Spoil::Not => {}
            None | Some(true) => {
                finish(peer).await;
                return;
            }
            Some(false) => {
                // Says nothing of it, and closes: perhaps under the next request.
                thread.sleep(Duration::from_millis(rng.below(50))).await;
                return;
            }
        }
        if act.framing == Framing::UntilClose && exchange.has_body(&act) {
            finish(peer).await;
            return;
        }
    }
}

/// Ends our direction and waits for the other's, so that no reset overtakes what was said.
async fn finish(mut peer: Peer) {
    peer.tcp.end();
    let thread = peer.tcp.thread().clone();
    let _ = timeout(&thread, Duration::from_secs(5), peer.read_body(Framing::UntilClose, |_, _| {})).await;
}

/// Reads a request's body; false when the connection is over.
async fn body_arrives(
    peer: &mut Peer,
    id: u64,
    exchange: &Exchange,
    framing: Option<Framing>,
    ledger: &Ledger,
) -> bool {
    let Some(framing) = framing else { return true };
    let length = exchange.body.map_or(0, |(length, _)| length);
    let mut strange = None;
    let result = peer
        .read_body(framing, |at, bytes| {
            for (at, &byte) in (at..).zip(bytes) {
                if strange.is_none() && (at >= length || byte != request_byte(id, at)) {
                    strange = Some(at);
                }
            }
        })
        .await;
    if let Some(at) = strange {
        ledger.wrong(id, format!("byte {at} of its body is not what the client sent"));
    }
    match result {
        Ok(whole) => {
            if whole != length {
                ledger.wrong(id, format!("{whole} bytes of its body look like all {length} of them"));
            }
            true
        }
        Err(Lost::Nonsense(what)) => {
            ledger.wrong(id, format!("an origin was sent {what}"));
            false
        }
        Err(_) => false,
    }
}

/// Answers; false when the connection is over.
async fn answer(tcp: &Tcp, id: u64, attempt: u64, exchange: &Exchange, act: &Act, rng: &mut Rng) -> bool {
    let thread = tcp.thread();
    match act.spoil {
        Spoil::CloseAtOnce => return false,
        Spoil::ResetAtOnce => {
            tcp.abort();
            return false;
        }
        Spoil::Silence => {
            // Looks whether the proxy gives up, without reading what it may still send.
            thread.sleep(SILENCE).await;
            return false;
        }
        Spoil::GarbageHead => {
            write(tcp, b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n", &act.manner, rng).await;
            return false;
        }
        _ => {}
    }
    for status in &act.interim {
        let text = format!("HTTP/1.1 {status} Wait\r\nX-Id: {id}\r\n\r\n");
        if !write(tcp, text.as_bytes(), &act.manner, rng).await {
            return false;
        }
    }
    let has_body = exchange.has_body(act);
    let mut head = format!("HTTP/1.1 {} Said\r\nX-Id: {id}\r\nX-Attempt: {attempt}\r\n", act.status);
    let _ = match act.framing {
        _ if act.status == 204 => Ok(()),
        Framing::Length(length) => write!(head, "Content-Length: {length}\r\n"),
        Framing::Chunked => write!(head, "Transfer-Encoding: chunked\r\n"),
        Framing::UntilClose if has_body => write!(head, "Connection: close\r\n"),
        Framing::UntilClose => Ok(()),
    };
    if act.spoil == Spoil::TwoLengths {
        let _ = write!(head, "Content-Length: {}\r\nContent-Length: {}\r\n", act.length + 1, act.length + 2);
    }
    if act.close == Some(true) && !(has_body && act.framing == Framing::UntilClose) {
        head.push_str("Connection: close\r\n");
    }
    head.push_str("\r\n");
    if act.spoil == Spoil::TornHead {
        let part = usize::try_from(1 + rng.below(head.len() as u64 - 3)).unwrap_or(1);
        write(tcp, &head.as_bytes()[..part], &act.manner, rng).await;
        return false;
    }
    if !write(tcp, head.as_bytes(), &act.manner, rng).await {
        return false;
    }
    if has_body && !send_body(tcp, id, attempt, act, rng).await {
        return false;
    }
    if act.spoil == Spoil::ExtraBytes {
        write(tcp, b"by the way\r\n\r\n", &act.manner, rng).await;
    }
    true
}

async fn send_body(tcp: &Tcp, id: u64, attempt: u64, act: &Act, rng: &mut Rng) -> bool {
    let whole: Vec<u8> = (0..act.length).map(|at| answer_byte(id, attempt, at)).collect();
    let until = match act.spoil {
        Spoil::CloseAt(at) | Spoil::ResetAt(at) | Spoil::BadChunk(at) => Some(usize::try_from(at).unwrap_or(0)),
        _ => None,
    };
    let text = &whole[..until.unwrap_or(whole.len())];
    if act.framing == Framing::Chunked {
        let mut rest = text;
        while !rest.is_empty() {
            let n = usize::try_from(1 + rng.below(2_000)).unwrap_or(1).min(rest.len());
            let extension = if rng.one_in(8) { ";name=value" } else { "" };
            let mut chunk = format!("{n:x}{extension}\r\n").into_bytes();
            chunk.extend_from_slice(&rest[..n]);
            chunk.extend_from_slice(b"\r\n");
            if !write(tcp, &chunk, &act.manner, rng).await {
                return false;
            }
            rest = &rest[n..];
        }
    } else if !write(tcp, text, &act.manner, rng).await {
        return false;
    }
    match act.spoil {
        Spoil::CloseAt(_) => return false,
        Spoil::ResetAt(_) => {
            // What was said before may still arrive, or not.
            if rng.one_in(2) {
                tcp.thread().sleep(Duration::from_millis(rng.below(20))).await;
            }
            tcp.abort();
            return false;
        }
        Spoil::BadChunk(_) => {
            tcp.send(Chunk::from_static(b"zz\r\nnot a chunk\r\n"));
            return false;
        }
        _ => {}
    }
    if act.framing == Framing::Chunked {
        let last: &[u8] = if act.trailer { b"0\r\nX-Trailer: yes\r\n\r\n" } else { b"0\r\n\r\n" };
        return write(tcp, last, &act.manner, rng).await;
    }
    true
}
