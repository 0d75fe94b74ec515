//! nginx as a caching reverse proxy: one worker, cache in the memory file system.
//!
//! Small objects are served without `sendfile`, which is the faster way for them; 1 MiB with it.

use std::path::Path;

use super::{CONNECTIONS_MAX, Caching, ORIGIN_IDLE_MAX, Prepared, Surroundings};
use crate::error::Outcome;
use crate::lab;
use crate::leash::LeashedCommand;

pub(super) fn prepare(around: &Surroundings<'_>, caching: Caching, room: &Path, port: u16) -> Outcome<Prepared> {
    let program = lab::find_program("nginx")?;
    let conf = room.join("nginx.conf");
    let dir = room.display();
    let origin = around.origin;
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    // The table of connections is allocated at the start, 0.5 KiB each: twice the clients, for their origin halves.
    let connections = CONNECTIONS_MAX * 2;
    let (zone, cached) = match caching {
        Caching::No => (String::new(), ""),
        Caching::Yes => (
            format!(
                "proxy_cache_path {dir}/cache levels=2:2 keys_zone=c:64m max_size=2g inactive=1h use_temp_path=off;"
            ),
            "proxy_cache c;",
        ),
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
    access_log off;
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
    Ok(Prepared { command, version: super::version(around.lab, &program, "-v")? })
}
