//! What manager knows of the whole tree at one moment, as `beltway status`, `ctl status` and the admin port show it.
//!
//! Plain data without behaviour: manager's poll loop makes a fresh [`Status`] each turn and publishes it whole; who
//! reads never waits for who writes. The JSON form is the control protocol's and the admin API's: fields may be added
//! within a protocol version, never renamed or removed.

use serde::{Deserialize, Serialize};

/// The whole tree of processes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Beltway's version, as manager was built.
    pub version: String,
    /// The control protocol's version.
    pub protocol: u16,
    /// When this was true: civil time, microseconds since 1970.
    pub as_of_us: i64,
    /// Where leases and sockets are.
    pub runtime_dir: String,
    /// What is configured.
    pub configuration: ConfigurationStatus,
    /// Orderly stop has begun.
    pub stopping: bool,
    /// Readiness fails by an operator's wish, and everything else goes on.
    pub leaving: bool,
    /// The top process; `None` when a role was started by itself.
    pub stub: Option<ProcessStatus>,
    /// Who watches manager and server; `None` while it is being respawned.
    pub cop: Option<ProcessStatus>,
    /// Who made this.
    pub manager: ProcessStatus,
    /// Servers that live, the newest generation last; more than one only while one replaces another.
    pub servers: Vec<ServerStatus>,
    /// The server that is not there: why, and when the next one is tried.
    pub respawn: Option<RespawnStatus>,
    /// Deaths of servers since manager started.
    pub server_deaths: u64,
    /// Everything that is listened on, in the order of the configuration.
    pub listeners: Vec<ListenerStatus>,
    /// The disk of the runtime directory.
    pub disk: DiskStatus,
}

/// The disk that leases, numbers and the history of configurations are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskStatus {
    /// The rest was found out.
    pub is_known: bool,
    /// Bytes that may still be written there.
    pub free_bytes: u64,
    /// Too little for a change, or for a log; what runs goes on.
    pub is_full: bool,
    /// There is a reserve for processes that have to start.
    pub is_reserved: bool,
}

/// Which configuration is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigurationStatus {
    /// The file's path, or `built-in default`.
    pub source: String,
    /// Digest of its text: equal digests, equal text.
    pub digest: String,
}

/// One process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessStatus {
    /// Its name in `ps`.
    pub name: String,
    /// Its pid.
    pub pid: u32,
    /// How long it has lived.
    pub age_ms: u64,
    /// How often its like was started again since the one who counts began to watch.
    pub restarts: u64,
    /// Its lease, and whether it holds it.
    pub lease: LeaseStatus,
    /// Heartbeats seen by manager; `None` for manager itself and for the stub.
    pub heartbeat: Option<HeartbeatStatus>,
}

/// The lease of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeaseStatus {
    /// The file's name in the runtime directory.
    pub file: String,
    /// Who holds it now; `None`: nobody, or somebody who has not written his pid yet.
    pub holder: Option<u32>,
}

/// Heartbeats of one watched process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeartbeatStatus {
    /// Questions asked.
    pub sent: u64,
    /// Answers received in time.
    pub answered: u64,
    /// Questions unanswered when the next one was due.
    pub missed: u64,
    /// Missed since the last answer.
    pub missed_in_a_row: u32,
    /// Age of the last answer; `None` before the first.
    pub last_answer_age_ms: Option<u64>,
    /// How long the last answer took.
    pub round_trip_us: u64,
}

/// One generation of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerStatus {
    /// The process.
    pub process: ProcessStatus,
    /// Its generation.
    pub generation: u64,
    /// What it does.
    #[serde(deserialize_with = "known_state")]
    pub state: ServerState,
    /// It was started by another manager and taken over.
    pub adopted: bool,
    /// It runs a configuration other than that in force.
    pub other_configuration: bool,
    /// Client connections open at its last heartbeat.
    pub open_connections: u64,
    /// Its event threads at its last heartbeat.
    pub threads: Vec<ThreadBeat>,
}

/// What a server does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerState {
    /// Preparing; does not accept.
    #[default]
    Starting,
    /// Started, and accepts nothing until the one that serves dies.
    Standby,
    /// Accepts and answers.
    Ready,
    /// Finishes what runs; accepts nothing.
    Draining,
}

impl ServerState {
    /// As it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Standby => "standby",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

/// A state that a later version has a name for is as good as none told: nothing is done because of it.
pub(crate) fn known_state<'de, D: serde::Deserializer<'de>>(from: D) -> Result<ServerState, D::Error> {
    let word = serde_json::Value::deserialize(from)?;
    Ok(serde_json::from_value(word).unwrap_or_default())
}

/// The last sign of life of one event thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThreadBeat {
    /// The thread's name, such as `[ET_NET 0]`.
    pub name: String,
    /// How long ago its loop last turned.
    pub age_ms: u64,
    /// How often its loop has turned.
    pub turns: u64,
}

/// A server that is to come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RespawnStatus {
    /// How the last one ended.
    pub last_death: String,
    /// Deaths before *ready* in a row.
    pub failures: u32,
    /// When the next one is tried.
    pub next_try_in_ms: u64,
}

/// One listening socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListenerStatus {
    /// `http`, `server`, `kv`, `kv-stats`, `demo`, `demo-redis`, `demo-memcached` or `admin`.
    pub kind: String,
    /// The address as configured.
    pub configured: String,
    /// The address as bound: differs for port 0.
    pub address: String,
    /// How many connections may wait in its queue, as configured.
    pub backlog: u32,
    /// Connections that wait to be accepted.
    pub waiting: u32,
    /// How many may wait as far as the kernel allows it; 0 when that is not known.
    pub waiting_max: u32,
    /// Tries to connect that were turned away because the queue was full.
    pub dropped: u32,
    /// Of a pool: its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
}
