//! Who may change things over HTTP: who shows the token that stands in `admin.token_file`.
//!
//! The file is read for each request that wants to change something, so that another token is in force as soon as it is
//! written. One that others may read is no secret, and is not taken.

use std::fs::File;
use std::hint::black_box;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

/// The shortest token: what is shorter can be guessed.
const LENGTH_MIN: usize = 16;
/// The longest token.
const LENGTH_MAX: usize = 1024;
/// Permissions that a token's file must not give: any to others, writing to the group.
const FORBIDDEN_MODE: u32 = 0o027;

/// Why a change is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No token is configured: this port only reads.
    ReadOnly,
    /// The configured one is of no use; why is for the log.
    Unusable(String),
    /// None was shown.
    Missing,
    /// Another one was shown.
    Wrong,
}

/// Whether the request shows the token of `file`.
pub(super) fn check(file: Option<&Path>, headers: &HeaderMap) -> Result<(), Refusal> {
    let file = file.ok_or(Refusal::ReadOnly)?;
    let mut shown = headers.get_all(AUTHORIZATION).iter();
    let (Some(shown), None) = (shown.next(), shown.next()) else { return Err(Refusal::Missing) };
    let shown = bearer(shown.as_bytes()).ok_or(Refusal::Missing)?;
    let token = read(file).map_err(|why| Refusal::Unusable(format!("{}: {why}", file.display())))?;
    if same(shown, &token) { Ok(()) } else { Err(Refusal::Wrong) }
}

/// `Bearer TOKEN`, the scheme in any case (RFC 9110 §11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let file = File::open(file).map_err(|error| error.to_string())?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("is no regular file".to_owned());
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & FORBIDDEN_MODE != 0 {
        return Err(format!("its mode is {mode:03o}: others may read it, or its group write it; make it 600"));
    }
    let mut token = Vec::new();
    let limit = u64::try_from(LENGTH_MAX + 2).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut token).map_err(|error| error.to_string())?;
    let token = token.trim_ascii();
    if token.len() < LENGTH_MIN || token.len() > LENGTH_MAX {
        return Err(format!("a token has {LENGTH_MIN} to {LENGTH_MAX} characters, this has {}", token.len()));
    }
    Ok(token.to_vec())
}

/// Takes as long for a token that is right up to its last byte as for one that is wrong from the first: as long as what
/// was shown is long.
fn same(shown: &[u8], token: &[u8]) -> bool {
    let mut differs = u8::from(shown.len() != token.len());
    for (at, byte) in shown.iter().enumerate() {
        // A token is never empty.
        differs |= black_box(byte ^ token.get(at % token.len()).copied().unwrap_or(0));
    }
    black_box(differs) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_the_whole_token_is_the_token() {
        let token = b"0123456789abcdef";
        assert!(same(token, token));
        for wrong in [&b""[..], b"0", b"0123456789abcdeF", b"0123456789abcdef0123456789abcdef", b"1123456789abcdef"] {
            assert!(!same(wrong, token), "{wrong:?}");
        }
        assert_eq!(bearer(b"bEARER  x "), Some(&b"x"[..]));
        assert_eq!(bearer(b"Basic x"), None);
    }

    #[test]
    fn a_file_that_others_may_read_or_that_holds_no_token_is_of_no_use() {
        let path = std::env::temp_dir().join(format!("beltway-token-{}", std::process::id()));
        let headers = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            headers
        };
        let good = headers("Bearer 0123456789abcdef");
        fs::write(&path, "0123456789abcdef\n").unwrap();
        let check = |mode, headers: &HeaderMap| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            super::check(Some(&path), headers)
        };
        assert_eq!(check(0o600, &good), Ok(()));
        assert_eq!(check(0o640, &good), Ok(()));
        assert!(matches!(check(0o644, &good), Err(Refusal::Unusable(why)) if why.contains("644")));
        assert_eq!(check(0o600, &headers("Bearer 0123456789abcdeg")), Err(Refusal::Wrong));
        assert_eq!(check(0o600, &headers("Basic 0123456789abcdef")), Err(Refusal::Missing));
        assert_eq!(check(0o600, &HeaderMap::new()), Err(Refusal::Missing));
        let mut twice = good.clone();
        twice.append(AUTHORIZATION, "Bearer 0123456789abcdef".parse().unwrap());
        assert_eq!(check(0o600, &twice), Err(Refusal::Missing));
        assert_eq!(super::check(None, &good), Err(Refusal::ReadOnly));
        fs::write(&path, "short\n").unwrap();
        assert!(matches!(check(0o600, &good), Err(Refusal::Unusable(why)) if why.contains("this has 5")));
        fs::remove_file(&path).unwrap();
        assert!(matches!(super::check(Some(&path), &good), Err(Refusal::Unusable(_))));
    }
}
