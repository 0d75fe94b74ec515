//! Field names that the rules know, as one-byte ids, and sets of them as one word.
//!
//! A head is searched many times on its way through a proxy: for its framing, its connection options, later for
//! what the cache must know. So each name is compared once, when the head is parsed; after that `Cache-Control` is
//! a number, and "does this head have any conditional field" is one AND. Names that are not in the table are
//! [`Known::Other`] and are forwarded by their bytes.
//!
//! Start with [`Known::of`]. To let the rules know another name, add a row; the table checks itself when compiled.

/// One field line of a head, borrowed from the buffer it was parsed in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field<'a> {
    /// The id of the name, [`Known::Other`] when the rules have no interest in it.
    pub known: Known,
    /// The name as it was sent.
    pub name: &'a [u8],
    /// The value without the whitespace around it. May be empty; may hold bytes above 0x7f.
    pub value: &'a [u8],
}

macro_rules! known_fields {
    ($($variant:ident = $name:literal,)*) => {
        /// The id of a field name.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Known {
            /// Any name that is not in the table.
            Other,
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        const NAMES: &[&str] = &["", $($name,)*];
        const BY_INDEX: &[Known] = &[Known::Other, $(Known::$variant,)*];
    };
}

known_fields! {
    Host = "host",
    ContentLength = "content-length",
    TransferEncoding = "transfer-encoding",
    Connection = "connection",
    KeepAlive = "keep-alive",
    ProxyConnection = "proxy-connection",
    ProxyAuthenticate = "proxy-authenticate",
    ProxyAuthorization = "proxy-authorization",
    ProxyAuthenticationInfo = "proxy-authentication-info",
    Te = "te",
    Trailer = "trailer",
    Upgrade = "upgrade",
    Http2Settings = "http2-settings",
    Expect = "expect",
    MaxForwards = "max-forwards",
    Via = "via",
    Forwarded = "forwarded",
    XForwardedFor = "x-forwarded-for",
    XForwardedHost = "x-forwarded-host",
    XForwardedProto = "x-forwarded-proto",
    XForwardedPort = "x-forwarded-port",
    XRealIp = "x-real-ip",
    XRequestId = "x-request-id",
    CdnLoop = "cdn-loop",
    Traceparent = "traceparent",
    EarlyData = "early-data",
    Priority = "priority",
    Date = "date",
    Age = "age",
    CacheControl = "cache-control",
    CdnCacheControl = "cdn-cache-control",
    SurrogateControl = "surrogate-control",
    Pragma = "pragma",
    Expires = "expires",
    Warning = "warning",
    Vary = "vary",
    Etag = "etag",
    LastModified = "last-modified",
    IfMatch = "if-match",
    IfNoneMatch = "if-none-match",
    IfModifiedSince = "if-modified-since",
    IfUnmodifiedSince = "if-unmodified-since",
    IfRange = "if-range",
    Range = "range",
    AcceptRanges = "accept-ranges",
    ContentRange = "content-range",
    ContentType = "content-type",
    ContentEncoding = "content-encoding",
    ContentLanguage = "content-language",
    ContentLocation = "content-location",
    ContentDisposition = "content-disposition",
    Location = "location",
    RetryAfter = "retry-after",
    Allow = "allow",
    Server = "server",
    CacheStatus = "cache-status",
    CacheTag = "cache-tag",
    SurrogateKey = "surrogate-key",
    Link = "link",
    Authorization = "authorization",
    WwwAuthenticate = "www-authenticate",
    AuthenticationInfo = "authentication-info",
    Cookie = "cookie",
    SetCookie = "set-cookie",
    Accept = "accept",
    AcceptCharset = "accept-charset",
    AcceptEncoding = "accept-encoding",
    AcceptLanguage = "accept-language",
    UserAgent = "user-agent",
    Referer = "referer",
    Origin = "origin",
}

impl Known {
    /// How many ids there are, [`Known::Other`] included.
    pub const COUNT: usize = NAMES.len();

    /// The id of `name`, in any case; `name` is a token. One multiplication, one table look-up and one comparison.
    #[inline]
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        if name.is_empty() || name.len() > NAME_LEN_MAX {
            return Self::Other;
        }
        let index = usize::from(SLOTS[slot(name)]);
        if is_same(name, NAMES[index].as_bytes()) { BY_INDEX[index] } else { Self::Other }
    }

    /// The name in lower case; empty for [`Known::Other`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        NAMES[self as usize]
    }

    /// Every id but [`Known::Other`].
    pub fn all() -> impl Iterator<Item = Self> {
        BY_INDEX[1..].iter().copied()
    }
}

/// A set of field names. [`Known::Other`] may be a member like any other.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FieldSet(u128);

impl FieldSet {
    /// Nothing.
    pub const EMPTY: Self = Self(0);

    /// The set of these names.
    #[must_use]
    pub const fn of(members: &[Known]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < members.len() {
            bits |= 1 << members[i] as u8;
            i += 1;
        }
        Self(bits)
    }

    /// This set and `known`.
    #[inline]
    #[must_use]
    pub const fn with(self, known: Known) -> Self {
        Self(self.0 | 1 << known as u8)
    }

    /// This set and all of `other`.
    #[inline]
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Is `known` a member?
    #[inline]
    #[must_use]
    pub const fn has(self, known: Known) -> bool {
        self.0 >> (known as u8) & 1 == 1
    }

    /// Is there a common member?
    #[inline]
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

const NAME_LEN_MAX: usize = 32;
const SLOT_BITS: u32 = 9;
/// Found by trial: gives every name of the table its own slot. A new name that breaks this fails the build; then
/// take another odd number.
const MULTIPLIER: u32 = 0x6a10_7b75;

static SLOTS: [u8; 1 << SLOT_BITS] = slots();

const fn slots() -> [u8; 1 << SLOT_BITS] {
    assert!(NAMES.len() <= 128, "a field set is a word of 128 bits");
    let mut slots = [0; 1 << SLOT_BITS];
    let mut index: u8 = 1;
    while (index as usize) < NAMES.len() {
        let name = NAMES[index as usize].as_bytes();
        assert!(name.len() <= NAME_LEN_MAX, "a known name is longer than names that are looked up");
        assert!(slots[slot(name)] == 0, "two known names share a slot: choose another multiplier");
        slots[slot(name)] = index;
        index += 1;
    }
    slots
}

/// First, last and three-quarter byte and the length tell all known names apart.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "names that are looked up are at most NAME_LEN_MAX long")]
const fn slot(name: &[u8]) -> usize {
    let n = name.len();
    let word = u32::from_le_bytes([name[0] | 0x20, name[n - 1] | 0x20, name[n * 3 / 4] | 0x20, n as u8]);
    (word.wrapping_mul(MULTIPLIER) >> (32 - SLOT_BITS)) as usize
}

/// Is `name` the same as `known`, a name of the table, but for case? Compares words, which may overlap: names are short,
/// and a loop over bytes would cost more than all the rest of parsing.
///
/// Setting bit 5 makes letters small and leaves `-` and digits alone. It makes the same of two different bytes only
/// where one of them is no token byte, or neither is in the table.
#[inline]
fn is_same(name: &[u8], known: &[u8]) -> bool {
    if name.len() != known.len() {
        return false;
    }
    if let (Some(a), Some(b)) = (name.first_chunk::<8>(), known.first_chunk::<8>()) {
        let (Some(y), Some(z)) = (name.last_chunk::<8>(), known.last_chunk::<8>()) else { return false };
        let mut differences = word(a) ^ u64::from_le_bytes(*b) | word(y) ^ u64::from_le_bytes(*z);
        if name.len() > 16 {
            let inner = 8..name.len() - 8;
            for (a, b) in name[inner.clone()].iter().zip(&known[inner]) {
                differences |= u64::from((a | 0x20) ^ b);
            }
        }
        return differences == 0;
    }
    if let (Some(a), Some(b)) = (name.first_chunk::<4>(), known.first_chunk::<4>()) {
        let (Some(y), Some(z)) = (name.last_chunk::<4>(), known.last_chunk::<4>()) else { return false };
        let half = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes) | 0x2020_2020;
        return half(a) ^ u32::from_le_bytes(*b) | half(y) ^ u32::from_le_bytes(*z) == 0;
    }
    name.iter().zip(known).all(|(a, b)| a | 0x20 == *b)
}

#[inline]
fn word(bytes: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*bytes) | 0x2020_2020_2020_2020
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_found_in_any_case_and_nothing_else_is() {
        for known in Known::all() {
            assert_eq!(Known::of(known.name().as_bytes()), known);
            assert_eq!(Known::of(known.name().to_uppercase().as_bytes()), known);
            let longer = format!("{}x", known.name());
            assert_eq!(Known::of(longer.as_bytes()), Known::Other);
            assert_eq!(Known::of(known.name().replace('-', "_").as_bytes()) == known, !known.name().contains('-'));
        }
        assert_eq!(Known::of(b""), Known::Other);
        assert_eq!(Known::of(&[b'a'; 300]), Known::Other);
    }

    #[test]
    fn a_set_knows_its_members() {
        let set = FieldSet::of(&[Known::Host, Known::Origin]);
        assert!(set.has(Known::Host) && set.has(Known::Origin) && !set.has(Known::Via));
        assert!(set.meets(FieldSet::EMPTY.with(Known::Origin)) && !set.meets(FieldSet::of(&[Known::Other])));
        assert!(set.union(FieldSet::of(&[Known::Via])).has(Known::Via));
    }
}
