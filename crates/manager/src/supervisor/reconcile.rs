//! Servers that are not as manager knows them: started or left behind by another manager, or with another configuration than
//! the one in force, since this one did not hear how a change ended. One serves on, with what is in force.
//!
//! A server that runs another configuration is told of the one in force until it runs that, after ever longer pauses: what
//! kept it from taking it, a full disk for one, may pass. Start at `reconcile`.

use std::time::Duration;

use base::Instant;
use supervise::lease::{self, Holder};
use supervise::status::ServerState;
use supervise::warn;

use super::Supervisor;
use crate::servers::{self, Server};

/// Signs of life that a server has to give with another configuration than the one in force before it is told: of those that
/// came while that changed, one may be of before.
const UNLIKE_SEEN: u64 = 2;
/// For how long nobody is told again of the configuration in force: meanwhile an operator may change something. It doubles
/// each time that a server was told in vain.
const TOLD_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// No pause is longer.
const TOLD_AGAIN_AFTER_MAX: Duration = Duration::from_mins(10);

impl Supervisor {
    /// Looks whether one server serves, with the configuration in force, and sees to it.
    pub(super) fn reconcile(&mut self, now: Instant) {
        if self.stopping || self.change.is_some() || self.upgrade.is_some() {
            return self.unlike.look_away();
        }
        self.adopt_late(now);
        let known = |server: &&Server| server.state == ServerState::Ready && server.pong().is_some();
        let serves = |server: &&Server| server.state != ServerState::Draining && !server.standby;
        let candidates = self.servers.iter().filter(serves);
        if candidates.clone().count() != candidates.clone().filter(known).count() {
            return; // somebody is still starting, or has not answered yet
        }
        let digest = &self.configuration.digest;
        let fits = |server: &Server| server.pong().is_some_and(|pong| pong.configuration == *digest);
        let Some(best) = candidates.clone().max_by_key(|server| (fits(server), server.generation)) else { return };
        let (generation, fits, answered) = (best.generation, fits(best), best.link.status(now).answered);
        if candidates.count() > 1 {
            warn!("more than one server serves: generation {generation} stays");
            return self.drain_all_but(Some(generation), now);
        }
        if fits {
            self.unlike.all_fit();
        } else if self.unlike.is_to_be_told(generation, answered, now) {
            warn!("generation {generation} runs another configuration than the one in force: it is told");
            self.enforce(now);
        }
    }

    /// Takes up servers that another manager had just started when it died: they had a lease, and no pid in it yet.
    fn adopt_late(&mut self, now: Instant) {
        let directory = &self.family.directory;
        let generations = match directory.server_generations() {
            Ok(generations) => generations,
            Err(error) => return warn!("{}: {error}", directory.path().display()),
        };
        let interval = self.config.supervise.heartbeat_interval;
        for generation in generations {
            if self.servers.iter().all(|server| server.generation != generation) {
                if matches!(lease::holder(&directory.server_lease(generation)), Ok(Holder::Nobody)) {
                    servers::clear_away(directory, generation);
                }
                self.servers.extend(Server::adopt(directory, generation, interval, now));
            }
        }
    }
}

/// What is known of the server that runs another configuration than the one in force.
#[derive(Debug, Default)]
pub(crate) struct Unlike {
    /// Its generation, and how many signs of life it had given when that was first seen.
    seen: Option<(u64, u64)>,
    told: Option<Told>,
}

/// The last time that a server was told.
#[derive(Clone, Copy, Debug)]
struct Told {
    generation: u64,
    at: Instant,
    /// So often in a row, and it still runs what it ran.
    times: u32,
}

impl Unlike {
    /// Something is changing: what servers say they run means nothing for now.
    pub(crate) const fn look_away(&mut self) {
        self.seen = None;
    }

    /// The server runs what is in force.
    const fn all_fit(&mut self) {
        self.seen = None;
        if let Some(told) = &mut self.told {
            told.times = 0;
        }
    }

    /// This one does not, and has answered so often. Who is to be told counts as told.
    fn is_to_be_told(&mut self, generation: u64, answered: u64, now: Instant) -> bool {
        let seen = self.seen.filter(|(unlike, _)| *unlike == generation).map_or(answered, |(_, answered)| answered);
        self.seen = Some((generation, seen));
        let times = self.told.filter(|told| told.generation == generation).map_or(0, |told| told.times);
        let doubled = 1_u32.checked_shl(times.saturating_sub(1)).unwrap_or(u32::MAX);
        let pause = TOLD_AGAIN_AFTER.saturating_mul(doubled).min(TOLD_AGAIN_AFTER_MAX);
        if answered < seen + UNLIKE_SEEN || self.told.is_some_and(|told| now < told.at + pause) {
            return false;
        }
        self.told = Some(Told { generation, at: now, times: times.saturating_add(1) });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When generation `generation` is told, of the seconds of `time`; it gives a sign of life in each.
    fn told(unlike: &mut Unlike, generation: u64, time: std::ops::Range<u64>) -> Vec<u64> {
        let at = |second| Instant::ORIGIN + Duration::from_secs(second);
        time.filter(|&second| {
            let told = unlike.is_to_be_told(generation, second, at(second));
            if told {
                unlike.look_away(); // a change is under way
            }
            told
        })
        .collect()
    }

    #[test]
    fn a_server_that_was_told_in_vain_is_told_again_after_ever_longer_pauses_until_it_runs_what_is_in_force() {
        let mut unlike = Unlike::default();
        let all = told(&mut unlike, 1, 0..3000);
        assert_eq!(all, [2, 32, 92, 212, 452, 932, 1532, 2132, 2732]);
        // From when it does, and for any other, the pauses are short again.
        unlike.all_fit();
        assert_eq!(told(&mut unlike, 1, 3000..3100), [3002, 3032, 3092]);
        assert_eq!(told(&mut unlike, 2, 3100..3200), [3122, 3152]);
        // Nobody is told twice in a moment, however well he took it.
        unlike.all_fit();
        assert_eq!(told(&mut unlike, 2, 3153..3200), [3182]);
    }
}
