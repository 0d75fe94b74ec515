//! Another program in place of this one, while everything goes on.
//!
//! ```text
//! this program      asks the one on disk whether it is fit ─> becomes it, with lease, listeners and connections
//! the next program  has cop become it ─> starts the next generation beside the old ─> tells the stub
//! ```
//!
//! What goes wrong before manager became it changes nothing. What goes wrong afterwards makes cop and manager become what
//! they were, on the descriptor of the former program: its file may be gone. The server that serves is replaced last and
//! by nothing but a ready one.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use base::{Clock, Instant, SystemClock};
use supervise::change::{Outcome, Proposal, Step, Verdict};
use supervise::control::{Connection, ControlError, Reply, Request};
use supervise::lease::{self, Holder};
use supervise::reaped::Reaped;
use supervise::role::{self, FIRST_DESCRIPTOR, Role};
use supervise::succession::{self, Fitness, Legacy};
use supervise::{error, info, warn};
use sys::process::{Pidfd, Signal, Spawn, Standing};

use crate::change::Asker;
use crate::supervisor::Supervisor;

/// How long the program on disk may take to say whether it is fit.
const FITNESS_WITHIN: Duration = Duration::from_secs(10);
/// How long cop may take to become it and to answer.
const COP_WITHIN: Duration = Duration::from_secs(5);
/// How long cop is waited for on the way back: it is asked, and manager goes on without it.
const COP_BACK_WITHIN: Duration = Duration::from_secs(1);
/// Bytes that the program on disk may say.
const TOLD_MAX: usize = 64 * 1024;
/// Characters of what a program said that is no answer, for the log.
const QUOTED_MAX: usize = 400;

/// A replacement that is under way.
#[derive(Debug)]
pub(crate) struct Upgrade {
    asker: Asker,
    since: Instant,
    until: Instant,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// The program on disk is asked whether it is fit.
    Asking { program: OwnedFd, child: Pidfd, output: io::PipeReader, told: Vec<u8> },
    /// This is the new program; cop is told to become it. No connection: it is not there to be told.
    Cop { former: OwnedFd, connection: Option<Connection> },
    /// The next generation starts.
    Server { former: OwnedFd },
}

impl Upgrade {
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.phase {
            Phase::Asking { output, .. } => Some(output.as_fd()),
            Phase::Cop { connection, .. } => connection.as_ref().map(AsFd::as_fd),
            Phase::Server { .. } => None,
        }
    }

    pub(crate) const fn until(&self) -> Instant {
        self.until
    }
}

impl Supervisor {
    /// Begins a replacement by the program on disk, or says why not.
    pub(crate) fn begin_upgrade(&mut self, now: Instant, asker: Asker) {
        match self.ask_whether_fit(now) {
            Ok(phase) => self.upgrade = Some(Upgrade { asker, since: now, until: now + FITNESS_WITHIN, phase }),
            Err(why) => self.conclude(Step::Upgrade, asker, Verdict::new(Outcome::Failed, why)),
        }
    }

    fn ask_whether_fit(&self, _now: Instant) -> Result<Phase, String> {
        if self.stopping {
            return Err("everything is being stopped".to_owned());
        }
        if self.change.is_some() || self.upgrade.is_some() {
            return Err("another change is under way: wait for its end".to_owned());
        }
        let path = succession::program_on_disk(&self.family.directory).map_err(|error| error.to_string())?;
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        let program = sys::exec::open_program(&path).map_err(failed)?;
        let (output, tell) = io::pipe().map_err(failed)?;
        rustix::io::ioctl_fionbio(&output, true).map_err(|error| failed(error.into()))?;
        let mut words: Vec<_> = ["beltway", "new-binary", "--replaces", base::VERSION].map(Into::into).into();
        words.extend(self.family.arguments());
        // Started by its descriptor: what was asked is what we become, whatever is written to its path meanwhile.
        let started = sys::process::spawn(&Spawn {
            program: format!("/proc/self/fd/{FIRST_DESCRIPTOR}").as_ref(),
            arguments: words.iter().map(std::ffi::OsString::as_os_str).collect(),
            descriptors: vec![(program.as_fd(), FIRST_DESCRIPTOR), (tell.as_fd(), 1), (tell.as_fd(), 2)],
            standing: Standing::OwnGroup,
        });
        let child = started.map_err(|error| format!("{} cannot be started: {error}", path.display()))?;
        info!("upgrade: {} is asked whether it can take over", path.display());
        Ok(Phase::Asking { program, child, output, told: Vec::new() })
    }

    /// Takes a replacement as far as it goes.
    pub(crate) fn turn_upgrade(&mut self, now: Instant, reaped: &Reaped) {
        let Some(mut upgrade) = self.upgrade.take() else { return };
        if self.stopping {
            if let Phase::Asking { child, .. } = &upgrade.phase {
                let _ = child.signal(Signal::KILL); // our own child, not reaped; that it is dead already is as good
            }
            let verdict = Verdict::new(Outcome::Failed, "everything is being stopped");
            return self.conclude(Step::Upgrade, upgrade.asker, verdict);
        }
        match &mut upgrade.phase {
            Phase::Asking { child, output, told, .. } => {
                // In this order: who has exited has said all it had to say.
                let exit = reaped.of(child);
                let ended = hear(output, told);
                if now >= upgrade.until {
                    let _ = child.signal(Signal::KILL); // as above
                    let why = format!("the program on disk has not said within {FITNESS_WITHIN:?} whether it is fit");
                    return self.conclude(Step::Upgrade, upgrade.asker, Verdict::new(Outcome::Failed, why));
                }
                if exit.is_none() && !(ended && child.is_dead()) {
                    self.upgrade = Some(upgrade);
                    return;
                }
                let exit = exit.map(|exit| exit.to_string()).unwrap_or_default();
                match understood(told, &exit) {
                    Ok(()) => self.become_next(upgrade),
                    Err(verdict) => self.conclude(Step::Upgrade, upgrade.asker, verdict),
                }
            }
            Phase::Cop { connection, .. } => match self.cop_became(connection) {
                Ok(true) => self.start_next_server(upgrade, now),
                Ok(false) if now < upgrade.until => self.upgrade = Some(upgrade),
                Ok(false) => self.go_back(upgrade, format!("cop has not followed within {COP_WITHIN:?}")),
                Err(why) => self.go_back(upgrade, why),
            },
            Phase::Server { .. } => self.upgrade = Some(upgrade),
        }
    }

    /// Becomes the program on disk.
    fn become_next(&mut self, upgrade: Upgrade) {
        let Phase::Asking { program, .. } = upgrade.phase else { return };
        info!("upgrade: it can; manager becomes it");
        let outcome = sys::exec::open_program("/proc/self/exe".as_ref())
            .map(|former| self.leave_to(&program, Some(&former), &upgrade.asker, None));
        let (Ok(error) | Err(error)) = outcome;
        let why = format!("the program on disk cannot be started: {error}");
        self.reopen_admin();
        self.conclude(Step::Upgrade, upgrade.asker, Verdict::new(Outcome::Failed, why));
    }

    /// Leaves everything to `program`, and becomes it. Returns only when that cannot be.
    fn leave_to(
        &mut self,
        program: &OwnedFd,
        former: Option<&OwnedFd>,
        asker: &Asker,
        failed: Option<Verdict>,
    ) -> io::Error {
        self.close_admin();
        self.refuse_waiting();
        let now = SystemClock.now();
        let left = |at: Instant| u64::try_from(at.since(now).as_millis()).unwrap_or(u64::MAX);
        let legacy = Legacy {
            version: base::VERSION.to_owned(),
            lease: Some(self.lease.as_fd().as_raw_fd()),
            endpoint: Some(self.endpoint.keep()),
            listeners: succession::kept(&self.listeners),
            listeners_epoch: self.listeners_epoch,
            asker: match asker {
                Asker::Control(question) => Some(question.kept()),
                Asker::Log | Asker::Upgrade => None,
            },
            former: former.map(AsRawFd::as_raw_fd),
            failed,
            down: self.down,
            server_deaths: self.server_deaths,
            leaving: self.servers.iter().filter_map(|s| Some((s.generation, left(s.stop_by?)))).collect(),
            ..Legacy::default()
        };
        let in_tree: &[std::ffi::OsString] = if self.cop.is_some() { &["--in-tree".into()] } else { &[] };
        let words = role::words(Role::Manager, &self.family, in_tree);
        let mut kept: Vec<BorrowedFd<'_>> = vec![self.lease.as_fd()];
        kept.extend(self.endpoint.descriptors());
        kept.extend(self.listeners.iter().map(|listener| listener.fd.as_fd()));
        kept.extend(former.map(AsFd::as_fd));
        legacy.leave(program, &words, &kept)
    }

    /// This is the program that took over, or the former one that is back.
    pub(crate) fn succeed(&mut self, legacy: &Legacy, now: Instant) {
        let asker = match legacy.asker {
            Some(asker) => Asker::Control(asker.again(Request::Ping)),
            None => Asker::Log,
        };
        if let Some(verdict) = &legacy.failed {
            return self.conclude(Step::Upgrade, asker, verdict.clone());
        }
        info!("upgrade: manager goes on as version {}, it was {}", base::VERSION, legacy.version);
        let former = legacy.former.ok_or(io::ErrorKind::NotFound.into()).and_then(sys::process::inherited);
        let former = match former {
            Ok(former) => former,
            Err(error) => {
                let why = format!("what the former program left is not whole, and so there is no way back: {error}");
                return self.conclude(Step::Upgrade, asker, Verdict::new(Outcome::Failed, why));
            }
        };
        let phase = Phase::Cop { former, connection: None };
        let upgrade = Upgrade { asker, since: now, until: now + COP_WITHIN, phase };
        if self.has_cop() {
            self.upgrade = Some(upgrade);
        } else {
            self.start_next_server(upgrade, now);
        }
    }

    /// Whether there is a cop, beside us or above.
    fn has_cop(&self) -> bool {
        self.cop.is_some() || !matches!(lease::holder(&self.family.directory.cop_lease()), Ok(Holder::Nobody))
    }

    /// Whether cop runs this program now.
    fn cop_became(&self, connection: &mut Option<Connection>) -> Result<bool, String> {
        let Some(open) = connection else {
            // One that is just being started is there in a moment; until then nothing is lost.
            *connection = match self.ask_cop_to_become(None) {
                Ok(connection) => Some(connection),
                Err(ControlError::Absent(..)) => None,
                Err(error) => return Err(format!("cop cannot be told: {error}")),
            };
            return Ok(false);
        };
        match open.receive::<Reply>() {
            Ok(None) => Ok(false),
            Ok(Some((packet, _))) => match packet.body {
                Reply::Done => Ok(true),
                Reply::Refused(why) => Err(format!("cop stays what it is: {why}")),
                other => Err(format!("cop answers {other:?}")),
            },
            Err(error) => Err(format!("cop did not survive it: {error}")),
        }
    }

    /// Tells cop to become that program; this one when none is named.
    fn ask_cop_to_become(&self, program: Option<&OwnedFd>) -> Result<Connection, ControlError> {
        let ours;
        let program = match program {
            Some(program) => program,
            None => {
                ours = sys::exec::open_program("/proc/self/exe".as_ref())?;
                &ours
            }
        };
        let connection = Connection::open(&self.family.directory.cop_socket())?;
        connection.send(1, Request::Become, &[program.as_fd()])?;
        Ok(connection)
    }

    fn start_next_server(&mut self, upgrade: Upgrade, now: Instant) {
        let (Phase::Cop { former, .. } | Phase::Server { former }) = upgrade.phase else { return };
        self.upgrade = Some(Upgrade { phase: Phase::Server { former }, until: Instant::FAR_FUTURE, ..upgrade });
        if self.down {
            // None is to run; the next one will be of this program.
            return self.server_followed(Verdict::new(Outcome::Applied, "no server is to run"));
        }
        self.begin_change(now, Proposal::File, Step::Upgrade, Asker::Upgrade);
    }

    /// What became of the next generation.
    pub(crate) fn server_followed(&mut self, verdict: Verdict) {
        let Some(upgrade) = self.upgrade.take() else { return };
        if !verdict.is_success() && !self.stopping {
            return self.go_back_with(upgrade, verdict);
        }
        let took = (SystemClock.now() - upgrade.since).as_millis();
        let took_ms = u64::try_from(took).unwrap_or(u64::MAX);
        self.conclude(Step::Upgrade, upgrade.asker, Verdict { took_ms, ..verdict });
        self.tell_stub();
    }

    fn go_back(&mut self, upgrade: Upgrade, why: String) {
        self.go_back_with(upgrade, Verdict::new(Outcome::Failed, why));
    }

    /// Has cop become what it was, and does so itself.
    fn go_back_with(&mut self, upgrade: Upgrade, verdict: Verdict) {
        let (Phase::Cop { former, .. } | Phase::Server { former }) = upgrade.phase else { return };
        warn!("upgrade: it failed, back to the former program: {}", verdict.why);
        if self.has_cop() {
            let told = self.ask_cop_to_become(Some(&former)).and_then(|connection| {
                supervise::wait::readable(&[connection.as_fd()], COP_BACK_WITHIN)?;
                connection.receive::<Reply>()
            });
            match told {
                Ok(Some((packet, _))) if packet.body == Reply::Done => {}
                Ok(other) => warn!("cop may not have gone back: {other:?}"),
                Err(error) => warn!("cop may not have gone back: {error}"),
            }
        }
        let error = self.leave_to(&former, None, &upgrade.asker, Some(verdict.clone()));
        error!("there is no way back to the former program, this one goes on: {error}");
        self.reopen_admin();
        self.conclude(Step::Upgrade, upgrade.asker, verdict);
    }

    /// The stub becomes what its manager is.
    fn tell_stub(&self) {
        let path = self.family.directory.stub_lease();
        let told = lease::process(&path).and_then(|stub| match stub {
            Some(stub) => lease::signal(&path, &stub, Signal::USR2),
            None => Ok(false),
        });
        if let Err(error) = told {
            warn!("the process at the top stays the former program: {error}");
        }
    }
}

/// Reads what is there. `true`: that was all.
fn hear(output: &mut io::PipeReader, told: &mut Vec<u8>) -> bool {
    let mut block = [0; 4096];
    loop {
        match output.read(&mut block) {
            Ok(0) => return true,
            Ok(count) => {
                let room = TOLD_MAX.saturating_sub(told.len()).min(count);
                told.extend_from_slice(block.get(..room).unwrap_or_default());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
    }
}

/// Whether what the program on disk said means that it can take over.
fn understood(told: &[u8], exit: &str) -> Result<(), Box<Verdict>> {
    let said = told.split(|&byte| byte == b'\n').find_map(|line| serde_json::from_slice::<Fitness>(line).ok());
    match said {
        Some(fitness) => fitness.judge(),
        None => {
            let text = String::from_utf8_lossy(told);
            let text: String = text.trim().chars().take(QUOTED_MAX).collect();
            let why = format!("the program on disk does not say that it is fit: it {exit}, and said {text:?}");
            Err(Box::new(Verdict::new(Outcome::Failed, why)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_answer_is_quoted_and_one_of_another_minor_version_is_refused() {
        let why = |told: &str| understood(told.as_bytes(), "exited with 1").unwrap_err().why;
        assert!(
            why("no such library\n").contains("exited with 1") && why("no such library").contains("no such library")
        );
        assert!(why("{\"version\":\"99.0.0\"}\n").contains("99.0.0"));
        let fit = Fitness::ours(Verdict::new(Outcome::Possible, ""));
        let line = format!("a warning\n{}\n", serde_json::to_string(&fit).unwrap());
        assert_eq!(understood(line.as_bytes(), "exited with 0"), Ok(()));
    }
}
