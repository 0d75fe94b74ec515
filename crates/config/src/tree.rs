//! From YAML text to a tree of nodes, each with its place. Knows no key and no value.
//!
//! The parser below is `granit-parser`; no type of it leaves this file. What YAML can do and a configuration has no use
//! for is refused here: several documents, tags, directives, keys that are not text, aliases that refer to themselves.
//! Aliases are otherwise allowed; a text that grows beyond [`NODES_MAX`] through them is refused before it is expanded.

pub(crate) mod strict;

use std::collections::HashMap;
use std::rc::Rc;

use granit_parser::{Event, Marker, Parser, ScalarStyle, Span};

use crate::diagnostic::{Diagnostic, Findings, Place, Severity, Source, quoted};

/// The most nodes of one file, every use of an alias counted: ten thousand remap rules have some ninety thousand.
const NODES_MAX: usize = 250_000;

/// The deepest nesting of lists and maps. The deepest key that exists has five levels.
const DEPTH_MAX: usize = 32;

/// A value of the file and where it starts and ends.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    /// Behind its last character; of a block, where the next thing begins.
    pub(crate) end: Place,
    pub(crate) content: Content,
}

/// What a node holds. Shared, because an alias stands for the same node again.
#[derive(Debug)]
pub(crate) enum Content {
    /// A text; `plain` when it stood without quotes, so that `~` and nothing at all can mean "no value".
    Scalar { text: String, plain: bool },
    /// `[a, b]` or lines with dashes.
    List(Vec<Rc<Node>>),
    /// `{a: b}` or lines with colons, in the order of the file, no key twice.
    Map(Vec<Entry>),
}

/// One `key: value`.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) value: Rc<Node>,
}

impl Node {
    /// Whether nothing is written: `key:` alone, `key: ~` or `key: null`.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(&self.content, Content::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null"))
    }

    /// What this is called in a message.
    pub(crate) fn describe(&self) -> String {
        match &self.content {
            _ if self.is_empty() => "no value".to_owned(),
            Content::Scalar { text, .. } => quoted(text),
            Content::List(_) => "a list".to_owned(),
            Content::Map(_) => "a map of keys".to_owned(),
        }
    }
}

/// Reads `source` as one YAML document; `None` when it holds nothing.
///
/// A text that is no YAML, or not of the kind described above, ends the reading: the error is returned. A key that
/// stands twice does not: it goes to `findings`, and its first value is taken.
pub(crate) fn read(source: &Source, findings: &mut Findings<'_>) -> Result<Option<Rc<Node>>, Diagnostic> {
    let options = granit_parser::options! {
        emit_comments: false,
        disallow_directives: true,
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
    };
    let mut builder = Builder { source, open: Vec::new(), anchors: HashMap::new(), nodes: 0, root: None };
    for event in Parser::new_from_str_with_options(&source.text, options) {
        let (event, span) = event.map_err(|error| syntax(source, *error.marker(), &error.info()))?;
        builder.take(event, span, findings)?;
    }
    Ok(builder.root)
}

/// A list or map whose end has not come yet.
struct Open {
    place: Place,
    anchor: usize,
    /// `nodes` when it began: the difference at its end is its weight.
    nodes_before: usize,
    holds: Holds,
}

enum Holds {
    List(Vec<Rc<Node>>),
    Map { entries: Vec<Entry>, key: Option<(String, Place)>, seen: HashMap<String, Place> },
}

struct Builder<'a> {
    source: &'a Source,
    open: Vec<Open>,
    /// Finished nodes that have a name, with the number of nodes in them.
    anchors: HashMap<usize, (Rc<Node>, usize)>,
    nodes: usize,
    root: Option<Rc<Node>>,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: Span, findings: &mut Findings<'_>) -> Result<(), Diagnostic> {
        let place = place_of(span.start);
        if event.tag().is_some() {
            let tag = span.tag_start().map_or(place, place_of);
            return Err(self.refuse(tag, "tags (`!name`) have no meaning here", "remove the tag"));
        }
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                Err(self.refuse(place, "a second document starts here", "one file is one document: remove the `---`"))
            }
            Event::Scalar(text, style, anchor, _) => {
                self.count(1, place)?;
                let plain = style == ScalarStyle::Plain;
                // Where nothing is written the parser says `~`, which somebody may also have written.
                let text = if plain && span.is_empty() { String::new() } else { text.into_owned() };
                let content = Content::Scalar { text, plain };
                self.finish(Node { place, end: place_of(span.end), content }, anchor, 1, findings)
            }
            Event::SequenceStart(_, anchor, _) => self.begin(place, anchor, Holds::List(Vec::new())),
            Event::MappingStart(_, anchor, _) => {
                self.begin(place, anchor, Holds::Map { entries: Vec::new(), key: None, seen: HashMap::new() })
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                let content = match open.holds {
                    Holds::List(items) => Content::List(items),
                    Holds::Map { entries, .. } => Content::Map(entries),
                };
                let weight = self.nodes - open.nodes_before;
                let node = Node { place: open.place, end: place_of(span.end), content };
                self.finish(node, open.anchor, weight, findings)
            }
            Event::Alias(id) => {
                let Some((node, weight)) = self.anchors.get(&id).cloned() else {
                    return Err(self.refuse(place, "this alias refers to what it stands in", "write the value out"));
                };
                self.count(weight, place)?;
                self.put(node, place, findings)
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, place: Place, anchor: usize, holds: Holds) -> Result<(), Diagnostic> {
        let nodes_before = self.nodes;
        self.count(1, place)?;
        self.open.push(Open { place, anchor, nodes_before, holds });
        Ok(())
    }

    fn count(&mut self, more: usize, place: Place) -> Result<(), Diagnostic> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes <= NODES_MAX {
            return Ok(());
        }
        let message = format!("the file holds more than {NODES_MAX} values, aliases counted wherever they are used");
        Err(self.refuse(place, &message, "make it smaller"))
    }

    fn finish(
        &mut self,
        node: Node,
        anchor: usize,
        weight: usize,
        findings: &mut Findings<'_>,
    ) -> Result<(), Diagnostic> {
        let node = Rc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, (Rc::clone(&node), weight));
        }
        let place = node.place;
        self.put(node, place, findings)
    }

    /// Hands a finished node to the list, map or document it belongs to.
    fn put(&mut self, node: Rc<Node>, place: Place, findings: &mut Findings<'_>) -> Result<(), Diagnostic> {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.holds {
            Holds::List(items) => items.push(node),
            Holds::Map { entries, key, seen } => match key.take() {
                None => {
                    let Content::Scalar { text, .. } = &node.content else {
                        return Err(self.refuse(place, "a key must be a plain name", "write `key: value`"));
                    };
                    *key = Some((text.clone(), place));
                }
                Some((key, place)) => {
                    if let Some(first) = seen.get(&key) {
                        findings.error(place, || {
                            let message = format!("{} is already set on line {}", quoted(&key), first.line);
                            (message, Some("keep one of the two".to_owned()))
                        });
                    } else {
                        seen.insert(key.clone(), place);
                        entries.push(Entry { key, place, value: node });
                    }
                }
            },
        }
        Ok(())
    }

    fn refuse(&self, place: Place, message: &str, hint: &str) -> Diagnostic {
        self.source.diagnostic(Severity::Error, place, message.to_owned(), Some(hint.to_owned()))
    }
}

fn place_of(marker: Marker) -> Place {
    Place {
        line: u32::try_from(marker.line().max(1)).unwrap_or(u32::MAX),
        column: u32::try_from(marker.col().saturating_add(1)).unwrap_or(u32::MAX),
    }
}

/// A text that is no YAML. The parser's own words, and a hint where the line shows one of the usual slips.
fn syntax(source: &Source, marker: Marker, info: &str) -> Diagnostic {
    let place = place_of(marker);
    let mut found = source.diagnostic(Severity::Error, place, format!("this is not YAML: {info}"), None);
    let line = found.line_text.as_deref().unwrap_or("");
    let indent: String = source
        .text
        .lines()
        .nth(usize::try_from(place.line.saturating_sub(1)).unwrap_or(usize::MAX))
        .unwrap_or("")
        .chars()
        .take_while(|c| c.is_whitespace())
        .collect();
    let hint = if indent.contains('\t') {
        "indent with spaces; YAML does not take tabs"
    } else if line.contains("[::") || line.contains("]:") {
        "an IPv6 address needs quotes: \"[::1]:8080\""
    } else if info.contains("quote") {
        "does a quote not close?"
    } else if info.contains("mapping values") {
        "a value with a colon and a space in it needs quotes; keys of one section are equally far indented"
    } else if info.contains("block mapping") || info.contains("block collection") {
        "keys and dashes of one section are equally far indented"
    } else if info.contains("recursion") {
        "no key is more than a few levels deep"
    } else if info.contains("anchor") {
        "name the value first, with `&name` before it"
    } else if line.contains(['{', '[', '}', ']']) {
        "does a brace or bracket not close, or is a comma missing?"
    } else {
        return found;
    };
    found.hint = Some(hint.to_owned());
    found
}
