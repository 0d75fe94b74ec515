//! What the servers have, what was asked and told, and the judgement of each reply.
//!
//! Keys belong to one client each, who alone changes them: so each key has one history, and in a calm world it is known
//! of each reply to its owner what it must be, to the byte. Others who read see no older state than the owner was told
//! is there, or they have seen.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use crate::dialect::{Ask, Bytes, Dialect, Found, Said, counter_of};

/// What one server has.
pub(crate) type Store = HashMap<Vec<u8>, Bytes>;
/// The numbers of the values of each server's keys, in the order in which it took them.
type Written = HashMap<(u16, Vec<u8>), Vec<u64>>;

/// What was asked for under a key, in its owner's order. Before all of it there is nothing.
#[derive(Default)]
struct History {
    /// After each change what is there.
    states: Vec<Option<Bytes>>,
    /// Changes of which the owner knows that they were carried out.
    told: usize,
}

impl History {
    /// What is there after so many changes.
    fn after(&self, changes: usize) -> Found {
        let state = changes.checked_sub(1).and_then(|last| self.states[last].clone());
        state.map_or(Found::Nothing, Found::Value)
    }
}

/// A request on its way, and what is known of its answer.
pub(crate) struct Asked {
    pub(crate) ask: Ask,
    /// For each key: changes after which it is looked at. By its owner, exactly so many; by others, at least.
    after: Vec<usize>,
    /// Of those deleted, how many were there.
    there: u64,
}

/// Who owns a key: its name begins so.
pub(crate) fn owner_of(key: &[u8]) -> u64 {
    String::from_utf8_lossy(key).split(':').next().unwrap().parse().unwrap()
}

/// What may go wrong in a world.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Nothing.
    Calm,
    /// Servers are slow, so that requests are given up; none of their connections ends.
    Sluggish,
    /// Everything.
    Foul,
}

/// How much clients ask for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// Little: bytes come one by one.
    Small,
    /// Some clients have large values.
    Large,
    /// Some ask for more than the proxy hands them without their taking it, and take their time.
    Hoards,
}

pub(crate) struct Ledger {
    pub(crate) dialect: Dialect,
    pub(crate) calm: bool,
    pub(crate) weather: Weather,
    /// How much values may be.
    pub(crate) size: Size,
    pub(crate) stores: RefCell<HashMap<u16, Store>>,
    pub(crate) written: RefCell<Written>,
    histories: RefCell<HashMap<Bytes, History>>,
    /// For each client and number of a value the connection that sent it, and whether the client was told that it is there.
    sent: RefCell<HashMap<(u64, u64), (u64, bool)>>,
    /// Changes of others' keys that a client has seen.
    seen: RefCell<HashMap<(u64, Bytes), usize>>,
    pub(crate) wrong: RefCell<Vec<String>>,
    /// Good replies, errors, and connections that ended early.
    pub(crate) counts: [Cell<u64>; 3],
    pub(crate) over: Cell<u64>,
}

impl Ledger {
    pub(crate) fn new(dialect: Dialect, weather: Weather, size: Size) -> Self {
        Self {
            dialect,
            calm: weather == Weather::Calm,
            weather,
            size,
            stores: RefCell::default(),
            written: RefCell::default(),
            histories: RefCell::default(),
            sent: RefCell::default(),
            seen: RefCell::default(),
            wrong: RefCell::default(),
            counts: Default::default(),
            over: Cell::new(0),
        }
    }

    pub(crate) fn count(&self, kind: usize) {
        self.counts[kind].set(self.counts[kind].get() + 1);
    }

    pub(crate) fn blame(&self, what: String) {
        self.wrong.borrow_mut().push(what);
    }

    /// Notes down what a client asks for, on its connection of that number.
    pub(crate) fn note(&self, client: u64, connection: u64, ask: Ask) -> Asked {
        let mut histories = self.histories.borrow_mut();
        let mut change = |key: &Bytes, state: Option<Bytes>| {
            let history = histories.entry(Bytes::clone(key)).or_default();
            let was_there = history.after(history.states.len()) != Found::Nothing;
            history.states.push(state);
            (history.states.len(), was_there)
        };
        let (mut after, mut there) = (Vec::new(), 0);
        match &ask {
            Ask::Set(pairs) => {
                for (key, value) in pairs {
                    after.push(change(key, Some(Bytes::clone(value))).0);
                    let counter = counter_of(value).unwrap();
                    self.sent.borrow_mut().insert((client, counter), (connection, false));
                }
            }
            Ask::Delete(keys) => {
                for key in keys {
                    let (changes, was_there) = change(key, None);
                    after.push(changes);
                    there += u64::from(was_there);
                }
            }
            Ask::Get(key) => after.push(self.changes_before(&mut histories, client, key)),
            Ask::Many(keys) => {
                after.extend(keys.iter().map(|key| self.changes_before(&mut histories, client, key)));
            }
            Ask::Word(_) => {}
        }
        Asked { ask, after, there }
    }

    /// How many changes a read that is asked for now has behind it at least, and of the client's own keys just so many.
    fn changes_before(&self, histories: &mut HashMap<Bytes, History>, client: u64, key: &Bytes) -> usize {
        let history = histories.entry(Bytes::clone(key)).or_default();
        if owner_of(key) == client {
            return history.states.len();
        }
        let seen = self.seen.borrow().get(&(client, Bytes::clone(key))).copied().unwrap_or(0);
        history.told.max(seen)
    }

    /// Judges one reply.
    pub(crate) fn judge(&self, client: u64, asked: &Asked, got: &[u8]) -> Result<(), String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        let show = || format!("{:?} got {:?}", text(&self.dialect.write(&asked.ask, false)), text(got));
        let said = self.dialect.read(&asked.ask, got).ok_or_else(show)?;
        self.count(usize::from(matches!(said, Said::Error)));
        match (said, &asked.ask) {
            (Said::Error, Ask::Word(_)) => Err(show()),
            (Said::Error, _) if self.calm => Err(format!("in a calm world {}", show())),
            (Said::Error, _) | (Said::Word, _) => Ok(()),
            (Said::Done, Ask::Set(pairs)) => {
                for ((key, value), after) in pairs.iter().zip(&asked.after) {
                    self.told(key, *after);
                    let counter = counter_of(value).unwrap();
                    self.sent.borrow_mut().entry((client, counter)).and_modify(|sent| sent.1 = true);
                }
                Ok(())
            }
            (Said::Count(count), Ask::Delete(keys)) => {
                keys.iter().zip(&asked.after).for_each(|(key, after)| self.told(key, *after));
                let right = if self.calm { count == asked.there } else { count <= keys.len() as u64 };
                if right { Ok(()) } else { Err(format!("{} were there: {}", asked.there, show())) }
            }
            (Said::Values(found), Ask::Get(key)) => self.judge_values(client, std::slice::from_ref(key), asked, &found),
            (Said::Values(found), Ask::Many(keys)) => self.judge_values(client, keys, asked, &found),
            _ => Err(show()),
        }
    }

    fn told(&self, key: &Bytes, changes: usize) {
        let mut histories = self.histories.borrow_mut();
        let history = histories.get_mut(key).unwrap();
        history.told = history.told.max(changes);
    }

    fn judge_values(&self, client: u64, keys: &[Bytes], asked: &Asked, found: &[Found]) -> Result<(), String> {
        if found.len() != keys.len() {
            return Err(format!("{} values for {} keys", found.len(), keys.len()));
        }
        let histories = self.histories.borrow();
        for ((key, found), after) in keys.iter().zip(found).zip(&asked.after) {
            let history = &histories[key];
            let name = String::from_utf8_lossy(key);
            if !self.calm {
                // What is there may be old, or on another server; but it is what was once asked for.
                let known = (0..=history.states.len()).any(|changes| history.after(changes) == *found);
                if !known && *found != Found::Error {
                    return Err(format!("{name} has never been {found:?}"));
                }
                continue;
            }
            if owner_of(key) == client {
                let expected = history.after(*after);
                if expected != *found {
                    return Err(format!("{name} is {expected:?} after {after} changes, not {found:?}"));
                }
                continue;
            }
            let changes = (*after..=history.states.len()).find(|changes| history.after(*changes) == *found);
            let Some(changes) = changes else {
                return Err(format!("{name} of another was {found:?} before {after} changes, or never"));
            };
            self.seen.borrow_mut().insert((client, Bytes::clone(key)), changes);
        }
        Ok(())
    }

    /// What was carried out after something that the same connection asked for later: of what the client was told that it
    /// was, and where no connection of the proxy's ends of all.
    pub(crate) fn overtaken(&self) -> Vec<String> {
        let (sent, of_all) = (self.sent.borrow(), self.weather == Weather::Sluggish);
        let mut found = Vec::new();
        for ((port, key), numbers) in &*self.written.borrow() {
            // The latest number of each connection so far.
            let mut latest = HashMap::new();
            for number in numbers {
                let (connection, told) = sent[&(owner_of(key), *number)];
                let latest = latest.entry(connection).or_insert(0_u64);
                if *latest > *number && (told || of_all) {
                    let name = String::from_utf8_lossy(key);
                    found.push(format!("{port} took {name}#{number} after #{latest} of one connection"));
                }
                *latest = (*latest).max(*number);
            }
        }
        found
    }

    /// Of each key in the end its owner's last state is there, and nowhere else anything: of a calm world.
    pub(crate) fn astray(&self) -> Vec<String> {
        let stores = self.stores.borrow();
        let mut found = Vec::new();
        for (key, history) in &*self.histories.borrow() {
            let there: Vec<&Bytes> = stores.values().filter_map(|store| store.get(&**key)).collect();
            let expected: Vec<&Bytes> = history.states.last().and_then(Option::as_ref).into_iter().collect();
            if there != expected {
                let name = String::from_utf8_lossy(key);
                found.push(format!("{name} is {} times there, or not as it was written", there.len()));
            }
        }
        found
    }
}
