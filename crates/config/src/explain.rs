//! The table in words: for one key on a terminal, and for all of them as the reference page.

use std::fmt::Write as _;

use crate::BUILTIN_DEFAULT;
use crate::nearest::nearest;
use crate::table::{Key, Kind, TABLE, below};

/// What `key` is, takes and does; `None` when there is no such key. The brackets of a list item may be left out:
/// `http.remap.from` is `http.remap[].from`.
#[must_use]
pub fn explain(key: &str) -> Option<String> {
    let key = TABLE.iter().find(|row| row.path == key || row.path.replace("[]", "") == key)?;
    let mut text = format!("{}\n  {}\n", key.path, key.meaning);
    for (name, value) in facts(key) {
        let _ = writeln!(text, "  {name}: {value}");
    }
    let items = format!("{}[]", key.path);
    let parts: Vec<&str> =
        TABLE.iter().filter(|k| k.parent() == key.path || k.parent() == items).map(|k| k.path).collect();
    if !parts.is_empty() {
        let _ = writeln!(text, "  keys: {}", parts.join(", "));
    }
    Some(text)
}

/// The key that `key` was most probably meant to be.
#[must_use]
pub fn nearest_key(key: &str) -> Option<&'static str> {
    nearest(key, TABLE.iter().map(|row| row.path)).or_else(|| {
        // The right name in the wrong place, or without its place.
        let name = key.rsplit('.').next().unwrap_or(key);
        TABLE.iter().find(|row| row.name() == name).map(|row| row.path)
    })
}

fn facts(key: &Key) -> Vec<(&'static str, String)> {
    if matches!(key.kind, Kind::Unavailable) {
        return vec![("kind", key.kind.name().to_owned())];
    }
    let mut facts = vec![("kind", key.kind.name().to_owned())];
    if let Some(unit) = key.kind.unit() {
        facts.push(("unit", unit.to_owned()));
    }
    if let Some(bounds) = key.kind.bounds() {
        facts.push(("bounds", bounds));
    }
    match (key.default, key.kind) {
        (Some(default), _) => facts.push(("default", default.to_owned())),
        (None, Kind::Section { .. }) => {}
        (None, _) => facts.push(("default", "none; it must be written".to_owned())),
    }
    if !matches!(key.kind, Kind::Section { off: false }) {
        facts.push(("applied by", key.applied.to_string()));
    }
    facts
}

/// The reference page: every key of the table, section by section.
#[must_use]
pub fn reference_markdown() -> String {
    let mut page = String::from(PREFACE);
    let _ = write!(page, "\nWithout any file, this is used:\n\n```yaml\n{BUILTIN_DEFAULT}```\n");
    page.push_str("\n## Keys of the top level\n");
    rows(&mut page, "");
    for section in TABLE.iter().filter(|key| matches!(key.kind, Kind::Section { .. } | Kind::List { .. })) {
        let parent = match section.kind {
            Kind::List { .. } => format!("{}[]", section.path),
            _ => section.path.to_owned(),
        };
        let _ = write!(page, "\n## `{}`\n\n{}\n", section.path, section.meaning);
        rows(&mut page, &parent);
    }
    page.push_str("\n## Not available in this version\n\nThese keys are refused, never ignored:\n\n");
    for key in TABLE.iter().filter(|key| matches!(key.kind, Kind::Unavailable)) {
        let _ = writeln!(page, "- `{}`: {}", key.path, key.meaning);
    }
    page
}

const PREFACE: &str = "\
<!-- Made from the table of keys in crates/config/src/table.rs; edit that, then run
     BELTWAY_REWRITE=1 cargo test -p beltway-config -->

# Configuration

One YAML file, by default `/etc/beltway/beltway.yaml`. A key that is not written has its default. A key that does not
exist is an error, and so is one that stands twice. `beltway check` reads the file, touches nothing, and reports all
that is wrong with it; `beltway check --explain KEY` shows one row of this page.

- Sizes take B, KiB, MiB, GiB, KB, MB, GB; times take ms, s, m, h. Both are whole numbers.
- `true` and `false` are the only switches; `yes`, `on` and the like are errors.
- An IPv6 address needs quotes: `\"[::1]:8080\"`.
- A relative path counts from the directory of the file.
- YAML's anchors and aliases may be used; tags, directives, merge keys and several documents may not.
- *reload* means that a changed value is taken over by `beltway reload`, *restart* that it needs new processes.
";

/// The table of the keys below `parent`.
fn rows(page: &mut String, parent: &str) {
    let shown = |key: &&Key| !matches!(key.kind, Kind::Unavailable);
    page.push_str("\n| key | takes | default | applied by | meaning |\n| --- | --- | --- | --- | --- |\n");
    for key in below(parent).filter(shown) {
        if matches!(key.kind, Kind::Section { off: false }) {
            let _ = writeln!(page, "| `{}` | section | | | {} |", key.name(), cell(key.meaning));
            continue;
        }
        let takes = match (key.kind, key.kind.bounds()) {
            (Kind::Choice { .. } | Kind::Path { .. } | Kind::Address { .. } | Kind::Switch { .. }, Some(bounds)) => {
                bounds
            }
            (kind, Some(bounds)) => format!("{}: {bounds}", kind.name()),
            (kind, None) => kind.name().to_owned(),
        };
        let default = key.default.map_or_else(|| "must be written".to_owned(), |default| format!("`{default}`"));
        let _ = writeln!(
            page,
            "| `{}` | {} | {default} | {} | {} |",
            key.name(),
            cell(&takes),
            key.applied,
            cell(key.meaning)
        );
    }
}

/// `text` as it can stand in a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
