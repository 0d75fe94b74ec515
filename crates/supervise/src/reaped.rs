//! How children ended, as one turn of a supervisor's loop learns it.
//!
//! A turn begins by [`reap`]ing whoever has ended. A process may also end just after that and be seen dead by its pidfd
//! in the same turn: whoever asks [`Reaped::of`] is told how that one ended, too. Without this a death in between would
//! have no cause, and a tree that cannot start no exit code.

use std::cell::RefCell;

use sys::process::{Exit, Pidfd};

/// The children that ended and were reaped in this turn.
#[derive(Debug, Default)]
pub struct Reaped(RefCell<Vec<(u32, Exit)>>);

/// Reaps every child that has ended.
#[must_use]
pub fn reap() -> Reaped {
    let mut reaped = Vec::new();
    loop {
        match sys::process::reap_any() {
            Ok(Some(ended)) => reaped.push(ended),
            Ok(None) => break,
            Err(error) => {
                crate::warn!("a child cannot be reaped: {error}");
                break;
            }
        }
    }
    Reaped(RefCell::new(reaped))
}

impl Reaped {
    /// How a process ended that is dead; only a parent is told, and only once.
    #[must_use]
    pub fn of(&self, process: &Pidfd) -> Option<Exit> {
        let known = self.0.borrow().iter().find(|(pid, _)| *pid == process.pid()).map(|(_, exit)| *exit);
        known.or_else(|| match process.reap() {
            Ok(exit) => {
                self.0.borrow_mut().extend(exit.map(|exit| (process.pid(), exit)));
                exit
            }
            Err(error) => {
                crate::warn!("process {} cannot be reaped: {error}", process.pid());
                None
            }
        })
    }

    /// As [`Reaped::of`], in words.
    #[must_use]
    pub fn cause(&self, process: &Pidfd) -> String {
        self.of(process).map_or_else(|| "ended (its parent knows how)".to_owned(), |exit| exit.to_string())
    }

    /// How one of those ended that were reaped already.
    #[must_use]
    pub fn of_pid(&self, pid: u32) -> Option<Exit> {
        self.0.borrow().iter().find(|(who, _)| *who == pid).map(|(_, exit)| *exit)
    }

    /// Everybody, with pid; those that were asked for, too.
    #[must_use]
    pub fn all(&self) -> Vec<(u32, Exit)> {
        self.0.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::fd::AsFd;
    use std::time::Duration;

    #[test]
    fn who_ends_after_the_others_were_reaped_is_told_of_in_the_same_turn() {
        let reaped = Reaped::default();
        let child = sys::process::spawn(&sys::process::Spawn {
            program: OsStr::new("/bin/sh"),
            arguments: ["sh", "-c", "exit 3"].map(OsStr::new).to_vec(),
            descriptors: vec![],
            standing: sys::process::Standing::OwnGroup,
        })
        .unwrap();
        crate::wait::readable(&[child.as_fd()], Duration::from_secs(10)).unwrap();
        assert_eq!(reaped.of_pid(child.pid()), None);
        assert_eq!(reaped.cause(&child), "exited with 3");
        assert_eq!(reaped.of(&child), Some(Exit::Code(3)), "however often it is asked");
        assert_eq!((reaped.of_pid(child.pid()), reaped.all().len()), (Some(Exit::Code(3)), 1));
        let somebody = Pidfd::open(std::process::id()).unwrap();
        assert_eq!(reaped.of(&somebody), None, "no child of ours");
    }
}
