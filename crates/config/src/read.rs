//! From the tree of nodes to settings, driven by the table: which keys there are, what each takes, what is missing.
//!
//! Reads on after an error, with the default in the place of the wrong value, so that one reading finds all errors.

use std::collections::BTreeMap;
use std::path::Path;

use crate::build;
use crate::diagnostic::{Findings, Place, Spanned, quoted};
use crate::kind::{Kind, one_of};
use crate::kv::{self, rows::POOL};
use crate::nearest::nearest;
use crate::remap::OriginUrl;
use crate::table::{Key, TABLE, below, find};
use crate::tree::{Content, Entry, Node};
use crate::value::{Fault, Value, network, scalar, section_name, unavailable};

/// The values of a section and of those within it, by the path of their keys. Complete: what is not written is there
/// with its default. Only what stands below an absent section that can be `off` is not there.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Settings(BTreeMap<&'static str, Spanned<Value>>);

impl Settings {
    pub(crate) fn find(&self, path: &str) -> Option<&Spanned<Value>> {
        self.0.get(path)
    }

    /// Where `path` is written; [`Place::NOWHERE`] when it is not.
    pub(crate) fn place(&self, path: &str) -> Place {
        self.find(path).map_or(Place::NOWHERE, |value| value.place)
    }
}

/// What stands in this version. Every other part of the table is refused as not available.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Available {
    pub(crate) kv: bool,
}

/// Reads the whole file. `directory` is what relative paths count from.
pub(crate) fn read(
    root: Option<&Node>,
    directory: &Path,
    available: Available,
    findings: &mut Findings<'_>,
) -> Settings {
    let mut reader = Reader { directory, available, findings };
    let mut settings = Settings::default();
    match root {
        Some(Node { content: Content::Map(entries), .. }) => {
            reader.section("", entries, &mut settings);
        }
        None => reader.defaults("", &mut settings),
        Some(node) => {
            if !node.is_empty() {
                reader.findings.error(node.place, || {
                    let message = format!("a configuration is a map of keys, not {}", node.describe());
                    (message, Some("write `key: value`, with a space after the colon".to_owned()))
                });
            }
            reader.defaults("", &mut settings);
        }
    }
    settings
}

struct Reader<'r, 's> {
    directory: &'r Path,
    available: Available,
    findings: &'r mut Findings<'s>,
}

impl Reader<'_, '_> {
    /// Reads the keys of one section or item into `settings`. Answers with the keys that were written wrongly.
    fn section(&mut self, prefix: &'static str, entries: &[Entry], settings: &mut Settings) -> Vec<&'static str> {
        let mut failed = Vec::new();
        for entry in entries {
            let Some(key) = find(&join(prefix, &entry.key)) else {
                self.findings.error(entry.place, || unknown_key(prefix, &entry.key));
                continue;
            };
            match self.value(key, entry, settings) {
                Ok(Some(value)) => {
                    settings.0.insert(key.path, Spanned::new(value, entry.value.place));
                }
                Ok(None) => {}
                Err(Some((place, fault))) => {
                    self.findings.error(place, || (fault.message, fault.hint));
                    failed.push(key.path);
                }
                Err(None) => failed.push(key.path),
            }
        }
        self.defaults(prefix, settings);
        failed
    }

    /// Reads one value. `None`: its parts went into `settings` themselves. The error is `None` when it was already
    /// reported.
    fn value(
        &mut self,
        key: &'static Key,
        entry: &Entry,
        settings: &mut Settings,
    ) -> Result<Option<Value>, Option<(Place, Fault)>> {
        let node = &entry.value;
        let wrong = |fault: Fault| Some((node.place, fault));
        match (key.kind, &node.content) {
            (Kind::Unavailable, _) => Err(Some((entry.place, unavailable(key)))),
            _ if key.path == "kv" && !self.available.kv => Err(Some((entry.place, unavailable(key)))),
            (Kind::Map { .. }, _) if node.is_empty() => Ok(Some(Value::Pools(Vec::new()))),
            (Kind::Map { max }, Content::Map(entries)) => self.pools(key, entries, max).map(Some),
            (Kind::Section { off }, Content::Map(entries)) => {
                self.section(key.path, entries, settings);
                Ok(off.then_some(Value::Present))
            }
            (Kind::Section { off: false }, _) if node.is_empty() => {
                self.defaults(key.path, settings);
                Ok(None)
            }
            _ if node.is_empty() => Err(Some((entry.place, no_value(key)))),
            (Kind::List { max, bare }, Content::List(items)) => self.list(key, items, max, bare).map(Some),
            (Kind::Origins { max }, Content::List(items)) => {
                self.texts(key, node.place, items, max, OriginUrl::parse).map(|urls| Some(Value::Origins(urls)))
            }
            (Kind::Networks { .. }, Content::List(items)) if items.is_empty() => Ok(Some(Value::Networks(Vec::new()))),
            (Kind::Networks { max }, Content::List(items)) => self
                .texts(key, node.place, items, max, |text| network(key.path, text))
                .map(|all| Some(Value::Networks(all.into_iter().map(|one| one.value).collect()))),
            (Kind::Servers { max }, Content::List(items)) => self
                .texts(key, node.place, items, max, |text| kv::text::server(key.path, text))
                .map(|servers| Some(Value::Servers(servers))),
            (Kind::Origins { .. }, Content::Scalar { text, .. }) => match OriginUrl::parse(text) {
                Ok(url) => Ok(Some(Value::Origins(vec![Spanned::new(url, node.place)]))),
                Err(fault) => Err(wrong(fault)),
            },
            (_, Content::Scalar { text, .. }) => scalar(key, text, self.directory).map(Some).map_err(wrong),
            _ => Err(wrong(wrong_shape(key, node))),
        }
    }

    /// Reads the items of a list.
    fn list(
        &mut self,
        key: &'static Key,
        items: &[std::rc::Rc<Node>],
        max: usize,
        bare: Option<&'static str>,
    ) -> Result<Value, Option<(Place, Fault)>> {
        // Each list with items has keys below it, `path[].name`: the first of them has the prefix as its parent.
        let prefix = TABLE
            .iter()
            .map(Key::parent)
            .find(|parent| parent.strip_suffix("[]") == Some(key.path))
            .expect("a list in the table has keys for its items");
        let mut read = Vec::new();
        for (i, item) in items.iter().enumerate() {
            if i == max {
                let message = format!("`{}` has more than {max} items", key.path);
                return Err(Some((item.place, Fault { message, hint: None })));
            }
            let one;
            let entries = match (&item.content, bare) {
                (Content::Map(entries), _) => entries.as_slice(),
                (Content::Scalar { .. }, Some(name)) if !item.is_empty() => {
                    one = [Entry { key: name.to_owned(), place: item.place, value: std::rc::Rc::clone(item) }];
                    one.as_slice()
                }
                _ => {
                    self.findings.error(item.place, || wrong_item(key, prefix, item, bare));
                    continue;
                }
            };
            if let Some(settings) = self.item(prefix, item.place, entries) {
                read.push((item.place, settings));
            }
        }
        Ok(build::items(key.path, read))
    }

    /// Reads the keys of one item or named section; none when one that it cannot be without is missing or wrong.
    fn item(&mut self, prefix: &'static str, place: Place, entries: &[Entry]) -> Option<Settings> {
        let mut settings = Settings::default();
        let failed = self.section(prefix, entries, &mut settings);
        let mut complete = true;
        for key in below(prefix).filter(|key| key.is_required()) {
            if settings.find(key.path).is_none() {
                complete = false;
                if !failed.contains(&key.path) {
                    self.findings.error(place, || missing(key));
                }
            }
        }
        complete.then_some(settings)
    }

    /// Reads the pools by their names.
    fn pools(&mut self, key: &'static Key, entries: &[Entry], max: usize) -> Result<Value, Option<(Place, Fault)>> {
        let mut pools = Vec::new();
        for (i, entry) in entries.iter().enumerate() {
            if i == max {
                let message = format!("`{}` has more than {max} pools", key.path);
                return Err(Some((entry.place, Fault { message, hint: None })));
            }
            if let Err(fault) = section_name(key, &entry.key) {
                self.findings.error(entry.place, || (fault.message, fault.hint));
                continue;
            }
            let Content::Map(keys) = &entry.value.content else {
                self.findings.error(entry.place, || {
                    let message = format!("pool {} takes keys, not {}", quoted(&entry.key), entry.value.describe());
                    let keys: Vec<&str> = below(POOL).filter(|key| key.is_required()).map(Key::name).collect();
                    (message, Some(format!("write its keys below it, at least {}", keys.join(" and "))))
                });
                continue;
            };
            if let Some(settings) = self.item(POOL, entry.place, keys) {
                pools.push(Spanned::new((entry.key.clone(), settings), entry.place));
            }
        }
        Ok(Value::Pools(pools))
    }

    /// Reads a list of texts, each by itself: origins, servers.
    fn texts<T>(
        &mut self,
        key: &'static Key,
        place: Place,
        items: &[std::rc::Rc<Node>],
        max: usize,
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Result<Vec<Spanned<T>>, Option<(Place, Fault)>> {
        let (one, hint) = match key.kind {
            Kind::Origins { .. } => ("origin", "write http://HOST:PORT/, or a list of them"),
            Kind::Networks { .. } => ("address", "write a list of addresses and ranges"),
            _ => ("server", "write a list of HOST:PORT:WEIGHT"),
        };
        if items.is_empty() {
            return Err(Some((place, Fault::new(format!("`{}` names no {one}", key.path), hint))));
        }
        let mut values = Vec::new();
        for item in items.iter().take(max) {
            let fault = match &item.content {
                Content::Scalar { text, .. } => match parse(text) {
                    Ok(value) => {
                        values.push(Spanned::new(value, item.place));
                        continue;
                    }
                    Err(fault) => fault,
                },
                _ => wrong_shape(key, item),
            };
            self.findings.error(item.place, || (fault.message, fault.hint));
        }
        if let Some(item) = items.get(max) {
            let message = format!("`{}` has more than {max} {one}s", key.path);
            return Err(Some((item.place, Fault { message, hint: None })));
        }
        if values.len() == items.len() { Ok(values) } else { Err(None) }
    }

    /// Puts in what is not there, or was written wrongly. Sections that are off by default stay absent.
    fn defaults(&mut self, prefix: &str, settings: &mut Settings) {
        for key in below(prefix) {
            if settings.0.contains_key(key.path) {
                continue;
            }
            match (key.kind, key.default) {
                (Kind::Section { off: false }, _) => {
                    // Present already, when the section was written: then this puts in nothing.
                    self.defaults(key.path, settings);
                }
                (Kind::Map { .. }, _) => {
                    settings.0.insert(key.path, Spanned::new(Value::Pools(Vec::new()), Place::NOWHERE));
                }
                (Kind::List { .. }, Some(_)) => {
                    settings.0.insert(key.path, Spanned::new(build::items(key.path, Vec::new()), Place::NOWHERE));
                }
                (_, Some(default)) => {
                    let value =
                        scalar(key, default, self.directory).expect("the table's defaults are values of their kind");
                    settings.0.insert(key.path, Spanned::new(value, Place::NOWHERE));
                }
                (_, None) => {}
            }
        }
    }
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

fn unknown_key(prefix: &str, name: &str) -> (String, Option<String>) {
    let within = if prefix.is_empty() { String::new() } else { format!(" in `{prefix}`") };
    let message = format!("unknown key {}{within}", quoted(name));
    if name == "<<" {
        return (message, Some("merge keys are not supported; write the keys out".to_owned()));
    }
    let known: Vec<&str> = below(prefix).map(Key::name).collect();
    let hint = if let Some(name) = nearest(name, known.iter().copied()) {
        format!("did you mean `{name}`?")
    } else if let Some(elsewhere) = TABLE.iter().find(|key| key.name() == name || key.path == name) {
        format!("it belongs elsewhere: `{}`", elsewhere.path)
    } else if let Some(elsewhere) =
        nearest(name, TABLE.iter().map(Key::name)).and_then(|near| TABLE.iter().find(|key| key.name() == near))
    {
        format!("did you mean `{}`?", elsewhere.path)
    } else {
        format!("the keys here are {}", known.join(", "))
    };
    (message, Some(hint))
}

fn no_value(key: &Key) -> Fault {
    let hint = match (key.default, key.kind.bounds()) {
        (Some(default), _) => format!("remove the key for its default, `{default}`, or write a value"),
        (None, _) => format!("write a value, such as {}", key.kind.example()),
    };
    Fault::new(format!("`{}` has no value", key.path), hint)
}

fn missing(key: &Key) -> (String, Option<String>) {
    let message = format!("`{}` is missing", key.path);
    (message, Some(format!("write it, such as `{}: \"{}\"`", key.name(), key.kind.example())))
}

fn wrong_shape(key: &Key, node: &Node) -> Fault {
    let takes = match key.kind {
        Kind::Section { .. } => "keys below it".to_owned(),
        Kind::Address { .. } => "an address".to_owned(),
        Kind::Servers { .. } => "a list of servers, each a text".to_owned(),
        Kind::Choice { words, .. } => one_of(words),
        kind => format!("a {}", kind.name()),
    };
    let hint = match (key.kind, key.default) {
        (Kind::Section { .. }, _) => {
            let keys: Vec<&str> = below(key.path).map(Key::name).collect();
            format!("the keys are {}", keys.join(", "))
        }
        _ => format!("write `{}: {}`", key.name(), key.kind.example()),
    };
    Fault::new(format!("`{}` takes {takes}, not {}", key.path, node.describe()), hint)
}

fn wrong_item(key: &Key, prefix: &str, item: &Node, bare: Option<&str>) -> (String, Option<String>) {
    let keys: Vec<&str> = below(prefix).filter(|key| !matches!(key.kind, Kind::Unavailable)).map(Key::name).collect();
    let map = format!("a map of {}", keys.join(", "));
    let hint = match bare {
        Some(name) => format!("write an {name}, or {map}"),
        None => format!("write {map}"),
    };
    (format!("an item of `{}` cannot be {}", key.path, item.describe()), Some(hint))
}
