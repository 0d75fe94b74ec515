//! The other names that the program answers to: each stands for a command, and nothing else changes.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

/// Names and the commands they stand for.
pub(crate) const NAMES: [(&str, &str); 5] = [
    ("traffic_cop", "cop"),
    ("traffic_manager", "manager"),
    ("traffic_server", "server"),
    ("traffic_ctl", "ctl"),
    ("nutcracker", "nutcracker"),
];

/// The arguments as `beltway` understands them: `traffic_cop -c FILE` is `beltway cop -c FILE`.
pub(crate) fn arguments(given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut given: Vec<OsString> = given.collect();
    let called = given.first().map(Path::new).and_then(Path::file_name).unwrap_or(OsStr::new("beltway"));
    if let Some((_, command)) = NAMES.iter().find(|(name, _)| called == *name) {
        given.insert(1, OsString::from(command));
    }
    given
}

/// Makes a link to this program for each name in `directory`. Says which were made.
pub(crate) fn install_links(directory: &Path) -> io::Result<Vec<String>> {
    let program = std::env::current_exe()?;
    let mut made = Vec::new();
    let told = |link: &Path, error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", link.display()));
    for (name, _) in NAMES {
        let link = directory.join(name);
        match std::fs::symlink_metadata(&link) {
            Ok(there) if !there.is_symlink() => {
                let why = format!("{} is there and is no link: it is left alone", link.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
            }
            Ok(_) => std::fs::remove_file(&link).map_err(|error| told(&link, error))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(told(&link, error)),
        }
        std::os::unix::fs::symlink(&program, &link).map_err(|error| told(&link, error))?;
        made.push(format!("{} -> {}", link.display(), program.display()));
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_name_stands_for_its_command() {
        let given = |words: &[&str]| arguments(words.iter().map(OsString::from));
        assert_eq!(given(&["/usr/bin/traffic_cop", "-c", "x"]), ["/usr/bin/traffic_cop", "cop", "-c", "x"]);
        assert_eq!(given(&["traffic_ctl", "status"]), ["traffic_ctl", "ctl", "status"]);
        assert_eq!(given(&["beltway", "run"]), ["beltway", "run"]);
        assert_eq!(given(&["anything"]), ["anything"]);
        assert_eq!(given(&["/usr/sbin/nutcracker", "-t"]), ["/usr/sbin/nutcracker", "nutcracker", "-t"]);
        assert!(given(&[]).is_empty());
    }

    #[test]
    fn a_link_that_cannot_be_made_is_named() {
        let why = install_links(Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(why.starts_with("/nonexistent/traffic_cop: "), "{why}");
    }
}
