//! What the site looks at in a request.

/// A request head, in the bytes it came in.
#[derive(Clone, Copy, Debug)]
pub struct DemoRequest<'a> {
    /// The method, as in `GET`.
    pub method: &'a [u8],
    /// The target of the request line: a path with query, or an absolute URL.
    pub target: &'a [u8],
    /// The whole head from request line to empty line; `/echo` shows it, the other paths find field lines in it.
    pub head: &'a [u8],
}

impl<'a> DemoRequest<'a> {
    /// The path, without scheme, authority and query.
    pub(super) fn path(&self) -> &'a [u8] {
        let target = self.origin_form();
        &target[..position(target, b'?').unwrap_or(target.len())]
    }

    /// The value of `name` in the query.
    pub(super) fn query_value(&self, name: &[u8]) -> Option<&'a [u8]> {
        let target = self.origin_form();
        let query = &target[position(target, b'?')? + 1..];
        query.split(|byte| *byte == b'&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))
    }

    /// The first value of the field `name`, which is given in lower case.
    pub(super) fn field(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.head.split(|byte| *byte == b'\n').skip(1).find_map(|line| {
            let colon = position(line, b':')?;
            line[..colon].eq_ignore_ascii_case(name).then(|| line[colon + 1..].trim_ascii())
        })
    }

    fn origin_form(&self) -> &'a [u8] {
        let Some(colon) = self.target.windows(3).position(|three| three == b"://") else { return self.target };
        if self.target.starts_with(b"/") {
            return self.target;
        }
        let after = &self.target[colon + 3..];
        position(after, b'/').map_or(b"/", |slash| &after[slash..])
    }
}

/// Whether `tag` is in an `If-None-Match`, by the weak comparison that field asks for (RFC 9110 §13.1.2).
pub(super) fn lists_tag(list: &[u8], tag: &[u8]) -> bool {
    list == b"*"
        || list
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii)
            .any(|one| one.strip_prefix(b"W/").unwrap_or(one) == tag)
}

/// Decimal digits only, and not more than fit.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

fn position(bytes: &[u8], wanted: u8) -> Option<usize> {
    bytes.iter().position(|byte| *byte == wanted)
}
