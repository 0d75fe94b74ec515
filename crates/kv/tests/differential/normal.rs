//! What in an answer is not determined, by name. All else must be equal to the byte.

use kv::commands::look_up;

use super::draw::{Word, is_container};
use super::value::Value;

/// Seconds that may pass between the two asking.
const MOMENT: i64 = 120;

/// In which way two answers may differ and be the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Normaliser {
    /// The order of a set's members, or a hash's values, is that of a table with a random seed.
    MembersInAnyOrder,
    /// The same, of fields with their values.
    PairsInAnyOrder,
    /// The same; and a server of version 7.0 may find a number wrong because an earlier command, of anyone, had one that
    /// was: it does not clear `errno`.
    SortedByNumbers,
    /// Members are chosen by chance: as many.
    ChosenByChance,
    /// A pass over all in one answer: no cursor, and members in any order.
    OnePass,
    /// Seconds are counted from or to a moment that is not the same.
    Seconds,
    /// The same in milliseconds.
    Milliseconds,
    /// Elements that are times of delivery, or say how long ago it was.
    TimesInside,
    /// A set of numbers goes over to a table once and back by chance alone.
    SetEncoding,
    /// Sets, hashes and streams are written out in a table's order, or with times: of the same type.
    SerializedInAnyOrder,
    /// Bytes of memory depend on what was there before: a number.
    Number,
    /// What the proxy says of itself: the same kind of answer, and no error.
    ItsOwn,
    /// A server of an earlier version does not know it, and the proxy does: whatever it says.
    NewerThanServer,
    /// The proxy says an error in twemproxy's words.
    ItsOwnError,
}

use Normaliser::{
    ChosenByChance, ItsOwn, ItsOwnError, MembersInAnyOrder, Milliseconds, NewerThanServer, Number, OnePass,
    PairsInAnyOrder, Seconds, SerializedInAnyOrder, SetEncoding, SortedByNumbers, TimesInside,
};

/// Each command whose answer is not determined.
pub(crate) const NORMALISERS: &[(&str, Normaliser)] = &[
    ("auth", ItsOwnError),
    ("client|id", Number),
    ("client|info", ItsOwn),
    ("command", ItsOwn),
    ("command|count", Number),
    ("command|docs", ItsOwn),
    ("command|info", ItsOwn),
    ("command|list", ItsOwn),
    ("dump", SerializedInAnyOrder),
    ("expiretime", Seconds),
    ("hello", ItsOwn),
    ("hexpiretime", Seconds),
    ("hgetall", PairsInAnyOrder),
    ("hkeys", MembersInAnyOrder),
    ("hpexpiretime", Milliseconds),
    ("hpttl", Milliseconds),
    ("hrandfield", ChosenByChance),
    ("hscan", OnePass),
    ("httl", Seconds),
    ("hvals", MembersInAnyOrder),
    ("info", ItsOwn),
    ("keys", MembersInAnyOrder),
    ("lolwut", ItsOwn),
    ("memory|usage", Number),
    ("object|encoding", SetEncoding),
    ("object|idletime", Seconds),
    ("pexpiretime", Milliseconds),
    ("pttl", Milliseconds),
    ("randomkey", ChosenByChance),
    ("scan", OnePass),
    ("sdiff", MembersInAnyOrder),
    ("sinter", MembersInAnyOrder),
    ("slowlog|get", ItsOwn),
    ("slowlog|help", ItsOwn),
    ("slowlog|len", Number),
    ("smembers", MembersInAnyOrder),
    ("srandmember", ChosenByChance),
    ("sscan", OnePass),
    ("sunion", MembersInAnyOrder),
    ("time", Seconds),
    ("ttl", Seconds),
    ("xinfo|consumers", TimesInside),
    ("xinfo|stream", TimesInside),
    ("xpending", TimesInside),
    ("zrandmember", ChosenByChance),
    ("zscan", OnePass),
];

/// The name in the table, of a command or of a subcommand.
pub(crate) fn name(words: &[Word]) -> String {
    let mut name = String::from_utf8_lossy(&words[0]).to_ascii_lowercase();
    let answered_by_subcommand = matches!(name.as_str(), "client" | "command" | "slowlog");
    if let Some(second) = words.get(1)
        && (answered_by_subcommand || is_container(&words[0]))
    {
        name = format!("{name}|{}", String::from_utf8_lossy(second).to_ascii_lowercase());
    }
    name
}

/// What of this command's answer is not determined.
pub(crate) fn of(words: &[Word]) -> Option<Normaliser> {
    let name = name(words);
    let says = |word: &str| words.iter().any(|other| other.eq_ignore_ascii_case(word.as_bytes()));
    if name.starts_with("sort") && !says("store") && !says("alpha") {
        return Some(SortedByNumbers);
    }
    if name.starts_with("sort") && !says("store") && says("by") {
        return Some(MembersInAnyOrder);
    }
    let cursor = words.get(if name == "scan" { 1 } else { 2 });
    if name.ends_with("scan") && cursor.is_none_or(|cursor| cursor != b"0") {
        // Nobody gave that cursor: it may point anywhere.
        return Some(ChosenByChance);
    }
    NORMALISERS.iter().find(|(command, _)| *command == name).map(|(_, normaliser)| *normaliser)
}

/// Whether the answers are the same but for what is not determined.
pub(crate) fn same(words: &[Word], expected: &[u8], got: &[u8]) -> bool {
    if expected == got {
        return true;
    }
    let unknown = expected.starts_with(b"-ERR unknown command ") && look_up(&words[0]).is_some();
    if unknown || expected.to_ascii_lowercase().starts_with(b"-err unknown subcommand 'setinfo'") {
        return NewerThanServer.same(&Value::of(expected), &Value::of(got));
    }
    let Some(normaliser) = of(words) else { return false };
    normaliser.same(&Value::of(expected), &Value::of(got))
}

impl Normaliser {
    fn same(self, expected: &Value, got: &Value) -> bool {
        if self == NewerThanServer {
            return true;
        }
        if self == ItsOwnError {
            return expected.is_error() && got.is_error();
        }
        if expected.is_error() || got.is_error() {
            let wrong = Value::Error("ERR One or more scores can't be converted into double".into());
            return self == SortedByNumbers && (*expected == wrong || *got == wrong);
        }
        match self {
            MembersInAnyOrder | SortedByNumbers => sorted(expected) == sorted(got),
            PairsInAnyOrder => pairs(expected) == pairs(got),
            ChosenByChance => match (expected, got) {
                (Value::Array(expected), Value::Array(got)) => expected.len() == got.len(),
                (expected, got) => std::mem::discriminant(expected) == std::mem::discriminant(got),
            },
            OnePass => match (expected, got) {
                (Value::Array(expected), Value::Array(got)) => {
                    let pass = |items: &[Value]| (items[0].clone(), sorted(&items[1]));
                    expected.len() == 2 && got.len() == 2 && pass(expected) == pass(got)
                }
                _ => false,
            },
            Seconds => near(expected, got, MOMENT),
            Milliseconds => near(expected, got, MOMENT * 1_000),
            TimesInside => timeless(expected) == timeless(got),
            SetEncoding => {
                let is_set = |value: &Value| {
                    [&b"intset"[..], b"hashtable", b"listpack"].iter().any(|name| *value == Value::Bulk(name.to_vec()))
                };
                is_set(expected) && is_set(got)
            }
            SerializedInAnyOrder => match (expected, got) {
                (Value::Bulk(expected), Value::Bulk(got)) => {
                    serialized_type(expected).is_some_and(|kind| serialized_type(got) == Some(kind))
                }
                _ => false,
            },
            Number => matches!((expected, got), (Value::Int(_), Value::Int(_))),
            ItsOwn => std::mem::discriminant(expected) == std::mem::discriminant(got),
            ItsOwnError | NewerThanServer => false,
        }
    }
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items = items.clone();
            items.sort();
            Value::Array(items)
        }
        other => other.clone(),
    }
}

fn pairs(value: &Value) -> Vec<(Value, Option<Value>)> {
    let items = value.items().unwrap_or_default();
    let mut pairs: Vec<_> = items.chunks(2).map(|pair| (pair[0].clone(), pair.get(1).cloned())).collect();
    pairs.sort();
    pairs
}

/// Numbers, or texts of numbers, of which each is near the other's. Negative ones say that there is none.
fn near(expected: &Value, got: &Value, moment: i64) -> bool {
    match (expected, got) {
        (Value::Int(expected), Value::Int(got)) => *expected >= 0 && *got >= 0 && (expected - got).abs() <= moment,
        (Value::Array(expected), Value::Array(got)) => {
            // Of `TIME`: seconds, and a part of one.
            let first = expected.first().zip(got.first());
            expected.len() == got.len() && first.is_none_or(|(expected, got)| near(expected, got, moment))
        }
        (Value::Bulk(expected), Value::Bulk(got)) => {
            let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse().ok().map(Value::Int);
            number(expected).zip(number(got)).is_some_and(|(expected, got)| near(&expected, &got, moment))
        }
        (expected, got) => expected == got,
    }
}

/// Without times since 1970 in milliseconds, and without what stands behind the name of a time, and third in four.
fn timeless(value: &Value) -> Value {
    const SINCE_1970: i64 = 1_500_000_000_000;
    match value {
        Value::Int(number) if *number > SINCE_1970 => Value::Int(SINCE_1970),
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(timeless).collect();
            for at in 1..items.len() {
                let named = matches!(&items[at - 1], Value::Bulk(name) if name == b"idle" || name == b"inactive");
                // An entry of `XPENDING`: id, consumer, milliseconds since, deliveries.
                let third = at == 2 && items.len() == 4 && matches!(items[3], Value::Int(_));
                if (named || third) && matches!(items[at], Value::Int(_)) {
                    items[at] = Value::Int(0);
                }
            }
            Value::Array(items)
        }
        other => other.clone(),
    }
}

/// The type's number, of those that have no order or hold times: one for all encodings. None of others.
fn serialized_type(payload: &[u8]) -> Option<u8> {
    match payload.first()? {
        // A set as a table, of numbers, as a list.
        2 | 11 | 20 => Some(2),
        // A hash as a table.
        4 => Some(4),
        // A stream of any version.
        15 | 19 | 21 => Some(15),
        _ => None,
    }
}
