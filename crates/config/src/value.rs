//! From one written text to one typed value, by the kind of its key.
//!
//! Pure: no tree, no place. What is wrong comes back as a [`Fault`], which the reader of the tree puts in its place.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::{ByteCount, ByteCountError};
use ipnet::IpNet;

use crate::diagnostic::{Spanned, quoted};
use crate::kind::{Kind, one_of};
use crate::kv::build::NamedSettings;
use crate::kv::{self, KvListen, KvServer, Password};
use crate::model::{HttpListener, RemapRule};
use crate::nearest::nearest;
use crate::remap::{OriginUrl, RemapFrom};
use crate::table::Key;

/// What is wrong with a text, and what would be right.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Fault {
    pub(crate) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()) }
    }
}

/// A typed value. Which variants a key can have follows from its [`Kind`].
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Value {
    /// A special word: `auto`, `off`, `stderr`.
    Word(&'static str),
    /// A section that is there and could be `off`.
    Present,
    Switch(bool),
    Count(u64),
    Duration(Duration),
    Size(ByteCount),
    Address(SocketAddr),
    Path(PathBuf),
    Text(String),
    From(RemapFrom),
    Origins(Vec<Spanned<OriginUrl>>),
    Networks(Vec<IpNet>),
    Listeners(Vec<HttpListener>),
    Remap(Vec<RemapRule>),
    Listen(KvListen),
    Servers(Vec<Spanned<KvServer>>),
    Tag([u8; 2]),
    Secret(Password),
    Pools(Vec<NamedSettings>),
}

/// Reads `text` as a value of `key`. Relative paths are joined to `directory`. Kinds that are not one text (sections,
/// lists of items, lists of URLs) are the business of the tree's reader.
pub(crate) fn scalar(key: &Key, text: &str, directory: &Path) -> Result<Value, Fault> {
    let path = key.path;
    match key.kind {
        Kind::Section { off: true } if text == "off" => Ok(Value::Word("off")),
        Kind::Section { .. } => Err(Fault::new(
            format!("`{path}` takes keys, not {}", quoted(text)),
            format!("write its keys below it, or `{}: {{…}}`", key.name()),
        )),
        Kind::Map { .. } => Err(Fault::new(
            format!("`{path}` takes names with keys below them, not {}", quoted(text)),
            format!("write `{}:` and, further indented, a name with its keys below it", key.name()),
        )),
        Kind::List { .. } | Kind::Servers { .. } => Err(Fault::new(
            format!("`{path}` takes a list, not {}", quoted(text)),
            format!("write `{}: [{}]`, or each item on a line of its own after a dash", key.name(), "…"),
        )),
        Kind::Switch { available } => match text {
            "false" => Ok(Value::Switch(false)),
            "true" if available => Ok(Value::Switch(true)),
            "true" => Err(Fault::new(format!("`{path}: true` is not available in this version"), "remove the key")),
            _ => Err(Fault::new(format!("`{path}` takes `true` or `false`, not {}", quoted(text)), switch_meant(text))),
        },
        Kind::Count { auto: true, .. } if text == "auto" => Ok(Value::Word("auto")),
        Kind::Count { min, max, .. } => count(key, text, min, max).map(Value::Count),
        Kind::Duration { min, max } => {
            let value = duration(text).map_err(|hint| {
                Fault::new(format!("`{path}` takes a time with its unit, not {}", quoted(text)), hint)
            })?;
            if value < min || value > max {
                return Err(out_of_bounds(key, text));
            }
            Ok(Value::Duration(value))
        }
        Kind::Millis { min, max } => {
            let bare = text.bytes().all(|b| b.is_ascii_digit());
            let value = if bare { duration(&format!("{text}ms")) } else { duration(text) }.map_err(|_| {
                let message = format!("`{path}` takes a time, not {}", quoted(text));
                Fault::new(message, "a number of milliseconds, or a number and one of ms, s, m, h: 400, or 5s")
            })?;
            if value < min || value > max {
                return Err(out_of_bounds(key, text));
            }
            Ok(Value::Duration(value))
        }
        Kind::Size { auto: true, .. } if text == "auto" => Ok(Value::Word("auto")),
        Kind::Size { min, max, .. } => {
            let value: ByteCount = text.parse().map_err(|error: ByteCountError| {
                Fault::new(format!("`{path}` takes a size, not {}", quoted(text)), error.to_string())
            })?;
            if value < min || value > max {
                return Err(out_of_bounds(key, text));
            }
            Ok(Value::Size(value))
        }
        Kind::Choice { words, later } => choice(key, text, words, later),
        Kind::Address { off: true } if text == "off" => Ok(Value::Word("off")),
        Kind::Address { .. } => address(path, text).map(Value::Address),
        Kind::Path { word } if text == word => Ok(Value::Word(word)),
        Kind::Path { word } => file_path(path, text, word, directory).map(Value::Path),
        Kind::Token => token(path, text).map(Value::Text),
        Kind::RemapFrom => RemapFrom::parse(text).map(Value::From),
        Kind::Origins { .. } => {
            OriginUrl::parse(text).map(|url| Value::Origins(vec![Spanned::new(url, crate::Place::NOWHERE)]))
        }
        // Several are only in defaults of the table; a file writes a list.
        Kind::Networks { .. } => {
            let all: Result<_, _> = text.split_ascii_whitespace().map(|one| network(path, one)).collect();
            all.map(Value::Networks)
        }
        Kind::Listen => kv::text::listen(path, text, |text| address(path, text)).map(Value::Listen),
        Kind::HashTag => hash_tag(path, text).map(Value::Tag),
        Kind::Secret if text.is_empty() => {
            Err(Fault::new(format!("`{path}` is empty"), "write the password, or remove the key for none"))
        }
        Kind::Secret => Ok(Value::Secret(Password::new(text.to_owned()))),
        Kind::Unavailable => Err(unavailable(key)),
    }
}

/// Reads an address, or a range of addresses by its first and the length of what they share.
pub(crate) fn network(path: &str, text: &str) -> Result<IpNet, Fault> {
    let fault = |hint: String| Fault::new(format!("`{path}` takes addresses, not {}", quoted(text)), hint);
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let network: IpNet =
        text.parse().map_err(|_| fault("an address, or a range such as 10.0.0.0/8 or \"2001:db8::/32\"".to_owned()))?;
    if network.trunc() == network {
        Ok(network)
    } else {
        Err(fault(format!("its first address is another: write {}, or the address alone", network.trunc())))
    }
}

/// Reads the two bytes of a hash tag.
pub(crate) fn hash_tag(path: &str, text: &str) -> Result<[u8; 2], Fault> {
    <[u8; 2]>::try_from(text.as_bytes()).map_err(|_| {
        Fault::new(
            format!("`{path}` takes two characters, not {}", quoted(text)),
            "such as \"{}\", in quotes; remove the key to hash all of a key",
        )
    })
}

/// Reads the name of a section that its writer has named.
pub(crate) fn section_name(key: &Key, text: &str) -> Result<(), Fault> {
    token(&format!("a name in {}", key.path), text).map(|_| ())
}

/// What is said of a key that exists in the contract and not yet in the program.
pub(crate) fn unavailable(key: &Key) -> Fault {
    Fault::new(
        format!("`{}` is not available in this version", key.path),
        "remove the key; nothing would be done with it".to_owned(),
    )
}

fn switch_meant(text: &str) -> String {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "on" | "y" | "1" | "true" => "write `true`".to_owned(),
        "no" | "off" | "n" | "0" | "false" => "write `false`".to_owned(),
        _ => "one of the two words, in small letters".to_owned(),
    }
}

fn out_of_bounds(key: &Key, text: &str) -> Fault {
    let bounds = key.kind.bounds().unwrap_or_default();
    let default = key.default.map_or_else(String::new, |default| format!("; the default is {default}"));
    Fault::new(
        format!("`{}` is out of bounds: {}", key.path, quoted(text)),
        format!("from {}{default}", bounds.replacen(" to ", " up to ", 1)),
    )
}

fn count(key: &Key, text: &str, min: u64, max: u64) -> Result<u64, Fault> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Fault::new(
            format!("`{}` takes a whole number, not {}", key.path, quoted(text)),
            format!("from {}", key.kind.bounds().unwrap_or_default().replacen(" to ", " up to ", 1)),
        ));
    }
    // Digits only: what does not parse is larger than 64 bits.
    let value = text.parse().unwrap_or(u64::MAX);
    if value < min || value > max { Err(out_of_bounds(key, text)) } else { Ok(value) }
}

/// Reads `30s`, `500ms`, `2m`, `1h`. The error is the hint.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err("a whole number and its unit, such as 30s".to_owned());
    }
    let millis: u64 = match unit.trim_start() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" if number.len() < 12 => return Err(format!("write the unit too: {number}s, or {number}ms")),
        unit if unit.starts_with('.') => return Err("whole numbers only: 1500ms, not 1.5s".to_owned()),
        _ => return Err("the unit of a time is one of ms, s, m, h".to_owned()),
    };
    // A number too large for 64 bits is out of any bounds, and is reported as such.
    let number: u64 = number.parse().unwrap_or(u64::MAX);
    Ok(Duration::from_millis(number.saturating_mul(millis)))
}

/// The largest unit that divides it, so that what is shown reads back as the same time.
pub(crate) fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (factor, unit) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if millis != 0 && millis.is_multiple_of(factor) {
            return format!("{}{unit}", millis / factor);
        }
    }
    format!("{millis}ms")
}

fn choice(key: &Key, text: &str, words: &'static [&'static str], later: &[&str]) -> Result<Value, Fault> {
    if let Some(word) = words.iter().find(|word| **word == text) {
        return Ok(Value::Word(word));
    }
    if later.contains(&text) {
        return Err(Fault::new(
            format!("`{}: {text}` is not available in this version", key.path),
            format!("write {}", one_of(words)),
        ));
    }
    let hint = match nearest(text, words.iter().copied()) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("write {}", one_of(words)),
    };
    Err(Fault::new(format!("`{}` cannot be {}", key.path, quoted(text)), hint))
}

fn address(path: &str, text: &str) -> Result<SocketAddr, Fault> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let hint = if is_port(text) || text.strip_prefix(':').is_some_and(is_port) {
        let port = text.trim_start_matches(':');
        format!("write the address too: 0.0.0.0:{port} for all of IPv4, 127.0.0.1:{port} for this machine alone")
    } else if text.parse::<std::net::Ipv4Addr>().is_ok() {
        format!("write the port too: {text}:8080")
    } else if let Some(port) = text.strip_prefix("*:") {
        format!("write 0.0.0.0:{port} for all of IPv4")
    } else if let Some(port) = text.strip_prefix("localhost:") {
        format!("an IP address, not a name: 127.0.0.1:{port}")
    } else if text.contains("://") {
        "an IP address and a port, such as 127.0.0.1:8080, not a URL".to_owned()
    } else if text.matches(':').count() > 1 {
        "an IPv6 address stands in brackets, and the port behind them: \"[::1]:8080\"".to_owned()
    } else if text.bytes().any(|b| b.is_ascii_alphabetic()) {
        "an IP address, not a name: 127.0.0.1:8080".to_owned()
    } else {
        "an IP address and a port from 0 to 65535, such as 127.0.0.1:8080".to_owned()
    };
    Err(Fault::new(format!("`{path}` takes an address and a port, not {}", quoted(text)), hint))
}

fn file_path(path: &str, text: &str, word: &str, directory: &Path) -> Result<PathBuf, Fault> {
    if text.is_empty() || text.contains('\0') {
        return Err(Fault::new(
            format!("`{path}` takes a path, not {}", quoted(text)),
            format!("write a path, or `{word}`"),
        ));
    }
    Ok(directory.join(text))
}

/// The most characters of a pseudonym: it stands in every message.
const TOKEN_MAX: usize = 64;

fn token(path: &str, text: &str) -> Result<String, Fault> {
    let is_tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if text.is_empty() || text.len() > TOKEN_MAX || !text.bytes().all(is_tchar) {
        return Err(Fault::new(
            format!("`{path}` cannot be {}", quoted(text)),
            format!("1 to {TOKEN_MAX} letters, digits and !#$%&'*+-.^_`|~ (a token of RFC 9110 §5.6.2)"),
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_whole_number_and_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("30 s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        for bad in ["", "s", "30", "1.5s", "-1s", "1d", "30S", "99999999999999999999"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(duration("99999999999999999999h"), Ok(Duration::from_millis(u64::MAX)));
    }

    #[test]
    fn a_time_that_is_shown_reads_back_the_same() {
        for millis in [0, 1, 999, 1_000, 1_500, 60_000, 90_000, 3_600_000, 86_400_000] {
            let time = Duration::from_millis(millis);
            assert_eq!(duration(&show_duration(time)), Ok(time));
        }
    }
}
