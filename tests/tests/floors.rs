//! The house rules that the compiler does not know: who imports whom, where unsafe code and the async runtime live,
//! how long a file may grow. ARCHITECTURE.md says why; this says whether it still holds.
//!
//! Every broken rule is printed with the file, what broke it and the remedy. Start with [`ROOMS`].

#[path = "floors/rust_text.rs"]
mod rust_text;

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a room may import from the house.
enum Imports {
    /// Every room on floors below this one.
    Below(u8),
    /// Every room on floors below this one, and these.
    BelowAnd(u8, &'static [&'static str]),
    /// Just these.
    Only(&'static [&'static str]),
}

struct Room {
    name: &'static str,
    floor: u8,
    imports: Imports,
}

const fn room(name: &'static str, floor: u8, imports: Imports) -> Room {
    Room { name, floor, imports }
}

/// The floors. A room without a row is refused: whoever builds one says here what it may see.
const ROOMS: &[Room] = &[
    room("base", 0, Imports::Only(&[])),
    room("stats", 0, Imports::Only(&[])),
    room("sys", 0, Imports::Only(&[])),
    room("buf", 1, Imports::Below(1)),
    room("hashring", 1, Imports::Below(1)),
    room("config", 1, Imports::Below(1)),
    room("event", 2, Imports::Below(2)),
    room("supervise", 2, Imports::Below(2)),
    room("net", 3, Imports::Below(3)),
    room("cache", 4, Imports::Below(4)),
    room("http", 5, Imports::Below(5)),
    room("kv", 5, Imports::Below(5)),
    room("demo", 6, Imports::Below(6)),
    // The server runs the embedded origin on its own event threads.
    room("server", 6, Imports::BelowAnd(6, &["demo"])),
    room("manager", 6, Imports::Below(3)),
    room("ctl", 6, Imports::Below(3)),
    room("cop", 6, Imports::Only(&["base", "sys", "config", "supervise"])),
    room("beltway", 7, Imports::Below(7)),
];

/// The rooms that may hold unsafe code.
const UNSAFE_ROOMS: &[&str] = &["sys", "buf", "event"];

/// The control plane's runtime: it must not come near an event thread.
const RUNTIME: &[&str] = &["tokio", "axum", "hyper"];
const RUNTIME_ROOM: &str = "manager";

/// Above this, a file is more than one thing.
const LINES_MAX: usize = 700;

/// Files that are long on purpose, each with its reason.
const LONG_FILES: &[(&str, &str)] = &[];

#[test]
fn imports_point_only_down() {
    let mut findings = Vec::new();
    for package in packages() {
        let Some(me) = ROOMS.iter().find(|room| room.name == package.room) else {
            if package.is_room() {
                findings.push(Finding {
                    rule: "every room has a floor",
                    place: package.manifest.clone(),
                    what: format!("`{}` is not in the table of floors", package.room),
                    remedy: "add a row to ROOMS in tests/tests/floors.rs, and to the table in ARCHITECTURE.md",
                });
            }
            continue;
        };
        for other in &package.house_imports {
            let Some(other) = ROOMS.iter().find(|room| room.name == other) else { continue };
            let allowed = match me.imports {
                Imports::Below(floor) => other.floor < floor,
                Imports::BelowAnd(floor, also) => other.floor < floor || also.contains(&other.name),
                Imports::Only(these) => these.contains(&other.name),
            };
            if !allowed {
                findings.push(Finding {
                    rule: "imports point only down",
                    place: package.manifest.clone(),
                    what: format!(
                        "`{}` (floor {}) imports `{}` (floor {})",
                        me.name, me.floor, other.name, other.floor
                    ),
                    remedy: "take what you need as an argument or a trait of your own, or move it to a lower floor",
                });
            }
        }
    }
    judge(&findings);
}

#[test]
fn every_package_obeys_the_workspace_lints() {
    let mut findings = Vec::new();
    for package in packages() {
        let manifest = read(&root().join(&package.manifest));
        let inherits = manifest.split("[lints]").nth(1).is_some_and(|rest| {
            rest.lines().map(str::trim).find(|line| !line.is_empty()).is_some_and(|line| line == "workspace = true")
        });
        if !inherits {
            findings.push(Finding {
                rule: "one set of lints",
                place: package.manifest,
                what: "the workspace's lints are not inherited".into(),
                remedy: "add `[lints]` with `workspace = true`",
            });
        }
    }
    judge(&findings);
}

#[test]
fn unsafe_code_stays_in_its_three_rooms() {
    let mut findings = Vec::new();
    for file in rust_files() {
        if room_of(&file).is_some_and(|room| UNSAFE_ROOMS.contains(&room)) {
            continue;
        }
        let words = rust_text::words(&read(&root().join(&file)));
        for (at, (line, word)) in words.iter().enumerate() {
            // The lint's name appears where somebody switches it off, or forbids it once more.
            let forbidden_here = at > 0 && matches!(words[at - 1].1.as_str(), "forbid" | "deny");
            if word == "unsafe" || (word == "unsafe_code" && !forbidden_here) {
                findings.push(Finding {
                    rule: "unsafe code lives in sys, buf and event",
                    place: format!("{file}:{line}"),
                    what: format!("`{word}`"),
                    remedy: "build a safe face for it in `sys` (system calls), `buf` (memory) or `event` (wake-ups)",
                });
            }
        }
    }
    judge(&findings);
}

#[test]
fn the_async_runtime_stays_in_the_control_plane() {
    let mut findings = Vec::new();
    let remedy = "event threads run continuations of `event`; what insists on a runtime belongs into `manager`";
    for package in packages() {
        for name in package.imports.iter().filter(|name| RUNTIME.contains(&name.as_str())) {
            if package.is_room() && package.room != RUNTIME_ROOM {
                findings.push(Finding {
                    rule: "the async runtime stays in manager",
                    place: package.manifest.clone(),
                    what: format!("imports `{name}`"),
                    remedy,
                });
            }
        }
    }
    for file in rust_files() {
        if room_of(&file).is_none_or(|room| room == RUNTIME_ROOM) {
            continue;
        }
        for (line, word) in rust_text::words(&read(&root().join(&file))) {
            if RUNTIME.contains(&word.as_str()) {
                findings.push(Finding {
                    rule: "the async runtime stays in manager",
                    place: format!("{file}:{line}"),
                    what: format!("`{word}`"),
                    remedy,
                });
            }
        }
    }
    judge(&findings);
}

#[test]
fn the_server_links_no_async_runtime() {
    let tree = cargo(&["tree", "-p", "beltway-server", "-e", "normal", "--prefix", "none", "--format", "{p}"]);
    let linked: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(linked.contains(&"beltway-event"), "cargo tree says nothing of the server's parts:\n{tree}");
    let findings: Vec<Finding> = RUNTIME
        .iter()
        .filter(|name| linked.contains(name))
        .map(|name| Finding {
            rule: "no async runtime on event threads",
            place: "crates/server/Cargo.toml".into(),
            what: format!("`{name}` is linked into the server"),
            remedy: "`cargo tree -p beltway-server -e normal -i NAME` says through whom; drop that dependency or its feature",
        })
        .collect();
    judge(&findings);
}

#[test]
fn no_file_grows_without_end() {
    let mut findings = Vec::new();
    for file in rust_files() {
        let lines = read(&root().join(&file)).lines().count();
        let excused = LONG_FILES.iter().any(|(name, _)| *name == file);
        if lines > LINES_MAX && !excused {
            findings.push(Finding {
                rule: "a file is one thing",
                place: file,
                what: format!("{lines} lines, {LINES_MAX} are allowed"),
                remedy: "split it by phase; when it is long for a good reason, name it in LONG_FILES with that reason",
            });
        } else if lines <= LINES_MAX && excused {
            findings.push(Finding {
                rule: "exceptions go when they are no longer needed",
                place: file,
                what: format!("{lines} lines are within the limit of {LINES_MAX}"),
                remedy: "take it out of LONG_FILES",
            });
        }
    }
    for (name, _) in LONG_FILES.iter().filter(|(name, _)| !root().join(name).is_file()) {
        findings.push(Finding {
            rule: "exceptions go when they are no longer needed",
            place: (*name).into(),
            what: "the file is gone".into(),
            remedy: "take it out of LONG_FILES",
        });
    }
    judge(&findings);
}

/// The text must stand by itself in ten years: a number that only the people of one week can look up says nothing.
#[test]
fn the_text_refers_only_to_what_a_reader_can_open() {
    // Written in two halves, so that this file does not find itself.
    let machine_paths = [concat!("/wo", "rk/"), concat!("/tmp/", "plan")];
    let absent_pages = [
        concat!("DESIGN", ".md"),
        concat!("INTERFACE", ".md"),
        concat!("STYLE", ".md"),
        concat!("DESIGN", " §"),
        concat!("seed ", "00"),
    ];
    let numbered = ["issue", "session", "ticket"];
    let mut findings = Vec::new();
    for file in text_files() {
        let Ok(text) = fs::read_to_string(root().join(&file)) else { continue };
        for (index, line) in text.lines().enumerate() {
            let mut report = |what: &str, remedy| {
                findings.push(Finding {
                    rule: "the text refers only to what a reader can open",
                    place: format!("{file}:{}", index + 1),
                    what: format!("`{what}`"),
                    remedy,
                });
            };
            for path in machine_paths.iter().filter(|path| line.contains(**path)) {
                report(path, "no path of one machine: name the file within the repository");
            }
            for page in absent_pages.iter().filter(|page| line.contains(**page)) {
                report(page, "that page is not in the repository: refer to ARCHITECTURE.md or CONTRIBUTING.md");
            }
            for word in numbered.iter().filter(|word| followed_by_number(line, word)) {
                report(word, "tell the reason itself instead of the number of the place where it was told");
            }
        }
    }
    judge(&findings);
}

/// Whether `word` stands in `line` as a word of its own with a number behind it: "… 12", "… #12", "…s 12".
/// A value that is set in code (`page = 12`) is none.
fn followed_by_number(line: &str, word: &str) -> bool {
    let line = line.to_ascii_lowercase();
    line.match_indices(word).any(|(at, _)| {
        let alone = line[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_');
        let rest = line[at + word.len()..].trim_start_matches('s');
        let rest = rest.strip_prefix(' ').map(|rest| rest.trim_start_matches('#'));
        alone && rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}

#[test]
fn a_number_behind_a_word_is_told_from_other_uses() {
    assert!(followed_by_number("see Page #12", "page"));
    assert!(followed_by_number("of pages 3 and 4", "page"));
    assert!(!followed_by_number("homepage 12", "page"));
    assert!(!followed_by_number("let page = 12;", "page"));
    assert!(!followed_by_number("a page ends", "page"));
}

/// One broken rule.
struct Finding {
    rule: &'static str,
    place: String,
    what: String,
    remedy: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n    rule: {}\n    remedy: {}", self.place, self.what, self.rule, self.remedy)
    }
}

fn judge(findings: &[Finding]) {
    let list: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(list.is_empty(), "{} broken:\n\n{}\n", list.len(), list.join("\n\n"));
}

/// A package of the workspace: its room's name, its manifest, whom it names in any kind of dependency.
struct Package {
    room: String,
    manifest: String,
    imports: Vec<String>,
    house_imports: Vec<String>,
}

impl Package {
    /// The benchmark and the walks stand beside the house and may look at everything.
    fn is_room(&self) -> bool {
        self.manifest.starts_with("crates/")
    }
}

fn packages() -> Vec<Package> {
    let metadata = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&metadata).expect("cargo metadata is JSON");
    let listed = metadata["packages"].as_array().expect("packages");
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let rooms: BTreeMap<String, String> =
        listed.iter().map(|p| text(&p["name"])).map(|n| (n.clone(), room_name(&n))).collect();
    let found: Vec<Package> = listed
        .iter()
        .map(|package| {
            let imports: Vec<String> =
                package["dependencies"].as_array().expect("dependencies").iter().map(|d| text(&d["name"])).collect();
            let manifest = PathBuf::from(text(&package["manifest_path"]));
            let manifest = manifest.strip_prefix(root()).expect("in the workspace").to_string_lossy().into_owned();
            let house_imports = imports.iter().filter_map(|name| rooms.get(name).cloned()).collect();
            Package { room: room_name(&text(&package["name"])), manifest, imports, house_imports }
        })
        .collect();
    assert!(found.len() > 10, "cargo metadata lists only {} packages", found.len());
    found
}

/// `beltway-event` to cargo is `event` in the house; the binary is `beltway`.
fn room_name(package: &str) -> String {
    package.strip_prefix("beltway-").unwrap_or(package).to_owned()
}

fn cargo(arguments: &[&str]) -> String {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output =
        Command::new(program).args(arguments).arg("--offline").current_dir(root()).output().expect("cargo runs");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {}: {complaint}", arguments.join(" "));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace's root")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The room a file is in; none when it stands beside the house.
fn room_of(file: &str) -> Option<&str> {
    file.strip_prefix("crates/")?.split('/').next()
}

fn rust_files() -> Vec<String> {
    let files: Vec<String> = text_files().into_iter().filter(|file| file.ends_with(".rs")).collect();
    assert!(files.len() > 10, "only {} files found", files.len());
    files
}

/// Every file a person wrote, relative to the root, with `/` between its parts.
fn text_files() -> Vec<String> {
    const FOREIGN: &[&str] = &["target", ".git", "Cargo.lock", "corpus", "artifacts"];
    let mut waiting = vec![PathBuf::new()];
    let mut files = Vec::new();
    while let Some(folder) = waiting.pop() {
        let entries = fs::read_dir(root().join(&folder)).expect("a readable folder");
        for entry in entries.map(|entry| entry.expect("an entry")) {
            let name = entry.file_name();
            let path = folder.join(&name);
            let kind = entry.file_type().expect("a type");
            if FOREIGN.iter().any(|foreign| name == *foreign) {
            } else if kind.is_dir() {
                waiting.push(path);
            } else if kind.is_file() {
                files.push(path.to_string_lossy().into_owned());
            }
        }
    }
    files.sort();
    files
}
