//! HAProxy with its small-object cache: one thread, in the foreground.

use std::path::Path;

use super::{CONNECTIONS_MAX, Caching, ORIGIN_IDLE_MAX, Prepared, Surroundings};
use crate::error::Outcome;
use crate::lab;
use crate::leash::LeashedCommand;

pub(super) fn prepare(around: &Surroundings<'_>, caching: Caching, room: &Path, port: u16) -> Outcome<Prepared> {
    let program = lab::find_program("haproxy")?;
    let conf = room.join("haproxy.cfg");
    let origin = around.origin;
    let (cache, used) = match caching {
        Caching::No => ("", ""),
        Caching::Yes | Caching::Logged => (
            "cache objects
    total-max-size 512
    max-object-size 4000000
    max-age 3600
",
            "    http-request cache-use objects
    http-response cache-store objects
",
        ),
    };
    super::write(
        &conf,
        &format!(
            "global
    nbthread 1
    maxconn {CONNECTIONS_MAX}
defaults
    mode http
    timeout connect 10s
    timeout client 1h
    timeout server 1h
    timeout http-keep-alive 1h
    option http-keep-alive
    http-reuse always
{cache}frontend in
    bind 127.0.0.1:{port} backlog 4096
{used}    default_backend origin
backend origin
    server one 127.0.0.1:{origin} pool-max-conn {ORIGIN_IDLE_MAX} pool-purge-delay 1h
"
        ),
    )?;
    let command = LeashedCommand::new(program.display().to_string(), around.lab.proxy_core).args([
        "-db",
        "-f",
        &conf.display().to_string(),
    ]);
    let version = super::version(around.lab, &program, "-v")?;
    Ok(Prepared { command, program, version })
}
