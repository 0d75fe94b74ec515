//! Whether a server would find a reading command's arguments right, where there is nothing under its keys.
//!
//! What Redis 7 refuses is refused here, and so is what only some versions take: who is told that something is not right
//! asks again elsewhere, and who is told that there is nothing does not.

/// The greatest bit that a value may have is before this.
const BITS_MAX: i64 = 1 << 32;
/// Where longitudes and latitudes end.
const LONGITUDE_MAX: f64 = 180.0;
const LATITUDE_MAX: f64 = 85.051_128_78;
/// Digits of a part of a stream's id: all of them are numbers.
const ID_DIGITS_MAX: usize = 19;

/// Whether they are, with the command's name before them, right in their number.
pub(super) fn are_right(name: &str, words: &[&[u8]]) -> bool {
    let rest = |from: usize| words.get(from..).unwrap_or_default();
    match name {
        "getrange" | "substr" | "lrange" | "lindex" => are_integers(rest(2)),
        "getbit" => rest(2).iter().all(|at| integer(at).is_some_and(|at| (0..BITS_MAX).contains(&at))),
        "bitcount" => is_bit_range(rest(2), 2),
        "bitpos" => matches!(rest(2), [b"0" | b"1", range @ ..] if is_bit_range(range, 0)),
        "hrandfield" => is_count(rest(2), "withvalues"),
        "zrandmember" => is_count(rest(2), "withscores"),
        "srandmember" => words.len() <= 3 && is_count(rest(2), ""),
        "memory|usage" => match rest(3) {
            [] => true,
            [word, count] => is(word, "samples") && integer(count).is_some_and(|count| count >= 0),
            _ => false,
        },
        "lpos" => options(rest(3), |word, rest| {
            let limit = integer(rest.first()?)?;
            let right = if is(word, "rank") { limit != 0 } else { limit >= 0 };
            (right && limit != i64::MIN && any(word, &["rank", "count", "maxlen"])).then_some(1)
        }),
        "zrange" => is_zrange(rest(2)),
        "zrevrange" => match rest(2) {
            [from, to, scores @ ..] => {
                are_integers(&[from, to]) && (scores.is_empty() || scores.len() == 1 && is(scores[0], "withscores"))
            }
            _ => false,
        },
        "zcount" => rest(2).iter().all(|bound| is_score(bound)),
        "zlexcount" => rest(2).iter().all(|bound| is_lex(bound)),
        "zrangebyscore" | "zrevrangebyscore" => {
            rest(2).len() >= 2
                && rest(2)[..2].iter().all(|bound| is_score(bound))
                && options(rest(4), |word, rest| if is(word, "withscores") { Some(0) } else { limit(word, rest) })
        }
        "zrangebylex" | "zrevrangebylex" => {
            rest(2).len() >= 2 && rest(2)[..2].iter().all(|bound| is_lex(bound)) && options(rest(4), limit)
        }
        "hscan" | "sscan" | "zscan" => match rest(2) {
            [cursor, rest @ ..] => {
                integer(cursor).is_some_and(|cursor| cursor >= 0)
                    && options(rest, |word, rest| {
                        let value = rest.first()?;
                        let count = is(word, "count") && integer(value).is_some_and(|count| count > 0);
                        (count || is(word, "match")).then_some(1)
                    })
            }
            [] => false,
        },
        "lcs" => {
            let asks = |what| rest(3).iter().any(|word| is(word, what));
            !(asks("len") && asks("idx"))
                && options(rest(3), |word, rest| {
                    if is(word, "minmatchlen") {
                        return integer(rest.first()?).map(|_| 1);
                    }
                    any(word, &["len", "idx", "withmatchlen"]).then_some(0)
                })
        }
        "sintercard" | "zintercard" => behind_keys(rest(1)).is_some_and(|(_, rest)| match rest {
            [] => true,
            [word, limit] => is(word, "limit") && integer(limit).is_some_and(|limit| limit >= 0),
            _ => false,
        }),
        "zdiff" => behind_keys(rest(1)).is_some_and(|(_, rest)| match rest {
            [] => true,
            [word] => is(word, "withscores"),
            _ => false,
        }),
        "zinter" | "zunion" => behind_keys(rest(1)).is_some_and(|(keys, rest)| {
            options(rest, |word, rest| {
                if is(word, "weights") {
                    return rest.get(..keys)?.iter().all(|weight| is_float(weight)).then_some(keys);
                }
                if is(word, "aggregate") {
                    return any(rest.first()?, &["sum", "min", "max"]).then_some(1);
                }
                is(word, "withscores").then_some(0)
            })
        }),
        "sort_ro" => options(rest(2), |word, rest| {
            if any(word, &["asc", "desc", "alpha"]) {
                return Some(0);
            }
            if any(word, &["by", "get"]) { rest.first().map(|_| 1) } else { limit(word, rest) }
        }),
        "geodist" => rest(4).len() <= 1 && rest(4).iter().all(|unit| is_unit(unit)),
        "georadius_ro" => match rest(2) {
            [longitude, latitude, radius, unit, rest @ ..] => {
                is_place(longitude, latitude)
                    && is_distance(radius, unit)
                    && options(rest, geo_option)
                    && has_count(rest)
            }
            _ => false,
        },
        "georadiusbymember_ro" => match rest(2) {
            [_, radius, unit, rest @ ..] => is_distance(radius, unit) && options(rest, geo_option) && has_count(rest),
            _ => false,
        },
        "geosearch" => is_search(rest(2)),
        "xrange" | "xrevrange" => match rest(2) {
            [from, to] => is_bound(from) && is_bound(to),
            [from, to, word, count] => {
                is_bound(from) && is_bound(to) && is(word, "count") && integer(count).is_some_and(|count| count > 0)
            }
            _ => false,
        },
        "xread" => is_xread(rest(1)),
        "xinfo|stream" => match rest(3) {
            [] => true,
            [word] => is(word, "full"),
            [word, count, limit] => is(word, "full") && is(count, "count") && integer(limit).is_some(),
            _ => false,
        },
        _ => true,
    }
}

fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

fn any(word: &[u8], names: &[&str]) -> bool {
    names.iter().any(|name| is(word, name))
}

/// A number as Redis reads it: digits, no zero before others, and perhaps a minus.
pub(crate) fn integer(word: &[u8]) -> Option<i64> {
    let digits = word.strip_prefix(b"-").unwrap_or(word);
    let plain = match digits {
        [b'0'] => digits.len() == word.len(),
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if plain { std::str::from_utf8(word).ok()?.parse().ok() } else { None }
}

fn are_integers(words: &[&[u8]]) -> bool {
    words.iter().all(|word| integer(word).is_some())
}

/// A number with a point or a power in it, or without end.
fn float(word: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(word).ok()?;
    let endless =
        matches!(text.to_ascii_lowercase().trim_start_matches(['+', '-']), "inf" | "infinity") && word.len() < 10;
    let written = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    let number: f64 = if endless || written { text.parse().ok()? } else { return None };
    // What is too great is for some an error.
    (endless || number.is_finite()).then_some(number)
}

fn is_float(word: &[u8]) -> bool {
    float(word).is_some()
}

fn is_score(word: &[u8]) -> bool {
    is_float(word.strip_prefix(b"(").unwrap_or(word))
}

fn is_lex(word: &[u8]) -> bool {
    matches!(word, b"-" | b"+" | [b'[' | b'(', ..])
}

/// A stream's id.
fn is_id(word: &[u8]) -> bool {
    let is_part = |part: &[u8]| (1..=ID_DIGITS_MAX).contains(&part.len()) && part.iter().all(u8::is_ascii_digit);
    let mut parts = word.splitn(2, |byte| *byte == b'-');
    parts.next().is_some_and(is_part) && parts.next().is_none_or(is_part)
}

/// Where a range in a stream ends.
fn is_bound(word: &[u8]) -> bool {
    // Whoever leaves the first of all out begins nowhere below it.
    let open =
        word.strip_prefix(b"(").is_some_and(|id| is_id(id) && id.iter().any(|byte| !matches!(byte, b'0' | b'-')));
    matches!(word, b"-" | b"+") || is_id(word) || open
}

/// A range of bits or bytes; `least` of its ends are there, or none.
fn is_bit_range(words: &[&[u8]], least: usize) -> bool {
    let (ends, unit) = words.split_at(words.len().min(2));
    (ends.is_empty() || ends.len() >= least)
        && are_integers(ends)
        && match unit {
            [] => true,
            [unit] => any(unit, &["byte", "bit"]),
            _ => false,
        }
}

/// Nothing, or a number, and perhaps this word behind it.
fn is_count(words: &[&[u8]], with: &str) -> bool {
    let counts = |word| integer(word).is_some_and(|count| count.unsigned_abs() <= i64::MAX.unsigned_abs() / 2);
    match words {
        [] => true,
        [count] => counts(count),
        [count, word] => counts(count) && is(word, with),
        _ => false,
    }
}

/// Whether words are options one after the other: each says how many behind it are its own, if it is right.
fn options<'a>(mut words: &'a [&'a [u8]], one: impl Fn(&[u8], &'a [&'a [u8]]) -> Option<usize>) -> bool {
    while let [word, rest @ ..] = words {
        match one(word, rest).and_then(|own| rest.get(own..)) {
            Some(next) => words = next,
            None => return false,
        }
    }
    true
}

fn limit(word: &[u8], rest: &[&[u8]]) -> Option<usize> {
    (is(word, "limit") && are_integers(rest.get(..2)?)).then_some(2)
}

/// What stands behind a number and so many keys, and the number.
fn behind_keys<'a>(words: &'a [&'a [u8]]) -> Option<(usize, &'a [&'a [u8]])> {
    let (count, rest) = words.split_first()?;
    let count = usize::try_from(integer(count)?).ok().filter(|count| *count > 0)?;
    Some((count, rest.get(count..)?))
}

fn is_zrange(words: &[&[u8]]) -> bool {
    let [from, to, rest @ ..] = words else { return false };
    let asks = |what| rest.iter().any(|word| is(word, what));
    let (by_score, by_lex) = (asks("byscore"), asks("bylex"));
    let twice = ["byscore", "bylex", "rev"].iter().any(|name| rest.iter().filter(|word| is(word, name)).count() > 1);
    let known =
        options(
            rest,
            |word, rest| {
                if any(word, &["byscore", "bylex", "rev", "withscores"]) { Some(0) } else { limit(word, rest) }
            },
        );
    let bounds = [from, to];
    let right = match (by_score, by_lex) {
        (true, false) => bounds.iter().all(|bound| is_score(bound)),
        (false, true) => bounds.iter().all(|bound| is_lex(bound)) && !asks("withscores"),
        (false, false) => are_integers(&[from, to]) && !asks("limit"),
        (true, true) => false,
    };
    known && right && !twice
}

fn is_unit(word: &[u8]) -> bool {
    any(word, &["m", "km", "ft", "mi"])
}

fn is_distance(size: &[u8], unit: &[u8]) -> bool {
    float(size).is_some_and(|size| size >= 0.0) && is_unit(unit)
}

fn is_place(longitude: &[u8], latitude: &[u8]) -> bool {
    let within = |word, most: f64| float(word).is_some_and(|at| at.abs() <= most);
    within(longitude, LONGITUDE_MAX) && within(latitude, LATITUDE_MAX)
}

fn geo_option(word: &[u8], rest: &[&[u8]]) -> Option<usize> {
    if is(word, "count") {
        return integer(rest.first()?).filter(|count| *count > 0).map(|_| 1);
    }
    any(word, &["withcoord", "withdist", "withhash", "asc", "desc", "any"]).then_some(0)
}

/// `ANY` is of a count.
fn has_count(words: &[&[u8]]) -> bool {
    let asks = |what| words.iter().any(|word| is(word, what));
    !asks("any") || asks("count")
}

fn is_search(words: &[&[u8]]) -> bool {
    let (mut from, mut by) = (0, 0);
    let mut rest = words;
    let mut options_only = Vec::new();
    while let [word, behind @ ..] = rest {
        let own = match behind {
            [_, ..] if is(word, "frommember") => {
                from += 1;
                1
            }
            [longitude, latitude, ..] if is(word, "fromlonlat") && is_place(longitude, latitude) => {
                from += 1;
                2
            }
            [radius, unit, ..] if is(word, "byradius") && is_distance(radius, unit) => {
                by += 1;
                2
            }
            [width, height, unit, ..] if is(word, "bybox") && is_distance(width, unit) && is_distance(height, unit) => {
                by += 1;
                3
            }
            _ => match geo_option(word, behind) {
                Some(own) => {
                    options_only.push(*word);
                    own
                }
                None => return false,
            },
        };
        rest = behind.get(own..).unwrap_or_default();
    }
    from == 1 && by == 1 && has_count(&options_only)
}

/// The keys and ids of streams, perhaps behind how many entries are wanted.
fn is_xread(words: &[&[u8]]) -> bool {
    let mut rest = words;
    while let [word, count, behind @ ..] = rest
        && is(word, "count")
    {
        if integer(count).is_none() {
            return false;
        }
        rest = behind;
    }
    match rest {
        [word, streams @ ..] if is(word, "streams") => {
            let (_, ids) = streams.split_at(streams.len() / 2);
            !streams.is_empty() && streams.len().is_multiple_of(2) && ids.iter().all(|id| *id == b"$" || is_id(id))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_xread_the_last_count_stands_however_many_there_are() {
        let of = |count: &[&[u8]], times: usize| {
            let words = [&b"xread"[..]].into_iter().chain(count.repeat(times)).chain([&b"streams"[..], b"k", b"$"]);
            are_right("xread", &words.collect::<Vec<_>>())
        };
        assert!(of(&[b"count", b"1"], 200_000));
        assert!(!of(&[b"count", b"x"], 1) && !of(&[b"count"], 1));
    }
}
