//! Responses that vary with fields of the request (RFC 9111 §4.1).
//!
//! With a stored response lie the names of `Vary` and the values that its own request had for them, normalised. A later
//! request is served from it only if its values are the same. Normalising never makes the same of what an origin might
//! tell apart: lines are joined; in the fields of content negotiation, which are lists, whitespace around `,` and `;`
//! goes, and case where case has no meaning. The order of a list stays: for some origins it matters.
//!
//! Read [`choose`].

use xxhash_rust::xxh3::Xxh3Default;

use super::store::Reason;
use super::stored::StoredMeta;
use crate::wire::field::Known;
use crate::wire::h1::{RequestHead, ResponseHead};
use crate::wire::list;

/// So many fields may a response vary with. More are a mistake, and each costs every hit a search.
pub const VARY_NAMES_MAX: usize = 16;
/// Bytes that names and values of one response may take together: each alternate carries its own.
pub const VARY_SIZE_MAX: usize = 8 * 1024;

/// What was found among the alternates of one URL.
#[derive(Clone, Copy, Debug)]
pub enum Choice<'a> {
    /// This one: the place in the order in which they were given, and its record.
    Found(usize, StoredMeta<'a>),
    /// Something is stored, but for other requests.
    VaryMiss,
    /// Nothing is stored.
    UriMiss,
}

/// Chooses among the records of one URL. When several match, the most recent by `Date` is taken, among equals the one
/// received last (RFC 9111 §4). Records that cannot be read are passed over.
#[inline]
#[must_use]
pub fn choose<'a>(stored: impl IntoIterator<Item = &'a [u8]>, request: &RequestHead, text: &[u8]) -> Choice<'a> {
    let mut choice = Choice::UriMiss;
    for (at, bytes) in stored.into_iter().enumerate() {
        let Some(meta) = StoredMeta::decode(bytes) else { continue };
        let is_better = match &choice {
            Choice::Found(_, best) => (meta.date_s(), meta.response_time()) >= (best.date_s(), best.response_time()),
            Choice::VaryMiss | Choice::UriMiss => true,
        };
        if is_better && matches(meta.vary(), request, text) {
            choice = Choice::Found(at, meta);
        } else if matches!(choice, Choice::UriMiss) {
            choice = Choice::VaryMiss;
        }
    }
    choice
}

/// Does the request have the same values as the one that brought the stored response?
#[inline]
#[must_use]
pub fn matches(nominated: Nominated<'_>, request: &RequestHead, text: &[u8]) -> bool {
    nominated.is_empty() || matches_each(nominated, request, text)
}

fn matches_each(nominated: Nominated<'_>, request: &RequestHead, text: &[u8]) -> bool {
    nominated.into_iter().all(|field| {
        let known = Known::of(field.name);
        let mut lines = values(request, text, known, field.name);
        // Nearly all clients write lists the way we keep them.
        if let (Some(line), None) = (lines.next(), lines.next())
            && field.value == Some(line)
        {
            return true;
        }
        let shape = Shape::of(known);
        let mut rest = field.value.unwrap_or_default();
        let mut same = true;
        let found = normalise(shape, values(request, text, known, field.name), &mut |piece| {
            same &= rest.split_at_checked(piece.len()).is_some_and(|(start, behind)| {
                rest = behind;
                if shape == Shape::CaselessList { start.eq_ignore_ascii_case(piece) } else { start == piece }
            });
        });
        found == field.value.is_some() && same && rest.is_empty()
    })
}

/// A number that two requests share when they match the same nominated values, for an index over many alternates. Equal
/// numbers are no proof: ask [`matches()`].
#[must_use]
pub fn secondary_key(nominated: Nominated<'_>, request: &RequestHead, text: &[u8]) -> u64 {
    let mut hash = Xxh3Default::new();
    for field in nominated {
        let known = Known::of(field.name);
        let shape = Shape::of(known);
        let found = normalise(shape, values(request, text, known, field.name), &mut |piece| {
            if shape == Shape::CaselessList {
                piece.iter().for_each(|b| hash.update(&[b.to_ascii_lowercase()]));
            } else {
                hash.update(piece);
            }
        });
        // Neither byte occurs in a field value.
        hash.update(if found { b"\n" } else { b"\0" });
    }
    hash.digest()
}

/// Can this response's `Vary` be kept?
///
/// # Errors
/// [`Reason::VaryStar`] for `*` and what is no field name, [`Reason::VaryTooMany`] beyond [`VARY_NAMES_MAX`].
pub fn judge(response: &ResponseHead, text: &[u8]) -> Result<(), Reason> {
    for (at, name) in response.find(Known::Vary, text).flat_map(list::elements).enumerate() {
        if name == b"*" || !list::is_token(name) {
            return Err(Reason::VaryStar);
        }
        if at >= VARY_NAMES_MAX || name.len() > usize::from(u8::MAX) {
            return Err(Reason::VaryTooMany);
        }
    }
    Ok(())
}

/// Appends the names of `Vary`, and what the request says for each.
///
/// # Errors
/// As [`judge`], and [`Reason::VaryTooMany`] when it takes more than [`VARY_SIZE_MAX`] bytes.
pub(super) fn append(
    out: &mut Vec<u8>,
    response: &ResponseHead,
    response_text: &[u8],
    request: &RequestHead,
    request_text: &[u8],
) -> Result<(), Reason> {
    judge(response, response_text)?;
    let start = out.len();
    for name in response.find(Known::Vary, response_text).flat_map(list::elements) {
        if Nominated::new(out.get(start..).unwrap_or_default()).into_iter().any(|f| f.name.eq_ignore_ascii_case(name)) {
            continue;
        }
        let at = out.len();
        out.extend_from_slice(&[u8::try_from(name.len()).unwrap_or(0), 0, 0, 0]);
        out.extend_from_slice(name);
        out[at + ENTRY_LEN..].make_ascii_lowercase();
        let value_at = out.len();
        let known = Known::of(name);
        let shape = Shape::of(known);
        let found = normalise(shape, values(request, request_text, known, name), &mut |piece| {
            let from = out.len();
            out.extend_from_slice(piece);
            if shape == Shape::CaselessList {
                out[from..].make_ascii_lowercase();
            }
        });
        if out.len() - start > VARY_SIZE_MAX {
            return Err(Reason::VaryTooMany);
        }
        let [low, high] = u16::try_from(out.len() - value_at).map_err(|_| Reason::VaryTooMany)?.to_le_bytes();
        (out[at + 1], out[at + 2], out[at + 3]) = (u8::from(found), low, high);
    }
    Ok(())
}

/// One nominated field of a stored response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NominatedField<'a> {
    /// The name, in lower case.
    pub name: &'a [u8],
    /// The normalised value; `None` when the request had no such field, which is not the same as an empty one.
    pub value: Option<&'a [u8]>,
}

/// The nominated fields of a stored response, read as they lie.
///
/// ```text
/// entry = name length: u8, is present: u8, value length: u16, name, value
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nominated<'a> {
    bytes: &'a [u8],
}

const ENTRY_LEN: usize = 4;

impl<'a> Nominated<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The response does not vary.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// Is every byte of it part of a whole entry? Reading stops at one that is not.
    pub(super) fn is_whole(self) -> bool {
        let mut fields = self.into_iter();
        while fields.next().is_some() {}
        fields.rest.is_empty()
    }
}

impl<'a> IntoIterator for Nominated<'a> {
    type Item = NominatedField<'a>;
    type IntoIter = NominatedFields<'a>;

    fn into_iter(self) -> NominatedFields<'a> {
        NominatedFields { rest: self.bytes }
    }
}

/// Iterates over [`Nominated`].
#[derive(Clone, Debug)]
pub struct NominatedFields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for NominatedFields<'a> {
    type Item = NominatedField<'a>;

    fn next(&mut self) -> Option<NominatedField<'a>> {
        let ([name_len, present, low, high], rest) = self.rest.split_first_chunk::<ENTRY_LEN>()?;
        let (name, rest) = rest.split_at_checked(usize::from(*name_len))?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([*low, *high])))?;
        self.rest = rest;
        Some(NominatedField { name, value: (*present != 0).then_some(value) })
    }
}

/// What may be changed in a field's value without changing its meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    /// Nothing.
    Opaque,
    /// Whitespace around `,` and `;`.
    List,
    /// And the case of letters.
    CaselessList,
}

impl Shape {
    const fn of(known: Known) -> Self {
        match known {
            Known::AcceptEncoding | Known::AcceptLanguage | Known::AcceptCharset => Self::CaselessList,
            Known::Accept => Self::List,
            _ => Self::Opaque,
        }
    }
}

fn values<'a>(
    request: &'a RequestHead,
    text: &'a [u8],
    known: Known,
    name: &'a [u8],
) -> impl Iterator<Item = &'a [u8]> {
    let is_known = known != Known::Other;
    let known_lines = is_known.then(|| request.find(known, text));
    let other_lines = (!is_known && request.present().has(Known::Other)).then(|| request.fields(text));
    let named = other_lines.into_iter().flatten().filter(|field| field.name.eq_ignore_ascii_case(name));
    known_lines.into_iter().flatten().chain(named.map(|field| field.value))
}

/// Between the elements of a normalised list. What is normalised once stays the same when it is again, so a line that
/// equals what is kept needs no second look.
const SEPARATOR: &[u8] = b", ";

/// Feeds the normalised value piece by piece, in its own case; says whether there was any line.
#[inline]
fn normalise<'a>(shape: Shape, lines: impl Iterator<Item = &'a [u8]>, feed: &mut impl FnMut(&[u8])) -> bool {
    let (mut found, mut filled) = (false, false);
    for line in lines {
        if shape == Shape::Opaque {
            if found {
                feed(SEPARATOR);
            }
            feed(line);
        } else if memchr::memchr(b'"', line).is_some() {
            // Quotes may hide what looks like a separator.
            if filled {
                feed(SEPARATOR);
            }
            feed(line);
            filled = true;
        } else {
            for element in list::elements(line) {
                if filled {
                    feed(SEPARATOR);
                }
                filled = true;
                let mut parts = element.split(|&b| b == b';');
                feed(parts.next().unwrap_or_default().trim_ascii());
                for part in parts {
                    feed(b";");
                    feed(part.trim_ascii());
                }
            }
        }
        found = true;
    }
    found
}

#[cfg(test)]
#[path = "vary/tests.rs"]
mod tests;
