//! The slow log: the newest requests that took longer than their pool bears, on whichever thread they were.
//!
//! Of neighbours on one connection that are alike only the first is told, and of one receive's replies a few: so that a
//! server that is slow with everything does not cost more than it does already.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base::WallTime;

/// Requests that are remembered.
pub const SLOW_MAX: usize = 128;
/// Bytes of the first argument that are told.
const ARGUMENT_MAX: usize = 64;

/// A request that took long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slow {
    /// When its reply came.
    pub at: WallTime,
    /// Its pool.
    pub pool: String,
    /// The server that answered, by the name that places its keys.
    pub server: String,
    /// Its command.
    pub command: &'static str,
    /// The beginning of its first argument, mostly its key; empty when it is not known any more.
    pub argument: Vec<u8>,
    /// Its length.
    pub bytes: u64,
    /// From its arrival to the reply.
    pub took: Duration,
}

impl Slow {
    /// Keeps of an argument what is told of it.
    pub(crate) fn argument(argument: &[u8]) -> Vec<u8> {
        argument[..argument.len().min(ARGUMENT_MAX)].to_vec()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct SlowLog(Mutex<VecDeque<Slow>>);

impl SlowLog {
    /// Takes one in, in the place of the oldest when there are as many as may be.
    pub(crate) fn put(&self, slow: Slow) {
        // Nothing is done while it is held.
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() >= SLOW_MAX {
            log.pop_front();
        }
        log.push_back(slow);
    }

    /// All, the newest first.
    pub(crate) fn read(&self) -> Vec<Slow> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered_and_told_first() {
        let log = SlowLog::default();
        for bytes in 0..200 {
            log.put(Slow {
                at: WallTime::from_micros(0),
                pool: "pool".into(),
                server: "server".into(),
                command: "get",
                argument: Slow::argument(&[b'k'; 300]),
                bytes,
                took: Duration::from_millis(101),
            });
        }
        let read = log.read();
        assert_eq!((read.len(), read[0].bytes, read[SLOW_MAX - 1].bytes), (SLOW_MAX, 199, 200 - SLOW_MAX as u64));
        assert_eq!(read[0].argument.len(), ARGUMENT_MAX);
    }
}
