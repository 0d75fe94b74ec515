//! Every key that a reload applies makes a difference in what the engine puts in force; there is none that is accepted and
//! ignored.

use config::{Applied, Kind, table};

use super::super::scenery::{Scene, keep_at_chores, keep_busy};
use super::super::{EngineListeners, Identity};
use super::*;
use crate::kv_engine::KvListeners;

/// One pool, one rule, an access log: so that every key has something it is for.
const BASE: &str = "
threads: 1
cache: {ram: 2MiB}
http:
  access_log: {file: FILE}
  remap: [{from: /, to: \"http://127.0.0.1:1/\"}]
kv:
  stats: {listen: 127.0.0.1:4}
  pools:
    alpha: {listen: \"127.0.0.1:1\", redis: true, servers: [\"127.0.0.1:2:1\"]}
";

/// Values of every kind. The first that the table takes for a key, and that is another than before, is tried.
const CANDIDATES: [&str; 24] = [
    "7s",
    "11s",
    "4KiB",
    "1MiB",
    "17",
    "9",
    "2",
    "1",
    "true",
    "false",
    "other",
    "[10.0.0.0/8]",
    "[{from: /, to: \"http://127.0.0.1:9/\"}]",
    "[\"127.0.0.1:3:1\"]",
    "\"<>\"",
    "off",
    "modula",
    "md5",
    "error",
    "miss",
    "json",
    "none",
    "debug",
    "x_forwarded_for",
];

/// What others than the engine take over: manager (its token, whether another stands by), the main thread (how long it drains), and all of them (their
/// logs). Tests with real processes see to these.
const NOT_THE_ENGINES: [&str; 4] = ["admin.token_file", "server.drain_delay", "server.drain_timeout", "server.standby"];

#[test]
fn every_key_that_a_reload_applies_changes_what_the_engine_runs() {
    let home = std::env::temp_dir().join(format!("beltway-reload-{}", std::process::id()));
    std::fs::create_dir_all(&home).unwrap();
    let name = home.join("beltway.yaml").display().to_string();
    let base = BASE.replace("FILE", &home.join("access.log").display().to_string());
    let old = config::parse(&name, &base).unwrap_or_else(|wrong| panic!("{wrong}"));
    let identity = Identity { pid: std::process::id(), generation: 1 };
    let listeners = EngineListeners { http: Vec::new(), server_page: None, demo: None, kv: KvListeners::default() };
    let mut engine = Engine::start(Arc::new(old.clone()), listeners, identity, None).unwrap();
    // However few descriptors there are here: what is configured is kept.
    engine.origins = 1 << 20;
    let prepared = |new: &Config| format!("{:?}", engine.prepare(&old, Judged::new(new.clone()).unwrap()).unwrap());
    let before = prepared(&old);
    let (mut tried, mut untried) = (0, Vec::new());
    for row in table() {
        let section = matches!(row.kind, Kind::Unavailable | Kind::Section { .. } | Kind::Map { .. });
        if section || row.applied != Applied::Reload || row.path.contains("[]") || NOT_THE_ENGINES.contains(&row.path) {
            continue;
        }
        let key = row.path.replace("NAME", "alpha");
        let paths = [home.join("other.log").display().to_string()];
        let candidates = CANDIDATES.iter().copied().chain(paths.iter().map(String::as_str));
        let changed = candidates
            .filter_map(|value| config::set(&name, &base, &key, value).ok())
            .find(|new| old.changed(new).any(|(path, _)| path == row.path));
        let Some(new) = changed else {
            untried.push(row.path);
            continue;
        };
        assert_ne!(prepared(&new), before, "{key} is accepted and changes nothing");
        tried += 1;
    }
    println!("{tried} keys; no other value for {untried:?}");
    assert_eq!(untried, ["http.forward_proxy"], "give them a candidate");
    assert!(tried > 40, "{tried}");
    engine.stop();
    std::fs::remove_dir_all(home).unwrap();
}

#[test]
fn no_more_idle_connections_to_origins_are_kept_than_there_are_places_for() {
    let limits = "{origin_idle_per_thread: 1000, origin_idle_shared: 1000}";
    let config = config::parse("test.yaml", &format!("http: {{limits: {limits}}}")).unwrap();
    for threads in [1, 2, 3, 64] {
        for places in [0, 1, 10, 300, 100_000] {
            let kept = pool_options(&config, threads, places);
            let shared = if threads > 1 { kept.idle_shared } else { 0 };
            assert!(kept.idle_per_thread * threads + shared <= places, "{threads} threads, {places}: {kept:?}");
            assert!(kept.idle_per_thread <= 1_000 && kept.idle_shared <= 1_000);
        }
        let kept = pool_options(&config, threads, 1 << 20);
        assert_eq!((kept.idle_per_thread, kept.idle_shared), (1_000, 1_000), "as configured where there is room");
    }
}

#[test]
fn a_reload_that_is_followed_by_another_and_a_drain_waits_for_no_event_thread() {
    let Scene { engine, config, .. } = Scene::set();
    let busy = keep_busy(&engine);
    let begin = SystemClock.now();
    let prepared = engine.prepare(&config, Judged::new(config.clone()).unwrap()).unwrap();
    let mut first = engine.commit(prepared);
    assert!(!first.turn(begin), "it is busy");
    let prepared = engine.prepare(&config, Judged::new(config.clone()).unwrap()).unwrap();
    let mut committing = engine.commit(prepared);
    assert!(!committing.turn(begin));
    engine.drain();
    assert!(!engine.is_drained());
    let sum = SystemClock.now() - begin;
    println!("the main thread had to do with it for {sum:?}");
    // Far less, on a machine that does nothing else.
    assert!(sum < 2 * TAKEN_WITHIN, "{sum:?}");
    let until = first.until();
    assert!(first.turn(until), "it is waited for no longer");
    assert_eq!(first.conclude().late, 1);
    drop(busy);
    // Not before the clock says so.
    while !committing.turn(Instant::ORIGIN) {
        supervise::wait::readable(&[std::os::fd::AsFd::as_fd(engine.bell())], Duration::from_secs(15)).unwrap();
        engine.bell().hush();
    }
    assert_eq!(committing.conclude().late, 0);
    engine.stop();
}

#[test]
fn who_has_said_that_it_took_a_configuration_is_not_called_late_though_nobody_has_listened_yet() {
    let Scene { engine, config, .. } = Scene::set();
    let committing = engine.commit(engine.prepare(&config, Judged::new(config.clone()).unwrap()).unwrap());
    // The only event thread does one thing after the other, and tells the bell of each.
    let (done, is_done) = std::sync::mpsc::channel();
    engine.processor.net()[0].run(move |_| done.send(()).unwrap()).unwrap();
    is_done.recv().unwrap();
    assert_eq!(committing.conclude().late, 0);
    engine.stop();
}

#[test]
fn the_verdict_of_a_reload_names_new_servers_that_do_not_answer_once_the_threads_say_so() {
    let Scene { engine, config, text, .. } = Scene::set();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let servers = format!("[\"127.0.0.1:1:1 one\", \"{}:1 silent\"]", silent.local_addr().unwrap());
    let new = config::set("test.yaml", &text, "kv.pools.alpha.servers", &servers).unwrap();
    let mut committing = engine.commit(engine.prepare(&config, Judged::new(new).unwrap()).unwrap());
    let begin = SystemClock.now();
    while !committing.turn(SystemClock.now()) {
        let left = committing.until().since(SystemClock.now());
        supervise::wait::readable(&[std::os::fd::AsFd::as_fd(engine.bell())], left).unwrap();
        engine.bell().hush();
    }
    println!("told after {:?}", SystemClock.now() - begin);
    let Committed { late, warnings } = committing.conclude();
    assert_eq!(late, 0);
    assert!(warnings.iter().any(|warning| warning.contains("the new server silent does not answer")), "{warnings:?}");
    engine.stop();
}

#[test]
fn a_configuration_that_takes_long_to_be_judged_keeps_nobody_waiting_and_a_newer_one_takes_its_place() {
    let Scene { engine, config, .. } = Scene::set();
    let ((until, ended), (began, has_begun)) = (std::sync::mpsc::channel::<()>(), std::sync::mpsc::channel());
    let ended = Arc::new(std::sync::Mutex::new(ended));
    let until_told = SystemClock.now() + Duration::from_secs(15);
    let slow = {
        let config = config.clone();
        move || {
            began.send(()).unwrap();
            let _ = ended.lock().unwrap().recv();
            Ok(config)
        }
    };
    let mut first = engine.judge(slow, until_told);
    has_begun.recv().unwrap();
    assert!(!first.turn(SystemClock.now()), "it is being judged");
    let never = engine.judge(|| panic!("nobody waits for it any more"), until_told);
    drop(never);
    let mut wrong = engine.judge(|| Err(Unprepared::Failed("no file".to_owned())), until_told);
    let mut newest = engine.judge(move || Ok(config), until_told);
    drop(until);
    for judged in [&mut first, &mut wrong, &mut newest] {
        while !judged.turn(SystemClock.now()) {
            supervise::wait::readable(&[std::os::fd::AsFd::as_fd(engine.bell())], Duration::from_secs(15)).unwrap();
            engine.bell().hush();
        }
    }
    assert!(first.into_said().pop().unwrap().is_ok());
    assert_eq!(wrong.into_said().pop().unwrap().unwrap_err().to_string(), "no file");
    assert!(newest.into_said().pop().unwrap().is_ok());
    engine.stop();
}

#[test]
fn a_configuration_is_judged_whatever_the_cache_has_to_do() {
    let Scene { engine, config, .. } = Scene::set();
    let busy = keep_at_chores(&engine);
    let until = SystemClock.now() + Duration::from_secs(15);
    let mut judged = engine.judge(move || Ok(config), until);
    while !judged.turn(SystemClock.now()) {
        supervise::wait::readable(&[std::os::fd::AsFd::as_fd(engine.bell())], Duration::from_secs(15)).unwrap();
        engine.bell().hush();
    }
    assert!(judged.into_said().pop().expect("it is not late").is_ok());
    drop(busy);
    engine.stop();
}

#[test]
fn the_end_of_an_engine_waits_for_no_chore() {
    let Scene { engine, .. } = Scene::set();
    let busy = keep_at_chores(&engine);
    let begin = SystemClock.now();
    engine.stop();
    let took = SystemClock.now() - begin;
    // Far less, on a machine that does nothing else.
    assert!(took < super::super::STOP_MAX, "{took:?}");
    drop(busy);
}
