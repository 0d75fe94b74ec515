//! What one head costs: parse, look up, rewrite, in nanoseconds. `cargo run --release -p beltway-http --example head_cost`

use std::hint::black_box;

use base::{Clock, SystemClock};
use http::remap::{Balance, HostPattern, Lookup, Origin, Remap, RuleSource};
use http::rules::forward::{ConnectionField, ExpectRule, HostRule};
use http::rules::forwarded::{ClientAddress, ForwardedFields};
use http::rules::framing::Framing;
use http::rules::{ClientContext, OriginContext, date, write_client_response, write_origin_request};
use http::wire::Method;
use http::wire::h1::{Limits, RequestHead, ResponseHead};

const WRK: &[u8] = b"GET /1k.bin HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";
const BROWSER: &[u8] = b"GET /assets/app.3f2a1c.js?v=12 HTTP/1.1\r\nHost: www.example.com\r\nConnection: keep-alive\r\n\
sec-ch-ua: \"Chromium\";v=\"140\", \"Not A Brand\";v=\"24\"\r\nsec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: \"Linux\"\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: script\r\nReferer: http://www.example.com/\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9\r\nCookie: session=0123456789abcdef; theme=dark\r\n\
If-None-Match: \"5f3a-1c2b\"\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sat, 21 Nov 2026 10:00:00 GMT\r\n\
Content-Type: application/octet-stream\r\nContent-Length: 1024\r\nLast-Modified: Sat, 21 Nov 2026 09:00:00 GMT\r\n\
Connection: keep-alive\r\nETag: \"673f0a10-400\"\r\nAccept-Ranges: bytes\r\n\r\n";

fn main() {
    let limits = Limits::default();
    let client = ClientAddress::of(std::net::Ipv4Addr::LOCALHOST.into());
    let remap =
        Remap::compile(vec![rule(Some(HostPattern::Exact("www.example.com".into())), "/assets/"), rule(None, "/")])
            .expect("the rules are lawful");
    for (name, buf) in [("wrk", WRK), ("browser", BROWSER)] {
        let mut head = RequestHead::new();
        let mut out = Vec::with_capacity(4096);
        measure(&format!("{name}: parse"), || {
            let _ = black_box(head.parse(black_box(buf), &limits));
        });
        measure(&format!("{name}: look up"), || {
            black_box(remap.look_up(head.authority(black_box(buf)), 80, head.path_and_query(buf)));
        });
        measure(&format!("{name}: rewrite"), || {
            out.clear();
            write_origin_request(&mut out, &head, black_box(buf), &origin_context(&client, &head));
            black_box(&out);
        });
        measure(&format!("{name}: all three"), || {
            let _ = black_box(head.parse(black_box(buf), &limits));
            let found = remap.look_up(head.authority(buf), 80, head.path_and_query(buf));
            out.clear();
            if let Lookup::Found(_) = found {
                write_origin_request(&mut out, &head, buf, &origin_context(&client, &head));
            }
            black_box(&out);
        });
    }
    let mut head = ResponseHead::new();
    let mut out = Vec::with_capacity(4096);
    let now = date::format(1_795_219_200);
    let context = ClientContext {
        via: "beltway",
        framing: Framing::Length(1024),
        connection: ConnectionField::Absent,
        date: &now,
        trailers: false,
        status: None,
    };
    measure("response: parse", || {
        let _ = black_box(head.parse(black_box(RESPONSE), &limits, Method::Get));
    });
    measure("response: rewrite", || {
        out.clear();
        write_client_response(&mut out, &head, black_box(RESPONSE), &context);
        black_box(&out);
    });
    measure("date: format", || {
        black_box(date::format(black_box(1_795_219_200)));
    });
}

fn rule(host: Option<HostPattern>, path: &str) -> RuleSource {
    let origins = vec![Origin { authority: "10.0.0.5:8000".into(), path: "/".into() }];
    RuleSource { host, port: None, path: path.into(), origins, balance: Balance::RoundRobin }
}

fn origin_context<'a>(client: &'a ClientAddress, head: &RequestHead) -> OriginContext<'a> {
    OriginContext {
        via: "beltway",
        client,
        scheme: "http",
        forwarded: ForwardedFields::Both,
        path_strip: 0,
        path_prefix: "",
        host: HostRule::Preserve { fallback: "10.0.0.5:8000" },
        body: head.body(),
        expect: ExpectRule::Forward,
        trailers: false,
        close: false,
        drop: http::wire::field::FieldSet::EMPTY,
        extra: b"",
    }
}

/// The best of several rounds: what the code costs, without what the machine does beside it.
fn measure(name: &str, mut once: impl FnMut()) {
    const TIMES: u32 = 200_000;
    let clock = SystemClock;
    let mut best = u128::MAX;
    for _ in 0..7 {
        let start = clock.now();
        for _ in 0..TIMES {
            once();
        }
        best = best.min((clock.now() - start).as_nanos());
    }
    println!("{name:22} {:>5} ns", best / u128::from(TIMES));
}
