//! No text makes the reader panic, or keeps it busy for long.

use std::fmt::Write as _;

use config::kv::nutcracker;
use config::{DIAGNOSTICS_MAX, Diagnostics, FILE_SIZE_MAX, parse_as_if};
use proptest::prelude::*;

const GOOD: &str = concat!(include_str!("good/full.yaml"), include_str!("good/pools.yaml"));

const OF_TWEMPROXY: &str = "\
alpha:
  listen: 127.0.0.1:22121
  hash: fnv1a_64
  hash_tag: '{}'
  timeout: 400
  redis: true
  servers:
    - 127.0.0.1:6379:1 one
    - /tmp/redis.sock:1
beta:
  listen: /tmp/beta.sock 0660
  servers:
    - 127.0.0.1:11211:1
";

/// Reads and prints: both must work whatever the text is.
fn read(text: &str) -> Result<(), Diagnostics> {
    read_as_twemproxys(text);
    match parse_as_if("t.yaml", text, true) {
        Ok(config) => {
            let again = parse_as_if("t.yaml", config.source_text(), true).expect("what was read once is read again");
            assert_eq!(again, config);
            let _ = config.warnings().iter().map(ToString::to_string).collect::<String>();
            Ok(())
        }
        Err(diagnostics) => {
            assert!(!diagnostics.0.is_empty() && diagnostics.0.len() <= DIAGNOSTICS_MAX + 1);
            let said = diagnostics.to_string();
            assert!(!said.contains(|c: char| c.is_control() && c != '\n'), "{said:?}");
            assert!(said.len() < 1_000 * (DIAGNOSTICS_MAX + 1), "{} bytes", said.len());
            Err(diagnostics)
        }
    }
}

/// The same, as twemproxy's own file.
fn read_as_twemproxys(text: &str) {
    let nowhere = |_: &str, _: u16| Err(std::io::Error::other("no such host"));
    match nutcracker::parse("t.yml", text, &nowhere) {
        Ok(read) => assert!(!read.kv.pools.is_empty()),
        Err(wrong) => {
            let said = wrong.to_string();
            assert!(!said.is_empty() && !said.contains(|c: char| c.is_control() && c != '\n'), "{said:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_is_read_or_refused(text in any::<String>()) {
        let _ = read(&text);
    }

    #[test]
    fn text_made_of_the_marks_of_yaml_is_read_or_refused(
        text in r#"([a-c ]|[\[\]{},:&*!|>'"%@`#?~\n\r\t-]|http|listen|remap|from: /|to: |---|\.\.\.|<<|&a |\*a){0,60}"#
    ) {
        let _ = read(&text);
    }

    #[test]
    fn a_good_file_with_a_wrong_piece_is_read_or_refused(
        at in 0..GOOD.len(), length in 0..40_usize, piece in r#"([a-z0-9 ]|[\[\]{},:&*!|>'"%@`#?~\n\t/-]|\PC){0,12}"#
    ) {
        let floor = |mut i: usize| { while !GOOD.is_char_boundary(i) { i -= 1; } i };
        let (from, to) = (floor(at), floor((at + length).min(GOOD.len())));
        let mut text = GOOD.to_owned();
        text.replace_range(from..to.max(from), &piece);
        let _ = read(&text);
    }

    #[test]
    fn twemproxys_file_with_a_wrong_piece_is_read_or_refused(
        at in 0..OF_TWEMPROXY.len(), length in 0..20_usize, piece in r#"([a-z0-9 ]|[\[\]{},:&*!|>'"%@`#?~\n\t/-]|\PC){0,8}"#
    ) {
        let to = (at + length).min(OF_TWEMPROXY.len());
        read_as_twemproxys(&format!("{}{piece}{}", &OF_TWEMPROXY[..at], &OF_TWEMPROXY[to..]));
    }

    #[test]
    fn any_url_is_read_or_refused(url in r#"(http://|https://|/|)([a-z0-9.*:@%?#\[\]-]|\PC){0,30}"#) {
        let quoted = url.replace('\'', "''");
        let _ = read(&format!("http: {{remap: [{{from: '{quoted}', to: '{quoted}'}}]}}"));
    }

    #[test]
    fn any_scalar_at_any_key_is_read_or_refused(key in 0..config::table().len(), value in r#"[a-z0-9:./ -]{0,20}|\PC{0,12}"#) {
        let quoted = value.replace('\'', "''");
        let names: Vec<&str> = config::table()[key].path.split('.').collect();
        let open: String = names
            .iter()
            .map(|name| name.strip_suffix("[]").map_or_else(|| format!("{{{name}: "), |name| format!("{{{name}: [")))
            .collect();
        let close: String = names.iter().rev().map(|name| if name.ends_with("[]") { "]}" } else { "}" }).collect();
        let _ = read(&format!("{open}'{quoted}'{close}"));
    }
}

#[test]
fn every_beginning_of_a_good_file_is_read_or_refused() {
    for (end, _) in GOOD.char_indices() {
        let _ = read(&GOOD[..end]);
    }
}

#[test]
fn a_large_hostile_text_is_no_trouble() {
    let fill = |piece: &str| piece.repeat((FILE_SIZE_MAX / 8) / piece.len());
    let mut keys = String::new();
    for i in 0..40_000 {
        let _ = writeln!(keys, "k{i}: 1");
    }
    let hostile = [
        fill("["),
        fill("{"),
        fill("{a: "),
        fill("- "),
        fill("? "),
        fill("a:\n "),
        fill("\n- a"),
        fill("&a "),
        fill("*a "),
        fill("!a "),
        fill("\""),
        fill("'a' "),
        fill("\"\\u0041\" "),
        fill("#"),
        fill("\r"),
        fill("\n\n\t"),
        fill("a, "),
        fill("|\n"),
        format!("[{}]", fill("a, ")),
        format!("a: \"{}", fill("x ")),
        format!("a: {}", fill("x")),
        format!("{}: 1", fill("x")),
        format!("http: {{remap: [{}]}}", fill("{}, ")),
        format!("http: {{remap: [{}]}}", fill("{from: /, to: 'http://a'},")),
        fill("threads: 1\n"),
        keys,
    ];
    for text in hostile {
        let _ = read(&text);
    }
}

#[test]
fn ten_thousand_rules_are_read() {
    let mut text = String::from("http:\n  listen: [127.0.0.1:80]\n  remap:\n");
    for i in 0..10_000 {
        let _ = writeln!(
            text,
            "    - {{from: \"http://host{i}.example.com/\", to: [\"http://10.0.0.1/\", \"http://10.0.0.2/\"]}}"
        );
    }
    assert_eq!(parse_as_if("t", &text, true).unwrap().http.remap.len(), 10_000);
    text.push_str("    - {from: /, to: \"http://10.0.0.1/\"}\n");
    let wrong = parse_as_if("t", &text, true).unwrap_err().to_string();
    assert!(wrong.starts_with("t:10004:7: `http.remap` has more than 10000 items"), "{wrong}");
}
