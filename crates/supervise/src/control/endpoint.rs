//! The socket of a process that answers questions.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::connection::Connection;
use super::message::{Reply, Request};
use crate::directory;

/// Connections at a time. When another comes, of those that wait for no [order](Request::is_order) the one goes that has been
/// silent for longest.
pub const PEERS_MAX: usize = 32;
/// Packets taken of one peer in one turn.
const QUESTIONS_A_TURN: usize = 8;
/// Connections the kernel holds for us until the next turn.
const BACKLOG: i32 = 32;

/// A question that waits for its answer.
#[derive(Debug)]
pub struct Question {
    /// What is asked.
    pub request: Request,
    /// The descriptors that came with it.
    pub descriptors: Vec<OwnedFd>,
    peer: u64,
    sequence: u64,
    is_order: bool,
}

impl Question {
    /// Who asked it, for the process that takes over from this one.
    #[must_use]
    pub const fn kept(&self) -> KeptQuestion {
        KeptQuestion { peer: self.peer, sequence: self.sequence }
    }
}

/// Who asked a question that another process is to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptQuestion {
    peer: u64,
    sequence: u64,
}

impl KeptQuestion {
    /// The question again, as far as it takes to answer it.
    #[must_use]
    pub const fn again(self, request: Request) -> Question {
        let (peer, sequence) = (self.peer, self.sequence);
        // Whatever it is now: what one process leaves to another takes its time.
        Question { request, descriptors: Vec::new(), peer, sequence, is_order: true }
    }
}

/// An endpoint whose descriptors are kept for the process that takes over from this one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeptEndpoint {
    listener: RawFd,
    peers: Vec<(u64, RawFd)>,
    /// Of those who wait for orders, how many each.
    orders: Vec<(u64, usize)>,
    next_id: u64,
}

struct Peer {
    id: u64,
    connection: Connection,
    /// Orders that it gave and that are not answered yet.
    orders: usize,
}

/// Where others connect. Each turn: [`Endpoint::questions`], then [`Endpoint::answer`] for each.
pub struct Endpoint {
    path: PathBuf,
    listener: OwnedFd,
    identity: Option<(u64, u64)>,
    /// Who was heard last stands last.
    peers: VecDeque<Peer>,
    next_id: u64,
}

impl Endpoint {
    /// Listens at `path`. What is there is removed: the caller holds the lease that says the path is his.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn bind(path: &Path) -> io::Result<Self> {
        directory::remove(path)?;
        let listener = sys::ancillary::listen(path, BACKLOG)?;
        Ok(Self { path: path.to_owned(), listener, identity: identity(path), peers: VecDeque::new(), next_id: 0 })
    }

    /// What it takes to go on with it in another process that gets [`Endpoint::descriptors`] under the same numbers.
    #[must_use]
    pub fn keep(&self) -> KeptEndpoint {
        let peers = self.peers.iter().map(|peer| (peer.id, peer.connection.as_fd().as_raw_fd())).collect();
        let orders = self.peers.iter().filter(|peer| peer.orders > 0).map(|peer| (peer.id, peer.orders)).collect();
        KeptEndpoint { listener: self.listener.as_raw_fd(), peers, orders, next_id: self.next_id }
    }

    /// Goes on with one that another process kept.
    ///
    /// # Errors
    /// A descriptor did not come.
    pub fn resume(path: &Path, kept: &KeptEndpoint) -> io::Result<Self> {
        let listener = sys::process::inherited(kept.listener)?;
        let peer = |&(id, fd): &(u64, RawFd)| {
            let orders = kept.orders.iter().find(|(peer, _)| *peer == id).map_or(0, |(_, count)| *count);
            sys::process::inherited(fd).map(|fd| Peer { id, connection: Connection::new(fd), orders })
        };
        let peers = kept.peers.iter().map(peer).collect::<io::Result<_>>()?;
        Ok(Self { path: path.to_owned(), listener, identity: identity(path), peers, next_id: kept.next_id })
    }

    /// What to wait for.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.listener.as_fd()).chain(self.peers.iter().map(|peer| peer.connection.as_fd()))
    }

    /// Listens again when somebody removed the socket. `true`: it had to be done.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn restore(&mut self) -> io::Result<bool> {
        if identity(&self.path) == self.identity {
            return Ok(false);
        }
        directory::remove(&self.path)?;
        self.listener = sys::ancillary::listen(&self.path, BACKLOG)?;
        self.identity = identity(&self.path);
        Ok(true)
    }

    /// Accepts who waits, takes what was asked. Never waits.
    pub fn questions(&mut self) -> Vec<Question> {
        self.accept();
        let mut questions = Vec::new();
        let mut heard = VecDeque::new();
        let mut silent = VecDeque::with_capacity(self.peers.len());
        for mut peer in self.peers.drain(..) {
            let before = questions.len();
            let mut lost = false;
            for _ in 0..QUESTIONS_A_TURN {
                match peer.connection.receive::<Request>() {
                    Ok(Some((packet, descriptors))) => {
                        let (request, sequence) = (packet.body, packet.sequence);
                        let is_order = request.is_order();
                        peer.orders += usize::from(is_order);
                        questions.push(Question { request, descriptors, peer: peer.id, sequence, is_order });
                    }
                    Ok(None) => break,
                    // Of a newer version, perhaps: what we cannot do we say, and what we can do we go on doing.
                    Err(super::ControlError::Unknown(sequence, why)) => {
                        let refusal = Reply::Refused(format!("that is not understood here: {why}"));
                        if peer.connection.send(sequence, refusal, &[]).is_err() {
                            lost = true;
                            break;
                        }
                    }
                    Err(error) => {
                        // It may have asked and gone: its questions are dropped with it.
                        if !matches!(error, super::ControlError::Closed) {
                            crate::debug!("a control connection was dropped: {error}");
                        }
                        lost = true;
                        break;
                    }
                }
            }
            if lost {
                questions.truncate(before);
            } else if questions.len() > before {
                heard.push_back(peer);
            } else {
                silent.push_back(peer);
            }
        }
        silent.append(&mut heard);
        self.peers = silent;
        questions
    }

    /// Answers one question. Who cannot be answered is disconnected.
    pub fn answer(&mut self, question: &Question, reply: Reply, fds: &[BorrowedFd<'_>]) {
        let Some(at) = self.peers.iter().position(|peer| peer.id == question.peer) else { return };
        let Some(peer) = self.peers.get_mut(at) else { return };
        peer.orders = peer.orders.saturating_sub(usize::from(question.is_order));
        if let Err(error) = peer.connection.send(question.sequence, reply, fds) {
            crate::debug!("a control connection was dropped: {error}");
            self.peers.remove(at);
        }
    }

    fn accept(&mut self) {
        for _ in 0..PEERS_MAX {
            let fd = match sys::ancillary::accept(&self.listener) {
                Ok(fd) => fd,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    crate::warn!("a control connection was not accepted: {error}");
                    return;
                }
            };
            if !is_ours(&fd) {
                continue;
            }
            if self.peers.len() >= PEERS_MAX {
                // Who waits for an order would take it for failed, while it is carried out.
                let Some(at) = self.peers.iter().position(|peer| peer.orders == 0) else {
                    crate::debug!("a control connection was refused: everybody here waits for an answer");
                    continue;
                };
                self.peers.remove(at);
            }
            self.next_id += 1;
            self.peers.push_back(Peer { id: self.next_id, connection: Connection::new(fd), orders: 0 });
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if identity(&self.path) == self.identity {
            let _ = directory::remove(&self.path); // who finds a dead socket there removes it
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Root, and the user we run as. The mode of the socket says the same; some systems do not heed it.
fn is_ours(fd: &OwnedFd) -> bool {
    match sys::ancillary::peer(fd) {
        Ok((_, user)) => user == 0 || user == rustix::process::geteuid().as_raw(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{ControlError, PACKET_MAX, PROTOCOL, Packet, Pong};
    use std::time::Duration;

    struct Home(PathBuf);

    impl Home {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("beltway-control-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn socket(&self) -> PathBuf {
            self.0.join("x.sock")
        }
    }

    impl Drop for Home {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_question_is_answered_with_its_own_number() {
        let home = Home::new("ask");
        let mut endpoint = Endpoint::bind(&home.socket()).unwrap();
        let client = Connection::open(&home.socket()).unwrap();
        client.send(41, Request::Ping, &[]).unwrap();
        client.send(42, Request::Listeners, &[]).unwrap();
        let questions = endpoint.questions();
        assert_eq!(
            questions.iter().map(|q| q.request.clone()).collect::<Vec<_>>(),
            [Request::Ping, Request::Listeners]
        );
        endpoint.answer(&questions[0], Reply::Pong(Pong::default()), &[]);
        endpoint.answer(&questions[1], Reply::Refused("no".to_owned()), &[]);
        assert_eq!(client.receive::<Reply>().unwrap().unwrap().0.sequence, 41);
        assert_eq!(client.receive::<Reply>().unwrap().unwrap().0.body, Reply::Refused("no".to_owned()));
        assert!(client.receive::<Reply>().unwrap().is_none());
        drop(endpoint);
        assert!(!home.socket().exists());
        assert!(matches!(client.receive::<Reply>(), Err(ControlError::Closed)));
        assert!(matches!(Connection::open(&home.socket()), Err(ControlError::Absent(..))));
    }

    #[test]
    fn nonsense_another_version_and_a_giant_packet_cost_their_sender_the_connection() {
        let home = Home::new("nonsense");
        let mut endpoint = Endpoint::bind(&home.socket()).unwrap();
        let good = Connection::open(&home.socket()).unwrap();
        let other_version =
            serde_json::to_vec(&Packet { protocol: PROTOCOL + 1, sequence: 1, body: "unheard of" }).unwrap();
        for bytes in [b"{".to_vec(), other_version, vec![b' '; PACKET_MAX + 1]] {
            let bad = Connection::open(&home.socket()).unwrap();
            sys::ancillary::send(&bad, &bytes, &[]).unwrap();
            assert!(endpoint.questions().is_empty());
            assert!(matches!(bad.receive::<Reply>(), Err(ControlError::Closed | ControlError::Io(_))));
        }
        good.send(1, Request::Ping, &[]).unwrap();
        assert_eq!(endpoint.questions().len(), 1);
    }

    #[test]
    fn a_question_of_a_newer_version_is_refused_and_its_sender_is_heard_on() {
        let home = Home::new("newer");
        let mut endpoint = Endpoint::bind(&home.socket()).unwrap();
        let newer = Connection::open(&home.socket()).unwrap();
        newer.send(7, "unheard_of", &[]).unwrap();
        newer.send(8, Request::Ping, &[]).unwrap();
        assert_eq!(endpoint.questions().len(), 1);
        let (packet, _) = newer.receive::<Reply>().unwrap().unwrap();
        assert!(matches!((packet.sequence, packet.body), (7, Reply::Refused(_))));
    }

    #[test]
    fn an_unanswered_question_ends_at_its_bound() {
        let home = Home::new("late");
        let _endpoint = Endpoint::bind(&home.socket()).unwrap();
        let client = Connection::open(&home.socket()).unwrap();
        let bound = Duration::from_millis(20);
        assert!(matches!(client.ask(Request::Ping, bound), Err(ControlError::Late(b)) if b == bound));
    }

    #[test]
    fn at_the_limit_the_longest_silent_peer_goes() {
        let home = Home::new("limit");
        let mut endpoint = Endpoint::bind(&home.socket()).unwrap();
        let mut clients = Vec::new();
        for _ in 0..PEERS_MAX {
            clients.push(Connection::open(&home.socket()).unwrap());
            endpoint.questions();
        }
        clients[0].send(1, Request::Ping, &[]).unwrap();
        assert_eq!(endpoint.questions().len(), 1);
        let newest = Connection::open(&home.socket()).unwrap();
        newest.send(1, Request::Ping, &[]).unwrap();
        assert_eq!(endpoint.questions().len(), 1);
        assert!(matches!(clients[1].receive::<Reply>(), Err(ControlError::Closed)));
        clients[0].send(2, Request::Ping, &[]).unwrap();
        assert_eq!(endpoint.questions().len(), 1);
    }

    #[test]
    fn who_waits_for_an_order_stays_however_many_come_and_goes_like_others_once_it_is_answered() {
        let home = Home::new("order");
        let mut endpoint = Endpoint::bind(&home.socket()).unwrap();
        let manager = Connection::open(&home.socket()).unwrap();
        manager.send(1, Request::Commit("digest".to_owned()), &[]).unwrap();
        let order = endpoint.questions();
        let mut others: Vec<_> = (0..2 * PEERS_MAX)
            .map(|_| {
                let other = Connection::open(&home.socket()).unwrap();
                assert!(endpoint.questions().is_empty());
                other
            })
            .collect();
        assert!(matches!(others[0].receive::<Reply>(), Err(ControlError::Closed)));
        // Another process goes on with it, and knows it, too.
        assert_eq!(endpoint.keep().orders, [(1, 1)]);
        endpoint.answer(&order[0].kept().again(Request::Ping), Reply::Done, &[]);
        assert_eq!(manager.receive::<Reply>().unwrap().unwrap().0.body, Reply::Done);
        assert!(endpoint.keep().orders.is_empty());

        // Where everybody waits, who comes is refused.
        others.drain(..others.len() - (PEERS_MAX - 1));
        for peer in others.iter().chain([&manager]) {
            peer.send(2, Request::Promote, &[]).unwrap();
        }
        assert_eq!(endpoint.questions().len(), PEERS_MAX);
        let late = Connection::open(&home.socket()).unwrap();
        assert!(endpoint.questions().is_empty());
        assert!(matches!(late.receive::<Reply>(), Err(ControlError::Closed)));
        assert!(manager.receive::<Reply>().unwrap().is_none());
    }

    #[test]
    fn a_socket_that_was_removed_is_put_back() {
        let home = Home::new("removed");
        let mut endpoint = Endpoint::bind(&home.socket()).unwrap();
        assert!(!endpoint.restore().unwrap());
        std::fs::remove_file(home.socket()).unwrap();
        assert!(endpoint.restore().unwrap());
        assert!(!endpoint.restore().unwrap());
        let client = Connection::open(&home.socket()).unwrap();
        client.send(1, Request::Ping, &[]).unwrap();
        assert_eq!(endpoint.questions().len(), 1);
    }
}
