//! What we say of a request's way through the cache: `Cache-Status` to the client (RFC 9211), result codes in the log.
//!
//! `Cache-Status` is a list, one member for each cache on the way, nearest to the origin first; ours goes into a line of
//! its own behind those that came (RFC 9110 §5.3 joins them).

use crate::rules::sink::{Decimal, HeadSink};
use crate::wire::list;

/// Our name in `Cache-Status`, written as a token or a quoted string once, when it is configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CacheName(Box<[u8]>);

impl CacheName {
    /// From the pseudonym in `Via`. Bytes that no string may hold (RFC 8941 §3.3.3) become `?`.
    #[must_use]
    pub fn new(pseudonym: &str) -> Self {
        let bytes = pseudonym.as_bytes();
        // RFC 8941 §3.3.4: a token starts with a letter or `*`, and may hold `:` and `/` too.
        let is_token = bytes.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'*')
            && bytes.iter().all(|&b| list::is_token_byte(b) || b == b':' || b == b'/');
        if is_token {
            return Self(bytes.into());
        }
        let mut quoted = vec![b'"'];
        for &b in bytes {
            if b == b'"' || b == b'\\' {
                quoted.push(b'\\');
            }
            quoted.push(if b.is_ascii_graphic() || b == b' ' { b } else { b'?' });
        }
        quoted.push(b'"');
        Self(quoted.into())
    }

    /// As it stands in the field.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Why a request went to the origin (`fwd`, RFC 9211 §2.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Forwarded {
    /// The cache was not asked.
    Bypass,
    /// The method cannot be answered by a cache.
    Method,
    /// Nothing is stored for the URL.
    UriMiss,
    /// What is stored for the URL is for other requests.
    VaryMiss,
    /// The request does not take what is stored and fresh.
    Request,
    /// What is stored is stale, or must be validated.
    Stale,
    /// A part of it is not stored.
    Partial,
}

impl Forwarded {
    /// The value of `fwd`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// How the request was handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handling {
    /// Answered from the cache, without asking the origin.
    Hit,
    /// Went to the origin.
    Forwarded {
        /// Why.
        why: Forwarded,
        /// What the origin said, where that is not the status the client gets: 304 when it confirmed what is stored, 503
        /// when something stale stood in for it.
        fwd_status: Option<u16>,
        /// The response was stored.
        stored: bool,
        /// Another request's response served this one too.
        collapsed: bool,
    },
    /// Answered by ourselves, without origin or stored response (`only-if-cached`).
    Neither,
}

/// Our member of `Cache-Status`.
#[derive(Clone, Copy, Debug)]
pub struct CacheStatus<'a> {
    /// Who speaks.
    pub name: &'a CacheName,
    /// What was done.
    pub handling: Handling,
    /// Seconds of freshness left; negative when stale.
    pub ttl_s: Option<i64>,
    /// A token that says more, such as [`super::Reason::name`].
    pub detail: Option<&'static str>,
}

impl<'a> CacheStatus<'a> {
    /// A hit with so many seconds left.
    #[inline]
    #[must_use]
    pub const fn hit(name: &'a CacheName, ttl_s: i64) -> Self {
        Self { name, handling: Handling::Hit, ttl_s: Some(ttl_s), detail: None }
    }

    /// A request that went to the origin; change the rest in place.
    #[must_use]
    pub const fn forwarded(name: &'a CacheName, why: Forwarded) -> Self {
        let handling = Handling::Forwarded { why, fwd_status: None, stored: false, collapsed: false };
        Self { name, handling, ttl_s: None, detail: None }
    }

    /// Writes the member, without the field's name.
    #[inline]
    pub fn put(&self, sink: &mut impl HeadSink) {
        sink.put(self.name.as_bytes());
        match self.handling {
            Handling::Hit => sink.put(b"; hit"),
            Handling::Forwarded { why, fwd_status, stored, collapsed } => {
                sink.put(b"; fwd=");
                sink.put(why.name().as_bytes());
                if let Some(status) = fwd_status {
                    sink.put(b"; fwd-status=");
                    sink.put(Decimal::new(u64::from(status)).as_bytes());
                }
                if stored {
                    sink.put(b"; stored");
                }
                if collapsed {
                    sink.put(b"; collapsed");
                }
            }
            Handling::Neither => {}
        }
        if let Some(ttl_s) = self.ttl_s {
            sink.put(if ttl_s < 0 { b"; ttl=-" } else { b"; ttl=" });
            // RFC 8941 §3.3.1: integers have at most fifteen digits.
            sink.put(Decimal::new(ttl_s.unsigned_abs().min(999_999_999_999_999)).as_bytes());
        }
        if let Some(detail) = self.detail {
            sink.put(b"; detail=");
            sink.put(detail.as_bytes());
        }
    }

    /// Writes the whole line.
    pub fn put_line(&self, sink: &mut impl HeadSink) {
        sink.put(b"Cache-Status: ");
        self.put(sink);
        sink.put(b"\r\n");
    }
}

macro_rules! result_codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What a transaction came to, in the words of Squid's log, which log analysers know.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum ResultCode {
            $($(#[$doc])* $variant,)*
        }

        impl ResultCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As the log says it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

result_codes! {
    /// Fresh, from disk.
    Hit = "TCP_HIT",
    /// Fresh, from memory.
    MemHit = "TCP_MEM_HIT",
    /// The client's copy is good: 304 from a stored response, without asking.
    ImsHit = "TCP_IMS_HIT",
    /// Stale, and served so: `max-stale`, or while it is being revalidated.
    StaleHit = "TCP_STALE_HIT",
    /// Served with the response that another request was waiting for.
    CollapsedHit = "TCP_CF_HIT",
    /// Not there, or not for this request: from the origin.
    Miss = "TCP_MISS",
    /// Stale, and the origin confirmed it.
    RefreshUnmodified = "TCP_REFRESH_UNMODIFIED",
    /// Stale, and the origin sent a new one.
    RefreshModified = "TCP_REFRESH_MODIFIED",
    /// Stale, the origin failed, and the stale one was served.
    RefreshFailOld = "TCP_REFRESH_FAIL_OLD",
    /// Stale, the origin failed, and its failure was served.
    RefreshFailErr = "TCP_REFRESH_FAIL_ERR",
    /// There, but the client wanted it from the origin.
    ClientRefreshMiss = "TCP_CLIENT_REFRESH_MISS",
    /// The client wanted it from the cache only, and it was not there.
    OnlyIfCachedMiss = "TCP_OFFLINE_MISS",
    /// Refused by access rules.
    Denied = "TCP_DENIED",
    /// No request to speak of.
    None = "NONE",
}

impl ResultCode {
    /// The code of a request that the origin answered: why it went there, and the status the origin gave (`None` when
    /// it gave none). `served_stale`: something stored stood in for a failure.
    #[must_use]
    pub const fn of_forwarded(why: Forwarded, origin_status: Option<u16>, served_stale: bool) -> Self {
        match (why, origin_status) {
            _ if served_stale => Self::RefreshFailOld,
            (Forwarded::Stale | Forwarded::Request, Some(304)) => Self::RefreshUnmodified,
            (Forwarded::Request, _) => Self::ClientRefreshMiss,
            (Forwarded::Stale, None | Some(500..=599)) => Self::RefreshFailErr,
            (Forwarded::Stale, Some(_)) => Self::RefreshModified,
            _ => Self::Miss,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(status: &CacheStatus<'_>) -> String {
        let mut out = Vec::new();
        status.put(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_examples_of_the_standard_can_be_said() {
        // RFC 9211 §3, with our name
        let name = CacheName::new("ExampleCache");
        let forwarded = |why, fwd_status, stored, collapsed| CacheStatus {
            handling: Handling::Forwarded { why, fwd_status, stored, collapsed },
            ..CacheStatus::forwarded(&name, why)
        };
        for (status, expected) in [
            (CacheStatus { ttl_s: None, ..CacheStatus::hit(&name, 0) }, "ExampleCache; hit"),
            (CacheStatus::hit(&name, 376), "ExampleCache; hit; ttl=376"),
            (CacheStatus::hit(&name, 0), "ExampleCache; hit; ttl=0"),
            (CacheStatus::hit(&name, -412), "ExampleCache; hit; ttl=-412"),
            (CacheStatus::hit(&name, i64::MIN), "ExampleCache; hit; ttl=-999999999999999"),
            (CacheStatus::forwarded(&name, Forwarded::UriMiss), "ExampleCache; fwd=uri-miss"),
            (forwarded(Forwarded::UriMiss, None, true, false), "ExampleCache; fwd=uri-miss; stored"),
            (forwarded(Forwarded::VaryMiss, None, true, false), "ExampleCache; fwd=vary-miss; stored"),
            (forwarded(Forwarded::UriMiss, None, false, true), "ExampleCache; fwd=uri-miss; collapsed"),
            (forwarded(Forwarded::Stale, Some(304), false, false), "ExampleCache; fwd=stale; fwd-status=304"),
            (
                CacheStatus { detail: Some("no-store"), ..forwarded(Forwarded::Stale, Some(304), true, true) },
                "ExampleCache; fwd=stale; fwd-status=304; stored; collapsed; detail=no-store",
            ),
            (CacheStatus::forwarded(&name, Forwarded::Request), "ExampleCache; fwd=request"),
            (
                CacheStatus { handling: Handling::Neither, ttl_s: None, detail: Some("only-if-cached"), name: &name },
                "ExampleCache; detail=only-if-cached",
            ),
        ] {
            assert_eq!(member(&status), expected);
        }
        let mut out = Vec::new();
        CacheStatus::hit(&name, 1).put_line(&mut out);
        assert_eq!(out, b"Cache-Status: ExampleCache; hit; ttl=1\r\n");
    }

    #[test]
    fn a_name_is_a_token_or_is_quoted() {
        for (name, expected) in [
            ("beltway", "beltway"),
            ("edge1.example:8080", "edge1.example:8080"),
            ("1edge", "\"1edge\""),
            ("my cache", "\"my cache\""),
            ("a\"b\\c", "\"a\\\"b\\\\c\""),
            ("\u{fc}", "\"??\""),
            ("", "\"\""),
        ] {
            assert_eq!(CacheName::new(name).as_bytes(), expected.as_bytes());
        }
    }

    #[test]
    fn result_codes_say_what_became_of_a_revalidation() {
        use Forwarded::{Bypass, Method, Request, Stale, UriMiss, VaryMiss};
        for (why, status, served_stale, expected) in [
            (UriMiss, Some(200), false, "TCP_MISS"),
            (VaryMiss, Some(200), false, "TCP_MISS"),
            (UriMiss, None, false, "TCP_MISS"),
            (UriMiss, Some(304), false, "TCP_MISS"),
            (Bypass, Some(200), false, "TCP_MISS"),
            (Method, Some(200), false, "TCP_MISS"),
            (Stale, Some(304), false, "TCP_REFRESH_UNMODIFIED"),
            (Stale, Some(200), false, "TCP_REFRESH_MODIFIED"),
            (Stale, Some(404), false, "TCP_REFRESH_MODIFIED"),
            (Stale, Some(503), true, "TCP_REFRESH_FAIL_OLD"),
            (Stale, None, true, "TCP_REFRESH_FAIL_OLD"),
            (Stale, Some(503), false, "TCP_REFRESH_FAIL_ERR"),
            (Stale, None, false, "TCP_REFRESH_FAIL_ERR"),
            (Request, Some(200), false, "TCP_CLIENT_REFRESH_MISS"),
            (Request, Some(304), false, "TCP_REFRESH_UNMODIFIED"),
        ] {
            assert_eq!(ResultCode::of_forwarded(why, status, served_stale).name(), expected, "{why:?} {status:?}");
        }
        assert!(ResultCode::ALL.iter().all(|code| code.name().starts_with("TCP_") || *code == ResultCode::None));
    }
}
