//! From what cop observed to what it does about it. Pure: no clock, no process, no file.
//!
//! | manager            | server                         | verdict                                         |
//! | ---                | ---                            | ---                                             |
//! | anything           | anything, own clock stood still| forgive: nobody could be heard                  |
//! | stopping           | anything                       | nothing: deaths are no accident now             |
//! | silent, proven     | anything                       | kill manager; the server goes on without it     |
//! | silent, not proven | anything                       | report                                          |
//! | fine               | silent, proven                 | kill server; manager replaces it                |
//! | fine               | silent, not proven             | report                                          |
//!
//! *Silent* is without an answer for the hang timeout after having answered before: who never answered is starting, and
//! has manager's (or its watcher's) start timeout. *Proven* is silent although it had the processor, or sleeping or
//! stopped; a process that is ready to run and is given no processor time is *slow*, one held by a debugger is
//! *traced*: both are reported and never killed.

use std::time::Duration;

/// Whom it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Manager,
    Server,
}

/// What was observed of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sign {
    /// Since its last answer; `None`: it never answered, or is not there.
    pub(crate) silent_for: Option<Duration>,
    /// Questions unanswered since then.
    pub(crate) missed_in_a_row: u32,
    /// The letter of its state; `None`: unknown.
    pub(crate) state: Option<char>,
    /// It was given processor time since its last answer.
    pub(crate) had_processor: bool,
}

/// All that a verdict is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Observations {
    /// Our own clock stood still, or we were not run, for longer than a heartbeat may take.
    pub(crate) own_gap: bool,
    /// Manager said that an orderly stop has begun.
    pub(crate) stopping: bool,
    pub(crate) manager: Sign,
    pub(crate) server: Sign,
    /// Silence that counts.
    pub(crate) hang_timeout: Duration,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Fine,
    /// Begin counting anew.
    Forgive,
    /// Say so, and leave it alone.
    Report(Who, Excuse),
    /// It hangs, and this is the proof.
    Kill(Who, Proof),
}

/// Why a silent process is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excuse {
    /// Ready to run and not run.
    Slow,
    /// Held by a debugger.
    Traced,
    /// Nothing is known of it.
    Unknown,
}

/// Why a silent process is known to hang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// It had the processor and did not answer.
    Busy,
    /// It sleeps, or waits for the kernel.
    Blocked,
    /// It was stopped by a signal.
    Stopped,
}

impl Proof {
    /// As an obituary says it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "it had the processor and did not answer",
            Self::Blocked => "it slept or waited for the kernel and did not answer",
            Self::Stopped => "it was stopped by a signal",
        }
    }
}

/// Questions that must be unanswered, however short the hang timeout is.
const MISSED_MIN: u32 = 2;

/// Decides.
pub(crate) fn verdict(seen: &Observations) -> Verdict {
    if seen.own_gap {
        return Verdict::Forgive;
    }
    if seen.stopping {
        return Verdict::Fine;
    }
    let silent = |sign: &Sign| {
        sign.missed_in_a_row >= MISSED_MIN && sign.silent_for.is_some_and(|silence| silence >= seen.hang_timeout)
    };
    let judge = |who, sign: &Sign| match examine(sign) {
        Ok(proof) => Verdict::Kill(who, proof),
        Err(excuse) => Verdict::Report(who, excuse),
    };
    if silent(&seen.manager) {
        return judge(Who::Manager, &seen.manager);
    }
    // What fails while manager fails, too, may be the machine's fault: the server is judged only beside a good manager.
    let manager_is_fine = seen.manager.silent_for.is_some() && seen.manager.missed_in_a_row == 0;
    if manager_is_fine && silent(&seen.server) {
        return judge(Who::Server, &seen.server);
    }
    Verdict::Fine
}

fn examine(sign: &Sign) -> Result<Proof, Excuse> {
    match sign.state {
        Some('t') => Err(Excuse::Traced),
        Some('T') => Ok(Proof::Stopped),
        Some('R') if sign.had_processor => Ok(Proof::Busy),
        Some('R') => Err(Excuse::Slow),
        Some('S' | 'D' | 'I') => Ok(Proof::Blocked),
        _ => Err(Excuse::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANG: Duration = Duration::from_secs(2);
    const GOOD: Sign = Sign {
        silent_for: Some(Duration::from_millis(100)),
        missed_in_a_row: 0,
        state: Some('S'),
        had_processor: true,
    };

    fn silent(state: char, had_processor: bool) -> Sign {
        Sign { silent_for: Some(HANG), missed_in_a_row: 4, state: Some(state), had_processor }
    }

    fn seen(manager: Sign, server: Sign) -> Observations {
        Observations { own_gap: false, stopping: false, manager, server, hang_timeout: HANG }
    }

    #[test]
    fn each_state_of_a_silent_process_has_its_verdict() {
        let table = [
            ('R', true, Ok(Proof::Busy)),
            ('R', false, Err(Excuse::Slow)),
            ('S', true, Ok(Proof::Blocked)),
            ('S', false, Ok(Proof::Blocked)),
            ('D', false, Ok(Proof::Blocked)),
            ('T', false, Ok(Proof::Stopped)),
            ('T', true, Ok(Proof::Stopped)),
            ('t', false, Err(Excuse::Traced)),
            ('t', true, Err(Excuse::Traced)),
            ('Z', false, Err(Excuse::Unknown)),
        ];
        for (state, had_processor, expected) in table {
            for who in [Who::Manager, Who::Server] {
                let sign = silent(state, had_processor);
                let seen = if who == Who::Manager { seen(sign, GOOD) } else { seen(GOOD, sign) };
                let expected = match expected {
                    Ok(proof) => Verdict::Kill(who, proof),
                    Err(excuse) => Verdict::Report(who, excuse),
                };
                assert_eq!(verdict(&seen), expected, "{state} {had_processor} {who:?}");
            }
        }
        assert_eq!(
            verdict(&seen(GOOD, Sign { state: None, ..silent('S', true) })),
            Verdict::Report(Who::Server, Excuse::Unknown)
        );
    }

    #[test]
    fn a_silent_server_is_killed_only_beside_a_manager_that_answers() {
        let hung = silent('S', false);
        let bad_managers = [
            Sign { silent_for: None, ..GOOD },
            Sign { missed_in_a_row: 1, ..GOOD },
            Sign { missed_in_a_row: 9, silent_for: Some(HANG - Duration::from_millis(1)), ..GOOD },
        ];
        for manager in bad_managers {
            assert_eq!(verdict(&seen(manager, hung)), Verdict::Fine, "{manager:?}");
        }
        assert_eq!(verdict(&seen(hung, hung)), Verdict::Kill(Who::Manager, Proof::Blocked), "manager first");
        assert_eq!(verdict(&seen(GOOD, hung)), Verdict::Kill(Who::Server, Proof::Blocked));
    }

    #[test]
    fn silence_counts_only_from_the_timeout_and_with_two_questions_unanswered() {
        let hung = silent('S', false);
        let barely = Sign { silent_for: Some(HANG - Duration::from_nanos(1)), ..hung };
        assert_eq!(verdict(&seen(GOOD, barely)), Verdict::Fine);
        assert_eq!(verdict(&seen(GOOD, Sign { missed_in_a_row: MISSED_MIN - 1, ..hung })), Verdict::Fine);
        assert_eq!(verdict(&seen(GOOD, Sign { silent_for: None, ..hung })), Verdict::Fine, "it is starting");
        assert_eq!(verdict(&seen(GOOD, GOOD)), Verdict::Fine);
    }

    #[test]
    fn our_own_absence_forgives_everybody_and_an_orderly_stop_kills_nobody() {
        let hung = silent('S', true);
        for manager in [GOOD, hung] {
            for server in [GOOD, hung] {
                for stopping in [false, true] {
                    let gap = Observations { own_gap: true, stopping, ..seen(manager, server) };
                    assert_eq!(verdict(&gap), Verdict::Forgive);
                }
                let stopping = Observations { stopping: true, ..seen(manager, server) };
                assert_eq!(verdict(&stopping), Verdict::Fine);
            }
        }
    }

    /// Every combination of what can be seen of one process.
    fn signs() -> Vec<Sign> {
        let mut signs = Vec::new();
        let silences = [None, Some(Duration::ZERO), Some(HANG - Duration::from_nanos(1)), Some(HANG), Some(HANG * 100)];
        for silent_for in silences {
            for missed_in_a_row in [0, 1, MISSED_MIN, u32::MAX] {
                for state in [None, Some('R'), Some('S'), Some('D'), Some('T'), Some('t'), Some('Z'), Some('X')] {
                    for had_processor in [false, true] {
                        signs.push(Sign { silent_for, missed_in_a_row, state, had_processor });
                    }
                }
            }
        }
        signs
    }

    #[test]
    fn in_all_that_can_be_seen_only_the_proven_are_killed_and_the_server_only_beside_a_good_manager() {
        let proven = |sign: &Sign| {
            sign.silent_for.is_some_and(|silence| silence >= HANG)
                && sign.missed_in_a_row >= MISSED_MIN
                && (matches!(sign.state, Some('S' | 'D' | 'T')) || (sign.state == Some('R') && sign.had_processor))
        };
        let good = |sign: &Sign| sign.silent_for.is_some() && sign.missed_in_a_row == 0;
        let (signs, mut kills, mut seen_of_all) = (signs(), 0, 0_u32);
        for manager in &signs {
            for server in &signs {
                for (own_gap, stopping) in [(false, false), (false, true), (true, false), (true, true)] {
                    seen_of_all += 1;
                    let verdict = verdict(&Observations { own_gap, stopping, ..seen(*manager, *server) });
                    match verdict {
                        Verdict::Forgive => assert!(own_gap),
                        Verdict::Fine => assert!(!own_gap),
                        Verdict::Report(..) => assert!(!own_gap && !stopping),
                        Verdict::Kill(who, _) => {
                            kills += 1;
                            assert!(!own_gap && !stopping);
                            let (killed, beside) =
                                if who == Who::Manager { (manager, true) } else { (server, good(manager)) };
                            assert!(proven(killed) && beside, "{who:?}: {manager:?} {server:?}");
                        }
                    }
                    let must_die = !own_gap && !stopping && (proven(manager) || (good(manager) && proven(server)));
                    assert_eq!(must_die, matches!(verdict, Verdict::Kill(..)), "{manager:?} {server:?}");
                }
            }
        }
        assert_eq!(seen_of_all, 4 * u32::try_from(signs.len() * signs.len()).unwrap());
        assert!(kills > 0);
    }
}
