//! What asks: wrk for throughput, own clients for held connections, for a crowd at one moment, and for faults.

pub(crate) mod crowd;
pub(crate) mod held;
pub(crate) mod paced;
pub(crate) mod wrk;
