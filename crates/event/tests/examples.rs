//! The three examples of `docs/event-system.md` run to their end and say what the page says.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test: what fails is to end it")]

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Cargo builds a package's examples, beside its tests, unless it was asked for one test alone.
fn built(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    let path = path.join("examples").join(name);
    if !path.exists() {
        let status = Command::new(env!("CARGO")).args(["build", "-q", "-p", "beltway-event", "--examples"]).status();
        assert!(status.unwrap().success());
    }
    path
}

fn run(name: &str) -> String {
    let mut child = Command::new(built(name)).stdout(Stdio::piped()).spawn().unwrap();
    let mut waited = Duration::ZERO;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if waited > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{name} did not end");
        }
        let step = Duration::from_millis(10);
        std::thread::sleep(step);
        waited += step;
    };
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(status.success(), "{name}: {status}: {text}");
    text
}

#[test]
fn the_timer_ticks_five_times_and_ends() {
    let text = run("timer");
    assert_eq!(text.matches("tick ").count(), 5, "{text}");
    assert!(text.contains("slept until"), "{text}");
}

#[test]
fn the_echo_server_answers_its_client() {
    assert!(run("echo").contains("answered: hello, event system"));
}

#[test]
fn the_fan_out_has_nine_results_and_one_that_is_late() {
    let text = run("fanout");
    assert!(text.contains("10 pieces"), "{text}");
    assert!(text.contains("7: the background work was not done in time"), "{text}");
    assert_eq!(text.matches(": ").count(), 10, "{text}");
}
