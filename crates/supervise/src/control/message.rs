//! The words of the control protocol.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::cache::{CacheQuestion, CacheReply};
use crate::change::{Proposal, Step, Verdict};
use crate::held::Held;
use crate::kv::{KvQuestion, KvReport};
use crate::listener::ListenerName;
use crate::log::Level;
use crate::status::{ServerState, Status, ThreadBeat};

/// Version of the protocol: grows when a word changes its meaning, not when one is added.
pub const PROTOCOL: u16 = 1;

/// Bytes of one packet at most: a status of some hundred threads and listeners.
pub const PACKET_MAX: usize = 128 * 1024;

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet<T> {
    /// [`PROTOCOL`] of the sender.
    pub protocol: u16,
    /// Chosen by who asks, repeated in the answer.
    pub sequence: u64,
    /// The question or answer.
    pub body: T,
}

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// All: a sign of life. Answered by [`Reply::Pong`].
    Ping,
    /// Manager: the whole tree. Answered by [`Reply::Status`].
    Status,
    /// All: copies of the listeners it holds. Answered by [`Reply::Listeners`] with as many descriptors.
    Listeners,
    /// Manager and server: close and open the log files again. Answered by [`Reply::Done`].
    ReopenLogs,
    /// All: how much the log tells, until the next reload. Answered by [`Reply::Done`].
    LogLevel(Level),
    /// Manager: judge a configuration, or put it in force. Answered by [`Reply::Verdict`], when it is decided.
    Change {
        /// Which.
        proposal: Proposal,
        /// How far to go.
        step: Step,
    },
    /// Server: judge the candidate in the runtime directory, which has this digest, and keep what it takes to put it in
    /// force. Answered by [`Reply::Verdict`].
    Prepare(String),
    /// Server: put what was prepared under this digest in force. Answered by [`Reply::Done`].
    Commit(String),
    /// Server: finish what runs, and end; idle connections go to the server of this generation. Answered by
    /// [`Reply::Done`].
    Retire(u64),
    /// Server: serve these connections, whose descriptors come with this. Answered by [`Reply::Done`].
    TakeOver(Vec<Moved>),
    /// Server: of its pools; manager: what is to be remembered of them. Answered by [`Reply::Kv`], or [`Reply::Done`].
    Kv(KvQuestion),
    /// Server: of its cache. Answered by [`Reply::Cache`].
    Cache(CacheQuestion),
    /// Manager: the numbers whose names contain this text. Answered by [`Reply::Numbers`].
    Numbers(String),
    /// Manager and server: readiness fails from now on and everything else goes on, so that balancers send nobody new; or no
    /// longer. Answered by [`Reply::Done`].
    Drain(bool),
    /// Server that stands by: serve. Answered by [`Reply::Done`] when it accepts.
    Promote,
    /// Manager: no server is to run until told otherwise, or one is. Answered by [`Reply::Done`].
    Serve(bool),
    /// Cop: become the program whose descriptor comes with this. Answered by that program, with [`Reply::Done`].
    Become,
}

impl Request {
    /// It changes what a process does, or who runs, and may take its time. Nobody asks much of this kind; the others are for
    /// everybody, as often as he likes, and who gets no answer asks again.
    #[must_use]
    pub const fn is_order(&self) -> bool {
        match self {
            Self::Ping | Self::Cache(_) => false,
            Self::Kv(asked) => matches!(asked, KvQuestion::Held { .. } | KvQuestion::WhatIsHeld),
            _ => true,
        }
    }
}

/// A client's connection that moves from one server to another while it is idle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Version of this record: [`Moved::VERSION`], or [`Moved::KV`].
    pub version: u16,
    /// The client.
    pub peer: Option<SocketAddr>,
    /// Of a key-value client, what it has said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv: Option<MovedKv>,
    /// Of an HTTP client that has asked for nothing yet, what is left of the time for its first request. A server that
    /// does not know this treats it as one that has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_within_ms: Option<u64>,
}

impl Moved {
    /// Of an HTTP client. Grows when a field changes its meaning or one that must be heeded is added.
    pub const VERSION: u16 = 1;
    /// Of a key-value client.
    pub const KV: u16 = 2;

    /// Whether this version understands the record.
    #[must_use]
    pub const fn is_understood(&self) -> bool {
        match self.kv {
            None => self.version == Self::VERSION,
            Some(_) => self.version == Self::KV,
        }
    }
}

/// What a key-value client's next server must know of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedKv {
    /// The pool it is connected to.
    pub pool: String,
    /// It has told its password, or there is none.
    pub authenticated: bool,
    /// Name, library and version, when it has said any.
    pub client: Option<[Vec<u8>; 3]>,
}

/// What may be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// I live.
    Pong(Pong),
    /// The whole tree.
    Status(Box<Status>),
    /// The listeners whose descriptors come with this, in the same order.
    Listeners(Vec<ListenerName>),
    /// What became of a change.
    Verdict(Box<Verdict>),
    /// Names with labels, and values, as Prometheus writes them.
    Numbers(Vec<(String, String)>),
    /// How the pools are.
    Kv(Box<KvReport>),
    /// The servers of pools that are out of their rings by hand.
    Held(Held),
    /// What the cache has.
    Cache(Box<CacheReply>),
    /// It is done.
    Done,
    /// It is not done, and why.
    Refused(String),
}

/// A sign of life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pong {
    /// The name of the process that answers.
    pub name: String,
    /// Its pid.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// How long it has lived.
    pub age_ms: u64,
    /// Digest of the configuration it runs.
    pub configuration: String,
    /// It is being stopped: its death will be no accident.
    pub stopping: bool,
    /// Manager: the generation that serves. Server: its own. 0: none.
    pub generation: u64,
    /// Grows when the set of listeners it holds changes. 0: none yet.
    pub listeners_epoch: u64,
    /// Server: what it does.
    #[serde(deserialize_with = "crate::status::known_state")]
    pub state: ServerState,
    /// Server: its readiness fails, by an operator's wish.
    pub leaving: bool,
    /// Server: the digest of the servers of pools that it holds out of their rings by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// Server: client connections open.
    pub open_connections: u64,
    /// Server: its event threads.
    pub threads: Vec<ThreadBeat>,
    /// Server: its own pages have as many connections as they may.
    pub pages_full: bool,
}
