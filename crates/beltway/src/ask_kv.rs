//! `ctl kv`: what the running server says of its pools, and what it is told to do with their servers.

use base::{Clock, SystemClock};
use ctl::CtlError;
use serde_json::to_value;
use supervise::directory::RuntimeDir;
use supervise::kv::{KvPoolReport, KvReport, KvServerReport};

use crate::ask::{committed, done, printed, with};
use crate::cli::{Asked, CtlKvCommand, HeldServer};
use crate::kv;

pub(crate) fn dispatch(command: CtlKvCommand) -> u8 {
    match command {
        CtlKvCommand::Pools(asked) => shown(&asked, ctl::pools_json, ctl::pools_table),
        CtlKvCommand::Servers(asked) => shown(&asked, ctl::servers_json, ctl::servers_table),
        CtlKvCommand::Top(asked) => shown(&asked, |report| to_value(&report.commands), ctl::commands_table),
        CtlKvCommand::Slowlog(asked) => {
            shown(&asked, |report| to_value(&report.slow), |report| ctl::slow_table(report, SystemClock.wall()))
        }
        CtlKvCommand::Where { pool, keys, asked } => with(&asked, |directory| {
            let (config, report) = (committed(directory)?, report(directory)?);
            let told = report.pools.iter().find(|told| told.name == pool);
            let silent = told.map_or(0, silent_threads);
            if silent > 0 && silent >= report.threads {
                return Err(CtlError::Unfinished(format!(
                    "none of the {} event threads said in time how the servers of {pool} are, so it is not known where keys \
                     are; where they are while all servers live, `beltway kv where` says",
                    report.threads
                )));
            }
            if silent > 0 {
                // Beside the answer, which programs read.
                eprintln!(
                    "beltway: by {} of {} event threads: the others did not say",
                    report.threads - silent,
                    report.threads
                );
            }
            let live = |name: &str| {
                let server = told.and_then(|pool| pool.servers.iter().find(|server| server.name == name));
                server.is_none_or(|server| takes_keys(server, report.threads))
            };
            match kv::answer(&config.kv, &pool, &keys, asked.json, &live) {
                Ok(text) => Ok(printed(&Asked { json: false, ..asked.clone() }, Ok(().into()), || text)),
                Err(why) => Err(CtlError::Unfinished(why)),
            }
        }),
        CtlKvCommand::Eject(held) => hold(held, true),
        CtlKvCommand::Restore(held) => hold(held, false),
    }
}

/// Whether a thread that said how it is has it in its ring.
fn takes_keys(server: &KvServerReport, threads: u64) -> bool {
    server.ejected_threads < threads.saturating_sub(server.silent_threads)
}

/// How many threads have not said how a pool's servers are: all are asked at once.
fn silent_threads(pool: &KvPoolReport) -> u64 {
    pool.servers.iter().map(|server| server.silent_threads).max().unwrap_or(0)
}

fn report(directory: &RuntimeDir) -> Result<KvReport, CtlError> {
    ctl::kv(directory)
}

fn shown(
    asked: &Asked,
    json: impl FnOnce(&KvReport) -> serde_json::Result<serde_json::Value>,
    text: impl FnOnce(&KvReport) -> String,
) -> u8 {
    with(asked, |directory| {
        let report = report(directory)?;
        Ok(printed(asked, json(&report), || text(&report)))
    })
}

fn hold(held: HeldServer, out: bool) -> u8 {
    let HeldServer { server, pool, asked } = held;
    done(&asked, if out { "ejected" } else { "restored" }, |directory| ctl::hold(directory, pool, server, out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_says_neither_that_a_server_takes_keys_nor_that_it_does_not() {
        let takes = |ejected_threads, silent_threads| {
            takes_keys(&KvServerReport { ejected_threads, silent_threads, ..KvServerReport::default() }, 2)
        };
        assert!(takes(0, 0) && takes(1, 0) && takes(0, 1));
        assert!(!takes(2, 0) && !takes(1, 1));
    }
}
