//! Where the server is asked: signs of life are given at once, everything else takes its turn.
//!
//! ```text
//! the socket ─┬─ Ping ──────────────────────────────────────────────> answered at once
//!             ├─ orders ──> before all else
//!             └─ all else ─> what is to be done ─┬─> answered ──────────^
//!                                  ^             └─> how servers are, what takes long ─> threads are asked
//!                                  └───────────────────────────────── they have said, or are late
//! ```
//!
//! Cop has a server killed that gives no sign of life. So nothing here waits, and whatever many may ask, and however long
//! that takes: after [`TURN_WITHIN`] whoever asks for a sign of life comes first again. Nor does an
//! [order](Request::is_order) of manager's wait behind what everybody may ask: it takes a server that refuses one for broken.
//! Start at [`Desk::hear`].

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;

use base::Instant;
use supervise::control::{Endpoint, Pong, Question, Reply, Request};
use supervise::kv::KvReport;

use crate::awaited::Awaited;
use crate::engine::Engine;

/// After so much work the loop turns, and gives the signs of life that were asked for meanwhile. With the one thing that
/// was begun just before, it is far less than the second that `supervise.hang_timeout` is at least.
pub(crate) const TURN_WITHIN: Duration = Duration::from_millis(100);
/// How long the event threads are waited for to say how their servers are.
const SAID_WITHIN: Duration = Duration::from_millis(400);
/// Questions that wait for their turn, and orders beside them; who asks one more is refused.
const WAITING_MAX: usize = 1_024;
/// Who wait to be told how servers are, and who for what takes long; who asks as well is refused.
const ASKERS_MAX: usize = 256;
/// How long an answer may take. Who asks waits for five seconds.
pub(crate) const DONE_WITHIN: Duration = Duration::from_secs(4);

/// What is to be done next.
#[derive(Debug)]
pub(crate) enum Work {
    /// Answer this.
    Question(Question),
    /// Cut that into parts for all of them: the event threads have said how their servers are.
    Report(Vec<Question>, Box<KvReport>),
    /// Tell that, its first part.
    Part(Question, Rc<KvReport>),
    /// Tell that: it took long, and is done.
    Answer(Question, Reply),
}

/// See the module.
pub(crate) struct Desk {
    endpoint: Endpoint,
    /// What manager, or who else runs this tree, wants done.
    orders: VecDeque<Question>,
    work: VecDeque<Work>,
    /// Who asked how servers are since the event threads were asked last: what those say may be of before.
    askers: Vec<Question>,
    /// What the event threads say of their servers, and to whom.
    states: Option<(Awaited<Vec<kv::ServerState>>, Vec<Question>)>,
    /// What takes long, and who asked for it.
    long: Vec<(Awaited<Reply>, Question)>,
}

impl Desk {
    pub(crate) const fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            orders: VecDeque::new(),
            work: VecDeque::new(),
            askers: Vec::new(),
            states: None,
            long: Vec::new(),
        }
    }

    /// The socket's end.
    pub(crate) const fn endpoint(&mut self) -> &mut Endpoint {
        &mut self.endpoint
    }

    /// What to wait for.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.endpoint.descriptors()
    }

    /// When to turn at the latest; at once when there is something to do.
    pub(crate) fn until(&self) -> Option<Instant> {
        if !self.orders.is_empty() || !self.work.is_empty() {
            return Some(Instant::ORIGIN);
        }
        let states = self.states.iter().map(|(states, _)| states.until());
        states.chain(self.long.iter().map(|(reply, _)| reply.until())).min()
    }

    /// Gives the signs of life that were asked for, and takes in the rest. Then comes [`Desk::next`], for [`TURN_WITHIN`]
    /// at most, and [`Desk::ask_threads`].
    pub(crate) fn hear(&mut self, now: Instant, engine: &Engine, pong: impl FnOnce() -> Pong) {
        let asked = self.endpoint.questions();
        let (pings, others): (Vec<_>, Vec<_>) =
            asked.into_iter().partition(|question| question.request == Request::Ping);
        if !pings.is_empty() {
            let pong = pong();
            for ping in pings {
                self.answer(&ping, Reply::Pong(pong.clone()), &[]);
            }
        }
        for question in others {
            if question.request.is_order() && self.orders.len() < WAITING_MAX {
                self.orders.push_back(question);
            } else if !question.request.is_order() && self.work.len() < WAITING_MAX {
                self.work.push_back(Work::Question(question));
            } else {
                self.answer(&question, too_many(), &[]);
            }
        }
        if let Some((states, _)) = &mut self.states
            && states.turn(now)
            && let Some((states, askers)) = self.states.take()
        {
            self.work.push_back(Work::Report(askers, Box::new(engine.kv_report(states))));
        }
        for (reply, asker) in self.long.extract_if(.., |(reply, _)| reply.turn(now)) {
            let unknown = || Reply::Refused("it takes long; whether it is done is not known: ask again".to_owned());
            let reply = reply.into_said().pop().unwrap_or_else(unknown);
            self.work.push_back(Work::Answer(asker, reply));
        }
    }

    /// What is to be done next.
    pub(crate) fn next(&mut self) -> Option<Work> {
        self.orders.pop_front().map(Work::Question).or_else(|| self.work.pop_front())
    }

    /// Answers one question.
    pub(crate) fn answer(&mut self, question: &Question, reply: Reply, fds: &[BorrowedFd<'_>]) {
        self.endpoint.answer(question, reply, fds);
    }

    /// Takes in who is to be told the first part of a report: before all else, while its other parts are kept.
    pub(crate) fn tell_part(&mut self, askers: Vec<Question>, part: KvReport) {
        let part = Rc::new(part);
        askers.into_iter().rev().for_each(|asker| self.work.push_front(Work::Part(asker, Rc::clone(&part))));
    }

    /// Takes in somebody who asks how servers are.
    pub(crate) fn report_to(&mut self, question: Question) {
        if self.askers.len() < ASKERS_MAX {
            self.askers.push(question);
        } else {
            self.answer(&question, too_many(), &[]);
        }
    }

    /// Takes in somebody who waits for what takes long.
    pub(crate) fn reply_to(&mut self, question: Question, reply: Awaited<Reply>) {
        if self.long.len() < ASKERS_MAX {
            self.long.push((reply, question));
        } else {
            // What has not begun is not done.
            drop(reply);
            self.answer(&question, too_many(), &[]);
        }
    }

    /// Asks the event threads how their servers are, for all who want to know together; not while they are being asked.
    pub(crate) fn ask_threads(&mut self, now: Instant, engine: &Engine) {
        if self.states.is_none() && !self.askers.is_empty() {
            let askers = std::mem::take(&mut self.askers);
            self.states = Some((engine.ask_states(now + SAID_WITHIN), askers));
        }
    }
}

fn too_many() -> Reply {
    Reply::Refused("too many questions wait for an answer here: ask again".to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use base::{Clock, SystemClock};
    use supervise::cache::{CacheQuestion, CacheReply};
    use supervise::control::Connection;
    use supervise::kv::KvQuestion;

    use super::*;
    use crate::control;
    use crate::engine::scenery::{Scene, keep_at_chores, keep_busy};

    /// What is waited for comes within this, however busy the machine is.
    const PATIENCE: Duration = Duration::from_secs(15);
    const REPORT: Request = Request::Kv(KvQuestion::Report);

    /// A desk, the engine whose one event thread has a pool, and cop. Who is late is told by a clock of its own.
    struct Office {
        home: PathBuf,
        desk: Desk,
        scene: Scene,
        cop: Connection,
        now: Instant,
        /// By so much it is later with each turn.
        step: Duration,
    }

    impl Office {
        fn open(name: &str) -> Self {
            Self::open_at(name, Scene::set())
        }

        fn open_at(name: &str, scene: Scene) -> Self {
            let home = std::env::temp_dir().join(format!("beltway-desk-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&home);
            std::fs::create_dir_all(&home).unwrap();
            let mut desk = Desk::new(Endpoint::bind(&home.join("s")).unwrap());
            let cop = Connection::open(&home.join("s")).unwrap();
            assert!(desk.endpoint().questions().is_empty());
            Self { home, desk, scene, cop, now: SystemClock.now(), step: Duration::ZERO }
        }

        fn caller(&self) -> Connection {
            Connection::open(&self.home.join("s")).unwrap()
        }

        /// One turn of the main loop, as the shell turns it. Cop asks, and is answered.
        fn turn(&mut self) {
            let engine = &self.scene.engine;
            self.now = self.now + self.step;
            let until = self.desk.until().map_or(Duration::from_millis(50), |until| until.since(self.now));
            let mut descriptors: Vec<_> = self.desk.descriptors().collect();
            descriptors.push(std::os::fd::AsFd::as_fd(engine.bell()));
            supervise::wait::readable(&descriptors, until.min(Duration::from_millis(50))).unwrap();
            self.cop.send(7, Request::Ping, &[]).unwrap();
            engine.bell().hush();
            self.desk.hear(self.now, engine, Pong::default);
            let until = SystemClock.now() + TURN_WITHIN;
            assert!(control::next_errand(&mut self.desk, engine, &[], until).is_none());
            self.desk.ask_threads(self.now, engine);
            assert!(matches!(self.cop.receive::<Reply>().unwrap().unwrap().0.body, Reply::Pong(_)));
        }

        /// Turns until so many have an answer on these connections.
        fn answers(&mut self, callers: &[Connection], count: usize) -> Vec<Reply> {
            let (begin, mut answers) = (SystemClock.now(), Vec::new());
            while answers.len() < count {
                assert!(SystemClock.now() - begin < PATIENCE, "{} of {count}", answers.len());
                self.turn();
                for caller in callers {
                    while let Some((packet, _)) = caller.receive::<Reply>().unwrap() {
                        answers.push(packet.body);
                    }
                }
            }
            answers
        }

        fn close(self) {
            self.scene.engine.stop();
            std::fs::remove_dir_all(self.home).unwrap();
        }
    }

    /// The state of the pool's one server in an answer, and how many threads did not say it.
    fn told(reply: &Reply) -> (&str, u64) {
        let Reply::Kv(report) = reply else { panic!("{reply:?}") };
        let server = &report.pools[0].servers[0];
        (&server.state, server.silent_threads)
    }

    #[test]
    fn however_many_ask_how_servers_are_while_a_thread_is_busy_every_turn_gives_signs_of_life() {
        let mut office = Office::open("many");
        let busy = keep_busy(&office.scene.engine);
        office.step = SAID_WITHIN / 8;
        // With cop as many as there may be, each asking as much as is taken of one in a turn.
        let callers: Vec<_> = (0..31).map(|_| office.caller()).collect();
        for caller in &callers {
            (0..8).for_each(|number| caller.send(number, REPORT, &[]).unwrap());
        }
        let answers = office.answers(&callers, 31 * 8);
        assert!(answers.iter().all(|answer| told(answer) == ("unknown", 1)), "{answers:?}");
        drop(busy);
        office.step = Duration::ZERO;
        callers[0].send(9, REPORT, &[]).unwrap();
        assert_eq!(told(&office.answers(&callers, 1)[0]).1, 0, "it is busy no more");
        office.close();
    }

    #[test]
    fn however_many_ask_at_once_how_more_servers_are_than_one_packet_has_room_for_each_is_told_of_all() {
        const SERVERS: usize = 400;
        let mut office = Office::open_at("parts", Scene::set_with(SERVERS - 1));
        let callers: Vec<_> = (0..12).map(|_| office.caller()).collect();
        let mut asks: Vec<_> = callers.iter().map(|_| KvQuestion::Report).collect();
        let mut told = vec![KvReport::default(); callers.len()];
        while !asks.is_empty() {
            for (caller, ask) in callers.iter().zip(&asks) {
                caller.send(1, Request::Kv(ask.clone()), &[]).unwrap();
            }
            // In the order of the callers: all are told by the time that the last one is.
            let answers = office.answers(&callers, asks.len());
            asks.clear();
            for (told, answer) in told.iter_mut().zip(answers) {
                let Reply::Kv(part) = answer else { panic!("{answer:?}") };
                asks.extend(part.more.map(KvQuestion::More));
                told.append(*part);
            }
        }
        assert!(told.iter().all(|told| told.pools[0].servers.len() == SERVERS));
        office.close();
    }

    #[test]
    fn who_asks_after_a_change_is_told_what_the_threads_say_after_it() {
        let mut office = Office::open("after");
        let busy = keep_busy(&office.scene.engine);
        let caller = [office.caller()];
        caller[0].send(1, REPORT, &[]).unwrap();
        office.turn();
        let hold = KvQuestion::Hold { pool: None, server: office.scene.server.clone(), out: true };
        caller[0].send(2, Request::Kv(hold), &[]).unwrap();
        caller[0].send(3, REPORT, &[]).unwrap();
        assert_eq!(office.answers(&caller, 1), [Reply::Done]);
        drop(busy);
        let answers = office.answers(&caller, 2);
        assert_ne!(told(&answers[0]).0, "held", "it was asked before");
        assert_eq!(told(&answers[1]).0, "held");
        office.close();
    }

    #[test]
    fn a_cache_that_takes_long_to_be_emptied_keeps_nobody_waiting_but_who_asked_for_it() {
        let mut office = Office::open("long");
        let busy = keep_at_chores(&office.scene.engine);
        let callers = [office.caller(), office.caller()];
        callers[0].send(1, Request::Cache(CacheQuestion::Clear), &[]).unwrap();
        callers[1].send(1, Request::Cache(CacheQuestion::Totals), &[]).unwrap();
        let answers = office.answers(&callers, 1);
        assert!(matches!(&answers[0], Reply::Cache(reply) if matches!(**reply, CacheReply::Totals(_))), "{answers:?}");
        drop(busy);
        assert_eq!(office.answers(&callers, 1), [Reply::Cache(Box::new(CacheReply::Removed(false)))]);
        office.close();
    }

    #[test]
    fn who_asks_beyond_what_may_wait_is_refused_and_signs_of_life_are_given() {
        let mut office = Office::open("limits");
        let callers: Vec<_> = (0..31).map(|_| office.caller()).collect();
        let mut refused = 0;
        for round in 0..6 {
            for caller in &callers {
                (0..8).for_each(|_| caller.send(round, REPORT, &[]).unwrap());
            }
            office.cop.send(round, Request::Ping, &[]).unwrap();
            office.desk.hear(SystemClock.now(), &office.scene.engine, Pong::default);
            assert!(matches!(office.cop.receive::<Reply>().unwrap().unwrap().0.body, Reply::Pong(_)));
            for caller in &callers {
                while let Some((packet, _)) = caller.receive::<Reply>().unwrap() {
                    assert_eq!(packet.body, too_many());
                    refused += 1;
                }
            }
        }
        assert_eq!((office.desk.work.len(), refused), (WAITING_MAX, 6 * 31 * 8 - WAITING_MAX));
        // What manager wants done is taken in all the same, and comes first.
        callers[7].send(7, Request::Commit("digest".to_owned()), &[]).unwrap();
        office.desk.hear(SystemClock.now(), &office.scene.engine, Pong::default);
        let first = office.desk.next();
        assert!(matches!(&first, Some(Work::Question(first)) if first.request.is_order()), "{first:?}");
        assert!(callers[7].receive::<Reply>().unwrap().is_none());
        // Of those that may wait for their turn not all may wait for the threads.
        while let Some(Work::Question(question)) = office.desk.next() {
            office.desk.report_to(question);
        }
        let answers = office.answers(&callers, WAITING_MAX);
        let refused = answers.iter().filter(|answer| **answer == too_many()).count();
        assert_eq!(refused, WAITING_MAX - ASKERS_MAX);
        office.close();
    }
}
