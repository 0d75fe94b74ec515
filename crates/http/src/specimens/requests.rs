//! Malformed requests.

use super::{BadRequest, LIMITS};
use crate::wire::h1::{CONNECTION_OPTIONS_MAX, EMPTY_LINES_MAX, METHOD_LEN_MAX, Reason};
use crate::wire::list::is_token_byte;

/// More than 300 requests, each wrong in one way.
#[must_use]
pub fn malformed_requests() -> Vec<BadRequest> {
    let mut all = Vec::new();
    bytes_out_of_place(&mut all);
    line_ends(&mut all);
    start_lines(&mut all);
    lengths(&mut all);
    codings(&mut all);
    hosts(&mut all);
    targets(&mut all);
    field_lines(&mut all);
    sizes(&mut all);
    contents(&mut all);
    all
}

fn add(all: &mut Vec<BadRequest>, reason: Reason, bytes: impl AsRef<[u8]>) {
    all.push(BadRequest { bytes: bytes.as_ref().to_vec(), reason });
}

/// A request whose only mistake is this field line.
fn with_line(line: &str) -> String {
    format!("POST /x HTTP/1.1\r\nHost: a.example\r\n{line}\r\nAccept: */*\r\n\r\n")
}

/// The same with bytes that are no text.
fn with_bytes(before: &str, byte: u8, after: &str) -> Vec<u8> {
    [before.as_bytes(), &[byte], after.as_bytes()].concat()
}

fn bytes_out_of_place(all: &mut Vec<BadRequest>) {
    let tail = "\r\nAccept: */*\r\n\r\n";
    for b in (0..=8).chain([11, 12]).chain(14..=31).chain([127]) {
        add(all, Reason::BadFieldValue, with_bytes("GET / HTTP/1.1\r\nHost: a\r\nX: y", b, &format!("z{tail}")));
        add(all, Reason::BadTarget, with_bytes("GET /a", b, "b HTTP/1.1\r\nHost: a\r\n\r\n"));
        add(all, Reason::BadMethod, with_bytes("GE", b, "T / HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    for b in (0..=u8::MAX).filter(|&b| !is_token_byte(b) && !matches!(b, b':' | b'\r' | b'\n' | b' ' | b'\t')) {
        if !(0x83..=0xfc).contains(&b) {
            add(all, Reason::BadFieldName, with_bytes("GET / HTTP/1.1\r\nHost: a\r\nX", b, &format!("Y: z{tail}")));
        }
    }
    for b in [0x80, 0xa0, 0xc3, 0xff, b'#'] {
        add(all, Reason::BadTarget, with_bytes("GET /a", b, " HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    for b in *b"(),/:;<=>?@[\\]{}\"\x80\xff" {
        add(all, Reason::BadMethod, with_bytes("G", b, "T / HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
}

fn line_ends(all: &mut Vec<BadRequest>) {
    let lines = ["GET / HTTP/1.1", "Host: a", "X: y", ""];
    for wrong in 0..lines.len() {
        let build = |end: &str| -> String {
            lines
                .iter()
                .enumerate()
                .map(|(i, line)| format!("{line}{}", if i == wrong { end } else { "\r\n" }))
                .collect()
        };
        add(all, Reason::BareLf, build("\n"));
        if wrong + 1 < lines.len() {
            add(all, Reason::BareCr, build("\r"));
            add(all, Reason::BareCr, build("\r\r\n"));
            add(all, Reason::BareCr, build("\r \n"));
        }
    }
    add(all, Reason::BareLf, "GET / HTTP/1.1\nHost: a\n\n");
    add(all, Reason::BareLf, "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    add(all, Reason::BareLf, "\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    add(all, Reason::BareCr, "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    add(all, Reason::BareCr, with_line("X: a\rTransfer-Encoding: chunked"));
    add(all, Reason::BareCr, with_line("X:\rY: z"));
    add(all, Reason::BareLf, with_line("X: a\nTransfer-Encoding: chunked"));
    add(all, Reason::BareLf, with_line("X:\nContent-Length: 5"));
    add(all, Reason::BareCr, with_line("X\r: a"));
    add(
        all,
        Reason::TooManyEmptyLines,
        format!("{}GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n".repeat(EMPTY_LINES_MAX + 1)),
    );
}

fn start_lines(all: &mut Vec<BadRequest>) {
    let cases: &[(Reason, &[&str])] = &[
        (
            Reason::BadRequestLine,
            &[
                "GET",
                "GET  / HTTP/1.1",
                "GET /  HTTP/1.1",
                "GET / HTTP/1.1 ",
                "GET / HTTP/1.1 x",
                "GET\u{20}\u{20}HTTP/1.1",
                "GET /\tHTTP/1.1",
                "GET \t/ HTTP/1.1",
                "GET / HTTP/1.1\t",
            ],
        ),
        (Reason::BadMethod, &[" GET / HTTP/1.1", "\tGET / HTTP/1.1", "GET\t/ HTTP/1.1", "\u{feff}GET / HTTP/1.1"]),
        (Reason::NoVersion, &["GET /", "GET / ", "GET /index.html"]),
        (Reason::SpaceInTarget, &["GET /a b HTTP/1.1", "GET /a /b HTTP/1.1", "GET / x HTTP/1.1", "GET / HTTP 1.1x"]),
        (
            Reason::BadVersion,
            &[
                "GET / HTTP",
                "GET / HTTP/",
                "GET / HTTP/1",
                "GET / HTTP/1.",
                "GET / HTTP/.1",
                "GET / http/1.1",
                "GET / HTTP/1.11",
                "GET / HTTP/11.1",
                "GET / HTTP/1,1",
                "GET / HTTP/x.y",
                "GET / HTTPS/1.1",
                "GET / ICY",
                "GET / /HTTP/1.1",
                "GET / HTTP/-1.1",
                "GET / HTTP/1.1.1",
            ],
        ),
        (
            Reason::UnknownVersion,
            &[
                "GET / HTTP/0.9",
                "GET / HTTP/1.2",
                "GET / HTTP/2.0",
                "GET / HTTP/3.0",
                "GET / HTTP/9.9",
                "PRI * HTTP/2.0",
            ],
        ),
    ];
    for &(reason, lines) in cases {
        for line in lines {
            add(all, reason, format!("{line}\r\nHost: a\r\n\r\n"));
        }
    }
    add(all, Reason::BadMethod, "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03\r\n\r\n");
}

fn lengths(all: &mut Vec<BadRequest>) {
    for value in [
        "",
        "-1",
        "+1",
        "+0",
        "-0",
        "1 1",
        "1.0",
        "1e1",
        "0x5",
        "5;",
        "five",
        "\"5\"",
        "5a",
        "a5",
        "0b1",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999999999",
        "\u{ff15}",
        "5\u{a0}",
        "NaN",
        "5_0",
        "'5'",
        "0x",
        "5\t5",
        "(5)",
        "*",
        "5/5",
        "5:5",
    ] {
        add(all, Reason::BadContentLength, with_line(&format!("Content-Length: {value}")));
    }
    for value in ["5, 5", "5,5", "5,", ",5", "5, 6", "0,0", "5 ,5", ",", "5,abc", "5, 5, 5"] {
        add(all, Reason::RepeatedContentLength, with_line(&format!("Content-Length: {value}")));
    }
    for (a, b) in [("5", "5"), ("5", "6"), ("0", "5"), ("5", "0"), ("0", "0"), ("5", ""), ("05", "5")] {
        add(all, Reason::RepeatedContentLength, with_line(&format!("Content-Length: {a}\r\ncontent-length: {b}")));
        add(
            all,
            Reason::RepeatedContentLength,
            with_line(&format!("CONTENT-LENGTH: {a}\r\nX: y\r\nContent-Length: {b}")),
        );
    }
}

fn codings(all: &mut Vec<BadRequest>) {
    for value in [
        "",
        ",",
        "chunked,",
        ",chunked",
        "chunked;",
        "chunked;q=1",
        "chunked; a=b",
        "gzip;q=0.5, chunked",
        "\"chunked\"",
        "chunked chunked",
        "chunked\tchunked",
        "(chunked)",
        "chunked/1",
        "gzip,,chunked",
        "chunk\u{eb}d",
        "x y, chunked",
        "chunked:",
        "{chunked}",
    ] {
        add(all, Reason::BadTransferEncoding, with_line(&format!("Transfer-Encoding: {value}")));
    }
    for value in [
        "gzip",
        "identity",
        "chunked, gzip",
        "chunked, chunked",
        "chunked, identity",
        "gzip, deflate",
        "xchunked",
        "chunkedx",
        "chunke",
        "chunked, gzip, chunked",
        "deflate",
        "compress",
        "x",
        "chunked-",
        "chunked_",
    ] {
        add(all, Reason::ChunkedNotFinal, with_line(&format!("Transfer-Encoding: {value}")));
    }
    for value in [
        "gzip, chunked",
        "identity, chunked",
        "deflate, gzip, chunked",
        "x-gzip,chunked",
        "unknown , Chunked",
        "xchunked, chunked",
    ] {
        add(all, Reason::UnknownTransferCoding, with_line(&format!("Transfer-Encoding: {value}")));
    }
    add(all, Reason::ChunkedNotFinal, with_line("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"));
    add(all, Reason::ChunkedNotFinal, with_line("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"));
    add(all, Reason::ChunkedNotFinal, with_line("Transfer-Encoding: chunked\r\ntransfer-encoding: x"));
    add(all, Reason::UnknownTransferCoding, with_line("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"));
    for (length, coding) in
        [("5", "chunked"), ("0", "chunked"), ("5", "gzip"), ("5", "gzip, chunked"), ("5", "Chunked")]
    {
        let (length, coding) = (format!("Content-Length: {length}"), format!("Transfer-Encoding: {coding}"));
        add(all, Reason::LengthAndTransferEncoding, with_line(&format!("{length}\r\n{coding}")));
        add(all, Reason::LengthAndTransferEncoding, with_line(&format!("{coding}\r\n{length}")));
    }
    for rest in ["chunked", "chunked\r\nContent-Length: 5", "chunked\r\nConnection: keep-alive", "gzip"] {
        let text = format!("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: {rest}\r\n\r\n");
        add(all, Reason::TransferEncodingInHttp10, text);
    }
}

fn hosts(all: &mut Vec<BadRequest>) {
    add(all, Reason::NoHost, "GET / HTTP/1.1\r\n\r\n");
    add(all, Reason::NoHost, "GET / HTTP/1.1\r\nX-Host: a\r\nHosts: a\r\n\r\n");
    add(all, Reason::NoHost, "GET http://a/ HTTP/1.1\r\nX: y\r\n\r\n");
    add(all, Reason::NoHost, "OPTIONS * HTTP/1.1\r\nX: y\r\n\r\n");
    for (a, b) in [("a", "a"), ("a", "b"), ("a", ""), ("", "a"), ("", "")] {
        add(all, Reason::RepeatedHost, format!("GET / HTTP/1.1\r\nHost: {a}\r\nhost: {b}\r\n\r\n"));
    }
    add(all, Reason::RepeatedHost, "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n");
    add(all, Reason::RepeatedHost, "GET http://a/ HTTP/1.1\r\nHost: a\r\nX: y\r\nHost: a\r\n\r\n");
    for host in [
        "",
        "a b",
        "a, b",
        "a/b",
        "a?b",
        "a#b",
        "a@b",
        "u:p@a",
        "a:b",
        "a:80:80",
        "a:65536",
        "a:-80",
        "a:+80",
        "a:99999999999",
        ":80",
        "[::1",
        "::1",
        "[::1]x",
        "[]",
        "[::1]:x",
        "[zz]",
        "[fe80::1%25lo]",
        "http://a",
        "a\\b",
        "a\"b",
        "<a>",
        "a|b",
        "{a}",
        "a^b",
        "a`b",
        "a%",
        "a%4",
        "a%zz",
        "\u{fc}ber",
        "a:80 ,b",
        "a\tb",
        "a: 80",
        "a:8 0",
    ] {
        add(all, Reason::BadHost, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
    for host in ["a b", "a/b", "u@a", "a:x"] {
        add(all, Reason::BadHost, format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n"));
        add(all, Reason::BadHost, format!("GET http://good/ HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
}

fn targets(all: &mut Vec<BadRequest>) {
    let cases: &[(Reason, &[&str])] = &[
        (
            Reason::BadHost,
            &[
                "GET http://",
                "GET http:///",
                "GET http:///x",
                "GET http://?x",
                "GET http://:80/",
                "GET http://u@a/",
                "GET http://u:p@a/",
                "GET http://a:x/",
                "GET http://a:65536/",
                "GET http://[::1/",
                "GET http://a,b/",
                "GET http://a\\b/",
                "GET http://a|b/",
            ],
        ),
        (
            Reason::UnknownScheme,
            &["GET ftp://a/", "GET ws://a/", "GET file:///etc/passwd", "GET gopher://a", "GET ://a/", "GET httpx://a/"],
        ),
        (
            Reason::WrongTargetForm,
            &[
                "GET a",
                "GET index.html",
                "GET ?x",
                "GET *",
                "POST *",
                "OPTIONS **",
                "GET a:80",
                "GET http:/a",
                "GET http:a",
                "CONNECT /",
                "CONNECT a",
                "CONNECT a:",
                "CONNECT http://a:80/",
                "CONNECT a:x",
                "CONNECT *",
                "CONNECT u@a:80",
                "CONNECT :80",
                "CONNECT a:80/",
                "CONNECT a:80,b:80",
                "CONNECT [::1]",
                "CONNECT a:65536",
                "HEAD *",
                "GET *x",
                "OPTIONS *a",
                "GET .",
                "GET ..",
                "GET mailto:a",
            ],
        ),
        (Reason::BadTarget, &["GET /#", "GET /a#b", "GET http://a/#b", "GET http://a#b", "OPTIONS *#", "GET #"]),
    ];
    for &(reason, starts) in cases {
        for start in starts {
            add(all, reason, format!("{start} HTTP/1.1\r\nHost: good\r\n\r\n"));
        }
    }
}

fn field_lines(all: &mut Vec<BadRequest>) {
    for line in [
        "Transfer-Encoding : chunked",
        "Content-Length : 5",
        "X\t: y",
        "X  : y",
        "X \t : y",
        "Content-Length :5",
        "Host : b",
        "X :",
    ] {
        add(all, Reason::SpaceBeforeColon, with_line(line));
    }
    for line in [
        " X: y",
        "\tX: y",
        "X: y\r\n z",
        "X: y\r\n\tz",
        "X: y\r\n ",
        "X:\r\n y",
        "Content-Length: 5\r\n 5",
        "Transfer-Encoding:\r\n chunked",
        " ",
    ] {
        add(all, Reason::ObsFold, with_line(line));
    }
    add(all, Reason::ObsFold, "GET / HTTP/1.1\r\n Host: a\r\n\r\n");
    add(all, Reason::ObsFold, "GET / HTTP/1.1\r\n\tX: y\r\nHost: a\r\n\r\n");
    for line in ["X", "chunked", "Transfer-Encoding", "GET"] {
        add(all, Reason::NoColon, with_line(line));
    }
    for line in [
        ": y",
        ":",
        "::",
        "X Y: z",
        "Transfer Encoding: chunked",
        "Content-Length\u{a0}: 5",
        "GET /other HTTP/1.1",
        "X y",
        "{\"a\": 1}",
        "<x>: y",
    ] {
        add(all, Reason::BadFieldName, with_line(line));
    }
    let options = ["x"; CONNECTION_OPTIONS_MAX + 1];
    add(all, Reason::TooManyConnectionOptions, with_line(&format!("Connection: {}", options.join(","))));
    let lines = ["Connection: close, x, y"; CONNECTION_OPTIONS_MAX / 3 + 1];
    add(all, Reason::TooManyConnectionOptions, with_line(&lines.join("\r\n")));
}

fn sizes(all: &mut Vec<BadRequest>) {
    let long = "x".repeat(LIMITS.head_size);
    add(all, Reason::LineTooLarge, format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"));
    add(all, Reason::LineTooLarge, format!("GET http://a/?{long} HTTP/1.1\r\nHost: a\r\n\r\n"));
    add(all, Reason::HeadTooLarge, format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"));
    add(all, Reason::HeadTooLarge, format!("GET / HTTP/1.1\r\nHost: a\r\nX{long}: y\r\n\r\n"));
    add(all, Reason::HeadTooLarge, format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", &long[..LIMITS.head_size - 28]));
    add(all, Reason::HeadTooLarge, format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", &long[..LIMITS.head_size - 26]));
    add(all, Reason::MethodTooLong, format!("{long}{long}"));
    add(all, Reason::MethodTooLong, format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", &long[..=METHOD_LEN_MAX]));
    add(
        all,
        Reason::TooManyFields,
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(LIMITS.head_fields)),
    );
    add(
        all,
        Reason::TooManyFields,
        format!("GET / HTTP/1.1\r\n{}Host: a\r\n\r\n", "X:\r\n".repeat(LIMITS.head_fields * 3)),
    );
}

fn contents(all: &mut Vec<BadRequest>) {
    for (start, line) in [
        ("TRACE /", "Content-Length: 5"),
        ("TRACE /", "Transfer-Encoding: chunked"),
        ("CONNECT a:80", "Content-Length: 5"),
        ("CONNECT a:80", "Transfer-Encoding: chunked"),
    ] {
        add(all, Reason::ContentNotAllowed, format!("{start} HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\nhello"));
    }
    for value in ["", "200-ok", "100-continue, x", "100", "continue", "100-continue;q=1", "\"100-continue\""] {
        add(all, Reason::UnknownExpectation, with_line(&format!("Content-Length: 5\r\nExpect: {value}")));
    }
}
