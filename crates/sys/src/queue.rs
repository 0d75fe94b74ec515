//! The queue of a listening socket: connections that the kernel has made and nobody has accepted yet.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// A listener's queue at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Queue {
    /// Connections that wait.
    pub waiting: u32,
    /// How many may wait: the backlog that was asked for, as far as the kernel allows it.
    pub waiting_max: u32,
}

/// Reads the queue of a TCP listener.
///
/// # Errors
/// What `getsockopt(2)` says: it is no TCP socket. `InvalidInput`: it does not listen.
pub fn of(listener: impl AsFd) -> io::Result<Queue> {
    // SAFETY: `tcp_info` is plain old data for which all zeroes is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).unwrap_or(0);
    // SAFETY: the descriptor is open for the call; `info` is writable and `length` says its size; the kernel keeps neither
    // pointer.
    let result = unsafe {
        libc::getsockopt(
            listener.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    /// The state of a listener; the names of the other fields mean something else in this one.
    const LISTEN: u8 = 10;
    if info.tcpi_state != LISTEN {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(Queue { waiting: info.tcpi_unacked, waiting_max: info.tcpi_sacked })
}

/// The largest queue that the kernel allows a listener; `None` when it does not tell.
#[must_use]
pub fn allowed() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?.trim().parse().ok()
}

/// Connections that any listener of this network namespace did not take because its queue was full, since it began;
/// `None` when the kernel does not tell.
#[must_use]
pub fn overflows() -> Option<u64> {
    parse_overflows(&std::fs::read_to_string("/proc/self/net/netstat").ok()?)
}

/// Two lines of each kind: names, then values.
fn parse_overflows(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let place = names.split_ascii_whitespace().position(|name| name == "ListenOverflows")?;
    values.split_ascii_whitespace().nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_queue_shows_who_waits_and_how_many_may() {
        let listener = crate::socket::listen("127.0.0.1:0".parse().unwrap(), 7).unwrap();
        assert_eq!(of(&listener).unwrap(), Queue { waiting: 0, waiting_max: 7 });
        let address = crate::socket::local_address(&listener).unwrap().unwrap();
        let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        // A client knows of its connection before the kernel counts it.
        let mut looks = 0;
        while of(&listener).unwrap().waiting < 3 && looks < 1_000_000 {
            looks += 1;
        }
        assert_eq!(of(&listener).unwrap().waiting, 3);
        assert!(of(&clients[0]).is_err(), "it does not listen");
        drop(TcpListener::from(listener));
    }

    #[test]
    fn what_did_not_fit_is_read_by_its_name() {
        let text = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 22 333\nIpExt: A\nIpExt: 4\n";
        assert_eq!(parse_overflows(text), Some(22));
        for wrong in ["", "TcpExt: A B\n", "TcpExt: A\nTcpExt: 1\n", "TcpExt: ListenOverflows\nTcpExt: x\n"] {
            assert_eq!(parse_overflows(wrong), None);
        }
        assert!(allowed().is_none_or(|allowed| allowed > 0));
        let _ = overflows(); // a namespace may have none
    }
}
