//! A client: asks for resources in every way, and has the ledger judge what it is answered.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use base::Rng;
use event::{Tcp, Thread};

use crate::peer::{Framing, Head, Lost, Manner, Peer, write};
use crate::script::{Ask, Ledger, bump, content_byte};

/// What a client asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Get,
    Head,
    Post,
    Purge,
}

/// Asks `count` times, on one connection after the other.
pub(crate) async fn run(thread: Thread, proxy: SocketAddr, count: u64, ledger: Rc<Ledger>) {
    let mut rng = Rng::new(thread.random());
    let mut peer: Option<Peer> = None;
    // Tags that it was sent: of which resource, version and kind.
    let mut seen: Vec<(usize, u64, u64)> = Vec::new();
    for _ in 0..count {
        // Often at the same moment as others.
        if rng.one_in(2) {
            let order = rng.below(15);
            thread.sleep(Duration::from_millis(rng.below(1 << order))).await;
        }
        let mut connection = match peer.take() {
            Some(peer) if !rng.one_in(4) => peer,
            _ => match Tcp::connect(&thread, proxy, thread.now() + Duration::from_secs(60)).await {
                Ok(tcp) => Peer::new(tcp),
                Err(error) => {
                    if ledger.calm {
                        ledger.wrong(format!("no connection to the proxy: {error}"));
                    }
                    continue;
                }
            },
        };
        connection.slow = rng.one_in(6).then(|| Rng::new(rng.next_u64()));
        match ask(&mut connection, &mut seen, &mut rng, &ledger).await {
            Ok(true) => peer = Some(connection),
            Ok(false) => {}
            Err(lost) => {
                bump(&ledger.broken);
                match lost {
                    Lost::Nonsense(what) => ledger.wrong(format!("answered with {what}")),
                    Lost::Late if !ledger.cuts => ledger.wrong("neither answered nor ended"),
                    lost if ledger.calm => ledger.wrong(format!("{lost:?}")),
                    _ => {}
                }
            }
        }
    }
    ledger.client_over();
}

/// One request and its answer; true when the connection goes on.
async fn ask(peer: &mut Peer, seen: &mut Vec<(usize, u64, u64)>, rng: &mut Rng, ledger: &Ledger) -> Result<bool, Lost> {
    let thread = peer.tcp.thread().clone();
    let resource = usize::try_from(rng.below(ledger.count() as u64)).unwrap_or(0);
    let kind = rng.below(3);
    let way = match rng.below(24) {
        0 => Way::Post,
        1 => Way::Purge,
        2 | 3 => Way::Head,
        _ => Way::Get,
    };
    let method = ["GET", "HEAD", "POST", "PURGE"][way as usize];
    let (validated, only_stored) = (rng.one_in(10), rng.one_in(16));
    let mut lines = format!("Host: sim.example\r\nX-Kind: {kind}\r\n");
    if validated {
        lines += "Cache-Control: no-cache\r\n";
    } else if only_stored {
        lines += "Cache-Control: only-if-cached\r\n";
    }
    let known = seen.iter().rev().find(|known| known.0 == resource && rng.one_in(2)).copied();
    if let Some((_, version, kind)) = known {
        lines += &format!("If-None-Match: \"{resource}-{version}-{kind}\"\r\n");
    }
    if way == Way::Post {
        lines += "Content-Length: 0\r\n";
    }
    let ask = ledger.ask(resource, validated, thread.now());
    let text = format!("{method} /{resource} HTTP/1.1\r\n{lines}\r\n");
    if !write(&peer.tcp, text.as_bytes(), &Manner::drawn(rng), rng).await {
        return Err(Lost::Torn);
    }
    // Some leave before they are through.
    if !ledger.calm && rng.one_in(10) {
        peer.read_at_least(rng.below(3_000)).await;
        bump(&ledger.broken);
        return Ok(false);
    }
    let head = peer.read_head().await?;
    let status: u16 = head.start.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let framing = head.framing().unwrap_or(Framing::UntilClose);
    let goes_on = !head.says("connection", "close");
    if way == Way::Purge {
        if !matches!(status, 200 | 404) {
            return Err(Lost::Nonsense("a purge that was refused"));
        }
        peer.read_body(framing, |_, _| {}).await?;
        ledger.purged(resource, ask.at);
        return Ok(goes_on);
    }
    let Some((url, version, of_kind)) = named(&head, status) else {
        let is_busy = head.field("x-busy").is_some();
        let is_wanted = status == 504 && only_stored && !validated;
        if (ledger.calm && !is_wanted) || status < 500 {
            ledger.wrong(format!("{ask:?}: an answer that no origin gave: {head:?}"));
        }
        if way != Way::Head {
            peer.read_body(framing, |_, _| {}).await?;
        }
        bump(if is_busy { &ledger.whole } else { &ledger.own });
        return Ok(goes_on);
    };
    let expected_kind = if ledger.terms(resource).is_some_and(|terms| terms.varies) { kind } else { 0 };
    if url != resource as u64 || of_kind != expected_kind {
        ledger.wrong(format!("{ask:?}: answered with {url}, kind {of_kind}"));
    }
    if way != Way::Post {
        ledger.judge(&ask, version);
    }
    match status {
        304 => {
            if known.is_none_or(|known| (known.1, known.2) != (version, of_kind)) {
                ledger.wrong(format!("{ask:?}: 304 for version {version} to who has {known:?}"));
            }
            bump(&ledger.unchanged);
        }
        200 => whole(peer, &ask, (version, of_kind), way, framing, ledger).await?,
        _ => ledger.wrong(format!("{ask:?}: {}", head.start)),
    }
    if status == 200 && head.field("etag").is_some() {
        seen.push((resource, version, of_kind));
    }
    if way == Way::Post {
        ledger.changed(resource, version, thread.now());
    }
    Ok(goes_on)
}

/// Which resource, version and kind an answer is of. A 304 has no more than the tag.
fn named(head: &Head, status: u16) -> Option<(u64, u64, u64)> {
    if status != 304 {
        return Some((head.number("x-url")?, head.number("x-version")?, head.number("x-kind")?));
    }
    let mut numbers = head.field("etag")?.trim_matches('"').split('-').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Reads and compares a whole body.
async fn whole(
    peer: &mut Peer,
    ask: &Ask,
    (version, kind): (u64, u64),
    way: Way,
    framing: Framing,
    ledger: &Ledger,
) -> Result<(), Lost> {
    let expected = ledger.length(ask.resource, version);
    if way == Way::Head {
        if let Framing::Length(length) = framing
            && length != expected
        {
            ledger.wrong(format!("{ask:?}: HEAD says {length} of {expected} bytes"));
        }
        bump(&ledger.whole);
        return Ok(());
    }
    let mut strange = None;
    let result = peer
        .read_body(framing, |at, bytes| {
            for (at, &byte) in (at..).zip(bytes) {
                let is_right = at < expected && byte == content_byte(ask.resource as u64, version, kind, at);
                if strange.is_none() && !is_right {
                    strange = Some(at);
                }
            }
        })
        .await;
    if let Some(at) = strange {
        ledger.wrong(format!("{ask:?}: byte {at} of version {version} is not what the origin said"));
    }
    let length = result?;
    if length != expected {
        ledger.wrong(format!("{ask:?}: {length} of {expected} bytes of version {version} look whole"));
    }
    bump(&ledger.whole);
    Ok(())
}

impl Ledger {
    fn client_over(&self) {
        bump(&self.clients_over);
    }
}
