//! The fragments of a body that is coming in, in order, each with the place of its first byte.
//!
//! Most bodies are one fragment: that takes no memory beside its own.

use std::collections::VecDeque;

use crate::body::Fragment;

/// See the module.
#[derive(Debug, Default)]
pub(crate) enum Pieces {
    #[default]
    None,
    One(u64, Fragment),
    Many(VecDeque<(u64, Fragment)>),
}

impl Pieces {
    /// Appends a fragment; what lies in the memory of the last one, just behind it, becomes part of it.
    pub(crate) fn push(&mut self, place: u64, fragment: Fragment) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(place, fragment),
            Self::One(first, mut one) => {
                if one.extend(&fragment) {
                    Self::One(first, one)
                } else {
                    Self::Many(VecDeque::from([(first, one), (place, fragment)]))
                }
            }
            Self::Many(mut many) => {
                if !many.back_mut().is_some_and(|(_, last)| last.extend(&fragment)) {
                    many.push_back((place, fragment));
                }
                Self::Many(many)
            }
        };
    }

    /// The last two, with the place of the first of them.
    pub(crate) fn last_two(&self) -> Option<(u64, &Fragment, u64, &Fragment)> {
        let Self::Many(many) = self else { return None };
        let before = many.len().checked_sub(2)?;
        let ((place, first), (next, second)) = (many.get(before)?, many.get(before + 1)?);
        Some((*place, first, *next, second))
    }

    /// Puts `joined` in place of the last two.
    pub(crate) fn replace_last_two(&mut self, place: u64, joined: Fragment) {
        if let Self::Many(many) = self {
            many.truncate(many.len().saturating_sub(2));
            many.push_back((place, joined));
        }
    }

    /// What is held at `place`, from there on.
    pub(crate) fn at(&self, place: u64) -> Option<Fragment> {
        let (start, fragment) = match self {
            Self::None => return None,
            Self::One(start, one) => (start, one),
            Self::Many(many) => {
                let after = many.partition_point(|(start, _)| *start <= place);
                let (start, fragment) = many.get(after.checked_sub(1)?)?;
                (start, fragment)
            }
        };
        let skip = usize::try_from(place.checked_sub(*start)?).ok().filter(|skip| *skip < fragment.len())?;
        Some(fragment.part(skip..fragment.len()))
    }

    /// Takes out the first one, if it ends at `end` or before.
    pub(crate) fn pop_before(&mut self, end: u64) -> Option<Fragment> {
        let is_before = |(start, fragment): &(u64, Fragment)| start + fragment.len() as u64 <= end;
        match std::mem::take(self) {
            Self::None => None,
            Self::One(start, one) => {
                let one = (start, one);
                if is_before(&one) {
                    return Some(one.1);
                }
                *self = Self::One(one.0, one.1);
                None
            }
            Self::Many(mut many) => {
                let popped = if many.front().is_some_and(is_before) { many.pop_front() } else { None };
                *self = Self::Many(many);
                popped.map(|(_, fragment)| fragment)
            }
        }
    }

    /// The one fragment, if there is just one.
    pub(crate) fn single(&self) -> Option<&Fragment> {
        match self {
            Self::One(_, one) => Some(one),
            Self::None | Self::Many(_) => None,
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Fragment> {
        match self {
            Self::None => Vec::new(),
            Self::One(_, one) => vec![one.clone()],
            Self::Many(many) => many.iter().map(|(_, fragment)| fragment.clone()).collect(),
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(..) => 1,
            Self::Many(many) => many.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn pieces(parts: &[&[u8]]) -> Pieces {
        let (mut pieces, mut at) = (Pieces::default(), 0);
        for part in parts {
            pieces.push(at, Fragment::new(Arc::from(*part)));
            at += part.len() as u64;
        }
        pieces
    }

    #[test]
    fn every_place_reads_on_from_there_however_many_there_are() {
        for parts in [&[][..], &[&b"abcdef"[..]], &[b"abc", b"def"], &[b"a", b"bcd", b"ef"]] {
            let whole = parts.concat();
            let pieces = pieces(parts);
            assert_eq!((pieces.len(), pieces.all().len()), (parts.len(), parts.len()));
            assert_eq!(pieces.single().is_some(), parts.len() == 1);
            for place in 0..=whole.len() + 1 {
                let read = pieces.at(place as u64);
                assert_eq!(read.is_some(), place < whole.len(), "{place}");
                assert!(read.is_none_or(|read| whole[place..].starts_with(&read) && !read.is_empty()));
            }
        }
    }

    #[test]
    fn the_first_go_as_soon_as_they_lie_before_an_end() {
        let mut many = pieces(&[b"abc", b"d", b"ef"]);
        assert!(many.pop_before(2).is_none());
        assert_eq!(many.pop_before(4).as_deref(), Some(&b"abc"[..]));
        assert_eq!(many.pop_before(4).as_deref(), Some(&b"d"[..]));
        assert!(many.pop_before(4).is_none() && many.at(3).is_none());
        assert_eq!(many.at(5).as_deref(), Some(&b"f"[..]));
        let mut one = pieces(&[b"abc"]);
        assert!(one.pop_before(2).is_none());
        assert_eq!(one.at(2).as_deref(), Some(&b"c"[..]));
        assert_eq!(one.pop_before(3).as_deref(), Some(&b"abc"[..]));
        assert!(one.pop_before(9).is_none() && one.at(0).is_none());
    }
}
