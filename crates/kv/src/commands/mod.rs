//! What is known of each command of Redis: arity, access, where its keys are, and what becomes of it here.
//!
//! The facts are rows of one table, [`all`]; [`look_up`] finds a row by a name in any case, [`keys`] the keys of a
//! request.

mod arguments;
mod keys;
mod nothing;
mod table;

use std::sync::OnceLock;

pub use keys::{Keys, KeysError, keys};
pub use nothing::nothing;

pub(crate) use arguments::integer;

/// Whether a command changes what is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reads keys.
    Read,
    /// May change keys.
    Write,
    /// Neither.
    Other,
}

/// How the keys of a request are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Find {
    /// At the places that first, last and step say.
    Range,
    /// Behind their number, which is this argument.
    Counted(u8),
    /// Behind their number, which is the second argument; there may be none.
    Script,
    /// The destination first, then the number of the others and they.
    StoredCounted,
    /// Behind the word `STREAMS`: the first half of what follows.
    Streams,
    /// The first argument, and those behind `STORE` and `STOREDIST`.
    Stores,
    /// As `Stores`; and keys made of the values of others where `BY` or `GET` has a pattern.
    Sort,
}

/// How the parts' replies become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Join {
    /// Arrays: their elements in the order of the request's keys.
    Values,
    /// Integers: their sum.
    Sum,
    /// `+OK` each, and one for all.
    Ok,
}

/// What is answered here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each is named as the command is")]
pub enum Local {
    Ping,
    Echo,
    Quit,
    Auth,
    Select,
    Client,
    Command,
    Reset,
    Time,
    Info,
    Hello,
    Slowlog,
}

/// Why a command is not forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It would keep others of the same connection waiting.
    Blocks,
    /// A connection to a server is shared by many clients.
    Transaction,
    /// The same.
    PubSub,
    /// Clients see one database.
    Databases,
    /// It concerns every server.
    EveryServer,
    /// It concerns one server and not a key: ask that server.
    OneServer,
}

impl Refusal {
    /// As it stands in the error line.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Blocks => "it would block a connection that other clients share",
            Self::Transaction => "transactions need a connection of their own",
            Self::PubSub => "publish and subscribe need a connection of their own",
            Self::Databases => "a pool is one database",
            Self::EveryServer => "it concerns every server of the pool, ask them directly",
            Self::OneServer => "it concerns one server and no key, ask that server directly",
        }
    }
}

/// What becomes of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Treat {
    /// It goes to the server of its keys; when they live apart it is refused.
    Forward,
    /// As `Forward`, within the pool's database.
    OneDatabase,
    /// It is split by server, and the replies are joined.
    Split(Join),
    /// It is answered here.
    Local(Local),
    /// Any server may answer.
    Any,
    /// It concerns all keys of all servers: forwarded when there is only one.
    Alone,
    /// Its subcommands have rows of their own.
    Container,
    /// It is refused.
    Refuse(Refusal),
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// In lower case.
    pub name: &'static str,
    /// Arguments with the name; negative: at least so many.
    pub arity: i8,
    /// Reads or writes.
    pub access: Access,
    /// First key, last key, step; 0 for none.
    pub places: (i8, i8, i8),
    /// How keys are found.
    pub find: Find,
    /// What becomes of it.
    pub treat: Treat,
}

impl Command {
    /// Whether a request of so many arguments, its name included, has the right number.
    #[must_use]
    pub fn takes(&self, count: usize) -> bool {
        let arity = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 { count >= arity } else { count == arity }
    }
}

const fn row(name: &'static str, arity: i8, access: Access, places: (i8, i8, i8), find: Find, treat: Treat) -> Command {
    Command { name, arity, access, places, find, treat }
}

/// Every command, in the order of their names.
#[must_use]
pub fn all() -> &'static [Command] {
    table::COMMANDS
}

/// Places of the hash table: at least four times the commands.
const PLACES: usize = 2_048;

/// FNV over the name, letters in lower case.
#[inline]
fn place(name: &[u8]) -> usize {
    let mut hash = 0x811c_9dc5_u32;
    for byte in name {
        hash = (hash ^ u32::from(byte | 0x20)).wrapping_mul(0x0100_0193);
    }
    (hash ^ hash >> 15) as usize % PLACES
}

fn index() -> &'static [u16; PLACES] {
    static INDEX: OnceLock<Box<[u16; PLACES]>> = OnceLock::new();
    INDEX.get_or_init(|| {
        let mut index = Box::new([u16::MAX; PLACES]);
        for (number, command) in (0..).zip(table::COMMANDS) {
            let mut at = place(command.name.as_bytes());
            while index[at] != u16::MAX {
                at = (at + 1) % PLACES;
            }
            index[at] = number;
        }
        index
    })
}

/// The row of a name in any case, or of `name|subcommand`.
#[inline]
#[must_use]
pub fn look_up(name: &[u8]) -> Option<&'static Command> {
    let index = index();
    let mut at = place(name);
    loop {
        // An empty place has no row.
        let command = table::COMMANDS.get(usize::from(index[at]))?;
        if command.name.as_bytes().eq_ignore_ascii_case(name) {
            return Some(command);
        }
        at = (at + 1) % PLACES;
    }
}

/// The row of a request: its command's or, of a command of commands, its subcommand's.
pub fn of_request<'a>(count: usize, argument: impl Fn(usize) -> &'a [u8]) -> Option<&'static Command> {
    let command = look_up(argument(0))?;
    if command.treat == Treat::Container && count > 1 {
        return look_up(&[command.name.as_bytes(), b"|", argument(1)].concat());
    }
    Some(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_in_any_case() {
        for command in all() {
            assert_eq!(look_up(command.name.as_bytes()).unwrap().name, command.name);
            assert_eq!(look_up(command.name.to_ascii_uppercase().as_bytes()).unwrap().name, command.name);
        }
        assert!(look_up(b"").is_none() && look_up(b"gett").is_none() && look_up(b"get\0").is_none());
        assert!(all().is_sorted_by_key(|command| command.name));
    }
}
