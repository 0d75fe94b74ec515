//! The service manager's side, played by the test: what it hears, and the sockets it opens and keeps.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "tree/mod.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod tree;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use rustix::io::{FdFlags, fcntl_setfd};
use supervise::role::Role;
use sys::process::{Pidfd, Signal};
use tree::{PATIENCE, Tree, eventually};

/// What `$NOTIFY_SOCKET` leads to.
struct Manager {
    socket: UnixDatagram,
    path: std::path::PathBuf,
    heard: Vec<String>,
    stored: Vec<(String, OwnedFd)>,
}

impl Manager {
    fn new(tree: &Tree) -> Self {
        let path = tree.home.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, path, heard: Vec::new(), stored: Vec::new() }
    }

    fn listen(&mut self) {
        let mut packet = [0; 4096];
        while let Ok((length, fds)) = sys::ancillary::receive(&self.socket, &mut packet) {
            let text = String::from_utf8(packet[..length].to_vec()).unwrap();
            let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or_default().to_owned();
            self.stored.extend(fds.into_iter().map(|fd| (name.clone(), fd)));
            self.heard.push(text);
        }
    }

    /// Waits until something with `part` is heard, and forgets what came before.
    fn hears(&mut self, part: &str) -> String {
        eventually(part, || {
            self.listen();
            let at = self.heard.iter().position(|text| text.contains(part))?;
            Some(self.heard.drain(..=at).next_back().unwrap())
        })
        .0
    }
}

/// `beltway run` with these sockets, as a service manager passes them.
fn activated(tree: &mut Tree, sockets: &[&OwnedFd]) {
    let program = tree.program.clone();
    let file = tree.file();
    for fd in sockets {
        fcntl_setfd(fd, FdFlags::empty()).unwrap();
    }
    let moves: Vec<_> = sockets.iter().zip(3..).map(|(fd, to)| format!("{to}<&{}", fd.as_raw_fd())).collect();
    let script = format!("LISTEN_PID=$$ exec \"$0\" run -c \"$1\" {}", moves.join(" "));
    let count = sockets.len().to_string();
    let log = std::fs::File::options().append(true).create(true).open(tree.home.join("log")).unwrap();
    tree.start_stub_as(|command| {
        let mut shell = Command::new("/bin/bash");
        shell.args(["-c", &script]).arg(program).arg(file).env("LISTEN_FDS", count);
        shell.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(log);
        *command = shell;
    });
    for fd in sockets {
        fcntl_setfd(fd, FdFlags::CLOEXEC).unwrap();
    }
}

/// A client that has connected and sent its request before anybody accepts.
fn early(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    stream
}

fn is_answered(mut stream: TcpStream) {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

fn signal(tree: &Tree, signal: Signal) {
    Pidfd::open(tree.stub.as_ref().unwrap().id()).unwrap().signal(signal).unwrap();
}

#[test]
fn the_service_manager_hears_of_everything_and_what_it_keeps_outlives_all_processes() {
    let mut tree = Tree::new("notify");
    let mut manager = Manager::new(&tree);
    let path = manager.path.clone();
    tree.start_stub_as(|command| {
        command.env("NOTIFY_SOCKET", path).env("WATCHDOG_USEC", "200000");
    });
    assert!(manager.hears("READY=1").contains("\nSTATUS="));
    for name in ["http-0", "server-0", "demo-0", "admin-0"] {
        manager.hears(&format!("FDSTORE=1\nFDNAME={name}\n"));
    }
    manager.hears("WATCHDOG=1");
    manager.hears("WATCHDOG=1");

    tree.configure(&tree.original().replacen("http:\n", "http:\n  via: renamed\n", 1));
    signal(&tree, Signal::HUP);
    let reloading = manager.hears("RELOADING=1");
    let usec = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
    assert!(usec.parse::<u64>().unwrap() > 0);
    assert!(manager.hears("READY=1").contains("in force"));
    tree.configure("nonsense: true\n");
    signal(&tree, Signal::HUP);
    manager.hears("RELOADING=1");
    assert!(manager.hears("READY=1").contains("wrong"), "it serves on, and says so");
    tree.configure(&tree.original());
    signal(&tree, Signal::USR2);
    manager.hears("RELOADING=1");
    manager.hears("READY=1");
    manager.hears("WATCHDOG=1");

    // Everybody dies at one moment, the top as well: connections wait in the sockets that are kept.
    tree.await_serving();
    manager.listen();
    let roles = [Role::Cop, Role::Manager, Role::Server].map(|role| eventually(role.name(), || tree.process(role)).0);
    signal(&tree, Signal::KILL);
    roles.iter().for_each(|process| process.signal(Signal::STOP).unwrap());
    roles.iter().for_each(|process| process.signal(Signal::KILL).unwrap());
    tree.stub.take().unwrap().wait().unwrap();
    for process in &roles {
        eventually("death", || process.is_dead().then_some(()));
    }
    let waiting = early(tree.http);
    let mut kept: Vec<(String, OwnedFd)> = Vec::new();
    for (name, fd) in manager.stored.drain(..).rev() {
        if kept.iter().all(|(known, _)| *known != name) {
            kept.push((name, fd));
        }
    }
    activated(&mut tree, &kept.iter().map(|(_, fd)| fd).collect::<Vec<_>>());
    is_answered(waiting);
    tree.await_serving();
    assert!(tree.log().contains("4 listeners come from the service manager"), "{}", tree.log());
    drop(kept);
    assert_eq!(tree.terminate(), Some(0));
    tree.assert_nothing_is_left();
}

#[test]
fn a_stop_is_announced_to_the_service_manager() {
    let mut tree = Tree::new("stopping");
    let mut manager = Manager::new(&tree);
    let path = manager.path.clone();
    tree.start_stub_as(|command| {
        command.env("NOTIFY_SOCKET", path);
    });
    manager.hears("READY=1");
    assert_eq!(tree.terminate(), Some(0));
    manager.hears("STOPPING=1");
    assert!(manager.heard.iter().all(|text| !text.contains("WATCHDOG")), "nobody asked for it");
}

#[test]
fn a_socket_that_the_service_manager_opened_is_accepted_from() {
    let mut tree = Tree::new("activated");
    let listener = TcpListener::bind(tree.http).unwrap();
    let waiting = early(tree.http);
    let strange = TcpListener::bind("127.0.0.1:0").unwrap();
    let (listener, strange) = (OwnedFd::from(listener), OwnedFd::from(strange));
    activated(&mut tree, &[&listener, &strange]);
    drop(listener);
    is_answered(waiting);
    tree.await_serving();
    assert!(tree.log().contains("nothing listens on the service manager's socket"), "{}", tree.log());
    // A manager and a server that come later have it, too.
    let (server, manager) = (tree.kill(Role::Server), tree.kill(Role::Manager));
    tree.await_another(Role::Manager, manager);
    tree.await_another(Role::Server, server);
    tree.get().unwrap();
    assert_eq!(tree.terminate(), Some(0));
    drop(strange);
}

/// As when everybody dies at one moment, and manager just has time to start another cop.
#[test]
fn a_cop_that_was_started_without_the_service_managers_sockets_gives_way() {
    let mut tree = Tree::new("rival");
    let listener = OwnedFd::from(TcpListener::bind(tree.http).unwrap());
    let waiting = early(tree.http);
    let log = std::fs::File::options().append(true).create(true).open(tree.home.join("log")).unwrap();
    let mut command = Command::new(&tree.program);
    command.args(["cop", "--in-tree", "-c"]).arg(tree.file()).stdin(std::process::Stdio::null()).stderr(log);
    let mut rival = command.spawn().unwrap();
    eventually("no manager can bind", || tree.log().contains("(http): Address already in use").then_some(()));
    activated(&mut tree, &[&listener]);
    drop(listener);
    is_answered(waiting);
    tree.await_serving();
    assert!(!rival.wait().unwrap().success());
    assert_ne!(tree.pid(Role::Cop), rival.id());
    assert_eq!(tree.terminate(), Some(0));
    tree.assert_nothing_is_left();
}

#[test]
fn the_unit_file_says_what_the_program_does() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/beltway.service");
    let text = std::fs::read_to_string(&path).unwrap();
    for line in [
        "Type=notify",
        "ExecStart=/usr/bin/beltway run -c /etc/beltway/beltway.yaml",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "KillMode=process",
        "WatchdogSec=10s",
        "FileDescriptorStoreMax=128",
        "Restart=always",
        "RuntimeDirectory=beltway",
    ] {
        assert!(text.lines().any(|there| there == line), "{line}");
    }
    let stop: u64 = text.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap().parse().unwrap();
    assert!(stop > config::builtin_default().supervise.stop_timeout.as_secs(), "systemd is more patient than we are");
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("not verified: there is no systemd-analyze here");
        return;
    }
    // It looks for the program, which is where packages put it.
    let home = std::env::temp_dir().join(format!("beltway-unit-{}", std::process::id()));
    std::fs::create_dir_all(&home).unwrap();
    let unit = home.join("beltway.service");
    std::fs::write(&unit, text.replace("/usr/bin/beltway", env!("CARGO_BIN_EXE_beltway"))).unwrap();
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]).arg(&unit);
    let output = tree::bounded(command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    std::fs::remove_dir_all(home).unwrap();
    let about_us: Vec<_> = said.lines().filter(|line| line.contains("beltway.service")).collect();
    assert!(about_us.is_empty(), "{said}");
}
