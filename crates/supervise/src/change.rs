//! Changes of the configuration and of the server, as they are asked for and answered.
//!
//! Plain data. What is *prepared* by the running server can be *committed*; until then nothing has changed, and what is
//! refused changes nothing. Manager carries changes out, one at a time.

use config::{Applied, Config, Diagnostic};
use serde::{Deserialize, Serialize};

/// Characters of diagnostics that one verdict carries.
const DIAGNOSTICS_LENGTH_MAX: usize = 48 * 1024;

/// Which configuration is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proposal {
    /// What the file says now.
    File,
    /// One of the history, by its number.
    Past(u64),
}

/// How far to go with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Say what would happen.
    Judge,
    /// Put it in force in the running server.
    Reload,
    /// Put it in force with a new server side by side.
    Restart,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is in force.
    Applied,
    /// Judged only: it would be.
    Possible,
    /// It says what is in force already.
    Unchanged,
    /// Something in it takes a new server; nothing has changed.
    NeedsRestart,
    /// It is wrong; nothing has changed.
    Wrong,
    /// It could not be carried out; nothing has changed.
    #[default]
    Failed,
}

/// One key whose value differs from that in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChangedKey {
    /// The key.
    pub key: String,
    /// It takes a new server.
    pub needs_restart: bool,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verdict {
    /// What became of it.
    pub outcome: Outcome,
    /// What differs from what was in force.
    pub changed: Vec<ChangedKey>,
    /// What is wrong, each with `file:line:column`, or what is allowed and hardly meant.
    pub diagnostics: Vec<String>,
    /// Why, in words, when there is more to say.
    pub why: String,
    /// The generation that serves; 0: none.
    pub generation: u64,
    /// How long it took.
    pub took_ms: u64,
}

impl Verdict {
    /// A verdict with its reason and nothing else.
    #[must_use]
    pub fn new(outcome: Outcome, why: impl Into<String>) -> Self {
        Self { outcome, why: why.into(), ..Self::default() }
    }

    /// It is wrong, and these say where.
    #[must_use]
    pub fn wrong(diagnostics: &[Diagnostic]) -> Self {
        Self { outcome: Outcome::Wrong, diagnostics: told(diagnostics), ..Self::default() }
    }

    /// Whether what was asked for was done.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self.outcome, Outcome::Applied | Outcome::Possible | Outcome::Unchanged)
    }

    /// The keys that take a new server.
    #[must_use]
    pub fn restart_keys(&self) -> Vec<&str> {
        self.changed.iter().filter(|changed| changed.needs_restart).map(|changed| changed.key.as_str()).collect()
    }
}

/// What differs in `new`.
#[must_use]
pub fn changed_keys(old: &Config, new: &Config) -> Vec<ChangedKey> {
    let key = |(key, applied): (&str, Applied)| ChangedKey {
        key: key.to_owned(),
        needs_restart: applied == Applied::Restart,
    };
    old.changed(new).map(key).collect()
}

/// Diagnostics as text, as many as an answer carries.
#[must_use]
pub fn told(diagnostics: &[Diagnostic]) -> Vec<String> {
    let mut room = DIAGNOSTICS_LENGTH_MAX;
    let mut texts = Vec::new();
    for diagnostic in diagnostics {
        let text = diagnostic.to_string();
        if text.len() > room {
            texts.push(format!("and {} more", diagnostics.len() - texts.len()));
            break;
        }
        room -= text.len();
        texts.push(text);
    }
    texts
}
