//! Telling the service manager how we are (`sd_notify(3)`), and taking the sockets that it opened for us.
//!
//! Datagrams to the socket that the environment names. Nothing waits: one that the service manager has no room for is an
//! error.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use rustix::net;

/// The first descriptor that a service manager passes.
const FIRST_PASSED: RawFd = 3;
/// Descriptors that are taken of a service manager.
const PASSED_MAX: RawFd = 128;

/// Where the service manager listens.
#[derive(Debug)]
pub struct Notifier {
    fd: OwnedFd,
    address: net::SocketAddrUnix,
}

impl Notifier {
    /// As the environment says; `None` when nobody listens.
    ///
    /// # Errors
    /// The address is none of a Unix socket, or there is no descriptor left.
    pub fn from_environment() -> io::Result<Option<Self>> {
        std::env::var_os("NOTIFY_SOCKET").map(|address| Self::at(&address)).transpose()
    }

    /// The socket at `address`: a path, or a name in the abstract space behind an `@`.
    ///
    /// # Errors
    /// As [`Notifier::from_environment`].
    pub fn at(address: &OsStr) -> io::Result<Self> {
        let address = match address.as_bytes().strip_prefix(b"@") {
            Some(name) => net::SocketAddrUnix::new_abstract_name(name)?,
            None => net::SocketAddrUnix::new(address)?,
        };
        let flags = net::SocketFlags::NONBLOCK | net::SocketFlags::CLOEXEC;
        let fd = net::socket_with(net::AddressFamily::UNIX, net::SocketType::DGRAM, flags, None)?;
        Ok(Self { fd, address })
    }

    /// Says this: lines of `NAME=value`. Descriptors go with it, for the store.
    ///
    /// # Errors
    /// What `sendmsg(2)` says; `WouldBlock` when there is no room.
    pub fn say(&self, lines: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = [io::IoSlice::new(lines.as_bytes())];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = net::SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(net::SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = net::SendFlags::NOSIGNAL | net::SendFlags::DONTWAIT;
        net::sendmsg_addr(&self.fd, &self.address, &text, &mut ancillary, flags)?;
        Ok(())
    }
}

/// How often the service manager wants to hear from this process, if it does.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let is_for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|&usec| usec > 0 && is_for_us).map(Duration::from_micros)
}

/// The sockets that the service manager opened for this process, with their names. They are close-on-exec from now on. To
/// be asked once.
///
/// # Errors
/// The environment promises what is not there.
pub fn passed_sockets() -> io::Result<Vec<(String, OwnedFd)>> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<RawFd>().ok());
    let is_for_us = number("LISTEN_PID").is_some_and(|pid| u32::try_from(pid) == Ok(std::process::id()));
    let count = number("LISTEN_FDS").filter(|&count| is_for_us && count > 0).unwrap_or(0).min(PASSED_MAX);
    let names = std::env::var_os("LISTEN_FDNAMES").map(OsString::into_string).and_then(Result::ok).unwrap_or_default();
    let mut names = names.split(':');
    (FIRST_PASSED..FIRST_PASSED + count)
        .map(|number| Ok((names.next().unwrap_or_default().to_owned(), crate::process::inherited(number)?)))
        .collect()
}

/// Microseconds of the clock that service managers compare by.
#[must_use]
pub fn monotonic_usec() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    seconds.saturating_mul(1_000_000).saturating_add(nanos / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    #[test]
    fn a_service_manager_hears_what_is_said_at_a_path_and_at_an_abstract_name() {
        let path = std::env::temp_dir().join(format!("beltway-notify-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let name = format!("beltway-notify-{}", std::process::id());
        let listening = [
            (path.clone().into_os_string(), UnixDatagram::bind(&path).unwrap()),
            (
                OsString::from(format!("@{name}")),
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
            ),
        ];
        for (address, socket) in listening {
            Notifier::at(&address).unwrap().say("READY=1\nSTATUS=well\n", &[]).unwrap();
            let mut heard = [0; 64];
            let length = socket.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], b"READY=1\nSTATUS=well\n");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(Notifier::at(path.as_os_str()).unwrap().say("READY=1\n", &[]).is_err(), "nobody listens");
    }
}
