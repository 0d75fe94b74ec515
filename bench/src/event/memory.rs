//! Resident memory of many futures that wait.

use std::fs;
use std::future::pending;
use std::hint::black_box;
use std::process::Command;

use super::thread;
use crate::error::{Doing, Outcome, Trouble};

const FUTURES: u32 = 200_000;
/// Futures that one turn starts.
const A_TURN: u32 = 1_000;
/// Bytes each future holds over its wait.
const SIZE: usize = 304;

/// Whose futures.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Whose {
    /// This project's.
    Ours,
    /// Tokio's.
    Tokio,
}

/// In a process of its own: memory that was used and freed before would be used again, and not be seen.
pub(super) fn beyond_size(whose: Whose) -> Outcome<f64> {
    let program = std::env::current_exe().doing("this program")?;
    let name = match whose {
        Whose::Ours => "ours",
        Whose::Tokio => "tokio",
    };
    let output = Command::new(program)
        .args(["event", "--memory", name])
        // Huge pages would count memory that nobody touched.
        .env("MIMALLOC_ALLOW_THP", "0")
        .output()
        .doing("this program again")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| Trouble::Wrong(format!("{text} {}", String::from_utf8_lossy(&output.stderr))))
}

/// In this process.
pub(super) fn here(whose: Whose) -> Outcome<f64> {
    match whose {
        Whose::Ours => ours(),
        Whose::Tokio => tokio_tasks(),
    }
}

async fn idle() {
    let held = [1_u8; SIZE];
    pending::<()>().await;
    black_box(&held);
}

fn resident() -> Outcome<f64> {
    let text = fs::read_to_string("/proc/self/smaps_rollup").doing("/proc/self/smaps_rollup")?;
    let kib = text.lines().find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    kib.map(|kib: f64| kib * 1024.0).ok_or_else(|| Trouble::Wrong("smaps_rollup without Rss".to_owned()))
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred bytes")]
fn beyond(before: f64, after: f64) -> f64 {
    (after - before) / f64::from(FUTURES) - size_of_val(&idle()) as f64
}

fn ours() -> Outcome<f64> {
    let thread = thread()?;
    let before = resident()?;
    for _ in 0..FUTURES / A_TURN {
        for _ in 0..A_TURN {
            drop(thread.spawn("idle", idle()));
        }
        thread.turn(false).doing("a turn")?;
    }
    let after = resident()?;
    Ok(beyond(before, after))
}

fn tokio_tasks() -> Outcome<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().doing("tokio's runtime")?;
    let tasks = tokio::task::LocalSet::new();
    let before = resident()?;
    tasks.block_on(&runtime, async {
        for _ in 0..FUTURES / A_TURN {
            for _ in 0..A_TURN {
                drop(tokio::task::spawn_local(idle()));
            }
            for _ in 0..A_TURN / 32 {
                tokio::task::yield_now().await;
            }
        }
    });
    let after = resident()?;
    Ok(beyond(before, after))
}
