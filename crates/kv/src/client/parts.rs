//! A request with keys of several servers goes to each in part; the replies become one.

use std::cell::Cell;
use std::rc::Rc;

use buf::Chunk;

use super::Client;
use super::kind::Kind;
use super::requests::{Asked, Outcome, Run};
use crate::commands::{self, Command, Join};
use crate::fault::Fault;
use crate::join::{self, How, Joining};
use crate::lane::{self, LaneCell};
use crate::memory::Kept;
use crate::metrics::Kv;
use crate::miss;
use crate::numbers::KvPool;
use crate::pending::{Again, Owner};
use crate::plan::Class;
use crate::split::{Piece, Split};

/// Servers of one request that the list which is kept for the next may have room for.
const LANES_KEPT_MAX: usize = 256;

/// The connection of each part, or why there is none.
type Lanes = Vec<Result<Rc<LaneCell>, Fault>>;

thread_local! {
    static LANES: Cell<Lanes> = const { Cell::new(Vec::new()) };
}

impl Client {
    /// A request of Redis whose keys may live apart.
    pub(super) fn split(&mut self, command: &'static Command, join: Join, asked: &Asked<'_>, run: &mut Run) -> Outcome {
        let Ok(keys) = commands::keys(command, asked.count(), |at| asked.argument(at)) else {
            return self.refuse(format!("-ERR wrong number of arguments for '{}' command\r\n", command.name));
        };
        if keys.step == 2 && asked.count().is_multiple_of(2) {
            return self.refuse(format!("-ERR wrong number of arguments for '{}' command\r\n", command.name));
        }
        if self.pool.is_single() {
            return self.send(Some(0), Kind::of(command), asked, run);
        }
        let mut split = Split::take();
        {
            let mut picker = self.pool.picker();
            split.by_server(&keys, |at| picker.pick(asked.argument(at)));
        }
        let outcome = if let [only] = split.servers() {
            self.send(*only, Kind::of(command), asked, run)
        } else {
            run.end(asked.source);
            self.send_parts(&split, How::Joined(join), Kind::of(command), asked, |part, each| {
                split.resp(part, asked.arguments, each);
            })
        };
        split.keep();
        outcome
    }

    /// Sends each part, as `pieces` gives it, to its server; their replies become one.
    pub(super) fn send_parts(
        &mut self,
        split: &Split,
        how: How,
        kind: Kind,
        asked: &Asked<'_>,
        pieces: impl Fn(usize, &mut dyn FnMut(Piece<'_>)),
    ) -> Outcome {
        // All or none: a part that finds no room makes the whole wait.
        let mut lanes = LANES.take();
        let found = split.servers().iter().all(|server| {
            let lane = self.pool.lane(&self.worker, *server, self.id);
            if let Ok(lane) = &lane
                && !lane.borrow().has_room()
            {
                lane.borrow_mut().wait(self.me.clone());
                return false;
            }
            lanes.push(lane);
            true
        });
        let outcome = if found {
            self.send_parts_on(&lanes, split, how, kind, asked, pieces);
            Outcome::Done
        } else {
            Outcome::Full
        };
        lanes.clear();
        if lanes.capacity() <= LANES_KEPT_MAX {
            LANES.set(lanes);
        }
        outcome
    }

    fn send_parts_on(
        &mut self,
        lanes: &[Result<Rc<LaneCell>, Fault>],
        split: &Split,
        how: How,
        kind: Kind,
        asked: &Asked<'_>,
        pieces: impl Fn(usize, &mut dyn FnMut(Piece<'_>)),
    ) {
        let Some(me) = self.me.upgrade() else { return };
        let cells = *self.worker.cells();
        cells.add(Kv::SPLITS, 1);
        cells.add(Kv::FRAGMENTS, lanes.len() as u64);
        self.pool.cells().add(KvPool::FRAGMENTS, lanes.len() as u64);
        let protocol = self.pool.plan().protocol;
        let seq = self.next_seq();
        let kept = Kept::new(&self.worker, &self.pool);
        let joining = Joining::new(me, protocol, seq, how, split, kept);
        self.wait();
        let deadline = self.deadline(Class::Split);
        for (part, (lane, server)) in lanes.iter().zip(split.servers()).enumerate() {
            match lane {
                Ok(lane) => {
                    let whole = Whole(Some(lane));
                    let mut lane = lane.borrow_mut();
                    lane.expect(Owner::Part(Rc::clone(&joining), part), 0, deadline, kind.again, kind.command);
                    pieces(part, &mut |piece| match piece {
                        Piece::Made(bytes) => lane.add_made(bytes),
                        Piece::Asked(range) => {
                            let start = asked.range.start;
                            let range = start + range.start..start + range.end;
                            #[cfg(test)]
                            lane::tests::panic_if_added(&asked.source.bytes()[range.clone()]);
                            lane.add(asked.source, range);
                        }
                    });
                    drop(lane);
                    whole.stands();
                }
                Err(fault) => {
                    let misses = kind.again == Again::Always && self.pool.misses(*server);
                    let line = match misses.then(|| miss::reply(protocol, &whole(asked, |each| pieces(part, each)))) {
                        Some(Some(nothing)) => {
                            self.pool.cells().add(KvPool::MISSES, 1);
                            let len = nothing.len();
                            Chunk::from_shared(nothing.into(), 0..len)
                        }
                        _ => {
                            cells.add(Kv::FORWARD_ERRORS, 1);
                            self.pool.cells().add(KvPool::failed(*fault), 1);
                            self.failed(kind.command, *fault);
                            Chunk::from_static(fault.line(protocol))
                        }
                    };
                    if join::arrive(&joining, part, line) {
                        self.fill_joined(seq, &joining.borrow());
                    }
                }
            }
        }
    }
}

/// A part's request on its connection, piece by piece.
struct Whole<'a>(Option<&'a Rc<LaneCell>>);

impl Whole<'_> {
    fn stands(mut self) {
        self.0 = None;
    }
}

impl Drop for Whole<'_> {
    /// Only when something panicked between two pieces: what comes next there would be taken for the rest.
    fn drop(&mut self) {
        if let Some(lane) = self.0 {
            lane::give_up(lane);
        }
    }
}

/// A part's bytes in one.
#[cold]
fn whole(asked: &Asked<'_>, pieces: impl FnOnce(&mut dyn FnMut(Piece<'_>))) -> Vec<u8> {
    let request = asked.source.bytes().get(asked.range.clone()).unwrap_or_default();
    let mut bytes = Vec::new();
    pieces(&mut |piece| match piece {
        Piece::Made(made) => bytes.extend_from_slice(made),
        Piece::Asked(range) => bytes.extend_from_slice(request.get(range).unwrap_or_default()),
    });
    bytes
}
