//! What an operator reads: each file in `tests/bad` gives the text beside it; each file in `tests/good` gives none.

use std::fs;
use std::path::{Path, PathBuf};

use config::{DIAGNOSTICS_MAX, parse, parse_as_if};

fn files(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(directory);
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .expect("the directory of examples")
        .map(|entry| entry.expect("an entry of it").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
}

#[test]
fn every_bad_file_gets_the_message_written_for_it() {
    let files = files("bad");
    assert!(files.len() >= 30);
    let mut wrong = Vec::new();
    for path in files {
        let name = format!("{}.yaml", path.file_stem().unwrap().to_string_lossy());
        let said = match parse(&name, &fs::read_to_string(&path).unwrap()) {
            Err(diagnostics) => format!("{diagnostics}\n"),
            Ok(_) => panic!("{name} was accepted"),
        };
        let expected = path.with_extension("expected");
        if std::env::var_os("BELTWAY_REWRITE").is_some() {
            fs::write(&expected, &said).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != said {
            wrong.push(said);
        }
    }
    assert!(wrong.is_empty(), "{}\nIf these are right: BELTWAY_REWRITE=1 cargo test", wrong.join("\n"));
}

#[test]
fn every_good_file_is_read_without_a_warning() {
    for path in files("good") {
        let text = fs::read_to_string(&path).unwrap();
        let config = parse_as_if("good.yaml", &text, true).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert_eq!(config.warnings(), [], "{}", path.display());
    }
}

#[test]
fn a_message_is_file_line_column_then_the_line_a_caret_and_what_would_be_right() {
    let wrong = parse("dir/b.yaml", "http:\n  lisen: [127.0.0.1:8080]\n").unwrap_err();
    let expected = "dir/b.yaml:2:3: unknown key `lisen` in `http`
  2 |   lisen: [127.0.0.1:8080]
    |   ^
    = did you mean `listen`?";
    assert_eq!(wrong.to_string(), expected);
    let place = wrong.0[0].place.unwrap();
    assert_eq!((place.line, place.column), (2, 3));
}

#[test]
fn errors_come_in_the_order_of_the_file_and_are_bounded() {
    let text: String = (0..1_000).map(|i| format!("key{i}: 1\n")).collect();
    let wrong = parse("t", &text).unwrap_err();
    assert_eq!(wrong.0.len(), DIAGNOSTICS_MAX + 1);
    assert_eq!(wrong.0.last().unwrap().to_string(), "t: and 950 more errors, not shown");
    assert!(wrong.0[..DIAGNOSTICS_MAX].is_sorted_by_key(|found| found.place));
}

#[test]
fn a_rule_that_never_has_its_turn_is_warned_of() {
    let text = "http:
  listen: [127.0.0.1:8080]
  remap:
    - {from: \"http://*.example.com/\", to: \"http://10.0.0.5/\"}
    - {from: \"http://a.example.com/x\", to: \"http://10.0.0.5/\"}
    - {from: \"http://example.com/\", to: \"http://10.0.0.5/\"}
";
    let config = parse("t", text).unwrap();
    let said: Vec<String> = config.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("t:5:14: warning: this rule never matches"), "{}", said[0]);
}

#[test]
fn an_engine_can_point_at_a_value_later() {
    let config = parse("t", "http:\n  listen: [127.0.0.1:80]\n").unwrap();
    let place = config.http.listen[0].address.place;
    let said = config.diagnose(place, "cannot bind: permission denied", Some("run as root".to_owned())).to_string();
    assert_eq!(
        said,
        "t:2:12: cannot bind: permission denied\n  2 |   listen: [127.0.0.1:80]\n    |            ^\n    = run as root"
    );
    let of_a_default = config.diagnose(config.admin.listen.unwrap().place, "in use", None).to_string();
    assert_eq!(of_a_default, "t: in use");
}
