//! Lists that outlive processes: a JSON array in a file of the runtime directory, one entry a line.
//!
//! Each is replaced whole; one that outlives the machine's power is on the disk before it counts as written. One that is damaged all the same is read as far as it
//! can be, line by line, and nobody writes over it before it is kept under another name. What the entries mean is the
//! business of [`held`](crate::held). Start at [`read`].

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::directory;

/// Bytes that are read, at most.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Damaged files of one name that are kept: the newest.
pub(crate) const KEPT_MAX: usize = 4;
/// Damaged places of one file that are told.
const TOLD_MAX: usize = 8;
/// Bytes of a damaged place that are told.
const SHOWN_MAX: usize = 60;

/// What was read.
#[derive(Debug)]
pub(crate) struct Lines<T> {
    pub(crate) entries: Vec<T>,
    pub(crate) damage: Vec<Damage>,
}

/// A place of a file that is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Counted from 1.
    pub(crate) line: usize,
    what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Reads a list, as far as that can be; none is an empty one.
///
/// # Errors
/// What reading says.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Lines<T>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Lines { entries: Vec::new(), damage: Vec::new() });
        }
        Err(error) => return Err(error),
    };
    Ok(parse(&bytes))
}

/// What a list outlives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outlives {
    /// The process that writes it. Nobody waits for the disk.
    Process,
    /// The machine's power.
    Power,
}

/// Replaces a list; an empty one is no file. When what was there is damaged it is kept, and the answer says where.
///
/// # Errors
/// There is too much, or what reading, keeping and writing say; what was there before still is.
pub(crate) fn replace<T: Serialize + DeserializeOwned>(
    path: &Path,
    entries: &[T],
    outlives: Outlives,
) -> io::Result<Option<PathBuf>> {
    let aside = if read::<T>(path)?.damage.is_empty() { None } else { Some(set_aside(path)?) };
    if entries.is_empty() {
        match outlives {
            Outlives::Process => directory::remove(path)?,
            Outlives::Power => directory::remove_durably(path)?,
        }
        return Ok(aside);
    }
    let mut text = b"[".to_vec();
    for (at, entry) in entries.iter().enumerate() {
        text.extend_from_slice(if at == 0 { b"\n" } else { b",\n" });
        serde_json::to_writer(&mut text, entry)?;
    }
    text.extend_from_slice(b"\n]\n");
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{} are too many", entries.len())));
    }
    match outlives {
        Outlives::Process => directory::replace(path, &text)?,
        Outlives::Power => directory::replace_durably(path, &text)?,
    }
    Ok(aside)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Lines<T> {
    if let Ok(entries) = serde_json::from_slice(bytes) {
        return Lines { entries, damage: Vec::new() };
    }
    let mut read = Lines { entries: Vec::new(), damage: Vec::new() };
    let mut more = 0;
    let mut complain = |line, what| {
        if read.damage.len() < TOLD_MAX { read.damage.push(Damage { line, what }) } else { more += 1 }
    };
    let mut last = 1;
    for (line, text) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        last = line;
        let mut rest = text;
        while let Some(at) = rest.iter().position(|byte| *byte == b'{') {
            let (before, object) = rest.split_at(at);
            if !is_between(before) {
                complain(line, shown(before));
            }
            let mut stream = serde_json::Deserializer::from_slice(object).into_iter::<T>();
            if let Some(Ok(entry)) = stream.next() {
                read.entries.push(entry);
                rest = object.get(stream.byte_offset()..).unwrap_or_default();
                continue;
            }
            // What follows may be whole.
            let next = object.iter().skip(1).position(|byte| *byte == b'{').map_or(object.len(), |at| at + 1);
            let (broken, after) = object.split_at(next);
            complain(line, shown(broken));
            rest = after;
        }
        if !is_between(rest) {
            complain(line, shown(rest));
        }
    }
    let text = bytes.trim_ascii();
    if !text.starts_with(b"[") {
        complain(1, "the beginning is not there, nor perhaps lines after it".to_owned());
    }
    if !text.ends_with(b"]") {
        complain(last, "the end is not there, nor perhaps lines before it".to_owned());
    }
    if more > 0 {
        read.damage.push(Damage { line: last, what: format!("so with {more} more before this") });
    }
    read
}

/// Whether this may stand between entries.
fn is_between(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| byte.is_ascii_whitespace() || b"[],".contains(byte))
}

fn shown(bytes: &[u8]) -> String {
    let text = bytes.trim_ascii();
    let more = if text.len() > SHOWN_MAX { "…" } else { "" };
    let begin = String::from_utf8_lossy(text.get(..SHOWN_MAX).unwrap_or(text));
    let begin: String = begin.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    format!("`{begin}{more}` is not understood")
}

/// Gives the file a second name, so that it is still there when it is replaced. The oldest of too many is removed.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let name = |number: Option<u64>| {
        let mut name: OsString = path.file_name().unwrap_or_default().to_owned();
        name.push(".damaged.");
        if let Some(number) = number {
            name.push(number.to_string());
        }
        name
    };
    let home = path.parent().unwrap_or_else(|| Path::new("."));
    let kept = directory::numbered(home, &name(None).to_string_lossy(), "")?;
    let aside = path.with_file_name(name(Some(kept.last().map_or(1, |last| last.saturating_add(1)))));
    // Not every file system has links.
    if fs::hard_link(path, &aside).is_err() {
        fs::copy(path, &aside)?;
    }
    for oldest in kept.iter().rev().skip(KEPT_MAX - 1) {
        directory::remove(&path.with_file_name(name(Some(*oldest))))?;
    }
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::held::HeldServer;

    fn one(server: &str) -> HeldServer {
        HeldServer { pool: "a".to_owned(), server: server.to_owned() }
    }

    fn told(text: &[u8]) -> (Vec<String>, Vec<(usize, String)>) {
        let read = parse::<HeldServer>(text);
        let names = read.entries.into_iter().map(|held| held.server).collect();
        (names, read.damage.into_iter().map(|damage| (damage.line, damage.what)).collect())
    }

    #[test]
    fn each_line_that_is_whole_is_read_whatever_is_beside_it() {
        let home = std::env::temp_dir().join(format!("beltway-lines-{}", std::process::id()));
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&home).unwrap();
        let file = home.join("list");
        let names = ["s", "t{", "u\",\n]"];
        assert_eq!(replace(&file, &names.map(one), Outlives::Power).unwrap(), None);
        let good = fs::read(&file).unwrap();
        assert_eq!(told(&good), (names.map(str::to_owned).to_vec(), vec![]));
        assert_eq!(good.iter().filter(|byte| **byte == b'\n').count(), names.len() + 2, "one a line");
        fs::remove_dir_all(home).unwrap();

        // As it was written before there were lines, and what is left of that.
        let old = serde_json::to_vec(&names.map(one)).unwrap();
        assert_eq!(told(&old).1, []);
        assert_eq!(told(&old[..old.len() - 3]).0, ["s", "t{"]);
        // Cut anywhere: what is whole is read, and that something is missing is said.
        for cut in 0..good.len() - 1 {
            let (read, damage) = told(&good[..cut]);
            assert!(names.iter().zip(&read).all(|(name, read)| name == read), "{cut}: {read:?}");
            assert!(!damage.is_empty() || cut == good.len() - 1, "{cut}");
            let (read, damage) = told(&good[cut + 1..]);
            assert!(!damage.is_empty() && read.len() <= names.len(), "{cut}: {read:?}");
        }
        let (read, damage) = told(
            b"[\n{\"pool\":\"a\",\"server\":\"s\"},\n{\"pool\":\"a\",\"ser\0er\":\"t\"},\n\
            {\"pool\":\"a\",\"server\":\"u\"},\nrubbish\n{\"pool\":\"a\"}, {\"pool\":\"a\",\"server\":\"v\"}\n]\n",
        );
        assert_eq!(read, ["s", "u", "v"]);
        assert_eq!(damage.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [3, 5, 6]);
        assert!(damage[0].1.contains("\"ser\u{fffd}er\"") && damage[1].1.contains("`rubbish`"), "{damage:?}");
        assert_eq!(told(b"").1.len(), 2, "an empty file is none that was written");
    }

    #[test]
    fn of_damage_without_end_only_some_is_told() {
        let (read, damage) = told(&b"{\n".repeat(10_000));
        assert_eq!((read.len(), damage.len()), (0, TOLD_MAX + 1));
        assert!(damage[TOLD_MAX].1.contains("more before this"), "{damage:?}");
        assert!(told(&[b'x'; 1_000]).1[0].1.len() < SHOWN_MAX + 40);
    }

    #[test]
    fn what_is_damaged_is_kept_under_another_name_and_not_too_often() {
        let home = std::env::temp_dir().join(format!("beltway-aside-{}", std::process::id()));
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&home).unwrap();
        let file = home.join("list");
        for (round, outlives) in (1..=KEPT_MAX + 2).zip([Outlives::Process, Outlives::Power].into_iter().cycle()) {
            fs::write(&file, format!("damaged {round}")).unwrap();
            let aside = replace(&file, &[one("s")], outlives).unwrap().unwrap();
            assert_eq!(aside, home.join(format!("list.damaged.{round}")));
            assert_eq!(fs::read(&aside).unwrap(), format!("damaged {round}").as_bytes());
            assert_eq!(read::<HeldServer>(&file).unwrap().entries, [one("s")]);
        }
        assert_eq!(directory::numbered(&home, "list.damaged.", "").unwrap(), [3, 4, 5, 6]);
        for outlives in [Outlives::Process, Outlives::Power] {
            assert_eq!(replace(&file, &[one("s")], outlives).unwrap(), None);
            assert_eq!(replace::<HeldServer>(&file, &[], outlives).unwrap(), None);
            assert!(!file.exists());
        }
        fs::remove_dir_all(home).unwrap();
    }
}
