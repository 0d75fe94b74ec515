//! What is stored for a URL, for people who want to know why it is served, or is not.

use base::{Instant, WallTime};
use cache::{Key, Reason, Store};

use crate::rules::caching::serve::decide;
use crate::rules::caching::{RequestControl, StoredMeta, Use, key};
use crate::transact::fill::Word;
use crate::wire::h1::{Scheme, is_authority};

/// What is known of a URL.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// The key's text.
    pub key: String,
    /// The stored alternates.
    pub stored: Vec<KnownStored>,
    /// Fetches under way: what each waits for, who reads along, bytes that came.
    pub fetches: Vec<(&'static str, u64, u64)>,
    /// Why nobody waits for another's fetch, and for how many seconds more.
    pub declined: Option<(String, u64)>,
    /// In which queue it waits for eviction.
    pub queue: Option<&'static str>,
}

/// One stored response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownStored {
    /// Its status line.
    pub status: String,
    /// Seconds.
    pub age_s: u64,
    /// Seconds; negative when it is stale.
    pub fresh_for_s: i64,
    /// What a plain GET would get.
    pub verdict: &'static str,
    /// Bytes of body.
    pub length: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Its entity tag, or else when it was modified.
    pub validator: Option<String>,
    /// Names and values of the fields it varies with.
    pub vary: Vec<(String, Option<String>)>,
    /// Somebody marked it stale.
    pub marked_stale: bool,
}

/// The text of the key that a URL is stored under.
///
/// # Errors
/// What is wrong with the URL, and how it is written.
pub fn key_of(url: &str) -> Result<Vec<u8>, String> {
    let wrong = || format!("\"{url}\" is no URL of this proxy: write http://HOST[:PORT]/PATH, as clients do");
    let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
    let rest = rest.split('#').next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let is_path = path.bytes().all(|byte| byte.is_ascii_graphic());
    if authority.is_empty() || !is_authority(authority.as_bytes()) || !is_path {
        return Err(wrong());
    }
    let mut text = Vec::new();
    key::write_key(&mut text, Scheme::Http, authority.as_bytes(), path.as_bytes())
        .map_err(|reason| reason.sentence().to_owned())?;
    Ok(text)
}

/// Says what is known of the URL with this key.
#[must_use]
pub fn look_up(store: &dyn Store, key: &[u8], now: Instant, wall: WallTime) -> Known {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut known = Known { key: text(key), ..Known::default() };
    let Some(found) = store.describe(Key::of(key), now) else { return known };
    for one in &found.alternates {
        let Some(record) = StoredMeta::decode(&one.metadata).filter(|record| record.key() == key) else { continue };
        let decision = decide(&record.terms(), &RequestControl::default(), wall, one.stale);
        known.stored.push(KnownStored {
            status: text(record.status_line()),
            age_s: decision.reading.age_s().into(),
            fresh_for_s: decision.reading.ttl_s(),
            verdict: match decision.verdict {
                Use::Fresh => "served",
                Use::StaleAccepted => "served stale",
                Use::StaleWhileRevalidate => "served stale, and validated meanwhile",
                Use::Revalidate(_) => "validated first",
                Use::GatewayTimeout => "not served",
            },
            length: one.length,
            memory: one.bytes,
            validator: record.etag_text().or(record.modified_text()).map(text),
            vary: record.vary().into_iter().map(|field| (text(field.name), field.value.map(text))).collect(),
            marked_stale: one.stale,
        });
    }
    known.fetches = found.fetches.iter().map(|fetch| (fetch.state, fetch.followers as u64, fetch.length)).collect();
    known.declined = found.declined.first().map(|one| (name(one.reason), one.left.as_secs()));
    known.queue = found.queue;
    known
}

fn name(reason: Reason) -> String {
    match reason {
        Reason::Engine(code) => match Word::of(code) {
            Some(Word::Unstorable(reason)) => reason.name().to_owned(),
            Some(Word::Failed(fault)) => fault.name().to_owned(),
            Some(Word::Answered(status)) => format!("the origin answered {status}"),
            None => format!("reason {code}"),
        },
        Reason::TooLarge => "too-large".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_written_as_clients_write_it() {
        for (url, key) in [
            ("http://A.example", "http://a.example/"),
            ("http://a.example:80/x?y#z", "http://a.example/x?y"),
            ("http://a.example:81?y", "http://a.example:81/?y"),
            ("http://[::1]/", "http://[::1]/"),
        ] {
            assert_eq!(key_of(url).map(|key| String::from_utf8(key).unwrap()), Ok(key.to_owned()));
        }
        for url in ["", "/x", "a.example/x", "https://a.example/", "http:///x", "http://a b/", "http://a/\u{fc}"] {
            assert!(key_of(url).unwrap_err().contains("http://HOST"), "{url}");
        }
    }
}
