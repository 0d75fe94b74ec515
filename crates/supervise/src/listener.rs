//! Listening sockets that outlive the processes which accept from them: their names, and how they are handed over.
//!
//! Manager binds, server and cop hold copies. A listener is known by its [`ListenerName`]: what it is for, and the
//! address as configured (which, for port 0, is not the address it has). On a command line it is
//! `PORT:fd=NUMBER`, several separated by commas, in the order of the configuration.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use serde::{Deserialize, Serialize};

/// Listeners that one Beltway has at most.
pub const LISTENERS_MAX: usize = sys::ancillary::DESCRIPTORS_MAX;

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListenerKind {
    /// HTTP clients.
    Http,
    /// The server's own page.
    Server,
    /// The embedded origin.
    Demo,
    /// Manager's admin port.
    Admin,
}

impl ListenerKind {
    /// As it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Server => "server",
            Self::Demo => "demo",
            Self::Admin => "admin",
        }
    }

    /// The server accepts from it.
    #[must_use]
    pub const fn is_servers(self) -> bool {
        !matches!(self, Self::Admin)
    }
}

/// Which listener is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerName {
    /// What it is for.
    pub kind: ListenerKind,
    /// Its place among those of its kind.
    pub index: usize,
    /// The address as configured.
    pub configured: SocketAddr,
    /// How many connections may wait in its queue.
    pub backlog: u32,
}

/// A listener that we hold.
#[derive(Debug)]
pub struct Listener {
    /// Which it is.
    pub name: ListenerName,
    /// The socket.
    pub fd: OwnedFd,
}

impl Listener {
    /// Binds and listens.
    ///
    /// # Errors
    /// What the kernel says: the address is taken, or not ours.
    pub fn bind(name: ListenerName) -> std::io::Result<Self> {
        let fd = sys::socket::listen(name.configured, name.backlog)?;
        Ok(Self { name, fd })
    }

    /// The address it is bound to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        // The socket was bound by us or handed over as a listener; a kernel that cannot say leaves what was asked for.
        sys::socket::local_address(&self.fd).ok().flatten().unwrap_or(self.name.configured)
    }
}

/// Every listener that `config` asks for, in its order.
#[must_use]
pub fn wanted(config: &config::Config) -> Vec<ListenerName> {
    const BACKLOG: u32 = 128; // for the few who ask a page or an admin port
    let one = |kind, address: &Option<config::Spanned<SocketAddr>>| {
        let address = address.as_ref()?;
        Some(ListenerName { kind, index: 0, configured: address.value, backlog: BACKLOG })
    };
    let http = config.http.listen.iter().enumerate().map(|(index, listener)| ListenerName {
        kind: ListenerKind::Http,
        index,
        configured: listener.address.value,
        backlog: listener.backlog,
    });
    http.chain(one(ListenerKind::Server, &config.server.listen))
        .chain(one(ListenerKind::Demo, &config.demo.origin))
        .chain(one(ListenerKind::Admin, &config.admin.listen))
        .collect()
}

/// Pairs names and descriptors that came in one packet.
///
/// # Errors
/// Their numbers differ: nothing of it can be trusted.
pub fn paired(names: Vec<ListenerName>, fds: Vec<OwnedFd>) -> Result<Vec<Listener>, String> {
    if names.len() != fds.len() {
        return Err(format!("{} listeners were named and {} came", names.len(), fds.len()));
    }
    Ok(names.into_iter().zip(fds).map(|(name, fd)| Listener { name, fd }).collect())
}

/// A descriptor promised on a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promised {
    /// The port it is bound to; 0 when it does not matter.
    pub port: u16,
    /// Its number.
    pub fd: RawFd,
}

/// Why a text is no list of promised descriptors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{item}` is not PORT:fd=NUMBER, such as 8080:fd=9")]
pub struct PromiseError {
    /// The part that is wrong.
    pub item: String,
}

/// Reads `8080:fd=9,8443:fd=10`.
///
/// # Errors
/// The first part that is something else.
pub fn parse_promised(text: &str) -> Result<Vec<Promised>, PromiseError> {
    let parse = |item: &str| {
        let (port, fd) = item.split_once(":fd=")?;
        // `parse` alone would take a sign.
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        (digits(port) && digits(fd)).then_some(())?;
        Some(Promised { port: port.parse().ok()?, fd: fd.parse().ok()? })
    };
    text.split(',').map(|item| parse(item).ok_or_else(|| PromiseError { item: item.to_owned() })).collect()
}

/// Writes what [`parse_promised`] reads.
#[must_use]
pub fn format_promised(promised: &[Promised]) -> String {
    promised.iter().map(|p| format!("{}:fd={}", p.port, p.fd)).collect::<Vec<_>>().join(",")
}

/// The option that hands a listener of this kind to a server; `None` for one that the server does not accept from.
#[must_use]
pub const fn option(kind: ListenerKind) -> Option<&'static str> {
    match kind {
        ListenerKind::Http => Some("--httpport"),
        ListenerKind::Server => Some("--serverport"),
        ListenerKind::Demo => Some("--demoport"),
        ListenerKind::Admin => None,
    }
}

/// The server's command line and descriptors for some listeners: the first gets number `first`, and so on.
#[must_use]
pub fn promise(listeners: &[Listener], first: RawFd) -> (Vec<String>, Vec<(BorrowedFd<'_>, RawFd)>) {
    let mut arguments = Vec::new();
    let mut descriptors = Vec::new();
    let mut number = first;
    for kind in [ListenerKind::Http, ListenerKind::Server, ListenerKind::Demo] {
        let mut promised = Vec::new();
        for listener in listeners.iter().filter(|l| l.name.kind == kind) {
            promised.push(Promised { port: listener.address().port(), fd: number });
            descriptors.push((listener.fd.as_fd(), number));
            number += 1;
        }
        if let (Some(option), false) = (option(kind), promised.is_empty()) {
            arguments.push(option.to_owned());
            arguments.push(format_promised(&promised));
        }
    }
    (arguments, descriptors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(kind: ListenerKind, index: usize) -> Listener {
        let configured = "127.0.0.1:0".parse().unwrap();
        Listener::bind(ListenerName { kind, index, configured, backlog: 16 }).unwrap()
    }

    #[test]
    fn a_list_of_descriptors_reads_back_as_it_was_written() {
        let promised = parse_promised("8080:fd=9,8443:fd=10").unwrap();
        assert_eq!(promised, [Promised { port: 8080, fd: 9 }, Promised { port: 8443, fd: 10 }]);
        assert_eq!(format_promised(&promised), "8080:fd=9,8443:fd=10");
        for wrong in ["", "8080", "8080:fd=", ":fd=3", "8080:fd=-1", "+80:fd=3", "99999:fd=3", "80:fd=3,", "80:fd=3 "] {
            assert!(parse_promised(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(
            parse_promised("80:fd=3,x").unwrap_err().to_string(),
            "`x` is not PORT:fd=NUMBER, such as 8080:fd=9"
        );
    }

    #[test]
    fn the_server_is_promised_its_own_listeners_and_not_the_admin_port() {
        let listeners = [
            listener(ListenerKind::Http, 0),
            listener(ListenerKind::Http, 1),
            listener(ListenerKind::Server, 0),
            listener(ListenerKind::Admin, 0),
        ];
        let (arguments, descriptors) = promise(&listeners, 9);
        let ports: Vec<_> = listeners.iter().map(|l| l.address().port()).collect();
        assert_eq!(
            arguments,
            [
                "--httpport".to_owned(),
                format!("{}:fd=9,{}:fd=10", ports[0], ports[1]),
                "--serverport".to_owned(),
                format!("{}:fd=11", ports[2]),
            ]
        );
        assert_eq!(descriptors.iter().map(|d| d.1).collect::<Vec<_>>(), [9, 10, 11]);
    }

    #[test]
    fn names_without_their_descriptors_are_refused() {
        let listener = listener(ListenerKind::Http, 0);
        assert!(paired(vec![listener.name.clone()], vec![]).is_err());
        assert_eq!(paired(vec![listener.name], vec![listener.fd]).unwrap().len(), 1);
    }
}
