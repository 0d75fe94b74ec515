//! The pages, embedded in the program.

use super::HTML;

/// When the pages were written. They change with the program only, so one date does for all.
pub(super) const LAST_MODIFIED: &str = "Sun, 22 Nov 2026 00:00:00 GMT";

/// What is shown where nothing is.
pub(super) const MISSING: &[u8] = include_bytes!("../../assets/missing.html");

/// A page with all that is told about it.
pub(super) struct Page {
    path: &'static str,
    pub(super) content_type: &'static str,
    pub(super) content: &'static [u8],
    /// In its quotes.
    pub(super) etag: &'static str,
}

impl Page {
    /// The page at `path`.
    pub(super) fn at(path: &[u8]) -> Option<&'static Self> {
        PAGES.iter().find(|page| page.path.as_bytes() == path)
    }

    #[cfg(test)]
    pub(super) fn all() -> &'static [Self] {
        &PAGES
    }
}

macro_rules! page {
    ($path:literal, $content_type:expr, $file:literal) => {{
        const CONTENT: &[u8] = include_bytes!(concat!("../../assets/", $file));
        const ETAG: [u8; 18] = etag(CONTENT);
        const TEXT: &str = match std::str::from_utf8(&ETAG) {
            Ok(text) => text,
            Err(_) => panic!("hexadecimal digits are UTF-8"),
        };
        Page { path: $path, content_type: $content_type, content: CONTENT, etag: TEXT }
    }};
}

static PAGES: [Page; 5] = [
    page!("/", HTML, "index.html"),
    page!("/index.html", HTML, "index.html"),
    page!("/about", HTML, "about.html"),
    page!("/style.css", "text/css; charset=utf-8", "style.css"),
    page!("/belt.svg", "image/svg+xml", "belt.svg"),
];

/// A strong entity tag made of the content itself, while compiling: its FNV-1a of 64 bits in hexadecimal, quoted.
const fn etag(content: &[u8]) -> [u8; 18] {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < content.len() {
        hash = (hash ^ content[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    let mut tag = [b'"'; 18];
    let mut digit = 0;
    while digit < 16 {
        tag[digit + 1] = b"0123456789abcdef"[(hash >> (60 - 4 * digit) & 0xf) as usize];
        digit += 1;
    }
    tag
}
