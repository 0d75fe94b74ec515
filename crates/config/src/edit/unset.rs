//! A key taken out of a file, so that its default is in force again.
//!
//! A key on lines of its own goes with these lines, the remark behind its value too; one between braces goes with a comma.
//! What stands above it stays, and so does a section that has no key left. As in [`super::set`], the outcome is read and
//! compared: what would change more is refused.

use crate::diagnostic::Place;
use crate::model::Config;
use crate::tree::{Content, Entry, Node};
use crate::{EditError, parse};

use super::{compare, key_row, offset};

/// The text of `file_name` without `key`, and the configuration that makes: its default is in force. A key that is not
/// written is no error; the text is then as it was.
///
/// # Errors
/// There is no such key; without it the configuration is wrong; the file is written in a way that more than the key would
/// change.
pub fn unset(file_name: &str, text: &str, key: &str) -> Result<Config, EditError> {
    let row = key_row(key)?;
    let before = parse(file_name, text).map_err(EditError::Wrong)?;
    let text = before.source_text();
    let Some(root) = before.root() else { return Ok(before) };
    let Some((map, at)) = entry_of(&root, key) else { return Ok(before) };
    let tangled = || EditError::Tangled(key.to_owned());
    let (from, to) = span(text, map, at).ok_or_else(tangled)?;
    let edited = format!("{}{}", text.get(..from).unwrap_or(""), text.get(to..).unwrap_or(""));
    let after = parse(file_name, &edited).map_err(EditError::Wrong)?;
    // Also what is written as it is by default is somebody's.
    let Content::Map(entries) = &map.content else { return Err(tangled()) };
    let gone = 1 + entries.get(at).map_or(0, |entry| entries_below(&entry.value));
    let stays = after.root().map_or(0, |root| entries_below(&root)) + gone == entries_below(&root);
    if stays && compare(&before, &after, row) { Ok(after) } else { Err(tangled()) }
}

/// The map that `key` stands in, and its place among the entries.
fn entry_of<'n>(root: &'n Node, key: &str) -> Option<(&'n Node, usize)> {
    let (mut node, mut found) = (root, None);
    for name in key.split('.') {
        let Content::Map(entries) = &node.content else { return None };
        let at = entries.iter().position(|entry| entry.key == name)?;
        found = Some((node, at));
        node = &entries.get(at)?.value;
    }
    found
}

fn entries_below(node: &Node) -> usize {
    match &node.content {
        Content::Map(entries) => entries.iter().map(|entry| 1 + entries_below(&entry.value)).sum(),
        Content::List(items) => items.iter().map(|item| entries_below(item)).sum(),
        Content::Scalar { .. } => 0,
    }
}

/// From where to where an entry goes.
fn span(text: &str, map: &Node, at: usize) -> Option<(usize, usize)> {
    let Content::Map(entries) = &map.content else { return None };
    let entry = entries.get(at)?;
    let from = offset(text, entry.place)?;
    if text.get(offset(text, map.place)?..)?.starts_with('{') {
        let behind = offset(text, entry.value.end)?;
        return Some(match (at.checked_sub(1).and_then(|before| entries.get(before)), entries.get(at + 1)) {
            (_, Some(next)) => (from, offset(text, next.place)?),
            (Some(before), None) => (offset(text, before.value.end)?, behind),
            (None, None) => (from, behind),
        });
    }
    let line = offset(text, Place { line: entry.place.line, column: 1 })?;
    let indented = text.get(line..from)?.chars().all(|c| c == ' ');
    let end = last_end(text, entry)?;
    indented.then(|| (line, next_line(text, end)))
}

/// Behind the last character of an entry. A block ends where the next thing begins, which may be remarks further down.
fn last_end(text: &str, entry: &Entry) -> Option<usize> {
    let node = &*entry.value;
    let is_block = !text.get(offset(text, node.place)?..)?.starts_with(['[', '{']);
    match &node.content {
        Content::Map(entries) if is_block => last_end(text, entries.last()?),
        Content::List(items) if is_block => {
            let last = items.last()?;
            let of_item = |place| Entry { key: String::new(), place, value: std::rc::Rc::clone(last) };
            last_end(text, &of_item(last.place))
        }
        _ => {
            let end = offset(text, node.end)?;
            // A text over several lines ends where the next thing begins.
            let line = text.get(..end)?.rfind(['\n', '\r']).map_or(0, |newline| newline + 1);
            let end = if text.get(line..end)?.trim().is_empty() { line } else { end };
            // An alias stands elsewhere than what it stands for.
            (end >= offset(text, entry.place)?).then_some(end)
        }
    }
}

/// Where the line behind the one that `at` is in begins, or `at` itself when a line begins there.
fn next_line(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or("");
    if before.ends_with(['\n', '\r']) {
        return at;
    }
    let rest = text.get(at..).unwrap_or("");
    let Some(end) = rest.find(['\n', '\r']) else { return text.len() };
    let both = rest.get(end..).is_some_and(|rest| rest.starts_with("\r\n"));
    at + end + if both { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unset_in(text: &str, key: &str) -> Result<String, EditError> {
        unset("/etc/x.yaml", text, key).map(|config| config.source_text().to_owned())
    }

    #[test]
    fn a_key_goes_with_its_line_or_its_comma_and_everything_around_it_stays() {
        for (text, key, edited) in [
            ("# a\nthreads: 2 # why\n# b\n", "threads", "# a\n# b\n"),
            ("names:\n  ttl: 5s\n  stale: 1h\n", "names.ttl", "names:\n  stale: 1h\n"),
            ("names:\n  ttl: 5s\nthreads: 1\n", "names.ttl", "names:\nthreads: 1\n"),
            ("names:\r\n  ttl: 5s\r\nthreads: 1\r\n", "names.ttl", "names:\r\nthreads: 1\r\n"),
            ("names: {ttl: 5s}", "names.ttl", "names: {}"),
            ("names: {ttl: 5s, stale: 1h} # x\n", "names.ttl", "names: {stale: 1h} # x\n"),
            ("names: {stale: 1h, ttl: 5s}\n", "names.ttl", "names: {stale: 1h}\n"),
            ("threads: 1\nnames: {ttl: 5s}", "threads", "names: {ttl: 5s}"),
            ("threads: 1", "threads", ""),
            (
                "http:\n  listen:\n    - 127.0.0.1:1 # one\n    # of the next\n  via: b\n",
                "http.listen",
                "http:\n    # of the next\n  via: b\n",
            ),
            ("http:\n  listen: [127.0.0.1:1,\n    127.0.0.1:2]\n  via: b\n", "http.listen", "http:\n  via: b\n"),
            ("http:\n  access_log:\n    file: a.log\n  via: b\n", "http.access_log", "http:\n  via: b\n"),
            ("http:\n  via: |-\n    b\n  listen: []\n", "http.via", "http:\n  listen: []\n"),
            ("http:\n  via: |-\n    b\n\n# c\nthreads: 1\n", "http.via", "http:\n# c\nthreads: 1\n"),
        ] {
            assert_eq!(unset_in(text, key).as_deref(), Ok(edited), "{key} in {text:?}");
        }
    }

    #[test]
    fn what_is_not_written_changes_nothing() {
        for text in ["", "# nothing\n", "names: {stale: 1h}\n", "threads: 1\n"] {
            assert_eq!(unset_in(text, "names.ttl").as_deref(), Ok(text));
        }
    }

    #[test]
    fn what_would_take_more_with_it_is_refused() {
        assert!(matches!(unset_in("names: {ttl: &t 5s, stale: *t}\n", "names.ttl"), Err(EditError::Wrong(_))));
        assert_eq!(unset_in("names: {ttl: 5s}\n", "names"), Err(EditError::Section("names")));
        assert!(matches!(unset_in("", "names.tll"), Err(EditError::Unknown { .. })));
        let pool =
            "kv:\n  pools:\n    a:\n      listen: 127.0.0.1:1\n      servers: [127.0.0.1:2:1]\n      timeout: 400\n";
        assert!(matches!(unset_in(pool, "kv.pools.a.servers"), Err(EditError::Wrong(_))), "a pool has servers");
        assert_eq!(unset_in(pool, "kv.pools.a.timeout").unwrap(), pool.replace("      timeout: 400\n", ""));
    }
}
