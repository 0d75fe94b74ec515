//! One server process, seen from manager: started with inherited listeners, or found alive and adopted.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use base::Instant;
use supervise::control::{Connection, ControlError, Pong, Reply, Request};
use supervise::directory::{self, RuntimeDir};
use supervise::heartbeat::Link;
use supervise::lease::{self, Holder, Lease};
use supervise::listener::{self, Listener};
use supervise::obituary::{self, Obituary};
use supervise::role::{self, FIRST_DESCRIPTOR, Family, Role};
use supervise::room;
use supervise::sign::{Excuse, Sign};
use supervise::status::ServerState;
use supervise::witness;
use supervise::{info, warn};
use sys::process::{Pidfd, Signal};

/// Files of dead generations' numbers, before they are added up into one.
const UNFOLDED_MAX: usize = 8;

/// What a server is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// To serve, with the configuration in force.
    InForce,
    /// To serve, with the one that is to be committed.
    Candidate,
    /// To stand by.
    Standby,
}

/// A living server.
#[derive(Debug)]
pub(crate) struct Server {
    /// Its generation.
    pub(crate) generation: u64,
    /// The process.
    pub(crate) process: Pidfd,
    /// Its heartbeats.
    pub(crate) link: Link,
    /// Another manager started it.
    pub(crate) adopted: bool,
    /// When this manager first knew of it.
    pub(crate) since: Instant,
    /// What it was last known to do.
    pub(crate) state: ServerState,
    /// It stands by, or will when it has started.
    pub(crate) standby: bool,
    /// On which it was told to serve, until it has answered.
    promotion: Option<Promotion>,
    /// Told to stop, and killed when it lives at this moment.
    pub(crate) stop_by: Option<Instant>,
    ready: Option<io::PipeReader>,
    /// On which it was told to make room, until it has answered.
    farewell: Option<Connection>,
}

/// That a server was told to serve, and has not answered yet.
#[derive(Debug)]
struct Promotion {
    connection: Connection,
    /// It was told before, and that connection ended without an answer.
    again: bool,
}

impl Server {
    /// Starts the next generation on `listeners`. Its lease is held before it exists.
    ///
    /// # Errors
    /// The directory cannot be written, or the kernel cannot start it.
    pub(crate) fn start(
        family: &Family,
        listeners: &[Listener],
        heartbeat_interval: Duration,
        how: How,
        now: Instant,
    ) -> Result<Self, String> {
        let directory = &family.directory;
        room::give(directory);
        let generation = directory.next_generation().map_err(|error| format!("no generation number: {error}"))?;
        let lease = Lease::reserve(&directory.server_lease(generation)).map_err(|error| error.to_string())?;
        let (ready, tell_ready) = io::pipe().map_err(|error| format!("no pipe: {error}"))?;
        rustix::io::ioctl_fionbio(&ready, true).map_err(|error| format!("no pipe: {error}"))?;

        let mut arguments: Vec<OsString> = vec!["--generation".into(), generation.to_string().into()];
        match how {
            How::InForce => {}
            How::Candidate => arguments.push("--candidate".into()),
            How::Standby => arguments.push("--standby".into()),
        }
        let (promised, mut descriptors) = listener::promise(listeners, FIRST_DESCRIPTOR);
        arguments.extend(promised.into_iter().map(OsString::from));
        let next = descriptors.last().map_or(FIRST_DESCRIPTOR, |(_, last)| last + 1);
        for (number, (option, fd)) in (next..).zip([("--lease", lease.as_fd()), ("--ready", tell_ready.as_fd())]) {
            arguments.extend([option.into(), format!("fd={number}").into()]);
            descriptors.push((fd, number));
        }
        let process = role::start(Role::Server, family, &arguments, descriptors)
            .map_err(|error| format!("{} cannot be started: {error}", Role::Server.name()))?;
        if let Err(error) = lease.record(process.pid()) {
            warn!("{error}: it writes its pid itself");
        }
        // Our copy of the lease goes with this function: from here on only the server holds it.
        info!("{}[{}] started as generation {generation}", Role::Server.name(), process.pid());
        Ok(Self {
            generation,
            process,
            link: Link::new(&directory.server_socket(generation), heartbeat_interval),
            adopted: false,
            since: now,
            state: ServerState::Starting,
            standby: how == How::Standby,
            promotion: None,
            stop_by: None,
            ready: Some(ready),
            farewell: None,
        })
    }

    /// Every generation that lives, in ascending order. What the dead left is cleared away.
    pub(crate) fn living(directory: &RuntimeDir) -> Vec<u64> {
        let mut generations = directory.server_generations().unwrap_or_else(|error| {
            warn!("{}: {error}", directory.path().display());
            Vec::new()
        });
        generations.retain(|&generation| match lease::holder(&directory.server_lease(generation)) {
            Ok(Holder::Nobody) => {
                clear_away(directory, generation);
                false
            }
            Ok(Holder::Somebody(_)) => true,
            Err(error) => {
                warn!("generation {generation} cannot be watched: {error}");
                false
            }
        });
        generations
    }

    /// The server that lives as this generation, if one does and has told its pid.
    pub(crate) fn adopt(
        directory: &RuntimeDir,
        generation: u64,
        heartbeat_interval: Duration,
        now: Instant,
    ) -> Option<Self> {
        let process = match lease::process(&directory.server_lease(generation)) {
            Ok(process) => process?,
            Err(error) => {
                warn!("generation {generation} cannot be watched: {error}");
                return None;
            }
        };
        info!("{}[{}] lives as generation {generation}: adopted", Role::Server.name(), process.pid());
        Some(Self {
            generation,
            process,
            link: Link::new(&directory.server_socket(generation), heartbeat_interval),
            adopted: true,
            since: now,
            state: ServerState::Starting,
            standby: false,
            promotion: None,
            stop_by: None,
            ready: None,
            farewell: None,
        })
    }

    /// What to wait for.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let ready = self.ready.as_ref().map(AsFd::as_fd);
        let farewell = self.farewell.as_ref().map(AsFd::as_fd);
        let promotion = self.promotion.as_ref().map(|promotion| promotion.connection.as_fd());
        let others = ready.into_iter().chain(self.link.descriptor()).chain(farewell).chain(promotion);
        std::iter::once(self.process.as_fd()).chain(others)
    }

    /// Listens to it and asks it. `true`: it just became ready.
    pub(crate) fn turn(&mut self, directory: &RuntimeDir, now: Instant) -> bool {
        self.mind_farewell(directory);
        self.mind_promotion(directory);
        let before = self.state;
        if let Some(pipe) = &mut self.ready {
            let mut line = [0; 16];
            match pipe.read(&mut line) {
                Ok(0) => self.ready = None, // it died, or closed it: its pidfd or its answers will tell
                Ok(_) => {
                    self.ready = None;
                    // It may have been told to go just before we read this.
                    if self.state == ServerState::Starting && self.stop_by.is_none() {
                        self.state = if self.standby { ServerState::Standby } else { ServerState::Ready };
                        self.link.hurry(now);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    warn!("the pipe of generation {}: {error}", self.generation);
                    self.ready = None;
                }
            }
        }
        if self.link.turn(now)
            && let Some(pong) = self.link.pong()
            && self.stop_by.is_none()
        {
            match (pong.state, self.standby) {
                // Found alive, and nobody has told it to serve.
                (ServerState::Standby, false) if self.adopted && self.state == ServerState::Starting => {
                    self.standby = true;
                    self.state = ServerState::Standby;
                }
                // Said before it was told.
                (ServerState::Standby, false) => {}
                // Another manager has told it.
                (ServerState::Ready, true) => {
                    self.standby = false;
                    self.state = ServerState::Ready;
                }
                (state, _) => self.state = state,
            }
        }
        before == ServerState::Starting && self.state == ServerState::Ready
    }

    /// It has never said anything, though nobody holds it on purpose.
    pub(crate) fn is_mute(&self, now: Instant) -> bool {
        let silent = self.pong().is_none() && self.link.refused().is_none();
        let sign = || Sign::of(self.process.pid(), &self.link, Duration::ZERO, now);
        silent && sign().examine() != Err(Excuse::Traced)
    }

    /// Its newest answer.
    pub(crate) const fn pong(&self) -> Option<&Pong> {
        self.link.pong()
    }

    /// Makes it finish what it has and end, by `deadline` at the latest. Idle connections go to the generation
    /// `successor`, when there is one.
    pub(crate) fn retire(&mut self, directory: &RuntimeDir, deadline: Instant, successor: Option<u64>) {
        self.state = ServerState::Draining;
        self.stop_by = Some(deadline);
        let Some(successor) = successor else { return self.signal(directory, Signal::TERM) };
        let told = Connection::open(&directory.server_socket(self.generation)).and_then(|connection| {
            connection.send(1, Request::Retire(successor), &[])?;
            Ok(connection)
        });
        match told {
            Ok(connection) => self.farewell = Some(connection),
            Err(error) => {
                warn!("generation {} is told to stop by a signal: {error}", self.generation);
                self.signal(directory, Signal::TERM);
            }
        }
    }

    /// Tells one that stands by to serve.
    ///
    /// # Errors
    /// It cannot be told.
    pub(crate) fn promote(&mut self, directory: &RuntimeDir) -> Result<(), ControlError> {
        self.tell_to_serve(directory, false)?;
        self.standby = false;
        self.state = ServerState::Ready;
        Ok(())
    }

    fn tell_to_serve(&mut self, directory: &RuntimeDir, again: bool) -> Result<(), ControlError> {
        let connection = Connection::open(&directory.server_socket(self.generation))?;
        connection.send(1, Request::Promote, &[])?;
        self.promotion = Some(Promotion { connection, again });
        Ok(())
    }

    /// Whether it was told to serve and cannot. What cannot serve is in the way of who can.
    fn mind_promotion(&mut self, directory: &RuntimeDir) {
        let Some(promotion) = self.promotion.take() else { return };
        let why = match promotion.connection.receive::<Reply>() {
            Ok(None) => return self.promotion = Some(promotion),
            Ok(Some((packet, _))) if packet.body == Reply::Done => return,
            Ok(Some((packet, _))) => format!("{:?}", packet.body),
            // One that many ask drops who comes, unheard. Whoever serves already takes no harm from being told to.
            Err(ControlError::Closed | ControlError::Io(_)) if !promotion.again => {
                match self.tell_to_serve(directory, true) {
                    Ok(()) => return info!("generation {} is told to serve again: it broke off", self.generation),
                    Err(error) => error.to_string(),
                }
            }
            Err(error) => error.to_string(),
        };
        warn!("generation {} stood by and cannot serve: {why}; it is killed", self.generation);
        self.signal(directory, Signal::KILL);
    }

    /// Whether it was told to make room and did not understand.
    fn mind_farewell(&mut self, directory: &RuntimeDir) {
        let Some(connection) = &self.farewell else { return };
        match connection.receive::<Reply>() {
            Ok(None) => {}
            Ok(Some((packet, _))) if packet.body == Reply::Done => self.farewell = None,
            Ok(Some(_)) | Err(_) => {
                self.farewell = None;
                self.signal(directory, Signal::TERM);
            }
        }
    }

    /// Sends it a signal, its lease read again first.
    pub(crate) fn signal(&self, directory: &RuntimeDir, signal: Signal) {
        if let Err(error) = lease::signal(&directory.server_lease(self.generation), &self.process, signal) {
            warn!("{}[{}] cannot be signalled: {error}", Role::Server.name(), self.process.pid());
        }
    }
}

/// Removes what a dead generation left, but its numbers.
pub(crate) fn clear_away(directory: &RuntimeDir, generation: u64) {
    let socket = directory::remove(&directory.server_socket(generation));
    let page = directory::remove(&directory.server_witness(generation));
    if let Err(error) = socket.and(page).and(lease::clear(&directory.server_lease(generation))) {
        warn!("what generation {generation} left cannot be cleared away: {error}");
    }
}

/// Writes down what is known of a server's death: its heartbeats, and what its numbers say its threads were doing.
pub(crate) fn mourn(directory: &RuntimeDir, server: &Server, cause: String, now: Instant) {
    let numbers = crate::admin::last_numbers(&directory.server_numbers(server.generation));
    let (threads, numbers) = numbers.unwrap_or_default();
    let heartbeats = server.link.status(now);
    let lived = server.pong().map_or_else(|| millis(now - server.since), |pong| pong.age_ms);
    let mut account = Obituary {
        who: Role::Server.name().to_owned(),
        pid: server.process.pid(),
        generation: server.generation,
        cause,
        lived_ms: lived,
        last_answer_age_ms: heartbeats.last_answer_age_ms,
        threads,
        numbers,
        ..Obituary::default()
    };
    witness::add_fault(&directory.server_witness(server.generation), &mut account);
    obituary::write(directory, "manager", account);
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Adds up the numbers of the dead when there are many of them, so that their files do not pile up.
pub(crate) fn fold_numbers(directory: &RuntimeDir, oldest_living: Option<u64>) {
    let Ok(mut dead) = directory.numbers_generations() else { return };
    dead.retain(|&generation| oldest_living.is_none_or(|living| generation < living));
    if dead.len() < UNFOLDED_MAX {
        return;
    }
    let paths: Vec<_> = dead.into_iter().map(|generation| directory.server_numbers(generation)).collect();
    match crate::admin::fold_dead(&paths, &directory.folded_numbers()) {
        Ok(lost) => lost.iter().for_each(|lost| warn!("numbers are lost: {lost}")),
        Err(error) => warn!("the numbers of {} dead servers cannot be added up: {error}", paths.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};
    use supervise::control::{Endpoint, Question};

    /// A process that does nothing under the lease of a generation that stands by, which answers what the test answers.
    struct Standby {
        child: Child,
        endpoint: Endpoint,
        server: Server,
        directory: RuntimeDir,
        _lease: Lease,
    }

    impl Standby {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("beltway-servers-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            let directory = RuntimeDir::new(path);
            let child = Command::new("sleep").arg("60").spawn().unwrap();
            let lease = Lease::reserve(&directory.server_lease(1)).unwrap();
            lease.record(child.id()).unwrap();
            let endpoint = Endpoint::bind(&directory.server_socket(1)).unwrap();
            let mut server = Server::adopt(&directory, 1, Duration::from_secs(1), Instant::ORIGIN).unwrap();
            (server.standby, server.state) = (true, ServerState::Standby);
            Self { child, endpoint, server, directory, _lease: lease }
        }

        /// The question to serve, read.
        fn told(&mut self) -> Question {
            let mut told = self.endpoint.questions();
            assert_eq!(told.iter().map(|question| &question.request).collect::<Vec<_>>(), [&Request::Promote]);
            told.remove(0)
        }

        /// Every connection ends unread, as those do for which there is no room.
        fn drop_who_comes(&mut self) {
            self.endpoint = Endpoint::bind(&self.directory.server_socket(1)).unwrap();
        }

        fn is_promoting(&mut self) -> bool {
            self.server.mind_promotion(&self.directory);
            self.server.promotion.is_some()
        }

        /// Waits for its end, which has to come.
        fn assert_killed(&mut self) {
            use std::os::unix::process::ExitStatusExt;
            supervise::wait::readable(&[self.server.process.as_fd()], Duration::from_secs(10)).unwrap();
            let status = self.child.try_wait().unwrap().and_then(|status| status.signal());
            assert_eq!(status, Some(9));
        }
    }

    impl Drop for Standby {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
            let _ = std::fs::remove_dir_all(self.directory.path());
        }
    }

    #[test]
    fn one_that_stands_by_and_drops_the_order_to_serve_unread_is_told_again_and_lives() {
        let mut standby = Standby::new("again");
        standby.server.promote(&standby.directory).unwrap();
        assert!(standby.is_promoting());
        standby.drop_who_comes();
        assert!(standby.is_promoting());
        let question = standby.told();
        standby.endpoint.answer(&question, Reply::Done, &[]);
        assert!(!standby.is_promoting());
        assert!(standby.child.try_wait().unwrap().is_none(), "it lives");
    }

    #[test]
    fn one_that_breaks_off_twice_or_refuses_to_serve_is_killed() {
        let mut standby = Standby::new("twice");
        standby.server.promote(&standby.directory).unwrap();
        for goes_on in [true, false] {
            standby.drop_who_comes();
            assert_eq!(standby.is_promoting(), goes_on);
        }
        standby.assert_killed();

        let mut standby = Standby::new("refuses");
        standby.server.promote(&standby.directory).unwrap();
        let question = standby.told();
        standby.endpoint.answer(&question, Reply::Refused("no".to_owned()), &[]);
        assert!(!standby.is_promoting());
        standby.assert_killed();
    }
}
