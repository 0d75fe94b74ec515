//! What twemproxy refuses of YAML before it looks at keys and values: all but plain blocks of one document.

use granit_parser::{Event, Parser, StructureStyle};

use super::{DEPTH_MAX, place_of, syntax};
use crate::diagnostic::{Diagnostic, Place, Severity, Source};

/// Looks at the raw text of `source`, then at how its values are written; what they say is not looked at.
pub(crate) fn only_plain_blocks(source: &Source) -> Result<(), Diagnostic> {
    let refuse = |place: Place, what: &str, hint: &str| {
        source.diagnostic(Severity::Error, place, format!("{what} is not allowed here"), Some(hint.to_owned()))
    };
    // Ends of lines to twemproxy's reader and none to ours: what it would have seen is not what is seen here.
    const LINE_ENDS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];
    for (i, line) in source.text.lines().enumerate() {
        let number = u32::try_from(i).unwrap_or(u32::MAX).saturating_add(1);
        if let Some(at) = line.chars().position(|c| LINE_ENDS.contains(&c)) {
            let column = u32::try_from(at).unwrap_or(u32::MAX).saturating_add(1);
            let what = "a character that ends lines to some (U+0085, U+2028, U+2029)";
            return Err(refuse(Place { line: number, column }, what, "remove it"));
        }
        // Indentation goes on behind the marks of a list's item, a key and a value.
        let is_blank = line.trim_ascii().is_empty();
        if !is_blank && line.trim_start_matches([' ', '-', '?', ':']).starts_with('\t') {
            let place = Place { line: number, column: 1 };
            return Err(refuse(place, "a tab before what the line says", "indent with spaces"));
        }
        let marks = |mark: &str| line.strip_prefix(mark).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
        let what = match line {
            _ if marks("---") => "the start of a document (`---`)",
            _ if marks("...") => "the end of a document (`...`)",
            _ if line.starts_with('%') => "a directive (`%`)",
            _ => continue,
        };
        return Err(refuse(Place { line: number, column: 1 }, what, "the file is one document; remove the line"));
    }
    let options = granit_parser::options! {
        emit_comments: false,
        disallow_directives: true,
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
    };
    for event in Parser::new_from_str_with_options(&source.text, options) {
        let (event, span) = event.map_err(|error| syntax(source, *error.marker(), &error.info()))?;
        let place = place_of(span.start);
        if event.tag().is_some() {
            let place = span.tag_start.map_or(place, place_of);
            return Err(refuse(place, "a tag (`!name`)", "remove it"));
        }
        match event {
            Event::SequenceStart(StructureStyle::Flow, ..) => {
                return Err(refuse(place, "a list in brackets", "write each item on a line of its own, after a dash"));
            }
            Event::MappingStart(StructureStyle::Flow, ..) => {
                return Err(refuse(place, "a map in braces", "write each key on a line of its own"));
            }
            Event::Alias(_) => return Err(refuse(place, "an alias (`*name`)", "write the value out")),
            Event::Scalar(_, _, anchor, _) | Event::SequenceStart(_, anchor, _) | Event::MappingStart(_, anchor, _)
                if anchor != 0 =>
            {
                return Err(refuse(place, "an anchor (`&name`)", "remove it"));
            }
            _ => {}
        }
    }
    Ok(())
}
