//! The answer of a server that has nothing, in the place of one that is ejected and keeps its keys.

use crate::commands;
use crate::plan::Protocol;
use crate::wire::memcached;
use crate::wire::resp::{Request, Scan};

/// What is said when there is nothing under the keys of this request, which is whole. None when it is not one that reads.
pub(crate) fn reply(protocol: Protocol, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut request = Request::default();
    if protocol == Protocol::Memcached {
        let memcached::Scan::Whole(_) = memcached::scan(bytes, request.words()) else { return None };
        let name = request.arguments().first()?;
        let reads = matches!(bytes.get(name.start as usize..name.end as usize)?, b"get" | b"gets");
        return reads.then(|| b"END\r\n".to_vec());
    }
    let Scan::Whole(_) = request.scan(bytes) else { return None };
    let places = request.arguments();
    let argument = |at: usize| {
        let place = places.get(at).cloned().unwrap_or(0..0);
        bytes.get(place.start as usize..place.end as usize).unwrap_or_default()
    };
    let command = commands::of_request(places.len(), argument)?;
    commands::nothing(command, places.len(), argument).filter(|_| command.takes(places.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::resp::request::encode;

    #[test]
    fn what_reads_finds_nothing_and_what_writes_has_no_such_answer() {
        let redis =
            |words: &[&str]| reply(Protocol::Redis, &encode(words)).map(|reply| String::from_utf8(reply).unwrap());
        assert_eq!(redis(&["GET", "a"]).as_deref(), Some("$-1\r\n"));
        assert_eq!(redis(&["mget", "a", "b"]).as_deref(), Some("*2\r\n$-1\r\n$-1\r\n"));
        assert_eq!(redis(&["OBJECT", "ENCODING", "a"]).as_deref(), Some("$-1\r\n"));
        for words in [["SET", "a"], ["GETDEL", "a"], ["DEL", "a"], ["NOTHING", "a"], ["MGET", ""]] {
            let found = redis(&words[..if words[1].is_empty() { 1 } else { 2 }]);
            assert_eq!(found, None, "{words:?}");
        }
        let memcached = |text: &str| reply(Protocol::Memcached, text.as_bytes());
        assert_eq!(memcached("get a b\r\n").as_deref(), Some(b"END\r\n".as_slice()));
        assert!(memcached("gat 1 a\r\n").is_none() && memcached("delete a\r\n").is_none());
    }
}
