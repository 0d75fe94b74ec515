//! Pools: real stores, a tree that stands before them, and clients that know just where replies end.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::process::{self, Guard, bounded};
use crate::{Home, PATIENCE, Peer, eventually, free_address};

/// A redis-server or memcached of a test.
#[derive(Debug)]
pub struct Store {
    process: Guard,
    home: Home,
    address: SocketAddr,
}

impl Store {
    /// A redis-server with these further arguments. It listens on a Unix socket, too.
    #[must_use]
    pub fn redis(more: &[&str]) -> Self {
        let (home, address) = (Home::new(), free_address());
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &address.port().to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.arg("--dir").arg(home.path()).arg("--unixsocket").arg(home.file("s")).args(more);
        Self::started(command, home, address)
    }

    /// A memcached.
    #[must_use]
    pub fn memcached() -> Self {
        let (home, address) = (Home::new(), free_address());
        let mut command = Command::new("memcached");
        command.args(["-p", &address.port().to_string(), "-l", "127.0.0.1", "-U", "0", "-u", "nobody", "-t", "1"]);
        Self::started(command, home, address)
    }

    /// A memcached on a Unix socket, and nowhere else.
    #[must_use]
    pub fn memcached_on_a_socket() -> Self {
        let home = Home::new();
        let mut command = Command::new("memcached");
        command.arg("-s").arg(home.file("s")).args(["-a", "0777", "-u", "root", "-t", "1"]);
        let unused = SocketAddr::from(([0, 0, 0, 0], 0));
        Self::started(command, home, unused)
    }

    fn started(mut command: Command, home: Home, address: SocketAddr) -> Self {
        let log = fs::File::create(home.file("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let store = Self { process: Guard::start(command), home, address };
        eventually("the store listens", || {
            if address.port() == 0 {
                return UnixStream::connect(store.socket()).ok().map(drop);
            }
            TcpStream::connect(address).ok().map(drop)
        });
        store
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its Unix socket, if it is a Redis, or a memcached on one.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.home.file("s")
    }

    /// The process.
    pub fn process(&mut self) -> &mut Guard {
        &mut self.process
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// `beltway run` with pools and nothing else. When it is dropped, every process of it is killed.
#[derive(Debug)]
pub struct KvTree {
    stub: Guard,
    home: Home,
}

impl KvTree {
    /// With these lines below `kv.pools`.
    #[must_use]
    pub fn run(pools: &str) -> Self {
        Self::run_with(pools, "")
    }

    /// As [`KvTree::run`], with `sections` beside `kv`.
    #[must_use]
    pub fn run_with(pools: &str, sections: &str) -> Self {
        Self::start(Home::new(), pools, sections)
    }

    /// As [`KvTree::run`], with manager's own port and twemproxy's stats port, whose line is never an old one.
    #[must_use]
    pub fn run_counted(pools: &str) -> Self {
        let home = Home::new();
        for name in ["admin", "stats"] {
            fs::write(home.file(name), free_address().to_string()).unwrap();
        }
        Self::start(home, pools, "")
    }

    fn start(home: Home, pools: &str, sections: &str) -> Self {
        let log = fs::File::create(home.file("log")).unwrap();
        let mut command = Command::new(process::beltway());
        command.args(["run", "-c"]).arg(home.file("beltway.yaml")).stdout(log.try_clone().unwrap()).stderr(log);
        let page = free_address();
        fs::write(home.file("page"), page.to_string()).unwrap();
        fs::write(home.file("sections"), sections).unwrap();
        write(&home, pools);
        let mut tree = Self { stub: Guard::start(command), home };
        eventually("it serves", || {
            assert!(tree.stub.runs(), "it ended:\n{}", tree.log());
            tree.log().contains(" serves (").then_some(())
        });
        tree
    }

    /// Other lines below `kv.pools`, for a reload or a restart.
    pub fn write(&self, pools: &str) {
        write(&self.home, pools);
    }

    /// A command of the operator's, with this configuration.
    #[must_use]
    pub fn say(&self, words: &[&str]) -> Output {
        let mut command = Command::new(process::beltway());
        command.args(words).arg("-c").arg(self.home.file("beltway.yaml"));
        bounded(command)
    }

    /// As [`KvTree::say`], one that must succeed; what it printed.
    #[expect(clippy::must_use_candidate, reason = "some are said for what they do")]
    pub fn done(&self, words: &[&str]) -> String {
        let output = self.say(words);
        assert!(output.status.success(), "{words:?}: {output:?}\n{}", self.log());
        String::from_utf8(output.stdout).unwrap()
    }

    /// As [`KvTree::done`], its JSON.
    #[must_use]
    pub fn json(&self, words: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.done(&[words, &["--json"]].concat())).unwrap()
    }

    /// Where keys of a pool live, once event threads have said how its servers are: those that are busy may not in time.
    #[must_use]
    pub fn places(&self, pool: &str, keys: &[&str]) -> String {
        eventually("it is known where keys live", || {
            let output = self.say(&[&["ctl", "kv", "where", pool], keys].concat());
            output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
        })
    }

    /// The numbers that manager tells, of [`KvTree::run_counted`].
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let admin = self.home.text("admin");
        let page = Peer::connect(admin.parse().unwrap())
            .ask(format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n"));
        Metrics(page.text())
    }

    /// The line on the stats port, of [`KvTree::run_counted`].
    #[must_use]
    pub fn stats(&self) -> serde_json::Value {
        let line = KvClient::connect(self.home.text("stats").parse().unwrap()).rest();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line}"))
    }

    /// The pid of the server that serves.
    #[must_use]
    pub fn server(&self) -> u32 {
        eventually("a server serves", || {
            let status = self.say(&["status", "--json"]);
            let status: serde_json::Value = serde_json::from_slice(&status.stdout).ok()?;
            let servers = status["servers"].as_array()?;
            let ready = servers.iter().find(|server| server["state"] == "ready")?;
            u32::try_from(ready["process"]["pid"].as_u64()?).ok()
        })
    }

    /// A file of its runtime directory.
    #[must_use]
    pub fn running_file(&self, name: &str) -> PathBuf {
        self.home.file("run").join(name)
    }

    /// What its processes said on standard error.
    #[must_use]
    pub fn log(&self) -> String {
        self.home.text("log")
    }
}

/// A page of numbers for Prometheus.
#[derive(Debug)]
pub struct Metrics(String);

impl Metrics {
    /// The value of a sample, by its name and labels just as they are written; none when there is none.
    #[must_use]
    pub fn sample(&self, name: &str) -> Option<f64> {
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        self.0.lines().find_map(value)
    }
}

fn write(home: &Home, pools: &str) {
    let below = pools.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let (admin, stats) = (home.text("admin"), home.text("stats"));
    let admin = if admin.is_empty() { "off" } else { &admin };
    let stats = if stats.is_empty() { stats } else { format!("  stats: {{listen: {stats}, interval: 1ms}}\n") };
    let text = format!(
        "runtime_dir: {}\nthreads: 2\nadmin: {{listen: {admin}}}\nserver: {{listen: {}, drain_timeout: 30s}}\n\
         supervise: {{heartbeat_interval: 100ms, hang_timeout: 5s, stop_timeout: 1m, respawn_backoff_max: 500ms}}\n\
         {}\nkv:\n{stats}  pools:\n{below}",
        home.file("run").display(),
        home.text("page"),
        home.text("sections"),
    );
    fs::write(home.file("beltway.yaml"), text).unwrap();
}

impl Drop for KvTree {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the tree\n{}", self.log());
        }
        let _ = self.stub.terminate_within(PATIENCE);
        for pid in process::with_argument(&self.home.file("run").display().to_string()) {
            let _ = process::send(pid, rustix::process::Signal::KILL);
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A client of a pool or a store.
pub struct KvClient {
    stream: Stream,
    have: Vec<u8>,
}

impl KvClient {
    /// Connects to a port.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    /// As [`KvClient::connect`], unless that fails.
    ///
    /// # Errors
    /// What connecting says.
    pub fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: Stream::Tcp(stream), have: Vec::new() })
    }

    /// Connects to a Unix socket.
    #[must_use]
    pub fn connect_unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream: Stream::Unix(stream), have: Vec::new() }
    }

    /// Its own end of the connection, as the other end names it.
    #[must_use]
    pub fn local_address(&self) -> String {
        match &self.stream {
            Stream::Tcp(stream) => stream.local_addr().unwrap().to_string(),
            Stream::Unix(_) => String::new(),
        }
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        }
    }

    /// A Redis command, its words between blanks, and the reply as text; `None` when the connection ended.
    pub fn ask(&mut self, line: &str) -> Option<String> {
        self.send(&request(line)).ok()?;
        self.reply()
    }

    /// One RESP2 reply as text.
    pub fn reply(&mut self) -> Option<String> {
        loop {
            if let Some(len) = resp_len(&self.have) {
                return Some(String::from_utf8_lossy(&self.have.drain(..len).collect::<Vec<_>>()).into_owned());
            }
            self.more()?;
        }
    }

    /// Sends, and reads until what came ends with `end`; `None` when the connection ended before.
    pub fn until(&mut self, send: &str, end: &str) -> Option<String> {
        self.send(send.as_bytes()).ok()?;
        while !self.have.ends_with(end.as_bytes()) {
            self.more()?;
        }
        Some(String::from_utf8_lossy(&std::mem::take(&mut self.have)).into_owned())
    }

    /// All that comes until the end.
    pub fn rest(&mut self) -> String {
        while self.more().is_some() {}
        String::from_utf8_lossy(&std::mem::take(&mut self.have)).into_owned()
    }

    fn more(&mut self) -> Option<()> {
        let mut buffer = [0; 16_384];
        let got = match &mut self.stream {
            Stream::Tcp(stream) => stream.read(&mut buffer),
            Stream::Unix(stream) => stream.read(&mut buffer),
        };
        match got {
            Ok(0) | Err(_) => None,
            Ok(got) => {
                self.have.extend_from_slice(&buffer[..got]);
                Some(())
            }
        }
    }
}

/// A Redis command, its words between blanks, as bytes.
#[must_use]
pub fn request(line: &str) -> Vec<u8> {
    let words: Vec<&str> = line.split(' ').collect();
    let bulk = |word: &&str| format!("${}\r\n{word}\r\n", word.len());
    format!("*{}\r\n{}", words.len(), words.iter().map(bulk).collect::<String>()).into_bytes()
}

/// How long the reply at the beginning is, once it is whole.
fn resp_len(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|pair| pair == b"\r\n")? + 2;
    let number = || std::str::from_utf8(&bytes[1..line - 2]).ok()?.parse::<i64>().ok();
    match bytes[0] {
        b'$' => match usize::try_from(number()?) {
            Ok(len) => (bytes.len() >= line + len + 2).then_some(line + len + 2),
            Err(_) => Some(line),
        },
        b'*' => {
            let mut at = line;
            for _ in 0..number()?.max(0) {
                at += resp_len(bytes.get(at..)?)?;
            }
            Some(at)
        }
        _ => Some(line),
    }
}
