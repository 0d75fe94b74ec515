//! Manager at the side of the others: feels the pulse of the serving server's threads, listens to cop, and ends who hangs.
//!
//! What hangs cannot be mended from outside, and its connections wait for nothing; the next one is there within a blink.
//! What is merely slow is told of, and left alone. The findings are `pulse`'s and `supervise::sign`'s; here is what follows
//! from them. When manager itself was not run, everybody is forgiven: nobody could be heard.

use std::time::Duration;

use base::Instant;
use supervise::directory::RuntimeDir;
use supervise::obituary::{self, Obituary};
use supervise::role::Role;
use supervise::status::ServerState;
use supervise::watch::Watch;
use supervise::witness;
use supervise::{error, warn};
use sys::process::Signal;

use crate::pulse::{INTERVAL, Patient, Pulses};
use crate::servers::Server;
use crate::supervisor::Supervisor;

/// Between two reports of the same thing.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Later than this for a look: manager was not run.
const OWN_GAP: Duration = Duration::from_secs(1);

/// The pulses of each server that serves, and when to feel them next.
#[derive(Debug, Default)]
pub(crate) struct Vigil {
    feel_at: Instant,
    report_at: Instant,
    /// Cop was told to die for this silence.
    cop_condemned: Option<u32>,
    /// By generation; one whose server was told to die has none any more.
    pulses: Vec<(u64, Option<Pulses>)>,
}

impl Vigil {
    /// When to look at the latest.
    pub(crate) const fn next_at(&self) -> Instant {
        self.feel_at
    }

    fn of(&mut self, generation: u64) -> &mut Option<Pulses> {
        let place = self.pulses.iter().position(|(known, _)| *known == generation).unwrap_or_else(|| {
            self.pulses.push((generation, Some(Pulses::default())));
            self.pulses.len() - 1
        });
        &mut self.pulses[place].1
    }
}

impl Supervisor {
    /// Looks after cop, and after the threads of the servers that serve.
    pub(crate) fn keep_vigil(&mut self, now: Instant) {
        if now < self.vigil.feel_at {
            return;
        }
        let own_gap = self.vigil.feel_at != Instant::ORIGIN && now > self.vigil.feel_at + OWN_GAP;
        self.vigil.feel_at = now + INTERVAL;
        if own_gap {
            warn!("manager itself was not run for a while: what was missed meanwhile is forgiven");
            if let Some(link) = self.cop.as_mut().and_then(Watch::link_mut) {
                link.forgive(now);
            }
        }
        self.listen_to_cop(now);
        let (servers, vigil, directory) = (&self.servers, &mut self.vigil, &self.family.directory);
        vigil.pulses.retain(|(known, _)| servers.iter().any(|server| server.generation == *known));
        for server in servers.iter().filter(|server| server.state == ServerState::Ready) {
            let (generation, pid) = (server.generation, server.process.pid());
            let place = vigil.of(generation);
            let Some(pulses) = place else { continue };
            let numbers = directory.server_numbers(generation);
            let Some(patient) = pulses.feel(pid, &numbers, now, self.config.supervise.hang_timeout) else { continue };
            let complaint = patient.complaint();
            if patient.hangs() {
                *place = None;
                error!("{}[{pid}] hangs: {complaint}; it is killed", Role::Server.name());
                end(directory, server, &patient);
            } else if now >= vigil.report_at {
                vigil.report_at = now + REPORT_INTERVAL;
                let still = patient.still_for;
                warn!("{complaint} and has not turned for {still:.1?}; it is left alone");
            }
        }
    }
}

impl Supervisor {
    /// Ends a cop that hangs: the next one adopts everybody.
    fn listen_to_cop(&mut self, now: Instant) {
        let (Some(cop), false) = (&self.cop, self.stopping) else { return };
        let (Some(pid), sign) = (cop.pid(), cop.sign(now)) else { return };
        if !sign.is_silent(self.config.supervise.hang_timeout) || self.vigil.cop_condemned == Some(pid) {
            return;
        }
        // It may have been given the processor, have answered and fallen asleep since we last listened.
        if self.cop.as_mut().is_some_and(|cop| cop.hear(now)) {
            return;
        }
        let Some(cop) = &self.cop else { return };
        let directory = &self.family.directory;
        match sign.examine() {
            Ok(proof) => {
                error!("{}[{pid}] hangs ({proof:?}): {sign:?}; it is killed", Role::Cop.name());
                self.vigil.cop_condemned = Some(pid);
                let mut threads = obituary::threads_of(pid);
                let evidence = cop.process().map(|process| witness::hear(&directory.cop_witness(), process, &threads));
                cop.signal(Signal::KILL);
                if let Some(evidence) = evidence {
                    evidence.tell(&mut threads);
                }
                let (who, cause) = (Role::Cop.name().to_owned(), format!("hang: {}", proof.as_str()));
                obituary::write(directory, "vigil", Obituary { who, pid, cause, threads, ..Obituary::default() });
            }
            Err(excuse) if now >= self.vigil.report_at => {
                self.vigil.report_at = now + REPORT_INTERVAL;
                warn!("{} does not answer ({excuse:?}): {sign:?}; it is left alone", Role::Cop.name());
            }
            Err(_) => {}
        }
    }

    /// Writes down what cop itself said of its death, before another takes its page.
    pub(crate) fn mourn_cop(&self, pid: Option<u32>) {
        let directory = &self.family.directory;
        let (Some(pid), who) = (pid, Role::Cop.name().to_owned()) else { return };
        let mut death = Obituary { who, pid, ..Obituary::default() };
        witness::add_fault(&directory.cop_witness(), &mut death);
        if !death.cause.is_empty() {
            obituary::write(directory, "manager", death);
        }
    }
}

/// Ends a server whose thread hangs, and writes down what it was doing.
fn end(directory: &RuntimeDir, server: &Server, patient: &Patient) {
    let pid = server.process.pid();
    let mut threads = obituary::threads_of(pid);
    // Who hangs first: the others only show what the rest was doing.
    threads.sort_by_key(|thread| (thread.id != patient.id, !thread.name.starts_with("[ET_NET")));
    let evidence = witness::hear(&directory.server_witness(server.generation), &server.process, &threads);
    server.signal(directory, Signal::KILL);
    evidence.tell(&mut threads);
    let account = Obituary {
        who: Role::Server.name().to_owned(),
        pid,
        generation: server.generation,
        cause: format!("hang: {}", patient.complaint()),
        threads,
        ..Obituary::default()
    };
    obituary::write(directory, "vigil", account);
}
