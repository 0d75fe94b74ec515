//! Counts of kernel and user events in other processes, by `perf stat` during a run of its own.
//!
//! perf starts with counting disabled and is told through a pair of named pipes when to begin and to end, so that
//! nothing of its own start is counted. Where the kernel does not let us, there is no number.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode};

use crate::error::{Doing, Outcome, Trouble};
use crate::lab::{self, Lab};
use crate::leash::{Leash, LeashedCommand};

/// Bound of each answer from perf.
const PATIENCE_S: i64 = 10;

/// How often each of `events` came in `pids` while `load` ran, with what that answered. An event that was not counted is
/// left out.
pub(crate) fn stat<T>(
    lab: &Lab,
    pids: &[u32],
    events: &[String],
    load: impl FnOnce() -> Outcome<T>,
) -> Outcome<(Vec<(String, f64)>, T)> {
    let program = lab::find_program("perf")?;
    let room = lab.room("perf")?;
    let (control, ack) = (room.join("control"), room.join("ack"));
    for fifo in [&control, &ack] {
        rustix::fs::mknodat(CWD, fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).doing(fifo.display())?;
    }
    let output = room.join("counts");
    let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
    let command = LeashedCommand::new(program.display().to_string(), lab.load_core)
        .args(["stat", "-x", ",", "-D", "-1", "-o", &output.display().to_string()])
        .args(["--control", &format!("fifo:{},{}", control.display(), ack.display())])
        .args(["-e", &events.join(","), "-p", &pids.join(",")]);
    let log = room.join("log");
    let mut leash = Leash::spawn(&command, &log, &log)?;
    // Both ends open for both directions: opening never blocks, whoever comes first.
    let mut control = open_fifo(&control)?;
    let mut ack = open_fifo(&ack)?;
    tell(&mut control, &mut ack, "enable").map_err(|trouble| {
        Trouble::Wrong(format!("{trouble}: {}", fs::read_to_string(&log).unwrap_or_default().trim()))
    })?;
    let loaded = load()?;
    tell(&mut control, &mut ack, "disable")?;
    leash.interrupt();
    leash.wait(Duration::from_secs(20))?;
    let text = fs::read_to_string(&output).doing(output.display())?;
    let _ = fs::remove_dir_all(&room);
    Ok((parse(&text), loaded))
}

fn open_fifo(path: &PathBuf) -> Outcome<File> {
    OpenOptions::new().read(true).write(true).open(path).doing(path.display())
}

/// Sends a word and waits for perf's `ack`.
fn tell(control: &mut File, ack: &mut File, word: &str) -> Outcome<()> {
    control.write_all(format!("{word}\n").as_bytes()).doing("telling perf")?;
    let mut heard = Vec::new();
    while !heard.windows(3).any(|window| window == b"ack") {
        let bound = Timespec { tv_sec: PATIENCE_S, tv_nsec: 0 };
        let mut fds = [PollFd::new(ack, PollFlags::IN)];
        if poll(&mut fds, Some(&bound)).doing("waiting for perf")? == 0 {
            return Err(Trouble::Wrong(format!("perf does not answer to {word}")));
        }
        let mut piece = [0_u8; 16];
        let count = ack.read(&mut piece).doing("reading from perf")?;
        heard.extend_from_slice(&piece[..count]);
    }
    Ok(())
}

/// perf's `value,unit,event,…` lines.
fn parse(text: &str) -> Vec<(String, f64)> {
    let counted = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let value = fields.first()?.parse::<f64>().ok()?;
        Some(((*fields.get(2)?).to_owned(), value))
    };
    text.lines().filter_map(counted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_counted_is_left_out() {
        let text =
            "# started\n\n2100,,raw_syscalls:sys_enter,1,100.00,,\n<not counted>,,syscalls:sys_enter_read,0,1,,\n";
        assert_eq!(parse(text), [("raw_syscalls:sys_enter".to_owned(), 2100.0)]);
    }
}
