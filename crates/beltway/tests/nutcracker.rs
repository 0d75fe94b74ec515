//! The program under twemproxy's name, beside the real one where that is installed; and keys found from a file.

#![allow(clippy::unwrap_used, reason = "what fails here is a failed test")]

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const GOOD: &str =
    "alpha:\n  listen: 127.0.0.1:22121\n  timeout: 400\n  servers:\n    - 127.0.0.1:6379:1\n    - 127.0.0.1:6380:1\n";

/// A directory of its own for one test, removed when the test is over.
struct Home(PathBuf);

impl Home {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("nutcracker-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }

    fn run(&self, mut command: Command, words: &[&str]) -> Output {
        command.args(words).current_dir(&self.0).stdin(Stdio::null()).output().unwrap()
    }

    fn ours(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_beltway"));
        command.arg0("/usr/sbin/nutcracker");
        self.run(command, words)
    }

    fn beltway(&self, words: &[&str]) -> Output {
        self.run(Command::new(env!("CARGO_BIN_EXE_beltway")), words)
    }

    /// The real one's answer, where there is one.
    fn theirs(&self, words: &[&str]) -> Option<Output> {
        let program = ["/usr/sbin/nutcracker", "/usr/bin/nutcracker"].into_iter().find(|path| Path::new(path).exists());
        program.map(|program| self.run(Command::new(program), words))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn error_lines(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect()
}

#[test]
fn a_file_is_tested_as_the_real_program_tests_it() {
    let home = Home::new("test");
    home.file("good.yml", GOOD);
    home.file("bad.yml", &GOOD.replace("listen", "lisen"));
    for (file, code, verdict) in [("good.yml", 0, "ok"), ("bad.yml", 1, "invalid"), ("absent.yml", 1, "invalid")] {
        let words = ["-t", "-c", file];
        let ours = home.ours(&words);
        let said = format!("nutcracker: configuration file '{file}' syntax is {verdict}");
        assert_eq!((ours.status.code(), error_lines(&ours).last()), (Some(code), Some(&said)));
        assert!(ours.stdout.is_empty());
        if let Some(theirs) = home.theirs(&words) {
            assert_eq!((theirs.status, &theirs.stdout), (ours.status, &ours.stdout));
            assert_eq!(error_lines(&theirs).last(), error_lines(&ours).last());
        }
        assert_eq!(home.beltway(&["nutcracker", "-t", "-c", file]).status.code(), Some(code));
    }
    let said = error_lines(&home.ours(&["-tc", "bad.yml"])).join("\n");
    assert!(said.contains("bad.yml:2:10: directive `lisen` is unknown") && said.contains("did you mean `listen`?"));
    // Without `-c`, the file is looked for where it is there.
    fs::create_dir(home.0.join("conf")).unwrap();
    home.file("conf/nutcracker.yml", GOOD);
    assert_eq!(error_lines(&home.ours(&["-t"])), ["nutcracker: configuration file 'conf/nutcracker.yml' syntax is ok"]);
}

#[test]
fn version_help_and_numbers_are_described_as_there() {
    let home = Home::new("describe");
    for flag in ["-V", "-h", "-D", "--version", "--help", "--describe-stats", "-hD", "-Vt"] {
        let ours = home.ours(&[flag]);
        let lines = error_lines(&ours);
        assert_eq!((ours.status.code(), ours.stdout.len()), (Some(0), 0), "{flag}");
        assert_eq!(lines[0], "This is nutcracker-0.5.0");
        assert_eq!(lines[1], format!("Beltway {}", env!("CARGO_PKG_VERSION")));
        let Some(theirs) = home.theirs(&[flag]) else { continue };
        assert_eq!((theirs.status, &theirs.stdout), (ours.status, &ours.stdout), "{flag}");
        // The names of flags and numbers in their order; what is said of them is our own.
        let names = |lines: &[String]| -> Vec<String> {
            let name = |line: &String| {
                line.strip_prefix("  ").and_then(|line| line.split([' ', '=']).next()).map(str::to_owned)
            };
            lines.iter().filter_map(name).collect()
        };
        assert_eq!(names(&error_lines(&theirs)), names(&lines), "{flag}");
        assert_eq!(error_lines(&theirs).len(), lines.len(), "{flag}");
    }
}

#[test]
fn wrong_usage_is_refused_in_the_same_words() {
    let home = Home::new("usage");
    let wrong: [&[&str]; 12] = [
        &["-x"],
        &["-c"],
        &["-a"],
        &["-m"],
        &["-m", "0"],
        &["-m", "511"],
        &["-v", "x"],
        &["--verbose=x"],
        &["-s", "0"],
        &["-s", "65536"],
        &["-i", "-1"],
        &["--help=1"],
    ];
    for words in wrong {
        let ours = home.ours(words);
        assert_eq!(ours.status.code(), Some(1), "{words:?}");
        if let Some(theirs) = home.theirs(words) {
            assert_eq!(theirs.status, ours.status, "{words:?}");
            assert_eq!(error_lines(&theirs)[0], error_lines(&ours)[0], "{words:?}");
        }
    }
}

#[test]
fn what_changes_on_purpose_is_warned_of() {
    let home = Home::new("warned");
    let keys = "  client_connections: 9\n  server_connections: 2\n  servers";
    home.file("n.yml", &GOOD.replace("  timeout: 400\n", "").replace("  servers", keys));
    let output = home.ours(&["-t", "-c", "n.yml", "-m", "512"]);
    let said = error_lines(&output).join("\n");
    assert_eq!(output.status.code(), Some(0), "{said}");
    for part in ["-m 512 has no effect", "no `timeout`", "`client_connections` limits", "for each event thread"] {
        assert!(said.contains(part), "{part} in\n{said}");
    }
    home.file("quiet.yml", GOOD);
    assert_eq!(error_lines(&home.ours(&["-t", "-c", "quiet.yml"])).len(), 1);
}

#[test]
fn the_start_of_a_daemon_warns_once() {
    let home = Home::new("once");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    home.file("n.yml", &GOOD.replace("  timeout: 400\n", "").replace("127.0.0.1:22121", &listen));
    let output = home.ours(&["-d", "-c", "n.yml", "-m", "512", "-a", "127.0.0.1", "-o", "n.log"]);
    let said = error_lines(&output).join("\n");
    // So it is no daemon for long.
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["-m 512 has no effect", "no `timeout`", "cannot listen"] {
        assert_eq!(said.matches(part).count(), 1, "{part} in\n{said}");
    }
}

#[test]
fn keys_are_found_from_either_file() {
    let home = Home::new("where");
    home.file("n.yml", GOOD);
    let servers = "[\"127.0.0.1:6379:1\", \"127.0.0.1:6380:1\"]";
    home.file("b.yaml", &format!("kv: {{pools: {{alpha: {{listen: 127.0.0.1:22121, servers: {servers}}}}}}}\n"));
    let of = |file: &str| home.beltway(&["kv", "where", "-c", file, "alpha", "key:1", "another"]);
    let (theirs, ours) = (of("n.yml"), of("b.yaml"));
    assert_eq!((theirs.status.code(), ours.status.code()), (Some(0), Some(0)), "{theirs:?} {ours:?}");
    assert_eq!(theirs.stdout, ours.stdout);
    let text = String::from_utf8(ours.stdout).unwrap();
    assert!(text.starts_with("key:1: 127.0.0.1:63") && text.contains("\nanother: 127.0.0.1:63"), "{text}");
    let json = home.beltway(&["kv", "where", "--json", "-c", "n.yml", "alpha", "key:1"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((json["key"].as_str(), json["pool"].as_str()), (Some("key:1"), Some("alpha")));

    let none = home.beltway(&["kv", "where", "-c", "n.yml", "beta", "key:1"]);
    assert_eq!(none.status.code(), Some(2));
    assert!(error_lines(&none)[0].ends_with("there is alpha"), "{none:?}");
    home.file("bad.yml", &GOOD.replace("listen", "lisen"));
    home.file("bad.yaml", "kv: {pools: {alpha: {lisen: 127.0.0.1:1}}}\n");
    let said = |file: &str| {
        let output = home.beltway(&["kv", "where", "-c", file, "alpha", "key"]);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        error_lines(&output).join("\n")
    };
    assert!(said("bad.yml").contains("directive `lisen` is unknown"));
    assert!(said("bad.yaml").contains("unknown key `lisen` in `kv.pools.NAME`"));
    assert!(said("absent.yml").contains("cannot be read"));
}

#[test]
fn a_wrong_file_starts_nothing() {
    let home = Home::new("engine");
    home.file("bad.yml", "x");
    assert_eq!(home.ours(&["-c", "bad.yml"]).status.code(), Some(1));
    assert_eq!(home.ours(&["-d", "-c", "bad.yml"]).status.code(), Some(1));
}
