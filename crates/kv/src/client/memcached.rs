//! Routes memcached's requests.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use buf::{Block, Chunk};

use super::kind::Kind;
use super::requests::{Asked, Outcome, Run};
use super::{Client, Phase};
use crate::commands::{Access, Keys};
use crate::fault::Fault;
use crate::join::{How, Joining};
use crate::memory::Kept;
use crate::metrics::Kv;
use crate::miss;
use crate::numbers::KvPool;
use crate::outbox::Source;
use crate::pending::{Again, Owner};
use crate::plan::{Class, MultigetPolicy};
use crate::split;
use crate::wire::memcached::{self, BAD_DELETE, BAD_LINE, BAD_TIME, END, ERROR, NOREPLY, Scan, is_key};

const REFUSED_FLUSH: &[u8] = b"SERVER_ERROR flush_all is not allowed through the proxy\r\n";
const REFUSED_STATS: &[u8] = b"SERVER_ERROR these stats are those of one server, ask it directly\r\n";

impl Client {
    /// Takes the requests in `block`. True when some are left for later.
    pub(super) fn memcached_requests(&mut self, block: &Block, words: &mut Vec<Range<u32>>, run: &mut Run) -> bool {
        let source = Source::Block(block);
        loop {
            if self.parsed >= block.len() {
                return false;
            }
            if self.has_enough() {
                return true;
            }
            let rest = &block[self.parsed..];
            match memcached::scan(rest, words) {
                Scan::Whole(len) => {
                    let asked = Asked { source, range: self.parsed..self.parsed + len, arguments: words };
                    match self.memcached_request(&asked, run) {
                        Outcome::Done => {
                            self.parsed += len;
                            self.worker.cells().add(Kv::COMMANDS, 1);
                            self.pool.cells().add(KvPool::REQUESTS, 1);
                        }
                        Outcome::Full => return true,
                    }
                }
                Scan::Refused(len, line) => {
                    self.parsed += len;
                    self.refuse_static(line);
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

    /// One request, whole.
    pub(super) fn memcached_request(&mut self, asked: &Asked<'_>, run: &mut Run) -> Outcome {
        let count = asked.count();
        // The words of the whole line say whether it is one; the last says whether anything is said of it.
        let quiet = count > 1 && asked.argument(count - 1) == NOREPLY;
        let silent = |line: &'static [u8]| if quiet { b"" } else { line };
        match asked.argument(0) {
            b"get" | b"gets" if count >= 2 => return self.retrieve(asked, 1, run),
            b"gat" | b"gats" if count >= 3 => return self.retrieve(asked, 2, run),
            b"gat" | b"gats" if count == 2 => {
                let is_time = std::str::from_utf8(asked.argument(1)).is_ok_and(|time| time.parse::<i32>().is_ok());
                return self.refuse_static(if is_time { END } else { BAD_TIME });
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
        if !(first..asked.count()).all(|at| is_key(asked.argument(at))) {
            return self.refuse_static(BAD_LINE);
        }
        // gat changes when a value expires.
        let access = if first == 1 { Access::Read } else { Access::Write };
        let kind = Kind::of_memcached(asked.argument(0), access);
        if self.pool.is_single() || asked.count() == first + 1 {
            return self.send(self.pool.pick(asked.argument(first)), kind, asked, run);
        }
        let keys = Keys { first, end: asked.count(), step: 1, ..Keys::default() };
        let (parts, places) = split::by_server(&keys, |at| self.pool.pick(asked.argument(at)));
        if let [only] = parts.as_slice() {
            return self.send(only.server, kind, asked, run);
        }
        run.end(asked.source);
        let request: Arc<[u8]> = asked.source.bytes()[asked.range.clone()].into();
        let keys = asked.arguments[first..].to_vec();
        let forgiving = self.pool.plan().source.multiget_policy == MultigetPolicy::Miss;
        self.send_parts(&parts, How::Lines { request, keys, forgiving }, places, kind, |part| {
            let mut bytes = Vec::with_capacity(16 + part.keys.len() * 32);
            for at in 0..first {
                bytes.extend_from_slice(asked.argument(at));
                bytes.push(b' ');
            }
            for at in &part.keys {
                bytes.extend_from_slice(asked.argument(*at));
                bytes.push(b' ');
            }
            bytes.pop();
            bytes.extend_from_slice(b"\r\n");
            bytes
        })
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
        let part = |server| split::Part { server: Some(server), keys: Vec::new() };
        let parts: Vec<_> = self.pool.live().into_iter().map(part).collect();
        if parts.is_empty() {
            self.fail_now(Fault::Refused);
            return Outcome::Done;
        }
        let kind = Kind::of_memcached(b"stats", Access::Read);
        self.send_parts(&parts, How::Stats, Vec::new(), kind, |_| b"stats\r\n".to_vec())
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
        let parts: Vec<_> =
            self.pool.live().into_iter().map(|server| split::Part { server: Some(server), keys: Vec::new() }).collect();
        if parts.is_empty() {
            if !quiet {
                self.fail_now(Fault::Refused);
            }
            return Outcome::Done;
        }
        let how = if quiet { How::Nothing } else { How::SameLine };
        self.send_parts(&parts, how, Vec::new(), Kind::of_memcached(b"flush_all", Access::Write), |_| line.clone())
    }

    /// Sends each part to its server; their replies become one.
    pub(super) fn send_parts(
        &mut self,
        parts: &[split::Part],
        how: How,
        places: Vec<u16>,
        kind: Kind,
        encode: impl Fn(&split::Part) -> Vec<u8>,
    ) -> Outcome {
        // All or none: a part that finds no room makes the whole wait.
        let mut lanes = Vec::with_capacity(parts.len());
        for part in parts {
            let lane = self.pool.lane(&self.worker, part.server, self.id);
            if let Ok(lane) = &lane
                && !lane.borrow().has_room()
            {
                lane.borrow_mut().wait(self.me.clone());
                return Outcome::Full;
            }
            lanes.push(lane);
        }
        let Some(me) = self.me.upgrade() else { return Outcome::Done };
        let cells = *self.worker.cells();
        cells.add(Kv::SPLITS, 1);
        cells.add(Kv::FRAGMENTS, parts.len() as u64);
        self.pool.cells().add(KvPool::FRAGMENTS, parts.len() as u64);
        let protocol = self.pool.plan().protocol;
        let seq = self.next_seq();
        let kept = Kept::new(&self.worker, &self.pool);
        let joining = Joining::new(me, protocol, seq, how, places, parts.len(), kept);
        self.wait();
        let deadline = self.deadline(Class::Split);
        for (at, (part, lane)) in parts.iter().zip(lanes).enumerate() {
            match lane {
                Ok(lane) => {
                    let bytes = encode(part);
                    let len = bytes.len();
                    let mut lane = lane.borrow_mut();
                    lane.expect(Owner::Part(Rc::clone(&joining), at), len, deadline, kind.again, kind.command);
                    lane.push(Source::Shared(&bytes.into()), 0..len);
                }
                Err(fault) => {
                    let misses = kind.again == Again::Always && self.pool.misses(part.server);
                    let nothing = if misses { miss::reply(protocol, &encode(part)) } else { None };
                    let line = if let Some(nothing) = nothing {
                        self.pool.cells().add(KvPool::MISSES, 1);
                        let len = nothing.len();
                        Chunk::from_shared(nothing.into(), 0..len)
                    } else {
                        cells.add(Kv::FORWARD_ERRORS, 1);
                        self.pool.cells().add(KvPool::failed(fault), 1);
                        Chunk::from_static(fault.line(protocol))
                    };
                    if let Some(whole) = crate::join::arrive(&joining, at, line) {
                        self.fill_pieces(seq, whole);
                    }
                }
            }
        }
        Outcome::Done
    }
}
