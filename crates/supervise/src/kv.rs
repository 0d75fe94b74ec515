//! What the server tells of its pools on its control socket, and what it may be told to do with their servers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::held::{Held, HeldServer};

/// What may be asked of the key-value engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvQuestion {
    /// How it is, and what was counted. Answered by a [`KvReport`], or by its first part.
    Report,
    /// The next part of the report with this number, which may be gone.
    More(u64),
    /// Asked of manager, or of a server that has none: take a server out of its ring until it is restored by hand, or take
    /// it back, and remember that.
    Hold {
        /// The pool; none: the one pool that has such a server.
        pool: Option<String>,
        /// The server, by the name that places its keys.
        server: String,
        /// Out, or back.
        out: bool,
    },
    /// Asked by manager: these are out by hand, and no others; that one is taken back, whatever took it out.
    Held {
        /// All of them.
        servers: Held,
        /// One that is not.
        restored: Option<HeldServer>,
    },
    /// Asked by manager: which are out by hand? Answered by [`Reply::Held`](crate::control::Reply::Held).
    WhatIsHeld,
}

/// All pools.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KvReport {
    /// Event threads.
    pub threads: u64,
    /// There is more of it under this number: a packet was too small.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub more: Option<u64>,
    /// The pools, in the configuration's order.
    pub pools: Vec<KvPoolReport>,
    /// Commands that were sent to servers, the one that took the most time first.
    pub commands: Vec<KvCommandReport>,
    /// The newest requests that took longer than their pool's `slowlog`, the newest first.
    pub slow: Vec<KvSlowReport>,
}

impl KvReport {
    /// Takes in its next part. The first pool of one part may be the last of the part before, with more servers.
    pub fn append(&mut self, next: Self) {
        let mut pools = next.pools.into_iter().peekable();
        if let (Some(last), Some(first)) = (self.pools.last_mut(), pools.peek())
            && last.name == first.name
            && let Some(first) = pools.next()
        {
            last.servers.extend(first.servers);
        }
        self.pools.extend(pools);
        self.commands.extend(next.commands);
        self.slow.extend(next.slow);
        self.more = next.more;
    }
}

/// One pool, all threads together: what is open or waits now, and what was counted by this server process and those
/// before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KvPoolReport {
    /// Its name.
    pub name: String,
    /// `redis` or `memcached`.
    pub protocol: String,
    /// Where its clients connect.
    pub listen: String,
    /// Clients now.
    pub clients: u64,
    /// Clients that connected.
    pub clients_total: u64,
    /// Clients that closed their connection.
    pub client_eof: u64,
    /// Clients whose connection failed.
    pub client_err: u64,
    /// Requests.
    pub requests: u64,
    /// Bytes from clients.
    pub received_bytes: u64,
    /// Bytes to clients.
    pub sent_bytes: u64,
    /// Reads that found something.
    pub hits: u64,
    /// Reads that found nothing.
    pub misses: u64,
    /// Parts of requests that were split.
    pub fragments: u64,
    /// Times a server was ejected.
    pub ejections: u64,
    /// Bytes that are kept of requests and replies.
    pub memory_bytes: u64,
    /// How many that may be.
    pub memory_max_bytes: u64,
    /// Requests that no server answered.
    pub forward_errors: u64,
    /// Those of them that there were, by why.
    pub forward_errors_by: BTreeMap<String, u64>,
    /// From request to reply, as clients see it.
    pub client_time: Times,
    /// It has no numbers of its own: all of them but its limits mean nothing.
    pub uncounted: bool,
    /// Why not.
    pub note: String,
    /// The servers, in the configuration's order.
    pub servers: Vec<KvServerReport>,
}

/// One server of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KvServerReport {
    /// The name that places its keys.
    pub name: String,
    /// `live`, `down`, `ejected`, `held` (ejected by hand), `new` (a reload brought it: it was asked and did not answer, or a
    /// thread has yet to take the configuration), when all event threads say so that say anything in time; where those M
    /// differ, `live on N of M threads`; where none does, `unknown`.
    pub state: String,
    /// Event threads that say that it is out of its ring.
    pub ejected_threads: u64,
    /// Event threads that did not say in time how it is.
    pub silent_threads: u64,
    /// When it was last ejected: microseconds since 1970; 0: never.
    pub ejected_at_us: i64,
    /// Connections now.
    pub connections: u64,
    /// Connections that were begun.
    pub connects: u64,
    /// Connections that it closed.
    pub closed: u64,
    /// Connections that failed.
    pub failed: u64,
    /// Requests whose time was over.
    pub timed_out: u64,
    /// Requests sent.
    pub requests: u64,
    /// Bytes of them.
    pub request_bytes: u64,
    /// Replies.
    pub responses: u64,
    /// Bytes of them.
    pub response_bytes: u64,
    /// Reads that found something.
    pub hits: u64,
    /// Reads that found nothing.
    pub misses: u64,
    /// Replies that are errors.
    pub error_replies: u64,
    /// Those of them that there were, by their first word.
    pub error_replies_by: BTreeMap<String, u64>,
    /// Requests that wait to be sent.
    pub in_queue: u64,
    /// Bytes of them.
    pub in_queue_bytes: u64,
    /// Requests that wait for their reply.
    pub out_queue: u64,
    /// Bytes of them.
    pub out_queue_bytes: u64,
    /// How long the first request of a batch waited to be sent.
    pub queue_time: Times,
    /// From arrival to reply.
    pub time: Times,
    /// It has no numbers of its own: all of them but what is said of its ejections mean nothing.
    pub uncounted: bool,
    /// Why not, or what else there is to say.
    pub note: String,
}

/// How long something took, in microseconds; 0 when it never happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Times {
    /// How often.
    pub count: u64,
    /// On average.
    pub mean_us: u64,
    /// Half of all took no longer.
    pub p50_us: u64,
    /// 99 of 100 took no longer.
    pub p99_us: u64,
    /// 999 of 1000 took no longer.
    pub p999_us: u64,
}

/// One command of one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KvCommandReport {
    /// The pool; `(others)` with the commands beyond those that are counted each by itself.
    pub pool: String,
    /// `redis` or `memcached`.
    pub protocol: String,
    /// Its name.
    pub name: String,
    /// How often servers answered it.
    pub calls: u64,
    /// Bytes of those requests.
    pub request_bytes: u64,
    /// Bytes of the answers.
    pub response_bytes: u64,
    /// Answers that are errors.
    pub error_replies: u64,
    /// Requests that no server answered.
    pub forward_errors: u64,
    /// Those of them that there were, by why.
    pub forward_errors_by: BTreeMap<String, u64>,
    /// Reads that found something.
    pub hits: u64,
    /// Reads that found nothing.
    pub misses: u64,
    /// From arrival to reply, all together.
    pub total_us: u64,
    /// From arrival to reply, of each.
    pub time: Times,
}

/// A request that took long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KvSlowReport {
    /// When its reply came, or was no longer to be expected: microseconds since 1970.
    pub at_us: i64,
    /// Its pool.
    pub pool: String,
    /// The server that answered, or did not.
    pub server: String,
    /// Its command.
    pub command: String,
    /// The beginning of its first argument, mostly its key.
    pub argument: String,
    /// How many bytes more that has.
    pub argument_more: u64,
    /// Its length.
    pub bytes: u64,
    /// From its arrival to the reply, or to what its client got instead.
    pub took_us: u64,
    /// What became of it: `answered`, `timed out` and the like.
    pub outcome: String,
    /// The address of the client who asked.
    pub client: String,
    /// The beginning of the name that it gave itself; empty: none.
    pub client_name: String,
}
