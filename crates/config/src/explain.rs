//! The table in words: for one key on a terminal, and for all of them as the reference page.

use std::fmt::Write as _;

use crate::kind::Kind;
use crate::nearest::nearest;
use crate::table::{Key, TABLE, below};
use crate::{BUILTIN_DEFAULT, KV_AVAILABLE};

/// What `key` is, takes and does; `None` when there is no such key. The brackets of a list item may be left out:
/// `http.remap.from` is `http.remap[].from`; so may a pool's own name stand for `NAME`.
#[must_use]
pub fn explain(key: &str) -> Option<String> {
    let key = &general(key);
    let key = TABLE.iter().find(|row| row.path == key || row.path.replace("[]", "") == *key)?;
    let mut text = format!("{}\n  {}\n", key.path, key.meaning);
    for (name, value) in facts(key) {
        let _ = writeln!(text, "  {name}: {value}");
    }
    let within = inside(key);
    let parts: Vec<&str> = TABLE.iter().filter(|k| k.parent() == within).map(|k| k.path).collect();
    if !parts.is_empty() {
        let _ = writeln!(text, "  keys: {}", parts.join(", "));
    }
    Some(text)
}

/// `kv.pools.alpha.hash` as the table has it: `kv.pools.NAME.hash`.
pub(crate) fn general(key: &str) -> String {
    let Some(rest) = key.strip_prefix("kv.pools.") else { return key.to_owned() };
    // A pool's name may have dots of its own: the longest end that is a key decides.
    let mut ends = rest.match_indices('.').map(|(at, _)| format!("kv.pools.NAME{}", &rest[at..]));
    let known = ends.clone().find(|path| TABLE.iter().any(|row| row.path == path));
    known.or(ends.next_back()).unwrap_or_else(|| key.to_owned())
}

/// What the keys inside `key` have before their last name.
fn inside(key: &Key) -> String {
    match key.kind {
        Kind::List { .. } => format!("{}[]", key.path),
        Kind::Map { .. } => format!("{}.NAME", key.path),
        _ => key.path.to_owned(),
    }
}

/// Whether whoever writes `key` is told that this version does not have it.
fn is_refused(key: &Key, kv_available: bool) -> bool {
    matches!(key.kind, Kind::Unavailable) || (!kv_available && (key.path == "kv" || key.path.starts_with("kv.")))
}

/// The key that `key` was most probably meant to be.
#[must_use]
pub fn nearest_key(key: &str) -> Option<&'static str> {
    let key = &general(key);
    nearest(key, TABLE.iter().map(|row| row.path)).or_else(|| {
        // The right name in the wrong place, or without its place.
        let name = key.rsplit('.').next().unwrap_or(key);
        TABLE.iter().find(|row| row.name() == name).map(|row| row.path)
    })
}

fn facts(key: &Key) -> Vec<(&'static str, String)> {
    if is_refused(key, KV_AVAILABLE) {
        return vec![("kind", Kind::Unavailable.name().to_owned())];
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
        (None, _) if !key.is_required() => facts.push(("default", "none".to_owned())),
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
    reference_markdown_as_if(KV_AVAILABLE)
}

/// The reference page with the rows of `kv` or without them, whatever [`KV_AVAILABLE`] says.
#[must_use]
pub fn reference_markdown_as_if(kv_available: bool) -> String {
    let refused = |key: &&Key| is_refused(key, kv_available);
    let mut page = String::from(PREFACE);
    let _ = write!(page, "\nWithout any file, this is used:\n\n```yaml\n{BUILTIN_DEFAULT}```\n");
    page.push_str("\n## Keys of the top level\n");
    rows(&mut page, "", kv_available);
    let has_keys = |key: &&Key| matches!(key.kind, Kind::Section { .. } | Kind::List { .. } | Kind::Map { .. });
    for section in TABLE.iter().filter(has_keys).filter(|key| !refused(key)) {
        let _ = write!(page, "\n## `{}`\n\n{}\n", section.path, section.meaning);
        rows(&mut page, &inside(section), kv_available);
    }
    page.push_str("\n## Not available in this version\n\nThese keys are refused, never ignored:\n\n");
    // Of what is refused as a whole, the parts need no line.
    let whole = |key: &&Key| refused(key) && (kv_available || !key.path.starts_with("kv."));
    for key in TABLE.iter().filter(whole) {
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
fn rows(page: &mut String, parent: &str, kv_available: bool) {
    let shown = |key: &&Key| !is_refused(key, kv_available);
    page.push_str("\n| key | takes | default | applied by | meaning |\n| --- | --- | --- | --- | --- |\n");
    for key in below(parent).filter(shown) {
        if matches!(key.kind, Kind::Section { off: false }) {
            let _ = writeln!(page, "| `{}` | section | | | {} |", key.name(), cell(key.meaning));
            continue;
        }
        let takes = match (key.kind, key.kind.bounds()) {
            (
                Kind::Choice { .. } | Kind::Path { .. } | Kind::Address { .. } | Kind::Listen | Kind::Switch { .. },
                Some(bounds),
            ) => bounds,
            (Kind::Millis { .. }, Some(bounds)) => format!("duration or milliseconds: {bounds}"),
            (kind, Some(bounds)) => format!("{}: {bounds}", kind.name()),
            (kind, None) => kind.name().to_owned(),
        };
        let default = match key.default {
            Some(default) => format!("`{default}`"),
            None if key.is_required() => "must be written".to_owned(),
            None => "none".to_owned(),
        };
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
