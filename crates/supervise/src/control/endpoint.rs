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

/// Connections at a time of those that wait for no answer. When there is one more, the one goes that has been silent for
/// longest. So there is always a place for who asks for signs of life, however many wait.
pub const PEERS_MAX: usize = 32;
/// Connections beside them that wait for an answer, and may: who asks has it for failed when his connection is closed, while
/// it is done. Beside these, [`PEERS_MAX`] may wait for what [orders](Request::is_order) bring. Who asks as well is refused.
const WAITING_MAX: usize = 256;
/// Packets taken of one peer in one turn.
const QUESTIONS_A_TURN: usize = 8;
/// Connections accepted in one turn.
const ACCEPTED_A_TURN: usize = 32;
/// Connections the kernel holds for us until the next turn.
const BACKLOG: i32 = 128;

/// A question that waits for its answer.
#[derive(Debug)]
pub struct Question {
    /// What is asked.
    pub request: Request,
    /// The descriptors that came with it.
    pub descriptors: Vec<OwnedFd>,
    peer: u64,
    sequence: u64,
    is_counted: bool,
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
        // Whatever it is now: what one process leaves to another is no question for a sign of life.
        Question { request, descriptors: Vec::new(), peer, sequence, is_counted: true }
    }
}

/// An endpoint whose descriptors are kept for the process that takes over from this one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeptEndpoint {
    listener: RawFd,
    peers: Vec<(u64, RawFd)>,
    /// Of those who wait for answers, for how many each.
    unanswered: Vec<(u64, usize)>,
    next_id: u64,
}

struct Peer {
    id: u64,
    connection: Connection,
    /// Its questions that are not answered yet, but those for signs of life: who asks nothing else keeps no place with them.
    unanswered: usize,
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
        let waiting = self.peers.iter().filter(|peer| peer.unanswered > 0);
        let unanswered = waiting.map(|peer| (peer.id, peer.unanswered)).collect();
        KeptEndpoint { listener: self.listener.as_raw_fd(), peers, unanswered, next_id: self.next_id }
    }

    /// Goes on with one that another process kept.
    ///
    /// # Errors
    /// A descriptor did not come.
    pub fn resume(path: &Path, kept: &KeptEndpoint) -> io::Result<Self> {
        let listener = sys::process::inherited(kept.listener)?;
        let peer = |&(id, fd): &(u64, RawFd)| {
            let unanswered = kept.unanswered.iter().find(|(peer, _)| *peer == id).map_or(0, |(_, count)| *count);
            sys::process::inherited(fd).map(|fd| Peer { id, connection: Connection::new(fd), unanswered })
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
        let mut waiting = self.peers.iter().filter(|peer| peer.unanswered > 0).count();
        for mut peer in self.peers.drain(..) {
            let before = questions.len();
            let mut lost = false;
            for _ in 0..QUESTIONS_A_TURN {
                match peer.connection.receive::<Request>() {
                    Ok(Some((packet, descriptors))) => {
                        let (request, sequence) = (packet.body, packet.sequence);
                        let is_counted = request != Request::Ping;
                        if is_counted && peer.unanswered == 0 {
                            let room = WAITING_MAX + if request.is_order() { PEERS_MAX } else { 0 };
                            if waiting >= room {
                                let why = "too many questions wait for an answer here: ask again".to_owned();
                                if peer.connection.send(sequence, Reply::Refused(why), &[]).is_err() {
                                    lost = true;
                                    break;
                                }
                                continue;
                            }
                            waiting += 1;
                        }
                        peer.unanswered += usize::from(is_counted);
                        questions.push(Question { request, descriptors, peer: peer.id, sequence, is_counted });
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
        self.dismiss_idle();
        questions
    }

    /// Whether who asked this is still connected, as far as the last [`Endpoint::questions`] saw.
    #[must_use]
    pub fn is_there(&self, question: &Question) -> bool {
        self.peers.iter().any(|peer| peer.id == question.peer)
    }

    /// Answers one question. Who cannot be answered is disconnected.
    pub fn answer(&mut self, question: &Question, reply: Reply, fds: &[BorrowedFd<'_>]) {
        let Some(at) = self.peers.iter().position(|peer| peer.id == question.peer) else { return };
        let Some(peer) = self.peers.get_mut(at) else { return };
        peer.unanswered = peer.unanswered.saturating_sub(usize::from(question.is_counted));
        if let Err(error) = peer.connection.send(question.sequence, reply, fds) {
            crate::debug!("a control connection was dropped: {error}");
            self.peers.remove(at);
        }
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTED_A_TURN {
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
            self.next_id += 1;
            self.peers.push_back(Peer { id: self.next_id, connection: Connection::new(fd), unanswered: 0 });
        }
    }

    /// Of those that wait for no answer, closes the connections that are too many.
    fn dismiss_idle(&mut self) {
        let idle = self.peers.iter().filter(|peer| peer.unanswered == 0).count();
        let mut too_many = idle.saturating_sub(PEERS_MAX);
        self.peers.retain(|peer| {
            let goes = too_many > 0 && peer.unanswered == 0;
            too_many -= usize::from(goes);
            !goes
        });
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
    use crate::kv::KvQuestion;
    use std::time::Duration;

    fn hold() -> Request {
        Request::Kv(KvQuestion::Hold { pool: None, server: "one".to_owned(), out: true })
    }

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
    fn who_waits_for_an_answer_stays_however_many_come_and_goes_like_others_once_it_is_answered() {
        let home = Home::new("waits");
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
        assert_eq!(endpoint.keep().unanswered, [(1, 1)]);
        endpoint.answer(&order[0].kept().again(Request::Ping), Reply::Done, &[]);
        assert_eq!(manager.receive::<Reply>().unwrap().unwrap().0.body, Reply::Done);
        assert!(endpoint.keep().unanswered.is_empty());
        others.push(Connection::open(&home.socket()).unwrap());
        assert!(endpoint.questions().is_empty());
        assert!(matches!(manager.receive::<Reply>(), Err(ControlError::Closed)));
    }

    #[test]
    fn of_many_that_ask_each_once_all_are_heard_once_and_answered_and_signs_of_life_go_on_meanwhile() {
        let home = Home::new("many");
        let mut endpoint = Endpoint::bind(&home.socket()).unwrap();
        let cop = Connection::open(&home.socket()).unwrap();
        assert!(endpoint.questions().is_empty());
        let (mut callers, mut waiting) = (Vec::new(), Vec::new());
        for number in 0..3 * PEERS_MAX as u64 {
            let caller = Connection::open(&home.socket()).unwrap();
            caller.send(number, hold(), &[]).unwrap();
            waiting.extend(endpoint.questions());
            callers.push(caller);
        }
        assert_eq!(waiting.len(), callers.len());
        let newcomer = Connection::open(&home.socket()).unwrap();
        for asks in [&cop, &newcomer] {
            asks.send(7, Request::Ping, &[]).unwrap();
            let pings = endpoint.questions();
            assert_eq!(pings.len(), 1);
            endpoint.answer(&pings[0], Reply::Pong(Pong::default()), &[]);
            assert_eq!(asks.receive::<Reply>().unwrap().unwrap().0.sequence, 7);
        }
        // One goes, and that is known.
        drop(callers.remove(0));
        assert!(endpoint.questions().is_empty());
        assert!(!endpoint.is_there(&waiting.remove(0)));
        for (number, (caller, question)) in (1..).zip(callers.iter().zip(&waiting)) {
            assert!(endpoint.is_there(question) && caller.receive::<Reply>().unwrap().is_none());
            endpoint.answer(question, Reply::Done, &[]);
            assert_eq!(caller.receive::<Reply>().unwrap().unwrap().0.sequence, number);
        }
    }

    #[test]
    fn when_too_many_wait_who_asks_as_well_is_refused_and_orders_and_signs_of_life_have_room() {
        let home = Home::new("full");
        let mut endpoint = Endpoint::bind(&home.socket()).unwrap();
        let asked = |endpoint: &mut Endpoint, request: Request| {
            let caller = Connection::open(&home.socket()).unwrap();
            caller.send(1, request, &[]).unwrap();
            (endpoint.questions().len(), caller)
        };
        let mut callers = Vec::new();
        for (request, room) in [(hold(), WAITING_MAX), (Request::Promote, PEERS_MAX)] {
            for _ in 0..room {
                let (heard, caller) = asked(&mut endpoint, request.clone());
                assert_eq!(heard, 1);
                callers.push(caller);
            }
            let (heard, late) = asked(&mut endpoint, request);
            assert_eq!(heard, 0);
            assert!(matches!(late.receive::<Reply>().unwrap().unwrap().0.body, Reply::Refused(_)));
        }
        assert_eq!(asked(&mut endpoint, Request::Ping).0, 1);
        assert!(callers.iter().all(|caller| caller.receive::<Reply>().unwrap().is_none()));
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
