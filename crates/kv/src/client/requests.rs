//! Reads requests, as many as have come, and sends each where it belongs.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use base::Instant;
use buf::{Block, Chunk, SizeClass};

use super::kind::Kind;
use super::local;
use super::stream::Begun;
use super::{Client, PIPELINE_MAX, Phase};
use crate::commands::{self, Command, Keys, Refusal, Treat};
use crate::fault::Fault;
use crate::lane::{self, LaneCell};
use crate::metrics::Kv;
use crate::miss;
use crate::numbers::{CommandIndex, KvPool};
use crate::outbox::Source;
use crate::pending::{Again, Owner};
use crate::plan::{Class, Protocol};
use crate::wire::resp::{Request, Scan, request};

/// How often a client is received from in a turn, and how much; what else has come waits for the next.
const RECEIVES_MAX: usize = 4;
const RECEIVED_MAX: usize = RECEIVES_MAX * SizeClass::Medium.capacity();
/// What became of a request.
pub(super) enum Outcome {
    Done,
    /// Its server has as many as it may: it is to be looked at again.
    Full,
}

/// The bytes of one request and where its arguments are.
pub(super) struct Asked<'a> {
    pub(super) source: Source<'a>,
    pub(super) range: Range<usize>,
    pub(super) arguments: &'a [Range<u32>],
}

impl<'a> Asked<'a> {
    pub(super) fn count(&self) -> usize {
        self.arguments.len()
    }

    #[inline]
    pub(super) fn argument(&self, at: usize) -> &[u8] {
        let Some(place) = self.arguments.get(at) else { return b"" };
        let start = self.range.start;
        self.source.bytes().get(start + place.start as usize..start + place.end as usize).unwrap_or_default()
    }
}

/// Neighbouring requests for one server, whose bytes go as one piece.
#[derive(Default)]
pub(super) struct Run {
    lane: Option<Rc<LaneCell>>,
    range: Range<usize>,
}

impl Run {
    /// Hands the bytes over.
    pub(super) fn end(&mut self, source: Source<'_>) {
        let range = std::mem::take(&mut self.range);
        if let Some(lane) = self.lane.take() {
            lane.borrow_mut().push(source, range);
        }
    }
}

impl Drop for Run {
    /// Only when something panicked are bytes announced that nobody hands over: what the connection's replies would
    /// answer from there on is anybody's guess.
    fn drop(&mut self) {
        if let Some(lane) = self.lane.take() {
            lane::give_up(&lane);
        }
    }
}

impl Client {
    pub(super) fn may_read(&self) -> bool {
        self.phase == Phase::Open
            && self.slots.len() < PIPELINE_MAX
            && self.base >= self.barrier
            && self.kept <= super::KEPT_SOFT
            && !self.is_backed_up()
            && !self.is_unsettled()
    }

    /// Takes what has come.
    pub(super) fn read(&mut self) {
        if self.waits_for_room() {
            return;
        }
        if self.gathered.is_some() {
            self.read_gathered();
            return;
        }
        if self.streamed.is_some() {
            self.read_stream();
            return;
        }
        if self.shut_out || self.pool.is_pressed(&self.worker) {
            self.wait_for_memory();
            return;
        }
        // What was left because there was no room for it.
        if let Some(block) = self.input.take() {
            let left = self.requests(&block);
            self.keep(block);
            if left {
                return;
            }
        }
        let mut received = 0;
        for _ in 0..RECEIVES_MAX {
            if received >= RECEIVED_MAX {
                break;
            }
            if !self.may_read() {
                self.held = true;
                return;
            }
            let Some(mut block) = self.room() else { return };
            let Some(tcp) = &self.tcp else { return };
            let got = tcp.poll_recv(&mut Context::from_waker(Waker::noop()), &mut block);
            let over = match got {
                Poll::Pending => {
                    self.keep(block);
                    return;
                }
                Poll::Ready(Ok(0)) => {
                    // It has ended its direction, and still listens.
                    self.has_ended();
                    self.phase = Phase::Ending;
                    self.input = None;
                    self.mark();
                    return;
                }
                Poll::Ready(Err(_)) => {
                    self.fail();
                    return;
                }
                Poll::Ready(Ok(got)) => {
                    received += got;
                    self.plenty = received >= SizeClass::Medium.capacity();
                    self.has_received(got);
                    !tcp.is_readable()
                }
            };
            let left = self.requests(&block);
            self.keep(block);
            if left || over {
                return;
            }
        }
        self.again();
    }

    /// Its pool keeps so much that nothing new is asked.
    #[cold]
    pub(super) fn wait_for_memory(&mut self) {
        self.held = true;
        if !std::mem::replace(&mut self.shut_out, true) {
            self.pool.wait_for_memory(&self.worker, self.me.clone());
        }
    }

    /// Whether no more is taken for now.
    pub(super) fn has_enough(&mut self) -> bool {
        let enough = self.slots.len() >= PIPELINE_MAX
            || self.kept > super::KEPT_SOFT
            || self.out.len() > super::UNTAKEN_MAX
            || self.phase != Phase::Open
            || self.base < self.barrier
            || self.is_unsettled();
        self.held |= enough;
        enough
    }

    pub(super) fn again(&mut self) {
        if let Some(me) = self.me.upgrade() {
            self.worker.thread().schedule_imm(me).detach();
        }
    }

    /// A block to receive into, with the beginning of the current request in it.
    fn room(&mut self) -> Option<Block> {
        // Who filled a block the last time has more to say than one can hold.
        let fresh = if self.plenty { SizeClass::Large } else { SizeClass::Medium };
        let Some(block) = self.input.take() else { return Some(Block::new(fresh)) };
        if block.room() > 0 && (self.parsed == 0 || block.room() >= block.capacity() / 4) {
            return Some(block);
        }
        let begun = &block[self.parsed..];
        if let Some(class) = SizeClass::for_bytes(begun.len() * 2).or(SizeClass::for_bytes(begun.len() + 1)) {
            let mut next = Block::new(if class == SizeClass::Small { fresh } else { class });
            next.append(begun);
            self.parsed = 0;
            return Some(next);
        }
        match self.stream(&block) {
            Begun::Streams => {}
            Begun::Waits => {
                self.input = Some(block);
                self.held = true;
            }
            Begun::MustBeWhole => self.gather(&block),
        }
        None
    }

    /// Keeps the block only when something in it has not been taken.
    fn keep(&mut self, block: Block) {
        if self.parsed < block.len() && self.phase == Phase::Open {
            self.input = Some(block);
        } else {
            self.parsed = 0;
        }
    }

    /// Takes the requests in `block`. True when some are left for later.
    fn requests(&mut self, block: &Block) -> bool {
        if !self.slots.has_memory() {
            self.slots = self.worker.take_slots();
        }
        let mut request = self.begun.take().unwrap_or_else(|| self.worker.take_request());
        let mut run = Run::default();
        let left = match self.pool.plan().protocol {
            Protocol::Redis => self.requests_of(block, &mut request, &mut run),
            Protocol::Memcached => self.memcached_requests(block, &mut request, &mut run),
        };
        run.end(Source::Block(block));
        if request.is_begun() {
            self.begun = Some(request);
        } else {
            self.worker.keep_request(request);
        }
        self.count_waiting();
        if !self.dirty {
            self.give_slots_back();
        }
        left
    }

    fn requests_of(&mut self, block: &Block, request: &mut Request, run: &mut Run) -> bool {
        loop {
            if self.parsed >= block.len() {
                return false;
            }
            if self.has_enough() {
                return true;
            }
            match request.scan(&block[self.parsed..]) {
                Scan::Whole(len) => {
                    let range = self.parsed..self.parsed + len;
                    let asked = Asked { source: Source::Block(block), range, arguments: request.arguments() };
                    let outcome = self.take_request(&asked, run);
                    request.clear();
                    match outcome {
                        Outcome::Done => self.parsed += len,
                        Outcome::Full => return true,
                    }
                }
                Scan::Inline(len) => {
                    let line = &block[self.parsed..self.parsed + len];
                    match request::inline(line) {
                        Ok(words) => match self.take_words(&words, block, run) {
                            Outcome::Done => self.parsed += len,
                            Outcome::Full => return true,
                        },
                        Err(why) => {
                            self.refuse_all(why.line());
                            return false;
                        }
                    }
                }
                Scan::Blank(len) => {
                    request.clear();
                    self.parsed += len;
                }
                Scan::More(_) => return false,
                Scan::Malformed(why) => {
                    self.refuse_all(why.line());
                    return false;
                }
            }
        }
    }

    /// An inline command, as if it had come as an array.
    fn take_words(&mut self, words: &[Vec<u8>], block: &Block, run: &mut Run) -> Outcome {
        run.end(Source::Block(block));
        self.take_bytes(&request::encode(words))
    }

    /// A request in memory of its own.
    pub(super) fn take_bytes(&mut self, bytes: &[u8]) -> Outcome {
        self.take_shared(&bytes.into(), &mut Request::default())
    }

    /// The same, with a list of its arguments.
    pub(super) fn take_shared(&mut self, bytes: &Arc<[u8]>, request: &mut Request) -> Outcome {
        let source = Source::Shared(bytes);
        let mut run = Run::default();
        request.clear();
        let outcome = match self.pool.plan().protocol {
            Protocol::Redis => match request.scan(bytes) {
                Scan::Whole(len) => {
                    self.take_request(&Asked { source, range: 0..len, arguments: request.arguments() }, &mut run)
                }
                _ => Outcome::Done,
            },
            Protocol::Memcached => self.take_line(bytes, request.words(), &mut run),
        };
        run.end(source);
        outcome
    }

    /// What cannot be read ends the conversation, after all that is owed was said.
    pub(super) fn refuse_all(&mut self, line: Vec<u8>) {
        self.worker.cells().add(Kv::REFUSED, 1);
        self.answer(line);
        self.phase = Phase::Ending;
        self.mark();
    }

    /// Answers the request just read.
    pub(super) fn answer(&mut self, reply: Vec<u8>) {
        if self.slots.is_empty() {
            self.out.copy(&reply);
            self.base += 1;
            self.mark();
            return;
        }
        let len = reply.len();
        self.push_ready(Chunk::from_shared(reply.into(), 0..len));
    }

    /// Answers the request just read.
    pub(super) fn answer_static(&mut self, reply: &'static [u8]) {
        if self.slots.is_empty() {
            self.out.copy(reply);
            self.base += 1;
            self.mark();
            return;
        }
        self.push_ready(Chunk::from_static(reply));
    }

    #[cold]
    fn unknown(&mut self, asked: &Asked<'_>) -> Outcome {
        let name = asked.argument(0);
        if name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:") {
            self.hang_up();
            return Outcome::Done;
        }
        self.refuse(unknown(asked))
    }

    /// It speaks HTTP: somebody's browser or server may have been made to say it, with requests of ours in it. As the
    /// servers do, nothing more is read and nothing said.
    #[cold]
    pub(super) fn hang_up(&mut self) {
        self.worker.cells().add(Kv::FOREIGN, 1);
        self.worker.shared().voice().http(&self.worker, &self.pool.plan().source.name, &self.peer());
        self.phase = Phase::Ending;
        self.mark();
    }

    pub(super) fn refuse(&mut self, line: impl Into<Vec<u8>>) -> Outcome {
        self.worker.cells().add(Kv::REFUSED, 1);
        self.answer(line.into());
        Outcome::Done
    }

    #[inline]
    fn take_request(&mut self, asked: &Asked<'_>, run: &mut Run) -> Outcome {
        let outcome = self.route(asked, run);
        #[cfg(test)]
        lane::tests::panic_if_asked(asked.argument(1));
        if matches!(outcome, Outcome::Done) {
            self.worker.cells().add(Kv::COMMANDS, 1);
            self.pool.cells().add(KvPool::REQUESTS, 1);
        }
        outcome
    }

    #[inline]
    fn route(&mut self, asked: &Asked<'_>, run: &mut Run) -> Outcome {
        let Some(mut command) = commands::look_up(asked.argument(0)) else { return self.unknown(asked) };
        if !self.authenticated && !local::is_open_to_all(command) {
            return self.refuse("-NOAUTH Authentication required.\r\n");
        }
        if command.treat == Treat::Container && asked.count() > 1 {
            let name = [command.name.as_bytes(), b"|", asked.argument(1)].concat();
            match commands::look_up(&name) {
                Some(sub) => command = sub,
                None => return self.refuse(local::unknown_subcommand(command.name, asked.argument(1))),
            }
        }
        if !command.takes(asked.count()) {
            return self.miscounted(command, asked);
        }
        match command.treat {
            Treat::Forward => self.forward(command, asked, run),
            Treat::OneDatabase => self.copy(command, asked, run),
            Treat::Split(join) => self.split(command, join, asked, run),
            Treat::Local(what) => {
                self.worker.cells().add(Kv::LOCAL, 1);
                self.answer_locally(what, asked);
                Outcome::Done
            }
            Treat::Any => self.send(self.pool.any(), Kind::of(command), asked, run),
            Treat::Alone if self.pool.is_single() => self.send(self.pool.any(), Kind::of(command), asked, run),
            Treat::Alone => self.refuse(refused(command.name, Refusal::EveryServer)),
            // Whoever names none of its subcommands was told so by the number of arguments.
            Treat::Container => self.miscounted(command, asked),
            Treat::Refuse(_) if is_rows_name(asked) => self.unknown(asked),
            Treat::Refuse(why) => self.refuse(refused(command.name, why)),
        }
    }

    #[cold]
    fn miscounted(&mut self, command: &'static Command, asked: &Asked<'_>) -> Outcome {
        if is_rows_name(asked) {
            return self.unknown(asked);
        }
        self.refuse(format!("-ERR wrong number of arguments for '{}' command\r\n", command.name))
    }

    /// A copy, which may be asked for in another database: clients are to see one alone.
    fn copy(&mut self, command: &'static Command, asked: &Asked<'_>, run: &mut Run) -> Outcome {
        let ours = i64::from(self.pool.plan().source.redis_db);
        let mut at = 3;
        while at < asked.count() {
            if asked.argument(at).eq_ignore_ascii_case(b"db") {
                at += 1;
                // What is no number at all the server calls so.
                if commands::integer(asked.argument(at)).is_some_and(|other| other != ours) {
                    return self.refuse(refused(command.name, Refusal::Databases));
                }
            }
            at += 1;
        }
        self.forward(command, asked, run)
    }

    #[inline]
    fn forward(&mut self, command: &'static Command, asked: &Asked<'_>, run: &mut Run) -> Outcome {
        let Ok(keys) = commands::keys(command, asked.count(), |at| asked.argument(at)) else {
            // Whichever server gets it says what is wrong with it.
            return self.send(self.pool.any(), Kind::of(command), asked, run);
        };
        if keys.blocks {
            return self.refuse(refused(command.name, Refusal::Blocks));
        }
        if self.pool.is_single() {
            return self.send(Some(0), Kind::of(command), asked, run);
        }
        if keys.iter().next().is_none() {
            return self
                .refuse(format!("-CROSSSERVER '{}' without keys belongs to no server of the pool\r\n", command.name));
        }
        match self.place(&keys, asked) {
            Ok(server) => self.send(server, Kind::of(command), asked, run),
            Err(()) => self.refuse(cross_server(command.name, keys.hidden)),
        }
    }

    /// The one server of all keys; none when no server is live.
    #[inline]
    fn place(&self, keys: &Keys, asked: &Asked<'_>) -> Result<Option<usize>, ()> {
        if keys.hidden {
            return Err(());
        }
        if let Some(at) = keys.single() {
            return Ok(self.pool.pick(asked.argument(at)));
        }
        let mut servers = keys.iter().map(|at| self.pool.pick(asked.argument(at)));
        let Some(first) = servers.next() else { return Err(()) };
        if servers.all(|server| server == first) { Ok(first) } else { Err(()) }
    }

    /// Queues the request for a server.
    #[inline]
    pub(super) fn send(&mut self, server: Option<usize>, kind: Kind, asked: &Asked<'_>, run: &mut Run) -> Outcome {
        let lane = match self.pool.lane(&self.worker, server, self.id) {
            Ok(lane) => lane,
            Err(fault) => {
                self.unserved(server, kind, asked, fault);
                return Outcome::Done;
            }
        };
        let same = run.lane.as_ref().is_some_and(|other| Rc::ptr_eq(other, &lane));
        if !same || run.range.end != asked.range.start {
            run.end(asked.source);
        }
        {
            let mut to = lane.borrow_mut();
            if !to.has_room() {
                to.wait(self.me.clone());
                return Outcome::Full;
            }
            let Some(me) = self.me.upgrade() else { return Outcome::Done };
            let owner = Owner::Client(me, self.next_seq());
            to.expect(owner, asked.range.len(), self.deadline(kind.class), kind.again, kind.command);
        }
        self.wait();
        if run.lane.is_some() {
            run.range.end = asked.range.end;
        } else {
            (run.lane, run.range) = (Some(lane), asked.range.clone());
        }
        Outcome::Done
    }

    #[inline]
    pub(super) fn deadline(&self, class: Class) -> Instant {
        self.pool.plan().limit(class).map_or(Instant::FAR_FUTURE, |limit| self.worker.now() + limit)
    }

    /// The request just read has a server that takes none.
    #[cold]
    fn unserved(&mut self, server: Option<usize>, kind: Kind, asked: &Asked<'_>, fault: Fault) {
        let found = || miss::reply(self.pool.plan().protocol, asked.source.bytes().get(asked.range.clone())?);
        match found().filter(|_| kind.again == Again::Always && self.pool.misses(server)) {
            Some(nothing) => {
                self.pool.cells().add(KvPool::MISSES, 1);
                self.answer(nothing);
            }
            None => {
                self.failed(kind.command, fault);
                self.fail_now(fault);
            }
        }
    }

    /// Counts a request that no server was asked.
    #[cold]
    pub(super) fn failed(&self, command: CommandIndex, fault: Fault) {
        let plan = self.pool.plan();
        self.worker.numbers().commands(&plan.source.name, plan.protocol).failed(command, fault);
    }

    /// The request just read has no server to go to.
    pub(super) fn fail_now(&mut self, fault: Fault) {
        self.worker.cells().add(Kv::FORWARD_ERRORS, 1);
        self.pool.cells().add(KvPool::failed(fault), 1);
        self.answer_static(fault.line(self.pool.plan().protocol));
    }
}

pub(super) fn refused(name: &str, why: Refusal) -> String {
    format!("-ERR '{}' is not supported by the proxy: {}\r\n", name.replace('|', " "), why.reason())
}

fn cross_server(name: &str, hidden: bool) -> String {
    if hidden {
        return format!("-CROSSSERVER '{name}' makes keys of values, which may live on other servers of the pool\r\n");
    }
    format!(
        "-CROSSSERVER the keys of '{name}' live on different servers: give them a common hash tag, or the pool one server\r\n"
    )
}

/// Whether the command is named as its row in the table is, `name|subcommand`, which is no name to a server. What goes on
/// to one is answered there.
fn is_rows_name(asked: &Asked<'_>) -> bool {
    asked.argument(0).contains(&b'|')
}

/// As Redis says it.
fn unknown(asked: &Asked<'_>) -> Vec<u8> {
    let mut told = Vec::new();
    for at in 1..asked.count() {
        let room = local::TOLD_MAX.saturating_sub(told.len());
        if room == 0 {
            break;
        }
        told.extend([b"'", &local::printable(asked.argument(at), room)[..], b"' "].concat());
    }
    let name = local::printable(asked.argument(0), local::TOLD_MAX);
    [b"-ERR unknown command '", &name[..], b"', with args beginning with: ", &told, b"\r\n"].concat()
}
