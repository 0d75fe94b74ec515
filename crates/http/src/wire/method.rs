//! Request methods (RFC 9110 §9) and what may be assumed of them.

/// A request method. Those without a name here are [`Method::Other`] and are forwarded by their bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "each is the method of that name")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Trace,
    Connect,
    Patch,
    Purge,
    Other,
}

impl Method {
    /// The method of this name. Names are case-sensitive (RFC 9110 §9.1): `get` is another method.
    #[inline]
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"CONNECT" => Self::Connect,
            b"PATCH" => Self::Patch,
            b"PURGE" => Self::Purge,
            _ => Self::Other,
        }
    }

    /// The name; `?` for [`Method::Other`], whose name only the request knows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Connect => "CONNECT",
            Self::Patch => "PATCH",
            Self::Purge => "PURGE",
            Self::Other => "?",
        }
    }

    /// Asks for nothing to change at the origin (RFC 9110 §9.2.1).
    #[must_use]
    pub const fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options | Self::Trace)
    }

    /// May be sent a second time with the effect of the first (RFC 9110 §9.2.2).
    #[must_use]
    pub const fn is_idempotent(self) -> bool {
        self.is_safe() || matches!(self, Self::Put | Self::Delete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_case_sensitive_and_unknown_ones_are_neither_safe_nor_idempotent() {
        for method in [Method::Get, Method::Delete, Method::Purge, Method::Connect] {
            assert_eq!(Method::of(method.name().as_bytes()), method);
        }
        assert_eq!(Method::of(b"get"), Method::Other);
        assert!(!Method::Other.is_safe() && !Method::Other.is_idempotent());
        assert!(Method::Put.is_idempotent() && !Method::Put.is_safe());
        assert!(!Method::Post.is_idempotent() && !Method::Patch.is_idempotent());
    }
}
