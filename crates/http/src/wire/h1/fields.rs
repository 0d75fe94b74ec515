//! The field lines of one head: spans into the buffer, ids, and the facts gathered on the way.

use super::super::field::{Field, FieldSet, Known};
use super::facts::Facts;
use super::{Reason, Span, narrow};

/// Where one field line lies. The line starts with its name and ends where the next one starts.
#[derive(Clone, Copy, Debug)]
struct Line {
    name: Span,
    value: Span,
    known: Known,
}

/// All field lines of a head, in order.
#[derive(Default, Debug)]
pub(crate) struct Fields {
    lines: Vec<Line>,
    present: FieldSet,
    /// Where the empty line starts.
    end: u16,
    pub(super) facts: Facts,
}

impl Fields {
    /// Takes over what the tokenizer found in `buf`, whose head ends before `head_end`.
    ///
    /// The tokenizer takes LF for a line end. Here every line must end in CR LF: the two bytes before each name, and
    /// the four at the end of the head. Nothing else can stand there, for a value holds neither CR nor LF.
    #[inline]
    pub(super) fn load(&mut self, buf: &[u8], head_end: usize, headers: &[httparse::Header<'_>]) -> Result<(), Reason> {
        self.lines.clear();
        self.present = FieldSet::EMPTY;
        self.facts = Facts::default();
        let mut line_ends = buf[..head_end].ends_with(b"\r\n\r\n");
        self.end = narrow(head_end.saturating_sub(2));
        for header in headers {
            let name = Span::within(buf, header.name.as_bytes());
            let value = Span::within(buf, header.value);
            let at = usize::from(name.start);
            line_ends &= at >= 2 && buf[at - 2] == b'\r' && buf[at - 1] == b'\n';
            let known = Known::of(header.name.as_bytes());
            self.present = self.present.with(known);
            self.lines.push(Line { name, value, known });
        }
        if !line_ends {
            return Err(Reason::BareLf);
        }
        if self.present.meets(JUDGED) { self.judge(buf) } else { Ok(()) }
    }

    fn judge(&mut self, buf: &[u8]) -> Result<(), Reason> {
        for line in &self.lines {
            let facts = &mut self.facts;
            match line.known {
                Known::Host => {
                    facts.hosts = facts.hosts.saturating_add(1);
                    facts.host = line.value;
                }
                Known::ContentLength => facts.content_length(line.value.of(buf))?,
                Known::TransferEncoding => facts.transfer_encoding(line.value.of(buf))?,
                Known::Connection => facts.connection(line.value.of(buf))?,
                Known::Expect => facts.expect(line.value.of(buf)),
                _ => {}
            }
        }
        Ok(())
    }

    /// The names that occur.
    #[inline]
    pub(crate) fn present(&self) -> FieldSet {
        self.present
    }

    /// Does `Connection` name fields beyond those that are removed anyway?
    #[inline]
    pub(crate) fn nominates(&self) -> bool {
        self.facts.nominates
    }

    pub(crate) fn count(&self) -> usize {
        self.lines.len()
    }

    /// Every field with the place of its whole line, line end included.
    #[inline]
    pub(crate) fn lines<'a>(&'a self, buf: &'a [u8]) -> impl Iterator<Item = (usize, Field<'a>)> {
        self.lines.iter().map(move |line| {
            let field = Field { known: line.known, name: line.name.of(buf), value: line.value.of(buf) };
            (usize::from(line.name.start), field)
        })
    }

    /// The whole of the line at a place that [`Fields::lines`] gave, where it is written in the usual way: one space
    /// behind the colon, none behind the value.
    #[inline]
    pub(crate) fn usual_line<'a>(at: usize, field: &Field<'a>, buf: &'a [u8]) -> Option<&'a [u8]> {
        let value = at + field.name.len() + 2;
        let end = value + field.value.len();
        let line = buf.get(at..end + 2)?;
        // The value is trimmed: with other spaces around it, what lies there is not it, or not followed by the end.
        let is_usual = buf[value - 2..value] == *b": "
            && buf[end..end + 2] == *b"\r\n"
            && std::ptr::eq(field.value, &buf[value..end]);
        is_usual.then_some(line)
    }

    /// Where the first line starts, and where the empty line does.
    #[inline]
    pub(crate) fn extent(&self) -> (usize, usize) {
        let end = usize::from(self.end);
        (self.lines.first().map_or(end, |line| usize::from(line.name.start)), end)
    }

    #[inline]
    pub(crate) fn iter<'a>(&'a self, buf: &'a [u8]) -> impl Iterator<Item = Field<'a>> {
        self.lines(buf).map(|(_, field)| field)
    }

    #[inline]
    pub(crate) fn find<'a>(&'a self, known: Known, buf: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let lines = if self.present.has(known) { self.lines.as_slice() } else { &[] };
        lines.iter().filter(move |line| line.known == known).map(move |line| line.value.of(buf))
    }
}

const JUDGED: FieldSet =
    FieldSet::of(&[Known::Host, Known::ContentLength, Known::TransferEncoding, Known::Connection, Known::Expect]);
