//! What asks: wrk for throughput, own clients for held connections, for faults, and for Redis and memcached.

pub(crate) mod crowd;
pub(crate) mod held;
pub(crate) mod paced;
pub(crate) mod pipelined;
pub(crate) mod wrk;
