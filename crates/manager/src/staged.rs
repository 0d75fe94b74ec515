//! One key of the configuration file, set or unset by an operator: judged like any change, and written when it is in force.
//!
//! What is to be written lies beside the file from the beginning, so that what can fail fails before anything has changed.
//! A file that says more than what is in force is not written over: its other changes were not asked for.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use config::{Config, EditError};
use supervise::change::{Outcome, Verdict, changed_keys};
use supervise::configuration::Source;

/// The file as it will be.
#[derive(Debug)]
pub(crate) struct Staged {
    target: PathBuf,
    /// Beside the target; gone once it is renamed.
    temporary: PathBuf,
    /// What the target said when the key was changed.
    before: String,
}

/// The configuration with `key` set to `value` in its file, or taken out of it, and the file to come.
///
/// # Errors
/// There is no file, it says other than what is in force, the key or value is wrong, nothing can be written there.
pub(crate) fn stage(
    source: &Source,
    in_force: &Config,
    key: &str,
    value: Option<&str>,
) -> Result<(Config, Staged), Box<Verdict>> {
    let failed = |why: String| Box::new(Verdict::new(Outcome::Failed, why));
    let Source::File(path) = source else {
        return Err(failed("there is no file to change a key in: the built-in default runs".to_owned()));
    };
    let name = path.display().to_string();
    let told = |error: io::Error| failed(format!("{name}: {error}"));
    // A link is followed, so that what it points at is replaced and not the link.
    let target = fs::canonicalize(path).map_err(told)?;
    let in_file = source.load().map_err(|wrong| Verdict::wrong(&wrong.0))?;
    let before = in_file.source_text().to_owned();
    let others: Vec<_> = changed_keys(in_force, &in_file).into_iter().map(|changed| changed.key).collect();
    if !others.is_empty() {
        let keys = others.join(", ");
        return Err(failed(format!("{name} says other than what is in force ({keys}): reload first, or take it back")));
    }
    let edited = match value {
        Some(value) => config::set(&name, &before, key, value),
        None => config::unset(&name, &before, key),
    };
    let config = edited.map_err(|error| match error {
        EditError::Wrong(wrong) => Box::new(Verdict::wrong(&wrong.0)),
        other => failed(other.to_string()),
    })?;
    let staged = Staged::write(target, before, config.source_text()).map_err(told)?;
    Ok((config, staged))
}

impl Staged {
    /// Whether it says the same as what is there.
    pub(crate) fn is_same(&self, config: &Config) -> bool {
        self.before == config.source_text()
    }

    fn write(target: PathBuf, before: String, text: &str) -> io::Result<Self> {
        let mut name = target.as_os_str().to_owned();
        name.push(format!(".{}", std::process::id()));
        let temporary = PathBuf::from(name);
        let staged = Self { temporary, target, before };
        fs::write(&staged.temporary, "")?;
        // Before there is anything to read in it.
        let metadata = fs::metadata(&staged.target)?;
        fs::set_permissions(&staged.temporary, metadata.permissions())?;
        let (uid, gid) =
            (std::os::unix::fs::MetadataExt::uid(&metadata), std::os::unix::fs::MetadataExt::gid(&metadata));
        match std::os::unix::fs::chown(&staged.temporary, Some(uid), Some(gid)) {
            // Who is not root may not give a file away; then it is his.
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
        fs::write(&staged.temporary, text)?;
        fs::File::open(&staged.temporary)?.sync_all()?;
        Ok(staged)
    }

    /// Puts it in the file's place.
    ///
    /// # Errors
    /// In words: somebody has written the file meanwhile, or what renaming says.
    pub(crate) fn put(self) -> Result<(), String> {
        let name = self.target.display();
        match fs::read_to_string(&self.target) {
            Ok(text) if text.strip_prefix('\u{feff}').unwrap_or(&text) == self.before => {}
            Ok(_) => return Err(format!("{name} was written by somebody else meanwhile, and is left as it is")),
            Err(error) => return Err(format!("{name}: {error}")),
        }
        fs::rename(&self.temporary, &self.target).map_err(|error| format!("{name}: {error}"))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        remove(&self.temporary);
    }
}

fn remove(path: &Path) {
    // It is gone when it was put in place.
    let _ = fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_written_when_its_time_comes_and_nothing_is_left_when_it_does_not() {
        let home = std::env::temp_dir().join(format!("beltway-staged-{}", std::process::id()));
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&home).unwrap();
        let file = home.join("beltway.yaml");
        let text = "# mine\nnames: {ttl: 5s}\n";
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let link = home.join("link.yaml");
        std::os::unix::fs::symlink("beltway.yaml", &link).unwrap();
        let source = Source::File(link.clone());
        let in_force = source.load().unwrap();
        let stage = |key: &str, value: &str| stage(&source, &in_force, key, Some(value));

        drop(stage("names.ttl", "7s").unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
        assert_eq!(fs::read_dir(&home).unwrap().count(), 2);

        let (_, staged) = stage("names.ttl", "8s").unwrap();
        fs::write(&file, "names: {ttl: 6s}\n").unwrap();
        assert!(staged.put().unwrap_err().contains("somebody else"));
        let verdict = stage("names.ttl", "8s").unwrap_err();
        assert!(verdict.why.contains("other than what is in force (names.ttl)"), "{verdict:?}");

        fs::write(&file, text).unwrap();
        let (config, staged) = stage("names.ttl", "9s").unwrap();
        assert_eq!(config.names.ttl.as_secs(), 9);
        staged.put().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "# mine\nnames: {ttl: 9s}\n");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(&home).unwrap().count(), 2);

        let (config, staged) = super::stage(&source, &config, "names.ttl", None).unwrap();
        assert!(!staged.is_same(&config));
        staged.put().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "# mine\nnames: {}\n");
        let (config, staged) = super::stage(&source, &config, "names.ttl", None).unwrap();
        assert!(staged.is_same(&config), "nothing is left to take out");

        let wrong = super::stage(&source, &config, "names.ttl", Some("soon")).unwrap_err();
        assert_eq!(wrong.outcome, Outcome::Wrong);
        let unknown = super::stage(&source, &config, "names.tll", Some("1s")).unwrap_err();
        assert!(unknown.why.contains("did you mean `names.ttl`"), "{unknown:?}");
        assert!(super::stage(&Source::BuiltIn, &config, "names.ttl", Some("1s")).unwrap_err().why.contains("built-in"));
        fs::remove_dir_all(home).unwrap();
    }
}
