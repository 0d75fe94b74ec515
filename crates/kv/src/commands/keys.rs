//! Where the keys of a request are.

use super::{Command, Find, integer};

/// Why a request's keys cannot be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeysError {
    /// There is no key where there must be one, or the number of keys is no number or too large.
    Syntax,
    /// The number of keys is below what is allowed.
    NoKeys,
}

/// The places of a request's keys among its arguments.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Keys {
    /// The first of the range.
    pub first: usize,
    /// Behind the last.
    pub end: usize,
    /// From one to the next.
    pub step: usize,
    /// Before all others: where a destination is apart from the rest. 0: none.
    pub before: usize,
    /// Behind `STORE`; 0: none.
    pub after: usize,
    /// Keys are made of values by a pattern, so that they cannot be told.
    pub hidden: bool,
    /// The server may wait before it replies.
    pub blocks: bool,
}

impl Keys {
    /// Each place, in the order of the request.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let one = |at: usize| (at > 0).then_some(at);
        one(self.before).into_iter().chain((self.first..self.end).step_by(self.step.max(1))).chain(one(self.after))
    }

    /// The place of the only key; `None` when there are more, or none.
    #[inline]
    #[must_use]
    pub fn single(&self) -> Option<usize> {
        (self.end > self.first && self.first + self.step.max(1) >= self.end && self.before == 0 && self.after == 0)
            .then_some(self.first)
    }
}

/// The keys of a request of `count` arguments, of which `argument` gives the bytes.
///
/// # Errors
/// When they cannot be told: the server would refuse the request too.
#[inline]
pub fn keys<'a>(command: &Command, count: usize, argument: impl Fn(usize) -> &'a [u8]) -> Result<Keys, KeysError> {
    let (first, last, step) = command.places;
    let range = |first: usize, end: usize, step: usize| Keys { first, end, step, ..Keys::default() };
    match command.find {
        Find::Range => {
            if first <= 0 {
                return Ok(Keys::default());
            }
            let first = usize::from(first.unsigned_abs());
            let last = match usize::try_from(last) {
                Ok(last) => last,
                Err(_) => count.saturating_sub(usize::from(last.unsigned_abs())),
            };
            if last < first || last >= count {
                return Err(KeysError::Syntax);
            }
            Ok(range(first, last + 1, usize::from(step.unsigned_abs())))
        }
        Find::Counted(at) => {
            let at = usize::from(at);
            let keys = counted(count, at, &argument)?;
            if keys == 0 { Err(KeysError::NoKeys) } else { Ok(range(at + 1, at + 1 + keys, 1)) }
        }
        Find::Script => {
            let keys = counted(count, 2, &argument)?;
            Ok(range(3, 3 + keys, 1))
        }
        Find::StoredCounted => {
            let keys = counted(count, 2, &argument)?;
            if keys == 0 { Err(KeysError::NoKeys) } else { Ok(Keys { before: 1, ..range(3, 3 + keys, 1) }) }
        }
        Find::Streams => {
            let (at, blocks) = streams(count, &argument)?;
            let rest = count - at;
            if !rest.is_multiple_of(2) {
                return Err(KeysError::Syntax);
            }
            Ok(Keys { blocks, ..range(at, at + rest / 2, 1) })
        }
        Find::Stores | Find::Sort => {
            let mut keys = range(1, 2, 1);
            // What must be there may be any word: a member called `store`.
            let mut at = usize::from(command.arity.unsigned_abs());
            while at < count {
                let word = argument(at);
                if word.eq_ignore_ascii_case(b"store") || word.eq_ignore_ascii_case(b"storedist") {
                    // With nothing behind it the first key's server says what is wrong.
                    keys.after = if at + 1 < count { at + 1 } else { 0 };
                    at += 1;
                } else if command.find == Find::Sort
                    && (word.eq_ignore_ascii_case(b"by") || word.eq_ignore_ascii_case(b"get"))
                    && at + 1 < count
                {
                    keys.hidden |= argument(at + 1).contains(&b'*');
                    at += 1;
                }
                at += 1;
            }
            Ok(keys)
        }
    }
}

/// Where the names of streams begin, and whether there is an option to wait for them: behind their word, before which
/// options stand in any order. A group, a consumer or a stream may bear any of these words as its name.
fn streams<'a>(count: usize, argument: &impl Fn(usize) -> &'a [u8]) -> Result<(usize, bool), KeysError> {
    let (mut at, mut blocks) = (1, false);
    while at + 1 < count {
        // To the server, which compares strings of C, a word ends at its first zero.
        let word = argument(at).split(|byte| *byte == 0).next().unwrap_or_default();
        let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
        if is(b"streams") {
            return Ok((at + 1, blocks));
        }
        blocks |= is(b"block");
        // What newer servers may know is passed over word by word, as `NOACK` is.
        at += if is(b"group") {
            3
        } else if is(b"block") || is(b"count") {
            2
        } else {
            1
        };
    }
    Err(KeysError::Syntax)
}

fn counted<'a>(count: usize, at: usize, argument: &impl Fn(usize) -> &'a [u8]) -> Result<usize, KeysError> {
    if at >= count {
        return Err(KeysError::Syntax);
    }
    let keys = integer(argument(at)).ok_or(KeysError::Syntax)?;
    let keys = usize::try_from(keys).map_err(|_| KeysError::NoKeys)?;
    if keys > count - at - 1 { Err(KeysError::Syntax) } else { Ok(keys) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::look_up;

    fn found(request: &str) -> Result<Vec<&str>, KeysError> {
        let words: Vec<&str> = request.split(' ').collect();
        let command = look_up(words[0].as_bytes()).unwrap();
        let keys = keys(command, words.len(), |at| words[at].as_bytes())?;
        Ok(keys.iter().map(|at| words[at]).collect())
    }

    #[test]
    fn keys_are_found_where_each_command_has_them() {
        assert_eq!(found("GET a").unwrap(), ["a"]);
        assert_eq!(found("MSET a 1 b 2").unwrap(), ["a", "b"]);
        assert_eq!(found("BITOP AND d a b").unwrap(), ["d", "a", "b"]);
        assert_eq!(found("ZUNION 2 a b WEIGHTS 1 2").unwrap(), ["a", "b"]);
        assert_eq!(found("ZUNIONSTORE d 2 a b").unwrap(), ["d", "a", "b"]);
        assert_eq!(found("EVAL s 1 a x").unwrap(), ["a"]);
        assert_eq!(found("XREADGROUP GROUP streams c STREAMS a >").unwrap(), ["a"]);
        assert_eq!(
            found("XREADGROUP NOACK BLOCK 0 COUNT 1 GROUP streams streams STREAMS a b > >").unwrap(),
            ["a", "b"]
        );
        assert_eq!(found("XREADGROUP COUNT 1 GROUP streams x STREAMS a >").unwrap(), ["a"]);
        assert_eq!(found("XREADGROUP GROUP block count STREAMS streams >").unwrap(), ["streams"]);
        assert_eq!(found("XREAD STREAMS a block 0 0").unwrap(), ["a", "block"]);
        assert_eq!(found("XREADGROUP GROUP g c CLAIM 100 BLOCK 0 STREAMS a >").unwrap(), ["a"]);
        assert_eq!(found("XREAD COUNT 1 BLOCK STREAMS a 0"), Err(KeysError::Syntax));
        assert_eq!(found("GEORADIUSBYMEMBER a store 1 m").unwrap(), ["a"]);
        assert_eq!(found("GEORADIUSBYMEMBER a store 1 m STORE d").unwrap(), ["a", "d"]);
        assert_eq!(found("EVAL s -0 x"), Err(KeysError::Syntax));
        assert!(found("EVAL s 0 x").unwrap().is_empty());
        assert_eq!(found("XREAD COUNT 1 STREAMS a b 0 0").unwrap(), ["a", "b"]);
        assert_eq!(found("SORT a LIMIT 0 1 STORE d").unwrap(), ["a", "d"]);
        assert_eq!(found("GEORADIUS a 1 1 1 m STOREDIST d").unwrap(), ["a", "d"]);
        assert_eq!(found("GEORADIUS a 1 1 1 m STORE").unwrap(), ["a"]);
        assert_eq!(found("ZMPOP 0 a MIN"), Err(KeysError::NoKeys));
        assert_eq!(found("ZMPOP 9 a MIN"), Err(KeysError::Syntax));
        assert_eq!(found("ZMPOP -1 a MIN"), Err(KeysError::NoKeys));
        assert_eq!(found("XREAD STREAMS a b 0"), Err(KeysError::Syntax));
        assert_eq!(found("XREAD COUNT\0x 1 STREAMS\0 a 0").unwrap(), ["a"]);
    }

    #[test]
    fn only_the_option_block_waits_and_no_name_does() {
        let blocks = |request: &str| {
            let words: Vec<&str> = request.split(' ').collect();
            keys(look_up(words[0].as_bytes()).unwrap(), words.len(), |at| words[at].as_bytes()).unwrap().blocks
        };
        for request in [
            "XREAD BLOCK 0 STREAMS a 0",
            "XREAD COUNT block block 0 STREAMS a 0",
            "XREAD block\0x 0 STREAMS a 0",
            "XREADGROUP GROUP block block NOACK Block 0 STREAMS a >",
            "XREADGROUP CLAIM 100 BLOCK 0 GROUP g c STREAMS a >",
        ] {
            assert!(blocks(request), "{request:?}");
        }
        for request in [
            "XREAD STREAMS block 0",
            "XREAD STREAMS a block 0 0",
            "XREAD COUNT block STREAMS a 0",
            "XREADGROUP GROUP block block STREAMS block >",
            "XREADGROUP COUNT 1 GROUP g block NOACK STREAMS block block > >",
        ] {
            assert!(!blocks(request), "{request:?}");
        }
    }
}
