//! `Cache-Control` of requests and responses (RFC 9111 §5.2, RFC 5861), and `Pragma` (§5.4).
//!
//! Several lines count as one list. Of a directive that comes twice, the first counts (§4.2.1). An argument that cannot
//! be read is taken in the way that lets the cache do least: a lifetime of zero, no permission to serve stale. A number
//! beyond [`DELTA_MAX`] is [`DELTA_MAX`] (§1.2.2). Unknown directives are passed over (§5.2.3).
//!
//! Read [`RequestControl::of`] and [`ResponseControl::of`].

use crate::wire::field::{FieldSet, Known};
use crate::wire::h1::{RequestHead, ResponseHead};
use crate::wire::list;

/// The largest number of seconds there is (RFC 9111 §1.2.2): 68 years.
pub const DELTA_MAX: u32 = 1 << 31;
/// In a longer `Cache-Control`, `private="…"` and `no-cache="…"` count for the whole response: each stored field is looked
/// up in the list, and a hostile origin should not get much work done that way.
pub const QUALIFIED_LEN_MAX: usize = 2_048;

/// What a request wants of caches. The default wants nothing.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RequestControl {
    /// `no-cache`, or `Pragma: no-cache` where there is no `Cache-Control`.
    pub no_cache: bool,
    /// `no-store`
    pub no_store: bool,
    /// `only-if-cached`
    pub only_if_cached: bool,
    /// `max-age`: no older than this.
    pub max_age: Option<u32>,
    /// `min-fresh`: fresh for at least so long from now.
    pub min_fresh: Option<u32>,
    /// `max-stale`: may be stale for so long; [`DELTA_MAX`] when no limit was named.
    pub max_stale: Option<u32>,
    /// `stale-if-error` (RFC 5861 §4)
    pub stale_if_error: Option<u32>,
}

impl RequestControl {
    /// What this request says. One bit test when it says nothing.
    #[inline]
    #[must_use]
    pub fn of(head: &RequestHead, buf: &[u8]) -> Self {
        const SPEAK: FieldSet = FieldSet::of(&[Known::CacheControl, Known::Pragma]);
        if head.present().meets(SPEAK) { Self::read(head, buf) } else { Self::default() }
    }

    fn read(head: &RequestHead, buf: &[u8]) -> Self {
        let mut control = Self::default();
        if !head.present().has(Known::CacheControl) {
            let mut pragmas = head.find(Known::Pragma, buf).flat_map(directives);
            control.no_cache = pragmas.any(|d| d.is("no-cache"));
            return control;
        }
        for directive in head.find(Known::CacheControl, buf).flat_map(directives) {
            let Directive { name, argument } = directive;
            let first = |slot: &mut Option<u32>, unreadable: Option<u32>| {
                if slot.is_none() {
                    *slot = argument.delta().or(unreadable);
                }
            };
            match Request::named(name) {
                Some(Request::NoCache) => control.no_cache = true,
                Some(Request::NoStore) => control.no_store = true,
                Some(Request::OnlyIfCached) => control.only_if_cached = true,
                Some(Request::MaxAge) => first(&mut control.max_age, Some(0)),
                Some(Request::MinFresh) => first(&mut control.min_fresh, Some(DELTA_MAX)),
                Some(Request::MaxStale) if argument == Argument::None => {
                    control.max_stale = control.max_stale.or(Some(DELTA_MAX));
                }
                Some(Request::MaxStale) => first(&mut control.max_stale, Some(0)),
                Some(Request::StaleIfError) => first(&mut control.stale_if_error, Some(0)),
                None => {}
            }
        }
        control
    }
}

/// What a response allows and forbids caches. The default says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ResponseControl {
    /// `public`
    pub public: bool,
    /// `private` without field names
    pub private: bool,
    /// `no-cache` without field names
    pub no_cache: bool,
    /// `private="…"` or `no-cache="…"`: the fields for which [`withholds`] is true are not stored.
    pub withholds_fields: bool,
    /// `no-store`
    pub no_store: bool,
    /// `must-revalidate`
    pub must_revalidate: bool,
    /// `proxy-revalidate`
    pub proxy_revalidate: bool,
    /// `must-understand`
    pub must_understand: bool,
    /// `max-age`
    pub max_age: Option<u32>,
    /// `s-maxage`
    pub s_maxage: Option<u32>,
    /// `stale-while-revalidate` (RFC 5861 §3)
    pub stale_while_revalidate: Option<u32>,
    /// `stale-if-error` (RFC 5861 §4)
    pub stale_if_error: Option<u32>,
}

impl ResponseControl {
    /// What this response says. `Pragma` has no meaning in responses.
    #[must_use]
    pub fn of(head: &ResponseHead, buf: &[u8]) -> Self {
        let mut control = Self::default();
        let is_short = head.find(Known::CacheControl, buf).map(<[u8]>::len).sum::<usize>() <= QUALIFIED_LEN_MAX;
        for directive in head.find(Known::CacheControl, buf).flat_map(directives) {
            let Directive { name, argument } = directive;
            let first = |slot: &mut Option<u32>| {
                if slot.is_none() {
                    *slot = argument.delta().or(Some(0));
                }
            };
            match Response::named(name) {
                Some(Response::Public) => control.public = true,
                Some(Response::Private) if is_short && argument.names_fields() => control.withholds_fields = true,
                Some(Response::Private) => control.private = true,
                Some(Response::NoCache) if is_short && argument.names_fields() => control.withholds_fields = true,
                Some(Response::NoCache) => control.no_cache = true,
                Some(Response::NoStore) => control.no_store = true,
                Some(Response::MustRevalidate) => control.must_revalidate = true,
                Some(Response::ProxyRevalidate) => control.proxy_revalidate = true,
                Some(Response::MustUnderstand) => control.must_understand = true,
                Some(Response::MaxAge) => first(&mut control.max_age),
                Some(Response::SMaxage) => first(&mut control.s_maxage),
                Some(Response::StaleWhileRevalidate) => first(&mut control.stale_while_revalidate),
                Some(Response::StaleIfError) => first(&mut control.stale_if_error),
                None => {}
            }
        }
        control
    }
}

/// Does the response's `private="…"` or `no-cache="…"` name this field?
///
/// Neither is then stored: what is private to one user may not be (RFC 9111 §5.2.2.7), and what may not be used
/// without validation (§5.2.2.4) is not missed, because validation brings it again.
#[must_use]
pub fn withholds(head: &ResponseHead, buf: &[u8], name: &[u8]) -> bool {
    head.find(Known::CacheControl, buf).flat_map(directives).any(|directive| {
        matches!(Response::named(directive.name), Some(Response::Private | Response::NoCache))
            && directive.argument.field_names().any(|field| field.eq_ignore_ascii_case(name))
    })
}

/// `1*DIGIT` as seconds, cut to [`DELTA_MAX`]; `None` for everything else.
#[must_use]
pub fn delta_seconds(text: &[u8]) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u32, |n, b| {
        b.is_ascii_digit().then(|| n.saturating_mul(10).saturating_add(u32::from(b - b'0')).min(DELTA_MAX))
    })
}

macro_rules! directive_names {
    ($(#[$doc:meta])* $kind:ident { $($variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        enum $kind { $($variant,)* }

        impl $kind {
            fn named(name: &[u8]) -> Option<Self> {
                $(if name.eq_ignore_ascii_case($name) { return Some(Self::$variant); })*
                None
            }
        }
    };
}

directive_names! {
    /// The directives of requests that a shared cache acts on. `no-transform` is not here: we transform nothing.
    Request {
        NoCache = b"no-cache",
        NoStore = b"no-store",
        OnlyIfCached = b"only-if-cached",
        MaxAge = b"max-age",
        MinFresh = b"min-fresh",
        MaxStale = b"max-stale",
        StaleIfError = b"stale-if-error",
    }
}

directive_names! {
    /// The directives of responses that a shared cache acts on. `immutable` (RFC 8246) is for user agents.
    Response {
        MaxAge = b"max-age",
        SMaxage = b"s-maxage",
        Public = b"public",
        Private = b"private",
        NoCache = b"no-cache",
        NoStore = b"no-store",
        MustRevalidate = b"must-revalidate",
        ProxyRevalidate = b"proxy-revalidate",
        MustUnderstand = b"must-understand",
        StaleWhileRevalidate = b"stale-while-revalidate",
        StaleIfError = b"stale-if-error",
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Directive<'a> {
    name: &'a [u8],
    argument: Argument<'a>,
}

impl<'a> Directive<'a> {
    /// Whitespace around `=` is not in the grammar. The name is understood all the same; the argument is then one that
    /// nobody can read.
    fn of(element: &'a [u8]) -> Self {
        let Some(at) = memchr::memchr(b'=', element) else { return Self { name: element, argument: Argument::None } };
        let (name, text) = (&element[..at], &element[at + 1..]);
        let argument = match text {
            _ if name.ends_with(b" ") || name.ends_with(b"\t") => Argument::Token(b""),
            [b'"', inner @ .., b'"'] => Argument::Quoted(inner),
            _ => Argument::Token(text),
        };
        Self { name: name.trim_ascii_end(), argument }
    }

    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Argument<'a> {
    None,
    /// Also what is neither token nor quoted string.
    Token(&'a [u8]),
    /// Without the quotes.
    Quoted(&'a [u8]),
}

impl<'a> Argument<'a> {
    /// Both forms are read, as §5.2 asks.
    fn delta(self) -> Option<u32> {
        match self {
            Self::None => None,
            Self::Token(text) | Self::Quoted(text) => delta_seconds(text),
        }
    }

    /// Only the quoted form can limit `private` and `no-cache` to some fields (§5.2.2.4); anything else is the whole
    /// response, which is the stricter reading.
    fn names_fields(self) -> bool {
        self.field_names().next().is_some()
            && matches!(self, Self::Quoted(text) if list::elements(text).all(list::is_token))
    }

    fn field_names(self) -> impl Iterator<Item = &'a [u8]> {
        let text: &[u8] = if let Self::Quoted(text) = self { text } else { b"" };
        list::elements(text)
    }
}

/// The directives of one field value.
fn directives(value: &[u8]) -> Directives<'_> {
    Directives { rest: value, quotes: true }
}

struct Directives<'a> {
    rest: &'a [u8],
    /// Quotes have meaning; false behind one that is never closed, so that what follows is still seen, and seen once.
    quotes: bool,
}

impl<'a> Iterator for Directives<'a> {
    type Item = Directive<'a>;

    fn next(&mut self) -> Option<Directive<'a>> {
        while !self.rest.is_empty() {
            let end = self.element_end();
            let element = self.rest[..end].trim_ascii();
            self.rest = self.rest.get(end + 1..).unwrap_or_default();
            if !element.is_empty() {
                return Some(Directive::of(element));
            }
        }
        None
    }
}

impl Directives<'_> {
    /// The place of the next comma that is not within quotes, or the end.
    fn element_end(&mut self) -> usize {
        let comma = memchr::memchr(b',', self.rest).unwrap_or(self.rest.len());
        if !self.quotes || memchr::memchr(b'"', &self.rest[..comma]).is_none() {
            return comma;
        }
        let (mut quoted, mut escaped) = (false, false);
        for (at, &b) in self.rest.iter().enumerate() {
            match b {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b',' if !quoted => return at,
                _ => {}
            }
        }
        if quoted {
            self.quotes = false;
            return comma;
        }
        self.rest.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rules::caching::tests::{request, response};

    fn asked(lines: &str) -> RequestControl {
        let (head, text) = request(lines);
        RequestControl::of(&head, &text)
    }

    fn said(lines: &str) -> ResponseControl {
        let (head, text) = response(200, lines);
        ResponseControl::of(&head, &text)
    }

    #[test]
    fn directives_of_requests_are_read_wherever_they_stand() {
        let nothing = RequestControl::default();
        let max_age = |n| RequestControl { max_age: Some(n), ..nothing };
        for (lines, expected) in [
            ("", nothing),
            ("Cache-Control:\r\n", nothing),
            ("Cache-Control: ,, ,\r\n", nothing),
            ("Cache-Control: max-age=0\r\n", max_age(0)),
            ("Cache-Control: MAX-Age=5\r\n", max_age(5)),
            ("Cache-Control: max-age=\"5\"\r\n", max_age(5)),
            ("Cache-Control: max-age=5, max-age=7\r\n", max_age(5)),
            ("Cache-Control: max-age=5\r\nCache-Control: max-age=3\r\n", max_age(5)),
            ("Cache-Control: max-age=x\r\n", max_age(0)),
            ("Cache-Control: max-age\r\n", max_age(0)),
            ("Cache-Control: max-age=-1\r\n", max_age(0)),
            ("Cache-Control: max-age=99999999999999999999999\r\n", max_age(DELTA_MAX)),
            ("Cache-Control: x=\"max-age=9, no-cache\", foo, max-age=1\r\n", max_age(1)),
            ("Cache-Control: no-cache\r\n", RequestControl { no_cache: true, ..nothing }),
            ("Pragma: no-cache\r\n", RequestControl { no_cache: true, ..nothing }),
            ("Pragma: x, No-Cache\r\n", RequestControl { no_cache: true, ..nothing }),
            // §5.4: not when there is a Cache-Control.
            ("Pragma: no-cache\r\nCache-Control: max-age=3\r\n", max_age(3)),
            ("Cache-Control: no-store\r\n", RequestControl { no_store: true, ..nothing }),
            ("Cache-Control: only-if-cached\r\n", RequestControl { only_if_cached: true, ..nothing }),
            ("Cache-Control: max-stale\r\n", RequestControl { max_stale: Some(DELTA_MAX), ..nothing }),
            ("Cache-Control: max-stale=9\r\n", RequestControl { max_stale: Some(9), ..nothing }),
            ("Cache-Control: max-stale=x\r\n", RequestControl { max_stale: Some(0), ..nothing }),
            ("Cache-Control: min-fresh=9\r\n", RequestControl { min_fresh: Some(9), ..nothing }),
            ("Cache-Control: min-fresh=x\r\n", RequestControl { min_fresh: Some(DELTA_MAX), ..nothing }),
            ("Cache-Control: stale-if-error=60\r\n", RequestControl { stale_if_error: Some(60), ..nothing }),
        ] {
            assert_eq!(asked(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn directives_of_responses_are_read_and_what_cannot_be_read_counts_as_stale() {
        let nothing = ResponseControl::default();
        let max_age = |n| ResponseControl { max_age: Some(n), ..nothing };
        for (value, expected) in [
            ("public", ResponseControl { public: true, ..nothing }),
            ("Public , PRIVATE", ResponseControl { public: true, private: true, ..nothing }),
            ("no-store", ResponseControl { no_store: true, ..nothing }),
            ("no-store=x", ResponseControl { no_store: true, ..nothing }),
            ("must-revalidate", ResponseControl { must_revalidate: true, ..nothing }),
            ("proxy-revalidate", ResponseControl { proxy_revalidate: true, ..nothing }),
            ("must-understand, no-store", ResponseControl { must_understand: true, no_store: true, ..nothing }),
            ("s-maxage=7, max-age=9", ResponseControl { s_maxage: Some(7), ..max_age(9) }),
            // RFC 9111 §4.2.1: the first of several, and stale when it cannot be read.
            ("max-age=1, max-age=3600", max_age(1)),
            ("max-age=3600, max-age=1", max_age(3600)),
            ("max-age=3600x", max_age(0)),
            ("max-age=36.5", max_age(0)),
            ("max-age=", max_age(0)),
            ("max-age=\"\"", max_age(0)),
            ("max-age", max_age(0)),
            ("max-age=+1", max_age(0)),
            ("max-age= 1", max_age(0)),
            ("max-age =1", max_age(0)),
            ("max-age='1'", max_age(0)),
            ("max-age=0x10", max_age(0)),
            ("max-age=007", max_age(7)),
            ("max-age=\"7\"", max_age(7)),
            // §1.2.2
            ("max-age=2147483647", max_age(DELTA_MAX - 1)),
            ("max-age=2147483648", max_age(DELTA_MAX)),
            ("max-age=2147483649", max_age(DELTA_MAX)),
            ("max-age=4294967296", max_age(DELTA_MAX)),
            ("max-age=18446744073709551616", max_age(DELTA_MAX)),
            ("x-max-age=5", nothing),
            ("max-agex=5", nothing),
            ("stale-while-revalidate=30", ResponseControl { stale_while_revalidate: Some(30), ..nothing }),
            ("stale-while-revalidate", ResponseControl { stale_while_revalidate: Some(0), ..nothing }),
            ("stale-if-error=40", ResponseControl { stale_if_error: Some(40), ..nothing }),
            // §5.2.2.4, §5.2.2.7: the qualified forms
            ("no-cache", ResponseControl { no_cache: true, ..nothing }),
            ("no-cache=\"set-cookie\"", ResponseControl { withholds_fields: true, ..nothing }),
            ("no-cache=\"\"", ResponseControl { no_cache: true, ..nothing }),
            ("no-cache=\"a b\"", ResponseControl { no_cache: true, ..nothing }),
            ("no-cache=set-cookie", ResponseControl { no_cache: true, ..nothing }),
            ("private=\"a, b\", max-age=3", ResponseControl { withholds_fields: true, ..max_age(3) }),
            ("private=a", ResponseControl { private: true, ..nothing }),
            // quoted strings hide commas, escapes hide quotes
            ("a=\"b, no-store\", max-age=3", max_age(3)),
            ("a=\"b\\\", no-store\", max-age=3", max_age(3)),
            // but not when they never end
            ("a=\"b, no-store", ResponseControl { no_store: true, ..nothing }),
            ("\"no-store\"", nothing),
            ("max-age=5\", private", ResponseControl { private: true, ..max_age(0) }),
        ] {
            assert_eq!(said(&format!("Cache-Control: {value}\r\n")), expected, "{value}");
        }
        assert_eq!(said("Pragma: no-cache\r\n"), nothing);
        assert_eq!(
            said("Cache-Control: max-age=3\r\nX: y\r\nCache-Control: no-store\r\n"),
            ResponseControl { no_store: true, ..max_age(3) }
        );
    }

    #[test]
    fn the_fields_of_qualified_directives_are_withheld() {
        let (head, text) =
            response(200, "Cache-Control: private=\"A, set-cookie\"\r\nCache-Control: no-cache=\"x-b\"\r\n");
        for (name, expected) in [("a", true), ("Set-Cookie", true), ("X-B", true), ("b", false), ("private", false)] {
            assert_eq!(withholds(&head, &text, name.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn a_very_long_list_of_fields_counts_for_the_whole_response() {
        let with = |padding: usize| said(&format!("Cache-Control: private=\"a\", x={}\r\n", "x".repeat(padding)));
        let shorter = QUALIFIED_LEN_MAX - "private=\"a\", x=".len();
        assert!(with(shorter).withholds_fields && !with(shorter).private);
        assert!(!with(shorter + 1).withholds_fields && with(shorter + 1).private);
    }

    #[test]
    fn a_quote_that_never_ends_costs_no_more_than_one_look() {
        let value = "\"\\\",".repeat(7_000);
        assert!(directives(value.as_bytes()).count() >= 7_000);
        let mut walker = directives(value.as_bytes());
        let mut without_quotes = 0;
        while walker.next().is_some() {
            without_quotes += usize::from(!walker.quotes);
        }
        assert!(without_quotes >= 6_999, "{without_quotes}");
    }

    proptest! {
        #[test]
        fn no_value_panics_and_every_directive_is_within_it(value in prop::collection::vec(
            prop::sample::select(b"ab=\"\\, \t19-".to_vec()), 0..60)
        ) {
            let mut bytes = 0;
            for directive in directives(&value) {
                prop_assert!(!directive.name.is_empty() || directive.argument != Argument::None);
                bytes += directive.name.len();
            }
            prop_assert!(bytes <= value.len());
        }

        #[test]
        fn seconds_are_those_that_were_written(n: u64) {
            let expected = u32::try_from(n).unwrap_or(u32::MAX).min(DELTA_MAX);
            prop_assert_eq!(delta_seconds(n.to_string().as_bytes()), Some(expected));
        }
    }
}
