//! What the caching rules cost a hit, in nanoseconds. `cargo run --release -p beltway-http --example caching_cost`

use std::hint::black_box;

use base::{Clock, SystemClock, WallTime};
use http::rules::caching::conditional::evaluate;
use http::rules::caching::stored::{Answer, HitContext, encode, write_hit_head};
use http::rules::caching::vary::{Choice, choose};
use http::rules::caching::{
    CacheName, CacheStatus, Exchange, RequestControl, ResponseControl, StoredMeta, key, serve, store,
};
use http::rules::forward::ConnectionField;
use http::rules::framing::Framing;
use http::wire::Method;
use http::wire::h1::{Limits, RequestHead, ResponseHead, Scheme, Status};

const WRK: &str = "GET /1k.bin HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";
const BROWSER: &str = "GET /assets/app.3f2a1c.js?v=12 HTTP/1.1\r\nHost: www.example.com\r\nConnection: keep-alive\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
Cache-Control: max-age=100\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nIf-None-Match: \"5f3a-1c2b\"\r\n\r\n";
const RESPONSE: &str = "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sat, 21 Nov 2026 00:00:00 GMT\r\n\
Content-Type: application/octet-stream\r\nContent-Length: 1024\r\nLast-Modified: Fri, 20 Nov 2026 09:00:00 GMT\r\n\
Connection: keep-alive\r\nETag: \"673f0a10-400\"\r\nAccept-Ranges: bytes\r\n";

/// A sink as large as a block, which never grows.
struct Page {
    bytes: Box<[u8; 16 * 1024]>,
    len: usize,
}

impl http::rules::HeadSink for Page {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            room.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }
}

fn main() {
    let stored = WallTime::from_secs(1_795_219_200);
    let now = WallTime::from_secs(1_795_219_212);
    let name = CacheName::new("beltway");
    for (label, request, extra) in [("wrk", WRK, ""), ("browser", BROWSER, "Vary: Accept-Encoding\r\n")] {
        let response = format!("{RESPONSE}Cache-Control: max-age=3600\r\n{extra}\r\n");
        let (request_text, response_text) = (request.as_bytes(), response.as_bytes());
        let (mut request, mut response) = (RequestHead::new(), ResponseHead::new());
        assert_eq!(request.parse(request_text, &Limits::default()), Ok(Status::Complete));
        assert_eq!(response.parse(response_text, &Limits::default(), Method::Get), Ok(Status::Complete));
        let exchange = Exchange {
            request: &request,
            request_text,
            response: &response,
            response_text,
            request_time: stored,
            response_time: stored,
        };
        let storable = store::may_store(&exchange).expect("the response is storable");
        let mut record = Vec::new();
        encode(&mut record, &exchange, &storable, b"http://127.0.0.1:8080/1k.bin").expect("it is small");
        let mut page = Page { bytes: Box::new([0; 16 * 1024]), len: 0 };
        let mut text = Vec::with_capacity(256);
        let hit = |page: &mut Page, meta: &StoredMeta<'_>, reading: serve::Reading| {
            page.len = 0;
            let context = HitContext {
                answer: Answer::Whole,
                age_s: reading.age_s(),
                framing: Framing::Length(1024),
                via: "beltway",
                connection: ConnectionField::Absent,
                status: Some(CacheStatus::hit(&name, reading.ttl_s())),
                extra: b"",
            };
            write_hit_head(page, meta, &context);
        };
        println!("{label}: record of {} bytes", record.len());
        measure("key", || {
            let (authority, path) = (request.authority(black_box(request_text)), request.path_and_query(request_text));
            let _ = black_box(key::write_key(&mut text, Scheme::Http, authority, path));
        });
        measure("decode", || {
            black_box(StoredMeta::decode(black_box(&record)));
        });
        measure("choose (decode, vary)", || {
            black_box(choose([black_box(record.as_slice())], &request, request_text));
        });
        let meta = StoredMeta::decode(&record).expect("it was just written");
        measure("request control", || {
            black_box(RequestControl::of(&request, black_box(request_text)));
        });
        measure("decide", || {
            let control = RequestControl::default();
            black_box(serve::decide(&black_box(&meta).terms(), &control, black_box(now), false));
        });
        measure("conditions", || {
            black_box(evaluate(black_box(&meta), &request, request_text, now));
        });
        let reading = meta.terms().at(now);
        measure("hit head", || {
            hit(&mut page, black_box(&meta), reading);
            black_box(page.len);
        });
        measure("all of a hit but the key", || {
            let Choice::Found(_, meta) = choose([black_box(record.as_slice())], &request, request_text) else { return };
            let control = RequestControl::of(&request, request_text);
            let decision = serve::decide(&meta.terms(), &control, now, false);
            black_box(evaluate(&meta, &request, request_text, now));
            hit(&mut page, &meta, decision.reading);
            black_box(page.len);
        });
        measure("response control", || {
            black_box(ResponseControl::of(&response, black_box(response_text)));
        });
        measure("may store, encode", || {
            if let Ok(storable) = store::may_store(black_box(&exchange)) {
                record.clear();
                let _ = black_box(encode(&mut record, &exchange, &storable, b"http://127.0.0.1:8080/1k.bin"));
            }
        });
    }
}

/// The best of several rounds: what the code costs, without what the machine does beside it.
fn measure(name: &str, mut once: impl FnMut()) {
    const TIMES: u32 = 200_000;
    let clock = SystemClock;
    let mut best = u128::MAX;
    for _ in 0..9 {
        let start = clock.now();
        for _ in 0..TIMES {
            once();
        }
        best = best.min((clock.now() - start).as_nanos());
    }
    let tenths = best * 10 / u128::from(TIMES);
    println!("  {name:26} {:>5}.{} ns", tenths / 10, tenths % 10);
}
