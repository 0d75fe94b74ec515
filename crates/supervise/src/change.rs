//! Changes of the configuration and of the server, as they are asked for and answered.
//!
//! Plain data. What is *prepared* by the running server can be *committed*; until then nothing has changed, and what is
//! refused changes nothing. Manager carries changes out, one at a time.

use config::{Applied, Config, Diagnostic, Setting};
use serde::{Deserialize, Serialize};

/// Characters of diagnostics that one verdict carries.
const DIAGNOSTICS_LENGTH_MAX: usize = 48 * 1024;

/// Characters of one key's value that are shown.
const VALUE_LENGTH_MAX: usize = 120;

/// Which configuration is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proposal {
    /// What the file says now.
    File,
    /// One of the history, by its number.
    Past(u64),
    /// The file with one key set, which must else say what is in force; it is written when that is.
    Set {
        /// The key.
        key: String,
        /// Its value, as it would be written in the file.
        value: String,
    },
    /// As [`Proposal::Set`], with one key taken out, so that its default is in force.
    Unset {
        /// The key.
        key: String,
    },
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
    /// As [`Step::Restart`], all processes becoming the program now on disk.
    Upgrade,
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

impl Outcome {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "in force",
            Self::Possible => "possible",
            Self::Unchanged => "nothing differs",
            Self::NeedsRestart => "needs a restart",
            Self::Wrong => "the configuration is wrong",
            Self::Failed => "failed",
        }
    }
}

/// One key whose value differs from that in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChangedKey {
    /// The key.
    pub key: String,
    /// It takes a new server.
    pub needs_restart: bool,
    /// What it is in force as it is written, else its default; cut when it is long, empty for what several pools have.
    pub before: String,
    /// What it would be.
    pub after: String,
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
    let changed: Vec<_> = old.changed(new).collect();
    if changed.is_empty() {
        return Vec::new();
    }
    let (before, after) = (old.every_setting(), new.every_setting());
    let value = |settings: &[Setting], key: &str| {
        let setting = settings.iter().find(|setting| setting.key == key);
        setting.map(|setting| cut(&setting.value)).unwrap_or_default()
    };
    let key = |(key, applied): (&str, Applied)| ChangedKey {
        key: key.to_owned(),
        needs_restart: applied == Applied::Restart,
        before: value(&before, key),
        after: value(&after, key),
    };
    changed.into_iter().map(key).collect()
}

/// On one line, and no longer than fits a screen.
fn cut(value: &str) -> String {
    let line = value.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(VALUE_LENGTH_MAX) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
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
