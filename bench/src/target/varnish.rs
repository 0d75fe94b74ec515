//! Varnish: one thread pool (it has a thread per busy connection, all pinned to the one core), storage by malloc.
//!
//! Its shared-memory log cannot be turned off but can be emptied: it is its access log.

use std::path::Path;

use super::{CONNECTIONS_MAX, Prepared, Surroundings};
use crate::error::Outcome;
use crate::lab;
use crate::leash::LeashedCommand;

pub(super) fn prepare(around: &Surroundings<'_>, room: &Path, port: u16) -> Outcome<Prepared> {
    let program = lab::find_program("varnishd")?;
    let vcl = room.join("default.vcl");
    let origin = around.origin;
    super::write(
        &vcl,
        &format!(
            "vcl 4.1;
backend origin {{ .host = \"127.0.0.1\"; .port = \"{origin}\"; }}
sub vcl_recv {{
    if (req.url ~ \"^/pass/\") {{ return (pass); }}
    return (hash);
}}
"
        ),
    )?;
    let mut command = LeashedCommand::new(program.display().to_string(), around.lab.proxy_core)
        .arg("-F")
        .args(["-j", "none", "-T", "none", "-S", "none"])
        .args(["-n", &room.display().to_string()])
        .args(["-f", &vcl.display().to_string()])
        .args(["-a", &format!("127.0.0.1:{port}")])
        .args(["-s", "malloc,1g"]);
    for setting in [
        "thread_pools=1".to_owned(),
        "thread_pool_min=300".to_owned(),
        format!("thread_pool_max={CONNECTIONS_MAX}"),
        "listen_depth=4096".to_owned(),
        "timeout_idle=3600".to_owned(),
        "backend_idle_timeout=3600".to_owned(),
        "default_grace=0".to_owned(),
    ] {
        command = command.args(["-p", &setting]);
    }
    let version = super::version(around.lab, &program, "-V")?;
    Ok(Prepared { command, program, version })
}
