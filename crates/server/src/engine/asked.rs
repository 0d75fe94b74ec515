//! What the main thread is asked and does not answer itself: it must answer for the process meanwhile, so it waits for none of
//! this. Event threads say how their servers are; what takes long is a chore for a
//! thread that is there for it.

use base::Instant;
use event::Handle;
use kv::ServerState;
use supervise::cache::CacheQuestion;
use supervise::control::Reply;
use supervise::kv::{KvQuestion, KvReport};

use super::Engine;
use crate::awaited::{Awaited, Bell};

impl Engine {
    /// Answers a question about the cache, all but [`CacheQuestion::Clear`] at once.
    pub(crate) fn cache(&self, asked: &CacheQuestion, until: Instant) -> Result<Reply, Awaited<Reply>> {
        if *asked != CacheQuestion::Clear {
            return Ok(self.cache.answer(asked));
        }
        let (cache, asked) = (self.cache.clone(), asked.clone());
        Err(self.chore(&self.chores, until, move || cache.answer(&asked)))
    }

    /// Has one of those threads do what takes long. What has not begun when nobody waits for it any more is not done.
    pub(super) fn chore<T: Send + 'static>(
        &self,
        threads: &[Handle],
        until: Instant,
        work: impl FnOnce() -> T + Clone + Send + 'static,
    ) -> Awaited<T> {
        Awaited::begin(threads, &self.bell, until, |thread, said| {
            let work = work.clone();
            // Not when it has more to do than it can remember: then nothing is said.
            let _ = thread.run(move |_| {
                if !said.is_in_vain() {
                    said.say(work());
                }
            });
        })
    }

    /// Asks the event threads how the pools' servers are, for [`Engine::kv_report`].
    pub(crate) fn ask_states(&self, until: Instant) -> Awaited<Vec<ServerState>> {
        self.kv.ask_states(self.processor.net(), &self.bell, until)
    }

    /// Everything there is to tell of the pools.
    pub(crate) fn kv_report(&self, states: Awaited<Vec<ServerState>>) -> KvReport {
        self.kv.report(self.processor.net().len(), states.into_said())
    }

    /// As much of it as one packet has room for; so many may ask for the rest.
    pub(crate) fn first_part(&self, report: KvReport, readers: usize) -> KvReport {
        self.kv.first_part(report, readers)
    }

    /// What rings when event threads have said something that the main thread wants to know.
    pub(crate) const fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Answers a question about the pools for which no event thread is asked.
    pub fn kv(&self, asked: &KvQuestion) -> Reply {
        self.kv.answer(asked, self.processor.net())
    }

    /// The digest of the servers of pools that are held out of their rings by hand.
    #[must_use]
    pub fn held(&self) -> String {
        self.kv.held()
    }
}
