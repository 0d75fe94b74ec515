//! What asks: wrk for throughput, an own client for held connections, an own paced client for faults.

pub(crate) mod held;
pub(crate) mod paced;
pub(crate) mod wrk;
