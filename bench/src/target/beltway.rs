//! Beltway: the server role alone. What `faults` runs is configured there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Caching, Prepared, Surroundings};
use crate::error::{Doing, Outcome, Trouble};
use crate::leash::LeashedCommand;

/// As large as the peers' caches.
const CACHE: &str = "cache: {ram: 1GiB}\n";

/// Brings the binary up to date through cargo when this program itself was started by cargo, and finds it.
pub(crate) fn build() -> Outcome<PathBuf> {
    if let Some(cargo) = std::env::var_os("CARGO") {
        let status = Command::new(cargo)
            .args(["build", "--release", "--quiet", "-p", "beltway"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .doing("building beltway")?;
        if !status.success() {
            return Err(Trouble::NotBuilt("beltway does not compile".to_owned()));
        }
    }
    let me = std::env::current_exe().doing("finding this program")?;
    let sibling = me.with_file_name("beltway");
    if sibling.is_file() { Ok(sibling) } else { Err(Trouble::NotBuilt(format!("{} is missing", sibling.display()))) }
}

pub(super) fn prepare(around: &Surroundings<'_>, caching: Caching, room: &Path, port: u16) -> Outcome<Prepared> {
    let program = around.beltway.as_ref().ok_or_else(|| Trouble::NotBuilt("beltway's binary".to_owned()))?;
    let lab = around.lab;
    let version =
        super::version(lab, program, "--version").map_err(|_| Trouble::NotBuilt("beltway --version".to_owned()))?;
    let conf = room.join("beltway.yaml");
    let mut text = configuration(room, port, around.origin, "{listen: off}");
    match caching {
        Caching::No => text.push_str("cache: {ram: 0B}\n"),
        Caching::Yes => text.push_str(CACHE),
        Caching::Logged => {
            let log = room.join(super::ACCESS_LOG);
            text.push_str(&format!("  access_log: {{file: {}, format: combined}}\n{CACHE}", log.display()));
        }
    }
    super::write(&conf, &text)?;
    let path = conf.display().to_string();
    let check = LeashedCommand::new(program.display().to_string(), lab.load_core).args(["check", "-c", &path]);
    if let Err(trouble) = lab.tool(&check, Duration::from_secs(10)) {
        return Err(match caching {
            Caching::Yes | Caching::Logged => Trouble::NotBuilt("beltway has no cache".to_owned()),
            Caching::No => trouble,
        });
    }
    let command = LeashedCommand::new(program.display().to_string(), lab.proxy_core).args(["server", "-c", &path]);
    Ok(Prepared { command, program: program.clone(), version })
}

fn configuration(room: &Path, port: u16, origin: u16, admin: &str) -> String {
    format!(
        "runtime_dir: {}
threads: 1
admin: {admin}
server: {{listen: off}}
http:
  listen: [127.0.0.1:{port}]
  remap: [{{from: \"/\", to: \"http://127.0.0.1:{origin}/\"}}]
",
        room.join("run").display()
    )
}
