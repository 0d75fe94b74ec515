//! A plain HTTP/1.1 client for checks: one request, one connection, every wait bounded.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

use crate::error::{Doing, Outcome, Trouble};

/// Bound of each single wait on the socket.
const PATIENCE: Duration = Duration::from_secs(10);
/// Responses longer than this are not for this client.
const RESPONSE_MAX: usize = 64 << 20;

/// A whole response.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// Status line and field lines, with the empty line that ends them.
    pub(crate) head: Vec<u8>,
    /// The content, transfer coding removed.
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The value of the first field line of that name.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let head = String::from_utf8_lossy(&self.head);
        head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }
}

/// GETs `path` from 127.0.0.1:`port` on a connection of its own, which is closed afterwards.
pub(crate) fn get(port: u16, path: &str, fields: &[(&str, &str)]) -> Outcome<Answer> {
    exchange(&mut connect(port)?, port, path, fields)
}

/// A connection to 127.0.0.1:`port`, whose every wait is bounded.
pub(crate) fn connect(port: u16) -> Outcome<TcpStream> {
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let stream = TcpStream::connect_timeout(&address.into(), PATIENCE).doing(format!("connecting to {address}"))?;
    stream.set_read_timeout(Some(PATIENCE)).doing("setting a timeout")?;
    stream.set_write_timeout(Some(PATIENCE)).doing("setting a timeout")?;
    stream.set_nodelay(true).doing("setting no delay")?;
    Ok(stream)
}

/// One request and its response on an open connection.
pub(crate) fn exchange(stream: &mut TcpStream, port: u16, path: &str, fields: &[(&str, &str)]) -> Outcome<Answer> {
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n");
    for (name, value) in fields {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).doing(format!("asking for {path}"))?;
    let mut bytes = Vec::new();
    let head_length = loop {
        if let Some(length) = head_length(&bytes) {
            break length;
        }
        if read_more(stream, &mut bytes)? == 0 {
            return Err(Trouble::Wrong(format!("{path}: the connection ended in the response's head")));
        }
    };
    let body = bytes.split_off(head_length);
    let mut answer = Answer { status: status_of(&bytes)?, head: bytes, body };
    let chunked = answer.field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
    let length = answer.field("content-length").and_then(|value| value.parse::<usize>().ok());
    loop {
        let complete = match (chunked, length) {
            (true, _) => {
                if let Some(content) = dechunk(&answer.body) {
                    answer.body = content;
                    return Ok(answer);
                }
                false
            }
            (false, Some(length)) => answer.body.len() >= length,
            (false, None) => false,
        };
        if complete {
            return Ok(answer);
        }
        if read_more(stream, &mut answer.body)? == 0 {
            return if chunked || length.is_some() {
                Err(Trouble::Wrong(format!("{path}: the connection ended after {} bytes of body", answer.body.len())))
            } else {
                Ok(answer)
            };
        }
    }
}

/// Where the head ends, if it does.
pub(crate) fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

fn read_more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Outcome<usize> {
    if bytes.len() > RESPONSE_MAX {
        return Err(Trouble::Wrong("the response is too long".to_owned()));
    }
    let mut piece = vec![0; 64 * 1024];
    let count = stream.read(&mut piece).doing("reading a response")?;
    bytes.extend_from_slice(&piece[..count]);
    Ok(count)
}

fn status_of(head: &[u8]) -> Outcome<u16> {
    let line = String::from_utf8_lossy(head);
    let line = line.lines().next().unwrap_or_default();
    line.split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| Trouble::Wrong(format!("not a status line: {line:?}")))
}

/// The content of a complete chunked body; `None` while the last chunk is missing.
fn dechunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let line_end = bytes.windows(2).position(|window| window == b"\r\n")?;
        let line = std::str::from_utf8(&bytes[..line_end]).ok()?;
        let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        bytes = &bytes[line_end + 2..];
        if size == 0 {
            return bytes.windows(2).any(|window| window == b"\r\n").then_some(content);
        }
        content.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunked_body_is_complete_only_with_its_last_chunk() {
        assert_eq!(dechunk(b"3\r\nabc\r\n"), None);
        assert_eq!(dechunk(b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n").unwrap(), b"abc0123456789");
    }

    #[test]
    fn a_field_is_found_whatever_its_case() {
        let head = b"HTTP/1.1 200 OK\r\ncontent-LENGTH:  7 \r\n\r\n".to_vec();
        let answer = Answer { status: 200, head, body: Vec::new() };
        assert_eq!(answer.field("Content-Length").as_deref(), Some("7"));
    }
}
