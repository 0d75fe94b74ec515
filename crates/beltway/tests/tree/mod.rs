//! One tree of real processes for a test: its own directory and ports, stopped and cleared away whatever happens.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use supervise::directory::RuntimeDir;
use supervise::lease;
use supervise::role::Role;
use supervise::stop;
use sys::process::{Pidfd, Signal};

/// What is waited for comes within this, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
/// So often in a row nobody is found before a tree counts as gone.
const QUIET_LOOKS: u32 = 50;
/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(2);

/// Waits until `what` yields something, and says how long that took.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> (T, Duration) {
    let begin = now();
    loop {
        if let Some(found) = look() {
            return (found, begin.elapsed());
        }
        assert!(begin.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        pause(LOOK);
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own patience")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) fn pause(time: Duration) {
    supervise::wait::readable(&[], time).unwrap();
}

/// An address on 127.0.0.1 that nobody listens on. Below the ports that the kernel gives to outgoing connections and to
/// other tests that ask for any port, so that none of those has it before it is listened on, nor connects to itself.
pub(crate) fn free_address() -> SocketAddr {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..COUNT {
        let at = std::process::id().wrapping_mul(37).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + at % COUNT).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port");
}

/// A runtime directory, a configuration file and, once started, the processes.
pub(crate) struct Tree {
    pub(crate) home: PathBuf,
    pub(crate) http: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) stub: Option<Child>,
    /// The program that is run.
    pub(crate) program: PathBuf,
    original: String,
}

impl Tree {
    /// A directory and a configuration, nothing started.
    pub(crate) fn new(name: &str) -> Self {
        let home = std::env::temp_dir().join(format!("beltway-tree-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&home).unwrap();
        let [http, admin, page, demo] = [(); 4].map(|()| free_address());
        let original = format!(
            "runtime_dir: {}\nadmin: {{listen: {admin}}}\nserver: {{listen: {page}, drain_timeout: 2s}}\n\
             demo: {{origin: {demo}}}\nthreads: 1\nhttp:\n  listen: [{http}]\n  remap:\n    - {{from: \"/\", to: \
             \"http://{demo}/\"}}\nsupervise: {{heartbeat_interval: 100ms, hang_timeout: 5s, stop_timeout: 5s, \
             respawn_backoff_max: 500ms}}\n",
            home.join("run").display(),
        );
        let program = PathBuf::from(env!("CARGO_BIN_EXE_beltway"));
        let tree = Self { home, http, admin, stub: None, program, original };
        tree.configure(&tree.original);
        tree
    }

    /// The configuration as it was made.
    pub(crate) fn original(&self) -> String {
        self.original.clone()
    }

    /// As [`Tree::original`], with everything sent to an origin outside the tree.
    pub(crate) fn original_to(&self, origin: SocketAddr) -> String {
        let text = &self.original;
        let at = text.find("to: \"http://").unwrap();
        let end = at + text[at..].find('}').unwrap();
        format!("{}to: \"http://{origin}/\"{}", &text[..at], &text[end..])
    }

    /// A configuration by which servers that end may take their time to finish what they have.
    pub(crate) fn patient(text: &str) -> String {
        let text = text.replacen("drain_timeout: 2s", "drain_timeout: 1m", 1);
        text.replacen("stop_timeout: 5s", "stop_timeout: 2m", 1)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.home.join("beltway.yaml")
    }

    pub(crate) fn configure(&self, text: &str) {
        fs::write(self.file(), text).unwrap();
    }

    pub(crate) fn directory(&self) -> RuntimeDir {
        RuntimeDir::new(self.home.join("run"))
    }

    /// Starts `beltway run` and waits until it serves, and says so: until then a death is one of the start.
    pub(crate) fn run(name: &str) -> Self {
        let mut tree = Self::new(name);
        tree.start_stub();
        tree.await_serving();
        eventually("the top process says so", || tree.log().contains(" serves (").then_some(()));
        tree
    }

    pub(crate) fn start_stub(&mut self) {
        self.start_stub_as(|_| {});
    }

    /// As [`Tree::start_stub`], with what `more` does to the command: its environment, its standard error.
    pub(crate) fn start_stub_as(&mut self, more: impl FnOnce(&mut Command)) {
        let log = fs::File::options().append(true).create(true).open(self.home.join("log")).unwrap();
        let mut command = Command::new(&self.program);
        command.args(["run", "-c"]).arg(self.file());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        more(&mut command);
        let stub = command.spawn().unwrap();
        self.stub = Some(stub);
    }

    /// Waits until the status has a ready server, a manager, a cop; says how long that took.
    pub(crate) fn await_serving(&self) -> Duration {
        eventually("all three serve", || {
            let status = self.status()?;
            let ready = status["servers"].as_array()?.iter().any(|server| server["state"] == "ready");
            (ready && status["cop"].is_object()).then_some(())
        })
        .1
    }

    /// `beltway COMMAND -c FILE`.
    pub(crate) fn command(&self, command: &str) -> Command {
        let mut process = Command::new(env!("CARGO_BIN_EXE_beltway"));
        process.args(command.split(' ')).arg("-c").arg(self.file());
        process
    }

    /// Runs a command to its end.
    pub(crate) fn ask(&self, command: &str) -> Output {
        bounded(self.command(command))
    }

    pub(crate) fn status(&self) -> Option<Value> {
        self.status_by("")
    }

    /// As [`Tree::status`], with more arguments.
    pub(crate) fn status_by(&self, more: &str) -> Option<Value> {
        let output = self.ask(format!("status --json {more}").trim_end());
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        (output.status.success() && status["manager"].is_object()).then_some(status)
    }

    /// The process that holds the role's lease.
    pub(crate) fn process(&self, role: Role) -> Option<Pidfd> {
        let directory = self.directory();
        let path = match role {
            Role::Cop => directory.cop_lease(),
            Role::Manager => directory.manager_lease(),
            Role::Server => directory.server_lease(*directory.server_generations().ok()?.last()?),
        };
        lease::process(&path).ok()?
    }

    pub(crate) fn pid(&self, role: Role) -> u32 {
        eventually(role.name(), || self.process(role)).0.pid()
    }

    /// `kill -9`; returns when the process is dead.
    pub(crate) fn kill(&self, role: Role) -> u32 {
        let (process, _) = eventually(role.name(), || self.process(role));
        process.signal(Signal::KILL).unwrap();
        eventually("death", || process.is_dead().then_some(()));
        process.pid()
    }

    /// Waits until another process than `before` holds the role's lease; says how long that took.
    pub(crate) fn await_another(&self, role: Role, before: u32) -> Duration {
        eventually("another process in the role", || self.process(role).filter(|process| process.pid() != before)).1
    }

    pub(crate) fn get(&self) -> Result<String, Failed> {
        get(self.http)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }

    /// TERM to the stub; its exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        let mut stub = self.stub.take().unwrap();
        Pidfd::open(stub.id()).unwrap().signal(Signal::TERM).unwrap();
        eventually("the stub ends", || stub.try_wait().unwrap()).0.code()
    }

    /// Nobody holds a lease, no socket is left.
    pub(crate) fn assert_nothing_is_left(&self) {
        let directory = self.directory();
        let leases = stop::leases(&directory, Role::Cop).unwrap();
        assert!(!stop::any_lives(&leases).unwrap(), "{leases:?}");
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        let stays = ["generation", "beltway.log", "history", "obituaries"];
        assert!(left.iter().all(|name| stays.iter().any(|stays| name == stays)), "{left:?}");
        assert!(matches!(self.get(), Err(Failed::Refused)));
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}", self.home.display(), self.log());
            eprintln!("{}", fs::read_to_string(self.directory().daemon_log()).unwrap_or_default());
        }
        if let Some(mut stub) = self.stub.take() {
            let _ = stub.kill();
            let _ = stub.wait();
        }
        // All are stopped before any is killed, so that nobody brings anybody back; and who was just being started and
        // had no lease yet is looked for once more.
        let directory = self.directory();
        let mut quiet = 0;
        for _ in 0..500 {
            let leases = stop::leases(&directory, Role::Cop).unwrap_or_default();
            let leases: Vec<_> = std::iter::once(directory.stub_lease()).chain(leases).collect();
            for signal in [Signal::STOP, Signal::KILL] {
                for path in &leases {
                    if let Ok(Some(process)) = lease::process(path) {
                        let _ = lease::signal(path, &process, signal);
                    }
                }
            }
            quiet = if stop::any_lives(&leases).unwrap_or(false) { 0 } else { quiet + 1 };
            if quiet == QUIET_LOOKS {
                break;
            }
            pause(LOOK);
        }
        let _ = fs::remove_dir_all(&self.home);
    }
}

/// Runs a command to its end; one that hangs is killed.
pub(crate) fn bounded(mut command: Command) -> Output {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // What is said is read while it is said: a pipe does not hold much.
    let (said, complained) = (heard(child.stdout.take()), heard(child.stderr.take()));
    let begin = now();
    let mut hangs = false;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begin.elapsed() > PATIENCE && !hangs {
            hangs = true;
            child.kill().unwrap();
        }
        pause(LOOK);
    };
    let output = Output { status, stdout: said.join().unwrap(), stderr: complained.join().unwrap() };
    assert!(!hangs, "{command:?} hangs: {output:?}");
    output
}

fn heard(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    let read = move || {
        let mut bytes = Vec::new();
        pipe.unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    std::thread::Builder::new().name("reader".to_owned()).spawn(read).unwrap()
}

/// How a request failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// No connection.
    Refused,
    /// A connection and no whole answer.
    Broken(String),
}

/// One request on a connection of its own.
pub(crate) fn get(address: SocketAddr) -> Result<String, Failed> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(|_| Failed::Refused)?;
    let broken = |error: std::io::Error| Failed::Broken(error.to_string());
    stream.set_read_timeout(Some(PATIENCE)).map_err(broken)?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").map_err(broken)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(broken)?;
    if answer.starts_with("HTTP/1.1 200") { Ok(answer) } else { Err(Failed::Broken(answer)) }
}

/// A client that sends one request after another, each on a new connection, until it is dropped.
pub(crate) struct Load {
    ended: Arc<AtomicBool>,
    pub(crate) good: Arc<AtomicU64>,
    pub(crate) refused: Arc<AtomicU64>,
    pub(crate) broken: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn begin(address: SocketAddr) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let [good, refused, broken] = [(); 3].map(|()| Arc::new(AtomicU64::new(0)));
        let counts = (Arc::clone(&ended), Arc::clone(&good), Arc::clone(&refused), Arc::clone(&broken));
        let send = move || {
            let (ended, good, refused, broken) = counts;
            while !ended.load(Ordering::Relaxed) {
                let count = match get(address) {
                    Ok(_) => &good,
                    Err(Failed::Refused) => &refused,
                    Err(Failed::Broken(_)) => &broken,
                };
                count.fetch_add(1, Ordering::Relaxed);
                pause(Duration::from_millis(1));
            }
        };
        let thread = std::thread::Builder::new().name("load".to_owned()).spawn(send).unwrap();
        let load = Self { ended, good, refused, broken, thread: Some(thread) };
        load.more(10);
        load
    }

    /// Waits for `count` more good answers.
    pub(crate) fn more(&self, count: u64) {
        let before = self.good.load(Ordering::Relaxed);
        eventually("more good answers", || (self.good.load(Ordering::Relaxed) >= before + count).then_some(()));
    }

    /// Good, refused, broken.
    pub(crate) fn end(mut self) -> (u64, u64, u64) {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        [&self.good, &self.refused, &self.broken].map(|count| count.load(Ordering::Relaxed)).into()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// The arguments of a process, as `ps` shows them.
pub(crate) fn arguments(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ")
}

/// The name of a process, as `ps` shows it.
pub(crate) fn name(pid: u32) -> String {
    fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("comm")).unwrap_or_default().trim().to_owned()
}

/// The process group of a process.
pub(crate) fn group(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().nth(2).unwrap().parse().unwrap()
}

/// A client that keeps its connection.
pub(crate) struct Kept {
    stream: BufReader<TcpStream>,
    /// The last response said that the connection ends.
    pub(crate) told_to_close: bool,
}

impl Kept {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream), told_to_close: false }
    }

    /// One request and its whole answer.
    pub(crate) fn get(&mut self) -> std::io::Result<String> {
        self.stream.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        let head = head.to_ascii_lowercase();
        self.told_to_close = head.contains("connection: close");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        if head.starts_with("http/1.1 200") { Ok(head) } else { Err(std::io::Error::other(head)) }
    }
}

/// An origin outside the tree, for as long as the test runs: it outlives every server, as origins do.
pub(crate) fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = |stream: TcpStream| {
        let mut writer = stream.try_clone().unwrap();
        let mut lines = BufReader::new(stream).lines();
        while let Some(Ok(line)) = lines.next() {
            let end = line.is_empty();
            if end && writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").is_err() {
                return;
            }
        }
    };
    let accept = move || {
        for stream in listener.incoming().flatten() {
            let _ = std::thread::Builder::new().name("origin connection".to_owned()).spawn(move || serve(stream));
        }
    };
    std::thread::Builder::new().name("origin".to_owned()).spawn(accept).unwrap();
    address
}

/// A client of one question.
pub(crate) struct Raw(TcpStream);

impl Raw {
    pub(crate) fn connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(Self(stream))
    }

    /// How long nothing may come.
    pub(crate) fn patience(&self, time: Duration) {
        self.0.set_read_timeout(Some(time)).unwrap();
    }

    /// The whole answer to a GET; `None` when the connection broke.
    pub(crate) fn ask(&mut self, path: &str) -> Option<String> {
        write!(self.0, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        self.0.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}
