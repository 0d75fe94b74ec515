//! Sending a piece's bytes without copying them: its pages are lent to the socket.
//!
//! ```text
//! piece ──vmsplice──> pipe (pages, not bytes) ──splice──> socket's queue ──> peer
//! ```
//!
//! The kernel reads lent pages whenever it comes to send them, and again when it repeats a segment; on the same machine
//! it even hands them to the receiver's queue. So nobody may ever write to them again, not even when the piece is gone:
//! its memory is then dropped, and the pages live on until the last socket has let go of them. A file in memory and
//! `sendfile` would do the same and cost more: its pages go one by one, 4 KiB each, and without huge pages it gains
//! nothing over copying (measured).

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net;
use rustix::pipe::{PipeFlags, SpliceFlags};

use super::Piece;

/// Bytes lent by one call, at most. What the socket does not take of them was lent for nothing.
const LEND_MAX: usize = 512 << 10;

/// A pipe through which pages go to sockets. It is empty between calls, so that one will do for a thread.
#[derive(Debug)]
pub struct Lender {
    out: OwnedFd,
    into: OwnedFd,
    /// Where pages go that a socket did not take.
    nowhere: OwnedFd,
    /// Something is left in it that could not be thrown away.
    spoilt: Cell<bool>,
}

impl Lender {
    /// A pipe as large as the system allows, up to what one call lends.
    ///
    /// # Errors
    /// No descriptors are left, or there is no `/dev/null`.
    pub fn new() -> io::Result<Self> {
        let (out, into) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A page's place each; a process without the right to so many gets by with fewer at a time.
        let _ = rustix::pipe::fcntl_setpipe_size(&into, LEND_MAX);
        let nowhere = rustix::fs::open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { out, into, nowhere, spoilt: Cell::new(false) })
    }

    /// Sends bytes of `piece` by lending its pages and says how many were taken; `more` is to follow at once.
    ///
    /// # Errors
    /// `Unsupported`: this system does not lend pages, send a copy. Else as a send: `WouldBlock`, or how the connection
    /// died; as a send does, a dead one raises SIGPIPE where that is not ignored.
    ///
    /// # Panics
    /// When the range is not within what is filled.
    pub fn send(&self, socket: impl AsFd, piece: &Piece, range: Range<usize>, more: bool) -> io::Result<usize> {
        if self.spoilt.get() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let wanted = range.len();
        let bytes = &piece.bytes()[range];
        let bytes = &bytes[..wanted.min(LEND_MAX)];
        piece.mark_lent();
        let lent = self.fill(bytes)?;
        let mut flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        if more || lent < wanted {
            flags |= SpliceFlags::MORE;
        }
        let sent = loop {
            match rustix::pipe::splice(&self.out, None, socket.as_fd(), None, lent, flags) {
                Err(Errno::INTR) => {}
                result => break result,
            }
        };
        self.throw_away(lent - sent.unwrap_or(0).min(lent));
        match sent {
            Err(Errno::INVAL | Errno::NOSYS | Errno::PERM) => Err(io::ErrorKind::Unsupported.into()),
            result => Ok(result?),
        }
    }

    /// Sends what comes ahead of a piece, from several slices in one call; it leaves together with what follows.
    ///
    /// # Errors
    /// As a send.
    pub fn send_ahead(&self, socket: impl AsFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut none = net::SendAncillaryBuffer::default();
        Ok(net::sendmsg(socket, slices, &mut none, net::SendFlags::NOSIGNAL | net::SendFlags::MORE)?)
    }

    fn fill(&self, bytes: &[u8]) -> io::Result<usize> {
        let slice = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        // SAFETY: the one slice describes readable bytes that outlive the call, and `into` is an open pipe, as we own it.
        // The kernel writes to none of it; what it keeps beyond the call are references to the bytes' pages, which are
        // never written again: they are of a piece that was marked as lent, whose arena drops them with it.
        let lent = unsafe { libc::vmsplice(self.into.as_raw_fd(), &raw const slice, 1, libc::SPLICE_F_NONBLOCK) };
        // Whatever it is that the kernel does not like: a copy is always possible.
        usize::try_from(lent).ok().filter(|lent| *lent > 0).ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// Empties the pipe of `left` bytes. A pipe for which that fails must not be used again.
    fn throw_away(&self, mut left: usize) {
        while left > 0 {
            match rustix::pipe::splice(&self.out, None, &self.nowhere, None, left, SpliceFlags::NONBLOCK) {
                Ok(gone) if gone > 0 => left = left.saturating_sub(gone),
                Err(Errno::INTR) => {}
                _ => {
                    self.spoilt.set(true);
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Arena, BLOCK, GRANULE, PIECE_MAX};
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;

    fn arena() -> Arena {
        Arena::reserve(2 * BLOCK as u64, Box::new(|| ())).unwrap()
    }

    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (here, listener.accept().unwrap().0)
    }

    fn filled(arena: &Arena, byte: u8, len: usize) -> Arc<Piece> {
        let mut appender = arena.allocate(len).or_else(|| arena.allocate_in_new_block(len)).unwrap();
        assert_eq!(appender.append(&vec![byte; len]), len);
        Arc::clone(appender.piece())
    }

    #[test]
    fn what_is_on_its_way_stays_as_it_was_when_its_memory_is_used_anew() {
        let (arena, lender) = (arena(), Lender::new().unwrap());
        // Keeps the block in use, so that granules are given out again one by one.
        let _holds = filled(&arena, 9, 1);
        for round in 0..50_u8 {
            let (here, mut there) = connection();
            let piece = filled(&arena, round, 2 * GRANULE);
            let place = piece.bytes().as_ptr();
            let sent = lender.send(&here, &piece, 0..2 * GRANULE, false).unwrap();
            assert!(sent > 0);
            drop(piece);
            let next = filled(&arena, 255 - round, 2 * GRANULE);
            assert_eq!(next.bytes().as_ptr(), place, "the same addresses");
            drop(here);
            let mut read = Vec::new();
            there.read_to_end(&mut read).unwrap();
            assert!(read.len() == sent && read.iter().all(|byte| *byte == round), "round {round}");
            assert!(next.bytes().iter().all(|byte| *byte == 255 - round));
        }
    }

    #[test]
    fn a_slow_receiver_gets_every_byte_in_order_and_one_pipe_serves_many() {
        let (arena, lender) = (arena(), Lender::new().unwrap());
        let mut appender = arena.allocate_in_new_block(PIECE_MAX).unwrap();
        let body: Vec<u8> = (0..=250).cycle().take(PIECE_MAX).collect();
        appender.append(&body);
        let piece = appender.piece();
        let mut connections: Vec<_> = (0..3)
            .map(|_| {
                let (here, there) = connection();
                here.set_nonblocking(true).unwrap();
                there.set_nonblocking(true).unwrap();
                (here, there, 0, Vec::new())
            })
            .collect();
        let mut blocked = 0;
        while connections.iter().any(|(.., read)| read.len() < PIECE_MAX - 5) {
            for (here, there, sent, read) in &mut connections {
                while *sent < PIECE_MAX - 5 {
                    match lender.send(&*here, piece, 5 + *sent..PIECE_MAX, false) {
                        Ok(taken) => *sent += taken,
                        Err(error) => {
                            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                            blocked += 1;
                            break;
                        }
                    }
                }
                let mut some = [0; 30_000];
                match there.read(&mut some) {
                    Ok(n) => read.extend_from_slice(&some[..n]),
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            }
        }
        println!("blocked {blocked} times");
        assert!(connections.iter().all(|(.., read)| *read == body[5..]));
    }

    #[test]
    fn a_dead_connection_is_told_and_spoils_nothing() {
        let (arena, lender) = (arena(), Lender::new().unwrap());
        let piece = filled(&arena, 1, PIECE_MAX);
        let (here, there) = connection();
        drop(there);
        let ended = (0..100).find_map(|_| lender.send(&here, &piece, 0..PIECE_MAX, false).err());
        let kind = ended.map(|error| error.kind());
        assert!(matches!(kind, Some(io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)), "{kind:?}");
        let (here, mut there) = connection();
        let sent = lender.send(&here, &piece, 7..1_007, true).unwrap();
        drop(here);
        let mut read = Vec::new();
        there.read_to_end(&mut read).unwrap();
        assert_eq!((sent, read), (1_000, vec![1; 1_000]));
    }
}
