//! `ctl kv`: what the running server says of its pools, and what it is told to do with their servers.

use base::{Clock, SystemClock};
use ctl::CtlError;
use serde_json::to_value;
use supervise::directory::RuntimeDir;
use supervise::kv::KvReport;

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
            let live = |name: &str| {
                let server = told.and_then(|pool| pool.servers.iter().find(|server| server.name == name));
                server.is_none_or(|server| server.ejected_threads < report.threads)
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
