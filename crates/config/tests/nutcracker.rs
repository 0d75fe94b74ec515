//! twemproxy's own file: read as the real `nutcracker -t` does, but for the differences named here.
//!
//! What the real program says of each file is recorded in the lists below; where it is installed it is asked again.

#![allow(clippy::unwrap_used, reason = "what fails here is a failed test")]

use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use config::kv::KvListen;
use config::kv::nutcracker::{Nutcracker, parse};
use config::{Diagnostics, EjectPolicy, KvDistribution, KvHash};

fn read(text: &str) -> Result<Nutcracker, Diagnostics> {
    let resolve = |host: &str, port: u16| -> std::io::Result<SocketAddr> {
        (host, port).to_socket_addrs()?.next().ok_or_else(|| std::io::Error::other("no address"))
    };
    parse("nutcracker.yml", text, &resolve)
}

const SERVERS: &str = "  servers:\n    - 127.0.0.1:6379:1\n";

/// A pool with one more key.
fn with(key: &str) -> String {
    format!("a:\n  listen: 127.0.0.1:22121\n  {key}\n{SERVERS}")
}

fn with_redis(key: &str) -> String {
    with(&format!("redis: true\n  {key}"))
}

fn listening(listen: &str) -> String {
    format!("a:\n  listen: {listen}\n{SERVERS}")
}

fn served(servers: &[&str]) -> String {
    let lines: String = servers.iter().map(|server| format!("    - {server}\n")).collect();
    format!("a:\n  listen: 127.0.0.1:22121\n  servers:\n{lines}")
}

/// Files that both take.
fn good() -> Vec<String> {
    let mut files = vec![
        listening("127.0.0.1:22121"),
        listening("0.0.0.0:65535"),
        listening("localhost:22121"),
        listening("::1:22121"),
        listening("\"*:22121\""),
        listening("\"127.0.0.1:22121\""),
        listening("127.0.0.1:022121"),
        listening("/tmp/a.sock"),
        listening("/tmp/a.sock 0666"),
        listening("/tmp/a.sock 777"),
        listening("/tmp/a b.sock 0600"),
        listening(&format!("/{}", "p".repeat(106))),
        with("hash_tag: \"{}\""),
        with("hash_tag: $$"),
        with("hash_tag: é"),
        with("distribution: ketama"),
        with("distribution: modula"),
        with("distribution: random"),
        with("timeout: 0"),
        with("timeout: 400"),
        with("timeout: '400'"),
        with("timeout: 0400"),
        with("timeout: 2147483647"),
        with("timeout: 400 # ms"),
        with("backlog: 0"),
        with("backlog: 1024"),
        with("client_connections: 0"),
        with("client_connections: 1"),
        with("redis: true"),
        with("redis: false"),
        with("redis: \"true\""),
        with("redis_db: 3"),
        with_redis("redis_db: 15"),
        with_redis("redis_auth: secret"),
        with_redis("redis_auth: 'a b'"),
        with_redis("redis_auth: ~"),
        with("preconnect: true"),
        with("tcpkeepalive: true"),
        with("auto_eject_hosts: true"),
        with("server_connections: 1"),
        with("server_connections: 17"),
        with("server_retry_timeout: 0"),
        with("server_failure_limit: 0"),
        with("server_failure_limit: 3"),
        with("hash: >-\n    md5"),
        with("\"hash\": md5"),
        with("hash:\n    md5"),
        with("# a comment\n"),
        with("# a\tcomment\n"),
        with(" \t"),
        with("hash:\tmd5\t"),
        served(&["127.0.0.1:6379:1 one", "127.0.0.1:6379:1 two"]),
        served(&["127.0.0.1:11211:1", "127.0.0.2:11211:1"]),
        served(&["cache:11211:1", "cache:11211:1 other"]),
        served(&["nosuch.invalid:6379:1"]),
        served(&["::1:6379:1"]),
        served(&["127.0.0.1:06379:1"]),
        served(&["127.0.0.1:6379:2147483647"]),
        served(&["/tmp/r.sock:1"]),
        served(&["/tmp/r.sock:3 name"]),
        served(&["\"127.0.0.1:6379:1\"", "'127.0.0.1:6380:1 name'"]),
        "? a\n: listen: 127.0.0.1:22121\n  servers:\n    - 127.0.0.1:6379:1\n".to_owned(),
        "a:\n  listen: 127.0.0.1:22121\n  servers:\n  - 127.0.0.1:6379:1\n".to_owned(),
        "a:\n  servers:\n    - 127.0.0.1:6379:1\n  listen: 127.0.0.1:22121\n".to_owned(),
        "a:\r\n  listen: 127.0.0.1:22121\r\n  servers:\r\n    - 127.0.0.1:6379:1\r\n".to_owned(),
        "# first\n\na b:\n  listen: 127.0.0.1:22121\n  servers:\n    - 127.0.0.1:6379:1\n\n\n".to_owned(),
        format!("\u{feff}{}", listening("127.0.0.1:22121")),
        format!("{}b:\n  listen: 127.0.0.1:22122\n{SERVERS}", listening("127.0.0.1:22121")),
        format!("{}b:\n  listen: 127.0.0.2:22121\n{SERVERS}", listening("127.0.0.1:22121")),
    ];
    files.extend(KvHash::WORDS.iter().map(|word| with(&format!("hash: {word}"))));
    files
}

/// Files that both refuse, with a part of what is said here.
fn bad() -> Vec<(String, &'static str)> {
    vec![
        (String::new(), "has no pools"),
        ("# nothing\n".to_owned(), "has no pools"),
        ("a\n".to_owned(), "a map of pools"),
        ("- a\n".to_owned(), "a map of pools"),
        ("a:\n".to_owned(), "takes keys, not no value"),
        ("a: b\n".to_owned(), "takes keys, not `b`"),
        ("a:\n  - b\n".to_owned(), "takes keys, not a list"),
        (format!("'':\n  listen: 127.0.0.1:1\n{SERVERS}"), "a pool needs a name"),
        (format!("---\n{}", listening("127.0.0.1:1")), "the start of a document"),
        (format!("{}...\n", listening("127.0.0.1:1")), "the end of a document"),
        (format!("{}---\n{}", listening("127.0.0.1:1"), listening("127.0.0.1:2")), "the start of a document"),
        (format!("%YAML 1.1\n---\n{}", listening("127.0.0.1:1")), "a directive"),
        (format!("%TAG ! tag:x,2000:\n---\n{}", listening("127.0.0.1:1")), "a directive"),
        ("a: {}\n".to_owned(), "a map in braces"),
        ("{a: {listen: 127.0.0.1:1, servers: [\"a:1:1\"]}}\n".to_owned(), "a map in braces"),
        ("a:\n  listen: 127.0.0.1:1\n  servers: [\"a:1:1\"]\n".to_owned(), "a list in brackets"),
        (format!("a: &x\n  listen: 127.0.0.1:1\n{SERVERS}"), "an anchor"),
        (with("hash: &x md5"), "an anchor"),
        (with("timeout: &x 400\n  backlog: *x"), "an anchor"),
        (with("hash: !!str md5"), "a tag"),
        (with("hash: ! md5"), "a tag"),
        (with("foo: 1"), "directive `foo` is unknown"),
        (with("Hash: md5"), "did you mean `hash`?"),
        (with("sentinels: x"), "is unknown"),
        (with("eject_policy: miss"), "is unknown"),
        (with("b:\n    c: d"), "directive `b` is unknown"),
        (with("hash:\n    c: d"), "takes one value, not a map"),
        (with("timeout: 1\n  timeout: 2"), "already set"),
        (with("listen: 127.0.0.1:3"), "already set"),
        (format!("{}{SERVERS}", listening("127.0.0.1:1")), "already set"),
        (format!("{}{}", listening("127.0.0.1:1"), listening("127.0.0.1:2")), "already set"),
        (format!("{}b:\n  listen: 127.0.0.1:1\n{SERVERS}", listening("127.0.0.1:1")), "the same listen address"),
        (format!("{}b:\n  listen: /tmp/a\n{SERVERS}", listening("/tmp/a")), "the same socket"),
        ("a:\n  listen: 127.0.0.1:1\n".to_owned(), "has no `servers`"),
        ("a:\n  listen: 127.0.0.1:1\n  servers:\n".to_owned(), "takes a list"),
        ("a:\n  listen: 127.0.0.1:1\n  servers: 127.0.0.1:6379:1\n".to_owned(), "takes a list"),
        (format!("a:\n{SERVERS}"), "has no `listen`"),
        (listening(""), "has no port"),
        (listening("127.0.0.1"), "has no port"),
        (listening("127.0.0.1:0"), "is not a port"),
        (listening("127.0.0.1:65536"), "is not a port"),
        (listening("127.0.0.1:x"), "is not a port"),
        (listening("127.0.0.1:"), ""),
        (listening("\":22121\""), "no address before the port"),
        (listening("nosuch.invalid:22121"), "no address of a host"),
        (listening("\"[::1]:22121\""), "no address of a host"),
        (listening("/tmp/a.sock 1777"), "cannot have the permissions"),
        (listening("/tmp/a.sock -1"), "cannot have the permissions"),
        (listening(&format!("/{}", "p".repeat(107))), "cannot be the path"),
        (with("hash: fnv"), "not a valid hash"),
        (with("hash:"), "not a valid hash"),
        (with("hash: |\n    md5"), "not a valid hash"),
        (with("hash: ~"), "not a valid hash"),
        (with("distribution: ring"), "not a valid distribution"),
        (with("distribution: rendezvous"), "not a valid distribution"),
        (with("hash_tag: \"{\""), "two characters"),
        (with("hash_tag: \"{{}}\""), "two characters"),
        (with("hash_tag:"), "two characters"),
        (with("timeout: -1"), "is not a number"),
        (with("timeout: 400ms"), "is not a number"),
        (with("timeout: 1.5"), "is not a number"),
        (with("timeout: ' 1'"), "is not a number"),
        (with("timeout:"), "is not a number"),
        (with("timeout: 3000000000"), "is not a number"),
        (with("backlog: many"), "is not a number"),
        (with("redis: yes"), "is not `true` or `false`"),
        (with("redis: True"), "is not `true` or `false`"),
        (with("redis: 1"), "is not `true` or `false`"),
        (with("preconnect: on"), "is not `true` or `false`"),
        (with("redis_auth: x"), "speaks memcached's protocol"),
        (with_redis("redis_auth: ''"), "is empty"),
        (with_redis("redis_auth:"), "is empty"),
        (with("server_connections: 0"), "cannot be 0"),
        (served(&["127.0.0.1:6379:1", "127.0.0.1:6379:2"]), "has a server"),
        (served(&["127.0.0.1:6379:1 n", "127.0.0.1:6380:1 n"]), "has a server"),
        (served(&[""]), "no weight"),
        (served(&["127.0.0.1"]), "no weight"),
        (served(&["127.0.0.1:6379"]), "no port"),
        (served(&["127.0.0.1:6379:0"]), "weight 0"),
        (served(&["127.0.0.1:6379:-1"]), "for a weight"),
        (served(&["127.0.0.1:6379:x"]), "for a weight"),
        (served(&["127.0.0.1:0:1"]), "for a port"),
        (served(&["127.0.0.1:99999:1"]), "for a port"),
        (served(&["127.0.0.1:x:1"]), "for a port"),
        (served(&["127.0.0.1:6379:1 a b"]), "for a weight"),
        (served(&["127.0.0.1:6379:1  a"]), "for a weight"),
        (served(&["/tmp/r.sock"]), "no weight"),
        (served(&["/tmp/r.sock:0"]), "weight 0"),
        (served(&["/tmp/r:1.sock:1"]), "colon in its path"),
        (served(&["- 127.0.0.1:6379:1"]), "is one text"),
        (served(&["a: 127.0.0.1:6379:1"]), "is one text"),
        ("a:\n\tlisten: 127.0.0.1:1\n".to_owned(), "a tab before"),
        ("a:\n \tlisten: 127.0.0.1:1\n".to_owned(), "a tab before"),
        (served(&["\t127.0.0.1:6379:1"]), "a tab before"),
        (with("\t# a comment"), "a tab before"),
        ("a:\n  listen: 'x\n".to_owned(), "not YAML"),
        (with("hash: md5: x"), "not YAML"),
        (with("hash: @md5"), "not YAML"),
        ("a:\n  listen: 127.0.0.1:1\n b: c\n".to_owned(), "not YAML"),
    ]
}

/// Where the two differ on purpose: the file, whether twemproxy takes it (it is the opposite here), and why.
/// The table in docs/kv-differences.md has the same rows.
fn different() -> Vec<(String, bool, &'static str)> {
    const OVERFLOW: &str = "A number beyond 2147483647 wraps, and may come out as any other.";
    const MODE: &str = "Permissions that are no octal number are read as far as they are one.";
    const HOST: &str = "A server's host may be empty, or have spaces and colons in it; it is never found.";
    const PATH: &str = "A socket's path may be just `/`, and a server's longer than the system allows.";
    const BLANK: &str = "A tab on a line with nothing else may be refused.";
    const LINES: &str = "U+0085, U+2028 and U+2029 end a line.";
    let second = format!("{}b:\n  listen: 0.0.0.0:22121\n{SERVERS}", listening("127.0.0.1:22121"));
    let lists = "a:\n  listen:\n    - 127.0.0.1:22121\n  servers: 127.0.0.1:6379:1\n".to_owned();
    vec![
        (with("timeout: 99999999999"), true, OVERFLOW),
        (served(&["127.0.0.1:6379:4294967297"]), true, OVERFLOW),
        (listening("/tmp/a.sock 0888"), true, MODE),
        (listening("/tmp/a.sock rw"), true, MODE),
        (served(&["':6379:1'"]), true, HOST),
        (served(&["a:6379:1:2"]), true, HOST),
        (served(&["a b:6379:1 name"]), true, HOST),
        (served(&["'127.0.0.1:6379:1 '"]), true, "A server's name may be empty: a space with nothing behind it."),
        (listening("/"), true, PATH),
        (served(&[&format!("/{}:1", "p".repeat(107))]), true, PATH),
        (lists, true, "One list a pool is enough, whichever key it belongs to."),
        (second, true, "Addresses are compared as text; binding the second fails."),
        (with("hash: md5\u{85}  timeout: 400"), true, LINES),
        (with("hash: md5 # \u{2028}  timeout: 400"), true, LINES),
        (format!("a:\n \t\n  listen: 127.0.0.1:22121\n{SERVERS}"), false, BLANK),
        (with("reuseport: true"), false, "`reuseport` is known to the newest sources, not to the last release."),
    ]
}

/// The directory of one test, removed afterwards.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What the real program says of `text`: none when there is none.
fn original(directory: &Directory, text: &str) -> Option<bool> {
    let program = ["/usr/sbin/nutcracker", "/usr/bin/nutcracker", "/usr/local/sbin/nutcracker"];
    let program = program.into_iter().find(|path| Path::new(path).is_file())?;
    let file = directory.0.join("nutcracker.yml");
    fs::write(&file, text).unwrap();
    let output = Command::new(program).arg("-t").arg("-c").arg(&file).stdin(Stdio::null()).output().unwrap();
    Some(output.status.success())
}

#[test]
fn what_twemproxy_takes_is_taken() {
    for text in good() {
        read(&text).unwrap_or_else(|wrong| panic!("{wrong}\nin\n{text}"));
    }
}

#[test]
fn what_twemproxy_refuses_is_refused_with_the_reason() {
    for (text, reason) in bad() {
        let said = read(&text).map(|read| read.kv).expect_err(&text).to_string();
        assert!(said.contains(reason), "{said}\nfor {reason}, in\n{text}");
    }
}

#[test]
fn differences_are_those_that_are_listed() {
    let table = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/kv-differences.md")).unwrap();
    for (text, taken_there, why) in different() {
        assert!(table.contains(why), "docs/kv-differences.md has no row for: {why}");
        assert_eq!(read(&text).is_ok(), !taken_there, "{why}\n{text}");
    }
}

#[test]
fn the_real_program_says_of_each_file_what_is_recorded_here() {
    let directory = Directory::new("verdicts");
    let good = good().into_iter().map(|text| (text, true));
    let bad = bad().into_iter().map(|(text, _)| (text, false));
    let different = different().into_iter().map(|(text, taken, _)| (text, taken));
    let mut asked = 0;
    for (text, taken) in good.chain(bad).chain(different) {
        match original(&directory, &text) {
            Some(verdict) => assert_eq!(verdict, taken, "recorded wrongly:\n{text}"),
            None => return println!("no nutcracker here: its recorded verdicts were used"),
        }
        asked += 1;
    }
    println!("{asked} files");
    assert!(asked >= 60);
}

#[test]
fn every_key_arrives_in_its_field() {
    let text = "\
alpha:
  listen: /run/alpha.sock 0660
  hash: jenkins
  hash_tag: \"{}\"
  distribution: modula
  timeout: 400
  backlog: 1024
  client_connections: 100
  redis: true
  redis_auth: secret
  redis_db: 3
  preconnect: true
  tcpkeepalive: true
  reuseport: true
  server_connections: 2
  auto_eject_hosts: true
  server_retry_timeout: 2000
  server_failure_limit: 0
  servers:
    - 127.0.0.1:6379:1 one
    - 127.0.0.1:06380:2
beta:
  listen: 127.0.0.1:22122
  servers:
    - 127.0.0.1:11211:1
";
    let read = read(text).unwrap();
    let [alpha, beta] = read.kv.pools.as_slice() else { panic!("two pools") };
    assert_eq!(alpha.listen.value, KvListen::Unix { path: "/run/alpha.sock".into(), mode: Some(0o660) });
    assert_eq!((alpha.hash.value, alpha.distribution), (KvHash::Jenkins, KvDistribution::Modula));
    assert_eq!((alpha.hash_tag, alpha.timeout), (Some(*b"{}"), Some(Duration::from_millis(400))));
    assert_eq!((alpha.backlog, alpha.client_connections, alpha.redis_db), (1024, Some(100), 3));
    assert!(alpha.redis && alpha.preconnect && alpha.tcpkeepalive && alpha.reuseport && alpha.auto_eject_hosts);
    assert_eq!(alpha.redis_auth.as_ref().map(|password| password.reveal()), Some("secret"));
    assert_eq!((alpha.server_connections, alpha.server_failure_limit), (2, 1));
    assert_eq!(alpha.server_retry_timeout, Duration::from_secs(2));
    assert_eq!(alpha.servers[1].ring_name(), "127.0.0.1:06380");
    assert_eq!((beta.name.as_str(), beta.timeout, beta.backlog), ("beta", None, 512));
    assert_eq!((beta.server_connections, beta.server_failure_limit, beta.redis), (1, 2, false));
    assert_eq!((beta.server_retry_timeout, beta.eject_policy), (Duration::from_secs(30), EjectPolicy::Rehash));
    assert_eq!((beta.hash.value, beta.distribution), (KvHash::Fnv1a64, KvDistribution::Ketama));
    assert_eq!(beta.servers[0].ring_name(), "127.0.0.1");
}

#[test]
fn what_does_something_else_here_is_warned_of_where_it_stands() {
    let text = with("client_connections: 5\n  server_connections: 2");
    let read = read(&text).unwrap();
    let said: Vec<String> = read.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said[0].starts_with("nutcracker.yml:1:1: warning: pool `a` has no `timeout`"), "{}", said[0]);
    assert!(said[1].starts_with("nutcracker.yml:3:23: warning: `client_connections` limits"), "{}", said[1]);
    assert!(said[2].starts_with("nutcracker.yml:4:23: warning: `server_connections` counts"), "{}", said[2]);
    assert!(is_quiet(&with("timeout: 400")));
}

fn is_quiet(text: &str) -> bool {
    read(text).unwrap().warnings.is_empty()
}
