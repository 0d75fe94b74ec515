//! Panics as messages: what, where, in which continuation, and the stack. Nothing here waits.
//!
//! The panicking thread only gathers the addresses of its stack; turning them into names reads the program's debug
//! information from disk and takes tens of milliseconds, which is the log thread's trouble. The standard library
//! holds a lock while it does so, which the next panicking thread would wait for: so while one stack is on its way,
//! other panics are reported without theirs.

use std::backtrace::Backtrace;
use std::cell::Cell;
use std::fmt::Write as _;
use std::panic::{PanicHookInfo, set_hook, take_hook};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Level, LogSender, Report, Shared};
use crate::registry;

/// Frames of a stack that are written.
const FRAMES_MAX: usize = 40;

/// What stands between the panic and its report, or below the event loop: of no use to a reader.
const MACHINERY: [&str; 7] = [
    "std::backtrace",
    "std::panicking",
    "core::panicking",
    "rust_begin_unwind",
    "__rust_try",
    "rust_panic",
    "event::log::panics",
];

thread_local! {
    static REPORTING: Cell<bool> = const { Cell::new(false) };
}

impl LogSender {
    /// Makes every panic of this process a message of the server, with the name of the continuation and the stack,
    /// instead of text on standard error. Panics after the log thread has ended go where they went before.
    pub fn report_panics(&self) {
        let shared = Arc::clone(&self.0);
        let before = take_hook();
        set_hook(Box::new(move |info| {
            // A panic within this hook, or of the log thread: tell it as ever.
            let again = REPORTING.try_with(|reporting| reporting.replace(true)).unwrap_or(true);
            let own = shared.thread.get().is_some_and(|thread| thread.id() == std::thread::current().id());
            if again || own || shared.ended.load(Ordering::Acquire) {
                before(info);
            } else {
                shared.report_panic(info);
            }
            let _ = REPORTING.try_with(|reporting| reporting.set(again));
        }));
    }
}

impl Shared {
    fn report_panic(&self, info: &PanicHookInfo<'_>) {
        let what = info.payload_as_str().unwrap_or("without words");
        let mut message = format!("panic: {what}");
        if let Some(location) = info.location() {
            let _ = write!(message, ", at {}:{}", location.file(), location.line());
        }
        if let Some((thread, continuation)) = registry::running() {
            let _ = write!(message, ", in \"{continuation}\" on {thread}");
        } else if let Some(thread) = std::thread::current().name() {
            let _ = write!(message, ", on {thread}");
        }
        let stack = if self.stack_on_its_way.swap(true, Ordering::AcqRel) {
            message.push_str(", stack left out: another is being written");
            None
        } else {
            Some(Box::new(Backtrace::force_capture()))
        };
        let had_stack = stack.is_some();
        if !self.report_with(Level::Error, message, stack) && had_stack {
            self.stack_on_its_way.store(false, Ordering::Release);
        }
    }

    /// The log thread's part: the stack as names behind the message.
    pub(super) fn with_stack(&self, mut report: Report) -> Report {
        if let Some(stack) = report.stack.take() {
            let text = stack.to_string();
            self.stack_on_its_way.store(false, Ordering::Release);
            report.message.push_str(", stack: ");
            report.message.push_str(&frames(&text));
        }
        report
    }
}

/// `name (file:line) < caller (file:line) < …`
fn frames(text: &str) -> String {
    let mut frames: Vec<String> = Vec::new();
    let mut skipped = true;
    for line in text.lines().map(str::trim) {
        if let Some(place) = line.strip_prefix("at ") {
            if !skipped && let Some(frame) = frames.last_mut() {
                let _ = write!(frame, " ({place})");
            }
        } else {
            let name = line.split_once(": ").map_or(line, |(_, name)| name);
            skipped = MACHINERY.iter().any(|machinery| name.contains(machinery));
            if !skipped {
                if frames.len() == FRAMES_MAX {
                    break;
                }
                frames.push(name.to_owned());
            }
        }
    }
    frames.join(" < ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_becomes_one_line_without_the_machinery() {
        let text =
            "   0: std::backtrace::Backtrace::create\n   1: http::transact\n             at ./a.rs:1:2\n   2: main\n";
        assert_eq!(frames(text), "http::transact (./a.rs:1:2) < main");
    }
}
