//! A process that becomes its own next program: what it leaves to it, and whether that program is fit for it.
//!
//! ```text
//! the old program ── asks the new one ──> Fitness
//!        │ leaves a Legacy: descriptors by their numbers, the rest in a note
//!        └─ becomes it, same pid, same lease ──> the new program takes the Legacy
//! ```
//!
//! Fields of both are added and never renamed, and have defaults: programs of one minor version understand each other.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::change::{Outcome, Verdict};
use crate::control::{KeptEndpoint, KeptQuestion, Moved, PROTOCOL};
use crate::directory::RuntimeDir;
use crate::listener::{Listener, ListenerName};

/// The option that names the descriptor of a legacy.
pub const OPTION: &str = "--legacy";

/// Bytes of a legacy: some hundred listeners and connections.
const SIZE_MAX: u64 = 256 * 1024;

/// What a process leaves to the program that it becomes. Of each descriptor, its number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Legacy {
    /// Version of who left it.
    pub version: String,
    /// The lease, held on.
    pub lease: Option<RawFd>,
    /// The control socket and who is connected to it.
    pub endpoint: Option<KeptEndpoint>,
    /// Listeners.
    pub listeners: Vec<(ListenerName, RawFd)>,
    /// Manager: the epoch of its listeners. Cop: that of the manager whose listeners these are.
    pub listeners_epoch: u64,
    /// Cop: the manager whose listeners these are.
    pub listeners_of: u32,
    /// Who waits for the outcome.
    pub asker: Option<KeptQuestion>,
    /// Manager: the program it was, to go back to.
    pub former: Option<RawFd>,
    /// Manager: it has gone back to the former program, and why.
    pub failed: Option<Verdict>,
    /// Manager: an operator wants no server to run.
    pub down: bool,
    /// Manager: deaths of servers so far.
    pub server_deaths: u64,
    /// Manager: generations that were told to end, and what they had left for it, in milliseconds.
    pub leaving: Vec<(u64, u64)>,
    /// The stub: it is a daemon.
    pub daemon: bool,
}

impl Legacy {
    /// Takes what was left at descriptor `number`.
    ///
    /// # Errors
    /// The descriptor is not there, or what it holds makes no sense.
    pub fn take(number: RawFd) -> io::Result<Self> {
        let note = sys::process::inherited(number)?;
        Ok(serde_json::from_slice(&sys::exec::read_note(note, SIZE_MAX)?)?)
    }

    /// Becomes `program`, called by `arguments` (its own name first), which keeps `descriptors`. Returns only when it
    /// cannot be done, and everything is as before.
    #[must_use]
    pub fn leave(&self, program: &OwnedFd, arguments: &[OsString], descriptors: &[BorrowedFd<'_>]) -> io::Error {
        let note = match self.note() {
            Ok(note) => note,
            Err(error) => return error,
        };
        let number = OsString::from(format!("fd={}", note.as_raw_fd()));
        let mut words: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
        words.extend([OsStr::new(OPTION), &number]);
        let mut kept = descriptors.to_vec();
        kept.push(note.as_fd());
        sys::exec::become_program(program, &words, &kept)
    }

    /// It as a note, for a process that gets it under a number of its own.
    ///
    /// # Errors
    /// There is no descriptor or no memory left.
    pub fn note(&self) -> io::Result<OwnedFd> {
        sys::exec::note(&serde_json::to_vec(self)?)
    }

    /// The listeners that were kept.
    ///
    /// # Errors
    /// A descriptor did not come.
    pub fn listeners(&self) -> io::Result<Vec<Listener>> {
        let listener = |(name, number): &(ListenerName, RawFd)| {
            sys::process::inherited(*number).map(|fd| Listener { name: name.clone(), fd })
        };
        self.listeners.iter().map(listener).collect()
    }
}

/// Listeners as they stand in a legacy.
#[must_use]
pub fn kept(listeners: &[Listener]) -> Vec<(ListenerName, RawFd)> {
    listeners.iter().map(|listener| (listener.name.clone(), listener.fd.as_raw_fd())).collect()
}

/// What a program says of itself when it is asked whether it can take over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fitness {
    /// Its version.
    pub version: String,
    /// The control protocol it speaks.
    pub protocol: u16,
    /// The record of moved connections it writes.
    pub moved: u16,
    /// What it thinks of the configuration file.
    pub verdict: Verdict,
}

impl Fitness {
    /// Ours, with a verdict on the configuration.
    #[must_use]
    pub fn ours(verdict: Verdict) -> Self {
        Self { version: base::VERSION.to_owned(), protocol: PROTOCOL, moved: Moved::VERSION, verdict }
    }

    /// Whether what said this can take over from us.
    ///
    /// # Errors
    /// The verdict that says why not.
    pub fn judge(self) -> Result<(), Box<Verdict>> {
        let failed = |why: String| Err(Box::new(Verdict::new(Outcome::Failed, why)));
        if !are_of_one_minor_version(base::VERSION, &self.version) {
            return failed(format!(
                "the program on disk is version {:?} and this is {}: only versions that differ in their last number \
                 alone follow each other while running; stop and start",
                self.version,
                base::VERSION
            ));
        }
        if self.protocol != PROTOCOL || self.moved != Moved::VERSION {
            return failed(format!(
                "the program on disk speaks version {} of the control protocol and moves connections by version {}; \
                 this one {PROTOCOL} and {}: stop and start",
                self.protocol,
                self.moved,
                Moved::VERSION
            ));
        }
        if self.verdict.is_success() { Ok(()) } else { Err(Box::new(self.verdict)) }
    }
}

/// Whether two versions differ in nothing but their last number.
#[must_use]
pub fn are_of_one_minor_version(ours: &str, theirs: &str) -> bool {
    let minor = |version: &str| {
        let mut parts = version.splitn(3, '.').map(str::to_owned);
        Some((parts.next()?, parts.next()?)).filter(|_| parts.next().is_some())
    };
    minor(ours).is_some() && minor(ours) == minor(theirs)
}

/// Remembers under which name the program was started: what is on disk there is what a replacement becomes.
///
/// # Errors
/// The runtime directory cannot be written.
pub fn remember_program(directory: &RuntimeDir, called: Option<&OsStr>) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let path = name_of(called)?;
    crate::directory::replace(&directory.program(), path.as_os_str().as_bytes())
}

/// The path of the program that is to be started next: the name it was started under, which may be a link.
///
/// # Errors
/// `/proc` does not tell.
pub fn program_on_disk(directory: &RuntimeDir) -> io::Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    match std::fs::read(directory.program()) {
        Ok(name) if !name.is_empty() => Ok(PathBuf::from(OsString::from_vec(name))),
        _ => name_of(None),
    }
}

/// `called` when it leads to the program that runs, else where the kernel says that it was.
fn name_of(called: Option<&OsStr>) -> io::Result<PathBuf> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let ourselves = sys::exec::open_program("/proc/self/exe".as_ref())?;
    let leads_to_us =
        |path: &PathBuf| sys::exec::open_program(path).is_ok_and(|it| sys::exec::is_same_file(&it, &ourselves));
    let named = called.map(|called| {
        if called.as_bytes().contains(&b'/') {
            return std::path::absolute(called).ok().filter(leads_to_us);
        }
        let paths = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&paths).map(|directory| directory.join(called)).find(leads_to_us)
    });
    if let Some(path) = named.flatten() {
        return Ok(path);
    }
    let path = std::fs::read_link("/proc/self/exe")?.into_os_string().into_vec();
    let path = path.strip_suffix(b" (deleted)").unwrap_or(&path).to_vec();
    Ok(PathBuf::from(OsString::from_vec(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_number_of_a_version_may_differ() {
        for (theirs, fits) in
            [("0.1.0", true), ("0.1.17-rc.1", true), ("0.2.0", false), ("1.1.0", false), ("0.1", false), ("", false)]
        {
            assert_eq!(are_of_one_minor_version("0.1.3", theirs), fits, "{theirs}");
        }
    }

    #[test]
    fn a_program_is_fit_when_version_protocol_and_configuration_are() {
        let fit = Fitness::ours(Verdict::new(Outcome::Possible, ""));
        assert_eq!(fit.clone().judge(), Ok(()));
        let wrong = Verdict::new(Outcome::Wrong, "");
        assert_eq!(Fitness::ours(wrong.clone()).judge(), Err(Box::new(wrong)));
        for other in [
            Fitness { version: "0.999.0".to_owned(), ..fit.clone() },
            Fitness { protocol: PROTOCOL + 1, ..fit.clone() },
            Fitness { moved: Moved::VERSION + 1, ..fit },
            Fitness::default(),
        ] {
            assert_eq!(other.judge().unwrap_err().outcome, Outcome::Failed);
        }
    }

    #[test]
    fn a_legacy_of_a_newer_version_is_read_as_far_as_it_is_known() {
        let text = br#"{"version":"0.1.9","server_deaths":3,"unheard_of":[1,2]}"#;
        let legacy: Legacy = serde_json::from_slice(text).unwrap();
        assert_eq!(legacy, Legacy { version: "0.1.9".to_owned(), server_deaths: 3, ..Legacy::default() });
    }

    #[test]
    fn the_program_is_known_by_the_name_it_was_started_under() {
        let home = std::env::temp_dir().join(format!("beltway-succession-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&home);
        let directory = RuntimeDir::new(&home);
        directory.create().unwrap();
        let ours = std::env::current_exe().unwrap();
        assert_eq!(program_on_disk(&directory).unwrap(), ours, "nothing is remembered");
        let link = home.join("current");
        std::os::unix::fs::symlink(&ours, &link).unwrap();
        remember_program(&directory, Some(link.as_os_str())).unwrap();
        assert_eq!(program_on_disk(&directory).unwrap(), link);
        remember_program(&directory, Some(OsStr::new("/bin/sh"))).unwrap();
        assert_eq!(program_on_disk(&directory).unwrap(), ours, "a name that lies");
        std::fs::remove_dir_all(home).unwrap();
    }
}
