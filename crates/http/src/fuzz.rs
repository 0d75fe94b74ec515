//! What holds for any bytes whatever, as plain functions: a fuzzer calls them, and tests replay `corpus/` through them.
//!
//! With cargo-fuzz a target is one line, `fuzz_target!(|bytes: &[u8]| http::fuzz::fuzz_request(bytes));`. A function
//! returns when all is well and panics when a promise of this crate is broken.

use base::WallTime;

use crate::remap::{Balance, HostPattern, Lookup, Origin, Remap, RuleSource};
use crate::rules::caching::conditional::{self, Freshener};
use crate::rules::caching::serve::{self, Failure};
use crate::rules::caching::stored::{self, Answer, HitContext};
use crate::rules::caching::{
    CacheName, CacheStatus, Exchange, RequestControl, ResponseControl, StoredMeta, invalidate, store, vary,
};
use crate::rules::forward::{ClientContext, ConnectionField, ExpectRule, HostRule, OriginContext};
use crate::rules::forwarded::{ClientAddress, ForwardedFields};
use crate::rules::framing::{Framing, frame_response};
use crate::rules::{date, hop, write_client_response, write_origin_request};
use crate::wire::body::{Body, BodyError, Decoder};
use crate::wire::field::{FieldSet, Known};
use crate::wire::h1::{Limits, RequestHead, ResponseHead, Status, Version};
use crate::wire::{Method, list};

const LIMITS: Limits = Limits { head_size: 4096, head_fields: 32 };
const FORWARDED_LIMITS: Limits = Limits { head_size: 16 * 1024, head_fields: 64 };

/// A request head that parses can be rewritten; what is written parses, is framed the same, and has nothing of the hop.
pub fn fuzz_request(bytes: &[u8]) {
    let mut head = RequestHead::new();
    if head.parse(bytes, &LIMITS) != Ok(Status::Complete) || head.method() == Method::Connect {
        return;
    }
    assert!(head.head_len() <= bytes.len());
    let client = ClientAddress::of(std::net::Ipv6Addr::LOCALHOST.into());
    let context = OriginContext {
        via: "beltway",
        client: &client,
        scheme: "http",
        forwarded: ForwardedFields::Both,
        path_strip: 0,
        path_prefix: "",
        host: HostRule::Preserve { fallback: "origin.example" },
        body: head.body(),
        expect: ExpectRule::Forward,
        trailers: false,
        close: false,
        drop: FieldSet::EMPTY,
        extra: b"",
    };
    let mut out = Vec::new();
    write_origin_request(&mut out, &head, bytes, &context);
    let mut again = RequestHead::new();
    assert_eq!(again.parse(&out, &FORWARDED_LIMITS), Ok(Status::Complete), "{:?}", String::from_utf8_lossy(&out));
    assert_eq!(again.head_len(), out.len());
    assert_eq!((again.body(), again.version()), (head.body(), Version::Http11));
    assert_eq!(again.method_bytes(&out), head.method_bytes(bytes));
    assert!(!again.present().meets(hop_fields(head.body())), "{:?}", String::from_utf8_lossy(&out));
    for option in head.find(Known::Connection, bytes).flat_map(list::elements) {
        let kept = |known| hop::NOT_NOMINABLE.has(known) || known == Known::TransferEncoding;
        assert!(again.fields(&out).all(|f| kept(f.known) || !f.name.eq_ignore_ascii_case(option)));
    }
}

/// The same for the answer to GET.
pub fn fuzz_response(bytes: &[u8]) {
    let mut head = ResponseHead::new();
    if head.parse(bytes, &LIMITS, Method::Get) != Ok(Status::Complete) {
        return;
    }
    for client in [Version::Http10, Version::Http11] {
        let (framing, keep_alive) = frame_response(client, true, head.body());
        let context = ClientContext {
            via: "beltway",
            framing,
            connection: ConnectionField::of(client, keep_alive),
            date: &date::format(0),
            trailers: false,
            status: None,
        };
        let mut out = Vec::new();
        write_client_response(&mut out, &head, bytes, &context);
        let mut again = ResponseHead::new();
        assert_eq!(again.parse(&out, &FORWARDED_LIMITS, Method::Get), Ok(Status::Complete));
        assert_eq!((again.head_len(), again.status()), (out.len(), head.status()));
        assert_eq!(again.reason(&out), head.reason(bytes));
        let expected = match framing {
            Framing::None => Body::None,
            Framing::Length(len) => Body::Length(len),
            Framing::Chunked => Body::Chunked,
            Framing::UntilClose => Body::UntilClose,
        };
        assert_eq!(again.body(), expected);
        assert!(framing == Framing::UntilClose || client == Version::Http10 || again.keep_alive());
    }
}

/// The first byte cuts the rest into pieces: content and outcome are the same as for the whole.
pub fn fuzz_body(bytes: &[u8]) {
    let Some((&piece, bytes)) = bytes.split_first() else { return };
    for body in [Body::Chunked, Body::Length(u64::from(piece)), Body::UntilClose] {
        assert_eq!(decode(body, bytes, usize::from(piece).max(1)), decode(body, bytes, usize::MAX));
    }
}

/// Authority and path, with a blank between: what is found fits, and no path leaves its rule.
pub fn fuzz_remap(bytes: &[u8]) {
    let (authority, path) = bytes.split_at(memchr::memchr(b' ', bytes).unwrap_or(bytes.len()));
    let rule = |host: Option<HostPattern>, path: &str| RuleSource {
        host,
        port: None,
        path: path.into(),
        origins: vec![Origin { authority: "origin:1".into(), path: "/deep/".into() }],
        balance: Balance::ConsistentHash,
    };
    let rules = vec![
        rule(Some(HostPattern::Exact("a.example".into())), "/x/"),
        rule(Some(HostPattern::Suffix("example".into())), "/y"),
        rule(None, "/z"),
        rule(None, "/"),
    ];
    let Ok(remap) = Remap::compile(rules) else { unreachable!("the rules are lawful") };
    let path = path.get(1..).unwrap_or_default();
    if let Lookup::Found(index) = remap.look_up(authority, 80, path) {
        let Some(rule) = remap.rule(index) else { unreachable!("what is found exists") };
        let (strip, prefix) = rule.rewrite(rule.order(1, 1), path);
        assert!(strip <= path.len() && prefix.starts_with("/deep"));
    }
}

/// Dates are read without surprises: what is read and written again reads the same.
pub fn fuzz_date(bytes: &[u8]) {
    if let Some(secs) = date::parse(bytes, 1_795_219_200) {
        assert_eq!(date::parse(&date::format(secs), 0), Some(secs.clamp(0, 253_402_300_799)));
    }
}

/// A value of `Cache-Control`: whatever it says, a directive beside it is still seen.
pub fn fuzz_cache_control(bytes: &[u8]) {
    let line = |value: &[u8]| [b"Cache-Control: ", value, b"\r\n"].concat();
    for lines in [line(&[b"no-store, ", bytes].concat()), [line(bytes), line(b"no-store")].concat()] {
        let text = [b"GET / HTTP/1.1\r\nHost: a\r\n".as_slice(), &lines, b"\r\n"].concat();
        let mut head = RequestHead::new();
        if head.parse(&text, &LIMITS) != Ok(Status::Complete) || head.field_count() > 3 {
            return;
        }
        assert!(RequestControl::of(&head, &text).no_store);
        let text = [b"HTTP/1.1 200 OK\r\n".as_slice(), &lines, b"\r\n"].concat();
        let mut head = ResponseHead::new();
        assert_eq!(head.parse(&text, &LIMITS, Method::Get), Ok(Status::Complete));
        assert!(ResponseControl::of(&head, &text).no_store);
    }
}

/// A request and the response to it, one behind the other: what is stored of them is sound, and what is served of that
/// is a lawful head, without the fields of the hop.
pub fn fuzz_exchange(bytes: &[u8]) {
    let mut request = RequestHead::new();
    if request.parse(bytes, &LIMITS) != Ok(Status::Complete) {
        return;
    }
    let response_text = bytes.get(request.head_len()..).unwrap_or_default();
    let mut response = ResponseHead::new();
    if response.parse(response_text, &LIMITS, request.method()) != Ok(Status::Complete) {
        return;
    }
    let now = WallTime::from_secs(1_795_219_200);
    let (request, response) = (&request, &response);
    let exchange =
        Exchange { request, request_text: bytes, response, response_text, request_time: now, response_time: now };
    invalidate::targets(b"http://a/b", response, response_text, &mut Vec::new(), |key| {
        assert!(key.starts_with(b"http://a/"));
    });
    let Ok(storable) = store::may_store(&exchange) else { return };
    let mut record = Vec::new();
    if stored::encode(&mut record, &exchange, &storable, b"http://a/b").is_err() {
        return;
    }
    let Some(meta) = StoredMeta::decode(&record) else { unreachable!("what was written can be read") };
    assert!(meta.is_sound());
    assert_eq!(meta.terms(), storable.terms());
    assert!(vary::matches(meta.vary(), request, bytes));
    fuzz_stored(&record);
    for (answer, status) in [(Answer::Whole, response.status()), (Answer::NotModified, 304), (Answer::Partial, 206)] {
        let out = hit(&meta, answer);
        let mut again = ResponseHead::new();
        assert_eq!(again.parse(&out, &FORWARDED_LIMITS, Method::Get), Ok(Status::Complete));
        assert_eq!((again.head_len(), again.status()), (out.len(), status));
        assert!(again.present().has(Known::Date) && again.present().has(Known::Age));
        assert_eq!(again.find(Known::Age, &out).count(), 1);
        assert!(!again.present().meets(hop_fields(Body::None)), "{:?}", String::from_utf8_lossy(&out));
    }
    // A 304 that says nothing changes nothing but times.
    let text = b"HTTP/1.1 304 Not Modified\r\n\r\n";
    let mut unchanged = ResponseHead::new();
    assert_eq!(unchanged.parse(text, &LIMITS, Method::Get), Ok(Status::Complete));
    let exchange = Exchange { response: &unchanged, response_text: text, ..exchange };
    let mut fresh = Vec::new();
    if Freshener::new().freshen(&mut fresh, &meta, &exchange).is_ok() {
        let Some(fresh) = StoredMeta::decode(&fresh) else { unreachable!("what was written can be read") };
        assert!(fresh.is_sound());
        assert_eq!((fresh.etag_text(), fresh.status()), (meta.etag_text(), meta.status()));
    }
}

/// Bytes that may be the record of a stored response: no use of them panics.
pub fn fuzz_stored(bytes: &[u8]) {
    let Some(meta) = StoredMeta::decode(bytes) else { return };
    let text = b"GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: \"a\"\r\nIf-Range: \"a\"\r\nAccept-Encoding: gzip\r\n\r\n";
    let mut request = RequestHead::new();
    assert_eq!(request.parse(text, &LIMITS), Ok(Status::Complete));
    let now = WallTime::from_secs(1_795_219_200);
    let control = RequestControl::of(&request, text);
    let _ = (meta.is_sound(), meta.key(), meta.fields().count(), meta.status_line(), meta.content_type());
    let _ = vary::choose([bytes], &request, text);
    let _ = vary::secondary_key(meta.vary(), &request, text);
    let _ = serve::decide(&meta.terms(), &control, now, true).reading.ttl_s();
    let _ = serve::on_failure(&meta.terms(), &control, Failure::Unreachable, now, 9);
    let _ = conditional::evaluate(&meta, &request, text, now);
    let _ = conditional::range_applies(&meta, &request, text);
    conditional::put_revalidation(&mut Vec::new(), &meta);
    for answer in [Answer::Whole, Answer::NotModified, Answer::Partial] {
        assert!(hit(&meta, answer).ends_with(b"\r\n\r\n"));
    }
}

fn hit(meta: &StoredMeta<'_>, answer: Answer) -> Vec<u8> {
    let name = CacheName::new("beltway");
    let framing = if answer == Answer::NotModified { Framing::None } else { Framing::Length(5) };
    let context = HitContext {
        answer,
        age_s: 1,
        framing,
        via: "beltway",
        connection: ConnectionField::Absent,
        status: Some(CacheStatus::hit(&name, 9)),
        extra: b"",
    };
    let mut out = Vec::new();
    stored::write_hit_head(&mut out, meta, &context);
    out
}

fn decode(body: Body, bytes: &[u8], piece: usize) -> (Vec<u8>, usize, Result<(), BodyError>) {
    let mut decoder = Decoder::new(body, &LIMITS);
    let (mut content, mut at, mut end) = (Vec::new(), 0, 0);
    while end < bytes.len() {
        end = end.saturating_add(piece).min(bytes.len());
        while at < end && !decoder.is_done() {
            match decoder.step(&bytes[at..end]) {
                Ok(step) => {
                    assert!(step.consumed > 0);
                    content.extend_from_slice(&bytes[at..end][step.data]);
                    at += step.consumed;
                }
                Err(error) => return (content, 0, Err(error)),
            }
        }
    }
    (content, at, decoder.feed_eof())
}

/// What may not be in a forwarded request; `Transfer-Encoding` may, when we wrote it.
fn hop_fields(body: Body) -> FieldSet {
    let ours = if body == Body::Chunked { Known::TransferEncoding } else { Known::Other };
    Known::all().filter(|&k| hop::HOP_BY_HOP.has(k) && k != ours).fold(FieldSet::EMPTY, FieldSet::with)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::specimens;

    type Target = fn(&[u8]);
    const TARGETS: [(&str, Target); 8] = [
        ("request", fuzz_request),
        ("response", fuzz_response),
        ("body", fuzz_body),
        ("remap", fuzz_remap),
        ("date", fuzz_date),
        ("cache-control", fuzz_cache_control),
        ("exchange", fuzz_exchange),
        ("stored", fuzz_stored),
    ];

    #[test]
    fn the_corpus_replays_without_a_broken_promise() {
        for (name, target) in TARGETS {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
            let mut count = 0;
            for entry in std::fs::read_dir(&folder).unwrap() {
                target(&std::fs::read(entry.unwrap().path()).unwrap());
                count += 1;
            }
            assert!(count >= 5, "{}: {count}", folder.display());
        }
    }

    #[test]
    fn the_specimens_break_no_promise_either() {
        for specimen in specimens::malformed_requests() {
            fuzz_request(&specimen.bytes);
        }
        for specimen in specimens::hostile_responses() {
            fuzz_response(&specimen.bytes);
            fuzz_body(&specimen.bytes);
        }
    }

    proptest! {
        /// One byte of a lawful or unlawful message changed: most come out refused, some come out different.
        #[test]
        fn a_changed_byte_breaks_no_promise(
            at in any::<prop::sample::Index>(), which in any::<prop::sample::Index>(), byte in prop_oneof![
                any::<u8>(), prop::sample::select(b"\r\n \t:,;=/%.?*\0".to_vec())
            ],
        ) {
            for (name, target) in TARGETS {
                let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
                let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
                files.sort();
                let mut bytes = std::fs::read(&files[which.index(files.len())]).unwrap();
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
                target(&bytes);
            }
        }

        #[test]
        fn no_bytes_break_a_promise(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            for (_, target) in TARGETS {
                target(&bytes);
            }
        }
    }
}
