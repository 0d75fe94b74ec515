use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::*;

/// Longest wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory of its own for one test, removed with it.
struct Room(PathBuf);

impl Room {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("beltway-log-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = SystemClock.now();
    while !holds() {
        assert!(SystemClock.now().since(began) < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn lines_of(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn lines_of_several_threads_arrive_whole_and_in_each_threads_order() {
    let room = Room::new("threads");
    let path = room.file("access.log");
    let (thread, sender) = LogThread::start("[LOG]").unwrap();
    let sink = sender.open(&path).unwrap();
    std::thread::scope(|scope| {
        for name in ["a", "b", "c"] {
            let (sender, sink) = (&sender, &sink);
            scope.spawn(move || {
                let writer = sender.writer();
                for n in 0..5_000 {
                    writer.append(sink, |line| line.extend_from_slice(format!("{name} {n}").as_bytes()));
                    if n % 100 == 0 {
                        writer.flush();
                        std::thread::yield_now();
                    }
                }
                wait_until("everything is handed over", || writer.flush());
            });
        }
    });
    assert!(thread.stop(PATIENCE));
    let lines = lines_of(&path);
    assert_eq!(lines.len(), 15_000);
    for name in ["a", "b", "c"] {
        let numbers: Vec<u32> = lines.iter().filter_map(|line| line.strip_prefix(name)?.trim().parse().ok()).collect();
        assert!(numbers.iter().copied().eq(0..5_000), "lines of {name}");
    }
    assert_eq!((sink.lines(), sink.dropped(), sink.failures()), (15_000, 0, 0));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777 & !0o640, 0);
}

#[test]
fn a_line_waits_for_its_flush_and_appears_soon_after() {
    let room = Room::new("flush");
    let path = room.file("access.log");
    let (_thread, sender) = LogThread::start("[LOG]").unwrap();
    let sink = sender.open(&path).unwrap();
    let writer = sender.writer();
    writer.append(&sink, |line| line.extend_from_slice(b"one"));
    assert_eq!(sink.lines(), 0);
    writer.flush();
    wait_until("the line is written", || sink.lines() == 1);
    assert_eq!(lines_of(&path), ["one"]);
}

#[test]
fn a_full_disk_costs_lines_and_never_the_writers_time() {
    let (thread, sender) = LogThread::start("[LOG]").unwrap();
    let sink = sender.open(Path::new("/dev/full")).unwrap();
    let writer = sender.writer();
    for _ in 0..1_000 {
        writer.append(&sink, |line| line.extend_from_slice(b"lost"));
    }
    writer.flush();
    wait_until("the failure is counted", || sink.failures() > 0);
    wait_until("each line is counted", || sink.dropped() == 1_000);
    assert_eq!(sink.lines(), 0);
    assert!(!thread.stop(PATIENCE), "lines were lost");
}

/// A pipe with a name, whose reader is the test.
fn named_pipe(path: &Path) -> File {
    let done = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(done.success());
    // Both directions, so that opening does not wait for a writer.
    fs::OpenOptions::new().read(true).write(true).open(path).unwrap()
}

#[test]
fn a_pipe_that_nobody_reads_delays_neither_writers_nor_the_stop() {
    let room = Room::new("pipe");
    let path = room.file("pipe");
    let reader = named_pipe(&path);
    let (thread, sender) = LogThread::start("[LOG]").unwrap();
    let sink = sender.open(&path).unwrap();
    let writer = sender.writer();
    let text = [b'x'; 8_000];
    let began = SystemClock.now();
    let mut appended = 0;
    while sink.dropped() == 0 {
        writer.append(&sink, |line| line.extend_from_slice(&text));
        appended += 1;
        assert!(appended < 100_000, "the queue has a bound");
    }
    assert!(SystemClock.now().since(began) < PATIENCE);
    writer.flush();
    let began = SystemClock.now();
    assert!(!thread.stop(PATIENCE));
    assert!(SystemClock.now().since(began) < PATIENCE / 2, "a stuck sink has one second");
    drop(reader);
    drop(writer);
    assert_eq!(sink.lines() + sink.dropped(), appended, "every line is counted");
}

#[test]
fn a_pipe_whose_reader_went_away_is_an_error_that_is_counted() {
    let room = Room::new("closed");
    let path = room.file("pipe");
    let reader = named_pipe(&path);
    let (_thread, sender) = LogThread::start("[LOG]").unwrap();
    let sink = sender.open(&path).unwrap();
    drop(reader);
    let writer = sender.writer();
    writer.append(&sink, |line| line.extend_from_slice(b"nobody listens"));
    writer.flush();
    wait_until("the loss is counted", || sink.dropped() == 1);
    assert_eq!(sink.failures(), 1);
}

#[test]
fn rotation_leaves_old_lines_in_the_old_file_and_puts_new_ones_in_the_new() {
    let room = Room::new("rotate");
    let (path, old) = (room.file("access.log"), room.file("access.log.1"));
    let (thread, sender) = LogThread::start("[LOG]").unwrap();
    let sink = sender.open(&path).unwrap();
    let writer = sender.writer();
    writer.append(&sink, |line| line.extend_from_slice(b"before"));
    writer.flush();
    wait_until("the old line is written", || sink.lines() == 1);
    fs::rename(&path, &old).unwrap();
    sender.reopen();
    wait_until("the file is there again", || path.exists());
    writer.append(&sink, |line| line.extend_from_slice(b"after"));
    writer.flush();
    assert!(thread.stop(PATIENCE));
    assert_eq!((lines_of(&old), lines_of(&path)), (vec!["before".to_owned()], vec!["after".to_owned()]));
}

#[test]
fn a_file_that_cannot_be_opened_anew_stays_in_use_and_is_complained_of() {
    let room = Room::new("keep");
    let (messages, path) = (room.file("messages"), room.file("logs/access.log"));
    fs::create_dir(room.file("logs")).unwrap();
    let (thread, sender) = LogThread::start("[LOG]").unwrap();
    sender.report_to(sender.open(&messages).unwrap());
    let sink = sender.open(&path).unwrap();
    let mut kept = File::open(&path).unwrap();
    fs::remove_dir_all(room.file("logs")).unwrap();
    sender.reopen();
    wait_until("it is said", || fs::read_to_string(&messages).unwrap().contains("stays in use"));
    let writer = sender.writer();
    writer.append(&sink, |line| line.extend_from_slice(b"still"));
    drop(writer);
    assert!(thread.stop(PATIENCE));
    let mut text = String::new();
    kept.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still\n");
}

#[test]
fn a_message_is_one_line_whatever_it_holds() {
    let room = Room::new("report");
    let path = room.file("messages");
    let (thread, sender) = LogThread::start("[LOG]").unwrap();
    sender.report_to(sender.open(&path).unwrap());
    sender.sign("traffic_server[1]");
    sender.report(Level::Warn, "first\nforged \u{1b}[31m line");
    sender.report(Level::Debug, "not asked for");
    sender.set_level(Level::Debug);
    sender.report(Level::Debug, "x".repeat(100_000));
    assert!(thread.stop(PATIENCE));
    let lines = lines_of(&path);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(&lines[0][23..], "Z traffic_server[1] warning: first\\nforged \\u{1b}[31m line");
    assert!(lines[1].len() < REPORT_BYTES_MAX + 100 && lines[1].ends_with('…'));
}

#[test]
fn losses_are_told_at_the_end_at_the_latest() {
    let room = Room::new("losses");
    let path = room.file("messages");
    let (thread, sender) = LogThread::start("[LOG]").unwrap();
    sender.report_to(sender.open(&path).unwrap());
    let sink = sender.open(Path::new("/dev/full")).unwrap();
    let writer = sender.writer();
    writer.append(&sink, |line| line.extend_from_slice(b"lost"));
    drop(writer);
    assert!(!thread.stop(PATIENCE));
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("1 lines of /dev/full are lost: No space left on device"), "{text}");
}

#[test]
fn a_line_that_panics_while_it_is_written_leaves_no_trace() {
    let room = Room::new("panic");
    let path = room.file("access.log");
    let (thread, sender) = LogThread::start("[LOG]").unwrap();
    let sink = sender.open(&path).unwrap();
    let writer = sender.writer();
    writer.append(&sink, |line| line.extend_from_slice(b"good"));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        writer.append(&sink, |line| {
            line.extend_from_slice(b"half");
            panic!("on purpose");
        });
    }));
    assert!(panicked.is_err());
    writer.append(&sink, |line| line.extend_from_slice(&vec![b'y'; 1 << 20]));
    writer.append(&sink, |line| line.extend_from_slice(b"end"));
    drop(writer);
    assert!(thread.stop(PATIENCE));
    let lines = lines_of(&path);
    assert_eq!((lines[0].as_str(), lines[1].len(), lines[2].as_str()), ("good", writer::LINE_MAX, "end"));
}

#[test]
fn buffers_come_back_instead_of_being_made_anew() {
    let room = Room::new("buffers");
    let (_thread, sender) = LogThread::start("[LOG]").unwrap();
    let sink = sender.open(&room.file("access.log")).unwrap();
    let writer = sender.writer();
    for turn in 1..=10 {
        writer.append(&sink, |line| line.extend_from_slice(b"line"));
        writer.flush();
        wait_until("the buffer is back", || sender.0.buffers.len() == 1 && sink.lines() == turn);
    }
}

#[test]
fn a_panic_is_told_by_the_log_thread_with_its_continuation_and_its_stack() {
    let room = Room::new("panics");
    let path = room.file("messages");
    let (thread, sender) = LogThread::start("[LOG]").unwrap();
    sender.report_to(sender.open(&path).unwrap());
    sender.report_panics();
    let event_thread =
        crate::Thread::new(crate::ThreadOptions { name: "[ET_NET 7]".into(), index: 0, seed: 1 }).unwrap();
    for _ in 0..3 {
        event_thread.spawn("origin answer", async { panic!("on purpose") });
    }
    event_thread.turn(false).unwrap();
    assert_eq!(event_thread.stats().panics_by_name(), [("origin answer", 3)]);
    assert!(thread.stop(PATIENCE));
    let lines = lines_of(&path);
    assert_eq!(lines.len(), 3, "{lines:?}");
    let first = &lines[0];
    assert!(first.contains("error: panic: on purpose, at "), "{first}");
    assert!(first.contains(", in \"origin answer\" on [ET_NET 7], stack: "), "{first}");
    assert!(first.contains("a_panic_is_told_by_the_log_thread"), "its own frames are named: {first}");
    assert!(lines.iter().all(|line| line.contains("stack")), "each has its stack or says why not: {lines:?}");
}

/// Prints what appending costs; run by hand with `--release -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_line() {
    let (_thread, sender) = LogThread::start("[LOG]").unwrap();
    let sink = sender.open(Path::new("/dev/null")).unwrap();
    let writer = sender.writer();
    for _ in 0..3 {
        let began = SystemClock.now();
        for _ in 0..1_000_000 {
            writer.append(&sink, |line| line.extend_from_slice(&[b'x'; 150]));
        }
        println!("{} ns a line of 150 bytes", SystemClock.now().since(began).as_nanos() / 1_000_000);
    }
    println!("{} dropped", sink.dropped());
}
