//! The two sides of a remap rule: which requests it is for, and the origins it sends them to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::diagnostic::quoted;
use crate::value::Fault;

/// The longest host name (RFC 1035 §2.3.4, as text).
const HOST_MAX: usize = 253;

/// The longest path in a rule.
const PATH_MAX: usize = 2048;

/// Which requests a rule is for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RemapFrom {
    /// The host asked for; none: any.
    pub host: Option<HostPattern>,
    /// The port asked for; none: any.
    pub port: Option<u16>,
    /// The prefix of the path, from its `/`. It ends at a `/`: `/a` is for `/a` and `/a/b`, not for `/ab`.
    pub path: String,
}

/// A host or all hosts below a domain, in small letters.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum HostPattern {
    /// This host; an IPv6 address without its brackets.
    Exact(String),
    /// Every name that ends so: `.example.com`, with its dot. `example.com` itself does not.
    Suffix(String),
}

impl HostPattern {
    /// Whether `host`, in letters of any case, is one of these.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => host.eq_ignore_ascii_case(name),
            Self::Suffix(suffix) => {
                let (host, suffix) = (host.as_bytes(), suffix.as_bytes());
                host.len() > suffix.len() && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
            }
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match other {
            Self::Exact(name) => self.matches(name),
            Self::Suffix(narrow) => matches!(self, Self::Suffix(wide) if narrow.ends_with(wide.as_str())),
        }
    }
}

impl RemapFrom {
    /// Every request.
    pub(crate) fn everything() -> Self {
        Self { host: None, port: None, path: "/".to_owned() }
    }

    /// Whether the rule is for a request of `host` (no brackets, any case), `port` and `path` (a query may follow).
    #[must_use]
    pub fn matches(&self, host: &str, port: u16, path: &str) -> bool {
        self.port.is_none_or(|own| own == port)
            && path_has_prefix(path, &self.path)
            && self.host.as_ref().is_none_or(|own| own.matches(host))
    }

    /// Whether every request that `other` is for is one that this is for.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        (self.port.is_none() || self.port == other.port)
            && path_has_prefix(&other.path, &self.path)
            && match (&self.host, &other.host) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(own), Some(other)) => own.covers(other),
            }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        if text == "*" {
            return Ok(Self::everything());
        }
        if text.starts_with('/') {
            return Ok(Self { path: path(text)?, ..Self::everything() });
        }
        let (authority, path) = split_url(text, "http://www.example.com/, /prefix, or `*` for everything")?;
        let (host, port) = split_port(authority)?;
        let host = if host == "*" {
            None
        } else if let Some(domain) = host.strip_prefix("*.") {
            Some(HostPattern::Suffix(format!(".{}", name(domain)?)))
        } else if host.contains('*') {
            return Err(Fault::new(
                format!("{} has its `*` in the wrong place", quoted(host)),
                "the `*` stands for the first labels only: *.example.com",
            ));
        } else {
            Some(HostPattern::Exact(match self::host(host)? {
                OriginHost::Ip(ip) => ip.to_string(),
                OriginHost::Name(name) => name,
            }))
        };
        Ok(Self { host, port, path })
    }
}

impl fmt::Display for RemapFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            None if self.port.is_none() => return f.write_str(&self.path),
            None => f.write_str("http://*")?,
            Some(HostPattern::Suffix(suffix)) => write!(f, "http://*{suffix}")?,
            Some(HostPattern::Exact(name)) if name.contains(':') => write!(f, "http://[{name}]")?,
            Some(HostPattern::Exact(name)) => write!(f, "http://{name}")?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(&self.path)
    }
}

/// Whether `path` is `prefix`, or goes on after it with a new segment or a query.
fn path_has_prefix(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with(['/', '?']))
}

/// Where an origin is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum OriginHost {
    /// At this address.
    Ip(IpAddr),
    /// Where this name resolves to. Small letters, no dot at the end.
    Name(String),
}

impl fmt::Display for OriginHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// One origin, reached by plain HTTP.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct OriginUrl {
    /// Its address or name.
    pub host: OriginHost,
    /// Its port; 80 when none is written.
    pub port: u16,
    /// What replaces the prefix of the rule, from its `/`.
    pub path: String,
    /// Host and port as they are sent in `Host`: brackets around IPv6, port 80 left out.
    pub authority: String,
}

impl OriginUrl {
    /// What to ask this origin for when a request of `path` (a query may follow) came through a rule of `from`: two
    /// pieces, to be written one after the other. They join in exactly one `/`, however prefixes end. A `path` that
    /// `from` does not match stays whole.
    #[must_use]
    pub fn path_for<'a>(&'a self, from: &RemapFrom, path: &'a str) -> (&'a str, &'a str) {
        if !path_has_prefix(path, &from.path) {
            return ("", path);
        }
        let kept = from.path.strip_suffix('/').unwrap_or(&from.path);
        let rest = path.get(kept.len()..).unwrap_or("");
        let base = if rest.starts_with('/') { self.path.strip_suffix('/').unwrap_or(&self.path) } else { &self.path };
        (base, rest)
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let (authority, path) = split_url(text, "http://10.0.0.5:8000/")?;
        let (host, port) = split_port(authority)?;
        if host.contains('*') {
            return Err(Fault::new(
                format!("{} is not one origin", quoted(host)),
                "a `*` can only stand in `from`; name the origin",
            ));
        }
        let host = self::host(host)?;
        let port = port.unwrap_or(80);
        let authority = if port == 80 { host.to_string() } else { format!("{host}:{port}") };
        Ok(Self { host, port, path, authority })
    }
}

impl fmt::Display for OriginUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

/// Authority and path of an http URL. `example` is what would be right.
fn split_url<'a>(text: &'a str, example: &str) -> Result<(&'a str, String), Fault> {
    let bad = |what: &str, hint: &str| Fault::new(format!("{} {what}", quoted(text)), hint);
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(bad("is not a URL", &format!("write {example}")));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "http" => {}
        "https" => {
            return Err(Fault::new(
                format!("{}: TLS is not available in this version", quoted(text)),
                format!("use http://{rest}"),
            ));
        }
        _ => return Err(bad("has a scheme that is not http", &format!("write {example}"))),
    }
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(bad("names a user", "remove what stands before the `@`"));
    }
    if authority.is_empty() {
        return Err(bad("names no host", &format!("write {example}")));
    }
    Ok((authority, if rest.is_empty() { "/".to_owned() } else { path(rest)? }))
}

/// A path of RFC 3986 §3.3, without query and fragment.
fn path(text: &str) -> Result<String, Fault> {
    let bad = |what: &str, hint: &str| Fault::new(format!("the path {} {what}", quoted(text)), hint);
    if text.contains(['?', '#']) {
        return Err(bad("has a query or fragment", "a rule is about the path alone; end it before the `?` or `#`"));
    }
    if !text.starts_with('/') || text.len() > PATH_MAX {
        return Err(bad("is no prefix", &format!("a `/` and at most {PATH_MAX} bytes")));
    }
    let bytes = text.as_bytes();
    for (i, &b) in bytes.iter().enumerate() {
        let escape = || bytes.get(i + 1..i + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let fine = match b {
            b'%' => escape(),
            _ => b.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&b),
        };
        if !fine {
            let hint = match b {
                b'%' => "a `%` is followed by two hexadecimal digits",
                _ => "other characters are written as % and two hexadecimal digits",
            };
            return Err(bad("has a character that no path has", hint));
        }
    }
    if text.ends_with("/*") {
        return Err(bad("ends with a `*`", "it is a prefix already: leave the `*` away"));
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(bad("has a `.` or `..` segment", "write the path it leads to"));
    }
    Ok(text.to_owned())
}

/// Host and port of an authority; brackets stay with the host.
fn split_port(authority: &str) -> Result<(&str, Option<u16>), Fault> {
    let after_brackets = authority.rfind(']').map_or(0, |at| at + 1);
    let Some(colon) = authority[after_brackets..].rfind(':').map(|at| at + after_brackets) else {
        return Ok((authority, None));
    };
    let (host, port) = (&authority[..colon], &authority[colon + 1..]);
    if host.contains(':') && !host.starts_with('[') {
        return Err(Fault::new(
            format!("{} is no host and port", quoted(authority)),
            "an IPv6 address stands in brackets: http://[::1]:8000/",
        ));
    }
    match port.parse::<u16>() {
        Ok(number) if number != 0 && port.bytes().all(|b| b.is_ascii_digit()) => Ok((host, Some(number))),
        _ => Err(Fault::new(format!("{} is no port", quoted(port)), "a port is a number from 1 to 65535")),
    }
}

fn host(text: &str) -> Result<OriginHost, Fault> {
    if let Some(inner) = text.strip_prefix('[') {
        return inner
            .strip_suffix(']')
            .and_then(|ip| ip.parse::<Ipv6Addr>().ok())
            .map(|ip| OriginHost::Ip(ip.into()))
            .ok_or_else(|| Fault::new(format!("{} is no IPv6 address", quoted(text)), "write it as [::1]"));
    }
    if let Ok(ip) = text.parse::<Ipv4Addr>() {
        return Ok(OriginHost::Ip(ip.into()));
    }
    name(text).map(OriginHost::Name)
}

/// A host name in small letters.
fn name(text: &str) -> Result<String, Fault> {
    let bad = |hint: &str| Err(Fault::new(format!("{} is no host name", quoted(text)), hint));
    let plain = text.strip_suffix('.').unwrap_or(text);
    if plain.len() > HOST_MAX {
        return bad(&format!("a host name has at most {HOST_MAX} characters"));
    }
    if plain.is_empty() {
        return bad("name the host");
    }
    if plain.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return bad("an IPv4 address is four numbers from 0 to 255: 10.0.0.5");
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !plain.split('.').all(label) {
        return bad("letters, digits and `-`, in parts of 1 to 63 between dots; other scripts in their xn-- form");
    }
    Ok(plain.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str) -> RemapFrom {
        RemapFrom::parse(text).unwrap()
    }

    #[test]
    fn a_prefix_ends_at_a_segment() {
        let rule = from("/a");
        for yes in ["/a", "/a/", "/a/b", "/a?x"] {
            assert!(rule.matches("h", 80, yes), "{yes}");
        }
        for no in ["/ab", "/", "/A", "*", ""] {
            assert!(!rule.matches("h", 80, no), "{no}");
        }
        assert!(!from("/a/").matches("h", 80, "/a"));
        assert!(from("*").matches("h", 80, "/anything"));
    }

    #[test]
    fn a_wildcard_is_for_names_below_a_domain_and_not_for_the_domain() {
        let rule = from("http://*.Example.com/");
        assert!(rule.matches("www.example.com", 1, "/"));
        assert!(rule.matches("a.b.EXAMPLE.com", 1, "/"));
        assert!(!rule.matches("example.com", 1, "/"));
        assert!(!rule.matches("badexample.com", 1, "/"));
    }

    #[test]
    fn a_rule_covers_what_is_narrower_and_nothing_else() {
        assert!(from("*").covers(&from("http://a.b:81/c")));
        assert!(from("http://*.b/").covers(&from("http://*.a.b/x")));
        assert!(from("http://*.b/").covers(&from("http://a.b/x")));
        assert!(!from("http://*.b/").covers(&from("http://b/x")));
        assert!(!from("http://a/").covers(&from("/")));
        assert!(!from("http://a:80/").covers(&from("http://a/")));
        assert!(!from("/a").covers(&from("/ab")));
    }

    #[test]
    fn an_origin_keeps_what_its_host_field_needs() {
        let url = OriginUrl::parse("http://Www.Example.com").unwrap();
        assert_eq!((url.authority.as_str(), url.port, url.path.as_str()), ("www.example.com", 80, "/"));
        let url = OriginUrl::parse("http://[::1]:8000/x/").unwrap();
        assert_eq!((url.authority.as_str(), url.path.as_str()), ("[::1]:8000", "/x/"));
        assert_eq!(OriginUrl::parse("http://10.0.0.5:80/").unwrap().authority, "10.0.0.5");
    }

    #[test]
    fn one_prefix_replaces_the_other_and_they_join_in_one_slash() {
        let cases = [
            ("/", "http://o/", "/x?q", "/x?q"),
            ("/", "http://o/", "/", "/"),
            ("/", "http://o/base", "/x", "/base/x"),
            ("/", "http://o/base/", "/x", "/base/x"),
            ("/api", "http://o/", "/api/x", "/x"),
            ("/api", "http://o/", "/api", "/"),
            ("/api", "http://o/", "/api?q", "/?q"),
            ("/api/", "http://o/", "/api/", "/"),
            ("/api/", "http://o/v1", "/api/x", "/v1/x"),
            ("/api", "http://o/v1", "/api?q", "/v1?q"),
            ("/api", "http://o/v1/", "/api/", "/v1/"),
            ("/api", "http://o/v1/", "/other", "/other"),
            ("/", "http://o/v1", "*", "*"),
        ];
        for (rule, to, path, expected) in cases {
            let to = OriginUrl::parse(to).unwrap();
            let (base, rest) = to.path_for(&from(rule), path);
            assert_eq!(format!("{base}{rest}"), expected, "{rule} to {to} for {path}");
        }
    }

    #[test]
    fn what_is_shown_reads_back_the_same() {
        for text in ["/", "/a/b", "http://*:81/", "http://*.example.com/x", "http://a.b:8080/", "http://[::1]:80/"] {
            assert_eq!(from(text).to_string(), text);
            assert_eq!(from(&from(text).to_string()), from(text));
        }
        for text in ["http://a/", "http://[::1]:8000/x", "http://10.0.0.1/%20"] {
            assert_eq!(OriginUrl::parse(text).unwrap().to_string(), text);
        }
    }
}
