//! What to do with a request whose head was read.

use crate::remap::{Lookup, Remap};
use crate::rules::forward::{MaxForwards, max_forwards};
use crate::rules::via;
use crate::wire::Method;
use crate::wire::h1::RequestHead;

/// Why a request is refused before any origin is asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// CONNECT, which only a forward proxy answers.
    Tunnel,
    /// The request has been through here too often.
    Loop,
    /// No rule says where it should go.
    NoRule,
    /// The path says one thing and means another.
    DisguisedPath,
    /// The client is not among those who may purge.
    MayNotPurge,
}

impl Refusal {
    /// The status that says it.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            // RFC 9110 §9.3.6: a server that does not recognise CONNECT has no such method.
            Self::Tunnel => 501,
            Self::Loop => via::LOOP_STATUS,
            Self::NoRule => 404,
            Self::DisguisedPath => 400,
            Self::MayNotPurge => 403,
        }
    }

    /// One sentence for the error page.
    #[must_use]
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Tunnel => "this is not a forward proxy, so it opens no tunnels",
            Self::Loop => "the request has been through this proxy before: two proxies forward to each other",
            Self::NoRule => "no rule of this proxy says which origin answers for this address",
            Self::MayNotPurge => "this client may not purge: its address is not in http.allow",
            Self::DisguisedPath => "the path contains dot segments or escapes that change its meaning",
        }
    }

    /// Its name in logs and numbers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tunnel => "refused-connect",
            Self::Loop => "loop",
            Self::NoRule => "no-rule",
            Self::DisguisedPath => "disguised-path",
            Self::MayNotPurge => "refused-purge",
        }
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It goes to an origin of this rule.
    Forward {
        /// Index into the remap table.
        rule: usize,
    },
    /// `OPTIONS` or `TRACE` that may go no further (RFC 9110 §7.6.2): we answer.
    LastHop,
    /// `PURGE`: what is stored for its URL goes.
    Purge,
    /// We refuse.
    Refuse(Refusal),
}

/// Judges a head that parsed. `via` is our own pseudonym, `port` the one the client reached us on.
#[must_use]
pub fn judge(head: &RequestHead, buf: &[u8], remap: &Remap, via: &str, port: u16) -> Verdict {
    match head.method() {
        Method::Connect => return Verdict::Refuse(Refusal::Tunnel),
        Method::Purge => return Verdict::Purge,
        Method::Options | Method::Trace if max_forwards(head, buf) == MaxForwards::AnswerHere => {
            return Verdict::LastHop;
        }
        _ => {}
    }
    if via::is_loop(head, buf, via) {
        return Verdict::Refuse(Refusal::Loop);
    }
    match remap.look_up(head.authority(buf), port, head.path_and_query(buf)) {
        Lookup::Found(rule) => Verdict::Forward { rule },
        Lookup::NotFound => Verdict::Refuse(Refusal::NoRule),
        Lookup::Disguised => Verdict::Refuse(Refusal::DisguisedPath),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remap::{Balance, HostPattern, Origin, RuleSource};
    use crate::wire::h1::{Limits, Status};

    fn verdict(text: &str) -> Verdict {
        let remap = Remap::compile(vec![RuleSource {
            host: Some(HostPattern::Exact("a.example".into())),
            port: None,
            path: "/in/".into(),
            origins: vec![Origin { authority: "127.0.0.1:1".into(), path: "/".into() }],
            balance: Balance::RoundRobin,
        }])
        .unwrap();
        let mut head = RequestHead::new();
        assert_eq!(head.parse(text.as_bytes(), &Limits::default()), Ok(Status::Complete));
        judge(&head, text.as_bytes(), &remap, "beltway", 80)
    }

    #[test]
    fn every_verdict_has_a_request_that_leads_to_it() {
        let via = "Via: 1.1 beltway, 1.1 beltway, 1.1 beltway, 1.1 beltway, 1.1 beltway\r\n";
        for (request, expected) in [
            ("GET /in/x HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(), Verdict::Forward { rule: 0 }),
            ("GET http://A.example/in/x HTTP/1.1\r\nHost: b\r\n\r\n".to_owned(), Verdict::Forward { rule: 0 }),
            ("GET /out HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(), Verdict::Refuse(Refusal::NoRule)),
            ("GET /in/x HTTP/1.1\r\nHost: b\r\n\r\n".to_owned(), Verdict::Refuse(Refusal::NoRule)),
            ("GET /in/../out HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(), Verdict::Refuse(Refusal::DisguisedPath)),
            ("PURGE /anything HTTP/1.1\r\nHost: b\r\n\r\n".to_owned(), Verdict::Purge),
            ("CONNECT b:1 HTTP/1.1\r\nHost: b:1\r\n\r\n".to_owned(), Verdict::Refuse(Refusal::Tunnel)),
            (format!("GET /in/x HTTP/1.1\r\nHost: a.example\r\n{via}\r\n"), Verdict::Refuse(Refusal::Loop)),
            ("OPTIONS * HTTP/1.1\r\nHost: a.example\r\nMax-Forwards: 0\r\n\r\n".to_owned(), Verdict::LastHop),
            ("TRACE /in/x HTTP/1.1\r\nHost: a.example\r\nMax-Forwards: 0\r\n\r\n".to_owned(), Verdict::LastHop),
            (
                "TRACE /in/x HTTP/1.1\r\nHost: a.example\r\nMax-Forwards: 1\r\n\r\n".to_owned(),
                Verdict::Forward { rule: 0 },
            ),
        ] {
            assert_eq!(verdict(&request), expected, "{request}");
        }
    }
}
