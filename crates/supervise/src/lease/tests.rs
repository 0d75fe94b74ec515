use super::*;

struct Home(PathBuf);

impl Home {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("beltway-lease-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn lease(&self) -> PathBuf {
        self.0.join("x.lock")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_second_who_wants_a_lease_learns_the_pid_of_the_first() {
    let home = Home::new("two");
    let first = Lease::take(&home.lease()).unwrap();
    match Lease::take(&home.lease()) {
        Err(LeaseError::Held { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    assert_eq!(holder(&home.lease()).unwrap(), Holder::Somebody(Some(std::process::id())));
    drop(first);
    assert_eq!(holder(&home.lease()).unwrap(), Holder::Nobody);
    drop(Lease::take(&home.lease()).unwrap());
}

#[test]
fn a_file_left_by_the_dead_or_by_strangers_means_nothing() {
    let home = Home::new("stale");
    assert_eq!(holder(&home.lease()).unwrap(), Holder::Nobody, "no file");
    for content in ["", "1\n", "garbage with no number\n", "99999999999999999999999999999999999999999999999999\n"] {
        fs::write(home.lease(), content).unwrap();
        assert_eq!(holder(&home.lease()).unwrap(), Holder::Nobody);
        assert!(process(&home.lease()).unwrap().is_none());
        let lease = Lease::take(&home.lease()).unwrap();
        assert_eq!(fs::read_to_string(home.lease()).unwrap(), format!("{}\n", std::process::id()));
        drop(lease);
    }
}

#[test]
fn who_asks_for_a_name_is_told_it_as_soon_as_there_is_one() {
    let home = Home::new("name");
    assert_eq!(named_holder(&home.lease()).unwrap(), Holder::Nobody);
    let lease = Lease::reserve(&home.lease()).unwrap();
    let path = home.lease();
    let (ask, asks) = std::sync::mpsc::channel();
    #[expect(clippy::disallowed_methods, reason = "a test may start a thread")]
    let asked = std::thread::spawn(move || {
        ask.send(()).unwrap();
        named_holder(&path).unwrap()
    });
    asks.recv().unwrap();
    lease.record(4242).unwrap();
    assert_eq!(asked.join().unwrap(), Holder::Somebody(Some(4242)));
}

#[test]
fn a_reserved_lease_is_held_by_somebody_until_its_pid_is_told() {
    let home = Home::new("reserve");
    fs::write(home.lease(), "12345\n").unwrap();
    let lease = Lease::reserve(&home.lease()).unwrap();
    assert_eq!(holder(&home.lease()).unwrap(), Holder::Somebody(None), "the old pid is gone");
    assert!(process(&home.lease()).unwrap().is_none());
    lease.record(4242).unwrap();
    assert_eq!(holder(&home.lease()).unwrap(), Holder::Somebody(Some(4242)));
    lease.record(7).unwrap();
    assert_eq!(holder(&home.lease()).unwrap(), Holder::Somebody(Some(7)), "a shorter pid leaves no digits behind");
}

#[test]
fn a_scribbled_or_half_written_pid_is_no_pid() {
    let home = Home::new("scribble");
    let lease = Lease::take(&home.lease()).unwrap();
    for content in ["12", "0\n", "-5\n", "12x\n", "\u{0}\n"] {
        fs::write(home.lease(), content).unwrap();
        assert_eq!(holder(&home.lease()).unwrap(), Holder::Somebody(None), "{content:?}");
    }
    drop(lease);
}

#[test]
fn a_lease_whose_file_was_removed_is_put_back() {
    let home = Home::new("removed");
    let mut lease = Lease::take(&home.lease()).unwrap();
    assert!(!lease.restore().unwrap());
    fs::remove_file(home.lease()).unwrap();
    assert!(!lease.is_in_place());
    assert!(lease.restore().unwrap());
    assert_eq!(holder(&home.lease()).unwrap(), Holder::Somebody(Some(std::process::id())));

    fs::remove_file(home.lease()).unwrap();
    let _other = Lease::take(&home.lease()).unwrap();
    assert!(matches!(lease.restore(), Err(LeaseError::Held { .. })), "another came in between: it is told");
}

#[test]
fn an_inherited_copy_holds_the_lease_after_its_giver_let_go() {
    let home = Home::new("inherit");
    let reserved = Lease::reserve(&home.lease()).unwrap();
    let copy = reserved.as_fd().try_clone_to_owned().unwrap();
    let inherited = Lease::inherit(copy, &home.lease()).unwrap();
    drop(reserved);
    assert_eq!(holder(&home.lease()).unwrap(), Holder::Somebody(Some(std::process::id())));
    let stranger = File::options().read(true).write(true).open(home.lease()).unwrap();
    assert!(matches!(Lease::inherit(stranger.into(), &home.lease()), Err(LeaseError::Held { .. })));
    inherited.remove().unwrap();
    assert!(!home.lease().exists());
}

#[test]
fn what_the_dead_left_is_cleared_away_and_a_held_lease_is_not() {
    let home = Home::new("clear");
    clear(&home.lease()).unwrap();
    fs::write(home.lease(), "1\n").unwrap();
    clear(&home.lease()).unwrap();
    assert!(!home.lease().exists());
    let _held = Lease::take(&home.lease()).unwrap();
    clear(&home.lease()).unwrap();
    assert!(home.lease().exists());
}

#[test]
fn what_is_not_a_file_or_not_writable_is_an_error_that_names_it() {
    let home = Home::new("odd");
    fs::create_dir(home.lease()).unwrap();
    let error = Lease::take(&home.lease()).unwrap_err();
    assert!(error.to_string().ends_with("x.lock"), "{error}");
    fs::remove_dir(home.lease()).unwrap();
    std::os::unix::fs::symlink("elsewhere", home.lease()).unwrap();
    assert!(matches!(Lease::take(&home.lease()), Err(LeaseError::Io { .. })), "a symbolic link is not followed");
    let nowhere = home.0.join("missing").join("x.lock");
    assert!(matches!(Lease::take(&nowhere), Err(LeaseError::Io { .. })));
    assert_eq!(holder(&nowhere).unwrap(), Holder::Nobody);
    // A directory nobody may write to, as far as that binds who runs this (not root): proc's own.
    assert!(matches!(Lease::take(Path::new("/proc/self/x.lock")), Err(LeaseError::Io { .. })));
}

#[test]
fn a_signal_is_sent_only_to_who_holds_the_lease_now() {
    let home = Home::new("signal");
    let sleeper = |seconds| {
        sys::process::spawn(&sys::process::Spawn {
            program: "/bin/sleep".as_ref(),
            arguments: vec!["sleep".as_ref(), std::ffi::OsStr::new(seconds)],
            descriptors: vec![],
            standing: sys::process::Standing::OwnGroup,
        })
        .unwrap()
    };
    let (a, b) = (sleeper("30"), sleeper("31"));
    let lease = Lease::reserve(&home.lease()).unwrap();
    lease.record(a.pid()).unwrap();
    let found = process(&home.lease()).unwrap().unwrap();
    assert_eq!(found.pid(), a.pid());
    assert!(!signal(&home.lease(), &b, Signal::KILL).unwrap(), "b does not hold it");
    assert!(!b.is_dead());
    lease.record(b.pid()).unwrap();
    assert!(!signal(&home.lease(), &found, Signal::KILL).unwrap(), "a holds it no more");
    assert!(signal(&home.lease(), &b, Signal::KILL).unwrap());
    drop(lease);
    assert!(!signal(&home.lease(), &a, Signal::KILL).unwrap(), "nobody holds it");
    a.signal(Signal::KILL).unwrap();
    for child in [&a, &b] {
        let mut fds = [rustix::event::PollFd::new(child, rustix::event::PollFlags::IN)];
        let bound = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut fds, Some(&bound)).unwrap(), 1);
    }
    while sys::process::reap_any().unwrap().is_some() {}
}

#[test]
fn of_many_who_start_at_the_same_moment_one_has_the_lease_and_the_others_know_who() {
    let home = Home::new("race");
    for _ in 0..20 {
        let barrier = std::sync::Barrier::new(8);
        let taken: Vec<_> = std::thread::scope(|scope| {
            let start = || {
                barrier.wait();
                let taken = Lease::take(&home.lease());
                barrier.wait(); // nobody lets go before all have tried
                taken
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(taken.iter().filter(|taken| taken.is_ok()).count(), 1, "{taken:?}");
        for refused in taken.iter().filter_map(|taken| taken.as_ref().err()) {
            assert!(refused.to_string().ends_with(&format!("is held by process {}", std::process::id())), "{refused}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_written_is_an_error_that_says_why() {
    let home = Home::new("read-only");
    // Written by nobody, root included.
    let error = Lease::take(Path::new("/sys/kernel/uevent_seqnum")).unwrap_err();
    assert!(matches!(&error, LeaseError::Io { .. }), "{error:?}");
    let failure = crate::failure::Failure::from(error);
    assert!(failure.why.starts_with("/sys/kernel/uevent_seqnum: "), "{}", failure.why);
    // Whom the file's mode binds is told; who may write all the same, does.
    fs::write(home.lease(), "").unwrap();
    fs::set_permissions(home.lease(), std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    match Lease::take(&home.lease()) {
        Ok(_) => assert!(rustix::process::geteuid().is_root()),
        Err(error) => assert!(matches!(error, LeaseError::Io { .. }), "{error:?}"),
    }
}

#[test]
fn on_a_full_disk_the_lease_says_so_and_is_nobodys() {
    let full = Lease { file: File::options().write(true).open("/dev/full").unwrap(), path: "/run/x.lock".into() };
    let failure = crate::failure::Failure::from(full.record(7).unwrap_err());
    assert!(failure.why.starts_with("/run/x.lock: ") && failure.why.contains("No space left"), "{}", failure.why);
    assert_eq!(failure.code, crate::failure::COULD_NOT);
}

#[test]
fn a_lease_of_the_dead_is_awaited_while_a_child_of_theirs_still_has_a_copy() {
    let home = Home::new("copy");
    let mut dead = std::process::Command::new("/bin/true").spawn().unwrap();
    dead.wait().unwrap();
    let copy = Lease::reserve(&home.lease()).unwrap();
    copy.record(dead.id()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            crate::wait::readable(&[], Duration::from_millis(50)).unwrap();
            drop(copy); // it becomes its own program
        });
        assert_eq!(Lease::take(&home.lease()).map(drop).map_err(|error| error.to_string()), Ok(()));
    });
}
