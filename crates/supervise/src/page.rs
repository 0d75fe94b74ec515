//! Asking for the server's own page: the sign of life that takes the way of a client's request, through listener, event
//! thread and HTTP, and not the control socket's.
//!
//! As [`heartbeat`](crate::heartbeat), it never waits and never decides: it counts, each question on a connection of its
//! own. A question that did not even get a connection says nothing about the server (the queue is full, there are no
//! ports left, a rule of the firewall is in the way) and is not held against it; one that has a connection and gets no
//! answer is. What many of those mean is for the verdict of who watches.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use base::Instant;

/// Between two tries to send on a connection that is not there yet.
const SEND_INTERVAL: Duration = Duration::from_millis(5);
/// Bytes of an answer that are looked at.
const ANSWER_SIZE_MAX: usize = 1024;
const QUESTION: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Questions for the page at one address.
#[derive(Debug)]
pub struct Page {
    address: SocketAddr,
    interval: Duration,
    asked: Option<Asked>,
    next_at: Instant,
    silent_since: Option<Instant>,
    /// Unanswered since the last answer, although there was a connection.
    unanswered: u32,
}

#[derive(Debug)]
struct Asked {
    connection: OwnedFd,
    sent: bool,
    answer: Vec<u8>,
}

impl Page {
    /// Questions to a listener that is bound to `bound`, the first one at once.
    #[must_use]
    pub fn new(bound: SocketAddr, interval: Duration) -> Self {
        let ip = match bound.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Self {
            address: SocketAddr::new(ip, bound.port()),
            interval,
            asked: None,
            next_at: Instant::ORIGIN,
            silent_since: None,
            unanswered: 0,
        }
    }

    /// When [`Page::turn`] wants to be called at the latest.
    #[must_use]
    pub fn next_at(&self, now: Instant) -> Instant {
        if self.asked.as_ref().is_some_and(|asked| !asked.sent) {
            self.next_at.min(now + SEND_INTERVAL)
        } else {
            self.next_at
        }
    }

    /// What to wait for.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        // Before it is connected it is always readable, to say that it is not.
        self.asked.as_ref().filter(|asked| asked.sent).map(|asked| asked.connection.as_fd())
    }

    /// Takes what was answered and asks again when it is time. `true`: an answer came.
    pub fn turn(&mut self, now: Instant) -> bool {
        let answered = self.take_answer(now);
        if now >= self.next_at {
            self.next_at = now + self.interval;
            if self.asked.take().is_some_and(|asked| asked.sent) {
                self.unanswered = self.unanswered.saturating_add(1);
            }
            // No descriptor, no port: our own trouble.
            self.asked = sys::socket::connect(self.address).ok().map(|connection| Asked {
                connection,
                sent: false,
                answer: Vec::new(),
            });
            self.send();
        }
        answered
    }

    /// It is known to be served, though it has not answered us yet: silence counts from now.
    pub fn expect(&mut self, now: Instant) {
        self.silent_since.get_or_insert(now);
    }

    /// Unanswered in a row, although there was a connection.
    #[must_use]
    pub const fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// How long it has given no answer; `None` when it never gave one and none was [expected](Page::expect).
    #[must_use]
    pub fn silent_for(&self, now: Instant) -> Option<Duration> {
        self.silent_since.map(|since| now.since(since))
    }

    /// Our own clock stood still: what was missed meanwhile was nobody's fault.
    pub fn forgive(&mut self, now: Instant) {
        self.silent_since = self.silent_since.map(|_| now);
        self.unanswered = 0;
        self.asked = None;
        self.next_at = now;
    }

    fn send(&mut self) {
        let Some(asked) = self.asked.as_mut().filter(|asked| !asked.sent) else { return };
        match sys::socket::send(&asked.connection, QUESTION) {
            // So few bytes are taken whole or not at all.
            Ok(length) if length == QUESTION.len() => asked.sent = true,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            _ => self.asked = None,
        }
    }

    fn take_answer(&mut self, now: Instant) -> bool {
        self.send();
        let Some(asked) = self.asked.as_mut().filter(|asked| asked.sent) else { return false };
        let mut bytes = [0; ANSWER_SIZE_MAX];
        match rustix::net::recv(&asked.connection, &mut bytes, rustix::net::RecvFlags::empty()) {
            Ok((length @ 1.., _)) => asked.answer.extend_from_slice(&bytes[..length]),
            Err(rustix::io::Errno::AGAIN) => return false,
            // Closed or reset: whoever did that is not deaf, and has not answered.
            Ok(_) | Err(_) => {
                self.asked = None;
                return false;
            }
        }
        // Ready or draining, whichever server it is: somebody took it and answered.
        let answered = asked.answer.starts_with(b"HTTP/1.1 ");
        if answered {
            self.silent_since = Some(now);
            self.unanswered = 0;
        }
        if answered || asked.answer.len() > ANSWER_SIZE_MAX {
            self.asked = None;
        }
        answered
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use base::{Clock, SystemClock};
    use rustix::net::{AddressFamily, SocketType};

    use super::*;

    const INTERVAL: Duration = Duration::from_millis(500);

    /// Turns until `done`, without the moment moving: only the kernel needs its time.
    fn until(page: &mut Page, now: Instant, done: impl Fn(&Page, bool) -> bool) {
        let limit = SystemClock.now() + Duration::from_secs(30);
        while SystemClock.now() < limit {
            let answered = page.turn(now);
            if done(page, answered) {
                return;
            }
            std::thread::yield_now();
        }
        panic!("{page:?}");
    }

    #[test]
    fn a_page_that_answers_is_a_sign_of_life_and_one_that_only_connects_is_none() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut page = Page::new(listener.local_addr().unwrap(), INTERVAL);
        let mut now = Instant::from_nanos(1);
        assert_eq!(page.silent_for(now), None, "it is starting");
        until(&mut page, now, |page, _| page.asked.as_ref().unwrap().sent);
        let (mut client, _) = listener.accept().unwrap();
        let mut question = vec![0; QUESTION.len()];
        client.read_exact(&mut question).unwrap();
        assert_eq!(question, QUESTION);
        client.write_all(b"HTTP/1.1 503 Draining\r\n\r\n").unwrap();
        until(&mut page, now, |_, answered| answered);
        assert_eq!((page.unanswered(), page.silent_for(now)), (0, Some(Duration::ZERO)));

        for missed in 0..3 {
            now = now + INTERVAL;
            until(&mut page, now, |page, _| page.asked.as_ref().unwrap().sent);
            assert_eq!(page.unanswered(), missed, "nobody accepts");
        }
        assert_eq!(page.silent_for(now), Some(3 * INTERVAL));
        page.forgive(now);
        assert_eq!((page.unanswered(), page.silent_for(now)), (0, Some(Duration::ZERO)));
    }

    #[test]
    fn who_gets_no_connection_has_nothing_to_say() {
        // A port that is taken, so that nobody else gets it, and on which nobody listens.
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let port = SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap().port();
        let mut page = Page::new(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), INTERVAL);
        assert_eq!(page.address.ip(), Ipv4Addr::LOCALHOST);
        let mut now = Instant::from_nanos(1);
        for _ in 0..5 {
            page.turn(now);
            until(&mut page, now, |page, _| page.asked.is_none());
            now = now + INTERVAL;
        }
        assert_eq!(page.unanswered(), 0);
    }
}
