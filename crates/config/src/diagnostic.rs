//! What is wrong, where, and what would be right.
//!
//! A [`Diagnostic`] points at one place of one file and carries that line, so that it prints without the file. Text
//! that came from the file is made harmless before it is shown: bounded in length, control characters escaped.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The most errors, and the most warnings, reported of one file; the rest is counted.
pub const DIAGNOSTICS_MAX: usize = 50;

/// The most characters of an offending line that are shown.
const SHOWN_LINE_MAX: usize = 120;

/// The most characters of an offending value that are quoted in a message.
const SHOWN_VALUE_MAX: usize = 60;

/// A place in a file: both numbers count from 1, columns in characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    /// The line, from 1.
    pub line: u32,
    /// The character within the line, from 1.
    pub column: u32,
}

impl Place {
    /// The place of a value that is not written in the file, because it is a default.
    pub const NOWHERE: Self = Self { line: 0, column: 0 };

    /// Whether the value stands in the file; false for a default.
    #[must_use]
    pub const fn is_written(self) -> bool {
        self.line != 0
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A value and where it is written ([`Place::NOWHERE`] for a default). Two are equal when their values are.
#[derive(Clone, Copy, Debug)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it is written.
    pub place: Place,
}

impl<T> Spanned<T> {
    /// `value`, written at `place`.
    pub const fn new(value: T, place: Place) -> Self {
        Self { value, place }
    }
}

impl<T> Deref for Spanned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Spanned<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Spanned<T> {}

impl<T: fmt::Display> fmt::Display for Spanned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// Whether a diagnostic forbids the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can be used, but something in it does not do what was probably meant.
    Warning,
}

/// One finding about a configuration file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// The file, as it was named to the program.
    pub file: String,
    /// Where in the file; none when the finding is about the whole of it.
    pub place: Option<Place>,
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
    /// The offending line, whole or the part around the place.
    pub line_text: Option<String>,
    /// Where in `line_text` the place is, in characters from 0: differs from the column when only a part is kept.
    pub caret: usize,
}

impl fmt::Display for Diagnostic {
    /// `file:line:column: message`, the line with a caret under the place, and what would be right.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if let Some(place) = self.place {
            write!(f, "{place}:")?;
        }
        let warning = if self.severity == Severity::Warning { "warning: " } else { "" };
        write!(f, " {warning}{}", self.message)?;
        let number = self.place.map_or_else(String::new, |place| place.line.to_string());
        let margin = number.len();
        if let Some(line) = &self.line_text {
            write!(f, "\n  {number} | {line}\n  {:margin$} | {:caret$}^", "", "", caret = self.caret)?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  {:margin$} = {hint}", "")?;
        }
        Ok(())
    }
}

/// Everything found wrong with one file, in the order of the file. Never empty when it is an error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.0.iter().enumerate() {
            write!(f, "{}{diagnostic}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

/// The file's name and text, kept with the configuration so that later findings can point into it.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) file: Arc<str>,
    pub(crate) text: Arc<str>,
}

impl Source {
    pub(crate) fn new(file: &str, text: &str) -> Self {
        Self { file: file.into(), text: text.into() }
    }

    /// A finding at `place`, with the line that is there.
    pub(crate) fn diagnostic(
        &self,
        severity: Severity,
        place: Place,
        message: String,
        hint: Option<String>,
    ) -> Diagnostic {
        let (line_text, caret) = match self.line(place.line) {
            Some(line) if !line.is_empty() => {
                let (shown, caret) = excerpt(line, place.column);
                (Some(shown), caret)
            }
            _ => (None, 0),
        };
        let place = place.is_written().then_some(place);
        Diagnostic { file: harmless(&self.file), place, severity, message, hint, line_text, caret }
    }

    /// Line `number`, from 1, without its end. YAML ends lines with LF, CR LF, or CR alone.
    fn line(&self, number: u32) -> Option<&str> {
        let mut left = number.checked_sub(1)?;
        let mut rest: &str = &self.text;
        while left > 0 {
            let end = rest.find(['\n', '\r'])?;
            let long = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
            rest = &rest[end + long..];
            left -= 1;
        }
        rest.split(['\n', '\r']).next()
    }
}

/// The part of `line` around `column` that is worth showing, and where the column is in it.
fn excerpt(line: &str, column: u32) -> (String, usize) {
    let at = usize::try_from(column.saturating_sub(1)).unwrap_or(usize::MAX);
    let length = line.chars().count();
    let at = at.min(length);
    let from = if length <= SHOWN_LINE_MAX { 0 } else { at.saturating_sub(SHOWN_LINE_MAX / 2) };
    let mut shown = String::new();
    let mut caret = 0;
    if from > 0 {
        shown.push('…');
    }
    for (i, c) in line.chars().enumerate().skip(from).take(SHOWN_LINE_MAX) {
        if i == at {
            caret = shown.chars().count();
        }
        shown.push(if c == '\t' || c.is_control() { ' ' } else { c });
    }
    if at >= from + SHOWN_LINE_MAX || at == length {
        caret = shown.chars().count();
    }
    if from + SHOWN_LINE_MAX < length {
        shown.push('…');
    }
    (shown, caret)
}

/// `text` with control characters escaped, so that it cannot move a terminal's cursor.
fn harmless(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// `` `text` `` as it is quoted in messages: harmless, and shortened when long.
pub(crate) fn quoted(text: &str) -> String {
    let mut shown = harmless(&text.chars().take(SHOWN_VALUE_MAX).collect::<String>());
    if text.chars().nth(SHOWN_VALUE_MAX).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// The findings of one reading, bounded: beyond [`DIAGNOSTICS_MAX`] they are only counted.
pub(crate) struct Findings<'a> {
    source: &'a Source,
    errors: Vec<Diagnostic>,
    errors_beyond: usize,
    warnings: Vec<Diagnostic>,
    warnings_beyond: usize,
}

impl<'a> Findings<'a> {
    pub(crate) fn new(source: &'a Source) -> Self {
        Self { source, errors: Vec::new(), errors_beyond: 0, warnings: Vec::new(), warnings_beyond: 0 }
    }

    /// An error at `place`. `why` makes message and hint, and is not asked once enough was found.
    pub(crate) fn error(&mut self, place: Place, why: impl FnOnce() -> (String, Option<String>)) {
        Self::note(self.source, Severity::Error, &mut self.errors, &mut self.errors_beyond, place, why);
    }

    /// A warning at `place`, as [`Self::error`].
    pub(crate) fn warning(&mut self, place: Place, why: impl FnOnce() -> (String, Option<String>)) {
        Self::note(self.source, Severity::Warning, &mut self.warnings, &mut self.warnings_beyond, place, why);
    }

    fn note(
        source: &Source,
        severity: Severity,
        list: &mut Vec<Diagnostic>,
        beyond: &mut usize,
        place: Place,
        why: impl FnOnce() -> (String, Option<String>),
    ) {
        if list.len() >= DIAGNOSTICS_MAX {
            *beyond += 1;
            return;
        }
        let (message, hint) = why();
        let found = source.diagnostic(severity, place, message, hint);
        // The same node may be read twice through an alias.
        if !list.contains(&found) {
            list.push(found);
        }
    }

    /// The warnings, when there was no error; else the errors, in the order of the file.
    pub(crate) fn verdict(mut self) -> Result<Vec<Diagnostic>, Diagnostics> {
        let (list, beyond) = if self.errors.is_empty() {
            (&mut self.warnings, self.warnings_beyond)
        } else {
            (&mut self.errors, self.errors_beyond)
        };
        list.sort_by_key(|found| found.place);
        if beyond > 0 {
            let (severity, what) = list.last().map_or((Severity::Error, "errors"), |last| match last.severity {
                Severity::Error => (Severity::Error, "errors"),
                Severity::Warning => (Severity::Warning, "warnings"),
            });
            let message = format!("and {beyond} more {what}, not shown");
            list.push(self.source.diagnostic(severity, Place::NOWHERE, message, None));
        }
        if self.errors.is_empty() { Ok(self.warnings) } else { Err(Diagnostics(self.errors)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, line: u32, column: u32) -> String {
        Source::new("f", text)
            .diagnostic(Severity::Error, Place { line, column }, "m".to_owned(), Some("h".to_owned()))
            .to_string()
    }

    #[test]
    fn the_caret_stands_under_the_place() {
        assert_eq!(at("a: 1\nbb: 2\n", 2, 5), "f:2:5: m\n  2 | bb: 2\n    |     ^\n    = h");
        assert_eq!(at("a\r\nb\rcc", 3, 2), "f:3:2: m\n  3 | cc\n    |  ^\n    = h");
    }

    #[test]
    fn a_place_beyond_the_text_prints_without_a_line() {
        assert_eq!(at("a: 1\n", 9, 1), "f:9:1: m\n    = h");
        assert_eq!(at("a: 1", 1, 99), "f:1:99: m\n  1 | a: 1\n    |     ^\n    = h");
    }

    #[test]
    fn a_long_line_is_shown_around_the_place_and_control_characters_never() {
        let long = format!("{}\u{1b}[2J{}", "x".repeat(5_000), "y".repeat(5_000));
        let shown = at(&long, 1, 5_001);
        assert!(shown.len() < 400 && !shown.contains('\u{1b}'), "{shown}");
        assert_eq!(quoted("a\u{7}b"), "`a\\u{7}b`");
    }
}
