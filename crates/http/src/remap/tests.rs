use std::collections::HashMap;

use super::*;

fn origin(text: &str) -> Origin {
    let (authority, path) = text.split_at(text.find('/').unwrap());
    Origin { authority: authority.into(), path: path.into() }
}

/// `host|port|path`, where `-` is none, `=h` exact and `*h` suffix; one origin.
fn source(rule: &str, to: &[&str]) -> RuleSource {
    let parts: Vec<_> = rule.split('|').collect();
    let host = match parts[0] {
        "-" => None,
        host if host.starts_with('*') => Some(HostPattern::Suffix(host.into())),
        host => Some(HostPattern::Exact(host.into())),
    };
    let origins = to.iter().map(|to| origin(to)).collect();
    RuleSource { host, port: parts[1].parse().ok(), path: parts[2].into(), origins, balance: Balance::RoundRobin }
}

fn remap(rules: &[&str]) -> Remap {
    Remap::compile(rules.iter().map(|rule| source(rule, &["o:1/"])).collect()).unwrap()
}

fn found(remap: &Remap, authority: &str, path: &str) -> Lookup {
    remap.look_up(authority.as_bytes(), 80, path.as_bytes())
}

#[test]
fn the_first_rule_that_fits_wins() {
    let remap = remap(&[
        "www.Example.com|-|/a/b",
        "-|-|/a",
        "www.example.com|-|/",
        "*.example.com|-|/",
        "www.example.com|-|/never",
        "b.example|8080|/",
        "[::1]|-|/",
    ]);
    for (authority, path, rule) in [
        ("WWW.example.COM", "/a/b/c", Some(0)),
        ("www.example.com.", "/a/b", Some(0)),
        ("www.example.com:99", "/a/b?x", Some(0)),
        ("www.example.com", "/a/bc", Some(1)),
        ("other", "/a", Some(1)),
        ("", "/a/", Some(1)),
        ("www.example.com", "/never", Some(2)),
        ("www.example.com", "*", Some(2)),
        ("www.example.com", "?q", Some(2)),
        ("x.y.example.com", "/", Some(3)),
        ("example.com", "/", None),
        ("badexample.com", "/", None),
        (".example.com", "/", None),
        ("b.example", "/", None),
        ("b.example:8080", "/", Some(5)),
        ("b.example:", "/", None),
        ("[::1]:80", "/", Some(6)),
        ("[::2]", "/", None),
        ("", "/", None),
        ("www.example.com:99999", "/", None),
    ] {
        let expected = rule.map_or(Lookup::NotFound, Lookup::Found);
        assert_eq!(found(&remap, authority, path), expected, "{authority} {path}");
    }
}

#[test]
fn a_prefix_ends_where_a_segment_does() {
    for (rule, fits, does_not) in [
        ("-|-|/a", vec!["/a", "/a/", "/a/b", "/a?x", "/a//b"], vec!["/", "/ab", "/A", "//a", "/b/a"]),
        ("-|-|/a/", vec!["/a/", "/a/b", "/a/?x"], vec!["/a", "/a?x", "/ab/"]),
        ("-|-|/", vec!["/", "/x", "/?x", "//", "*", "?x"], vec![]),
    ] {
        let remap = remap(&[rule]);
        for path in fits {
            assert_eq!(found(&remap, "h", path), Lookup::Found(0), "{rule} {path}");
        }
        for path in does_not {
            assert_eq!(found(&remap, "h", path), Lookup::NotFound, "{rule} {path}");
        }
    }
}

#[test]
fn no_spelling_leaves_the_prefix_or_gets_around_another_rule() {
    let remap = remap(&["-|-|/app", "-|-|/admin", "-|-|/~joe", "-|-|/"]);
    for path in [
        "/app/../admin",
        "/app/..",
        "/app/../../x",
        "/app/%2e%2e/x",
        "/app/.%2E/x",
        "/app/..%2fx",
        "/app/..%5Cx",
        "/app\\..\\..\\x",
        "/app/..\\x",
        "/x/../admin",
        "/x/%2e./admin/y",
        "/./admin",
        "/%61dmin",
        "/adm%69n/x",
        "/%7Ejoe",
        "/app/../app/x",
        "/../x",
        "/a/../../x",
        "/app/x/../../app",
        "/app/x%2f..%2f..%2f..",
    ] {
        assert_eq!(found(&remap, "h", path), Lookup::Disguised, "{path}");
    }
    for (path, rule) in [
        ("/app/x/../y", 0),
        ("/app/./y", 0),
        ("/app/%61", 0),
        ("/app/a%2Fb", 0),
        ("/admin/.", 1),
        ("/x/../y", 3),
        ("/%7Ejim", 3),
        ("/app/x/..", 0),
        ("/app?../../x", 0),
        ("/app/...", 0),
        ("/app/x?%2e%2e/", 0),
    ] {
        assert_eq!(found(&remap, "h", path), Lookup::Found(rule), "{path}");
    }
    assert_eq!(found(&Remap::default(), "h", "/../x"), Lookup::NotFound);
}

#[test]
fn paths_are_rewritten_without_losing_or_doubling_slashes() {
    for (from, to, path, rewritten) in [
        ("/", "o/", "/x?q", "/x?q"),
        ("/", "o/b", "/x", "/b/x"),
        ("/", "o/b/", "/x", "/b/x"),
        ("/", "o/b/", "/", "/b/"),
        ("/", "o/b", "/", "/b/"),
        ("/", "o/", "?q", "/?q"),
        ("/a", "o/b", "/a", "/b"),
        ("/a", "o/b", "/a?q", "/b?q"),
        ("/a", "o/b", "/a/", "/b/"),
        ("/a", "o/b/", "/a", "/b/"),
        ("/a", "o/b/", "/a/x", "/b/x"),
        ("/a/", "o/b", "/a/x", "/b/x"),
        ("/a/", "o/", "/a/x", "/x"),
        ("/a/", "o/", "/a/", "/"),
        ("/a", "o/", "/a", "/"),
        ("/a", "o/", "/a?q", "/?q"),
        ("/a", "o/b", "/a//x", "/b//x"),
    ] {
        let remap = Remap::compile(vec![source(&format!("-|-|{from}"), &[to])]).unwrap();
        assert_eq!(found(&remap, "h", path), Lookup::Found(0), "{from} {path}");
        let (strip, prefix) = remap.rule(0).unwrap().rewrite(0, path.as_bytes());
        assert_eq!(format!("{prefix}{}", &path[strip..]), rewritten, "{from} to {to}: {path}");
    }
}

fn balanced(count: usize, balance: Balance) -> Remap {
    let names: Vec<_> = (0..count).map(|i| format!("10.0.0.{i}:80/")).collect();
    let to: Vec<_> = names.iter().map(String::as_str).collect();
    Remap::compile(vec![RuleSource { balance, ..source("-|-|/", &to) }]).unwrap()
}

#[test]
fn round_robin_goes_round() {
    let remap = balanced(3, Balance::RoundRobin);
    let rule = remap.rule(0).unwrap();
    let firsts: Vec<_> = (0..6).map(|counter| rule.order(counter, 0)).collect();
    assert_eq!(firsts, [0, 1, 2, 0, 1, 2]);
    assert_eq!([rule.order(u64::MAX, 0), rule.order(1, 1), rule.order(1, 2), rule.order(1, 3)], [0, 2, 0, 1]);
}

#[test]
fn consistent_hash_moves_only_the_share_of_the_origin_that_went() {
    let (five, four) = (balanced(5, Balance::ConsistentHash), balanced(4, Balance::ConsistentHash));
    let (five, four) = (five.rule(0).unwrap(), four.rule(0).unwrap());
    let mut shares: HashMap<usize, u32> = HashMap::new();
    for n in 0..10_000 {
        let key = hash_key(format!("/object/{n}").as_bytes());
        let mut order: Vec<_> = (0..5).map(|attempt| five.order(key, attempt)).collect();
        // Without the last origin, everybody keeps the order of the others.
        let without: Vec<_> = order.iter().copied().filter(|&o| o != 4).collect();
        assert_eq!(without, (0..4).map(|attempt| four.order(key, attempt)).collect::<Vec<_>>());
        assert_eq!(five.order(key, 5), order[0], "attempts go round");
        *shares.entry(order[0]).or_default() += 1;
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2, 3, 4], "each origin has its turn");
    }
    assert!(shares.values().all(|&share| (1_800..2_200).contains(&share)), "{shares:?}");
}

#[test]
fn rules_that_cannot_be_are_named() {
    for (rule, to, fault) in [
        ("-|-|a", "o/", "rule 1: the path \"a\" must start with / and hold neither ? nor # nor blanks"),
        ("-|-|/a?b", "o/", "rule 1: the path \"/a?b\" must start with / and hold neither ? nor # nor blanks"),
        (
            "-|-|/a/../b",
            "o/",
            "rule 1: the path \"/a/../b\" holds a dot segment or a needless escape; write it plainly",
        ),
        ("-|-|/", "o b/", "rule 1: \"o b\" is no host"),
        ("a/b|-|/", "o/", "rule 1: \"a/b\" is no host"),
        ("a:80|-|/", "o/", "rule 1: \"a:80\" is no host"),
        ("*|-|/", "o/", "rule 1: \"*\" is no host"),
    ] {
        let error = Remap::compile(vec![source("-|-|/", &["o/"]), source(rule, &[to])]).unwrap_err();
        assert_eq!(error.to_string(), fault);
    }
    let error = Remap::compile(vec![source("-|-|/", &[])]).unwrap_err();
    assert_eq!(error, RemapError { rule: 0, fault: RuleFault::NoOrigin });
}

#[test]
fn many_hosts_are_told_apart() {
    let rules: Vec<_> = (0..2_000).map(|i| source(&format!("host{i}.example|-|/"), &["o:1/"])).collect();
    let remap = Remap::compile(rules).unwrap();
    for i in 0..2_000 {
        assert_eq!(found(&remap, &format!("Host{i}.example"), "/x"), Lookup::Found(i));
    }
    assert_eq!(found(&remap, "host2000.example", "/x"), Lookup::NotFound);
    assert_eq!(found(&remap, &"h".repeat(300), "/x"), Lookup::NotFound);
}
