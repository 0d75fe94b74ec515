//! Finished transactions into the access log.

use std::cell::RefCell;

use event::log::{LogWriter, Sink};

use crate::access_log::{Format, Formatter, Record};
use crate::worker::Worker;

/// One thread's access log.
#[derive(Debug)]
pub(crate) struct AccessLog {
    writer: LogWriter,
    sink: Sink,
    formatter: RefCell<Formatter>,
}

impl AccessLog {
    pub(crate) fn new(writer: LogWriter, sink: Sink, format: Format) -> Self {
        Self { writer, sink, formatter: RefCell::new(Formatter::new(format)) }
    }

    /// Hands over what was written.
    pub(crate) fn flush(&self) {
        // What the log thread has no room for stays here, up to the writer's own bound; the next flush tries again.
        let _ = self.writer.flush();
    }
}

/// Appends one line, if there is a log.
pub(crate) fn write(worker: &Worker, record: &Record<'_>) {
    if let Some(log) = worker.log() {
        log.writer.append(&log.sink, |line| log.formatter.borrow_mut().append(record, line));
    }
}
