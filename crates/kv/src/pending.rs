//! A request on its way to a server: to whom its reply belongs, and what may become of it when the connection fails.

use std::cell::RefCell;
use std::rc::Rc;

use base::Instant;

use crate::client::ClientCell;
use crate::join::Joining;
use crate::numbers::CommandIndex;

/// To whom a reply belongs.
pub(crate) enum Owner {
    /// A client's request of this number.
    Client(Rc<ClientCell>, u64),
    /// A part of a request that was split.
    Part(Rc<RefCell<Joining>>, usize),
    /// A client's request of this number, which wants no reply and has its place among the others all the same.
    Quiet(Rc<ClientCell>, u64),
    /// The connection itself: its password, its database.
    Handshake,
    /// Nobody any more, or from the start.
    Nobody,
}

impl Owner {
    /// The client who asked, if one did.
    pub(crate) fn client(&self) -> Option<Rc<ClientCell>> {
        match self {
            Self::Client(client, _) | Self::Quiet(client, _) => Some(Rc::clone(client)),
            Self::Part(joining, _) => Some(joining.borrow().client()),
            Self::Handshake | Self::Nobody => None,
        }
    }

    /// The number of the client who asked; 0 when nobody did.
    pub(crate) fn client_id(&self) -> u64 {
        self.client().map_or(0, |client| client.borrow().id())
    }
}

/// What may become of a request when the connection fails under it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Again {
    /// It changes nothing, so it may run twice.
    Always,
    /// Only while no byte of it has left.
    Unsent,
}

/// See the module.
pub(crate) struct Pending {
    pub(crate) owner: Owner,
    pub(crate) deadline: Instant,
    /// Where in the stream of all that this connection is told it begins.
    pub(crate) start: u64,
    pub(crate) again: Again,
    /// How often it has been sent, or was to be, before.
    pub(crate) attempts: u8,
    pub(crate) command: CommandIndex,
    /// When it was asked, by [`crate::Worker`]'s microseconds.
    pub(crate) asked: u32,
}
