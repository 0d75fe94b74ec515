//! A message as a peer read it from the wire, by a reader that shares no code with Beltway.

/// How the reading of a message ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// As its framing says.
    Whole,
    /// The connection ended before.
    Eof,
    /// The connection was reset before.
    Reset,
    /// Nothing came for too long.
    Late,
}

/// Which message is expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind<'a> {
    /// A request.
    Request,
    /// The response to a request of this method.
    ResponseTo(&'a str),
}

/// How a message's content is framed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Framing {
    None,
    Length(usize),
    Chunked,
    UntilClose,
}

/// A message, or what there was of it.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its first line.
    pub start: String,
    /// Its field lines: names as they came, values trimmed.
    pub fields: Vec<(String, String)>,
    /// Its content, without framing.
    pub body: Vec<u8>,
    /// The field lines behind a chunked content.
    pub trailers: Vec<(String, String)>,
    /// How it ended.
    pub end: End,
}

impl Message {
    pub(crate) const fn none(end: End) -> Self {
        Self { start: String::new(), fields: Vec::new(), body: Vec::new(), trailers: Vec::new(), end }
    }

    pub(crate) fn of_head(head: &[u8]) -> Self {
        let text = String::from_utf8_lossy(head);
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        Self { start, fields: fields(lines), ..Self::none(End::Whole) }
    }

    pub(crate) fn framing(&self, kind: Kind<'_>) -> Framing {
        if let Kind::ResponseTo(method) = kind
            && (method == "HEAD" || matches!(self.status(), 100..=199 | 204 | 304))
        {
            return Framing::None;
        }
        if self.field("Transfer-Encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            return Framing::Chunked;
        }
        match (self.field("Content-Length"), kind) {
            (Some(length), _) => Framing::Length(length.parse().unwrap()),
            (None, Kind::Request) => Framing::None,
            (None, Kind::ResponseTo(_)) => Framing::UntilClose,
        }
    }

    /// The status of a response; 0 when there is no status line.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.start.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }

    /// The method of a request.
    #[must_use]
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// The target of a request.
    #[must_use]
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The value of a field that stands at most once.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        let values = self.values(name);
        assert!(values.len() <= 1, "{name} stands more than once: {self:?}");
        values.first().copied()
    }

    /// All values of a field, in order.
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// Its content as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether the connection ends behind it.
    #[must_use]
    pub fn closes(&self) -> bool {
        self.field("Connection").is_some_and(|option| option.eq_ignore_ascii_case("close"))
    }
}

pub(crate) fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    lines
        .take_while(|line| !line.is_empty())
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no field line: {line:?}"));
            (name.to_owned(), value.trim().to_owned())
        })
        .collect()
}

/// Content in chunks, as a test sends it.
#[derive(Clone, Debug, Default)]
pub struct Chunked(Vec<u8>);

impl Chunked {
    /// These pieces, each a chunk.
    #[must_use]
    pub fn of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut bytes = Vec::new();
        for piece in pieces {
            bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            bytes.extend_from_slice(piece);
            bytes.extend_from_slice(b"\r\n");
        }
        Self(bytes)
    }

    /// Without its end: more may follow.
    #[must_use]
    pub fn open(self) -> Vec<u8> {
        self.0
    }

    /// With the last chunk, and these lines behind it.
    #[must_use]
    pub fn end(mut self, trailers: &str) -> Vec<u8> {
        self.0.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
        self.0
    }
}
