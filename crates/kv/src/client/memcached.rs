//! Routes memcached's requests.

use std::ops::Range;
use std::sync::Arc;

use buf::Block;

use super::kind::Kind;
use super::requests::{Asked, Outcome, Run};
use super::{Client, Phase};
use crate::commands::{Access, Keys};
use crate::fault::Fault;
use crate::join::How;
use crate::metrics::Kv;
use crate::numbers::KvPool;
use crate::outbox::Source;
use crate::pending::Owner;
use crate::plan::MultigetPolicy;
use crate::split::{Piece, Split};
use crate::wire::memcached::{
    self, BAD_DELETE, BAD_LINE, BAD_TIME, END, ERROR, NOREPLY, Scan, TOO_LONG, is_key, is_time,
};
use crate::wire::resp::Request;

const REFUSED_FLUSH: &[u8] = b"SERVER_ERROR flush_all is not allowed through the proxy\r\n";
const REFUSED_STATS: &[u8] = b"SERVER_ERROR these stats are those of one server, ask it directly\r\n";

impl Client {
    /// Takes the requests in `block`. True when some are left for later.
    pub(super) fn memcached_requests(&mut self, block: &Block, request: &mut Request, run: &mut Run) -> bool {
        let source = Source::Block(block);
        let (words, searched) = request.line();
        loop {
            if self.parsed >= block.len() {
                return false;
            }
            if self.has_enough() {
                return true;
            }
            let rest = &block[self.parsed..];
            let scan = memcached::scan_on(rest, searched, words);
            if !matches!(scan, Scan::More(_)) {
                *searched = 0;
            }
            match scan {
                Scan::Whole(len) => {
                    let asked = Asked { source, range: self.parsed..self.parsed + len, arguments: words };
                    match self.memcached_request(&asked, run) {
                        Outcome::Done => self.parsed += len,
                        Outcome::Full => return true,
                    }
                }
                Scan::Odd(len) => {
                    run.end(source);
                    match self.take_bytes(&memcached::rewritten(&rest[..len], words)) {
                        Outcome::Done => self.parsed += len,
                        Outcome::Full => return true,
                    }
                }
                Scan::Refused(len, line) => {
                    let here = len.min(rest.len());
                    self.parsed += here;
                    self.refuse_static(line);
                    if len > here {
                        self.drop_next(len - here);
                        return true;
                    }
                }
                Scan::More(_) => return false,
                Scan::Hopeless(line) => {
                    self.refuse_all(line.to_vec());
                    return false;
                }
                Scan::Binary => {
                    // The header is 24 bytes.
                    if rest.len() < 24 {
                        return false;
                    }
                    self.refuse_all(memcached::binary_refusal(rest));
                    return false;
                }
            }
        }
    }

    /// One request, in memory of its own.
    pub(super) fn take_line(&mut self, bytes: &Arc<[u8]>, words: &mut Vec<Range<u32>>, run: &mut Run) -> Outcome {
        match memcached::scan(bytes, words) {
            Scan::Whole(len) => {
                let asked = Asked { source: Source::Shared(bytes), range: 0..len, arguments: words };
                self.memcached_request(&asked, run)
            }
            Scan::Odd(len) => self.take_bytes(&memcached::rewritten(&bytes[..len], words)),
            Scan::Refused(len, line) => {
                self.refuse_static(line);
                if len > bytes.len() {
                    self.drop_next(len - bytes.len());
                }
                Outcome::Done
            }
            Scan::More(_) | Scan::Hopeless(_) | Scan::Binary => Outcome::Done,
        }
    }

    /// One request, whole.
    fn memcached_request(&mut self, asked: &Asked<'_>, run: &mut Run) -> Outcome {
        let outcome = self.memcached_route(asked, run);
        if matches!(outcome, Outcome::Done) {
            self.worker.cells().add(Kv::COMMANDS, 1);
            self.pool.cells().add(KvPool::REQUESTS, 1);
        }
        outcome
    }

    fn memcached_route(&mut self, asked: &Asked<'_>, run: &mut Run) -> Outcome {
        let count = asked.count();
        // The words of the whole line say whether it is one; the last says whether anything is said of it.
        let quiet = count > 1 && asked.argument(count - 1) == NOREPLY;
        let silent = |line: &'static [u8]| if quiet { b"" } else { line };
        match asked.argument(0) {
            b"get" | b"gets" if count >= 2 => return self.retrieve(asked, 1, run),
            b"gat" | b"gats" if count >= 3 => return self.retrieve(asked, 2, run),
            b"gat" | b"gats" if count == 2 => {
                return self.refuse_static(if is_time(asked.argument(1)) { END } else { BAD_TIME });
            }
            // Looked at while it was scanned.
            name if memcached::has_data(name) => {}
            b"delete" => match (count, asked.argument(2)) {
                (2, _) => return self.store(asked, false, run),
                (3, b"0") => {}
                (3, _) if quiet => {}
                (4, b"0") if quiet => {}
                (3..=4, _) => return self.refuse_static(silent(BAD_DELETE)),
                _ => return self.refuse_static(ERROR),
            },
            b"incr" | b"decr" | b"touch" if matches!(count, 3..=4) => {}
            // Whatever follows it: as memcached.
            b"version" => {
                return self.send(self.pool.any(), Kind::of_memcached(b"version", Access::Read), asked, run);
            }
            b"verbosity" => return self.verbosity(asked, quiet),
            b"quit" => {
                self.phase = Phase::Ending;
                self.mark();
                return Outcome::Done;
            }
            b"flush_all" if count > 3 => return self.refuse_static(ERROR),
            b"flush_all" if self.pool.plan().source.memcached_flush_all => return self.flush_all(asked, quiet, run),
            b"flush_all" => return self.refuse_static(silent(REFUSED_FLUSH)),
            b"stats" if count == 1 => return self.stats(asked, run),
            b"stats" if count == 2 && asked.argument(1) == b"proxy" => return self.stats_of_proxy(),
            b"stats" => return self.refuse_static(REFUSED_STATS),
            // As memcached, which leaves the answer out.
            _ if asked.argument(count - 1).starts_with(b"HTTP/") => {
                self.hang_up();
                return Outcome::Done;
            }
            _ => return self.refuse_static(ERROR),
        }
        self.store(asked, quiet, run)
    }

    /// A request of one key that changes something.
    fn store(&mut self, asked: &Asked<'_>, quiet: bool, run: &mut Run) -> Outcome {
        if !is_key(asked.argument(1)) {
            return self.refuse_static(if quiet { b"" } else { BAD_LINE });
        }
        let server = self.pool.pick(asked.argument(1));
        let kind = Kind::of_memcached(asked.argument(0), Access::Write);
        if quiet { self.send_quietly(server, kind, asked, run) } else { self.send(server, kind, asked, run) }
    }

    pub(super) fn refuse_static(&mut self, line: &'static [u8]) -> Outcome {
        self.worker.cells().add(Kv::REFUSED, 1);
        // Nothing is said of what wants no reply.
        if !line.is_empty() {
            self.answer_static(line);
        }
        Outcome::Done
    }

    /// A request whose client wants no reply. The server is asked for one all the same: without it nobody could tell
    /// whose an error line is, nor when what follows may go another way.
    fn send_quietly(&mut self, server: Option<usize>, kind: Kind, asked: &Asked<'_>, run: &mut Run) -> Outcome {
        run.end(asked.source);
        // Nobody is to be told of a server that is not there.
        let Ok(lane) = self.pool.lane(&self.worker, server, self.id) else { return Outcome::Done };
        let Some(me) = self.me.upgrade() else { return Outcome::Done };
        let mut to = lane.borrow_mut();
        if !to.has_room() {
            to.wait(self.me.clone());
            return Outcome::Full;
        }
        let request = &asked.source.bytes()[asked.range.clone()];
        let word = asked.arguments.last().cloned().unwrap_or(0..0);
        let mut bytes = request.get(..word.start as usize).unwrap_or_default().trim_ascii_end().to_vec();
        bytes.extend_from_slice(b"\r\n");
        let data = memchr::memchr(b'\n', request).map_or(request.len(), |end| end + 1);
        bytes.extend_from_slice(&request[data..]);
        let len = bytes.len();
        let owner = Owner::Quiet(me, self.next_seq());
        to.expect(owner, len, self.deadline(kind.class), kind.again, kind.command);
        to.push(Source::Shared(&bytes.into()), 0..len);
        self.wait();
        Outcome::Done
    }

    fn retrieve(&mut self, asked: &Asked<'_>, first: usize, run: &mut Run) -> Outcome {
        if first == 2 && !is_time(asked.argument(1)) {
            return self.refuse_static(BAD_TIME);
        }
        if !(first..asked.count()).all(|at| is_key(asked.argument(at))) {
            return self.refuse_static(BAD_LINE);
        }
        // gat changes when a value expires.
        let access = if first == 1 { Access::Read } else { Access::Write };
        let kind = Kind::of_memcached(asked.argument(0), access);
        // A server closes the connection for a longer line than this, but of `get` and `gets`.
        let is_long = first > 1 && asked.range.len() > memcached::OTHER_LINE_MAX;
        if !is_long && (self.pool.is_single() || asked.count() == first + 1) {
            return self.send(self.pool.pick(asked.argument(first)), kind, asked, run);
        }
        let keys = Keys { first, end: asked.count(), step: 1, ..Keys::default() };
        let mut split = Split::take();
        split.by_server(&keys, |at| self.pool.pick(asked.argument(at)));
        if is_long && !split.divide(first, asked.arguments, memcached::OTHER_LINE_MAX) {
            split.keep();
            return self.refuse_static(TOO_LONG);
        }
        let outcome = if let [only] = split.servers()
            && !is_long
        {
            self.send(*only, kind, asked, run)
        } else {
            run.end(asked.source);
            let how = How::Lines {
                request: asked.source.bytes()[asked.range.clone()].into(),
                keys: asked.arguments[first..].to_vec(),
                forgiving: self.pool.plan().source.multiget_policy == MultigetPolicy::Miss,
            };
            self.send_parts(&split, how, kind, asked, |part, each| split.line(part, first, asked.arguments, each))
        };
        split.keep();
        outcome
    }

    /// It is the proxy's own business, and it has none.
    fn verbosity(&mut self, asked: &Asked<'_>, quiet: bool) -> Outcome {
        let is_number = asked.argument(1).iter().all(u8::is_ascii_digit);
        match asked.count() {
            2 if quiet => {}
            2 | 3 if !is_number => return self.refuse_static(if quiet { b"" } else { BAD_LINE }),
            3 if quiet => {}
            2 | 3 => self.answer_static(b"OK\r\n"),
            _ => return self.refuse_static(ERROR),
        }
        Outcome::Done
    }

    /// Of every live server, in one.
    fn stats(&mut self, asked: &Asked<'_>, run: &mut Run) -> Outcome {
        run.end(asked.source);
        let kind = Kind::of_memcached(b"stats", Access::Read);
        if let Some(outcome) = self.send_to_all(How::Stats, kind, asked, b"stats\r\n") {
            return outcome;
        }
        self.failed(kind.command, Fault::Refused);
        self.fail_now(Fault::Refused);
        Outcome::Done
    }

    /// To every live server.
    fn flush_all(&mut self, asked: &Asked<'_>, quiet: bool, run: &mut Run) -> Outcome {
        let count = if quiet { asked.count() - 1 } else { asked.count() };
        run.end(asked.source);
        let mut line = b"flush_all".to_vec();
        if count >= 2 {
            line.push(b' ');
            line.extend_from_slice(asked.argument(1));
        }
        line.extend_from_slice(b"\r\n");
        let how = if quiet { How::Nothing } else { How::SameLine };
        let kind = Kind::of_memcached(b"flush_all", Access::Write);
        if let Some(outcome) = self.send_to_all(how, kind, asked, &line) {
            return outcome;
        }
        if !quiet {
            self.failed(kind.command, Fault::Refused);
            self.fail_now(Fault::Refused);
        }
        Outcome::Done
    }

    /// The same line to every live server; none when no server is.
    fn send_to_all(&mut self, how: How, kind: Kind, asked: &Asked<'_>, line: &[u8]) -> Option<Outcome> {
        let mut split = Split::take();
        split.for_all(self.pool.live());
        let outcome = (!split.servers().is_empty())
            .then(|| self.send_parts(&split, how, kind, asked, |_, each| each(Piece::Made(line))));
        split.keep();
        outcome
    }
}
