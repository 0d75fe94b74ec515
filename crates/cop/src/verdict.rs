//! From what cop observed to what it does about it. Pure: no clock, no process, no file.
//!
//! | manager              | server                            | verdict                                        |
//! | ---                  | ---                               | ---                                            |
//! | gone                 | anything                          | start manager; the server goes on without it   |
//! | flapping             | anything                          | report; it is not yet time for another         |
//! | anything that lives  | anything, own clock stood still   | forgive: nobody could be heard                 |
//! | stopping             | anything                          | nothing: deaths are no accident now            |
//! | silent, proven       | anything                          | kill manager; the server goes on without it    |
//! | silent, not proven   | anything                          | report                                         |
//! | not heard of lately  | anything                          | nothing: it may be the machine                 |
//! | fine                 | silent, proven                    | kill server; manager replaces it               |
//! | fine                 | silent, not proven                | report                                         |
//! | fine                 | fine, its page silent, proven     | kill server                                    |
//! | fine                 | fine, its page silent, not proven | report                                         |
//!
//! What *silent* and *proven* mean is said in `supervise::sign`. A *page* is silent when questions got a connection and no
//! answer; that is proof when every event thread has turned often enough meanwhile to have taken it. *Flapping* is who died
//! before it was ready again and again: those deaths alone count, and make the pause before the next start grow.

use std::time::Duration;

use supervise::sign::{Excuse, MISSED_MIN, Proof, Sign};
use supervise::watch::Sight;

/// Whom it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Manager,
    Server,
}

/// What was observed of the server's own page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageSign {
    /// Since its last answer; `None`: it never answered, or there is none.
    pub(crate) silent_for: Option<Duration>,
    /// Questions that had a connection and got no answer since then.
    pub(crate) unanswered: u32,
    /// Every event thread has turned often enough since then to have come to them.
    pub(crate) turned: bool,
    /// It has as many connections as it may.
    pub(crate) full: bool,
}

/// All that a verdict is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Observations {
    /// Our own clock stood still, or we were not run, for longer than a heartbeat may take.
    pub(crate) own_gap: bool,
    /// Manager said that an orderly stop has begun.
    pub(crate) stopping: bool,
    /// What manager's lease says.
    pub(crate) lease: Sight,
    pub(crate) manager: Sign,
    pub(crate) server: Sign,
    pub(crate) page: PageSign,
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
    /// Start manager.
    Start,
    /// Manager dies before it is ready, again and again: say so, and wait.
    Wait,
    /// Say so, and leave it alone.
    Report(Who, Excuse),
    /// It hangs, and this is the proof.
    Kill(Who, Proof),
}

/// Decides.
pub(crate) fn verdict(seen: &Observations) -> Verdict {
    match seen.lease {
        Sight::Gone => return Verdict::Start,
        Sight::Flapping => return Verdict::Wait,
        Sight::Coming | Sight::Lives if seen.own_gap => return Verdict::Forgive,
        Sight::Coming => return Verdict::Fine,
        Sight::Lives => {}
    }
    if seen.stopping {
        return Verdict::Fine;
    }
    let judge = |who, sign: &Sign| match sign.examine() {
        Ok(proof) => Verdict::Kill(who, proof),
        Err(excuse) => Verdict::Report(who, excuse),
    };
    if seen.manager.is_silent(seen.hang_timeout) {
        return judge(Who::Manager, &seen.manager);
    }
    // What fails while manager fails, too, may be the machine's fault: the server is judged only beside a good manager.
    if !seen.manager.is_good() {
        return Verdict::Fine;
    }
    if seen.server.is_silent(seen.hang_timeout) {
        return judge(Who::Server, &seen.server);
    }
    if seen.server.is_good() && seen.page.is_silent(seen.hang_timeout) {
        let deaf = seen.page.turned && !seen.page.full;
        return if deaf { Verdict::Kill(Who::Server, Proof::Deaf) } else { Verdict::Report(Who::Server, Excuse::Slow) };
    }
    Verdict::Fine
}

impl PageSign {
    /// Nobody is asked.
    pub(crate) const NOT_THERE: Self = Self { silent_for: None, unanswered: 0, turned: false, full: false };

    fn is_silent(&self, hang_timeout: Duration) -> bool {
        self.unanswered >= MISSED_MIN && self.silent_for.is_some_and(|silence| silence >= hang_timeout)
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
        let (lease, page) = (Sight::Lives, PageSign::NOT_THERE);
        Observations { own_gap: false, stopping: false, lease, manager, server, page, hang_timeout: HANG }
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
        assert_eq!(verdict(&seen(GOOD, silent('R', false))), Verdict::Report(Who::Server, Excuse::Slow));
        assert_eq!(verdict(&seen(GOOD, silent('t', true))), Verdict::Report(Who::Server, Excuse::Traced));
    }

    #[test]
    fn whoever_is_gone_is_started_whatever_else_is_seen_and_who_flaps_is_waited_for() {
        for own_gap in [false, true] {
            for stopping in [false, true] {
                let with = |lease| Observations { own_gap, stopping, lease, ..seen(Sign::NOT_THERE, GOOD) };
                assert_eq!(verdict(&with(Sight::Gone)), Verdict::Start);
                assert_eq!(verdict(&with(Sight::Flapping)), Verdict::Wait);
            }
        }
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

    #[test]
    fn a_page_that_nobody_answers_is_proof_only_when_the_threads_turned_and_there_was_room() {
        let page = PageSign { silent_for: Some(HANG), unanswered: 3, turned: true, full: false };
        let with = |page| verdict(&Observations { page, ..seen(GOOD, GOOD) });
        assert_eq!(with(page), Verdict::Kill(Who::Server, Proof::Deaf));
        for excused in [PageSign { turned: false, ..page }, PageSign { full: true, ..page }] {
            assert_eq!(with(excused), Verdict::Report(Who::Server, Excuse::Slow), "{excused:?}");
        }
        for early in [
            PageSign { unanswered: 1, ..page },
            PageSign { silent_for: None, ..page },
            PageSign { silent_for: Some(HANG / 2), ..page },
        ] {
            assert_eq!(with(early), Verdict::Fine, "{early:?}");
        }
    }

    /// Every combination of what can be seen of one process.
    fn signs() -> Vec<Sign> {
        let mut signs = Vec::new();
        for silent_for in
            [None, Some(Duration::ZERO), Some(HANG - Duration::from_nanos(1)), Some(HANG), Some(HANG * 100)]
        {
            for missed_in_a_row in [0, 1, MISSED_MIN, u32::MAX] {
                for state in [None, Some('R'), Some('S'), Some('D'), Some('T'), Some('t'), Some('Z')] {
                    for had_processor in [false, true] {
                        signs.push(Sign { silent_for, missed_in_a_row, state, had_processor });
                    }
                }
            }
        }
        signs
    }

    /// And of its page.
    fn pages() -> Vec<PageSign> {
        let mut pages = vec![PageSign::NOT_THERE];
        for silent_for in [Some(Duration::ZERO), Some(HANG)] {
            for unanswered in [0, 1, MISSED_MIN] {
                for (turned, full) in [(false, false), (false, true), (true, false), (true, true)] {
                    pages.push(PageSign { silent_for, unanswered, turned, full });
                }
            }
        }
        pages
    }

    fn proven(sign: &Sign) -> bool {
        sign.silent_for.is_some_and(|silence| silence >= HANG)
            && sign.missed_in_a_row >= MISSED_MIN
            && (matches!(sign.state, Some('S' | 'D' | 'T')) || (sign.state == Some('R') && sign.had_processor))
    }

    fn is_deaf(page: &PageSign) -> bool {
        page.silent_for == Some(HANG) && page.unanswered >= MISSED_MIN && page.turned && !page.full
    }

    #[test]
    fn in_all_that_can_be_seen_only_the_proven_are_killed_and_the_server_only_beside_a_good_manager() {
        let good = |sign: &Sign| sign.silent_for.is_some() && sign.missed_in_a_row == 0;
        let (signs, pages) = (signs(), pages());
        let leases = [Sight::Lives, Sight::Coming, Sight::Flapping, Sight::Gone];
        let (mut kills, mut seen_of_all) = (0_u64, 0_u64);
        for (manager, server) in signs.iter().flat_map(|manager| signs.iter().map(move |server| (manager, server))) {
            // Each page beside the pairs for which it can matter, and one of them beside all.
            let pages = if good(manager) && good(server) { &pages[..] } else { &pages[pages.len() - 2..] };
            for (page, lease) in pages.iter().flat_map(|page| leases.map(|lease| (page, lease))) {
                for (own_gap, stopping) in [(false, false), (false, true), (true, false), (true, true)] {
                    seen_of_all += 1;
                    let all = Observations { own_gap, stopping, lease, page: *page, ..seen(*manager, *server) };
                    let verdict = verdict(&all);
                    let judged = lease == Sight::Lives && !own_gap && !stopping;
                    match verdict {
                        Verdict::Start => assert_eq!(lease, Sight::Gone),
                        Verdict::Wait => assert_eq!(lease, Sight::Flapping),
                        Verdict::Forgive => assert!(own_gap && matches!(lease, Sight::Lives | Sight::Coming)),
                        Verdict::Fine => assert!(!own_gap),
                        Verdict::Report(..) => assert!(judged, "{all:?}"),
                        Verdict::Kill(who, proof) => {
                            kills += 1;
                            let right = match (who, proof) {
                                (Who::Manager, _) => proven(manager),
                                (Who::Server, Proof::Deaf) => good(manager) && good(server) && is_deaf(page),
                                (Who::Server, _) => good(manager) && proven(server),
                            };
                            assert!(judged && right, "{who:?}: {all:?}");
                        }
                    }
                    let of_server = proven(server) || (good(server) && is_deaf(page));
                    let must_die = judged && (proven(manager) || (good(manager) && of_server));
                    assert_eq!(must_die, matches!(verdict, Verdict::Kill(..)), "{all:?}");
                }
            }
        }
        assert!(seen_of_all > 2_000_000 && kills > 1_000, "{seen_of_all} {kills}");
    }
}
