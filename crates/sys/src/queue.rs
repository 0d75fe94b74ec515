//! The queue of a listening socket: connections that the kernel has made and nobody has accepted yet.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// A listener's queue at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Queue {
    /// Connections that wait.
    pub waiting: u32,
    /// How many may wait: the backlog that was asked for, as far as the kernel allows it.
    pub waiting_max: u32,
    /// Tries to connect that were turned away, mostly because the queue was full. Clients try again by themselves.
    pub dropped: u32,
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
    Ok(Queue { waiting: info.tcpi_unacked, waiting_max: info.tcpi_sacked, dropped: dropped(listener.as_fd()) })
}

/// The largest queue that the kernel allows a listener; `None` when it does not tell.
#[must_use]
pub fn allowed() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?.trim().parse().ok()
}

/// What the socket has turned away since it was made; 0 when the kernel does not tell.
fn dropped(listener: BorrowedFd<'_>) -> u32 {
    /// The place of the count among the numbers of a socket's memory.
    const DROPS: usize = 8;
    let mut numbers = [0_u32; DROPS + 1];
    let mut length = libc::socklen_t::try_from(size_of_val(&numbers)).unwrap_or(0);
    // SAFETY: the descriptor is open for the call; `numbers` is writable and `length` says its size; the kernel keeps
    // neither pointer.
    let result = unsafe {
        libc::getsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            numbers.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == 0 { numbers[DROPS] } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// The kernel needs its time.
    fn eventually(holds: impl Fn() -> bool) {
        for _ in 0..30_000 {
            if holds() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("not within half a minute");
    }

    #[test]
    fn the_queue_shows_who_waits_and_how_many_may() {
        let listener = crate::socket::listen("127.0.0.1:0".parse().unwrap(), 7).unwrap();
        assert_eq!(of(&listener).unwrap(), Queue { waiting: 0, waiting_max: 7, dropped: 0 });
        let address = crate::socket::local_address(&listener).unwrap().unwrap();
        let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        // A client knows of its connection before the kernel counts it.
        eventually(|| of(&listener).unwrap().waiting == 3);
        assert!(of(&clients[0]).is_err(), "it does not listen");
        drop(TcpListener::from(listener));
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let listener = crate::socket::listen("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let address = crate::socket::local_address(&listener).unwrap().unwrap();
        assert_eq!(of(&listener).unwrap().dropped, 0);
        let clients: Vec<_> = (0..8).map(|_| crate::socket::connect(address).unwrap()).collect();
        // Who finds no room is turned away at once, and tries again a second later.
        eventually(|| of(&listener).unwrap().dropped > 0);
        assert!(allowed().is_none_or(|allowed| allowed > 0));
        drop(clients);
    }
}
