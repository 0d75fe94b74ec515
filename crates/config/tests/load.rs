//! Files as they are found on a disk.

use std::fs;
use std::path::{Path, PathBuf};

use config::{FILE_SIZE_MAX, LogFile, load};

/// A directory of its own for one test, removed when the test is over.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("config-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory for the test");
        Self(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).expect("a file for the test");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn refusal(path: &Path) -> String {
    let said = load(path).expect_err("the file is bad").to_string();
    said.strip_prefix(&path.display().to_string()).expect("it names the file").to_owned()
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_reason() {
    let directory = Directory::new("unreadable");
    assert!(refusal(&directory.0.join("absent.yaml")).starts_with(": cannot be read: No such file"));
    assert!(refusal(&directory.0).starts_with(": is not a regular file"));
}

#[test]
fn a_file_that_is_not_utf_8_is_refused_at_the_first_wrong_byte() {
    let directory = Directory::new("latin1");
    let path = directory.file("b.yaml", b"threads: 2\nhttp: {via: \"caf\xe9\"}\n");
    let said = refusal(&path);
    assert!(said.starts_with(":2:17: the file is not UTF-8: byte 0xe9\n  2 | http: {via: \"caf\u{fffd}\"}"), "{said}");
}

#[test]
fn the_largest_file_is_read_and_one_byte_more_is_not() {
    let directory = Directory::new("large");
    let mut text = b"threads: 2\n#".to_vec();
    text.resize(FILE_SIZE_MAX, b' ');
    load(&directory.file("a.yaml", &text)).unwrap();
    text.push(b' ');
    assert_eq!(refusal(&directory.file("b.yaml", &text)), ": is larger than 4MiB");
}

#[test]
fn relative_paths_count_from_the_directory_of_the_file() {
    let directory = Directory::new("paths");
    let text = b"runtime_dir: /run/x\nlog: {file: a.log}\nhttp: {access_log: {file: logs/access.log}}\n";
    let config = load(&directory.file("b.yaml", text)).unwrap();
    assert_eq!(config.runtime_dir, Path::new("/run/x"));
    assert_eq!(config.log.file, LogFile::Path(directory.0.join("a.log")));
    assert_eq!(config.http.access_log.unwrap().file, LogFile::Path(directory.0.join("logs/access.log")));
}
