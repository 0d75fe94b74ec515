//! Manager at the side of the server that serves: feels its threads' pulse, and ends it when one hangs.
//!
//! What hangs cannot be mended from outside, and its connections wait for nothing; the next server is there within a
//! blink. What is merely slow is told of, and left alone. The findings are `pulse`'s; here is what follows from them.

use std::time::Duration;

use base::Instant;
use supervise::directory::RuntimeDir;
use supervise::obituary::{self, Obituary};
use supervise::role::Role;
use supervise::status::ServerState;
use supervise::witness;
use supervise::{error, warn};
use sys::process::Signal;

use crate::pulse::{INTERVAL, Patient, Pulses};
use crate::servers::Server;
use crate::supervisor::Supervisor;

/// Between two reports of the same thing.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// The pulses of each server that serves, and when to feel them next.
#[derive(Debug, Default)]
pub(crate) struct Vigil {
    feel_at: Instant,
    report_at: Instant,
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
    /// Looks after the threads of the servers that serve.
    pub(crate) fn keep_vigil(&mut self, now: Instant) {
        if now < self.vigil.feel_at {
            return;
        }
        self.vigil.feel_at = now + INTERVAL;
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
