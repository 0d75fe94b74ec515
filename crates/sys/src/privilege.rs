//! Who the process is to the kernel: its user, its groups and what of root's power it keeps.
//!
//! To be called while the process has one thread: the kernel holds capabilities for each.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::path::Path;
use std::ptr;

use rustix::fs::{AtFlags, CWD, Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// Bytes for what the database of users says of one.
const ENTRY_SIZE: usize = 16 * 1024;

/// A user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: CString,
    /// Its number.
    pub user: u32,
    /// Its first group.
    pub group: u32,
}

/// The user called `name`; `None` when there is none.
///
/// # Errors
/// The database cannot be read.
pub fn account(name: &str) -> io::Result<Option<Account>> {
    let name = CString::new(name)?;
    let mut entry: MaybeUninit<libc::passwd> = MaybeUninit::uninit();
    let mut buffer = vec![0_u8; ENTRY_SIZE];
    let mut found: *mut libc::passwd = ptr::null_mut();
    // SAFETY: `name` is NUL-terminated; `entry` and `found` are writable, and `buffer` is so for the length that is told;
    // all of them outlive the call.
    let error = unsafe {
        libc::getpwnam_r(name.as_ptr(), entry.as_mut_ptr(), buffer.as_mut_ptr().cast(), buffer.len(), &raw mut found)
    };
    match error {
        0 if found.is_null() => return Ok(None),
        0 => {}
        libc::ENOENT | libc::ESRCH => return Ok(None),
        other => return Err(io::Error::from_raw_os_error(other)),
    }
    // SAFETY: the call succeeded and found an entry, so it has filled this in.
    let entry = unsafe { entry.assume_init() };
    Ok(Some(Account { name, user: entry.pw_uid, group: entry.pw_gid }))
}

/// Who this process is.
#[must_use]
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Becomes `account` for good, from root: its groups, and of root's power the binding of ports below 1024 alone, which
/// programs that are started inherit. Nothing that is started can ever have more.
///
/// # Errors
/// What the kernel or the database of groups says. The process should end then: it may be half of each.
pub fn become_user(account: &Account) -> io::Result<()> {
    let kept = CapabilitySet::NET_BIND_SERVICE;
    // What cannot be had for good cannot be had back. The kernel may know more, or fewer, than we do.
    for capability in (0..64).filter(|&number| number != NET_BIND_SERVICE) {
        // SAFETY: this operation takes two numbers, and one that the kernel does not know is an error.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if dropped != 0 {
            break;
        }
    }
    rustix::thread::set_keep_capabilities(true)?;
    // SAFETY: the name is NUL-terminated and outlives the call.
    check(unsafe { libc::initgroups(account.name.as_ptr(), account.group) })?;
    // SAFETY: three numbers; libc changes all threads.
    check(unsafe { libc::setresgid(account.group, account.group, account.group) })?;
    // SAFETY: three numbers; libc changes all threads.
    check(unsafe { libc::setresuid(account.user, account.user, account.user) })?;
    rustix::thread::set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: kept })?;
    rustix::thread::configure_capability_in_ambient_set(kept, true)?;
    rustix::thread::set_no_new_privs(true)?;
    // What root knew is not in this memory; without this /proc hides us from ourselves.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)?;
    Ok(())
}

const NET_BIND_SERVICE: libc::c_ulong = 10;

/// Keeps nothing of root's power.
///
/// # Errors
/// What `capset(2)` and `prctl(2)` say.
pub fn drop_capabilities() -> io::Result<()> {
    let none = CapabilitySet::empty();
    rustix::thread::clear_ambient_capability_set()?;
    Ok(rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?)
}

/// Whether this process has any of root's power.
#[must_use]
pub fn has_capabilities() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| !sets.permitted.is_empty())
}

/// Gives the file at `path` to `account`; a link is not followed.
///
/// # Errors
/// What `chown(2)` says.
pub fn give(path: &Path, account: &Account) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(account.user), Gid::from_raw(account.group));
    Ok(rustix::fs::chownat(CWD, path, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Files that this process makes are not for others.
pub fn keep_files_from_others() {
    let _ = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027)); // the answer is the former mask
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name() {
        let root = account("root").unwrap().unwrap();
        assert_eq!(root.user, 0);
        assert_eq!(account("nobody-is-called-this").unwrap(), None);
        assert!(account("a\0b").is_err());
    }
}
