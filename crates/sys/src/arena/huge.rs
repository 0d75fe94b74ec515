//! Whether the process may have huge pages where it asks for them, and only there.
//!
//! The allocator switches them off for the whole process, since a huge page for a few connections is memory for nothing.
//! An arena wants them back for itself alone. Since Linux 6.18 the switch knows an exception for memory that was advised;
//! before, it is lifted only where the system gives no huge pages unasked.

use std::fs;
use std::io;

/// `PR_THP_DISABLE_EXCEPT_ADVISED` of Linux 6.18.
const EXCEPT_ADVISED: libc::c_ulong = 1 << 1;

fn prctl(option: libc::c_int, first: libc::c_ulong, second: libc::c_ulong) -> io::Result<libc::c_int> {
    let none: libc::c_ulong = 0;
    // SAFETY: both options that are asked for here take plain numbers, the unused ones zero, and change or read a flag of
    // the process; nothing is pointed to.
    let answer = unsafe { libc::prctl(option, first, second, none, none) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// Allows huge pages for memory that asks for them. False when this system would then give them to all memory, or
/// refuses: then everything works in small pages.
pub(crate) fn allow_where_advised() -> bool {
    if prctl(libc::PR_GET_THP_DISABLE, 0, 0).is_ok_and(|disabled| disabled == 0) {
        return true;
    }
    if prctl(libc::PR_SET_THP_DISABLE, 1, EXCEPT_ADVISED).is_ok() {
        return true;
    }
    let only_advised = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
        .is_ok_and(|enabled| enabled.contains("[madvise]"));
    only_advised && prctl(libc::PR_SET_THP_DISABLE, 0, 0).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_allocator_switched_off_comes_back_for_advised_memory_only() {
        prctl(libc::PR_SET_THP_DISABLE, 1, 0).unwrap();
        let allowed = allow_where_advised();
        let now = prctl(libc::PR_GET_THP_DISABLE, 0, 0).unwrap();
        let enabled = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
        match now {
            0 => assert!(allowed && enabled.contains("[madvise]"), "{enabled}"),
            1 => assert!(!allowed),
            with_exception => assert!(allowed && with_exception == 3, "{with_exception}"),
        }
    }
}
