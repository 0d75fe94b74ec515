//! Planned changes, one after the other: reload, restart, another program; under load, with clients that idle and a long
//! download, none of which may notice.

use std::time::Duration;

use base::{Clock, SystemClock};
use rustix::process::Signal;

use crate::error::{Outcome, Trouble};
use crate::lab;
use crate::load::paced::Paced;

use super::blow::{RETURN_PATIENCE, millis};
use super::event::Planned;
use super::judge;
use super::report::{Repetition, Series};
use super::tree::{self, Tree};
use super::witness::Witnesses;

/// Load between two changes.
const BETWEEN: Duration = Duration::from_millis(200);

/// `times` changes in a row.
pub(super) fn run(
    planned: Planned,
    times: u32,
    tree: &Tree<'_>,
    clients: &Paced,
    witnesses: Witnesses,
    series: &mut Series,
) -> Outcome<()> {
    for number in 0..times {
        clients.begin_anew(SystemClock.now());
        series.repetitions.push(change(planned, number, tree, clients)?);
    }
    lab::wait_until("the end of the download", Duration::from_secs(120), || witnesses.is_downloaded())?;
    let testimony = witnesses.hear();
    series.idle = testimony.idle;
    series.resets = testimony.resets;
    match testimony.download {
        Some(why) => Err(Trouble::Wrong(why)),
        None => Ok(()),
    }
}

fn change(planned: Planned, number: u32, tree: &Tree<'_>, clients: &Paced) -> Outcome<Repetition> {
    let clock = SystemClock;
    let lost = || Trouble::Wrong("no server serves".to_owned());
    let (generation, pid) = tree.serving().ok_or_else(lost)?;
    let begun = clock.now();
    match planned {
        Planned::Reload => {
            tree.configure(&format!("round{number}-of-{}", std::process::id()))?;
            expect_applied(&tree.ask(&["reload", "--json"])?)?;
        }
        Planned::Restart => expect_applied(&tree.ask(&["restart", "--json"])?)?,
        Planned::Upgrade => {
            tree.replace_program()?;
            tree::send(tree.top()?, Signal::USR2)?;
        }
    }
    lab::wait_until("the change to be in force", RETURN_PATIENCE, || match (planned, tree.serving()) {
        (_, None) => false,
        (Planned::Reload, Some((now, serves))) => (now, serves) == (generation, pid),
        (Planned::Restart, Some((now, _))) => now > generation,
        (Planned::Upgrade, Some((now, serves))) => now > generation && tree.runs_program_on_disk(serves),
    })?;
    let back = clock.now();
    std::thread::sleep(BETWEEN);
    let seen = clients.seen();
    Ok(Repetition {
        toll: judge::judge(&seen.failures, begun, back, false),
        first_new_answer_ms: seen.first_new_answer.map_or(f64::NAN, |at| millis(at - begun)),
        longest_gap_ms: millis(seen.longest_gap),
        own_stall_ms: millis(seen.longest_stall),
        back_ms: millis(back - begun),
        answers: seen.answers,
        complaint: None,
    })
}

fn expect_applied(answer: &str) -> Outcome<()> {
    let verdict: serde_json::Value = serde_json::from_str(answer).unwrap_or_default();
    if verdict["outcome"] == "applied" { Ok(()) } else { Err(Trouble::Wrong(format!("the verdict is {answer}"))) }
}
