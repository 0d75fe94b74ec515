//! One key of a file: what is written there, and the same file with another value in its place.
//!
//! Comments and everything else stay as they are. A change is a piece of text put into another, so [`set`] reads the
//! outcome and refuses what differs in anything but the key that was meant: whoever calls it needs not trust it. How a
//! key is taken out again is told in `unset`.

use std::fmt;
use std::rc::Rc;

use crate::diagnostic::{Diagnostics, Findings, Place, quoted};
use crate::explain::general;
use crate::kind::Kind;
use crate::model::Config;
use crate::nearest::nearest;
use crate::table::{Applied, Key, TABLE, find};
use crate::tree::{self, Content, Node};
use crate::{KV_AVAILABLE, parse};

pub use self::unset::unset;

mod unset;

/// What is shown instead of a password.
const HIDDEN: &str = "(hidden)";

/// The longest value that can be set.
const VALUE_MAX: usize = 64 * 1024;

/// One key and its value, as it is written or as it is by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key; pools by their own names.
    pub key: String,
    /// Its value as it is written in the file; else its default as it would be written. Passwords are hidden.
    pub value: String,
    /// It stands in the file.
    pub is_written: bool,
    /// When a changed value takes effect.
    pub applied: Applied,
}

/// Why a key cannot be set or unset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EditError {
    /// There is no such key.
    Unknown {
        /// What was asked for.
        key: String,
        /// What was probably meant.
        hint: String,
    },
    /// It has no value of its own.
    Section(&'static str),
    /// The value cannot be put into a file.
    Value(&'static str),
    /// The file is written in a way that this cannot edit.
    Tangled(String),
    /// With the value, the configuration is wrong.
    Wrong(Diagnostics),
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { key, hint } => write!(f, "there is no key {}{hint}", quoted(key)),
            Self::Section(key) => write!(f, "`{key}` has keys below it: name one of these"),
            Self::Value(why) => write!(f, "the value {why}"),
            Self::Tangled(key) => {
                write!(f, "`{key}` cannot be changed by itself as the file is written: edit the file, then reload")
            }
            Self::Wrong(wrong) => wrong.fmt(f),
        }
    }
}

impl std::error::Error for EditError {}

impl Config {
    /// The value of one key; `None` when there is no such key, or it stands in a list, or has keys below it.
    #[must_use]
    pub fn setting(&self, key: &str) -> Option<Setting> {
        let row = find(&general(key)).filter(|row| is_one_value(row))?;
        let root = self.root();
        Some(self.shown(root.as_deref(), key, row))
    }

    /// Every key with its value, in the order of the table; each pool's keys by its name.
    #[must_use]
    pub fn every_setting(&self) -> Vec<Setting> {
        let root = self.root();
        let mut settings = Vec::new();
        for row in TABLE.iter().filter(|row| is_one_value(row)) {
            match row.path.split_once(".NAME.") {
                None => settings.push(self.shown(root.as_deref(), row.path, row)),
                Some((pools, name)) => settings.extend(names_below(root.as_deref(), pools).map(|pool| {
                    let key = format!("{pools}.{pool}.{name}");
                    self.shown(root.as_deref(), &key, row)
                })),
            }
        }
        settings
    }

    fn root(&self) -> Option<Rc<Node>> {
        // It was read before, and was right.
        tree::read(&self.source, &mut Findings::new(&self.source)).ok().flatten()
    }

    fn shown(&self, root: Option<&Node>, key: &str, row: &'static Key) -> Setting {
        let node = root.and_then(|root| node_at(root, key)).filter(|node| !node.is_empty());
        let text = node.and_then(|node| between(self.source_text(), node.place, node.end));
        let value = match (row.kind, text) {
            (Kind::Secret, Some(_)) => HIDDEN.to_owned(),
            (Kind::Map { .. }, Some(_)) => {
                format!("[{}]", names_below(root, key).collect::<Vec<_>>().join(", "))
            }
            (_, Some(text)) => text.trim_end().to_owned(),
            (_, None) => row.default.unwrap_or("").to_owned(),
        };
        Setting { key: key.to_owned(), value, is_written: text.is_some(), applied: row.applied }
    }
}

/// The text of `file_name` with `key` set to `value`, which is written as in the file; and the configuration that makes.
///
/// # Errors
/// There is no such key; the value is wrong; the file is written in a way that more than the key would change.
pub fn set(file_name: &str, text: &str, key: &str, value: &str) -> Result<Config, EditError> {
    let row = key_row(key)?;
    let value = value.trim();
    if value.is_empty() {
        return Err(EditError::Value("is empty"));
    }
    if value.len() > VALUE_MAX {
        return Err(EditError::Value("is too long"));
    }
    if value.contains(char::is_control) {
        return Err(EditError::Value("has more than one line, or unprintable characters"));
    }
    let before = parse(file_name, text).map_err(EditError::Wrong)?;
    let text = before.source_text();
    let root = before.root();
    let tangled = || EditError::Tangled(key.to_owned());
    let (from, to, piece) = edit(text, root.as_deref(), key, value).ok_or_else(tangled)?;
    let edited = format!("{}{piece}{}", text.get(..from).unwrap_or(""), text.get(to..).unwrap_or(""));
    let after = parse(file_name, &edited).map_err(EditError::Wrong)?;
    // What is written now is what was meant: no comment, no second value that hides.
    let is_written = after.setting(key).is_some_and(|setting| setting.is_written);
    if is_written && compare(&before, &after, row) { Ok(after) } else { Err(tangled()) }
}

/// The row of a key that can be set and unset.
fn key_row(key: &str) -> Result<&'static Key, EditError> {
    let row = find(&general(key)).ok_or_else(|| unknown(key))?;
    if let Kind::Section { off: false } | Kind::Map { .. } = row.kind {
        return Err(EditError::Section(row.path));
    }
    if key.contains("[]") { Err(EditError::Tangled(key.to_owned())) } else { Ok(row) }
}

/// Whether nothing differs but `row`, what is below it, and what it is part of.
fn compare(before: &Config, after: &Config, row: &Key) -> bool {
    // A section that was off gets all its keys with the first of them, the others by default.
    let off = |above: &&Key| matches!(above.kind, Kind::Section { off: true }) && is_below(row.path, above.path);
    let section = TABLE.iter().find(off);
    let written = |path: &str| after.setting(path).is_some_and(|setting| setting.is_written);
    let came = |path: &str| section.is_some_and(|section| is_below(path, section.path)) && !written(path);
    let meant = |path: &str| path == row.path || is_below(path, row.path) || is_below(row.path, path) || came(path);
    before.changed(after).all(|(path, _)| meant(path))
}

/// From, to, and what is written between.
fn edit(text: &str, root: Option<&Node>, key: &str, value: &str) -> Option<(usize, usize, String)> {
    let names: Vec<&str> = key.split('.').collect();
    let Some(root) = root.filter(|root| !root.is_empty()) else {
        return Some((text.len(), text.len(), line_at_end(text, &nested(&names, value))));
    };
    // As deep as the file goes.
    let (mut node, mut depth) = (root, 0);
    while let Content::Map(entries) = &node.content {
        let Some(entry) = names.get(depth).and_then(|name| entries.iter().find(|entry| entry.key == *name)) else {
            break;
        };
        (node, depth) = (&entry.value, depth + 1);
    }
    let below = names.get(depth..).unwrap_or_default();
    let (start, end) = (offset(text, node.place)?, offset(text, node.end)?);
    match &node.content {
        // Where nothing is written, its place is that of the colon.
        _ if node.is_empty() && start == end => {
            let at = if text.get(start..)?.starts_with(':') { start + 1 } else { start };
            Some((at, at, format!(" {}", value_of(below, value))))
        }
        // A value of its own, or `off` in the place of a section.
        Content::Scalar { .. } => Some((start, end, value_of(below, value))),
        _ if below.is_empty() => {
            let written = text.get(start..end)?;
            written.starts_with(['[', '{']).then(|| (start, end, value.to_owned()))
        }
        Content::List(_) => None,
        Content::Map(entries) => {
            if text.get(start..)?.starts_with('{') {
                let comma = if entries.is_empty() { "" } else { ", " };
                return Some((start + 1, start + 1, format!("{}{comma}", nested(below, value))));
            }
            if depth == 0 {
                return Some((text.len(), text.len(), line_at_end(text, &nested(below, value))));
            }
            let first = entries.first()?;
            let line = offset(text, Place { line: first.place.line, column: 1 })?;
            let indent = text.get(line..offset(text, first.place)?)?;
            let blank = indent.chars().all(|c| c == ' ');
            blank.then(|| (line, line, format!("{indent}{}\n", nested(below, value))))
        }
    }
}

/// `a: {b: value}`.
fn nested(names: &[&str], value: &str) -> String {
    match names {
        [] => value.to_owned(),
        [name, below @ ..] => format!("{name}: {}", value_of(below, value)),
    }
}

/// `value`, or `{b: value}`.
fn value_of(below: &[&str], value: &str) -> String {
    if below.is_empty() { value.to_owned() } else { format!("{{{}}}", nested(below, value)) }
}

fn line_at_end(text: &str, line: &str) -> String {
    let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{newline}{line}\n")
}

fn unknown(key: &str) -> EditError {
    let near = nearest(key, TABLE.iter().map(|row| row.path));
    let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    EditError::Unknown { key: key.to_owned(), hint }
}

fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.starts_with(['.', '[']))
}

/// Whether the file has one value for it: no section without a value, nothing in a list, nothing refused.
fn is_one_value(row: &Key) -> bool {
    let refused = matches!(row.kind, Kind::Unavailable | Kind::Section { off: false });
    let kv = row.path == "kv" || row.path.starts_with("kv.");
    !refused && !row.path.contains("[]") && (KV_AVAILABLE || !kv)
}

fn node_at<'n>(root: &'n Node, key: &str) -> Option<&'n Node> {
    key.split('.').try_fold(root, |node, name| match &node.content {
        Content::Map(entries) => entries.iter().find(|entry| entry.key == name).map(|entry| &*entry.value),
        _ => None,
    })
}

fn names_below<'n>(root: Option<&'n Node>, key: &str) -> impl Iterator<Item = &'n str> {
    let entries = match root.and_then(|root| node_at(root, key)).map(|node| &node.content) {
        Some(Content::Map(entries)) => entries.as_slice(),
        _ => &[],
    };
    entries.iter().map(|entry| entry.key.as_str())
}

fn between(text: &str, from: Place, to: Place) -> Option<&str> {
    text.get(offset(text, from)?..offset(text, to)?)
}

/// Where a place is in `text`, in bytes. YAML ends lines with LF, CR LF, or CR alone.
fn offset(text: &str, place: Place) -> Option<usize> {
    let mut line = 1;
    let mut column = 1;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        // The second half of CR LF is no line of its own.
        if c == '\n' && before == '\r' {
            before = c;
            continue;
        }
        if (line, column) == (place.line, place.column) {
            return Some(at);
        }
        before = c;
        if matches!(c, '\n' | '\r') {
            line += 1;
            column = 1;
        } else {
            column += 1;
        }
    }
    (line == place.line && column == place.column || line < place.line).then_some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_in(text: &str, key: &str, value: &str) -> Result<String, EditError> {
        set("/etc/x.yaml", text, key, value).map(|config| config.source_text().to_owned())
    }

    #[test]
    fn a_value_is_replaced_and_everything_around_it_stays() {
        for (text, key, value, edited) in [
            ("names: {ttl: 5s}  # why\n", "names.ttl", "7s", "names: {ttl: 7s}  # why\n"),
            ("# é\nnames:\n  ttl: 5s # why\n", "names.ttl", "7s", "# é\nnames:\n  ttl: 7s # why\n"),
            ("http: {via: \"a\"}\n", "http.via", "b", "http: {via: b}\n"),
            ("http: {listen: [127.0.0.1:1]}\n", "http.listen", "[127.0.0.1:2]", "http: {listen: [127.0.0.1:2]}\n"),
            ("names: {}\r\n", "names.ttl", "7s", "names: {ttl: 7s}\r\n"),
            ("", "names.ttl", "7s", "names: {ttl: 7s}\n"),
            ("# nothing", "threads", "2", "# nothing\nthreads: 2\n"),
            ("threads: 1", "names.ttl", "7s", "threads: 1\nnames: {ttl: 7s}\n"),
            ("names:\n  stale: 1h\n", "names.ttl", "7s", "names:\n  ttl: 7s\n  stale: 1h\n"),
            ("names:\nthreads: 1\n", "names.ttl", "7s", "names: {ttl: 7s}\nthreads: 1\n"),
            ("{threads: 1}", "names.ttl", "7s", "{names: {ttl: 7s}, threads: 1}"),
            ("http: {access_log: off}", "http.access_log.format", "squid", "http: {access_log: {format: squid}}"),
            (
                "http:\n  access_log:\n    file: a.log\n",
                "http.via",
                "b",
                "http:\n  via: b\n  access_log:\n    file: a.log\n",
            ),
        ] {
            assert_eq!(set_in(text, key, value).as_deref(), Ok(edited), "{key} in {text:?}");
        }
    }

    #[test]
    fn what_would_change_more_than_was_meant_is_refused() {
        for (text, key, value) in [
            ("names: {ttl: 5s}\n", "names.ttl", "7s, stale: 1s"),
            ("names: {ttl: &t 5s, stale: *t}\n", "names.ttl", "7s"),
            ("http:\n  listen:\n    - 127.0.0.1:1\n", "http.listen", "[127.0.0.1:2]"),
            ("names: {stale: 1h}", "names.ttl", "# 5s"),
            ("http: {access_log: off}", "http.access_log.format", "squid, file: b.log"),
        ] {
            let refused = set_in(text, key, value);
            assert!(matches!(refused, Err(EditError::Tangled(_) | EditError::Wrong(_))), "{refused:?} for {text:?}");
        }
        for value in ["", " ", "1s\nthreads: 3"] {
            assert!(matches!(set_in("", "names.ttl", value), Err(EditError::Value(_))), "{value:?}");
        }
        let wrong = set_in("", "names.ttl", "soon").unwrap_err().to_string();
        assert!(wrong.contains("/etc/x.yaml:1:14") && wrong.contains("takes a time"), "{wrong}");
        let unknown = set_in("", "names.tll", "1s").unwrap_err().to_string();
        assert!(unknown.contains("did you mean `names.ttl`"), "{unknown}");
        assert_eq!(set_in("", "names", "1s"), Err(EditError::Section("names")));
    }

    #[test]
    fn values_are_shown_as_they_are_written_or_as_they_are_by_default() {
        let config =
            parse("/etc/x.yaml", "names: {ttl: \"5s\"} # x\nhttp:\n  listen:\n    - 127.0.0.1:1\n  via: b\n").unwrap();
        let value = |key| config.setting(key).map(|setting| (setting.value, setting.is_written));
        assert_eq!(value("names.ttl"), Some(("\"5s\"".to_owned(), true)));
        assert_eq!(value("names.stale"), Some(("1h".to_owned(), false)));
        assert_eq!(value("http.listen"), Some(("- 127.0.0.1:1".to_owned(), true)));
        assert_eq!(value("http.via"), Some(("b".to_owned(), true)));
        assert_eq!(value("names"), None);
        assert_eq!(value("nonsense"), None);
        let all = config.every_setting();
        assert!(all.iter().any(|setting| setting.key == "supervise.hang_timeout"));
        assert!(all.iter().all(|setting| !setting.key.contains("[]")));
    }
}
