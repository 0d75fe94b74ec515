//! An answer of Redis as a tree.

/// One answer, or an element of one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Value {
    Nil,
    Int(i64),
    Simple(String),
    Error(String),
    Bulk(Vec<u8>),
    Array(Vec<Value>),
}

impl Value {
    /// Of the bytes of a whole reply.
    pub(crate) fn of(reply: &[u8]) -> Self {
        let mut rest = reply;
        let value = one(&mut rest);
        assert!(rest.is_empty(), "more than one reply in {:?}", String::from_utf8_lossy(reply));
        value
    }

    pub(crate) fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    pub(crate) fn items(&self) -> Option<&[Value]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }
}

fn one(rest: &mut &[u8]) -> Value {
    let end = rest.iter().position(|byte| *byte == b'\r').expect("a line");
    let line = String::from_utf8_lossy(&rest[1..end]).into_owned();
    let kind = rest[0];
    *rest = &rest[end + 2..];
    match kind {
        b'+' => Value::Simple(line),
        b'-' => Value::Error(line),
        b':' => Value::Int(line.parse().unwrap()),
        b'$' | b'*' if line == "-1" => Value::Nil,
        b'$' => {
            let (value, after) = rest.split_at(line.parse().unwrap());
            *rest = &after[2..];
            Value::Bulk(value.to_vec())
        }
        b'*' => Value::Array((0..line.parse().unwrap()).map(|_| one(rest)).collect()),
        other => panic!("{} begins no reply", char::from(other)),
    }
}
