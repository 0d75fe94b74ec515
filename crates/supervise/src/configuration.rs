//! Which configuration is in force, whatever happens to the file meanwhile.
//!
//! When a tree of processes starts, the text it started with is *committed*: copied into the runtime directory. A manager or
//! a server that is started again later reads that copy, so that a file edited in the meantime takes effect when an
//! operator says so and not when a process happens to die.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use config::{Config, Diagnostics};

use crate::directory::{self, RuntimeDir};

pub mod history;

/// Where the configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// This file, an absolute path.
    File(PathBuf),
    /// What runs when there is no file.
    BuiltIn,
}

impl Source {
    /// The file that was named; else the file at its usual place; else the built-in default.
    ///
    /// # Errors
    /// A relative path without a working directory.
    pub fn find(named: Option<&Path>) -> io::Result<Self> {
        Ok(match named {
            Some(path) => Self::File(std::path::absolute(path)?),
            None => config::find_default_file().map_or(Self::BuiltIn, Self::File),
        })
    }

    /// Reads and validates it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self) -> Result<Config, Diagnostics> {
        match self {
            Self::File(path) => config::load(path),
            Self::BuiltIn => Ok(config::builtin_default()),
        }
    }

    /// The arguments that make another process find the same.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        match self {
            Self::File(path) => vec!["-c".into(), path.into()],
            Self::BuiltIn => vec!["--built-in-default".into()],
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::BuiltIn => f.write_str("built-in default"),
        }
    }
}

/// Digest of a configuration's text and of the name it is read by: what decides whether two processes run the same.
#[must_use]
pub fn digest(config: &Config) -> String {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(config.file_name().as_bytes());
    hasher.update(b"\n");
    hasher.update(config.source_text().as_bytes());
    format!("{:016x}", hasher.digest())
}

/// Puts `config` in force for every process of the tree that starts from now on, and enters it in the history.
///
/// # Errors
/// The copy cannot be written. That it cannot be entered in the history is only logged.
pub fn commit(directory: &RuntimeDir, config: &Config) -> io::Result<()> {
    write_copy(&directory.committed_configuration(), config)?;
    if let Err(error) = history::enter(directory, config) {
        crate::warn!("{}: {error}", directory.history().display());
    }
    Ok(())
}

/// Lays down `config` for the server that is to judge it.
///
/// # Errors
/// The copy cannot be written.
pub fn propose(directory: &RuntimeDir, config: &Config) -> io::Result<()> {
    write_copy(&directory.candidate_configuration(), config)
}

/// The configuration that was laid down to be judged.
///
/// # Errors
/// There is none, or it is wrong; in words.
pub fn proposed(directory: &RuntimeDir) -> Result<Config, String> {
    read_copy(directory, &directory.candidate_configuration())?.ok_or_else(|| "there is no candidate".to_owned())
}

/// The configuration in force: the committed one, or that of `source` when nothing is committed. `true`: it was committed.
///
/// # Errors
/// What is wrong with the file of `source`.
pub fn in_force(directory: &RuntimeDir, source: &Source) -> Result<(Config, bool), Diagnostics> {
    match committed(directory) {
        Ok(Some(config)) => return Ok((config, true)),
        Ok(None) => {}
        Err(why) => crate::warn!("the committed configuration is of no use, {source} is read instead: {why}"),
    }
    Ok((source.load()?, false))
}

/// The committed configuration, if there is one.
///
/// # Errors
/// It cannot be read or is wrong; in words.
pub fn committed(directory: &RuntimeDir) -> Result<Option<Config>, String> {
    read_copy(directory, &directory.committed_configuration())
}

/// Notices when another configuration is put in force.
#[derive(Debug)]
pub struct Follower {
    directory: RuntimeDir,
    seen: Option<(u64, u64)>,
}

impl Follower {
    /// What is in force now is known already.
    #[must_use]
    pub fn new(directory: &RuntimeDir) -> Self {
        Self { directory: directory.clone(), seen: identity(&directory.committed_configuration()) }
    }

    /// The configuration in force, when it has become another since the last look. One `stat(2)` when it has not.
    pub fn look(&mut self) -> Option<Config> {
        let there = identity(&self.directory.committed_configuration());
        if there.is_none() || there == self.seen {
            return None;
        }
        self.seen = there;
        committed(&self.directory).unwrap_or_else(|why| {
            crate::warn!("the configuration that was put in force cannot be read: {why}");
            None
        })
    }
}

/// Each commit makes a new file under the name.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.ino(), u64::try_from(metadata.mtime_nsec()).unwrap_or(0) ^ metadata.mtime().unsigned_abs() << 30))
}

/// A copy is the name that the configuration was read by, and its text from the second line on.
fn write_copy(path: &Path, config: &Config) -> io::Result<()> {
    let text = format!("{}\n{}", config.file_name(), config.source_text());
    directory::replace(path, text.as_bytes())
}

fn read_copy(directory: &RuntimeDir, path: &Path) -> Result<Option<Config>, String> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let (name, text) = text.split_once('\n').ok_or("it has no first line")?;
    let mut config = config::parse(name, text).map_err(|wrong| wrong.to_string())?;
    // Leases and sockets are where this was found, whatever the environment says about defaults now.
    config.runtime_dir = directory.path().to_owned();
    Ok(Some(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_committed_configuration_stays_in_force_when_its_file_is_spoiled() {
        let home = std::env::temp_dir().join(format!("beltway-committed-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&home);
        let directory = RuntimeDir::new(home.join("run"));
        directory.create().unwrap();
        let file = home.join("beltway.yaml");
        std::fs::write(&file, format!("runtime_dir: {}\n", home.join("run").display())).unwrap();
        let source = Source::find(Some(&file)).unwrap();
        let (first, was_committed) = in_force(&directory, &source).unwrap();
        assert!(!was_committed);
        commit(&directory, &first).unwrap();
        std::fs::write(&file, "nonsense: true\n").unwrap();
        assert!(source.load().is_err());
        let (second, was_committed) = in_force(&directory, &source).unwrap();
        assert!(was_committed);
        assert_eq!(digest(&first), digest(&second));
        std::fs::write(directory.committed_configuration(), "no second line").unwrap();
        assert!(in_force(&directory, &source).is_err(), "then the file decides");
        std::fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn the_built_in_default_can_be_committed_too() {
        let home = std::env::temp_dir().join(format!("beltway-committed-default-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&home);
        let directory = RuntimeDir::new(&home);
        directory.create().unwrap();
        commit(&directory, &Source::BuiltIn.load().unwrap()).unwrap();
        let (config, was_committed) = in_force(&directory, &Source::BuiltIn).unwrap();
        assert!(was_committed);
        assert_eq!(digest(&config), digest(&config::builtin_default()));
        std::fs::remove_dir_all(home).unwrap();
    }
}
