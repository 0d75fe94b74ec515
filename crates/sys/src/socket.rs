//! Stream sockets: listening, accepting, connecting, receiving into memory not yet initialised, gathered sends.
//!
//! Everything is non-blocking and close-on-exec; `WouldBlock` is an ordinary answer.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::net;

/// Binds and listens on `address`. `SO_REUSEADDR` is set, an IPv6 socket takes IPv6 only, accepted connections
/// inherit `TCP_NODELAY` (one system call a connection less).
///
/// # Errors
/// What `socket(2)`, `bind(2)` and `listen(2)` say: address in use, not ours, or no permission.
pub fn listen(address: SocketAddr, backlog: u32) -> io::Result<OwnedFd> {
    listen_beside(address, backlog, false)
}

/// As [`listen`]; `beside`: other processes may listen on the same address.
///
/// # Errors
/// As [`listen`].
pub fn listen_beside(address: SocketAddr, backlog: u32, beside: bool) -> io::Result<OwnedFd> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if beside {
        net::sockopt::set_socket_reuseport(&socket, true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Binds and listens on the Unix socket at `path`, with these permissions. A socket that is there already is replaced;
/// anything else that is there is left alone.
///
/// # Errors
/// What `socket(2)`, `bind(2)`, `chmod(2)` and `listen(2)` say; `EADDRINUSE` when something else is at `path`.
pub fn listen_unix(path: &Path, mode: Option<u32>, backlog: u32) -> io::Result<OwnedFd> {
    use socket2::{Domain, SockAddr, Socket, Type};
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match std::fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => std::fs::remove_file(path)?,
        // Left for `bind` to refuse.
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    socket.bind(&SockAddr::unix(path)?)?;
    if let Some(mode) = mode {
        set_mode(path, mode)?;
    }
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Gives the Unix socket at `path` these permissions.
///
/// # Errors
/// What `chmod(2)` says.
pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// Has the kernel probe the connection while it is idle, or no longer; of a listener: the connections it accepts from
/// here on. A Unix socket has nothing to probe.
///
/// # Errors
/// What `setsockopt(2)` says.
pub fn set_keepalive(fd: impl AsFd, on: bool) -> io::Result<()> {
    Ok(net::sockopt::set_socket_keepalive(fd, on)?)
}

/// Makes an inherited listener fit for an event thread: non-blocking, close-on-exec, `TCP_NODELAY` for what it accepts.
///
/// # Errors
/// What `fcntl(2)` and `setsockopt(2)` say; `EBADF` when the descriptor is not open.
pub fn adopt_listener(fd: &OwnedFd) -> io::Result<()> {
    rustix::io::ioctl_fionbio(fd, true)?;
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
    if net::sockopt::socket_domain(fd)? != net::AddressFamily::UNIX {
        net::sockopt::set_tcp_nodelay(fd, true)?;
    }
    Ok(())
}

/// The next connection of a listener and its peer's address (`None` for a peer without one).
///
/// # Errors
/// `WouldBlock` when none waits; `ECONNABORTED` when it went away meanwhile; `EMFILE` when descriptors ran out.
#[inline]
pub fn accept(listener: impl AsFd) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let flags = net::SocketFlags::NONBLOCK | net::SocketFlags::CLOEXEC;
    let (fd, peer) = net::acceptfrom_with(listener, flags)?;
    Ok((fd, peer.and_then(|peer| SocketAddr::try_from(peer).ok())))
}

/// Starts connecting to `address`. The socket becomes writable when that has ended: then ask [`take_error`].
///
/// # Errors
/// What `socket(2)` and `connect(2)` say, except that it is in progress.
pub fn connect(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { net::AddressFamily::INET6 } else { net::AddressFamily::INET };
    let flags = net::SocketFlags::NONBLOCK | net::SocketFlags::CLOEXEC;
    let fd = net::socket_with(family, net::SocketType::STREAM, flags, Some(net::ipproto::TCP))?;
    net::sockopt::set_tcp_nodelay(&fd, true)?;
    match net::connect(&fd, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(fd),
        Err(error) => Err(error.into()),
    }
}

/// Whether this side could not open a connection for want of means: descriptors or memory, of the process or the machine.
/// Says nothing of the other side.
#[must_use]
pub fn is_want_of_means(error: &io::Error) -> bool {
    // ENOSPC: as many descriptors are watched as the user may watch.
    const WANTS: [i32; 5] = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::ENOSPC];
    error.raw_os_error().is_some_and(|code| WANTS.contains(&code))
}

/// Takes the socket's pending error: after a connect has ended, `Ok` says that it succeeded.
///
/// # Errors
/// The pending error.
pub fn take_error(fd: impl AsFd) -> io::Result<()> {
    net::sockopt::socket_error(fd)?.map_err(io::Error::from)
}

/// Receives into `into` and says how many bytes are now initialised; 0 is the end of the stream.
///
/// # Errors
/// `WouldBlock`, or how the connection died.
#[inline]
pub fn receive(fd: impl AsFd, into: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    let ((filled, _rest), _) = net::recv(fd, into, net::RecvFlags::empty())?;
    Ok(filled.len())
}

/// Whether a connection that should be silent still is: `true` when nothing has arrived and it is open.
#[must_use]
pub fn is_quiet(fd: impl AsFd) -> bool {
    let mut byte = [0];
    matches!(net::recv(fd, &mut byte, net::RecvFlags::PEEK | net::RecvFlags::DONTWAIT), Err(rustix::io::Errno::AGAIN))
}

/// Sends from one slice. Says how many bytes were taken.
///
/// # Errors
/// `WouldBlock`, or how the connection died; never a signal.
#[inline]
pub fn send(fd: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(net::send(fd, bytes, net::SendFlags::NOSIGNAL)?)
}

/// Sends from several slices in one system call. Says how many bytes were taken.
///
/// # Errors
/// As [`send`].
#[inline]
pub fn send_gathered(fd: impl AsFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let mut none = net::SendAncillaryBuffer::default();
    Ok(net::sendmsg(fd, slices, &mut none, net::SendFlags::NOSIGNAL)?)
}

/// Ends our direction of the stream: the peer reads the end after all bytes sent so far.
///
/// # Errors
/// `ENOTCONN` when the connection is gone already.
pub fn shutdown_write(fd: impl AsFd) -> io::Result<()> {
    Ok(net::shutdown(fd, net::Shutdown::Write)?)
}

/// Makes the coming close abort the connection (RST) instead of ending it: for a body that was cut.
///
/// # Errors
/// What `setsockopt(2)` says.
pub fn abort_on_close(fd: impl AsFd) -> io::Result<()> {
    Ok(net::sockopt::set_socket_linger(fd, Some(std::time::Duration::ZERO))?)
}

/// The address this socket is bound to; `None` for one without an IP address.
///
/// # Errors
/// What `getsockname(2)` says.
pub fn local_address(fd: impl AsFd) -> io::Result<Option<SocketAddr>> {
    Ok(SocketAddr::try_from(net::getsockname(fd)?).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_want_of_means_is_ours_and_a_refusal_is_not() {
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::ENOSPC] {
            assert!(is_want_of_means(&io::Error::from_raw_os_error(code)), "{code}");
        }
        for code in [libc::ECONNREFUSED, libc::ETIMEDOUT, libc::EHOSTUNREACH, libc::ECONNRESET] {
            assert!(!is_want_of_means(&io::Error::from_raw_os_error(code)), "{code}");
        }
        assert!(!is_want_of_means(&io::ErrorKind::TimedOut.into()));
    }
}
