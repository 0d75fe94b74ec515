//! The origin behind every proxy: one nginx worker on the load core, serving small files from memory.
//!
//! | path | answer |
//! | --- | --- |
//! | `/pass/1k`, `/pass/16k`, `/pass/1m` | `Cache-Control: no-store` |
//! | `/c/1k`, `/c/16k`, `/c/1m`, `/c/4k/0` … `/c/4k/9999` | `Cache-Control: max-age=3600` |
//! | `/miss/` and anything | 1 KiB, `max-age=3600`: every path is an object of its own |
//! | `/slow/c/…`, `/slow/pass/…` | 1 KiB after one second (only where nginx has its echo module) |
//! | `/status` | nginx's own count of requests |

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::error::{Doing, Outcome, Trouble};
use crate::lab::{self, Lab};
use crate::leash::{Leash, LeashedCommand};
use crate::probe;

/// Objects of the random workload.
pub(crate) const RANDOM_OBJECTS: usize = 10_000;
/// How long the origin may take to answer first.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// Debian's place for the module that can delay an answer.
const ECHO_MODULE: &str = "/usr/lib/nginx/modules/ngx_http_echo_module.so";

/// The running origin.
pub(crate) struct Origin {
    /// Its port on 127.0.0.1.
    pub(crate) port: u16,
    _leash: Leash,
}

impl Origin {
    /// Writes the files, starts nginx, waits for its first answer.
    pub(crate) fn start(lab: &Lab) -> Outcome<Self> {
        let program = lab::find_program("nginx")?;
        let room = lab.room("origin")?;
        let www = room.join("www");
        fs::create_dir_all(www.join("4k")).doing(www.display())?;
        for (name, size) in [("1k", 1 << 10), ("16k", 16 << 10), ("1m", 1 << 20)] {
            fs::write(www.join(name), body_of_size(size)).doing(name)?;
        }
        for number in 0..RANDOM_OBJECTS {
            fs::write(www.join("4k").join(number.to_string()), random_object(number)).doing("4k objects")?;
        }
        let port = lab::free_port()?;
        let conf = room.join("nginx.conf");
        fs::write(&conf, configuration(port, &room, &www)).doing(conf.display())?;
        let command = LeashedCommand::new(program.display().to_string(), lab.load_core).args([
            "-p",
            &room.display().to_string(),
            "-c",
            &conf.display().to_string(),
        ]);
        let log = room.join("log");
        let leash = Leash::spawn(&command, &log, &log)?;
        let origin = Self { port, _leash: leash };
        lab::wait_until("the origin's first answer", START_PATIENCE, || origin.requests().is_ok())
            .map_err(|late| Trouble::Wrong(format!("{late}: {}", fs::read_to_string(&log).unwrap_or_default())))?;
        Ok(origin)
    }

    /// Whether it has the slow paths.
    pub(crate) fn has_slow_paths(&self) -> bool {
        Path::new(ECHO_MODULE).is_file()
    }

    /// Requests served so far, this question included.
    pub(crate) fn requests(&self) -> Outcome<u64> {
        let answer = probe::get(self.port, "/status", &[("Connection", "close")])?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        // The third line holds: accepts handled requests.
        text.lines()
            .nth(2)
            .and_then(|line| line.split_whitespace().nth(2))
            .and_then(|word| word.parse().ok())
            .ok_or_else(|| Trouble::Wrong(format!("the origin's status is not understood: {text:?}")))
    }
}

/// The content of a file of that size: text that differs from place to place, so that a shifted piece is noticed.
pub(crate) fn body_of_size(size: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(size + 16);
    let mut line = 0_u64;
    while body.len() < size {
        body.extend_from_slice(format!("line {line:>9}\n").as_bytes());
        line += 1;
    }
    body.truncate(size);
    body
}

/// The content of `/c/4k/NUMBER`.
pub(crate) fn random_object(number: usize) -> Vec<u8> {
    let mut body = format!("object {number}\n").into_bytes();
    body.extend(body_of_size(4096));
    body.truncate(4096);
    body
}

/// What the origin answers on `path`, where that is known.
pub(crate) fn expected_body(path: &str) -> Option<Vec<u8>> {
    let name = path.rsplit('/').next()?;
    match name {
        "16k" => Some(body_of_size(16 << 10)),
        "1m" => Some(body_of_size(1 << 20)),
        "1k" => Some(body_of_size(1 << 10)),
        _ if path.starts_with("/c/4k/") => Some(random_object(name.parse().ok()?)),
        _ if path.starts_with("/miss/") || path.starts_with("/slow/") => Some(body_of_size(1 << 10)),
        _ => None,
    }
}

fn configuration(port: u16, room: &Path, www: &Path) -> String {
    let (room, www) = (room.display(), www.display());
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let (module, slow) = if Path::new(ECHO_MODULE).is_file() {
        let body = String::from_utf8_lossy(&body_of_size(1 << 10)).replace('\n', "\\n");
        let place = |path: &str, control: &str| {
            format!("location {path} {{ add_header Cache-Control {control}; echo_sleep 1.0; echo -n '{body}'; }}")
        };
        let places = [place("/slow/c/", "max-age=3600"), place("/slow/pass/", "no-store")].join("\n");
        (format!("load_module {ECHO_MODULE};"), places)
    } else {
        (String::new(), String::new())
    };
    format!(
        "{module}
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {room}/nginx.pid;
error_log {room}/error.log warn;
events {{ worker_connections 16384; multi_accept on; accept_mutex off; }}
http {{
    access_log off;
    default_type text/plain;
    server_tokens off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    open_file_cache max=20000 inactive=1h;
    open_file_cache_valid 1h;
    client_body_temp_path {room}/body; proxy_temp_path {room}/proxy; fastcgi_temp_path {room}/fastcgi;
    uwsgi_temp_path {room}/uwsgi; scgi_temp_path {room}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        root {www};
        # Small files leave in one write with their head; large ones by sendfile.
        location /pass/ {{ alias {www}/; add_header Cache-Control no-store; }}
        location = /pass/1m {{ alias {www}/1m; sendfile on; tcp_nopush on; add_header Cache-Control no-store; }}
        location /c/ {{ alias {www}/; add_header Cache-Control max-age=3600; }}
        location = /c/1m {{ alias {www}/1m; sendfile on; tcp_nopush on; add_header Cache-Control max-age=3600; }}
        location /miss/ {{ try_files /1k =404; add_header Cache-Control max-age=3600; }}
        location = /status {{ stub_status; }}
        {slow}
    }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_their_size_and_no_two_random_objects_are_alike() {
        assert_eq!(body_of_size(1000).len(), 1000);
        assert_eq!(random_object(7).len(), 4096);
        assert_ne!(random_object(7), random_object(8));
        assert_eq!(expected_body("/c/4k/12").unwrap(), random_object(12));
        assert_eq!(expected_body("/miss/3/4").unwrap().len(), 1024);
    }
}
