//! x
use crate::error::Outcome;
pub(super) fn channel() -> Outcome<f64> { Ok(0.0) }
pub(super) fn schedule() -> Outcome<f64> { Ok(0.0) }
pub(super) fn tokio_mpsc() -> Outcome<f64> { Ok(0.0) }
