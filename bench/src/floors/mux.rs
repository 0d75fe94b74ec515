//! The floor under key-value commands: what many clients ask goes to one server over one connection, and what it
//! answers goes back in that order. Readiness is told once for what came (edge-triggered), which costs least.
//!
//! A turn of the loop costs one `recv` and one `send` a client, and one of each to the server for all of them. Nothing
//! is parsed: requests and answers have one length each, which is told. What is of another length (a client's first
//! look around) is answered with an error. When many clients wait, a turn's events gather as long as the shortest sleep
//! takes: without that this floor lies higher than what is measured over it. Of several threads each is one of these, and
//! shares nothing with the others but the port: what they cost more together is the machine's.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::epoll::{self, EventFlags};
use rustix::event::{PollFd, PollFlags};

use super::{ACCEPT_MAX, BUFFER_SIZE, LISTENER, Received};

/// The server's mark in the epoll set; clients are marked by their number.
const SERVER: u64 = u64::MAX - 1;
/// So many clients that wait make events gather.
const CROWD: usize = 8;
/// What a request of another length is told; both protocols take it for an error.
const WHAT: &[u8] = b"ERROR\r\n";
const WHAT_RESP: &[u8] = b"-ERROR\r\n";

/// What is known beforehand.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Bytes of each request
    #[arg(long)]
    pub(crate) request: usize,
    /// Bytes of each answer
    #[arg(long)]
    pub(crate) answer: usize,
}

pub(super) fn run(port: u16, server: u16, threads: usize, shape: Shape) -> io::Result<()> {
    if threads <= 1 {
        return run_one(super::listen(port)?, server, shape);
    }
    let listeners = (0..threads).map(|_| super::listen_with(port, true)).collect::<io::Result<Vec<_>>>()?;
    std::thread::scope(|scope| {
        let loops: Vec<_> =
            listeners.into_iter().map(|listener| scope.spawn(move || run_one(listener, server, shape))).collect();
        loops
            .into_iter()
            .try_for_each(|one| one.join().unwrap_or_else(|_| Err(io::Error::other("a floor's thread panicked"))))
    })
}

fn run_one(listener: OwnedFd, server: u16, shape: Shape) -> io::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    super::add(&epoll, &listener, LISTENER, EventFlags::IN)?;
    let server = super::connect(server)?;
    super::add(&epoll, &server, SERVER, EventFlags::IN | EventFlags::ET)?;
    let mut mux =
        Mux { server, shape, clients: Vec::new(), waiting: VecDeque::new(), asked: Vec::new(), answered: Vec::new() };
    let mut events = super::event_room();
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        if mux.waiting.len() >= CROWD {
            std::thread::sleep(Duration::from_nanos(1));
        }
        let count = super::wait(&epoll, &mut events)?;
        for event in &events[..count] {
            match event.data.u64() {
                LISTENER => {
                    for fd in std::iter::from_fn(|| super::accept(&listener)).take(ACCEPT_MAX) {
                        super::add(&epoll, &fd, mux.clients.len() as u64, EventFlags::IN | EventFlags::ET)?;
                        mux.clients.push(Some(fd));
                    }
                }
                SERVER => mux.hear(&mut buffer)?,
                client => mux.listen_to(super::slot_of(client), &mut buffer),
            }
        }
        send_all(&mux.server, &mux.asked)?;
        mux.asked.clear();
        mux.pass_on();
    }
}

struct Mux {
    server: OwnedFd,
    shape: Shape,
    /// By number, which is not used again: a client that left with something unanswered is skipped.
    clients: Vec<Option<OwnedFd>>,
    /// Who waits for how many answers.
    waiting: VecDeque<(usize, usize)>,
    asked: Vec<u8>,
    answered: Vec<u8>,
}

impl Mux {
    fn listen_to(&mut self, number: usize, buffer: &mut [u8]) {
        let Some(Some(client)) = self.clients.get(number) else { return };
        match super::receive(client, buffer) {
            Received::Bytes(got) if got.is_multiple_of(self.shape.request) => {
                self.asked.extend_from_slice(&buffer[..got]);
                self.waiting.push_back((number, got / self.shape.request));
            }
            Received::Bytes(_) => {
                let what = if buffer[0] == b'*' { WHAT_RESP } else { WHAT };
                super::transmit(client, what);
            }
            Received::Later => {}
            Received::Ended => self.clients[number] = None,
        }
    }

    fn hear(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            match super::receive(&self.server, buffer) {
                Received::Bytes(got) => {
                    self.answered.extend_from_slice(&buffer[..got]);
                    if got < buffer.len() {
                        return Ok(());
                    }
                }
                Received::Later => return Ok(()),
                Received::Ended => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// Gives everybody the answers that have come for it.
    fn pass_on(&mut self) {
        let mut at = 0;
        while let Some((number, left)) = self.waiting.front_mut() {
            let count = (*left).min((self.answered.len() - at) / self.shape.answer);
            if count == 0 {
                break;
            }
            let bytes = &self.answered[at..at + count * self.shape.answer];
            at += bytes.len();
            if let Some(place) = self.clients.get_mut(*number)
                && place.as_ref().is_some_and(|client| send_all(client, bytes).is_err())
            {
                *place = None;
            }
            *left -= count;
            if *left > 0 {
                break;
            }
            self.waiting.pop_front();
        }
        self.answered.drain(..at);
    }
}

/// Sends everything, and waits when the kernel does not take it at once: nobody else has work that matters.
fn send_all(fd: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let taken = super::transmit(fd, bytes).ok_or(io::ErrorKind::BrokenPipe)?;
        bytes = &bytes[taken..];
        if taken == 0 {
            rustix::event::poll(&mut [PollFd::new(fd, PollFlags::OUT)], None)?;
        }
    }
    Ok(())
}
