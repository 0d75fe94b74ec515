//! The runtime directory: which file in it is what.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The directory of leases, control sockets and shared numbers of one Beltway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeDir {
    path: PathBuf,
}

impl RuntimeDir {
    /// The directory at `path`, which need not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Makes it, for its owner alone, when it is not there.
    ///
    /// # Errors
    /// What `mkdir(2)` says.
    pub fn create(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The lease of the top process.
    #[must_use]
    pub fn stub_lease(&self) -> PathBuf {
        self.path.join("beltway.lock")
    }

    /// Cop's lease.
    #[must_use]
    pub fn cop_lease(&self) -> PathBuf {
        self.path.join("cop.lock")
    }

    /// Manager's lease.
    #[must_use]
    pub fn manager_lease(&self) -> PathBuf {
        self.path.join("manager.lock")
    }

    /// The lease of one generation of the server.
    #[must_use]
    pub fn server_lease(&self, generation: u64) -> PathBuf {
        self.path.join(format!("server.{generation}.lock"))
    }

    /// Cop's control socket.
    #[must_use]
    pub fn cop_socket(&self) -> PathBuf {
        self.path.join("cop.sock")
    }

    /// Manager's control socket.
    #[must_use]
    pub fn manager_socket(&self) -> PathBuf {
        self.path.join("manager.sock")
    }

    /// The control socket of one generation of the server.
    #[must_use]
    pub fn server_socket(&self, generation: u64) -> PathBuf {
        self.path.join(format!("server.{generation}.sock"))
    }

    /// Where one generation of the server writes what it died of.
    #[must_use]
    pub fn server_witness(&self, generation: u64) -> PathBuf {
        self.path.join(format!("server.{generation}.witness"))
    }

    /// Where manager writes what it died of.
    #[must_use]
    pub fn manager_witness(&self) -> PathBuf {
        self.path.join("manager.witness")
    }

    /// Where cop writes what it died of.
    #[must_use]
    pub fn cop_witness(&self) -> PathBuf {
        self.path.join("cop.witness")
    }

    /// The numbers of one generation of the server.
    #[must_use]
    pub fn server_numbers(&self, generation: u64) -> PathBuf {
        self.path.join(format!("server.{generation}.numbers"))
    }

    /// The sum of the numbers of generations long dead.
    #[must_use]
    pub fn folded_numbers(&self) -> PathBuf {
        self.path.join("dead.numbers")
    }

    /// What takes some room, to be given up when the disk is full and somebody must start.
    #[must_use]
    pub fn reserve(&self) -> PathBuf {
        self.path.join("reserve")
    }

    /// The path of the program as the top process was started.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.path.join("program")
    }

    /// The text of the configuration in force, as it was when it was put in force.
    #[must_use]
    pub fn committed_configuration(&self) -> PathBuf {
        self.path.join("committed.yaml")
    }

    /// The text of a configuration that is being judged.
    #[must_use]
    pub fn candidate_configuration(&self) -> PathBuf {
        self.path.join("candidate.yaml")
    }

    /// The level of everybody's log when it is another than the configuration's: set by hand, until the next reload.
    #[must_use]
    pub fn log_level(&self) -> PathBuf {
        self.path.join("log_level")
    }

    /// The servers of pools that are out of their rings by an operator's wish. It outlives the run.
    #[must_use]
    pub fn held_servers(&self) -> PathBuf {
        self.path.join("held")
    }

    /// The servers of pools that are restored by an operator's wish, with each generation that has yet to hear of it.
    #[must_use]
    pub fn restored_servers(&self) -> PathBuf {
        self.path.join("restored")
    }

    /// There while readiness is to fail by an operator's wish.
    #[must_use]
    pub fn leaving(&self) -> PathBuf {
        self.path.join("leaving")
    }

    /// The directory of the configurations that were in force, by number.
    #[must_use]
    pub fn history(&self) -> PathBuf {
        self.path.join("history")
    }

    /// The directory of what is known of the dead.
    #[must_use]
    pub fn obituaries(&self) -> PathBuf {
        self.path.join("obituaries")
    }

    /// Where a daemon writes its log when the configuration names no file.
    #[must_use]
    pub fn daemon_log(&self) -> PathBuf {
        self.path.join("beltway.log")
    }

    /// The generations that have a lease file here, held or not, in ascending order.
    ///
    /// # Errors
    /// What reading the directory says.
    pub fn server_generations(&self) -> io::Result<Vec<u64>> {
        numbered(&self.path, "server.", ".lock")
    }

    /// The generations that left numbers here, in ascending order.
    ///
    /// # Errors
    /// What reading the directory says.
    pub fn numbers_generations(&self) -> io::Result<Vec<u64>> {
        numbered(&self.path, "server.", ".numbers")
    }

    /// The next generation's number, never given out before, and remembered before it is given.
    ///
    /// # Errors
    /// What reading and writing the directory says.
    pub fn next_generation(&self) -> io::Result<u64> {
        let file = self.path.join("generation");
        let remembered = match fs::read_to_string(&file) {
            // A file that is not ours to read a number from does not stop anybody: leases and numbers tell as well.
            Ok(text) => text.trim().parse().unwrap_or(0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let seen = self.server_generations()?.into_iter().chain(self.numbers_generations()?).max().unwrap_or(0);
        let next = remembered.max(seen).saturating_add(1);
        replace(&file, format!("{next}\n").as_bytes())?;
        Ok(next)
    }

    /// Removes what belongs to one run of a tree and not to the next: the committed configuration and the numbers.
    /// The history of configurations, the obituaries and the servers that are held stay.
    ///
    /// # Errors
    /// What cannot be removed; the rest is.
    pub fn forget_run(&self) -> io::Result<()> {
        let mut outcome = remove(&self.committed_configuration());
        for file in [
            self.candidate_configuration(),
            self.folded_numbers(),
            self.restored_servers(),
            self.log_level(),
            self.leaving(),
            self.program(),
            self.reserve(),
        ] {
            let removed = remove(&file);
            outcome = outcome.and(removed);
        }
        for generation in self.numbers_generations()? {
            let removed = remove(&self.server_numbers(generation));
            outcome = outcome.and(removed);
        }
        for home in [self.path.clone(), self.history()] {
            outcome = outcome.and(forget_unfinished(&home));
        }
        outcome
    }
}

/// The numbers of the files in `directory` that are named by a number between `prefix` and `suffix`, in ascending order.
///
/// # Errors
/// What reading the directory says.
pub fn numbered(directory: &Path, prefix: &str, suffix: &str) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|n| n.strip_prefix(prefix)).and_then(|n| n.strip_suffix(suffix));
        found.extend(number.and_then(|n| n.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

/// How the name ends of a file that [`replace`] has not finished.
const UNFINISHED: &str = ".new";

/// Removes what those left who were killed in the middle of [`replace`].
fn forget_unfinished(home: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(home) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut outcome = Ok(());
    for entry in entries {
        let path = entry?.path();
        if path.as_os_str().as_encoded_bytes().ends_with(UNFINISHED.as_bytes()) {
            outcome = outcome.and(remove(&path));
        }
    }
    outcome
}

/// Replaces a file's content whole: a reader sees the old or the new. It is its owner's alone, wherever it lies: a
/// configuration has passwords in it.
///
/// # Errors
/// What writing and renaming say; the old content is there then.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_by(path, |mut file| file.write_all(content))
}

/// As [`replace`]; and also after the machine lost its power it is the old or the new.
///
/// # Errors
/// What writing and renaming say; the old content is there then.
pub fn replace_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_by(path, |mut file| {
        file.write_all(content)?;
        file.sync_all()
    })?;
    sync_names(path)
}

fn replace_by(path: &Path, write: impl FnOnce(fs::File) -> io::Result<()>) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}{UNFINISHED}", std::process::id()));
    let temporary = PathBuf::from(name);
    let opened = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary);
    let written = opened.and_then(write).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary); // it may not have come into being
    }
    written
}

/// Has the names in the directory of this file written to the disk, where that has a meaning.
fn sync_names(path: &Path) -> io::Result<()> {
    let Some(home) = path.parent() else { return Ok(()) };
    match fs::File::open(home)?.sync_all() {
        // This file system writes names down when it wants.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}

/// Removes a file; that there is none is as good.
///
/// # Errors
/// What `unlink(2)` says but that.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// As [`remove`]; and it does not come back when the machine loses its power.
///
/// # Errors
/// What `unlink(2)` says but that, and what writing the directory to the disk says.
pub fn remove_durably(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_names(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_only_grow_even_when_their_memory_is_lost() {
        let home = std::env::temp_dir().join(format!("beltway-directory-{}", std::process::id()));
        let _ = fs::remove_dir_all(&home);
        let directory = RuntimeDir::new(&home);
        directory.create().unwrap();
        assert_eq!(directory.next_generation().unwrap(), 1);
        assert_eq!(directory.next_generation().unwrap(), 2);
        fs::write(home.join("generation"), "not a number").unwrap();
        fs::write(directory.server_lease(7), "").unwrap();
        fs::write(home.join("server.x.lock"), "").unwrap();
        assert_eq!(directory.server_generations().unwrap(), [7]);
        assert_eq!(directory.next_generation().unwrap(), 8);
        // One was killed in the middle of it.
        fs::write(home.join("generation.123.new"), "9").unwrap();
        directory.forget_run().unwrap();
        assert!(!home.join("generation.123.new").exists() && home.join("generation").exists());
        fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn what_is_written_is_read_by_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let home = std::env::temp_dir().join(format!("beltway-owner-{}", std::process::id()));
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&home).unwrap();
        let file = RuntimeDir::new(&home).committed_configuration();
        for write in [replace, replace_durably] {
            // Also when it was others' to read before.
            fs::write(&file, "nothing secret").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
            write(&file, b"redis_auth: secret").unwrap();
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        fs::remove_dir_all(home).unwrap();
    }
}
