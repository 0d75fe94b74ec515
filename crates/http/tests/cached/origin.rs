//! The origin: answers with the version that is there, now and then badly.

use std::rc::Rc;
use std::time::Duration;

use base::Rng;
use event::{Tcp, timeout};

use crate::peer::{Framing, Head, Manner, Peer, write};
use crate::script::{Ledger, bump, content_byte};

/// How long an origin keeps an idle connection: sometimes shorter than the proxy does.
const IDLE_MAX_MS: u64 = 40_000;
/// Longer than the proxy waits for an answer.
const SILENCE: Duration = Duration::from_secs(300);

pub(crate) async fn serve(tcp: Tcp, ledger: Rc<Ledger>) {
    let thread = tcp.thread().clone();
    let mut rng = Rng::new(thread.random());
    let mut peer = Peer::new(tcp);
    loop {
        let patience = Duration::from_millis(if ledger.calm { 600_000 } else { 1 + rng.below(IDLE_MAX_MS) });
        let Ok(Ok(head)) = timeout(&thread, patience, peer.read_head()).await else { return };
        bump(&ledger.fetched);
        if !answer(&peer, &head, &ledger, &mut rng).await {
            return;
        }
    }
}

/// Answers one request; false when the connection is over.
async fn answer(peer: &Peer, head: &Head, ledger: &Ledger, rng: &mut Rng) -> bool {
    let (tcp, thread) = (&peer.tcp, peer.tcp.thread());
    let mut words = head.start.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let resource = target.trim_start_matches('/').parse::<usize>().ok();
    let Some((resource, terms)) = resource.and_then(|resource| Some((resource, ledger.terms(resource)?))) else {
        ledger.wrong(format!("an origin was sent {:?}", head.start));
        return false;
    };
    if rng.one_in(3) {
        let order = rng.below(12);
        thread.sleep(Duration::from_millis(rng.below(1 << order))).await;
    }
    if !ledger.calm {
        match rng.below(24) {
            0 => return false,
            1 => {
                tcp.abort();
                return false;
            }
            2 if rng.one_in(4) => {
                thread.sleep(SILENCE).await;
                return false;
            }
            3 | 4 => {
                let text = b"HTTP/1.1 503 Busy\r\nX-Busy: 1\r\nContent-Length: 4\r\n\r\nbusy";
                return write(tcp, text, &Manner::drawn(rng), rng).await;
            }
            _ => {}
        }
    }
    let kind = head.number("x-kind").filter(|_| terms.varies).unwrap_or(0);
    let version = if method == "POST" { ledger.change(resource, thread.now()) } else { ledger.current(resource) };
    let tag = format!("\"{resource}-{version}-{kind}\"");
    let mut lines = format!("X-Url: {resource}\r\nX-Version: {version}\r\nX-Kind: {kind}\r\n{}", terms.lines());
    if terms.tagged {
        lines += &format!("ETag: {tag}\r\n");
    }
    let manner = Manner::drawn(rng);
    if terms.tagged && head.field("if-none-match").is_some_and(|tags| tags.split(',').any(|one| one.trim() == tag)) {
        let text = format!("HTTP/1.1 304 Not Modified\r\n{lines}\r\n");
        return write(tcp, text.as_bytes(), &manner, rng).await;
    }
    let length = ledger.length(resource, version);
    let framing = match rng.below(5) {
        0 | 1 => Framing::Length(length),
        2 | 3 => Framing::Chunked,
        _ if ledger.calm => Framing::Chunked,
        // Cut by a failing network, it would look whole: such a response is its origin's own risk.
        _ => Framing::Length(length),
    };
    lines += &match framing {
        Framing::Length(length) => format!("Content-Length: {length}\r\n"),
        Framing::Chunked | Framing::UntilClose => "Transfer-Encoding: chunked\r\n".to_owned(),
    };
    let text = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
    if !write(tcp, text.as_bytes(), &manner, rng).await {
        return false;
    }
    if method == "HEAD" {
        return true;
    }
    let content: Vec<u8> = (0..length).map(|at| content_byte(resource as u64, version, kind, at)).collect();
    let breaks = (!ledger.calm && length > 0 && rng.one_in(12)).then(|| rng.below(length));
    let said = &content[..breaks.map_or(content.len(), |at| usize::try_from(at).unwrap_or(0))];
    if framing == Framing::Chunked {
        let mut rest = said;
        while !rest.is_empty() {
            let n = usize::try_from(1 + rng.below(2_000)).unwrap_or(1).min(rest.len());
            let mut chunk = format!("{n:x}\r\n").into_bytes();
            chunk.extend_from_slice(&rest[..n]);
            chunk.extend_from_slice(b"\r\n");
            if !write(tcp, &chunk, &manner, rng).await {
                return false;
            }
            rest = &rest[n..];
        }
        if breaks.is_none() && !write(tcp, b"0\r\n\r\n", &manner, rng).await {
            return false;
        }
    } else if !write(tcp, said, &manner, rng).await {
        return false;
    }
    if breaks.is_some() && rng.one_in(2) {
        tcp.abort();
    }
    breaks.is_none()
}
