//! Settings that are one of a few words. The words in the file and the variants in the code are one list.

/// Declares an enum together with the words that stand for its variants in the file.
macro_rules! choice {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// The words that stand for the variants in the file, in the same order.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word that stands for this variant in the file.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The variant that `word` stands for.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

choice! {
    /// How an event thread does its I/O.
    Io {
        /// The best there is on this machine; today always epoll.
        Auto = "auto",
        /// `epoll(7)`.
        Epoll = "epoll",
    }
}

choice! {
    /// How much the log tells. Ordered: a level includes those before it.
    Level {
        /// Only what needs somebody to act.
        Error = "error",
        /// What may need somebody to act.
        Warn = "warn",
        /// What happened, rarely: starts, stops, reloads, deaths.
        Info = "info",
        /// What is needed to find a fault.
        Debug = "debug",
    }
}

choice! {
    /// How a rule chooses among several origins.
    Balance {
        /// One after the other.
        RoundRobin = "round_robin",
        /// By the request's URL, so that a URL stays with its origin while others come and go.
        ConsistentHash = "consistent_hash",
    }
}

choice! {
    /// The `Host` an origin receives.
    HostHeader {
        /// The client's own.
        Preserve = "preserve",
        /// The authority of the origin's URL.
        Origin = "origin",
    }
}

choice! {
    /// The shape of an access log line.
    LogFormat {
        /// Squid's native format.
        Squid = "squid",
        /// The NCSA common format.
        Common = "common",
        /// The common format with referrer and user agent.
        Combined = "combined",
        /// One JSON object a line.
        Json = "json",
    }
}

choice! {
    /// How an origin is told who the client is.
    Forwarded {
        /// `X-Forwarded-For` and `Forwarded`.
        Both = "both",
        /// `X-Forwarded-For` alone.
        XForwardedFor = "x_forwarded_for",
        /// `Forwarded` (RFC 7239) alone.
        Forwarded = "forwarded",
        /// Not at all; what the client sent passes unchanged.
        Off = "off",
    }
}

choice! {
    /// What turns a key into 32 bits, by twemproxy's names; the ring's own type says what each is.
    KvHash {
        /// Jenkins' one-at-a-time.
        OneAtATime = "one_at_a_time",
        /// The first four bytes of MD5; the only one that places keys as libmemcached does.
        Md5 = "md5",
        /// CRC-16 that is never cut to 16 bits.
        Crc16 = "crc16",
        /// libmemcached's 15 bits of CRC-32.
        Crc32 = "crc32",
        /// CRC-32.
        Crc32a = "crc32a",
        /// 64-bit FNV-1, cut to 32.
        Fnv1_64 = "fnv1_64",
        /// twemproxy's default: FNV-1a with constants cut to 32 bits.
        Fnv1a64 = "fnv1a_64",
        /// 32-bit FNV-1.
        Fnv1_32 = "fnv1_32",
        /// 32-bit FNV-1a.
        Fnv1a32 = "fnv1a_32",
        /// SuperFastHash.
        Hsieh = "hsieh",
        /// MurmurHash2.
        Murmur = "murmur",
        /// lookup3.
        Jenkins = "jenkins",
    }
}

choice! {
    /// How a key's hash chooses among the servers of a pool.
    KvDistribution {
        /// The ring of libmemcached.
        Ketama = "ketama",
        /// The remainder by the total weight.
        Modula = "modula",
        /// Any live server, anew for each request.
        Random = "random",
        /// The highest bid, on XXH3; not known to twemproxy. The pool's `hash` is not used.
        Rendezvous = "rendezvous",
        /// Redis Cluster's slots, by weight; not known to twemproxy. The pool's `hash` is not used.
        Slots = "slots",
    }
}

impl KvDistribution {
    /// Those that twemproxy's own file can name.
    pub(crate) const OF_TWEMPROXY: [Self; 3] = [Self::Ketama, Self::Modula, Self::Random];

    /// Whether it makes a number of a key by itself, and has no use for the pool's hash.
    pub(crate) fn hashes_by_itself(self) -> bool {
        matches!(self, Self::Rendezvous | Self::Slots)
    }
}

choice! {
    /// What happens to the keys of an ejected server.
    EjectPolicy {
        /// They go to the servers that are left, as with twemproxy.
        Rehash = "rehash",
        /// Requests for them are answered with an error.
        Error = "error",
        /// Reads of them find nothing; what would write is answered with an error.
        Miss = "miss",
    }
}

choice! {
    /// What becomes of a memcached request for several keys when the servers of some of them fail.
    MultigetPolicy {
        /// The whole is answered with an error.
        Error = "error",
        /// Those keys are missing from the answer.
        Miss = "miss",
    }
}
