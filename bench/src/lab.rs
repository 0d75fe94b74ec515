//! The place where measurements are made: a directory that vanishes afterwards, and two cores with their roles.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use base::{Clock, SystemClock};

use crate::error::{Doing, Outcome, Trouble};
use crate::leash::{Leash, LeashedCommand};

/// Where caches and logs go when it exists: a memory file system, so that no disk is measured by accident.
const MEMORY_DIR: &str = "/dev/shm";

/// How many ports below the clients' range are tried.
const PORTS: u16 = 10_000;
/// Ports below this one are never used.
const PORT_MIN: u16 = 1024;

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

    /// A copy of a program, so that a build meanwhile does not change what is measured.
    pub(crate) fn copy_of(&self, program: &Path) -> Outcome<PathBuf> {
        let name = program.file_name().ok_or_else(|| Trouble::Wrong(format!("{} is no file", program.display())))?;
        let copy = self.dir.join(name);
        fs::copy(program, &copy).doing(format!("copying {}", program.display()))?;
        Ok(copy)
    }

    /// A list for `taskset`: that core, or both.
    pub(crate) fn cores(&self, one: Option<usize>) -> String {
        one.map_or_else(|| format!("{},{}", self.proxy_core, self.load_core), |core| core.to_string())
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
            // Under a name that the next run does not take for an orphan.
            let kept = self.dir.with_file_name(format!("{DIR_PREFIX}kept-{}", std::process::id()));
            let place = if fs::rename(&self.dir, &kept).is_ok() { &kept } else { &self.dir };
            eprintln!("bench: kept {}", place.display());
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

/// A port on 127.0.0.1 that nobody listens on, from below the range from which clients get theirs.
///
/// Clients leave tens of thousands of ports waiting for their connections' last packets; in that state the kernel finds
/// none for a listener, and might give one that was found to a client before it is used.
pub(crate) fn free_port() -> Outcome<u16> {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let low: u16 = range.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(32_768);
    // Runs at the same time begin at different places.
    let start = u16::try_from(std::process::id() % u32::from(PORTS)).unwrap_or(0);
    for _ in 0..PORTS {
        let step = TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = low.saturating_sub(1 + (start.wrapping_add(step)) % PORTS);
        if port >= PORT_MIN && TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Trouble::Wrong("no free port on 127.0.0.1".to_owned()))
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
