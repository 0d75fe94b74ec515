//! What no line may hold, written so that it can: percent signs, backslashes or JSON escapes.

/// How a format writes bytes that it cannot hold as they are.
pub(super) struct Escapes {
    /// Bytes that stand for themselves.
    plain: [bool; 256],
    /// Appends what is written for a stretch of bytes, the first of which is not plain; says how many it took, at
    /// least one.
    append: fn(&mut Vec<u8>, &[u8]) -> usize,
}

/// For fields set apart by blanks: blanks, quotes, control characters, and all beyond ASCII as `%xx`.
pub(super) const URL: Escapes = Escapes { plain: printable_but(b" \"<>\\^`{|}"), append: percent };
/// For fields in quotes, as httpd: `\"`, `\\`, `\n`, `\xhh`.
pub(super) const QUOTED: Escapes = Escapes { plain: printable_but(b"\"\\"), append: backslash };
/// For JSON strings: valid UTF-8 stays, control characters become `\u00hh`, what is not UTF-8 becomes U+FFFD.
pub(super) const JSON: Escapes = Escapes { plain: printable_but(b"\"\\"), append: json };

/// What stands behind a text that was cut.
const CUT: &[u8] = b"...";

const fn printable_but(exceptions: &[u8]) -> [bool; 256] {
    let mut plain = [false; 256];
    let mut byte = 0x20;
    while byte < 0x7f {
        plain[byte] = true;
        byte += 1;
    }
    let mut i = 0;
    while i < exceptions.len() {
        plain[exceptions[i] as usize] = false;
        i += 1;
    }
    plain
}

/// Appends `text`, escaped, in about `max` bytes; a longer one is cut between two escapes, and dots say so.
pub(super) fn append_escaped(line: &mut Vec<u8>, text: &[u8], escapes: &Escapes, max: usize) {
    let end = line.len() + max;
    let mut rest = text;
    while !rest.is_empty() {
        let room = end.saturating_sub(line.len());
        let run = rest.iter().position(|byte| !escapes.plain[usize::from(*byte)]).unwrap_or(rest.len());
        let taken = run.min(room);
        line.extend_from_slice(&rest[..taken]);
        rest = &rest[taken..];
        if taken < run || (!rest.is_empty() && line.len() >= end) {
            line.extend_from_slice(CUT);
            return;
        }
        if !rest.is_empty() {
            rest = &rest[(escapes.append)(line, rest).clamp(1, rest.len())..];
        }
    }
}

fn percent(line: &mut Vec<u8>, text: &[u8]) -> usize {
    line.push(b'%');
    hex(line, text[0]);
    1
}

fn backslash(line: &mut Vec<u8>, text: &[u8]) -> usize {
    match text[0] {
        byte @ (b'"' | b'\\') => line.extend_from_slice(&[b'\\', byte]),
        b'\n' => line.extend_from_slice(b"\\n"),
        b'\r' => line.extend_from_slice(b"\\r"),
        b'\t' => line.extend_from_slice(b"\\t"),
        byte => {
            line.extend_from_slice(b"\\x");
            hex(line, byte);
        }
    }
    1
}

fn json(line: &mut Vec<u8>, text: &[u8]) -> usize {
    // At most one character, so four bytes tell.
    let Some(chunk) = text[..text.len().min(4)].utf8_chunks().next() else { return text.len() };
    let Some(c) = chunk.valid().chars().next() else {
        line.extend_from_slice("\u{fffd}".as_bytes());
        return chunk.invalid().len();
    };
    match c {
        '"' => line.extend_from_slice(b"\\\""),
        '\\' => line.extend_from_slice(b"\\\\"),
        // C0 and C1: terminals obey both.
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => {
            line.extend_from_slice(b"\\u00");
            hex(line, u8::try_from(u32::from(c)).unwrap_or(b'?'));
        }
        // Line and paragraph separator: some readers of lines end one there.
        '\u{2028}' => line.extend_from_slice(b"\\u2028"),
        '\u{2029}' => line.extend_from_slice(b"\\u2029"),
        c => line.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
    c.len_utf8()
}

fn hex(line: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    line.push(DIGITS[usize::from(byte >> 4)]);
    line.push(DIGITS[usize::from(byte & 15)]);
}
