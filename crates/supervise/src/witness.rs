//! What the threads of a process did, told by itself: asked while it hangs, or left behind when it died of a fault.
//!
//! Every role [`begin`]s a page of `sys::witness` when it has its lease. Who is about to end a process that hangs asks it
//! first ([`hear`]), ends it, and gives the addresses their names afterwards ([`Evidence::tell`]): names take a while, and
//! nobody is served meanwhile. Who finds a process dead reads what it died of ([`fault`]).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::{Clock, SystemClock};
use sys::process::{Exit, Pidfd};
use sys::witness::{self, FileIdentity, Module, Testimony};

use crate::directory;
use crate::obituary::{Obituary, ThreadAccount};
use crate::symbols;

/// How long one thread may take to say where it is.
const ANSWER_WITHIN: Duration = Duration::from_millis(50);
/// How long all may take together.
const ANSWERS_WITHIN: Duration = Duration::from_millis(200);

/// The page of this process: removed with this, so that it stays behind only when the process dies.
#[derive(Debug)]
pub struct OwnPage(PathBuf);

/// Makes this process a witness of itself. Without that it runs as well.
#[must_use]
pub fn begin(page: &Path) -> OwnPage {
    if let Err(error) = witness::install(page) {
        crate::warn!("{}: {error}: where this process dies of a fault will not be known", page.display());
    }
    OwnPage(page.to_owned())
}

impl Drop for OwnPage {
    fn drop(&mut self) {
        if let Err(error) = directory::remove(&self.0) {
            crate::warn!("{} is left behind: {error}", self.0.display());
        }
    }
}

/// The stacks of a process that lives, as addresses.
#[derive(Debug, Default)]
pub struct Evidence {
    stacks: Vec<(u64, Vec<u64>)>,
    modules: Vec<Module>,
    program: Option<File>,
}

/// Asks the threads of a process where they are: those of `threads` that can answer, in that order, within a bound.
#[must_use]
pub fn hear(page: &Path, process: &Pidfd, threads: &[ThreadAccount]) -> Evidence {
    let Ok(testimony) = Testimony::open(page) else { return Evidence::default() };
    let deadline = SystemClock.now() + ANSWERS_WITHIN;
    let mut stacks = Vec::new();
    // Who is stopped, or asleep so deeply that no signal is taken, cannot answer.
    for thread in threads.iter().filter(|thread| matches!(thread.state.as_str(), "R" | "S" | "I")) {
        let left = deadline.since(SystemClock.now());
        if left.is_zero() {
            break;
        }
        if let Some(frames) = testimony.ask(process, thread.id, left.min(ANSWER_WITHIN)) {
            stacks.push((thread.id, frames));
        }
    }
    Evidence {
        stacks,
        modules: testimony.modules(),
        // Readable by who may signal it, for as long as it lives.
        program: File::open(format!("/proc/{}/exe", process.pid())).ok(),
    }
}

impl Evidence {
    /// Puts the stacks, with names, to the threads.
    pub fn tell(self, threads: &mut [ThreadAccount]) {
        for (id, frames) in &self.stacks {
            if let Some(thread) = threads.iter_mut().find(|thread| thread.id == *id) {
                thread.frames = name(frames, &self.modules, self.program.as_ref());
            }
        }
    }
}

/// What a process died of by its own account: in words, and the thread. `None` when it was no fault.
#[must_use]
pub fn fault(page: &Path) -> Option<(String, ThreadAccount)> {
    let testimony = Testimony::open(page).ok()?;
    let fault = testimony.fault()?;
    // Names are those of its own program: of ours, when it is the same.
    let ours = File::open("/proc/self/exe").ok();
    let same = |file: &File| FileIdentity::of(file).is_ok_and(|ours| ours == testimony.executable());
    let program = ours.filter(same);
    let signal = Exit::Signal { number: fault.signal, core: false }.to_string();
    let signal = signal.trim_start_matches("ended by ");
    let cause = match fault.code {
        1.. => format!("fault: {signal} at address {:#x}", fault.address),
        _ if testimony.pid() == Some(fault.address) => format!("fault: {signal} by its own doing"),
        _ => format!("{signal} sent by process {}", fault.address),
    };
    let thread = ThreadAccount {
        id: fault.thread,
        frames: name(&fault.frames, &testimony.modules(), program.as_ref()),
        ..ThreadAccount::default()
    };
    Some((cause, thread))
}

/// Adds to an account of a death what the dead itself said of it.
pub fn add_fault(page: &Path, death: &mut Obituary) {
    let Some((fault, told)) = fault(page) else { return };
    let place = death.threads.iter().position(|thread| thread.id == told.id).unwrap_or_else(|| {
        death.threads.push(ThreadAccount { id: told.id, ..ThreadAccount::default() });
        death.threads.len() - 1
    });
    let ThreadAccount { name, running, .. } = &death.threads[place];
    let whose = if name.is_empty() { format!("thread {}", told.id) } else { name.clone() };
    let within = if running.is_empty() { String::new() } else { format!(", in \"{running}\"") };
    let known = if death.cause.is_empty() { String::new() } else { format!("; {}", death.cause) };
    death.cause = format!("{fault}, {whose}{within}{known}");
    death.threads[place].frames = told.frames;
    death.threads.swap(0, place);
}

/// The names of addresses: of functions in the program, and of files elsewhere.
fn name(frames: &[u64], modules: &[Module], program: Option<&File>) -> Vec<String> {
    let placed: Vec<_> = frames
        .iter()
        .enumerate()
        .map(|(index, &address)| {
            // A return address is behind its call, which may be a function's last.
            let address = if index == 0 { address } else { address.saturating_sub(1) };
            let module = modules.iter().position(|module| (module.start..module.end).contains(&address));
            (address, module)
        })
        .collect();
    let offset = |address: u64, module: &Module| address - module.start + module.offset;
    let ours: Vec<u64> =
        placed.iter().filter(|(_, module)| *module == Some(0)).map(|(a, _)| offset(*a, &modules[0])).collect();
    let mut places = program.map(|program| symbols::places(program, &ours)).unwrap_or_default().into_iter();
    placed
        .into_iter()
        .map(|(address, module)| {
            let Some((index, module)) = module.and_then(|index| Some((index, modules.get(index)?))) else {
                return format!("{address:#x}");
            };
            let place = if index == 0 { places.next() } else { None };
            match place {
                Some(symbols::Place { address, function: Some(function) }) => {
                    format!("{function} ({}+{address:#x})", module.name)
                }
                Some(symbols::Place { address, function: None }) => format!("{}+{address:#x}", module.name),
                None => format!("{}+{:#x}", module.name, offset(address, module)),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has a name and a frame of its own, however much is inlined: something is left to do when `hear` comes back.
    #[inline(never)]
    fn heard_from_here(page: &Path, own: &Pidfd, threads: &[ThreadAccount]) -> Evidence {
        std::hint::black_box(hear(page, own, threads))
    }

    #[test]
    fn a_thread_that_is_asked_is_told_of_by_the_names_of_its_functions() {
        let page = std::env::temp_dir().join(format!("beltway-evidence-{}", std::process::id()));
        assert!(fault(&page).is_none());
        let begun = begin(&page);
        let own = Pidfd::open(std::process::id()).unwrap();
        let account = |id: u64, state: &str| ThreadAccount { id, state: state.to_owned(), ..ThreadAccount::default() };
        let mut threads = [account(sys::thread::id(), "R"), account(sys::thread::id(), "D")];
        let evidence = heard_from_here(&page, &own, &threads);
        assert_eq!(evidence.stacks.len(), 1, "who is deaf is not asked");
        evidence.tell(&mut threads);
        assert!(threads[0].frames.iter().any(|frame| frame.contains("heard_from_here")), "{:#?}", threads[0].frames);
        assert!(fault(&page).is_none(), "nobody died");
        drop(begun);
        assert!(!page.exists());
    }

    #[test]
    fn what_has_no_name_is_told_by_its_address() {
        let module = |start, name: &str| Module { start, end: start + 0x100, offset: 0x40, name: name.to_owned() };
        let modules = [module(0x1000, "beltway"), module(0x2000, "libc.so.6")];
        let names = name(&[0x1010, 0x2011, 0x9001], &modules, None);
        assert_eq!(names, ["beltway+0x50", "libc.so.6+0x50", "0x9000"]);
    }
}
