use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

/// Tells a child of this test what to die of, and where its page goes.
const CHILD: &str = "BELTWAY_WITNESS_CHILD";

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("beltway-witness-{name}-{}", std::process::id()))
}

#[inline(never)]
fn outer(depth: u32, f: &dyn Fn()) -> u32 {
    if depth == 0 {
        f();
        return 1;
    }
    std::hint::black_box(outer(depth - 1, f)) + 1
}

#[inline(never)]
fn swallow_the_stack(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 512]);
    if depth == u64::MAX { 0 } else { swallow_the_stack(depth + 1) + room[17] }
}

/// What the child does; a test of its own, which does nothing unless it is the child.
#[test]
fn dies_when_told_to() {
    let Some(told) = std::env::var_os(CHILD) else { return };
    let told = told.into_string().unwrap();
    let (how, path) = told.split_once(' ').unwrap();
    install(Path::new(path)).unwrap();
    let die: &dyn Fn() = match how {
        // SAFETY: none, which is the point: the address is not mapped, and the process ends here.
        "segv" => &|| unsafe { std::ptr::without_provenance_mut::<u8>(0x1230).write_volatile(1) },
        "abort" => &|| std::process::abort(),
        "overflow" => &|| assert_eq!(swallow_the_stack(0), 1),
        _ => &|| rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::BUS).unwrap(),
    };
    assert_eq!(outer(5, die), 1, "not reached");
}

fn die_of(how: &str) -> (std::process::ExitStatus, Option<Fault>, Vec<Module>) {
    let path = path(how);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "witness::tests::dies_when_told_to", "--nocapture"]);
    let output = command.env(CHILD, format!("{how} {}", path.display())).output().unwrap();
    let testimony = Testimony::open(&path).unwrap();
    let own = FileIdentity::of(&fs::File::open("/proc/self/exe").unwrap()).unwrap();
    assert_eq!(testimony.executable(), own, "the child is the same program");
    let answer = (output.status, testimony.fault(), testimony.modules());
    fs::remove_file(path).unwrap();
    answer
}

#[test]
fn a_fault_leaves_signal_address_and_stack_and_ends_the_process_truly() {
    let (status, fault, modules) = die_of("segv");
    assert_eq!(status.signal(), Some(libc::SIGSEGV));
    let fault = fault.unwrap();
    assert_eq!((fault.signal, fault.address), (libc::SIGSEGV, 0x1230));
    assert!(fault.code > 0 && fault.thread > 0);
    assert!(fault.frames.len() > 7, "{:x?}", fault.frames);
    let ours = |address: &u64| (modules[0].start..modules[0].end).contains(address);
    assert!(fault.frames[..7].iter().all(ours), "{:x?} {modules:x?}", fault.frames);
    let again = &fault.frames[2..7];
    assert!(again.windows(2).filter(|pair| pair[0] == pair[1]).count() >= 3, "the recursion shows: {again:x?}");
}

#[test]
fn an_abort_shows_who_called_it_from_beyond_the_c_library() {
    let (status, fault, modules) = die_of("abort");
    assert_eq!(status.signal(), Some(libc::SIGABRT));
    let fault = fault.unwrap();
    assert_eq!(fault.signal, libc::SIGABRT);
    let ours = |address: &&u64| (modules[0].start..modules[0].end).contains(*address);
    assert!(fault.frames.iter().filter(ours).count() > 7, "{:x?} {modules:x?}", fault.frames);
}

#[test]
fn a_stack_that_ran_over_is_walked_on_another_stack() {
    let (status, fault, _) = die_of("overflow");
    assert!(matches!(status.signal(), Some(libc::SIGSEGV | libc::SIGABRT)), "{status:?}");
    let fault = fault.unwrap();
    assert_eq!(fault.signal, libc::SIGSEGV);
    assert_eq!(fault.frames.len(), FRAMES_MAX);
}

#[test]
fn a_signal_that_was_sent_names_its_sender_and_ends_the_process_all_the_same() {
    let (status, fault, _) = die_of("sent");
    assert_eq!(status.signal(), Some(libc::SIGBUS));
    let fault = fault.unwrap();
    assert!(fault.code <= 0 && fault.address > 1, "{fault:?}");
}

#[inline(never)]
fn spin_until(done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a thread to be asked")]
fn a_thread_that_spins_or_sleeps_tells_where_it_is_and_goes_on() {
    static DONE: AtomicBool = AtomicBool::new(false);
    static IDS: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
    let path = path("asked");
    install(&path).unwrap();
    assert!(install(&path).is_err(), "once in a process");
    let testimony = Testimony::open(&path).unwrap();
    let spinning = std::thread::spawn(|| {
        IDS[0].store(crate::thread::id(), Ordering::Release);
        spin_until(&DONE);
    });
    let sleeping = std::thread::spawn(|| {
        IDS[1].store(crate::thread::id(), Ordering::Release);
        while !DONE.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    let own = Pidfd::open(std::process::id()).unwrap();
    let module = testimony.modules().remove(0);
    let ours = |address: &&u64| (module.start..module.end).contains(*address);
    for id in &IDS {
        while id.load(Ordering::Acquire) == 0 {
            std::thread::yield_now();
        }
        for _ in 0..3 {
            let frames = testimony.ask(&own, id.load(Ordering::Acquire), Duration::from_secs(5)).unwrap();
            assert!(frames.iter().filter(ours).count() >= 3, "{frames:x?}");
        }
    }
    DONE.store(true, Ordering::Relaxed);
    spinning.join().unwrap();
    sleeping.join().unwrap();
    assert_eq!(testimony.ask(&own, 1, Duration::from_millis(3)), None, "no thread of ours");
    fs::remove_file(path).unwrap();
}

#[test]
fn what_is_no_page_is_refused() {
    let path = path("none");
    assert!(Testimony::open(&path).is_err());
    fs::write(&path, [0; 4096]).unwrap();
    assert!(Testimony::open(&path).is_err());
    fs::remove_file(path).unwrap();
}
