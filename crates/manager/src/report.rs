//! What manager knows of the tree, published whole: who reads never waits for who writes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base::{Clock, Instant, SystemClock};
use config::Config;
use supervise::control::{Connection, ControlError, PROTOCOL, Reply, Request};
use supervise::directory::RuntimeDir;
use supervise::lease::{self, Holder};
use supervise::listener::Listener;
use supervise::role::Role;
use supervise::room::Room;
use supervise::status::{
    ConfigurationStatus, DiskStatus, HeartbeatStatus, LeaseStatus, ListenerStatus, ProcessStatus, RespawnStatus,
    ServerStatus, Status,
};
use supervise::watch::Watch;

use crate::admin::{self, StatusSource};
use crate::servers::Server;

/// The newest report and where the numbers are. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    status: Arc<ArcSwap<Status>>,
    config: Arc<ArcSwap<Config>>,
    directory: RuntimeDir,
}

impl Published {
    pub(crate) fn new(directory: RuntimeDir, config: Arc<Config>) -> Self {
        let status = Arc::new(ArcSwap::from_pointee(Status::default()));
        Self { status, config: Arc::new(ArcSwap::new(config)), directory }
    }

    /// Another configuration is in force.
    pub(crate) fn follow(&self, config: Arc<Config>) {
        self.config.store(config);
    }

    pub(crate) fn publish(&self, status: Status) {
        self.status.store(Arc::new(status));
    }

    /// The numbers whose names contain `pattern`, as the admin port shows them.
    pub(crate) fn numbers(&self, pattern: &str) -> Vec<(String, String)> {
        admin::numbers_matching(&self.newest(), &self.metrics_segments(), pattern)
    }

    pub(crate) fn newest(&self) -> Status {
        Status::clone(&self.status.load())
    }
}

impl StatusSource for Published {
    fn status(&self) -> Status {
        self.newest()
    }

    fn metrics_segments(&self) -> Vec<PathBuf> {
        // A directory that cannot be read has no numbers in it for anybody.
        let generations = self.directory.numbers_generations().unwrap_or_default();
        let segments = generations.into_iter().map(|generation| self.directory.server_numbers(generation));
        std::iter::once(self.directory.folded_numbers()).chain(segments).collect()
    }

    fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    fn directory(&self) -> RuntimeDir {
        self.directory.clone()
    }

    fn ask(&self, request: Request, bound: Duration) -> Result<Reply, ControlError> {
        // By the same door as everybody else: supervision knows only one.
        Ok(Connection::open(&self.directory.manager_socket())?.ask(request, bound)?.0)
    }
}

/// What a report is made of.
pub(crate) struct Knowledge<'a> {
    pub(crate) directory: &'a RuntimeDir,
    pub(crate) configuration: &'a ConfigurationStatus,
    pub(crate) stopping: bool,
    pub(crate) leaving: bool,
    pub(crate) cop: Option<&'a Watch>,
    pub(crate) servers: &'a [Server],
    pub(crate) respawn: Option<RespawnStatus>,
    pub(crate) server_deaths: u64,
    pub(crate) listeners: &'a [Listener],
    pub(crate) room: Option<Room>,
}

/// Makes a report.
pub(crate) fn report(known: &Knowledge<'_>, now: Instant) -> Status {
    let server = |server: &Server| ServerStatus {
        process: process(
            Role::Server.name(),
            server.process.pid(),
            known.server_deaths,
            &known.directory.server_lease(server.generation),
            Some(server.link.status(now)),
        ),
        generation: server.generation,
        state: server.state,
        adopted: server.adopted,
        other_configuration: server.pong().is_some_and(|pong| pong.configuration != known.configuration.digest),
        open_connections: server.pong().map_or(0, |pong| pong.open_connections),
        threads: server.pong().map(|pong| pong.threads.clone()).unwrap_or_default(),
    };
    let cop = known.cop.and_then(|watch| {
        let heartbeat = watch.link().map(|link| link.status(now));
        Some(process(Role::Cop.name(), watch.pid()?, watch.restarts(), &known.directory.cop_lease(), heartbeat))
    });
    Status {
        version: base::VERSION.to_owned(),
        protocol: PROTOCOL,
        as_of_us: SystemClock.wall().as_micros(),
        runtime_dir: known.directory.path().display().to_string(),
        configuration: known.configuration.clone(),
        stopping: known.stopping,
        leaving: known.leaving,
        stub: holder(&known.directory.stub_lease())
            .map(|pid| process("beltway", pid, 0, &known.directory.stub_lease(), None)),
        cop,
        manager: process(Role::Manager.name(), std::process::id(), 0, &known.directory.manager_lease(), None),
        servers: known.servers.iter().map(server).collect(),
        respawn: known.respawn.clone(),
        server_deaths: known.server_deaths,
        listeners: known.listeners.iter().map(listener).collect(),
        disk: known.room.map(disk).unwrap_or_default(),
    }
}

fn process(name: &str, pid: u32, restarts: u64, lease: &Path, heartbeat: Option<HeartbeatStatus>) -> ProcessStatus {
    let file = lease.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let lease = LeaseStatus { file, holder: holder(lease) };
    let age = sys::process::stat(pid).and_then(|stat| stat.age()).unwrap_or_default();
    let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    ProcessStatus { name: name.to_owned(), pid, age_ms, restarts, lease, heartbeat }
}

fn holder(lease: &Path) -> Option<u32> {
    match lease::holder(lease) {
        Ok(Holder::Somebody(pid)) => pid,
        _ => None,
    }
}

fn disk(room: Room) -> DiskStatus {
    DiskStatus { is_known: true, free_bytes: room.free_bytes, is_full: room.is_full(), is_reserved: room.is_reserved }
}

fn listener(listener: &Listener) -> ListenerStatus {
    // A socket in the file system has no such numbers.
    let queue = sys::queue::of(&listener.fd).unwrap_or_default();
    ListenerStatus {
        kind: listener.name.kind.as_str().to_owned(),
        configured: listener.name.configured.to_string(),
        address: listener.address().to_string(),
        pool: listener.name.pool.clone(),
        backlog: listener.name.backlog,
        waiting: queue.waiting,
        waiting_max: queue.waiting_max,
        dropped: queue.dropped,
    }
}
