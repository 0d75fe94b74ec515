//! What each request of a world is, what the origins do with it, and what came of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use base::Rng;

use crate::peer::{Framing, Manner};

/// How an origin spoils an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Spoil {
    Not,
    /// Ends the connection instead of answering.
    CloseAtOnce,
    /// Resets it instead.
    ResetAtOnce,
    /// Never says anything.
    Silence,
    /// Says something that is no answer.
    GarbageHead,
    /// Two lengths that differ.
    TwoLengths,
    /// Ends the connection within the head.
    TornHead,
    /// Ends the connection after so many bytes of the body, which is longer and says so.
    CloseAt(u64),
    /// Resets it.
    ResetAt(u64),
    /// Says a size that is none, after so many bytes of a chunked body.
    BadChunk(u64),
    /// Says something behind the end of the answer.
    ExtraBytes,
}

/// What an origin does with one request that reaches it.
#[derive(Clone, Debug)]
pub(crate) struct Act {
    pub(crate) status: u16,
    pub(crate) framing: Framing,
    pub(crate) length: u64,
    pub(crate) interim: Vec<u16>,
    pub(crate) delay: Duration,
    pub(crate) manner: Manner,
    pub(crate) spoil: Spoil,
    /// Answers before it has read the request's body.
    pub(crate) hasty: bool,
    /// Closes the connection after the answer: saying so, or not, and then after a while.
    pub(crate) close: Option<bool>,
    pub(crate) trailer: bool,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) method: &'static str,
    /// Which remap rule's prefix.
    pub(crate) rule: char,
    /// The length of its body, and whether that is sent in chunks.
    pub(crate) body: Option<(u64, bool)>,
    pub(crate) expects: bool,
    /// What the origins do, attempt by attempt; the last act is repeated.
    pub(crate) acts: Vec<Act>,
}

impl Exchange {
    pub(crate) fn act(&self, attempt: u64) -> &Act {
        let last = self.acts.len() - 1;
        &self.acts[usize::try_from(attempt).unwrap_or(last).min(last)]
    }

    pub(crate) fn is_idempotent(&self) -> bool {
        !matches!(self.method, "POST" | "PATCH")
    }

    /// Whether the answer that `act` gives has a body.
    pub(crate) fn has_body(&self, act: &Act) -> bool {
        self.method != "HEAD" && !matches!(act.status, 204 | 304)
    }
}

/// Byte `at` of the body of request `id`.
pub(crate) fn request_byte(id: u64, at: u64) -> u8 {
    (id.wrapping_mul(0x9e37_79b9) ^ at.wrapping_mul(7) ^ (at >> 8)).to_le_bytes()[0]
}

/// Byte `at` of the body of the answer to attempt `attempt` of request `id`.
pub(crate) fn answer_byte(id: u64, attempt: u64, at: u64) -> u8 {
    request_byte(id.wrapping_add(7_777), at.wrapping_mul(3).wrapping_add(attempt.wrapping_mul(89)))
}

/// All requests of a world and what is known of them.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) exchanges: RefCell<BTreeMap<u64, Exchange>>,
    /// How often the head of each request reached an origin.
    pub(crate) arrivals: RefCell<BTreeMap<u64, u64>>,
    pub(crate) wrong: RefCell<Vec<String>>,
    /// Whole answers of an origin, answers of the proxy's own, broken off or none.
    pub(crate) whole: Cell<u64>,
    pub(crate) own: Cell<u64>,
    pub(crate) broken: Cell<u64>,
    /// Nothing is to go wrong in this world.
    pub(crate) calm: bool,
    /// Connections may fall silent in this world, and then a client waits in vain.
    pub(crate) cuts: bool,
    pub(crate) clients_over: Cell<u64>,
}

impl Ledger {
    pub(crate) fn wrong(&self, id: u64, what: impl std::fmt::Display) {
        let exchange = self.exchanges.borrow().get(&id).cloned();
        self.wrong.borrow_mut().push(format!("request {id}: {what}; {exchange:?}"));
    }

    pub(crate) fn exchange(&self, id: u64) -> Option<Exchange> {
        self.exchanges.borrow().get(&id).cloned()
    }
}

fn bump(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

impl Ledger {
    pub(crate) fn was_whole(&self) {
        bump(&self.whole);
    }

    pub(crate) fn was_own(&self) {
        bump(&self.own);
    }

    pub(crate) fn was_broken(&self) {
        bump(&self.broken);
    }

    pub(crate) fn client_over(&self) {
        bump(&self.clients_over);
    }
}

/// The dice of one world's requests.
pub(crate) struct Dice {
    pub(crate) rng: Rng,
    pub(crate) calm: bool,
    /// No body is longer.
    pub(crate) length_max: u64,
}

impl Dice {
    fn length(&mut self) -> u64 {
        let order = self.rng.below(u64::from(self.length_max.ilog2()) + 1);
        self.rng.below(1 << order) + u64::from(order > 3)
    }

    pub(crate) fn exchange(&mut self, http10: bool) -> Exchange {
        let method = ["GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE", "PATCH"]
            [usize::try_from(self.rng.below(9)).unwrap_or(0)];
        let rule = ['a', 'b', 'c', 'd'][usize::try_from(self.rng.below(if self.calm { 3 } else { 4 })).unwrap_or(0)];
        let bodied = matches!(method, "POST" | "PUT" | "PATCH") || (method == "DELETE" && self.rng.one_in(3));
        let body = bodied.then(|| (self.length(), !http10 && self.rng.one_in(2)));
        let expects = !http10 && body.is_some_and(|(length, chunked)| length > 0 || chunked) && self.rng.one_in(4);
        let acts = (0..1 + self.rng.below(2)).map(|_| self.act()).collect();
        Exchange { method, rule, body, expects, acts }
    }

    fn act(&mut self) -> Act {
        let length = self.length();
        let rng = &mut self.rng;
        let framing = match rng.below(5) {
            0 | 1 => Framing::Length(length),
            2 | 3 => Framing::Chunked,
            _ => Framing::UntilClose,
        };
        let status = [200, 200, 200, 200, 404, 500, 204, 304][usize::try_from(rng.below(8)).unwrap_or(0)];
        let interim = if rng.one_in(6) {
            let count = usize::try_from(1 + rng.below(3)).unwrap_or(1);
            [100, 103, 102][..count].to_vec()
        } else {
            vec![]
        };
        let at = rng.below(length.max(1));
        let (delayed, order) = (rng.one_in(3), rng.below(12));
        let spoil = if self.calm || !rng.one_in(4) {
            Spoil::Not
        } else {
            match (rng.below(10), framing) {
                (0, _) => Spoil::CloseAtOnce,
                (1, _) => Spoil::ResetAtOnce,
                (2, _) if rng.one_in(3) => Spoil::Silence,
                (3, _) => Spoil::GarbageHead,
                (4, _) => Spoil::TwoLengths,
                (5, _) => Spoil::TornHead,
                (6, Framing::Length(1..) | Framing::Chunked) => Spoil::CloseAt(at),
                (7, _) => Spoil::ResetAt(at),
                (8, Framing::Chunked) => Spoil::BadChunk(at),
                (9, Framing::Length(_) | Framing::Chunked) => Spoil::ExtraBytes,
                _ => Spoil::Not,
            }
        };
        Act {
            status,
            framing,
            length,
            interim,
            delay: if delayed { Duration::from_millis(rng.below(1 << order)) } else { Duration::ZERO },
            manner: Manner::drawn(rng),
            spoil,
            hasty: rng.one_in(5),
            close: rng.one_in(4).then(|| self.calm || rng.one_in(2)),
            trailer: rng.one_in(4),
        }
    }
}
