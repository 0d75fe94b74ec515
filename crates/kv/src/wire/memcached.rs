//! memcached's text protocol: requests, each a line, and for storage commands a block of data behind it.
//!
//! What comes back is the business of the module `reply`.

mod reply;

use std::ops::Range;

pub use reply::{Reply, values};

/// The longest line of a retrieval, with all its keys.
pub const RETRIEVAL_MAX: usize = 2 << 20;
/// The longest line of another request before its end is waited for in vain.
const LINE_MAX: usize = 48 << 10;
/// The longest line of a request that is no retrieval: beyond it memcached may close the connection.
pub const OTHER_LINE_MAX: usize = 2_000;
/// The most blanks before a longer line than that: beyond them memcached closes the connection, whatever follows.
const INDENT_MAX: usize = 100;
/// The longest time of expiry of a retrieval: it goes with each part of it.
const TIME_MAX: usize = 32;
/// The longest key.
pub const KEY_MAX: usize = 250;
/// The most data behind one line: what servers can be set to take.
pub const DATA_MAX: usize = 1 << 30;
/// The first byte of a request of the binary protocol.
const BINARY_REQUEST: u8 = 0x80;

/// What a look at the bytes came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scan {
    /// A whole request of so many bytes.
    Whole(usize),
    /// A whole storage request of so many bytes, whose numbers servers read otherwise than they are written: it is to be
    /// asked as [`rewritten`].
    Odd(usize),
    /// So many bytes, of which not all may have come, are no request, and are answered with this, which may be nothing;
    /// what follows may be one.
    Refused(usize, &'static [u8]),
    /// More bytes are needed: so many in all, as far as is known.
    More(usize),
    /// Nothing can follow: answered with this.
    Hopeless(&'static [u8]),
    /// The binary protocol.
    Binary,
}

/// The end of what was found.
pub const END: &[u8] = b"END\r\n";
/// `ERROR`: there is no such command.
pub const ERROR: &[u8] = b"ERROR\r\n";
/// The line is not as it should be.
pub const BAD_LINE: &[u8] = b"CLIENT_ERROR bad command line format\r\n";
/// The data are not as long as the line says.
pub const BAD_DATA: &[u8] = b"CLIENT_ERROR bad data chunk\r\n";
/// The line is longer than servers take.
pub const TOO_LONG: &[u8] = b"CLIENT_ERROR line too long\r\n";
/// The data are longer than any server takes.
pub const TOO_LARGE: &[u8] = b"SERVER_ERROR object too large for cache\r\n";

/// The meta command that stores: it is not spoken here, but has data behind its line all the same.
const META_SET: &[u8] = b"ms";
/// The last word of a request that wants no reply.
pub const NOREPLY: &[u8] = b"noreply";
/// The time of expiry is no number.
pub const BAD_TIME: &[u8] = b"CLIENT_ERROR invalid exptime argument\r\n";
/// What follows `delete` is not what may.
pub const BAD_DELETE: &[u8] = b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n";

/// Names, numbers and flags are seldom longer.
const SHORT_WORD: usize = 4;
/// Where in a storage command's line its data's length stands.
const LENGTH_AT: usize = 4;
/// The greatest length that memcached takes for one.
const LENGTH_MAX: i32 = i32::MAX - 2;
/// What stands behind the data.
const DATA_END: &[u8] = b"\r\n";

/// Whether a command has data behind its line.
#[must_use]
pub fn has_data(name: &[u8]) -> bool {
    matches!(name, b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas")
}

/// Whether a command asks for the values of keys.
#[must_use]
pub fn retrieves(name: &[u8]) -> bool {
    matches!(name, b"get" | b"gets" | b"gat" | b"gats")
}

/// Looks at `bytes`, which begin with a request. The words of its line are left in `words`.
pub fn scan(bytes: &[u8], words: &mut Vec<Range<u32>>) -> Scan {
    scan_on(bytes, &mut 0, words)
}

/// As [`scan`], of a request that comes in pieces: up to `searched` there is no line's end, and that goes on.
pub fn scan_on(bytes: &[u8], searched: &mut usize, words: &mut Vec<Range<u32>>) -> Scan {
    words.clear();
    if bytes.first() == Some(&BINARY_REQUEST) {
        return Scan::Binary;
    }
    let limit = bytes.len().min(RETRIEVAL_MAX);
    let begin = (*searched).min(limit);
    let Some(end) = memchr::memchr(b'\n', &bytes[begin..limit]).map(|at| begin + at) else {
        *searched = bytes.len();
        let over = bytes.len() >= LINE_MAX && (bytes.len() >= RETRIEVAL_MAX || !retrieves(first_word(bytes)));
        return if over { Scan::Hopeless(TOO_LONG) } else { Scan::More(0) };
    };
    *searched = end;
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    if end >= LINE_MAX && !retrieves(first_word(line)) {
        return Scan::Hopeless(TOO_LONG);
    }
    let mut at = 0;
    while at < line.len() {
        if line[at] == b' ' {
            at += 1;
            continue;
        }
        let stop = word_end(line, at);
        // A line is shorter than RETRIEVAL_MAX.
        let (Ok(from), Ok(to)) = (u32::try_from(at), u32::try_from(stop)) else { return Scan::Hopeless(TOO_LONG) };
        words.push(from..to);
        at = stop;
    }
    let len = end + 1;
    let Some(first) = words.first().map(|word| word.start as usize..word.end as usize) else {
        return Scan::Refused(len, ERROR);
    };
    let name = line.get(first.clone()).unwrap_or_default();
    let stores = has_data(name);
    let carries = stores || name == META_SET;
    let why = if memchr::memchr(0, line).is_some() {
        // For memcached a zero byte ends the line, so that it would read another one: and a last word of its own.
        BAD_LINE
    } else if line.len() > OTHER_LINE_MAX && (!retrieves(name) || first.start > INDENT_MAX) {
        TOO_LONG
    } else if stores {
        return storage(bytes, len, words);
    } else if carries {
        ERROR
    } else {
        return Scan::Whole(len);
    };
    let quiet = stores && word(line, words, words.len() - 1) == NOREPLY;
    Scan::Refused(len + if carries { claimed(line, words) } else { 0 }, if quiet { b"" } else { why })
}

/// Where the word ends that begins at `at`.
#[inline]
fn word_end(line: &[u8], at: usize) -> usize {
    // All but keys are so short that looking for their end by hand costs less than asking for a wide search.
    let hand = line.len().min(at + SHORT_WORD);
    let short = line[at..hand].iter().position(|byte| *byte == b' ');
    match short.or_else(|| memchr::memchr(b' ', &line[hand..]).map(|len| hand - at + len)) {
        Some(len) => at + len,
        None => line.len(),
    }
}

fn first_word(line: &[u8]) -> &[u8] {
    line.split(|byte| *byte == b' ').find(|word| !word.is_empty()).unwrap_or_default()
}

fn word<'a>(line: &'a [u8], words: &[Range<u32>], at: usize) -> &'a [u8] {
    words.get(at).and_then(|word| line.get(word.start as usize..word.end as usize)).unwrap_or_default()
}

/// Looks at a storage command, whose line has `len` bytes.
fn storage(bytes: &[u8], len: usize, words: &[Range<u32>]) -> Scan {
    let word = |at| word(bytes, words, at);
    let quiet = words.len() > 1 && word(words.len() - 1) == NOREPLY;
    let said = |line: &'static [u8]| if quiet { b"" } else { line };
    // What is refused here for its line has its data all the same: never are they to be read as requests.
    let refused = |line| Scan::Refused(len + claimed(bytes, words), line);
    let plain = if word(0) == b"cas" { LENGTH_AT + 2 } else { LENGTH_AT + 1 };
    if words.len() != plain && words.len() != plain + 1 {
        return refused(ERROR);
    }
    let Some(numbers) = Numbers::of(bytes, words).filter(|_| is_key(word(1))) else {
        return refused(said(BAD_LINE));
    };
    let Some(data) = usize::try_from(numbers.length).ok().filter(|_| numbers.length <= LENGTH_MAX) else {
        // For memcached there are none.
        return Scan::Refused(len, said(BAD_LINE));
    };
    let whole = len + data + DATA_END.len();
    if data > DATA_MAX {
        return Scan::Refused(whole, said(TOO_LARGE));
    }
    match bytes.get(len + data..whole) {
        Some(DATA_END) if numbers.plain => Scan::Whole(whole),
        Some(DATA_END) => Scan::Odd(whole),
        Some(_) => Scan::Refused(whole, said(BAD_DATA)),
        None => Scan::More(whole),
    }
}

/// The numbers in a storage command's line.
struct Numbers {
    length: i32,
    /// All are written as they are read.
    plain: bool,
}

impl Numbers {
    #[inline]
    fn of(bytes: &[u8], words: &[Range<u32>]) -> Option<Self> {
        let word = |at| word(bytes, words, at);
        let cas = word(0) == b"cas";
        // Nearly always.
        if let (false, Some(_), Some(_), Some(length)) =
            (cas, small(word(LENGTH_AT - 2)), small(word(LENGTH_AT - 1)), small(word(LENGTH_AT)))
        {
            return Some(Self { length, plain: true });
        }
        let (flags, flags_plain) = unsigned(word(LENGTH_AT - 2))?;
        let (time, time_plain) = signed(word(LENGTH_AT - 1))?;
        let (long, length_plain) = signed(word(LENGTH_AT))?;
        let (_, unique_plain) = if cas { unsigned(word(LENGTH_AT + 1))? } else { (0, true) };
        let length = low_half(long);
        let fit = u32::try_from(flags).is_ok() && i32::try_from(time).is_ok() && i64::from(length) == long;
        Some(Self { length, plain: fit && flags_plain && time_plain && length_plain && unique_plain })
    }
}

/// Whether servers read the numbers in a storage command's line as they are written.
#[must_use]
pub fn is_plain(bytes: &[u8], words: &[Range<u32>]) -> bool {
    Numbers::of(bytes, words).is_some_and(|numbers| numbers.plain)
}

/// How many bytes are to be dropped behind a storage command's line that is refused: its data, as far as it can be told
/// where their length stands. Where there are too many words, one may be the key's, and it stands at the end. The meta
/// command's stands behind the key, or, as it was first, in a word of its own with an `S` before it.
fn claimed(line: &[u8], words: &[Range<u32>]) -> usize {
    let length_of = |word: &[u8]| {
        let (length, _) = signed(word)?;
        let cut = low_half(length);
        usize::try_from(cut).ok().filter(|_| cut <= LENGTH_MAX)
    };
    if word(line, words, 0) == META_SET {
        let mut flags = (2..words.len()).filter_map(|at| word(line, words, at).strip_prefix(b"S"));
        let found = length_of(word(line, words, 2)).or_else(|| flags.find_map(length_of));
        return found.map_or(0, |data| data + DATA_END.len());
    }
    let mut last = words.len().saturating_sub(1);
    if word(line, words, last) == NOREPLY {
        last -= 1;
    }
    if word(line, words, 0) == b"cas" {
        last = last.saturating_sub(1);
    }
    let length = |at| length_of(word(line, words, at));
    let found = if last > LENGTH_AT { length(last) } else { None };
    found.or_else(|| length(LENGTH_AT)).map_or(0, |data| data + DATA_END.len())
}

/// The storage request `bytes`, with the numbers as servers read them: the lower half of times, flags and lengths.
#[must_use]
pub fn rewritten(bytes: &[u8], words: &[Range<u32>]) -> Vec<u8> {
    let word = |at| word(bytes, words, at);
    let low = |at| signed(word(at)).map_or(0, |(number, _)| low_half(number));
    let flags = unsigned(word(LENGTH_AT - 2)).map_or(0, |(flags, _)| flags & u64::from(u32::MAX));
    let mut line = [word(0), b" ", word(1)].concat();
    line.extend_from_slice(format!(" {flags} {} {}", low(LENGTH_AT - 1), low(LENGTH_AT)).as_bytes());
    if word(0) == b"cas" {
        let (unique, _) = unsigned(word(LENGTH_AT + 1)).unwrap_or_default();
        line.extend_from_slice(format!(" {unique}").as_bytes());
    }
    if words.len() > 1 && word(words.len() - 1) == NOREPLY {
        line.push(b' ');
        line.extend_from_slice(NOREPLY);
    }
    line.extend_from_slice(b"\r\n");
    let data = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1);
    line.extend_from_slice(&bytes[data..]);
    line
}

/// A number of few digits.
#[inline]
fn small(word: &[u8]) -> Option<i32> {
    // So many digits fit.
    if !(1..=9).contains(&word.len()) {
        return None;
    }
    let mut number = 0;
    for byte in word {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number * 10 + i32::from(digit);
    }
    Some(number)
}

/// A number's lower 32 bits, as memcached keeps them.
fn low_half(number: i64) -> i32 {
    #[expect(clippy::cast_possible_truncation, reason = "memcached cuts it")]
    let low = number as i32;
    low
}

/// A number of 64 bits as memcached reads it, with C's functions, and whether it is written as one writes it.
fn signed(word: &[u8]) -> Option<(i64, bool)> {
    let (negative, size, plain) = number(word)?;
    let number = if negative { 0_i64.checked_sub_unsigned(size)? } else { i64::try_from(size).ok()? };
    Some((number, plain))
}

/// The same without a sign: C's function takes one, and counts from the other end.
fn unsigned(word: &[u8]) -> Option<(u64, bool)> {
    let (negative, size, plain) = number(word)?;
    let number = if negative { size.wrapping_neg() } else { size };
    let taken = !negative || number <= i64::MAX.unsigned_abs();
    taken.then_some((number, plain && !negative))
}

/// Whether there is a minus, the digits, and whether there is nothing else. Blanks may stand before it, and anything
/// behind a blank that follows it.
fn number(word: &[u8]) -> Option<(bool, u64, bool)> {
    let is_blank = |byte: &u8| matches!(byte, b'\t'..=b'\r' | b' ');
    let mut at = word.iter().take_while(|byte| is_blank(byte)).count();
    let mut plain = at == 0;
    let negative = word.get(at) == Some(&b'-');
    if negative || word.get(at) == Some(&b'+') {
        plain &= negative;
        at += 1;
    }
    let digits = word.get(at..)?;
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut size = 0_u64;
    for digit in &digits[..count] {
        size = size.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
    }
    let ends = digits.get(count).is_none_or(|byte| is_blank(byte) || *byte == 0);
    (count > 0 && ends).then_some((negative, size, plain && count == digits.len()))
}

/// Whether this is a time of expiry, as servers read it, of a length that goes with each part of a retrieval.
#[must_use]
pub fn is_time(word: &[u8]) -> bool {
    word.len() <= TIME_MAX && signed(word).is_some()
}

/// Whether this is a key that servers take.
#[must_use]
pub fn is_key(word: &[u8]) -> bool {
    !word.is_empty() && word.len() <= KEY_MAX
}

/// The binary protocol's answer "unknown command" to this request.
#[must_use]
pub fn binary_refusal(request: &[u8]) -> Vec<u8> {
    const TEXT: &[u8] = b"the proxy speaks the text protocol";
    let mut reply = vec![0_u8; 24];
    reply[0] = 0x81;
    reply[1] = request.get(1).copied().unwrap_or(0);
    reply[7] = 0x81;
    reply[11] = u8::try_from(TEXT.len()).unwrap_or(0);
    if let Some(opaque) = request.get(12..16) {
        reply[12..16].copy_from_slice(opaque);
    }
    reply.extend_from_slice(TEXT);
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(bytes: &[u8]) -> (Scan, Vec<String>) {
        let mut words = Vec::new();
        let scan = scan(bytes, &mut words);
        let text =
            |word: Range<u32>| String::from_utf8_lossy(&bytes[word.start as usize..word.end as usize]).into_owned();
        (scan, words.into_iter().map(text).collect())
    }

    #[test]
    fn a_request_is_its_line_and_its_data() {
        assert_eq!(look(b"get a  b\r\nx"), (Scan::Whole(10), vec!["get".into(), "a".into(), "b".into()]));
        assert_eq!(look(b"set a 0 0 3\r\na\nb\r\nget").0, Scan::Whole(18));
        assert_eq!(look(b"set a 0 -1 3 noreply\r\na").0, Scan::More(27));
        assert_eq!(look(b"get a").0, Scan::More(0));
        assert_eq!(look(b"version\n").0, Scan::Whole(8));
    }

    #[test]
    fn what_is_no_request_is_answered_and_the_next_may_be_one() {
        assert_eq!(look(b"\r\n").0, Scan::Refused(2, ERROR));
        assert_eq!(look(b"set a 0 0\r\n").0, Scan::Refused(11, ERROR));
        assert_eq!(look(b"set a 0 0 x\r\n").0, Scan::Refused(13, BAD_LINE));
        assert_eq!(look(b"set a 0 0 -1\r\n").0, Scan::Refused(14, BAD_LINE));
        assert_eq!(look(b"set a 0 0 1 x\r\na\r\n").0, Scan::Whole(18));
        assert_eq!(look(b"incr a 1 noreply\0\r\n").0, Scan::Refused(19, BAD_LINE));
        assert_eq!(look(b"set a 0 0 1 noreply\r\nabcd").0, Scan::Refused(24, b""));
        let long = format!("{} a b\r\n", "x".repeat(OTHER_LINE_MAX));
        assert_eq!(look(long.as_bytes()).0, Scan::Refused(long.len(), TOO_LONG));
        for name in ["get", "gets", "gat", "gats"] {
            assert_eq!(look(format!("{name} {long}").as_bytes()).0, Scan::Whole(long.len() + name.len() + 1));
        }
        assert_eq!(look(b"set a 0 0 1\r\nabcd").0, Scan::Refused(16, BAD_DATA));
        assert_eq!(look(&[b'a'; LINE_MAX]).0, Scan::Hopeless(TOO_LONG));
        assert_eq!(look(&[b'a'; LINE_MAX - 1]).0, Scan::More(0));
        assert_eq!(look(b"\x80\x00").0, Scan::Binary);
    }

    #[test]
    fn data_of_a_line_that_is_refused_are_no_request() {
        let long = "k".repeat(251);
        let wide = " ".repeat(OTHER_LINE_MAX);
        let lines = [
            ("set a -1 0 9", BAD_LINE),
            ("set a 0 x 9", BAD_LINE),
            ("set a 0 9223372036854775808 9", BAD_LINE),
            ("set a 18446744073709551616 0 9", BAD_LINE),
            ("set a b 0 0 9", BAD_LINE),
            ("set a b c 0 0 9", ERROR),
            ("set a b c 0 0 9 noreply", ERROR),
            ("set a b 0 0 9 noreply", ERROR),
            ("set a x 0 9 noreply", b""),
            ("set a 0 0 9 x y", ERROR),
            ("cas a 0 0 9", ERROR),
            ("cas a 0 0 9 x", BAD_LINE),
            ("cas a b c 0 0 9 1", ERROR),
            ("set a\0 0 0 9", BAD_LINE),
            ("set a 0 0 9\0", BAD_LINE),
            (&format!("set {long} 0 0 9"), BAD_LINE),
            (&format!("set a 0 0{wide}9"), TOO_LONG),
            ("ms a 9", ERROR),
            ("ms a 9 T60 q", ERROR),
            ("ms a S9 T60", ERROR),
            ("ms a T60 S9", ERROR),
            ("ms a\0 9", BAD_LINE),
            (&format!("ms {long}{wide} 9"), TOO_LONG),
        ];
        for (line, said) in lines {
            let bytes = format!("{line}\r\nflush_all\r\n");
            assert_eq!(look(bytes.as_bytes()).0, Scan::Refused(bytes.len(), said), "{line}");
            let begun = &bytes.as_bytes()[..line.len() + 2];
            assert_eq!(look(begun).0, Scan::Refused(bytes.len(), said), "{line}");
        }
        assert_eq!(look(b"set a 0 0 1073741825\r\n").0, Scan::Refused(22 + 1_073_741_827, TOO_LARGE));
        // For memcached there are none either.
        for line in ["set a 0 0 -1\r\n", "set a 0 0 2147483646\r\n", "set a 0 0 x\r\n"] {
            assert_eq!(look(line.as_bytes()).0, Scan::Refused(line.len(), BAD_LINE));
        }
        for line in ["ms\r\n", "ms a\r\n", "ms a x\r\n", "ms a -1\r\n", "ms a S\r\n"] {
            assert_eq!(look(line.as_bytes()).0, Scan::Refused(line.len(), ERROR));
        }
    }

    #[test]
    fn numbers_that_memcached_cuts_are_sent_as_it_cuts_them() {
        let lines = [
            ("set a 0 2208988800 9", "set a 0 -2085978496 9"),
            ("set a 0 4294967295 9", "set a 0 -1 9"),
            ("set a 4294967296 -2147483649 9 noreply", "set a 0 2147483647 9 noreply"),
            ("set a -18446744073709551615 +5 9", "set a 1 5 9"),
            ("set a 1\tx \t7 4294967305 x", "set a 1 7 9"),
            ("cas a -0 0 9 +18446744073709551615", "cas a 0 0 9 18446744073709551615"),
        ];
        for (line, plain) in lines {
            let [bytes, expected] = [line, plain].map(|line| format!("{line}\r\nflush_all\r\n").into_bytes());
            let mut words = Vec::new();
            assert_eq!(scan(&bytes, &mut words), Scan::Odd(bytes.len()), "{line}");
            let got = rewritten(&bytes, &words);
            assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(&expected));
            assert_eq!(look(&expected).0, Scan::Whole(expected.len()));
        }
        assert_eq!(look(b"set a 0007 -5 9 x\r\nflush_all\r\n").0, Scan::Whole(30));
    }

    #[test]
    fn a_line_in_pieces_is_searched_once() {
        let line = format!("get{}\r\n", " key".repeat(LINE_MAX));
        let (mut searched, mut words) = (0, Vec::new());
        for end in (0..line.len()).step_by(1_000) {
            assert_eq!(scan_on(&line.as_bytes()[..end], &mut searched, &mut words), Scan::More(0));
            assert_eq!(searched, end);
        }
        assert_eq!(scan_on(line.as_bytes(), &mut searched, &mut words), Scan::Whole(line.len()));
        assert_eq!(words.len(), LINE_MAX + 1);
        let mut longest = b"get ".to_vec();
        longest.resize(RETRIEVAL_MAX - 1, b'k');
        assert_eq!(look(&longest).0, Scan::More(0));
        assert_eq!(look(&[&longest[..], b"\n"].concat()).0, Scan::Whole(RETRIEVAL_MAX));
        assert_eq!(look(&[&longest[..], b"k"].concat()).0, Scan::Hopeless(TOO_LONG));
        assert_eq!(look(&[&longest[..], b"k\n"].concat()).0, Scan::Hopeless(TOO_LONG));
    }
}
