//! The typed configuration: one YAML file, read whole, judged, and handed on as values with their places.
//!
//! Nothing here opens a socket, starts a process, or knows what an engine does with a value. Nothing is accepted and
//! ignored: a key that is not in the table is an error, and one whose part is not built yet says so.
//!
//! ```text
//! text ── tree ── read ── build ── check ── Config
//!          │       │        │        └─ values that contradict each other
//!          │       │        └─ each setting to its field
//!          │       └─ which keys there are, by the table; one text to one value (value, remap)
//!          └─ YAML to nodes with places
//! ```
//!
//! Callers start at [`load`] and [`Config`]; readers of the code at `table.rs`, where every key is. An engine that
//! finds fault with a value answers with [`Config::diagnose`] at the value's [`Place`].

mod build;
mod check;
mod choice;
mod diagnostic;
mod edit;
mod explain;
mod kind;
pub mod kv;
mod model;
mod nearest;
mod read;
mod remap;
mod table;
mod tree;
mod value;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use choice::{
    Balance, EjectPolicy, Forwarded, HostHeader, Io, KvDistribution, KvHash, Level, LogFormat, MultigetPolicy,
};
pub use diagnostic::{DIAGNOSTICS_MAX, Diagnostic, Diagnostics, Place, Severity, Spanned};
pub use edit::{EditError, Setting, set, unset};
pub use explain::{explain, nearest_key, reference_markdown, reference_markdown_as_if};
pub use kind::Kind;
pub use model::{
    AccessLog, Admin, Cache, Config, Demo, Http, HttpLimits, HttpListener, HttpTimeouts, Log, LogFile, Names,
    RemapRule, Server, Supervise, Threads,
};
pub use remap::{HostPattern, OriginHost, OriginUrl, RemapFrom};
pub use table::{Applied, Key, table};

use diagnostic::{Findings, Source};
use read::Available;

/// The largest file that is read: four hundred bytes for each of ten thousand remap rules.
pub const FILE_SIZE_MAX: usize = 4 << 20;

/// Where the configuration is when no file is named.
pub const DEFAULT_FILE: &str = "/etc/beltway/beltway.yaml";

/// What runs when there is no file at all: everything on this machine, in front of the demonstration origin and stores.
pub const BUILTIN_DEFAULT: &str = "\
# Beltway's built-in default: a proxy for this machine alone, in front of an embedded demonstration origin and stores.
admin: {listen: 127.0.0.1:9001}
server: {listen: 127.0.0.1:9002}
demo: {origin: 127.0.0.1:8081, redis: 127.0.0.1:22131, memcached: 127.0.0.1:22132}
http:
  listen:
    - 127.0.0.1:8080
  remap:
    - {from: \"/\", to: \"http://127.0.0.1:8081/\"}
kv:
  pools:
    redis:
      listen: 127.0.0.1:22121
      redis: true
      servers: [\"127.0.0.1:22131:1\"]
    memcached:
      listen: 127.0.0.1:22122
      servers: [\"127.0.0.1:22132:1\"]
";

/// Whether this version runs `kv`. While it does not, `kv` in a file is refused as not available: it is never
/// accepted and ignored. With it go the rows of the reference page (BELTWAY_REWRITE=1 writes that anew).
pub const KV_AVAILABLE: bool = true;

/// The name that [`builtin_default`] goes by in messages.
const BUILTIN_NAME: &str = "<built-in default>";

/// Reads the file at `path`. Relative paths in it count from its directory.
///
/// # Errors
/// Everything that is wrong with it, at most [`DIAGNOSTICS_MAX`] findings. A file that cannot be read, is no regular
/// file, is larger than [`FILE_SIZE_MAX`] or is not UTF-8 is one finding.
pub fn load(path: &Path) -> Result<Config, Diagnostics> {
    load_as_if(path, KV_AVAILABLE)
}

/// As [`load`], with `kv` allowed or not, whatever [`KV_AVAILABLE`] says: for what only reads pools and runs none.
///
/// # Errors
/// As [`load`].
pub fn load_as_if(path: &Path, kv_available: bool) -> Result<Config, Diagnostics> {
    let (name, text) = read_file(path)?;
    let absolute = std::path::absolute(path).map_err(|error| unreadable(&name, &error))?;
    read_text(&name, &text, absolute.parent().unwrap_or(Path::new("/")), Available { kv: kv_available })
}

/// The name that the file at `path` goes by in messages, and its text.
pub(crate) fn read_file(path: &Path) -> Result<(String, String), Diagnostics> {
    let name = path.display().to_string();
    let failed = |message: String, hint: Option<&str>| {
        let hint = hint.map(str::to_owned);
        Diagnostics::from(Source::new(&name, "").diagnostic(Severity::Error, Place::NOWHERE, message, hint))
    };
    let unreadable = |error: std::io::Error| unreadable(&name, &error);
    // Asked before it is opened: opening a pipe would wait for a writer.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(failed("is not a regular file".to_owned(), Some("name the YAML file itself")));
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(FILE_SIZE_MAX).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path).map_err(unreadable)?.take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > FILE_SIZE_MAX {
        return Err(failed(too_large(), None));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok((name, text)),
        Err(error) => Err(not_utf8(&name, error.as_bytes(), error.utf8_error().valid_up_to()).into()),
    }
}

fn unreadable(name: &str, error: &std::io::Error) -> Diagnostics {
    Source::new(name, "").diagnostic(Severity::Error, Place::NOWHERE, format!("cannot be read: {error}"), None).into()
}

/// Reads `text` as the file `file_name`, which need not exist. Relative paths in it count from that file's directory.
///
/// # Errors
/// Everything that is wrong with it, at most [`DIAGNOSTICS_MAX`] findings.
pub fn parse(file_name: &str, text: &str) -> Result<Config, Diagnostics> {
    parse_as_if(file_name, text, KV_AVAILABLE)
}

/// As [`parse`], with `kv` allowed or not, whatever [`KV_AVAILABLE`] says.
///
/// # Errors
/// As [`parse`].
pub fn parse_as_if(file_name: &str, text: &str, kv_available: bool) -> Result<Config, Diagnostics> {
    let directory = Path::new(file_name).parent().unwrap_or(Path::new(""));
    read_text(file_name, text, directory, Available { kv: kv_available })
}

/// The configuration of [`BUILTIN_DEFAULT`].
#[must_use]
pub fn builtin_default() -> Config {
    parse_as_if(BUILTIN_NAME, BUILTIN_DEFAULT, KV_AVAILABLE).expect("the built-in default is right, as a test shows")
}

/// The file to read when none is named, if it is there.
#[must_use]
pub fn find_default_file() -> Option<PathBuf> {
    let path = Path::new(DEFAULT_FILE);
    // Whatever is there is meant: one that cannot be read must become an error, not the built-in default.
    path.symlink_metadata().is_ok().then(|| path.to_owned())
}

fn read_text(name: &str, text: &str, directory: &Path, available: Available) -> Result<Config, Diagnostics> {
    let source = Source::new(name, text.strip_prefix('\u{feff}').unwrap_or(text));
    if text.len() > FILE_SIZE_MAX {
        return Err(source.diagnostic(Severity::Error, Place::NOWHERE, too_large(), None).into());
    }
    let mut findings = Findings::new(&source);
    let root = tree::read(&source, &mut findings)?;
    let settings = read::read(root.as_deref(), directory, available, &mut findings);
    let mut config = build::config(settings, &source);
    check::check(&config, &mut findings);
    config.warnings = findings.verdict()?;
    Ok(config)
}

fn too_large() -> String {
    format!("is larger than {}", base::ByteCount(u64::try_from(FILE_SIZE_MAX).unwrap_or(u64::MAX)))
}

/// Points at the first byte that is not UTF-8, at `at`.
fn not_utf8(name: &str, bytes: &[u8], at: usize) -> Diagnostic {
    let before = String::from_utf8_lossy(&bytes[..at]);
    let line = before.matches('\n').count().saturating_add(1);
    let column = before.rsplit('\n').next().unwrap_or("").chars().count().saturating_add(1);
    let place =
        Place { line: u32::try_from(line).unwrap_or(u32::MAX), column: u32::try_from(column).unwrap_or(u32::MAX) };
    let byte = bytes.get(at).copied().unwrap_or(0);
    let text = String::from_utf8_lossy(bytes);
    Source::new(name, &text).diagnostic(
        Severity::Error,
        place,
        format!("the file is not UTF-8: byte {byte:#04x}"),
        Some("save it as UTF-8".to_owned()),
    )
}
