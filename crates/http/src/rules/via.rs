//! `Via`: who was on the way (RFC 9110 §7.6.3). Written by [`super::forward`], read here to find loops.

use crate::wire::field::Known;
use crate::wire::h1::RequestHead;
use crate::wire::list;

/// So often may our own pseudonym stand in a request's `Via`. More than none, because several tiers of proxies may
/// share a name; few, because each turn of a loop costs a connection.
pub const OWN_NAME_MAX: usize = 4;
/// The status for a request that goes round in circles.
///
/// RFC 9110 names none. 508 (RFC 5842 §7.2) was made for WebDAV, but says the right thing and puts it on the right side:
/// the client's request was lawful, the way between the servers is wrong.
pub const LOOP_STATUS: u16 = 508;

/// Has the request passed here more than [`OWN_NAME_MAX`] times?
#[inline]
#[must_use]
pub fn is_loop(head: &RequestHead, buf: &[u8], pseudonym: &str) -> bool {
    head.present().has(Known::Via) && times_seen(head, buf, pseudonym) > OWN_NAME_MAX
}

/// How often `pseudonym` stands as `received-by` in `Via`. Commas within comments separate too; that can only add words
/// that are no entries.
#[must_use]
pub fn times_seen(head: &RequestHead, buf: &[u8], pseudonym: &str) -> usize {
    head.find(Known::Via, buf)
        .flat_map(list::elements)
        .filter(|entry| {
            let mut words = entry.split(|&b| b == b' ' || b == b'\t').filter(|word| !word.is_empty());
            words.nth(1).is_some_and(|by| by.eq_ignore_ascii_case(pseudonym.as_bytes()))
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::h1::{Limits, Status};

    fn seen(via: &str) -> (usize, bool) {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{via}\r\n");
        let mut head = RequestHead::new();
        assert_eq!(head.parse(text.as_bytes(), &Limits::default()), Ok(Status::Complete));
        (times_seen(&head, text.as_bytes(), "beltway"), is_loop(&head, text.as_bytes(), "beltway"))
    }

    #[test]
    fn our_name_is_counted_over_all_lines_and_only_as_a_name() {
        assert_eq!(seen(""), (0, false));
        assert_eq!(seen("Via: 1.1 other, 1.0 fred (beltway)\r\n"), (0, false));
        assert_eq!(seen("Via: 1.1 beltway\r\nVia: HTTP/1.1  Beltway (x), 1.1 beltway2\r\n"), (2, false));
        assert_eq!(seen("Via: 1.1 beltway, 1.1 beltway, 1.1 beltway, 1.1 beltway\r\n"), (4, false));
        assert_eq!(seen("Via: 1.1 beltway, 1.1 beltway, 1.1 beltway\r\nVia: 1.1 beltway, 1.1 beltway\r\n"), (5, true));
    }
}
