//! Who is well, or could be and is held up by others, is left alone: by a debugger, by a machine that has no time, by a
//! supervisor that slept, by a clock that jumps.

#![allow(clippy::unwrap_used, reason = "a walk that cannot set up its surroundings fails")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use walks::process::{Guard, is_traced, send};
use walks::{Home, Kind, Nginx, Peer, Tree, eventually, now, pause};

/// Longer than the hang timeout of these trees, twice over.
const LONG: Duration = Duration::from_secs(5);

fn start() -> (Nginx, Tree) {
    let nginx = Nginx::start(|files| std::fs::write(files.join("object"), "x").unwrap());
    let tree = Tree::run(&format!("remap: [{{from: \"/\", to: \"{}\"}}]", nginx.url()));
    (nginx, tree)
}

fn ask(tree: &Tree) -> Option<Peer> {
    let mut peer = Peer::try_connect(tree.address()).ok()?;
    peer.try_send("GET /object HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n").ok()?;
    Some(peer)
}

fn is_served(tree: &Tree) -> bool {
    ask(tree).is_some_and(|mut peer| peer.receive(Kind::ResponseTo("GET")).end == walks::End::Whole)
}

fn pids(tree: &Tree) -> [u32; 3] {
    ["cop", "manager", "server"].map(|role| tree.pid(role))
}

/// Whether the log says that a debugger is why.
fn told_of(tree: &Tree) -> bool {
    ["(Traced)", "held by a debugger"].iter().any(|words| tree.log().contains(words))
}

/// Something that holds a process as a debugger does at a breakpoint: every thread in state `t`.
struct Debugger(Child);

impl Debugger {
    /// Takes hold of all threads of a process. `None`, and says so, where that is not allowed.
    fn hold(pid: u32) -> Option<Self> {
        // By the numbers of <sys/ptrace.h>: seize, interrupt; detached by letting go of its standard input.
        const SCRIPT: &str = r#"
            my ($ptrace, $pid) = @ARGV; $| = 1;
            opendir(my $dir, "/proc/$pid/task") or die "no threads: $!";
            my @threads = grep { /^\d+$/ } readdir($dir);
            for my $thread (@threads) {
                syscall($ptrace + 0, 0x4206, $thread + 0, 0, 0) == 0 or die "seize: $!";
                syscall($ptrace + 0, 0x4207, $thread + 0, 0, 0) == 0 or die "interrupt: $!";
                waitpid($thread + 0, 0x40000000);
            }
            print "held\n";
            <STDIN>;
            syscall($ptrace + 0, 17, $_ + 0, 0, 0) for @threads;
        "#;
        let ptrace = if cfg!(target_arch = "x86_64") { "101" } else { "117" };
        let mut command = Command::new("perl");
        command.args(["-e", SCRIPT, ptrace, &pid.to_string()]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let Ok(mut child) = child else {
            eprintln!("NOT RUN: there is no perl here");
            return None;
        };
        let mut said = String::new();
        let _ = BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said);
        if said == "held\n" {
            return Some(Self(child));
        }
        eprintln!("NOT RUN: no debugger may hold a process here: {:?}", child.wait_with_output());
        None
    }

    fn let_go(mut self) {
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        eventually("the debugger's end", || self.0.try_wait().unwrap());
    }
}

impl Drop for Debugger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_server_that_a_debugger_holds_is_told_of_and_goes_on_where_it_was() {
    let (_nginx, tree) = start();
    let before = pids(&tree);
    // Whoever never answered is starting.
    eventually("signs of life", || {
        let status = tree.status()?;
        (status["servers"][0]["process"]["heartbeat"]["answered"].as_u64()? > 2).then_some(())
    });
    let Some(debugger) = Debugger::hold(before[2]) else { return };
    assert!(is_traced(before[2]));
    let begin = now();
    let mut waiting = ask(&tree).unwrap();
    eventually("it is told of", || told_of(&tree).then_some(()));
    while begin.elapsed() < LONG {
        assert!(is_traced(before[2]), "nobody woke it, or killed it");
        pause(Duration::from_millis(100));
    }
    let status = tree.status().unwrap();
    assert!(status["servers"][0]["process"]["heartbeat"]["missed_in_a_row"].as_u64() > Some(0), "{status:#}");
    debugger.let_go();
    assert_eq!(waiting.receive(Kind::ResponseTo("GET")).end, walks::End::Whole, "who came meanwhile is answered");
    eventually("it is well again", || {
        let status = tree.status()?;
        (status["servers"][0]["process"]["heartbeat"]["missed_in_a_row"] == 0).then_some(())
    });
    assert!(is_served(&tree));
    assert_eq!(pids(&tree), before);
    assert!(tree.obituaries().is_empty(), "{:#?}", tree.obituaries());
}

/// Processes that burn what processor they get, until this is dropped.
struct Busy {
    _processes: Vec<Guard>,
}

impl Busy {
    fn begin(count: usize) -> Self {
        let burn = |_| {
            let mut command = Command::new("sh");
            command.args(["-c", "while :; do :; done"]);
            Guard::start(command)
        };
        Self { _processes: (0..count).map(burn).collect() }
    }
}

/// The long form, by `BELTWAY_FULL=1`, takes a minute and half.
fn is_full() -> bool {
    std::env::var_os("BELTWAY_FULL").is_some_and(|value| value == "1")
}

fn serves_for(tree: &Tree, time: Duration) {
    let begin = now();
    while begin.elapsed() < time {
        assert!(is_served(tree), "after {:?}", begin.elapsed());
        pause(Duration::from_millis(50));
    }
}

/// Stops processes for that long; all of them when a machine is suspended.
fn suspend(pids: &[u32], time: Duration) {
    for &pid in pids {
        assert!(send(pid, Signal::STOP));
    }
    pause(time);
    for &pid in pids {
        assert!(send(pid, Signal::CONT));
    }
}

#[test]
fn beside_eight_busy_processes_nobody_is_killed_and_neither_after_all_were_suspended() {
    let (_nginx, tree) = start();
    let before = pids(&tree);
    let (busy_for, asleep_for) = if is_full() { (60, 10) } else { (5, 4) };
    let busy = Busy::begin(8);
    serves_for(&tree, Duration::from_secs(busy_for));
    assert_eq!(pids(&tree), before, "beside eight busy processes");
    // Nobody was there to be heard, and nobody to hear.
    suspend(&before, Duration::from_secs(asleep_for));
    serves_for(&tree, Duration::from_secs(3));
    drop(busy);
    serves_for(&tree, Duration::from_secs(1));
    assert_eq!(pids(&tree), before, "after they were suspended");
    assert!(tree.obituaries().is_empty(), "{:#?}", tree.obituaries());
}

#[test]
fn a_cop_that_was_stopped_for_long_beside_busy_processes_kills_nobody_when_it_wakes() {
    let (_nginx, tree) = start();
    let before = pids(&tree);
    let asleep_for = Duration::from_secs(if is_full() { 10 } else { 5 });
    let busy = Busy::begin(8);
    // With manager, which would replace it: so it is the same cop that wakes.
    let served = std::thread::scope(|scope| {
        let sleeping = scope.spawn(|| suspend(&before[..2], asleep_for));
        let mut served = 0;
        while !sleeping.is_finished() {
            assert!(is_served(&tree), "the server needs neither");
            served += 1;
            pause(Duration::from_millis(50));
        }
        served
    });
    assert!(served > 0);
    serves_for(&tree, Duration::from_secs(3));
    drop(busy);
    assert_eq!(pids(&tree), before, "who wakes forgives");
    assert!(tree.obituaries().is_empty(), "{:#?}", tree.obituaries());
}

/// A wall clock that can be set for the processes of one tree, as by an operator or by NTP. Monotonic time is the kernel's.
struct WallClock {
    home: Home,
}

impl WallClock {
    /// `None`, and says so, where no such thing can be made.
    fn make() -> Option<Self> {
        const SOURCE: &str = r#"
            #define _GNU_SOURCE
            #include <fcntl.h>
            #include <stdlib.h>
            #include <sys/mman.h>
            #include <sys/syscall.h>
            #include <time.h>
            #include <unistd.h>
            static volatile long *ahead;
            __attribute__((constructor)) static void find(void) {
                int file = open(getenv("CLOCK_FOR_TESTS"), O_RDONLY | O_CLOEXEC);
                void *page = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
                if (page != MAP_FAILED) ahead = page;
                close(file);
            }
            int clock_gettime(clockid_t which, struct timespec *now) {
                int failed = syscall(SYS_clock_gettime, which, now);
                if (!failed && which == CLOCK_REALTIME && ahead) now->tv_sec += *ahead;
                return failed;
            }
        "#;
        let clock = Self { home: Home::new() };
        std::fs::write(clock.home.file("clock.c"), SOURCE).unwrap();
        clock.jump(0);
        let mut compiler = Command::new("cc");
        compiler
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(clock.home.file("clock.so"))
            .arg(clock.home.file("clock.c"));
        match compiler.output() {
            Ok(output) if output.status.success() => Some(clock),
            refused => {
                eprintln!("NOT RUN: no clock can be made here: {refused:?}");
                None
            }
        }
    }

    /// So many seconds ahead of the kernel's, from now on.
    fn jump(&self, ahead: i64) {
        let file = std::fs::File::options().write(true).create(true).truncate(false).open(self.home.file("ahead"));
        std::os::unix::fs::FileExt::write_all_at(&file.unwrap(), &ahead.to_ne_bytes(), 0).unwrap();
    }
}

#[test]
fn nobody_is_killed_nor_kept_waiting_when_the_wall_clock_jumps() {
    const DAY: i64 = 86_400;
    let Some(clock) = WallClock::make() else { return };
    let nginx = Nginx::start(|files| std::fs::write(files.join("object"), "x").unwrap());
    let [library, file] = ["clock.so", "ahead"].map(|name| clock.home.file(name).display().to_string());
    let environment = [("LD_PRELOAD", library.as_str()), ("CLOCK_FOR_TESTS", file.as_str())];
    let tree = Tree::run_in(&format!("remap: [{{from: \"/\", to: \"{}\"}}]", nginx.url()), "", &environment);
    let before = pids(&tree);
    let wall = || tree.status().and_then(|status| status["as_of_us"].as_i64()).unwrap() / 1_000_000;
    let real = wall();
    let begin = now();
    let mut jumps = 0;
    // Longer than any silence that proves a hang, in small jumps and in large ones, forth and back.
    while begin.elapsed() < LONG {
        let ahead = [DAY, -DAY, 1, -1, 3_600, 365 * DAY, -3_600, 0][jumps % 8];
        clock.jump(ahead);
        assert!(is_served(&tree));
        eventually("their clock has jumped", || ((wall() - real - ahead).abs() < 60).then_some(()));
        jumps += 1;
        pause(Duration::from_millis(200));
    }
    assert!(jumps >= 3, "{jumps}");
    assert_eq!(pids(&tree), before, "after {jumps} jumps");
    assert!(tree.obituaries().is_empty(), "{:#?}", tree.obituaries());
    // Who dies comes back as soon as ever, and a stop takes no longer.
    for ahead in [-DAY, DAY] {
        let dead = tree.kill(&["server"]);
        clock.jump(ahead);
        let back = tree.await_back(&dead);
        println!("back after {back:?} with the clock {ahead} s ahead");
        assert!(is_served(&tree));
    }
}
