//! Which origin answers for which URL.
//!
//! Rules are tried in order, the first that fits wins. Exact hosts are hashed, so that a request meets only the rules of
//! its own host and those for any host. A rule's path is a prefix on the boundary of a segment: `/a` is the prefix of
//! `/a`, `/a/b` and `/a?x`, not of `/ab`; `/a/` is the prefix of `/a/` and what is below. (The ancestor matches `/ab`
//! too; nobody who writes `/a` means it.)
//!
//! What is forwarded is never normalised, for the origin may know better. But a path that *means* something else than it
//! says is not forwarded by what it says: see `disguise`. So no spelling of a path reaches another rule's URLs, or
//! leaves the part of the origin that a rule opens.
//!
//! Nothing here is state. Round robin needs a counter: the caller keeps it and hands it in as a key.
//!
//! Read [`Remap::look_up`], then [`Rule::rewrite`] and [`Rule::order`].

mod disguise;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_64;

use crate::wire::h1::split_port;
use crate::wire::list::decimal;

/// A host that a rule is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HostPattern {
    /// This host and no other.
    Exact(String),
    /// All hosts below this one: `example.com` fits `www.example.com`, not `example.com` itself and not
    /// `badexample.com`. A leading dot or `*.` changes nothing.
    Suffix(String),
}

/// How a rule chooses among its origins.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Balance {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The same path and query go to the same origin, and when one origin goes only its share moves.
    ConsistentHash,
}

/// An origin of a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// Host and port.
    pub authority: String,
    /// What the rule's path is replaced by; starts with `/`.
    pub path: String,
}

/// One rule as it is configured. An owner of values only: [`Remap::compile`] judges it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleSource {
    /// `None` is any host, and no host at all.
    pub host: Option<HostPattern>,
    /// `None` is any port.
    pub port: Option<u16>,
    /// The prefix of the path; starts with `/`, which alone fits every path.
    pub path: String,
    /// One or more.
    pub origins: Vec<Origin>,
    /// How to choose.
    pub balance: Balance,
}

/// Why a rule cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("rule {rule}: {fault}")]
pub struct RemapError {
    /// Its place in the list, from 0.
    pub rule: usize,
    /// What is wrong with it.
    pub fault: RuleFault,
}

/// What is wrong with a rule.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RuleFault {
    /// There is no origin.
    #[error("it has no origin")]
    NoOrigin,
    /// A path that does not start with `/`, or holds `?`, `#`, blanks or control bytes.
    #[error("the path {0:?} must start with / and hold neither ? nor # nor blanks")]
    BadPath(String),
    /// A path that a request could only reach in disguise.
    #[error("the path {0:?} holds a dot segment or a needless escape; write it plainly")]
    DisguisedPath(String),
    /// The authority of an origin, or the host of the rule.
    #[error("{0:?} is no host")]
    BadHost(String),
    /// More rules than indices.
    #[error("there are too many rules")]
    TooMany,
}

/// A compiled rule.
#[derive(Debug)]
pub struct Rule {
    host: Option<HostPattern>,
    port: Option<u16>,
    /// Without its final `/`; empty for the rule that fits everything.
    base: String,
    /// The path ended in `/`, so the base itself does not fit.
    below_only: bool,
    origins: Vec<CompiledOrigin>,
    balance: Balance,
}

#[derive(Debug)]
struct CompiledOrigin {
    authority: String,
    path: String,
    /// Length of `path` without its final `/`.
    base_len: usize,
    seed: u64,
}

/// All rules.
#[derive(Debug, Default)]
pub struct Remap {
    rules: Vec<Rule>,
    /// Exact hosts in lower case, sorted by hash, with their rules in order.
    exact: Vec<(u64, String, Vec<u32>)>,
    /// Rules for any host and for suffixes, in order.
    general: Vec<u32>,
}

/// What was found for a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lookup {
    /// This rule; its index is good for [`Remap::rule`].
    Found(usize),
    /// No rule fits: 404.
    NotFound,
    /// The path says one thing and means another that other rules decide about, or leaves the prefix of its rule: 400.
    Disguised,
}

impl Remap {
    /// Judges the rules and builds the tables.
    ///
    /// # Errors
    /// The first rule that cannot be.
    pub fn compile(sources: Vec<RuleSource>) -> Result<Self, RemapError> {
        let mut remap = Self::default();
        let mut exact: HashMap<String, Vec<u32>> = HashMap::new();
        for (at, source) in sources.into_iter().enumerate() {
            let index = u32::try_from(at).map_err(|_| RemapError { rule: at, fault: RuleFault::TooMany })?;
            let rule = Rule::compile(source).map_err(|fault| RemapError { rule: at, fault })?;
            match &rule.host {
                Some(HostPattern::Exact(host)) => exact.entry(host.clone()).or_default().push(index),
                Some(HostPattern::Suffix(_)) | None => remap.general.push(index),
            }
            remap.rules.push(rule);
        }
        remap.exact = exact.into_iter().map(|(host, rules)| (xxh3_64(host.as_bytes()), host, rules)).collect();
        remap.exact.sort_by_key(|(hash, ..)| *hash);
        Ok(remap)
    }

    /// The rule of this index, if there is one.
    #[inline]
    #[must_use]
    pub fn rule(&self, index: usize) -> Option<&Rule> {
        self.rules.get(index)
    }

    /// How many rules there are.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// The rule for a request. `authority` as of the request head, empty when there is none; `default_port` is that of the
    /// scheme and counts when the authority names no port. `path_and_query` as of the head; `*` fits what `/` fits.
    ///
    /// Allocates only when the path holds a dot segment or a needless escape.
    #[must_use]
    pub fn look_up(&self, authority: &[u8], default_port: u16, path_and_query: &[u8]) -> Lookup {
        let (host, port) = split_port(authority);
        let host = host.strip_suffix(b".").unwrap_or(host);
        let port = match port {
            None | Some([]) => default_port,
            Some(digits) => match decimal(digits).and_then(|n| u16::try_from(n).ok()) {
                Some(port) => port,
                None => return Lookup::NotFound,
            },
        };
        let path = match memchr::memchr(b'?', path_and_query) {
            Some(0) => b"/",
            Some(at) => &path_and_query[..at],
            None if path_and_query == b"*" => b"/",
            None => path_and_query,
        };
        let found = self.first_fit(host, port, path);
        if disguise::is_plain(path) {
            return found.map_or(Lookup::NotFound, Lookup::Found);
        }
        self.look_up_disguised(host, port, path, found)
    }

    /// A path with dot segments or escapes that stand for ordinary characters. It is forwarded only if it means what it
    /// says, as far as the rules go.
    #[cold]
    fn look_up_disguised(&self, host: &[u8], port: u16, path: &[u8], found: Option<usize>) -> Lookup {
        let meant = self.first_fit(host, port, &disguise::normalised(path));
        match found.zip(found.and_then(|index| self.rule(index))) {
            Some((index, rule)) if meant == found && !disguise::climbs_out(&path[rule.base.len()..]) => {
                Lookup::Found(index)
            }
            None if meant.is_none() => Lookup::NotFound,
            _ => Lookup::Disguised,
        }
    }

    fn first_fit(&self, host: &[u8], port: u16, path: &[u8]) -> Option<usize> {
        let mut exact = self.rules_of(host).iter().copied().peekable();
        let mut general = self.general.iter().copied().peekable();
        loop {
            // Both lists ascend; take the earlier rule.
            let (index, host_known) = match (exact.peek(), general.peek()) {
                (None, None) => return None,
                (Some(&e), None) => (e, true),
                (None, Some(&g)) => (g, false),
                (Some(&e), Some(&g)) => (e.min(g), e < g),
            };
            if host_known {
                exact.next()
            } else {
                general.next()
            };
            let index = index as usize;
            let rule = &self.rules[index];
            if (host_known || rule.fits_host(host)) && rule.port.is_none_or(|p| p == port) && rule.fits_path(path) {
                return Some(index);
            }
        }
    }

    fn rules_of(&self, host: &[u8]) -> &[u32] {
        if self.exact.is_empty() || host.len() > HOST_LEN_MAX {
            return &[];
        }
        let mut lower = [0; HOST_LEN_MAX];
        let lower = &mut lower[..host.len()];
        lower.copy_from_slice(host);
        lower.make_ascii_lowercase();
        let hash = xxh3_64(lower);
        let start = self.exact.partition_point(|(h, ..)| *h < hash);
        self.exact[start..]
            .iter()
            .take_while(|(h, ..)| *h == hash)
            .find(|(_, known, _)| known.as_bytes() == lower)
            .map_or(&[], |(_, _, rules)| rules.as_slice())
    }
}

impl Rule {
    /// How many origins there are; at least one.
    #[inline]
    #[must_use]
    pub fn origin_count(&self) -> usize {
        self.origins.len()
    }

    /// Host and port of an origin.
    #[must_use]
    pub fn authority(&self, origin: usize) -> Option<&str> {
        self.origins.get(origin).map(|o| o.authority.as_str())
    }

    /// How origins are chosen.
    #[inline]
    #[must_use]
    pub fn balance(&self) -> Balance {
        self.balance
    }

    /// How the path changes on its way to an origin: so many bytes are cut off its front, and this is put there instead.
    ///
    /// From `/a` to `/b`: `/a/x` becomes `/b/x`, `/a` becomes `/b`, `/a?q` becomes `/b?q`. A final `/` on either side
    /// makes no difference to what is below, and the origin's path is used as written when nothing is below. Asking for an
    /// origin that is not there changes nothing.
    #[inline]
    #[must_use]
    pub fn rewrite(&self, origin: usize, path_and_query: &[u8]) -> (usize, &str) {
        let Some(origin) = self.origins.get(origin) else { return (0, "") };
        let strip = self.base.len().min(path_and_query.len());
        match &path_and_query[strip..] {
            // `/` stands for nothing where it is all there is of the path: `/a/` to `/b` is `/b/`, to `/b/` as well.
            [b'/', ..] => (strip, &origin.path[..origin.base_len]),
            _ => (strip, &origin.path),
        }
    }

    /// The origin for an attempt, from 0: the next one each time, round and round.
    ///
    /// With [`Balance::RoundRobin`] the key is a counter. With [`Balance::ConsistentHash`] it is [`hash_key`]: origins are
    /// ordered by rendezvous hashing (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998), so
    /// the second choice of a key is the same for everybody, too.
    #[must_use]
    pub fn order(&self, key: u64, attempt: usize) -> usize {
        let count = self.origins.len();
        let attempt = attempt % count.max(1);
        match self.balance {
            _ if count <= 1 => 0,
            Balance::RoundRobin => usize::try_from(key % count as u64).unwrap_or(0).wrapping_add(attempt) % count,
            Balance::ConsistentHash => {
                // The rank is found without sorting: attempts are few, and nothing may be allocated.
                let mut below = (u64::MAX, usize::MAX);
                let mut best = (0, 0);
                for round in 0..=attempt {
                    let weights = self.origins.iter().enumerate().map(|(i, o)| (mix(key ^ o.seed), i));
                    best = weights.filter(|w| round == 0 || *w < below).max().unwrap_or_default();
                    below = best;
                }
                best.1
            }
        }
    }

    fn compile(source: RuleSource) -> Result<Self, RuleFault> {
        check_path(&source.path)?;
        if source.origins.is_empty() {
            return Err(RuleFault::NoOrigin);
        }
        let mut origins = Vec::with_capacity(source.origins.len());
        for Origin { authority, path } in source.origins {
            check_path(&path)?;
            if !crate::wire::h1::is_authority(authority.as_bytes()) {
                return Err(RuleFault::BadHost(authority));
            }
            let base_len = path.strip_suffix('/').unwrap_or(&path).len();
            let seed = xxh3_64(authority.as_bytes());
            origins.push(CompiledOrigin { authority, path, base_len, seed });
        }
        let host = match source.host {
            None => None,
            Some(HostPattern::Exact(host)) => Some(HostPattern::Exact(check_host(&host, &host)?)),
            Some(HostPattern::Suffix(host)) => {
                let bare = host.trim_start_matches('*').trim_start_matches('.');
                Some(HostPattern::Suffix(check_host(bare, &host)?))
            }
        };
        let below_only = source.path.len() > 1 && source.path.ends_with('/');
        let base = source.path.strip_suffix('/').unwrap_or(&source.path).to_owned();
        Ok(Self { host, port: source.port, base, below_only, origins, balance: source.balance })
    }

    #[inline]
    fn fits_path(&self, path: &[u8]) -> bool {
        match path.strip_prefix(self.base.as_bytes()) {
            Some([b'/', ..]) => true,
            Some([]) => !self.below_only,
            _ => false,
        }
    }

    fn fits_host(&self, host: &[u8]) -> bool {
        match &self.host {
            None => true,
            Some(HostPattern::Exact(exact)) => host.eq_ignore_ascii_case(exact.as_bytes()),
            Some(HostPattern::Suffix(suffix)) => {
                let Some(dot) = host.len().checked_sub(suffix.len() + 1) else { return false };
                dot > 0 && host[dot] == b'.' && host[dot + 1..].eq_ignore_ascii_case(suffix.as_bytes())
            }
        }
    }
}

/// The key of a request for [`Balance::ConsistentHash`].
#[inline]
#[must_use]
pub fn hash_key(path_and_query: &[u8]) -> u64 {
    xxh3_64(path_and_query)
}

/// The longest name DNS has. Longer ones fit no exact rule.
const HOST_LEN_MAX: usize = 255;

/// The finaliser of `splitmix64`: two keys that differ in one bit get unrelated weights.
const fn mix(z: u64) -> u64 {
    let z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn check_path(path: &str) -> Result<(), RuleFault> {
    if !path.starts_with('/') || path.bytes().any(|b| b <= b' ' || b >= 0x7f || b == b'?' || b == b'#') {
        return Err(RuleFault::BadPath(path.to_owned()));
    }
    if disguise::is_plain(path.as_bytes()) { Ok(()) } else { Err(RuleFault::DisguisedPath(path.to_owned())) }
}

fn check_host(host: &str, written: &str) -> Result<String, RuleFault> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let (name, port) = split_port(host.as_bytes());
    let lawful = port.is_none() && name.len() <= HOST_LEN_MAX && crate::wire::h1::is_authority(name);
    if lawful { Ok(host.to_ascii_lowercase()) } else { Err(RuleFault::BadHost(written.to_owned())) }
}
