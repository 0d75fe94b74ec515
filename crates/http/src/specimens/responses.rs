//! Hostile answers.

use super::{BadResponse, LIMITS, Refusal};
use crate::wire::body::BodyError;
use crate::wire::h1::Reason;

/// More than 100 answers to GET, each wrong in one way.
#[must_use]
pub fn hostile_responses() -> Vec<BadResponse> {
    let mut all = Vec::new();
    status_lines(&mut all);
    fields(&mut all);
    framings(&mut all);
    sizes(&mut all);
    contents(&mut all);
    all
}

fn head(all: &mut Vec<BadResponse>, reason: Reason, bytes: impl AsRef<[u8]>) {
    all.push(BadResponse { bytes: bytes.as_ref().to_vec(), refusal: Refusal::Head(reason) });
}

fn body(all: &mut Vec<BadResponse>, error: BodyError, framing: &str, content: &str) {
    let bytes = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{content}").into_bytes();
    all.push(BadResponse { bytes, refusal: Refusal::Body(error) });
}

fn with_lines(lines: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n{lines}\r\nX: y\r\n\r\nhello")
}

fn status_lines(all: &mut Vec<BadResponse>) {
    for line in [
        "",
        "HTTP",
        "hello",
        "<html>",
        "200 OK",
        "HTTP/1.1",
        "HTTP/1.1 ",
        "HTTP/1.1 OK",
        "HTTP/1.1 20",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 20x OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1\t200 OK",
        "HTTP/1.1 200\tOK",
        "http/1.1 200 OK",
        " HTTP/1.1 200 OK",
        "\r\nHTTP/1.1 200 OK",
        "ICY 200 OK",
        "HTTP/1.1 -20 OK",
        "HTTP/1.1 099 Low",
        "HTTP/1.1 000 OK",
        "HTTP/1.1 200OK",
        "HTTP/1.1 200 O\0K",
        "HTTP/1.1 200 O\x07K",
        "HTTP/1.1 200 O\x7fK",
        "HTTP/1.1 2 0 0",
        "HTTP/1.1 +20 OK",
        "HTTPS/1.1 200 OK",
        "HTTP/1 200 OK",
        "HTTP /1.1 200 OK",
        "RTSP/1.0 200 OK",
        "HTTP/1.x 200 OK",
        "HTTP/1.11 200 OK",
    ] {
        head(all, Reason::BadStatusLine, format!("{line}\r\nContent-Length: 5\r\n\r\nhello"));
    }
    for version in ["HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/3.0"] {
        head(all, Reason::UnknownVersion, format!("{version} 200 OK\r\nContent-Length: 5\r\n\r\nhello"));
    }
    head(
        all,
        Reason::UnexpectedUpgrade,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    );
    head(all, Reason::UnexpectedUpgrade, "HTTP/1.1 101 x\r\nX: y\r\n\r\n");
    head(all, Reason::BareLf, "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello");
    head(all, Reason::BareLf, "HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\nhello");
    head(all, Reason::BareLf, "HTTP/1.1 200\nContent-Length: 5\r\n\r\nhello");
    head(all, Reason::BareLf, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\nhello");
    head(all, Reason::BareCr, "HTTP/1.1 200 OK\rContent-Length: 5\r\n\r\nhello");
    head(all, Reason::BareCr, "HTTP/1.1 200 OK\r\r\nContent-Length: 5\r\n\r\nhello");
    head(all, Reason::BareCr, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\r\n\r\nhello");
}

fn fields(all: &mut Vec<BadResponse>) {
    for (reason, line) in [
        (Reason::BareLf, "X: y\nSet-Cookie: a=b"),
        (Reason::BareLf, "X:\nZ: y"),
        (Reason::BareCr, "X: y\rSet-Cookie: a=b"),
        (Reason::BareCr, "X\r: y"),
        (Reason::ObsFold, "X: y\r\n z"),
        (Reason::ObsFold, "X: y\r\n\tz"),
        (Reason::ObsFold, " X: y"),
        (Reason::SpaceBeforeColon, "Content-Length : 5"),
        (Reason::SpaceBeforeColon, "Transfer-Encoding\t: chunked"),
        (Reason::NoColon, "X"),
        (Reason::NoColon, "hello"),
        (Reason::BadFieldName, "<html>"),
        (Reason::BadFieldName, ": y"),
        (Reason::BadFieldName, "X Y: z"),
        (Reason::BadFieldName, "X\0: y"),
        (Reason::BadFieldName, "\u{e9}: y"),
        (Reason::BadFieldValue, "X: \0"),
        (Reason::BadFieldValue, "X: a\0b"),
        (Reason::BadFieldValue, "X: a\x0bb"),
        (Reason::BadFieldValue, "X: a\x1bb"),
        (Reason::BadFieldValue, "X: a\x7f"),
    ] {
        head(all, reason, with_lines(line));
    }
}

fn framings(all: &mut Vec<BadResponse>) {
    for value in [
        "",
        "-5",
        "+5",
        "5.0",
        "0x5",
        "5a",
        "5 5",
        "9223372036854775808",
        "99999999999999999999",
        "five",
        "\"5\"",
        "5;",
    ] {
        head(all, Reason::BadContentLength, with_lines(&format!("Content-Length: {value}")));
    }
    for lines in [
        "Content-Length: 5, 5",
        "Content-Length: 5, 6",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 0\r\ncontent-length: 5",
        "Content-Length: 5,",
    ] {
        head(all, Reason::RepeatedContentLength, with_lines(lines));
    }
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: gzip\r\nContent-Length: 5",
    ] {
        head(all, Reason::LengthAndTransferEncoding, with_lines(lines));
    }
    for value in
        ["gzip", "identity", "chunked, gzip", "chunked, chunked", "xchunked", "chunked\r\nTransfer-Encoding: chunked"]
    {
        head(all, Reason::ChunkedNotFinal, with_lines(&format!("Transfer-Encoding: {value}")));
    }
    for value in ["gzip, chunked", "identity, chunked", "gzip\r\nTransfer-Encoding: chunked"] {
        head(all, Reason::UnknownTransferCoding, with_lines(&format!("Transfer-Encoding: {value}")));
    }
    for value in ["", "chunked;q=1", "chunked,", "\"chunked\"", "chunked chunked"] {
        head(all, Reason::BadTransferEncoding, with_lines(&format!("Transfer-Encoding: {value}")));
    }
    head(
        all,
        Reason::TransferEncodingInHttp10,
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
    let options = ["x"; 40].join(",");
    head(all, Reason::TooManyConnectionOptions, with_lines(&format!("Connection: {options}")));
}

fn sizes(all: &mut Vec<BadResponse>) {
    let long = "x".repeat(LIMITS.head_size);
    head(all, Reason::LineTooLarge, format!("HTTP/1.1 200 {long}\r\n\r\n"));
    head(all, Reason::HeadTooLarge, format!("HTTP/1.1 200 OK\r\nX: {long}\r\n\r\n"));
    head(all, Reason::TooManyFields, format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(LIMITS.head_fields + 1)));
}

fn contents(all: &mut Vec<BadResponse>) {
    const CHUNKED: &str = "Transfer-Encoding: chunked";
    for content in [
        "\r\n",
        "x\r\nhello",
        "-5\r\nhello",
        "0x5\r\nhello\r\n",
        " 5\r\nhello\r\n",
        "5\0\r\nhello",
        "hello",
        "+5\r\nhello\r\n0\r\n\r\n",
    ] {
        body(all, BodyError::BadChunkSize, CHUNKED, content);
    }
    for content in
        ["8000000000000000\r\nx", "ffffffffffffffff\r\nx", "10000000000000005\r\nhello", "00000000000000005\r\nhello"]
    {
        body(all, BodyError::ChunkTooLarge, CHUNKED, content);
    }
    for content in ["5\nhello\r\n0\r\n\r\n", "5\rhello\r\n0\r\n\r\n", "5;a\nhello\r\n0\r\n\r\n"] {
        body(all, BodyError::BadLineEnd, CHUNKED, content);
    }
    for content in ["5 \r\nhello\r\n", "5;\r\nhello\r\n", "5;a=\r\nhello\r\n", "5;\0\r\nhello\r\n", "5 x\r\nhello"] {
        body(all, BodyError::BadExtension, CHUNKED, content);
    }
    for content in ["5\r\nhello0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "5\r\nhelloworld\r\n", "4\r\nhello\r\n0\r\n\r\n"] {
        body(all, BodyError::NoChunkEnd, CHUNKED, content);
    }
    for content in
        ["", "5", "5\r\n", "5\r\nhell", "5\r\nhello", "5\r\nhello\r\n", "5\r\nhello\r\n0\r\n", "0\r\nX: y\r\n"]
    {
        body(all, BodyError::Truncated, CHUNKED, content);
    }
    body(all, BodyError::BadTrailers(Reason::BareLf), CHUNKED, "0\r\nX: y\n\r\n");
    body(all, BodyError::BadTrailers(Reason::NoColon), CHUNKED, "0\r\nX\r\n\r\n");
    body(all, BodyError::BadTrailers(Reason::ObsFold), CHUNKED, "0\r\nX: y\r\n z\r\n\r\n");
    body(all, BodyError::ForbiddenTrailer, CHUNKED, "0\r\nContent-Length: 5\r\n\r\n");
    body(all, BodyError::ForbiddenTrailer, CHUNKED, "0\r\nTransfer-Encoding: chunked\r\n\r\n");
    body(all, BodyError::TrailersTooLarge, CHUNKED, &format!("0\r\nX: {}\r\n\r\n", "x".repeat(LIMITS.head_size)));
    body(all, BodyError::ExtensionsTooLarge, CHUNKED, &format!("5;{}\r\nhello\r\n", "x".repeat(20_000)));
    body(all, BodyError::Truncated, "Content-Length: 6", "hello");
    body(all, BodyError::Truncated, "Content-Length: 1", "");
}
