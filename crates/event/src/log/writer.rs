//! The event thread's side: lines are gathered in buffers of its own and handed over whole.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Batch, LogSender, Shared, Sink};

/// A buffer of so many bytes is handed to the log thread.
pub(super) const BATCH_BYTES: usize = 32 * 1024;
/// The longest line; a longer one is cut.
pub(super) const LINE_MAX: usize = 16 * 1024;
/// A buffer grows to this while the log thread is behind; then lines are dropped.
const BEHIND_MAX: usize = 4 * BATCH_BYTES;
/// A buffer that grew beyond this is not kept.
pub(super) const KEPT_MAX: usize = BEHIND_MAX + LINE_MAX + 1;

/// Writes lines for one thread. Appending makes no system call and takes no lock.
///
/// The owner calls [`LogWriter::flush`] now and then (every 200 ms, and when idle), so that lines appear soon. Dropping
/// flushes too.
#[derive(Debug)]
pub struct LogWriter {
    shared: Arc<Shared>,
    pending: RefCell<Vec<Pending>>,
    one_thread: PhantomData<Rc<()>>,
}

#[derive(Debug)]
struct Pending {
    sink: Sink,
    text: Vec<u8>,
    lines: u64,
}

impl LogWriter {
    pub(super) fn new(sender: &LogSender) -> Self {
        Self { shared: sender.0.clone(), pending: RefCell::default(), one_thread: PhantomData }
    }

    /// Appends what `write` puts behind the end of its argument as one line; the line feed is added here. `write` must
    /// not put line feeds itself. When the log thread is too far behind, `write` is not called and the line is counted
    /// as dropped; so is a line written from within `write`.
    pub fn append(&self, sink: &Sink, write: impl FnOnce(&mut Vec<u8>)) {
        let Ok(mut pending) = self.pending.try_borrow_mut() else {
            sink.drop_lines(1);
            return;
        };
        let at = match pending.iter().position(|pending| pending.sink.is(sink)) {
            Some(at) => at,
            None => {
                pending.push(Pending { sink: sink.clone(), text: Vec::new(), lines: 0 });
                pending.len() - 1
            }
        };
        let pending = &mut pending[at];
        if pending.text.len() >= BATCH_BYTES {
            self.shared.hand_over(pending);
            if pending.text.len() >= BEHIND_MAX {
                sink.drop_lines(1);
                return;
            }
        }
        if pending.text.capacity() == 0 {
            pending.text = self.shared.take_buffer();
        }
        let mut line = Line { start: pending.text.len(), text: &mut pending.text, whole: false };
        write(line.text);
        line.whole = true;
        drop(line);
        pending.lines += 1;
    }

    /// Hands over what there is and says whether that was everything: lines that the log thread has no room for stay,
    /// up to a bound. Before the writer goes, ask again for a while; what it still has when it is dropped is lost.
    pub fn flush(&self) -> bool {
        let Ok(mut pending) = self.pending.try_borrow_mut() else { return false };
        // A sink that was idle since the last flush is let go, so that a closed one can end.
        pending.retain(|pending| pending.lines > 0);
        for pending in pending.iter_mut() {
            self.shared.hand_over(pending);
        }
        pending.iter().all(|pending| pending.lines == 0)
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        let _ = self.flush();
        for pending in self.pending.get_mut() {
            pending.sink.drop_lines(pending.lines);
        }
    }
}

impl Shared {
    fn hand_over(&self, pending: &mut Pending) {
        if pending.lines == 0 {
            return;
        }
        if self.ended.load(Ordering::Acquire) {
            pending.sink.drop_lines(std::mem::take(&mut pending.lines));
            pending.text.clear();
            return;
        }
        let batch = Batch { sink: pending.sink.clone(), text: std::mem::take(&mut pending.text), lines: pending.lines };
        match self.batches.push(batch) {
            Ok(()) => {
                pending.lines = 0;
                self.wake();
            }
            Err(back) => pending.text = back.text,
        }
    }

    fn take_buffer(&self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_else(|| Vec::with_capacity(BATCH_BYTES + LINE_MAX + 1))
    }
}

/// A line being written: ended when whole, taken back when its writing panicked.
struct Line<'a> {
    text: &'a mut Vec<u8>,
    start: usize,
    whole: bool,
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if self.whole {
            self.text.truncate(self.start + LINE_MAX);
            self.text.push(b'\n');
        } else {
            self.text.truncate(self.start);
        }
    }
}
