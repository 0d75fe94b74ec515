//! The last configurations that were in force, numbered, to look at and to return to.

use std::fs;
use std::io;
use std::path::PathBuf;

use base::WallTime;
use config::Config;
use serde::{Deserialize, Serialize};

use crate::directory::{self, RuntimeDir, numbered};

/// So many are kept.
pub const HISTORY_MAX: usize = 10;

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Past {
    /// Its number; they only grow.
    pub number: u64,
    /// When it was put in force: civil time, microseconds since 1970.
    pub at_us: i64,
    /// Digest of its text.
    pub digest: String,
    /// The file it was read from.
    pub source: String,
}

/// Enters `config`, unless the newest entry is the same. Old ones beyond [`HISTORY_MAX`] go.
///
/// # Errors
/// What writing says.
pub fn enter(directory: &RuntimeDir, config: &Config) -> io::Result<()> {
    let home = directory.history();
    fs::create_dir_all(&home)?;
    let numbers = numbered(&home, "", ".yaml")?;
    let newest = numbers.last().copied().unwrap_or(0);
    if recall(directory, newest).is_ok_and(|past| super::digest(&past) == super::digest(config)) {
        return Ok(());
    }
    super::write_copy(&file(directory, newest.saturating_add(1)), config)?;
    let surplus = (numbers.len() + 1).saturating_sub(HISTORY_MAX);
    for &old in numbers.iter().take(surplus) {
        directory::remove(&file(directory, old))?;
    }
    Ok(())
}

/// What there is, the newest last. One that cannot be read is left out.
///
/// # Errors
/// What reading the directory says.
pub fn all(directory: &RuntimeDir) -> io::Result<Vec<Past>> {
    let numbers = match numbered(&directory.history(), "", ".yaml") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        numbers => numbers?,
    };
    let past = |number| {
        let config = recall(directory, number).ok()?;
        let at = fs::metadata(file(directory, number)).and_then(|metadata| metadata.modified()).ok()?;
        let at = at.duration_since(std::time::UNIX_EPOCH).ok()?;
        let at = WallTime::from_micros(i64::try_from(at.as_micros()).ok()?);
        let (digest, source) = (super::digest(&config), config.file_name().to_owned());
        Some(Past { number, at_us: at.as_micros(), digest, source })
    };
    Ok(numbers.into_iter().filter_map(past).collect())
}

/// The configuration with that number.
///
/// # Errors
/// There is none, or it is not right any more; in words.
pub fn recall(directory: &RuntimeDir, number: u64) -> Result<Config, String> {
    super::read_copy(directory, &file(directory, number))?
        .ok_or_else(|| format!("there is no number {number} in the history of configurations"))
}

fn file(directory: &RuntimeDir, number: u64) -> PathBuf {
    directory.history().join(format!("{number}.yaml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ten_are_kept_and_the_same_twice_is_one() {
        let home = std::env::temp_dir().join(format!("beltway-history-{}", std::process::id()));
        let _ = fs::remove_dir_all(&home);
        let directory = RuntimeDir::new(&home);
        directory.create().unwrap();
        assert_eq!(all(&directory).unwrap(), []);
        let config = |n: u32| config::parse("/etc/x.yaml", &format!("names: {{ttl: {n}s}}\n")).unwrap();
        for n in 1..=13 {
            enter(&directory, &config(n)).unwrap();
            enter(&directory, &config(n)).unwrap();
        }
        let numbers: Vec<_> = all(&directory).unwrap().iter().map(|past| past.number).collect();
        assert_eq!(numbers, (4..=13).collect::<Vec<_>>());
        assert_eq!(recall(&directory, 4).unwrap().names.ttl.as_secs(), 4);
        assert!(recall(&directory, 3).unwrap_err().contains("no number 3"));
        let newest = all(&directory).unwrap().pop().unwrap();
        assert_eq!((newest.source.as_str(), newest.digest), ("/etc/x.yaml", super::super::digest(&config(13))));
        fs::remove_dir_all(home).unwrap();
    }
}
