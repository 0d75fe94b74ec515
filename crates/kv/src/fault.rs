//! What went wrong with a request that was well formed, and the line that says so.

use crate::plan::Protocol;

/// Why a request has no reply of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Nobody listens there, or all servers of the pool are ejected.
    Refused,
    /// The connection broke.
    Reset,
    /// The server closed it.
    Closed,
    /// No answer within the pool's timeout.
    TimedOut,
    /// Its name does not resolve, or there is no way to it.
    Unreachable,
    /// It did not take our password, or the database.
    Handshake,
    /// It said something that is no reply, or that nobody asked for.
    Nonsense,
    /// The reply is larger than may be kept while earlier ones are awaited.
    TooLarge,
    /// Parts of one request were answered by what cannot be joined.
    Unlike,
    /// The proxy itself failed at what the server sent.
    Internal,
}

impl Fault {
    /// Each.
    pub(crate) const ALL: [Self; 10] = [
        Self::Refused,
        Self::Reset,
        Self::Closed,
        Self::TimedOut,
        Self::Unreachable,
        Self::Handshake,
        Self::Nonsense,
        Self::TooLarge,
        Self::Unlike,
        Self::Internal,
    ];

    /// The line a client gets, in twemproxy's words where it has any.
    pub(crate) fn line(self, protocol: Protocol) -> &'static [u8] {
        macro_rules! lines {
            ($($fault:ident: $text:literal),+ $(,)?) => {
                match (self, protocol) {
                    $((Self::$fault, Protocol::Redis) => concat!("-ERR ", $text, "\r\n").as_bytes(),
                    (Self::$fault, Protocol::Memcached) => concat!("SERVER_ERROR ", $text, "\r\n").as_bytes(),)+
                }
            };
        }
        lines! {
            Refused: "Connection refused",
            Reset: "Connection reset by peer",
            Closed: "the server closed the connection",
            TimedOut: "Connection timed out",
            Unreachable: "Host is down",
            Handshake: "the server refused the proxy's password or database",
            Nonsense: "the server sent what is no reply",
            TooLarge: "the reply is too large to wait for earlier ones",
            Unlike: "the servers' replies cannot be joined",
            Internal: "an internal error of the proxy",
        }
    }

    /// What it is called where operators read of it.
    pub(crate) const fn outcome(self) -> &'static str {
        match self {
            Self::Refused => "connection refused",
            Self::Reset => "connection reset",
            Self::Closed => "connection closed",
            Self::TimedOut => "timed out",
            Self::Unreachable => "unreachable",
            Self::Handshake => "handshake refused",
            Self::Nonsense => "no valid reply",
            Self::TooLarge => "reply too large",
            Self::Unlike => "replies unlike",
            Self::Internal => "internal error",
        }
    }

    /// What an error of a connection is.
    pub(crate) fn of(error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        match error.kind() {
            Kind::ConnectionRefused | Kind::NotFound | Kind::WouldBlock => Self::Refused,
            Kind::TimedOut => Self::TimedOut,
            Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown => Self::Unreachable,
            _ => Self::Reset,
        }
    }
}
