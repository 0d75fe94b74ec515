//! What can be done to the processes, and what it may cost.

use std::fmt;

use crate::error::{Outcome, Trouble};

use super::tree::Role;

/// One kind of misfortune, or of planned change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// `kill -9` of these at the same moment.
    Kill(Vec<Role>),
    /// `kill -9` of manager, cop or both, by chance.
    Random,
    /// `kill -9` of the top process; another is started, and finds the tree alive.
    Stub,
    /// SIGSTOP.
    Stop(Role),
    /// One event thread of several does this for ever.
    Wedge(Wedge),
    /// A change that an operator asks for, again and again, under clients that must not notice.
    Planned(Planned),
    /// What must kill nobody, or cannot succeed.
    Hardship(Hardship),
}

/// What must kill nobody, or cannot succeed and must come right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hardship {
    /// Other processes want all processors there are; meanwhile cop and manager are stopped for a while.
    Busy,
    /// The server dies, and the next ones before they are ready.
    Crash,
    /// A reload of a file that is wrong.
    WrongFile,
    /// A restart with a port that is another's.
    PortTaken,
}

/// What an event thread does instead of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wedge {
    Spin,
    Block,
}

/// What an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Planned {
    Reload,
    Restart,
    /// USR2, with another program on disk.
    Upgrade,
}

/// How long something may take: what must be reached, and what is aimed at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Goal {
    pub(super) measure: Measure,
    pub(super) reach_ms: f64,
    pub(super) aim_ms: f64,
}

/// What is measured from the event on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// Until the first answer on a connection made after it.
    FirstNewAnswer,
    /// Until every process that was hit has a successor.
    AllBack,
}

impl Event {
    /// The event of that name, and how often, where that is said: `random*50`.
    pub(super) fn parse(text: &str) -> Outcome<(Self, Option<u32>)> {
        let (name, times) = match text.split_once('*') {
            Some((name, times)) => {
                let times = times.parse().ok().filter(|times| (1..=1000).contains(times));
                let wrong = || Trouble::Wrong(format!("{text:?}: how often is a number from 1 to 1000"));
                (name, Some(times.ok_or_else(wrong)?))
            }
            None => (text, None),
        };
        let event = match name {
            "random" => Self::Random,
            "stub" => Self::Stub,
            "spin" => Self::Wedge(Wedge::Spin),
            "block" => Self::Wedge(Wedge::Block),
            "reload" => Self::Planned(Planned::Reload),
            "restart" => Self::Planned(Planned::Restart),
            "upgrade" => Self::Planned(Planned::Upgrade),
            "busy" => Self::Hardship(Hardship::Busy),
            "crash" => Self::Hardship(Hardship::Crash),
            "wrong" => Self::Hardship(Hardship::WrongFile),
            "port" => Self::Hardship(Hardship::PortTaken),
            _ => match name.strip_prefix("stop-") {
                Some(role) => Self::Stop(Role::parse(role)?),
                None => Self::Kill(name.split('+').map(Role::parse).collect::<Outcome<_>>()?),
            },
        };
        Ok((event, times))
    }

    /// Whether the server goes down with it, so that what it had under way is excused.
    pub(super) fn takes_server(&self) -> bool {
        match self {
            Self::Kill(roles) => roles.contains(&Role::Server),
            Self::Stop(role) => *role == Role::Server,
            Self::Wedge(_) => true,
            Self::Hardship(hardship) => *hardship == Hardship::Crash,
            Self::Random | Self::Stub | Self::Planned(_) => false,
        }
    }

    /// What it may take; none where only failures count.
    pub(super) fn goal(&self, standby: bool) -> Option<Goal> {
        let goal = |measure, reach_ms, aim_ms| Some(Goal { measure, reach_ms, aim_ms });
        match self {
            Self::Kill(roles) if roles[..] == [Role::Server] => {
                goal(Measure::FirstNewAnswer, 150.0, if standby { 10.0 } else { 30.0 })
            }
            Self::Kill(roles) if self.takes_server() && !roles.contains(&Role::Cop) => {
                goal(Measure::FirstNewAnswer, 1_000.0, 200.0)
            }
            Self::Kill(_) if self.takes_server() => None,
            Self::Kill(_) | Self::Random => goal(Measure::AllBack, 2_000.0, 500.0),
            Self::Stop(Role::Server) => goal(Measure::FirstNewAnswer, 3_500.0, 2_000.0),
            Self::Wedge(_) => goal(Measure::AllBack, 3_500.0, 2_000.0),
            Self::Stub | Self::Stop(_) | Self::Planned(_) | Self::Hardship(_) => None,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(roles) => {
                let names: Vec<&str> = roles.iter().map(|role| role.name()).collect();
                write!(f, "kill -9 {}", names.join("+"))
            }
            Self::Random => f.write_str("kill -9 manager, cop or both"),
            Self::Stub => f.write_str("kill -9 top process"),
            Self::Stop(role) => write!(f, "stop {}", role.name()),
            Self::Wedge(Wedge::Spin) => f.write_str("one thread spins"),
            Self::Wedge(Wedge::Block) => f.write_str("one thread blocks"),
            Self::Planned(Planned::Reload) => f.write_str("reload"),
            Self::Planned(Planned::Restart) => f.write_str("restart"),
            Self::Planned(Planned::Upgrade) => f.write_str("USR2, other binary"),
            Self::Hardship(Hardship::Busy) => f.write_str("60 s beside 8 busy"),
            Self::Hardship(Hardship::Crash) => f.write_str("crash at 5 starts"),
            Self::Hardship(Hardship::WrongFile) => f.write_str("reload, wrong file"),
            Self::Hardship(Hardship::PortTaken) => f.write_str("restart, port taken"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_named_and_may_say_how_often() {
        assert_eq!(Event::parse("random*50").unwrap(), (Event::Random, Some(50)));
        assert_eq!(Event::parse("busy*1").unwrap(), (Event::Hardship(Hardship::Busy), Some(1)));
        assert_eq!(Event::parse("stop-cop").unwrap(), (Event::Stop(Role::Cop), None));
        let both = Event::Kill(vec![Role::Manager, Role::Server]);
        assert_eq!(Event::parse("manager+server").unwrap(), (both.clone(), None));
        assert!(both.takes_server() && both.goal(false).is_some());
        for wrong in ["nobody", "server*0", "server*x", "stop-nobody", ""] {
            assert!(Event::parse(wrong).is_err(), "{wrong}");
        }
    }
}
