//! One thread of another process, as `/proc` shows it: what it does, and where its time went.

use std::time::Duration;

/// A thread at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Task {
    /// The letter of its state: R, S, D, T (stopped), t (traced), Z, X.
    pub state: char,
    /// Processor time it was given.
    pub ran: Duration,
    /// Time it was ready to run and was not; `None` when the kernel does not tell.
    pub waited: Option<Duration>,
}

/// Reads thread `id` of process `pid`; `None` when there is no such thread, or no `/proc`.
#[must_use]
pub fn read(pid: u32, id: u64) -> Option<Task> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/task/{id}/stat")).ok()?;
    let schedule = std::fs::read_to_string(format!("/proc/{pid}/task/{id}/schedstat")).ok();
    parse(&stat, schedule.as_deref())
}

fn parse(stat: &str, schedule: Option<&str>) -> Option<Task> {
    let stat = crate::process::parse_stat(stat)?;
    let precise = schedule.and_then(|text| {
        let mut numbers = text.split_ascii_whitespace().map(str::parse);
        let (ran, waited) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some((Duration::from_nanos(ran), Duration::from_nanos(waited)))
    });
    // A kernel that does not keep these numbers shows zeroes.
    let precise = precise.filter(|(ran, _)| !ran.is_zero() || stat.cpu_ticks == 0);
    let ticks = || Duration::from_millis(stat.cpu_ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second());
    Some(Task {
        state: stat.state,
        ran: precise.map_or_else(ticks, |(ran, _)| ran),
        waited: precise.map(|(_, waited)| waited),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threads_time_is_read_as_precisely_as_the_kernel_tells_it() {
        let stat = "7 (a) b) S 1 1 1 0 -1 0 0 0 0 0 3 4 0 0 20 0 1 0 99 0 0";
        let task = parse(stat, Some("1500000 2500000 9\n")).unwrap();
        assert_eq!((task.state, task.ran.as_micros(), task.waited.unwrap().as_micros()), ('S', 1_500, 2_500));
        for none in [None, Some("0 0 0\n"), Some("garbage"), Some("")] {
            let task = parse(stat, none).unwrap();
            assert_eq!((task.ran, task.waited), (Duration::from_millis(70), None), "{none:?}");
        }
        assert_eq!(parse("garbage", Some("1 2 3")), None);
        let own = read(std::process::id(), crate::thread::id()).unwrap();
        assert_eq!(own.state, 'R');
        assert_eq!(read(std::process::id(), 0), None);
    }
}
