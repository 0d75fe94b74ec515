//! Unix sockets that keep packets apart and carry descriptors (`SOCK_SEQPACKET`, `SCM_RIGHTS`).
//!
//! Everything is non-blocking and close-on-exec. A packet arrives whole or is an error; so do its descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::net::{self, RecvAncillaryBuffer, RecvAncillaryMessage, SendAncillaryBuffer, SendAncillaryMessage};

/// Descriptors in one packet at most.
pub const DESCRIPTORS_MAX: usize = 128;

/// Binds and listens at `path`, readable and writable by the owner alone. What is left there of a dead process must have
/// been removed before.
///
/// # Errors
/// `EADDRINUSE` when there is something at `path`; what `socket(2)`, `bind(2)`, `listen(2)` and `chmod(2)` say.
pub fn listen(path: &Path, backlog: i32) -> io::Result<OwnedFd> {
    let fd = socket()?;
    at_short_path(path, |short| Ok(net::bind(&fd, &net::SocketAddrUnix::new(short)?)?))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    net::listen(&fd, backlog)?;
    Ok(fd)
}

/// Connects to the socket at `path`. Never waits: a full queue is `WouldBlock`.
///
/// # Errors
/// `ENOENT` when nothing is there, `ECONNREFUSED` when its owner is dead, `WouldBlock`.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let fd = socket()?;
    at_short_path(path, |short| Ok(net::connect(&fd, &net::SocketAddrUnix::new(short)?)?))?;
    Ok(fd)
}

/// The next connection; `WouldBlock` when none waits.
///
/// # Errors
/// What `accept4(2)` says.
pub fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    Ok(net::accept_with(listener, net::SocketFlags::NONBLOCK | net::SocketFlags::CLOEXEC)?)
}

/// The pid and the user of the process at the other end, as the kernel noted them when it connected.
///
/// # Errors
/// What `getsockopt(2)` says.
pub fn peer(socket: impl AsFd) -> io::Result<(u32, u32)> {
    let credentials = net::sockopt::socket_peercred(socket)?;
    Ok((credentials.pid.as_raw_nonzero().get().unsigned_abs(), credentials.uid.as_raw()))
}

/// Sends one packet with descriptors. `WouldBlock` when the other end's queue is full; nothing was sent then.
///
/// # Errors
/// How the connection died; `EINVAL` for more than [`DESCRIPTORS_MAX`]; `EMSGSIZE` for a packet the kernel cannot hold.
pub fn send(socket: impl AsFd, packet: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if descriptors.len() > DESCRIPTORS_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = net::SendFlags::NOSIGNAL | net::SendFlags::DONTWAIT;
    net::sendmsg(socket, &[IoSlice::new(packet)], &mut ancillary, flags)?;
    Ok(())
}

/// The length of the packet that waits to be received; 0 at the end of the connection.
///
/// # Errors
/// `WouldBlock` when there is none; how the connection died.
pub fn waiting(socket: impl AsFd) -> io::Result<usize> {
    let mut nothing = [0_u8; 0];
    let flags = net::RecvFlags::PEEK | net::RecvFlags::TRUNC | net::RecvFlags::DONTWAIT;
    Ok(net::recv(socket, &mut nothing[..], flags)?.1)
}

/// Receives one packet into `buffer`: its length, and its descriptors (close-on-exec). Length 0 without descriptors is
/// the end of the connection.
///
/// # Errors
/// `WouldBlock` when there is none; `InvalidData` when the packet or its descriptors did not fit (they are gone).
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = net::RecvFlags::DONTWAIT | net::RecvFlags::CMSG_CLOEXEC;
    let message = net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags)?;
    let mut descriptors = Vec::new();
    for item in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = item {
            descriptors.extend(rights);
        }
    }
    if message.flags.intersects(net::ReturnFlags::TRUNC | net::ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a packet larger than its reader allows"));
    }
    Ok((message.bytes, descriptors))
}

fn socket() -> io::Result<OwnedFd> {
    let flags = net::SocketFlags::NONBLOCK | net::SocketFlags::CLOEXEC;
    Ok(net::socket_with(net::AddressFamily::UNIX, net::SocketType::SEQPACKET, flags, None)?)
}

/// The kernel takes 107 bytes of path. A longer one is reached through a descriptor of its directory.
fn at_short_path<T>(path: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    const PATH_MAX: usize = 107;
    if path.as_os_str().len() <= PATH_MAX {
        return act(path);
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&directory);
    act(&Path::new("/proc/self/fd").join(number.to_string()).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn directory(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("beltway-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_packet_carries_descriptors_to_the_other_end() {
        let home = directory("ancillary");
        let path = home.join("s");
        let listener = listen(&path, 4).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let client = connect(&path).unwrap();
        let server = accept(&listener).unwrap();
        assert_eq!(peer(&server).unwrap().0, std::process::id());
        let (mut reader, writer) = std::io::pipe().unwrap();
        send(&client, b"one", &[writer.as_fd()]).unwrap();
        send(&client, b"two", &[]).unwrap();
        drop(writer);
        let mut buffer = [0; 16];
        assert_eq!(waiting(&server).unwrap(), 3);
        let (length, mut fds) = receive(&server, &mut buffer).unwrap();
        assert_eq!((&buffer[..length], fds.len()), (&b"one"[..], 1));
        std::fs::File::from(fds.pop().unwrap()).write_all(b"through").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        assert_eq!(receive(&server, &mut buffer).unwrap().0, 3);
        assert_eq!(receive(&server, &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(waiting(&server).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(client);
        assert_eq!(waiting(&server).unwrap(), 0);
        assert_eq!(receive(&server, &mut buffer).unwrap().0, 0);
        std::fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn a_packet_larger_than_the_buffer_is_an_error_and_not_a_shorter_packet() {
        let home = directory("trunc");
        let listener = listen(&home.join("s"), 4).unwrap();
        let client = connect(&home.join("s")).unwrap();
        let server = accept(&listener).unwrap();
        send(&client, &[b'x'; 32], &[]).unwrap();
        assert_eq!(receive(&server, &mut [0; 16]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        std::fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn a_path_longer_than_the_kernel_takes_works_all_the_same() {
        let home = directory("long");
        let deep = home.join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let listener = listen(&deep.join("control.sock"), 4).unwrap();
        let _client = connect(&deep.join("control.sock")).unwrap();
        accept(&listener).unwrap();
        std::fs::remove_dir_all(home).unwrap();
    }
}
