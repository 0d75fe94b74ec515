//! The access log's lines: one finished transaction in, one line out. Pure: no clock, no file.
//!
//! Whatever bytes a client sends, it gets no line feed, quote or terminal escape into the log: each format escapes in
//! its own way what it cannot hold, and cuts a field that is too long, visibly. The line feed itself is added by
//! `event::log`, which also writes the line.
//!
//! Read [`Record`] first, then [`Formatter::append`].

mod escape;

use std::fmt;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base::WallTime;
use event::log::{Civil, append_number, append_padded};

use self::escape::{JSON, QUOTED, URL, append_escaped};

/// Bytes a URL may take in a line.
const URL_MAX: usize = 4096;
/// Bytes a field value may take in a line.
const VALUE_MAX: usize = 1024;
/// Bytes a method may take in a line.
const METHOD_MAX: usize = 64;

/// How lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// Squid's native format: `time.ms elapsed client result/status bytes method URL - hierarchy/origin type`.
    #[default]
    Squid,
    /// NCSA common log format, as httpd writes it.
    Common,
    /// Common, and referrer and user agent behind it.
    Combined,
    /// One JSON object with every field there is.
    Json,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::Squid, Self::Common, Self::Combined, Self::Json];

    /// As the configuration names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Squid => "squid",
            Self::Common => "common",
            Self::Combined => "combined",
            Self::Json => "json",
        }
    }

    /// The format of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == name)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is known of a transaction when it is over. Bytes are those on the wire, neither checked nor decoded.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When it was over.
    pub time: WallTime,
    /// From the first byte of the request to the last of the response.
    pub elapsed: Duration,
    /// Who asked.
    pub client: SocketAddr,
    /// The method; empty when the request could not be read.
    pub method: &'a [u8],
    /// What was asked for.
    pub url: Url<'a>,
    /// The client's protocol: `HTTP/1.1`.
    pub version: &'static str,
    /// The status sent; 0 when none was.
    pub status: u16,
    /// All bytes sent to the client, heads included.
    pub bytes_sent: u64,
    /// All bytes received from the client, heads included.
    pub bytes_received: u64,
    /// What the cache said, in Squid's words: `TCP_MISS`.
    pub result: &'static str,
    /// How the origin was chosen, in Squid's words: `DIRECT`, `NONE`.
    pub hierarchy: &'static str,
    /// Who answered, if anybody was asked.
    pub origin: Option<SocketAddr>,
    /// The connection to the origin had served before.
    pub origin_reused: bool,
    /// The response's `Content-Type`; empty when there is none.
    pub content_type: &'a [u8],
    /// The request's `Referer`; empty when there is none.
    pub referer: &'a [u8],
    /// The request's `User-Agent`; empty when there is none.
    pub user_agent: &'a [u8],
    /// Why it did not end well, as a name that can be counted.
    pub error: Option<&'static str>,
}

/// What was asked for, in the parts it came in, so that nobody has to put them together before.
#[derive(Clone, Copy, Debug)]
pub struct Url<'a> {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The `Host` field, or the target's own authority.
    pub authority: &'a [u8],
    /// The request target as sent. One that does not begin with a slash stands for itself (absolute and authority
    /// form, the asterisk).
    pub target: &'a [u8],
}

/// Writes records as lines. One per thread: it keeps the text of the current second.
#[derive(Clone, Debug)]
pub struct Formatter {
    format: Format,
    /// The second whose text is in `stamp`; none yet at first.
    second: Option<i64>,
    stamp: Vec<u8>,
}

impl Formatter {
    /// Writes lines of that format.
    #[must_use]
    pub const fn new(format: Format) -> Self {
        Self { format, second: None, stamp: Vec::new() }
    }

    /// The format it writes.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Appends the record's line, without a line feed, to `line`. At most some 11 KiB.
    pub fn append(&mut self, record: &Record<'_>, line: &mut Vec<u8>) {
        match self.format {
            Format::Squid => squid(record, line),
            Format::Common => self.common(record, line),
            Format::Combined => {
                self.common(record, line);
                line.extend_from_slice(b" \"");
                dash_if_empty(line, |line| append_escaped(line, record.referer, &QUOTED, VALUE_MAX));
                line.extend_from_slice(b"\" \"");
                dash_if_empty(line, |line| append_escaped(line, record.user_agent, &QUOTED, VALUE_MAX));
                line.push(b'"');
            }
            Format::Json => self.json(record, line),
        }
    }

    /// `client - - [22/Nov/2026:00:11:22 +0000] "GET /path HTTP/1.1" 200 1234`
    fn common(&mut self, record: &Record<'_>, line: &mut Vec<u8>) {
        append_ip(line, record.client.ip());
        line.extend_from_slice(b" - - [");
        line.extend_from_slice(self.stamp(record.time, |civil, stamp| {
            const MONTHS: [&[u8; 3]; 12] =
                [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
            append_padded(stamp, civil.day.unsigned_abs(), 2);
            stamp.push(b'/');
            let month = usize::try_from(civil.month - 1).ok().and_then(|month| MONTHS.get(month));
            stamp.extend_from_slice(month.map_or(b"???", |name| *name));
            stamp.push(b'/');
            append_padded(stamp, civil.year.unsigned_abs(), 4);
            for part in [civil.hour, civil.minute, civil.second] {
                stamp.push(b':');
                append_padded(stamp, part.unsigned_abs(), 2);
            }
            stamp.extend_from_slice(b" +0000");
        }));
        line.extend_from_slice(b"] \"");
        dash_if_empty(line, |line| append_escaped(line, record.method, &QUOTED, METHOD_MAX));
        line.push(b' ');
        dash_if_empty(line, |line| append_escaped(line, record.url.target, &QUOTED, URL_MAX));
        line.push(b' ');
        line.extend_from_slice(record.version.as_bytes());
        line.extend_from_slice(b"\" ");
        append_padded(line, record.status.into(), 3);
        line.push(b' ');
        append_number(line, record.bytes_sent);
    }

    fn json(&mut self, record: &Record<'_>, line: &mut Vec<u8>) {
        line.extend_from_slice(b"{\"time\":\"");
        line.extend_from_slice(self.stamp(record.time, |_, stamp| {
            Civil::append_rfc3339(WallTime::from_secs(record.time.as_secs()), stamp);
            // Up to the second: milliseconds are each line's own.
            stamp.truncate(stamp.len() - b".000Z".len());
        }));
        line.push(b'.');
        append_padded(line, record.time.subsec_millis().unsigned_abs(), 3);
        line.extend_from_slice(b"Z\",\"elapsed_us\":");
        let subsec_us = u64::from(record.elapsed.subsec_micros());
        append_number(line, record.elapsed.as_secs().saturating_mul(1_000_000).saturating_add(subsec_us));
        line.extend_from_slice(b",\"client\":\"");
        append_address(line, record.client);
        line.extend_from_slice(b"\",\"method\":\"");
        append_escaped(line, record.method, &JSON, METHOD_MAX);
        line.extend_from_slice(b"\",\"url\":\"");
        append_url(line, &record.url, &JSON);
        line.extend_from_slice(b"\",\"version\":\"");
        line.extend_from_slice(record.version.as_bytes());
        line.extend_from_slice(b"\",\"status\":");
        append_number(line, record.status.into());
        line.extend_from_slice(b",\"result\":\"");
        line.extend_from_slice(record.result.as_bytes());
        line.extend_from_slice(b"\",\"bytes_sent\":");
        append_number(line, record.bytes_sent);
        line.extend_from_slice(b",\"bytes_received\":");
        append_number(line, record.bytes_received);
        line.extend_from_slice(b",\"hierarchy\":\"");
        line.extend_from_slice(record.hierarchy.as_bytes());
        line.push(b'"');
        if let Some(origin) = record.origin {
            line.extend_from_slice(b",\"origin\":\"");
            append_address(line, origin);
            line.extend_from_slice(if record.origin_reused {
                b"\",\"origin_reused\":true"
            } else {
                b"\",\"origin_reused\":false"
            });
        }
        for (key, value) in [
            (&b",\"content_type\":\""[..], record.content_type),
            (b",\"referer\":\"", record.referer),
            (b",\"user_agent\":\"", record.user_agent),
            (b",\"error\":\"", record.error.unwrap_or("").as_bytes()),
        ] {
            if !value.is_empty() {
                line.extend_from_slice(key);
                append_escaped(line, value, &JSON, VALUE_MAX);
                line.push(b'"');
            }
        }
        line.push(b'}');
    }

    /// The text of the second of `time`, composed once per second.
    fn stamp(&mut self, time: WallTime, compose: impl FnOnce(Civil, &mut Vec<u8>)) -> &[u8] {
        let second = time.as_secs();
        if self.second != Some(second) {
            self.second = Some(second);
            self.stamp.clear();
            compose(Civil::of(second), &mut self.stamp);
        }
        &self.stamp
    }
}

/// `1795305082.123     17 127.0.0.1 TCP_MISS/200 1234 GET http://host/path - DIRECT/10.0.0.5 text/html`
fn squid(record: &Record<'_>, line: &mut Vec<u8>) {
    append_number(line, record.time.as_secs().max(0).unsigned_abs());
    line.push(b'.');
    append_padded(line, record.time.subsec_millis().unsigned_abs(), 3);
    line.push(b' ');
    let elapsed_ms =
        record.elapsed.as_secs().saturating_mul(1_000).saturating_add(record.elapsed.subsec_millis().into());
    // Squid sets the elapsed time right in six columns.
    for column in [100_000, 10_000, 1_000, 100, 10] {
        if elapsed_ms < column {
            line.push(b' ');
        }
    }
    append_number(line, elapsed_ms);
    line.push(b' ');
    append_ip(line, record.client.ip());
    line.push(b' ');
    line.extend_from_slice(record.result.as_bytes());
    line.push(b'/');
    append_padded(line, record.status.into(), 3);
    line.push(b' ');
    append_number(line, record.bytes_sent);
    line.push(b' ');
    dash_if_empty(line, |line| append_escaped(line, record.method, &URL, METHOD_MAX));
    line.push(b' ');
    dash_if_empty(line, |line| append_url(line, &record.url, &URL));
    line.extend_from_slice(b" - ");
    line.extend_from_slice(record.hierarchy.as_bytes());
    line.push(b'/');
    match record.origin {
        Some(origin) => append_ip(line, origin.ip()),
        None => line.push(b'-'),
    }
    line.push(b' ');
    // Up to its parameters, as Squid does: they may hold blanks.
    let media_type = record.content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    dash_if_empty(line, |line| append_escaped(line, media_type, &URL, VALUE_MAX));
}

fn append_url(line: &mut Vec<u8>, url: &Url<'_>, escapes: &escape::Escapes) {
    if url.target.first() == Some(&b'/') && !url.authority.is_empty() {
        line.extend_from_slice(url.scheme.as_bytes());
        line.extend_from_slice(b"://");
        append_escaped(line, url.authority, escapes, VALUE_MAX);
    }
    append_escaped(line, url.target, escapes, URL_MAX);
}

/// A dash in place of nothing.
fn dash_if_empty(line: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let before = line.len();
    write(line);
    if line.len() == before {
        line.push(b'-');
    }
}

fn append_address(line: &mut Vec<u8>, address: SocketAddr) {
    let ip = address.ip().to_canonical();
    if ip.is_ipv6() {
        line.push(b'[');
    }
    append_ip(line, ip);
    if ip.is_ipv6() {
        line.push(b']');
    }
    line.push(b':');
    append_number(line, address.port().into());
}

/// The address; one of IPv4 that came in IPv6's dress without it.
fn append_ip(line: &mut Vec<u8>, ip: IpAddr) {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            for (at, octet) in v4.octets().into_iter().enumerate() {
                if at > 0 {
                    line.push(b'.');
                }
                append_number(line, octet.into());
            }
        }
        IpAddr::V6(v6) => {
            // Writing to a Vec cannot fail.
            let _ = write!(line, "{v6}");
        }
    }
}

#[cfg(test)]
mod tests;
