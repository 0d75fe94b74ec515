//! The place where measurements are made: a directory that vanishes afterwards, and two cores with their roles.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::{Clock, SystemClock};

use crate::error::{Doing, Outcome, Trouble};
use crate::leash::{Leash, LeashedCommand};

/// Where caches and logs go when it exists: a memory file system, so that no disk is measured by accident.
const MEMORY_DIR: &str = "/dev/shm";

/// How the directories are named; the pid follows.
const DIR_PREFIX: &str = "beltway-bench-";

/// Directory and cores of one run of this program.
pub(crate) struct Lab {
    /// Everything the run writes is below it; removed when the lab is dropped, unless it is to be kept.
    pub(crate) dir: PathBuf,
    /// The core of whatever is measured.
    pub(crate) proxy_core: usize,
    /// The core of load, origin and this program.
    pub(crate) load_core: usize,
    keep: bool,
}

impl Lab {
    /// Makes the directory and pins this process to the load core.
    pub(crate) fn open(proxy_core: usize, load_core: usize, keep: bool) -> Outcome<Self> {
        let parent = if Path::new(MEMORY_DIR).is_dir() { PathBuf::from(MEMORY_DIR) } else { std::env::temp_dir() };
        remove_orphans(&parent);
        let dir = parent.join(format!("{DIR_PREFIX}{}", std::process::id()));
        fs::create_dir_all(&dir).doing(dir.display())?;
        // Peers may drop to a user of their own and must still find their files.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).doing(dir.display())?;
        let lab = Self { dir, proxy_core, load_core, keep };
        crate::leash::pin_to(load_core)?;
        crate::leash::raise_descriptor_limit()?;
        Ok(lab)
    }

    /// A fresh directory of that name, with the number that makes it unique.
    pub(crate) fn room(&self, name: &str) -> Outcome<PathBuf> {
        for number in 0..10_000 {
            let dir = self.dir.join(format!("{name}-{number}"));
            match fs::create_dir(&dir) {
                Ok(()) => {
                    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).doing(dir.display())?;
                    return Ok(dir);
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Trouble::Io(dir.display().to_string(), error)),
            }
        }
        Err(Trouble::Wrong(format!("too many rooms named {name}")))
    }

    /// Runs a tool to its end and returns what it printed on both outputs; an exit code other than 0 is an error.
    pub(crate) fn tool(&self, command: &LeashedCommand, patience: Duration) -> Outcome<String> {
        let room = self.room("tool")?;
        let log = room.join("output");
        let mut leash = Leash::spawn(command, &log, &log)?;
        let status = leash.wait(patience)?;
        let text = fs::read_to_string(&log).doing(log.display())?;
        let _ = fs::remove_dir_all(&room);
        if status.success() {
            Ok(text)
        } else {
            Err(Trouble::Wrong(format!("{}: {status}: {}", command.line(), text.trim())))
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.keep {
            eprintln!("bench: kept {}", self.dir.display());
        } else {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Removes what runs left behind that were killed before they could.
fn remove_orphans(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(DIR_PREFIX)).and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A port on 127.0.0.1 that was free a moment ago.
pub(crate) fn free_port() -> Outcome<u16> {
    let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).doing("looking for a free port")?;
    Ok(listener.local_addr().doing("looking for a free port")?.port())
}

/// Where a program is, looking in the usual places beside `PATH`, as services live outside a user's.
pub(crate) fn find_program(name: &str) -> Outcome<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| Trouble::NotInstalled(name.to_owned()))
}

/// Asks `ready` every few milliseconds until it says yes or `patience` is over.
pub(crate) fn wait_until(what: &str, patience: Duration, mut ready: impl FnMut() -> bool) -> Outcome<()> {
    let clock = SystemClock;
    let begun = clock.now();
    while !ready() {
        if clock.now() - begun > patience {
            return Err(Trouble::Late(what.to_owned(), patience.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
