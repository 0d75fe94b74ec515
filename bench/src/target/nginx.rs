//! nginx as a caching reverse proxy: one worker, cache in the memory file system.
//!
//! Small objects are served without `sendfile`, which is the faster way for them; 1 MiB with it. Requests for one object
//! under way wait for one another only below `/slow/`: nothing else is measured with that.

use std::path::Path;

use super::{CONNECTIONS_MAX, Caching, ORIGIN_IDLE_MAX, Prepared, Surroundings};
use crate::error::Outcome;
use crate::lab;
use crate::leash::LeashedCommand;

/// What a buffered access log says behind its format.
pub(super) const BUFFERED: &str = "buffer=64k flush=1s";

/// `log_words` stand behind the format of the access log, where there is one.
pub(super) fn prepare(
    around: &Surroundings<'_>,
    caching: Caching,
    room: &Path,
    port: u16,
    log_words: &str,
) -> Outcome<Prepared> {
    let program = lab::find_program("nginx")?;
    let conf = room.join("nginx.conf");
    let dir = room.display();
    let origin = around.origin;
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    // The table of connections is allocated at the start, 0.5 KiB each: twice the clients, for their origin halves.
    let connections = CONNECTIONS_MAX * 2;
    let (zone, cached) = match caching {
        Caching::No => (String::new(), ""),
        Caching::Yes | Caching::Logged => (
            format!(
                "proxy_cache_path {dir}/cache levels=2:2 keys_zone=c:64m max_size=2g inactive=1h use_temp_path=off;"
            ),
            "proxy_cache c;",
        ),
    };
    let log = match caching {
        Caching::Logged => format!("{dir}/{} combined {log_words}", super::ACCESS_LOG),
        Caching::No | Caching::Yes => "off".to_owned(),
    };
    super::write(
        &conf,
        &format!(
            "{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {dir}/nginx.pid;
error_log {dir}/error.log warn;
events {{ worker_connections {connections}; multi_accept on; accept_mutex off; }}
http {{
    access_log {log};
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
    open_file_cache max=20000 inactive=1h;
    open_file_cache_valid 1h;
    {zone}
    upstream origin {{ server 127.0.0.1:{origin}; keepalive {ORIGIN_IDLE_MAX}; keepalive_requests 1000000000; keepalive_timeout 1h; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        proxy_http_version 1.1;
        proxy_set_header Connection \"\";
        {cached}
        location / {{ proxy_pass http://origin; }}
        location = /c/1m {{ proxy_pass http://origin; sendfile on; tcp_nopush on; }}
        location /slow/ {{ proxy_pass http://origin; proxy_cache_lock on; }}
    }}
}}
"
        ),
    )?;
    let command = LeashedCommand::new(program.display().to_string(), around.lab.proxy_core).args([
        "-p",
        &dir.to_string(),
        "-c",
        &conf.display().to_string(),
    ]);
    let version = super::version(around.lab, &program, "-v")?;
    Ok(Prepared { command, program, version })
}
