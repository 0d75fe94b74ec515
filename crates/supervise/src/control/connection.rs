//! One end of a control connection.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::{Clock, SystemClock};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::message::{PACKET_MAX, PROTOCOL, Packet, Reply, Request};

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody is there.
    #[error("nobody answers at {0}")]
    Absent(PathBuf, #[source] io::Error),
    /// The connection broke.
    #[error("the control connection broke")]
    Io(#[from] io::Error),
    /// The other end closed it.
    #[error("the control connection was closed")]
    Closed,
    /// A packet that is not of this protocol.
    #[error("the control packet makes no sense: {0}")]
    Malformed(String),
    /// A packet of this protocol with a word that we do not know: its number, and what is not understood.
    #[error("the control packet {0} is not understood: {1}")]
    Unknown(u64, String),
    /// It speaks another version.
    #[error("it speaks version {0} of the control protocol, this is version {PROTOCOL}")]
    Protocol(u16),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// It will not.
    #[error("{0}")]
    Refused(String),
}

/// A packet and the descriptors that came with it.
pub type Arrived<T> = (Packet<T>, Vec<OwnedFd>);

/// One end of a control connection. Nothing waits, but [`Connection::ask`], and that with a bound.
#[derive(Debug)]
pub struct Connection {
    fd: OwnedFd,
}

impl Connection {
    /// Connects to the endpoint at `path`.
    ///
    /// # Errors
    /// [`ControlError::Absent`].
    pub fn open(path: &Path) -> Result<Self, ControlError> {
        let fd = sys::ancillary::connect(path).map_err(|error| ControlError::Absent(path.to_owned(), error))?;
        Ok(Self { fd })
    }

    pub(super) const fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Sends one packet. Never waits: a peer that does not read its packets is an error.
    ///
    /// # Errors
    /// The connection broke or is full; the packet is too large.
    pub fn send<T: Serialize>(&self, sequence: u64, body: T, fds: &[BorrowedFd<'_>]) -> Result<(), ControlError> {
        let packet = Packet { protocol: PROTOCOL, sequence, body };
        let mut bytes = serde_json::to_vec(&packet).map_err(|error| ControlError::Malformed(error.to_string()))?;
        bytes.push(b'\n');
        if bytes.len() > PACKET_MAX {
            return Err(ControlError::Malformed(format!("{} bytes, of at most {PACKET_MAX}", bytes.len())));
        }
        Ok(sys::ancillary::send(&self.fd, &bytes, fds)?)
    }

    /// Takes one packet that has arrived; `None` when there is none. Never waits.
    ///
    /// # Errors
    /// The connection broke or was closed; the packet is too large, of another version, or makes no sense.
    pub fn receive<T: DeserializeOwned>(&self) -> Result<Option<Arrived<T>>, ControlError> {
        let length = match sys::ancillary::waiting(&self.fd) {
            Ok(0) => return Err(ControlError::Closed),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if length > PACKET_MAX {
            return Err(ControlError::Malformed(format!("{length} bytes, of at most {PACKET_MAX}")));
        }
        let mut bytes = vec![0; length];
        let (length, fds) = sys::ancillary::receive(&self.fd, &mut bytes)?;
        let bytes = bytes.get(..length).unwrap_or_default();
        // The version first: what else is in a packet of another one, we cannot know.
        let malformed = |error: serde_json::Error| ControlError::Malformed(error.to_string());
        let envelope: Packet<serde::de::IgnoredAny> = serde_json::from_slice(bytes).map_err(malformed)?;
        if envelope.protocol != PROTOCOL {
            return Err(ControlError::Protocol(envelope.protocol));
        }
        let unknown = |error: serde_json::Error| ControlError::Unknown(envelope.sequence, error.to_string());
        Ok(Some((serde_json::from_slice(bytes).map_err(unknown)?, fds)))
    }

    /// Asks and waits for the answer, at most `bound`.
    ///
    /// # Errors
    /// Any; [`ControlError::Refused`] when the answer is a refusal.
    pub fn ask(&self, request: Request, bound: Duration) -> Result<(Reply, Vec<OwnedFd>), ControlError> {
        let deadline = SystemClock.now() + bound;
        self.send(1, request, &[])?;
        loop {
            if let Some((packet, fds)) = self.receive::<Reply>()? {
                return match packet.body {
                    Reply::Refused(why) => Err(ControlError::Refused(why)),
                    reply => Ok((reply, fds)),
                };
            }
            let left = deadline.since(SystemClock.now());
            if left.is_zero() {
                return Err(ControlError::Late(bound));
            }
            crate::wait::readable(&[self.fd.as_fd()], left)?;
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
