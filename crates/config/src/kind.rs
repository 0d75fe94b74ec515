//! What the value of a key may be, and how that is said: bounds, units, an example.

use std::time::Duration;

use base::ByteCount;

use crate::value::show_duration;

/// What the value of a key may be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Keys below this one. With `off`, the word `off` stands for their absence, and is the default.
    Section {
        /// Whether the whole section can be absent.
        off: bool,
    },
    /// Sections that are given names by who writes them, each with the keys of `path.NAME`.
    Map {
        /// The most.
        max: usize,
    },
    /// A list, each item with the keys of `path[]`.
    List {
        /// The most items.
        max: usize,
        /// The key that an item written as a bare text stands for.
        bare: Option<&'static str>,
    },
    /// `true` or `false`.
    Switch {
        /// False: `true` is refused, because what it would switch on does not exist yet.
        available: bool,
    },
    /// A whole number.
    Count {
        /// The smallest.
        min: u64,
        /// The largest.
        max: u64,
        /// Whether `auto` is a value too.
        auto: bool,
    },
    /// A time with its unit: ms, s, m, h.
    Duration {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// A time that may be a bare number of milliseconds, as twemproxy has it, or have a unit.
    Millis {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// A size with its unit: B, KiB, MiB, GiB, KB, MB, GB.
    Size {
        /// The smallest.
        min: ByteCount,
        /// The largest.
        max: ByteCount,
        /// Whether `auto` is a value too.
        auto: bool,
    },
    /// One of some words.
    Choice {
        /// The words.
        words: &'static [&'static str],
        /// Words that will be there one day, and are refused until then.
        later: &'static [&'static str],
    },
    /// An IP address and a port to listen on.
    Address {
        /// Whether `off` is a value too.
        off: bool,
    },
    /// A path. A relative one counts from the directory of the file.
    Path {
        /// A word that is a value too, instead of a path.
        word: &'static str,
    },
    /// A name of letters, digits and the marks that HTTP allows in a token.
    Token,
    /// Which requests a rule is for.
    RemapFrom,
    /// One origin's URL, or a list of them.
    Origins {
        /// The most.
        max: usize,
    },
    /// Addresses and ranges of addresses, or a list of them.
    Networks {
        /// The most.
        max: usize,
    },
    /// Where a pool listens: an IP address and a port, or the path of a Unix socket and its permissions.
    Listen,
    /// The servers of a pool: a list.
    Servers {
        /// The most.
        max: usize,
    },
    /// The two characters around the hashed part of a key. Need not be written.
    HashTag,
    /// A password. Need not be written.
    Secret,
    /// Known, and not built yet: refused.
    Unavailable,
}

impl Kind {
    /// The kind in a word or two.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Section { .. } => "section",
            Self::Map { .. } => "named sections",
            Self::List { .. } => "list",
            Self::Switch { .. } => "switch",
            Self::Count { .. } => "count",
            Self::Duration { .. } | Self::Millis { .. } => "duration",
            Self::Size { .. } => "size",
            Self::Choice { .. } => "choice",
            Self::Address { .. } => "address",
            Self::Path { .. } => "path",
            Self::Token => "name",
            Self::RemapFrom => "URL pattern",
            Self::Origins { .. } => "URL or list of URLs",
            Self::Networks { .. } => "list of address ranges",
            Self::Listen => "address or socket",
            Self::Servers { .. } => "list of servers",
            Self::HashTag => "two characters",
            Self::Secret => "password",
            Self::Unavailable => "not available in this version",
        }
    }

    /// The units a value takes, if any.
    #[must_use]
    pub fn unit(&self) -> Option<&'static str> {
        match self {
            Self::Duration { .. } => Some("ms, s, m, h"),
            Self::Millis { .. } => Some("ms, s, m, h; without one it is milliseconds"),
            Self::Size { .. } => Some("B, KiB, MiB, GiB, KB, MB, GB"),
            _ => None,
        }
    }

    /// What a value may be, in words: bounds, choices, special words.
    #[must_use]
    pub fn bounds(&self) -> Option<String> {
        match self {
            Self::Section { off: true } => Some("`off`, or the keys below".to_owned()),
            Self::List { max, .. } | Self::Map { max } => Some(format!("at most {max}")),
            Self::Switch { available: true } => Some("`true` or `false`".to_owned()),
            Self::Switch { available: false } => Some("`false`; `true` is not available in this version".to_owned()),
            Self::Count { min, max, auto } => Some(format!("{min} to {max}{}", if *auto { ", or `auto`" } else { "" })),
            Self::Duration { min, max } | Self::Millis { min, max } => {
                Some(format!("{} to {}", show_duration(*min), show_duration(*max)))
            }
            Self::Size { min, max, auto } => Some(format!("{min} to {max}{}", if *auto { ", or `auto`" } else { "" })),
            Self::Choice { words, .. } => Some(one_of(words)),
            Self::Address { off: true } => Some("IP:PORT, or `off`".to_owned()),
            Self::Address { off: false } => Some("IP:PORT".to_owned()),
            Self::Path { word } => Some(format!("a path, or `{word}`")),
            Self::Origins { max } | Self::Servers { max } => Some(format!("1 to {max}")),
            Self::Networks { max } => Some(format!("0 to {max}")),
            Self::Listen => Some("IP:PORT, or /PATH [MODE]".to_owned()),
            Self::Section { off: false }
            | Self::Token
            | Self::RemapFrom
            | Self::HashTag
            | Self::Secret
            | Self::Unavailable => None,
        }
    }

    /// A value that would be right, as it would be written.
    #[must_use]
    pub fn example(&self) -> &'static str {
        match self {
            Self::Section { .. } | Self::Map { .. } => "{}",
            Self::List { .. } => "[]",
            Self::Switch { .. } => "false",
            Self::Count { .. } => "16",
            Self::Duration { .. } => "30s",
            Self::Millis { .. } => "400",
            Self::Size { .. } => "64KiB",
            Self::Choice { words, .. } => words.first().copied().unwrap_or(""),
            Self::Address { .. } => "127.0.0.1:8080",
            Self::Path { .. } => "/var/log/beltway/access.log",
            Self::Token => "beltway",
            Self::RemapFrom => "http://www.example.com/",
            Self::Origins { .. } => "http://10.0.0.5:8000/",
            Self::Networks { .. } => "10.0.0.0/8",
            Self::Listen => "127.0.0.1:22121",
            Self::Servers { .. } => "[\"127.0.0.1:6379:1\"]",
            Self::HashTag => "\"{}\"",
            Self::Secret => "secret",
            Self::Unavailable => "",
        }
    }
}

/// `` `a`, `b` or `c` ``.
pub(crate) fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => format!("`{one}`"),
        [head @ .., last] => {
            let head: Vec<String> = head.iter().map(|word| format!("`{word}`")).collect();
            format!("{} or `{last}`", head.join(", "))
        }
    }
}
