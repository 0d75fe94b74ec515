//! Apache Traffic Server: `traffic_server` alone, one event thread, cache in the memory file system.
//!
//! For pass-through its cache is turned off: a rule that only forbids storing leaves a look-up per request, which doubles
//! its cost and makes it wait by timer for locks.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use super::{CONNECTIONS_MAX, Caching, Prepared, Surroundings};
use crate::error::{Doing, Outcome};
use crate::lab;
use crate::leash::LeashedCommand;

/// The user Debian runs it as; it insists on leaving root.
const USER: &str = "trafficserver";

pub(super) fn prepare(around: &Surroundings<'_>, caching: Caching, room: &Path, port: u16) -> Outcome<Prepared> {
    let program = lab::find_program("traffic_server")?;
    let dir = room.display();
    let origin = around.origin;
    for name in ["etc", "log", "run", "cache"] {
        fs::create_dir(room.join(name)).doing(name)?;
    }
    let etc = room.join("etc");
    super::write(
        &room.join("runroot.yaml"),
        &format!(
            "prefix: {dir}\nexec_prefix: /usr\nbindir: /usr/bin\nsbindir: /usr/sbin\nsysconfdir: {dir}/etc\n\
             datadir: {dir}/cache\nincludedir: /usr/include\nlibdir: /usr/lib/trafficserver\n\
             libexecdir: /usr/lib/trafficserver/modules\nlocalstatedir: {dir}\nruntimedir: {dir}/run\n\
             logdir: {dir}/log\nmandir: /usr/share/man\ninfodir: /usr/share/info\ncachedir: {dir}/cache\n"
        ),
    )?;
    let http_cache = match caching {
        Caching::No => 0,
        Caching::Yes | Caching::Logged => 1,
    };
    let settings = [
        ("http.cache.http", format!("INT {http_cache}")),
        ("exec_thread.autoconfig", "INT 0".to_owned()),
        ("exec_thread.limit", "INT 1".to_owned()),
        ("exec_thread.affinity", "INT 0".to_owned()),
        ("accept_threads", "INT 0".to_owned()),
        ("task_threads", "INT 1".to_owned()),
        ("log.logging_enabled", "INT 0".to_owned()),
        ("http.server_ports", format!("STRING {port}:ip-in=127.0.0.1")),
        ("http.insert_response_via_str", "INT 0".to_owned()),
        ("http.keep_alive_no_activity_timeout_in", "INT 3600".to_owned()),
        ("http.keep_alive_no_activity_timeout_out", "INT 3600".to_owned()),
        ("net.connections_throttle", format!("INT {}", CONNECTIONS_MAX * 2)),
        ("net.max_connections_in", format!("INT {CONNECTIONS_MAX}")),
        ("net.listen_backlog", "INT 4096".to_owned()),
        ("http.server_session_sharing.pool", "STRING thread".to_owned()),
        // Requests for what is being fetched wait for it up to two seconds and read along, as its manual says.
        ("cache.enable_read_while_writer", "INT 1".to_owned()),
        ("http.background_fill_active_timeout", "INT 0".to_owned()),
        ("http.background_fill_completed_threshold", "FLOAT 0.0".to_owned()),
        ("http.cache.max_open_read_retries", "INT 200".to_owned()),
        ("http.cache.open_read_retry_time", "INT 10".to_owned()),
        ("cache.ram_cache.size", "INT 536870912".to_owned()),
        ("admin.user_id", format!("STRING {USER}")),
    ];
    let records: String =
        settings.iter().map(|(name, value)| format!("CONFIG proxy.config.{name} {value}\n")).collect();
    super::write(&etc.join("records.config"), &records)?;
    super::write(&etc.join("remap.config"), &format!("map / http://127.0.0.1:{origin}/\n"))?;
    super::write(&etc.join("storage.config"), &format!("{dir}/cache 512M\n"))?;
    // Who may ask, as Debian ships it; without the file it has a default of its own.
    let _ = fs::copy("/etc/trafficserver/ip_allow.yaml", etc.join("ip_allow.yaml"));
    if rustix::process::geteuid().is_root() {
        give_to_user(room)?;
    }
    let command = LeashedCommand::new(program.display().to_string(), around.lab.proxy_core)
        .arg(format!("--run-root={dir}/runroot.yaml"));
    let version = super::version(around.lab, &program, "--version")?;
    Ok(Prepared { command, program, version })
}

/// Hands the tree to the user it will become.
fn give_to_user(room: &Path) -> Outcome<()> {
    let passwd = fs::read_to_string("/etc/passwd").doing("/etc/passwd")?;
    let ids = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.first() == Some(&USER)).then_some(())?;
        Some((fields.get(2)?.parse::<u32>().ok()?, fields.get(3)?.parse::<u32>().ok()?))
    });
    let Some((user, group)) = ids else { return Ok(()) };
    chown(room, Some(user), Some(group)).doing(room.display())?;
    for entry in fs::read_dir(room).doing(room.display())?.flatten() {
        chown(entry.path(), Some(user), Some(group)).doing(entry.path().display())?;
        for inner in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
            chown(inner.path(), Some(user), Some(group)).doing(inner.path().display())?;
        }
    }
    Ok(())
}
