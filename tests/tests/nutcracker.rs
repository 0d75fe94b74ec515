//! Under the name nutcracker: files of each kind, beside Debian's nutcracker, with the same stores behind both.

#![allow(clippy::unwrap_used, reason = "a walk that cannot set up its surroundings fails")]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use walks::kv::{KvClient, Store};
use walks::process::{self, Guard};
use walks::{Home, eventually, free_address};

const THEIRS: &str = "/usr/sbin/nutcracker";

/// One of the two programs, running.
struct Program {
    process: Guard,
    home: Home,
    stats: SocketAddr,
}

impl Program {
    /// Ours, called by their name.
    fn ours(file: &str, more: &[&str]) -> Self {
        let home = Home::new();
        let link = home.file("nutcracker");
        std::os::unix::fs::symlink(process::beltway(), &link).unwrap();
        Self::start(&link, home, file, more)
    }

    fn theirs(file: &str) -> Self {
        Self::start(Path::new(THEIRS), Home::new(), file, &[])
    }

    fn start(program: &Path, home: Home, file: &str, more: &[&str]) -> Self {
        fs::write(home.file("n.yml"), file).unwrap();
        let stats = free_address();
        let mut command = Command::new(program);
        command.arg("-c").arg(home.file("n.yml")).args([
            "-a",
            "127.0.0.1",
            "-s",
            &stats.port().to_string(),
            "-i",
            "20",
        ]);
        command.arg("-o").arg(home.file("log")).arg("-p").arg(home.file("pid")).args(more);
        let error = fs::File::create(home.file("errors")).unwrap();
        command.current_dir(home.path()).stdout(error.try_clone().unwrap()).stderr(error);
        let is_theirs = program == Path::new(THEIRS);
        let mut program = Self { process: Guard::start(command), home, stats };
        eventually("it serves", || {
            let (errors, log) = (program.home.text("errors"), program.home.text("log"));
            assert!(program.process.runs(), "it ended:\n{file}\n{errors}\n{log}");
            // Theirs writes its pid in the background alone, and only then accepts.
            let told = is_theirs || program.home.text("pid") == program.process.pid().to_string();
            (told && KvClient::try_connect(stats).is_ok()).then_some(())
        });
        program
    }

    /// The numbers.
    fn numbers(&self) -> Value {
        let line = KvClient::connect(self.stats).rest();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line}"))
    }
}

/// The fields of the numbers, with their places and without their values.
fn fields(value: &Value, at: &str, into: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| fields(value, &format!("{at}/{key}"), into)),
        _ => into.push(at.to_owned()),
    }
}

fn all_fields(numbers: &Value) -> Vec<String> {
    let mut found = Vec::new();
    fields(numbers, "", &mut found);
    found
}

fn file(name: &str, listen: &str, keys: &str, servers: &[String]) -> String {
    let servers: String = servers.iter().map(|server| format!("   - {server}\n")).collect();
    format!("{name}:\n  listen: {listen}\n{keys}  servers:\n{servers}")
}

/// Runs both programs on one file and its stores; `talk` gets a client of ours and, where there is one, of theirs.
fn side_by_side(keys: &str, servers: &[String], talk: impl Fn(&mut KvClient, &mut Option<KvClient>)) {
    let (our_port, their_port) = (free_address(), free_address());
    let ours = Program::ours(&file("alpha", &our_port.to_string(), keys, servers), &[]);
    let theirs = Path::new(THEIRS).exists();
    if !theirs {
        eprintln!("{THEIRS} is not installed: what it would say is not compared");
    }
    let theirs = theirs.then(|| Program::theirs(&file("alpha", &their_port.to_string(), keys, servers)));
    {
        let connect = |port| eventually("the pool listens", || KvClient::try_connect(port).ok());
        let mut their_client = theirs.as_ref().map(|_| connect(their_port));
        talk(&mut connect(our_port), &mut their_client);
    }
    eventually("what was asked is counted", || {
        let counted = |server: &Value| server["responses"].as_u64().unwrap_or(0);
        let sum: u64 = ours.numbers()["alpha"].as_object().unwrap().values().map(counted).sum();
        (sum > 0).then_some(())
    });
    if let Some(theirs) = &theirs {
        assert_eq!(all_fields(&ours.numbers()), all_fields(&theirs.numbers()));
    }
}

/// What one writes the other finds: keys are placed alike.
fn keys_are_shared(ours: &mut KvClient, theirs: &mut Option<KvClient>, prefix: &str) {
    for at in 0..60 {
        let key = format!("{prefix}{}:{{{at}}}x", at * 7_919);
        assert_eq!(ours.ask(&format!("SET {key} {at}")).unwrap(), "+OK\r\n");
        if let Some(theirs) = theirs {
            let found = format!("${}\r\n{at}\r\n", at.to_string().len());
            assert_eq!(theirs.ask(&format!("GET {key}")).unwrap(), found, "{key}");
            assert_eq!(theirs.ask(&format!("SET {key} theirs")).unwrap(), "+OK\r\n");
            assert_eq!(ours.ask(&format!("GET {key}")).unwrap(), "$6\r\ntheirs\r\n", "{key}");
        }
    }
}

#[test]
fn redis_with_tags_weights_and_names() {
    let stores: Vec<Store> = (0..3).map(|_| Store::redis(&[])).collect();
    let servers: Vec<String> =
        (1..).zip(&stores).map(|(at, store)| format!("{}:{at} s{at}", store.address())).collect();
    for (hash, distribution) in [("fnv1a_64", "ketama"), ("murmur", "modula"), ("md5", "ketama")] {
        let keys = format!(
            "  hash: {hash}\n  distribution: {distribution}\n  hash_tag: \"{{}}\"\n  redis: true\n  timeout: 2000\n  \
             auto_eject_hosts: true\n  server_retry_timeout: 2000\n  server_failure_limit: 1\n"
        );
        side_by_side(&keys, &servers, |ours, theirs| {
            keys_are_shared(ours, theirs, distribution);
            // What they answer rightly, we answer alike.
            let talk = [
                "DEL {1}a {2}b {3}c",
                "MSET {1}a 1 {2}b 2 {3}c 3",
                "MGET {1}a {3}c {2}b {9}z",
                "INCR {1}a",
                "GETRANGE {2}b 0 -1",
                "HSET {4}h f v",
                "HGETALL {4}h",
                "LPUSH {5}l a b",
                "LRANGE {5}l 0 -1",
                "EXPIRE {1}a 100",
                "TYPE {4}h",
                "GET {4}h",
                "DEL {4}h {5}l {1}a",
                "PING",
            ];
            for line in talk {
                let answer = ours.ask(line).unwrap();
                if let Some(theirs) = theirs {
                    let again = if line.starts_with("DEL")
                        || line.starts_with("INCR")
                        || line.contains("PUSH")
                        || line.starts_with("HSET")
                    {
                        continue;
                    } else {
                        theirs.ask(line).unwrap()
                    };
                    assert_eq!(answer, again, "{line}");
                }
            }
        });
    }
}

#[test]
fn redis_on_unix_sockets_with_a_password() {
    let stores: Vec<Store> = (0..2).map(|_| Store::redis(&["--requirepass", "word"])).collect();
    let servers: Vec<String> = stores.iter().map(|store| format!("{}:1", store.socket().display())).collect();
    let keys = "  redis: true\n  timeout: 2000\n  redis_auth: word\n  preconnect: true\n";
    side_by_side(keys, &servers, |ours, theirs| {
        for client in [Some(&mut *ours), theirs.as_mut()].into_iter().flatten() {
            assert!(client.ask("GET a").unwrap().starts_with("-NOAUTH"));
            assert_eq!(client.ask("AUTH wrong").unwrap(), "-ERR invalid password\r\n");
            assert_eq!(client.ask("AUTH word").unwrap(), "+OK\r\n");
        }
        keys_are_shared(ours, theirs, "u");
    });
}

#[test]
fn redis_with_a_database_of_its_own() {
    let store = Store::redis(&["--requirepass", "word"]);
    let listen = free_address();
    let keys = "  redis: true\n  timeout: 2000\n  redis_auth: word\n  redis_db: 3\n";
    let _ours = Program::ours(&file("alpha", &listen.to_string(), keys, &[format!("{}:1", store.address())]), &[]);
    let mut client = KvClient::connect(listen);
    assert_eq!(client.ask("AUTH word").unwrap(), "+OK\r\n");
    assert_eq!(client.ask("SET a 1").unwrap(), "+OK\r\n");
    let mut direct = KvClient::connect(store.address());
    assert_eq!(direct.ask("AUTH word").unwrap(), "+OK\r\n");
    assert_eq!(direct.ask("DBSIZE").unwrap(), ":0\r\n");
    assert_eq!(direct.ask("SELECT 3").unwrap(), "+OK\r\n");
    assert_eq!(direct.ask("GET a").unwrap(), "$1\r\n1\r\n");
}

#[test]
fn memcached_over_several_servers() {
    let stores: Vec<Store> = (0..3).map(|_| Store::memcached()).collect();
    let servers: Vec<String> = stores.iter().map(|store| format!("{}:1", store.address())).collect();
    side_by_side("  timeout: 2000\n  hash: one_at_a_time\n", &servers, |ours, theirs| {
        for at in 0..40 {
            let key = format!("key:{}", at * 104_729);
            assert_eq!(ours.until(&format!("set {key} 7 0 2\r\n{at:02}\r\n"), "\r\n").unwrap(), "STORED\r\n");
            let found = format!("VALUE {key} 7 2\r\n{at:02}\r\nEND\r\n");
            assert_eq!(ours.until(&format!("get {key}\r\n"), "END\r\n").unwrap(), found);
            if let Some(theirs) = theirs {
                assert_eq!(theirs.until(&format!("get {key}\r\n"), "END\r\n").unwrap(), found);
            }
        }
        let line = "get key:0 key:104729 key:209458 nothing\r\n";
        let answer = ours.until(line, "END\r\n").unwrap();
        assert_eq!(answer.matches("VALUE").count(), 3);
        if let Some(theirs) = theirs {
            assert_eq!(theirs.until(line, "END\r\n").unwrap(), answer);
        }
        for line in ["add key:0 0 0 1\r\n1\r\n", "incr key:104729 1\r\n", "delete nothing\r\n", "touch key:0 100\r\n"] {
            let answer = ours.until(line, "\r\n").unwrap();
            if let Some(theirs) = theirs
                && !line.starts_with("incr")
            {
                assert_eq!(theirs.until(line, "\r\n").unwrap(), answer, "{line}");
            }
        }
    });
}

#[test]
fn memcached_with_tags_weights_names_and_unix_sockets() {
    let (one, two, three) = (Store::memcached(), Store::memcached(), Store::memcached_on_a_socket());
    let servers = [
        format!("{}:1 one", one.address()),
        format!("{}:3 two", two.address()),
        format!("{}:2 three", three.socket().display()),
    ];
    for (hash, distribution) in [("fnv1_32", "ketama"), ("crc32", "modula"), ("hsieh", "ketama")] {
        let keys = format!(
            "  hash: {hash}\n  distribution: {distribution}\n  hash_tag: \"[]\"\n  timeout: 2000\n  preconnect: true\n  \
             server_connections: 1\n  backlog: 64\n"
        );
        side_by_side(&keys, &servers, |ours, theirs| {
            for at in 0..60 {
                let key = format!("{distribution}{hash}[{at}]{}", at * 7_919);
                assert_eq!(ours.until(&format!("set {key} 0 0 2\r\n{at:02}\r\n"), "\r\n").unwrap(), "STORED\r\n");
                let found = format!("VALUE {key} 0 2\r\n{at:02}\r\nEND\r\n");
                assert_eq!(ours.until(&format!("get {key}\r\n"), "END\r\n").unwrap(), found);
                if let Some(theirs) = theirs {
                    assert_eq!(theirs.until(&format!("get {key}\r\n"), "END\r\n").unwrap(), found, "{key}");
                }
            }
        });
    }
}

#[test]
fn pools_of_both_kinds_in_one_file() {
    let (redis, memcached) = (Store::redis(&[]), Store::memcached());
    let ports = [free_address(), free_address()];
    let pools = |[first, second]: [SocketAddr; 2]| {
        let redis =
            file("alpha", &first.to_string(), "  redis: true\n  timeout: 2000\n", &[format!("{}:1", redis.address())]);
        let memcached = file(
            "beta",
            &second.to_string(),
            "  timeout: 2000\n  distribution: random\n",
            &[format!("{}:1", memcached.address())],
        );
        redis + &memcached
    };
    let ours = Program::ours(&pools(ports), &[]);
    let connect = |port| eventually("the pool listens", || KvClient::try_connect(port).ok());
    let (mut alpha, mut beta) = (connect(ports[0]), connect(ports[1]));
    assert_eq!(alpha.ask("SET a 1").unwrap(), "+OK\r\n");
    assert_eq!(beta.until("set a 0 0 1\r\n2\r\n", "\r\n").unwrap(), "STORED\r\n");
    assert_eq!(alpha.ask("GET a").unwrap(), "$1\r\n1\r\n");
    assert_eq!(beta.until("get a\r\n", "END\r\n").unwrap(), "VALUE a 0 1\r\n2\r\nEND\r\n");
    if Path::new(THEIRS).exists() {
        let theirs = Program::theirs(&pools([free_address(), free_address()]));
        assert_eq!(all_fields(&ours.numbers()), all_fields(&theirs.numbers()));
    }
}

#[test]
fn a_pool_on_a_unix_socket_in_the_background_minds_its_signals() {
    let (store, home) = (Store::redis(&[]), Home::new());
    let socket: PathBuf = home.file("pool.sock");
    let listen = format!("{} 0600", socket.display());
    let open = home.file("open.sock");
    let servers = [format!("{}:1", store.address())];
    let text = file("alpha", &listen, "  redis: true\n", &servers);
    let more = file("beta", &open.display().to_string(), "  redis: true\n", &servers);
    fs::write(home.file("n.yml"), text + &more).unwrap();
    let link = home.file("nutcracker");
    std::os::unix::fs::symlink(process::beltway(), &link).unwrap();
    let mut command = Command::new("sh");
    let port = free_address().port().to_string();
    command.args(["-c", "umask 077; exec \"$0\" \"$@\""]).arg(&link);
    command.current_dir(home.path()).args([
        "-d",
        "-c",
        "n.yml",
        "-o",
        "log",
        "-p",
        "pid",
        "-a",
        "127.0.0.1",
        "-s",
        &port,
    ]);
    let started = process::bounded(command);
    assert!(started.status.success(), "{started:?}");
    let said = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(said.contains("no `timeout`"), "what differs is said: {said}");
    // It serves when its starter has ended.
    let pid: u32 = home.text("pid").parse().unwrap();
    assert_eq!(process::name(pid), "nutcracker");
    let mut client = KvClient::connect_unix(&socket);
    assert_eq!(client.ask("SET a 1").unwrap(), "+OK\r\n");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&socket), 0o600);
    // As twemproxy has it, whatever the umask; its files are nobody else's to write.
    assert_eq!((mode(&open), mode(&home.file("pid"))), (0o777, 0o644));
    assert!(process::send(pid, Signal::TTIN));
    eventually("it logs more", || home.text("log").contains("log level is 6 now").then_some(()));
    assert!(process::send(pid, Signal::TTOU));
    eventually("it logs less", || home.text("log").contains("log level is 5 now").then_some(()));
    let log = home.text("log");
    assert!(
        log.contains(" nutcracker[") && !log.contains("traffic_server"),
        "signed by the name it was called by: {log}"
    );
    fs::rename(home.file("log"), home.file("log.1")).unwrap();
    assert!(process::send(pid, Signal::HUP));
    eventually("the log is a new one", || home.text("log").contains("reopened").then_some(()));
    assert_eq!(mode(&home.file("log")), 0o644);
    assert_eq!(client.ask("GET a").unwrap(), "$1\r\n1\r\n");
    assert!(process::send(pid, Signal::TERM));
    eventually("it has ended", || (!process::lives(pid)).then_some(()));
    assert!(!home.file("pid").exists());
}

#[test]
fn in_the_foreground_it_serves_without_a_pid_file_as_well() {
    let (store, home) = (Store::redis(&[]), Home::new());
    let (listen, stats) = (free_address(), free_address());
    let text = file("alpha", &listen.to_string(), "  redis: true\n", &[format!("{}:1", store.address())]);
    fs::write(home.file("n.yml"), text).unwrap();
    let link = home.file("nutcracker");
    std::os::unix::fs::symlink(process::beltway(), &link).unwrap();
    let words = ["-c", "n.yml", "-o", "log", "-p", "no/such/pid", "-a", "127.0.0.1", "-s", &stats.port().to_string()];
    let mut command = Command::new(&link);
    command.current_dir(home.path()).args(words);
    let mut process = Guard::start(command);
    eventually("it serves", || {
        assert!(process.runs(), "it ended: {}", home.text("log"));
        KvClient::try_connect(stats).is_ok().then_some(())
    });
    eventually("it says that there is no pid file", || home.text("log").contains("no/such/pid: ").then_some(()));
    eventually("it listens", || home.text("log").contains("alpha: listens on ").then_some(()));
    assert_eq!(KvClient::connect(listen).ask("SET a 1").unwrap(), "+OK\r\n");
}

#[test]
fn what_it_does_not_know_is_an_error_and_the_client_stays() {
    let store = Store::redis(&[]);
    let listen = free_address();
    let text =
        file("alpha", &listen.to_string(), "  redis: true\n  timeout: 2000\n", &[format!("{}:1", store.address())]);
    let program = Program::ours(&text, &["-v", "11"]);
    let mut client = KvClient::connect(listen);
    client.send(b"*1\r\n$4\r\nPING\r\n*1\r\n$3\r\nFOO\r\n*1\r\n$4\r\nPING\r\n").unwrap();
    assert_eq!(client.reply().unwrap(), "+PONG\r\n");
    assert!(client.reply().unwrap().starts_with("-ERR unknown command"));
    assert_eq!(client.reply().unwrap(), "+PONG\r\n");
    assert_eq!(client.ask("QUIT").unwrap(), "+OK\r\n");
    assert_eq!(client.rest(), "");
    assert_eq!(program.home.text("pid"), program.process.pid().to_string());
}
