//! The pulse of a server's event threads: one that hangs is found among many that work.
//!
//! A thread's beat says how often its loop has turned; a thread that is well turns several times a second, if only to
//! keep house. One whose beat stands still is asked where its time went, which the kernel knows: into the processor
//! (*busy*), into waiting for something (*blocked*), or into waiting for a processor (*slow*: the machine's fault). Only
//! the first two are proof of a hang. [`Pulse::feel`] is pure: samples and moments in, a finding out.
//!
//! Who is stopped as a whole is found by cop, by its heartbeats; a thread in the hands of a debugger is left alone. When
//! manager itself was not run, it begins to count anew: nobody's beat could be felt.

use std::path::Path;
use std::time::Duration;

use base::Instant;
use stats::{BeatPlace, BeatReading, BeatState};
use supervise::sign::BURNED_MIN;
use sys::shm::SharedWordsReader;
use sys::task::{self, Task};

/// How often pulses are felt.
pub(crate) const INTERVAL: Duration = Duration::from_millis(200);
/// Beyond the interval: manager was not run, and what it missed meanwhile says nothing.
const OWN_GAP: Duration = Duration::from_millis(400);

/// What is found of one thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Finding {
    /// It turns, or not for long enough that it would mean anything.
    Well,
    /// It stands still and is given no processor.
    Slow,
    /// It is in the hands of a debugger.
    Traced,
    /// It hangs: so much processor time went into one turn.
    Busy(Duration),
    /// It hangs: for so long it has been waiting for something in one turn.
    Blocked(Duration),
}

/// One thread, from sample to sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pulse {
    /// What its beat said, and since when it has said nothing else.
    beat: (u64, u64),
    since: Instant,
    /// The first sample in which it said so, and the latest.
    first: (Instant, Task),
    felt_at: Instant,
    task: Task,
    /// As far as its state in the samples tells: how long it was asleep.
    asleep: Duration,
}

impl Pulse {
    /// A first sample.
    pub(crate) const fn new(beat: (u64, u64), task: Task, now: Instant) -> Self {
        Self { beat, since: now, first: (now, task), felt_at: now, task, asleep: Duration::ZERO }
    }

    /// The next sample: what the beat says (turns, and when it last did), and where the thread's time went.
    pub(crate) fn feel(&mut self, beat: (u64, u64), task: Task, now: Instant, hang_timeout: Duration) -> Finding {
        let before = std::mem::replace(&mut self.task, task);
        let passed = now.since(std::mem::replace(&mut self.felt_at, now));
        if passed > INTERVAL + OWN_GAP || matches!(task.state, 'T' | 't') {
            *self = Self::new(beat, task, now);
            return if task.state == 't' { Finding::Traced } else { Finding::Well };
        }
        if beat != self.beat {
            // It may have begun to hang right after the sample before this one.
            let since = Instant::from_nanos(now.as_nanos().saturating_sub(nanos(passed)));
            *self = Self { since, ..Self::new(beat, task, now) };
            return Finding::Well;
        }
        let asleep = matches!(task.state, 'S' | 'D' | 'I');
        if asleep && task.ran == before.ran {
            self.asleep += passed;
        }
        if now.since(self.since) < hang_timeout {
            return Finding::Well;
        }
        let (first_at, first) = self.first;
        let burned = task.ran.saturating_sub(first.ran);
        if burned >= BURNED_MIN {
            return Finding::Busy(burned);
        }
        let known = now.since(first_at);
        // What it waited for a processor the kernel adds up when it gets one: of who is asleep now, all of it is known.
        let blocked = match (first.waited, task.waited) {
            (Some(then), Some(now)) => known.saturating_sub(burned).saturating_sub(now.saturating_sub(then)),
            _ => self.asleep,
        };
        // Who waits in turns for this and for a processor is slow.
        if asleep && blocked >= known / 4 * 3 { Finding::Blocked(blocked) } else { Finding::Slow }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A thread that is not well, and what is known of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Patient {
    /// The thread's name.
    pub(crate) thread: String,
    /// The kernel's number of it.
    pub(crate) id: u64,
    /// The continuation it runs.
    pub(crate) running: String,
    /// What is wrong.
    pub(crate) finding: Finding,
    /// How long its beat has stood still.
    pub(crate) still_for: Duration,
}

impl Patient {
    /// It hangs, and that is proven.
    pub(crate) const fn hangs(&self) -> bool {
        matches!(self.finding, Finding::Busy(_) | Finding::Blocked(_))
    }

    /// What is wrong, for an obituary.
    pub(crate) fn complaint(&self) -> String {
        let what = match self.finding {
            Finding::Well => "turned".to_owned(),
            Finding::Slow => "was given no processor".to_owned(),
            Finding::Traced => "was held by a debugger".to_owned(),
            Finding::Busy(burned) => format!("burned {burned:.1?} of processor time in one turn"),
            Finding::Blocked(blocked) => format!("waited {blocked:.1?} for something in one turn"),
        };
        let running = if self.running.is_empty() { String::new() } else { format!(", in \"{}\"", self.running) };
        format!("{}[{}] {what}{running}", self.thread, self.id)
    }
}

/// The pulses of one server.
#[derive(Debug, Default)]
pub(crate) struct Pulses {
    numbers: Option<(SharedWordsReader, BeatPlace)>,
    words: Vec<u64>,
    pulses: Vec<(u64, Pulse)>,
}

impl Pulses {
    /// Feels the pulse of every event thread of the server `pid`, whose numbers are in the file `numbers`. The answer is
    /// who is not well, the worst first; nobody when nothing can be felt.
    pub(crate) fn feel(&mut self, pid: u32, numbers: &Path, now: Instant, hang_timeout: Duration) -> Option<Patient> {
        let beats = self.beats(numbers)?;
        let mut worst: Option<Patient> = None;
        for beat in beats {
            let begun = matches!(beat.state, BeatState::Running | BeatState::Polling);
            let Some(task) = begun.then(|| task::read(pid, beat.thread_id)).flatten() else { continue };
            let said = (beat.turns, beat.at_nanos);
            let Some((_, pulse)) = self.pulses.iter_mut().find(|(id, _)| *id == beat.thread_id) else {
                self.pulses.push((beat.thread_id, Pulse::new(said, task, now)));
                continue;
            };
            let finding = pulse.feel(said, task, now, hang_timeout);
            if finding == Finding::Well {
                continue;
            }
            let patient = Patient {
                thread: beat.thread,
                id: beat.thread_id,
                running: beat.running.unwrap_or_default(),
                finding,
                still_for: now.since(pulse.since),
            };
            if worst.as_ref().is_none_or(|worst| patient.hangs() && !worst.hangs()) {
                worst = Some(patient);
            }
        }
        worst
    }

    fn beats(&mut self, numbers: &Path) -> Option<Vec<BeatReading>> {
        if self.numbers.is_none() {
            let reader = SharedWordsReader::open(numbers).ok()?;
            let mut header = [0; BeatPlace::HEADER_WORDS];
            reader.read_range(0, &mut header).ok().filter(|whole| *whole)?;
            let place = BeatPlace::find(&header)?;
            self.words = vec![0; place.words()];
            self.numbers = Some((reader, place));
        }
        let (reader, place) = self.numbers.as_ref()?;
        reader.read_range(place.first, &mut self.words).ok().filter(|whole| *whole)?;
        Some(place.read(&self.words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANG: Duration = Duration::from_secs(2);

    /// What a thread does between two samples: state, milliseconds it ran and waited for a processor, whether it turned.
    type Step = (char, u64, u64, bool);

    /// The findings of a thread that does the same in every interval for so long, with the kernel telling all or little.
    fn life(steps: &[(Step, u32)], precise: bool) -> Vec<Finding> {
        let mut now = Instant::from_nanos(1_000_000_000);
        let (mut ran, mut waited, mut turns) = (Duration::ZERO, Duration::ZERO, 0);
        let task = |state, ran, waited| Task { state, ran, waited: precise.then_some(waited) };
        let mut pulse = Pulse::new((0, 0), task('S', ran, waited), now);
        let mut findings = Vec::new();
        for ((state, ran_ms, waited_ms, turned), times) in steps {
            for _ in 0..*times {
                now = now + INTERVAL;
                ran += Duration::from_millis(*ran_ms);
                waited += Duration::from_millis(*waited_ms);
                turns += u64::from(*turned);
                findings.push(pulse.feel((turns, 0), task(*state, ran, waited), now, HANG));
            }
        }
        findings
    }

    const TURNS: (Step, u32) = (('S', 1, 0, true), 30);

    #[test]
    fn a_thread_that_spins_in_a_turn_is_proven_to_hang_within_the_timeout() {
        for precise in [true, false] {
            let findings = life(&[TURNS, (('R', 200, 0, false), 10)], precise);
            let first = findings.iter().position(|finding| *finding != Finding::Well).unwrap();
            assert!(matches!(findings[first], Finding::Busy(burned) if burned > Duration::from_secs(1)));
            assert_eq!(first - 30, 8, "counted from before the turn that was its last: two seconds");
        }
    }

    #[test]
    fn a_thread_that_is_blocked_in_a_turn_is_proven_to_hang_within_the_timeout() {
        for state in ['S', 'D'] {
            for precise in [true, false] {
                let findings = life(&[TURNS, ((state, 0, 0, false), 10)], precise);
                assert!(matches!(findings[38], Finding::Blocked(_)), "{:?}", findings[38]);
                assert!(findings[..38].iter().all(|finding| *finding == Finding::Well));
            }
        }
    }

    #[test]
    fn a_thread_that_a_busy_machine_gives_no_processor_is_slow_for_ever() {
        for precise in [true, false] {
            let findings = life(&[TURNS, (('R', 0, 200, false), 100)], precise);
            assert!(findings.iter().all(|finding| matches!(finding, Finding::Well | Finding::Slow)));
            assert_eq!(findings.last(), Some(&Finding::Slow));
        }
        // The kernel tells of a wait when it is over: a thread that got nothing for long and then falls asleep is not blocked.
        let starved = [(('R', 0, 0, false), 12), (('R', 1, 2_500, false), 1), (('S', 0, 0, false), 3)];
        let findings = life(&[&[TURNS], &starved[..]].concat(), true);
        assert!(findings.iter().all(|finding| matches!(finding, Finding::Well | Finding::Slow)), "{findings:?}");
        // Given a little, and asleep for a moment when we look: with the kernel's word we know better.
        let findings = life(&[TURNS, (('S', 1, 190, false), 100)], true);
        assert!(findings.iter().all(|finding| matches!(finding, Finding::Well | Finding::Slow)), "{findings:?}");
    }

    #[test]
    fn a_thread_that_turns_is_well_however_it_spends_its_time() {
        for step in [('R', 200, 0, true), ('D', 0, 0, true), ('S', 0, 0, true), ('R', 0, 200, true)] {
            assert!(life(&[(step, 100)], true).iter().all(|finding| *finding == Finding::Well));
        }
    }

    #[test]
    fn whoever_is_stopped_or_traced_is_left_alone_and_begins_anew_afterwards() {
        let findings = life(&[(('S', 0, 0, false), 9), (('T', 0, 0, false), 50), (('S', 0, 0, false), 9)], true);
        assert!(findings.iter().all(|finding| *finding == Finding::Well));
        let findings = life(&[(('R', 200, 0, false), 9), (('t', 0, 0, false), 50), (('R', 200, 0, false), 9)], true);
        assert!(findings.iter().all(|finding| matches!(finding, Finding::Well | Finding::Traced)));
        assert_eq!(findings[30], Finding::Traced);
    }

    #[test]
    fn our_own_absence_forgives() {
        let task = |ran| Task { state: 'R', ran: Duration::from_millis(ran), waited: Some(Duration::ZERO) };
        let begin = Instant::from_nanos(1);
        let mut pulse = Pulse::new((1, 1), task(0), begin);
        for round in 1..50 {
            let now = begin + Duration::from_secs(round * 10);
            assert_eq!(pulse.feel((1, 1), task(round * 10_000), now, HANG), Finding::Well);
        }
    }

    #[test]
    fn the_pulses_of_a_process_are_felt_by_the_numbers_it_writes() {
        let path = std::env::temp_dir().join(format!("beltway-pulse-{}", std::process::id()));
        let layout = stats::Registry::new().layout(2).unwrap();
        let words = sys::shm::SharedWords::create(&path, layout.words()).unwrap();
        let segment = layout.create(words, stats::Identity::default()).unwrap();
        let beat = segment.beat(1).unwrap();
        beat.begin(&stats::BeatName::new("[ET_NET 1]"), sys::thread::id());
        beat.enter(&stats::BeatName::new("a long story"));
        let pid = std::process::id();
        let (mut pulses, mut now) = (Pulses::default(), Instant::from_nanos(1));
        assert_eq!(Pulses::default().feel(pid, Path::new("/nowhere"), now, HANG), None);
        // The moments are made up, so that the thread seems to have waited or not to have run at all.
        let mut found = None;
        for _ in 0..40 {
            now = now + INTERVAL;
            found = pulses.feel(pid, &path, now, HANG);
        }
        let found = found.unwrap();
        assert_eq!((found.thread.as_str(), found.running.as_str()), ("[ET_NET 1]", "a long story"));
        assert!(found.complaint().ends_with("in \"a long story\""), "{}", found.complaint());
        beat.turn(7);
        assert_eq!(pulses.feel(pid, &path, now + INTERVAL, HANG), None);
        std::fs::remove_file(path).unwrap();
    }
}
