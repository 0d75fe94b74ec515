//! Status codes that we say ourselves, and whose fault each means.

/// Who has to do something about an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The request, and so who sent it.
    Request,
    /// The origin's answer.
    Origin,
    /// The origin is late.
    OriginLate,
    /// We are full, or draining, or wrongly configured.
    Proxy,
}

impl Fault {
    /// Whose fault an error of this status is.
    #[must_use]
    pub const fn of(status: u16) -> Self {
        match status {
            502 => Self::Origin,
            504 => Self::OriginLate,
            400..=499 | 501 | 505 => Self::Request,
            _ => Self::Proxy,
        }
    }

    /// One sentence for the error page.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Request => "The request was not accepted.",
            Self::Origin => "The origin server did not give a usable answer.",
            Self::OriginLate => "The origin server did not answer in time.",
            Self::Proxy => "The proxy cannot serve this request now.",
        }
    }
}

/// The reason phrase of RFC 9110 §15 and the registry, for the codes that a proxy says or is likely to see.
#[must_use]
pub const fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        _ if status / 100 == 4 => "Client Error",
        _ if status / 100 == 5 => "Server Error",
        _ => "",
    }
}
