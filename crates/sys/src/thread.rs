//! Cores, names and limits of threads and of the process.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores this process may run on, by their numbers, in order. Cgroup CPU sets and affinity masks count.
#[must_use]
pub fn cores() -> Vec<usize> {
    sched_getaffinity(None)
        .map(|set| (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect())
        .unwrap_or_else(|_| vec![0])
}

/// Ties the calling thread to one core.
///
/// # Errors
/// What `sched_setaffinity(2)` says: the core does not exist or is not ours.
pub fn pin_to(core: usize) -> io::Result<()> {
    pin_to_any(&[core])
}

/// Lets the calling thread, and those it starts, run on these cores alone.
///
/// # Errors
/// What `sched_setaffinity(2)` says: none of them exists and is ours.
pub fn pin_to_any(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for &core in cores.iter().filter(|&&core| core < CpuSet::MAX_CPU) {
        set.set(core);
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// Names the calling thread as `ps` and `/proc` show it: the first 15 bytes count.
pub fn set_name(name: &str) {
    let short: Vec<u8> = name.bytes().filter(|&byte| byte != 0).take(15).collect();
    if let Ok(name) = std::ffi::CString::new(short) {
        // A name that could not be set costs nothing but its sight in `ps`.
        let _ = rustix::thread::set_name(&name);
    }
}

/// The kernel's number of the calling thread.
#[must_use]
pub fn id() -> u64 {
    u64::from(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs())
}

/// CPU time the calling thread has used, in nanoseconds.
#[must_use]
pub fn cpu_time_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// Has this process, and those it starts, be allowed `wanted` descriptors, or as many as the kernel gives anybody, if it is
/// not already. Takes root's power.
///
/// # Errors
/// What `setrlimit(2)` says: no power.
pub fn allow_descriptors(wanted: u64) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = std::fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
    let wanted = most.map_or(wanted, |most: u64| wanted.min(most));
    if getrlimit(Resource::Nofile).maximum.is_none_or(|maximum| maximum >= wanted) {
        return Ok(());
    }
    Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: Some(wanted) })?)
}

/// Raises the number of descriptors this process may open to what it is allowed to, and says how many that is.
#[must_use]
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}
