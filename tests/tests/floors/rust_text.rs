//! Rust source as words: comments, strings and characters taken out, lines kept.
//!
//! Not a parser: it knows just enough of the lexical grammar (nested block comments, raw strings, lifetimes against
//! characters) that a word found by [`words`] is a word the compiler sees.

/// Every identifier or keyword of `source` with its line, counted from 1.
pub(crate) fn words(source: &str) -> Vec<(usize, String)> {
    let code = code_only(source);
    let mut found = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let of_word = |c: char| c.is_alphanumeric() || c == '_';
        for word in line.split(|c| !of_word(c)).filter(|word| word.starts_with(|c: char| !c.is_ascii_digit())) {
            found.push((index + 1, word.to_owned()));
        }
    }
    found
}

/// `source` with every comment, string and character literal replaced by blanks; line breaks stay where they were.
fn code_only(source: &str) -> String {
    let text: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < text.len() {
        let end = literal_or_comment_end(&text, at);
        if end == at {
            // An identifier is taken whole, so that the `r` of `for"…"` begins no raw string.
            let word_end = word_end(&text, at);
            let end = word_end.max(at + 1);
            out.extend(&text[at..end]);
            at = end;
        } else {
            out.push(' ');
            out.extend(text[at..end].iter().filter(|c| **c == '\n'));
            at = end;
        }
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `at` itself when none begins there.
fn literal_or_comment_end(text: &[char], at: usize) -> usize {
    let next = |offset: usize| text.get(at + offset).copied();
    match (text[at], next(1)) {
        ('/', Some('/')) => find(text, at, |c| c == '\n').unwrap_or(text.len()),
        ('/', Some('*')) => block_comment_end(text, at),
        ('"', _) => quoted_end(text, at + 1, '"'),
        ('b' | 'c', Some('"')) => quoted_end(text, at + 2, '"'),
        ('b', Some('\'')) => quoted_end(text, at + 2, '\''),
        ('b' | 'c', Some('r')) => raw_string_end(text, at + 2).unwrap_or(at),
        ('r', _) => raw_string_end(text, at + 1).unwrap_or(at),
        ('\'', Some('\\')) => quoted_end(text, at + 1, '\''),
        // 'x' is a character, 'x without the second quote a lifetime.
        ('\'', Some(_)) if next(2) == Some('\'') => at + 3,
        _ => at,
    }
}

fn block_comment_end(text: &[char], begin: usize) -> usize {
    let (mut depth, mut at) = (0_usize, begin);
    while at + 1 < text.len() {
        match (text[at], text[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

fn quoted_end(text: &[char], mut at: usize, quote: char) -> usize {
    while at < text.len() {
        match text[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// The end of a raw string whose hashes or quote begin at `at`; none if it is a raw identifier or an ordinary word.
fn raw_string_end(text: &[char], at: usize) -> Option<usize> {
    let quote = find(text, at, |c| c != '#')?;
    if text[quote] != '"' {
        return None;
    }
    let hashes = quote - at;
    let mut from = quote + 1;
    loop {
        let Some(close) = find(text, from, |c| c == '"') else { return Some(text.len()) };
        let after = text.iter().skip(close + 1).take(hashes).filter(|c| **c == '#').count();
        if after == hashes {
            return Some(close + 1 + hashes);
        }
        from = close + 1;
    }
}

fn word_end(text: &[char], at: usize) -> usize {
    find(text, at, |c| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len())
}

fn find(text: &[char], from: usize, wanted: impl Fn(char) -> bool) -> Option<usize> {
    (from..text.len()).find(|&at| wanted(text[at]))
}

#[test]
fn words_in_comments_and_literals_are_not_seen() {
    let source = r##"
        // fear one
        /* fear /* fear */ fear */ let a = "fear \" fear"; let b = r#"fear " fear"#;
        let c = b"fear"; let d = br"fear"; let e = 'f'; let f: &'fear str = '\''; fear! { for"fear" }
    "##;
    let fears: Vec<usize> =
        words(source).into_iter().filter(|(_, word)| word == "fear").map(|(line, _)| line).collect();
    assert_eq!(fears, [4, 4], "the lifetime and the macro of line 4, nothing else");
    assert!(words(source).iter().any(|(_, word)| word == "for"));
}
