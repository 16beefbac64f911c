//! Private copies of mount trees. See open_tree(2), mount_setattr(2).
//!
//! A detached copy has no path that leads to it and none that leads out of it: ".." at its root stays there. So a
//! process that holds only such copies cannot climb out, whatever it opens relative to them.
//!
//! # Safety
//! Each call passes pointers to live, NUL-terminated strings or initialised structs of the size it names.

#![expect(unsafe_code, reason = "calls that rustix lacks")]

use std::ffi::{CStr, c_long};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

const OPEN_TREE_CLONE: u32 = 1;
const OPEN_TREE_CLOEXEC: u32 = 0o2_000_000;
const AT_RECURSIVE: u32 = 0x8000;
const AT_EMPTY_PATH: u32 = 0x1000;

/// Mount attributes that only take rights away.
pub const MOUNT_READ_ONLY: u64 = 1;
pub const MOUNT_NO_SUID: u64 = 2;
pub const MOUNT_NO_DEVICES: u64 = 4;

/// `struct mount_attr` of <linux/mount.h>.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

fn check(result: c_long) -> Result<c_long, Errno> {
    if result >= 0 {
        return Ok(result);
    }
    let raw = std::io::Error::last_os_error().raw_os_error();
    Err(Errno::from_raw_os_error(raw.unwrap_or(libc::EIO)))
}

/// A detached, recursive copy of the mount tree at `path`, as an `O_PATH` descriptor of its root.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` in the mount namespace's owner; `ENOSYS` before Linux 5.2.
pub fn clone_mount_tree(path: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE;
    // SAFETY: `path` is a valid C string for the length of the call; the other arguments are plain numbers.
    let fd =
        check(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    // SAFETY: the call returned a descriptor that nobody else owns; descriptors fit an i32.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sets `attributes` on every mount of a detached tree.
///
/// # Errors
/// `EPERM` as above; `ENOSYS` before Linux 5.12.
pub fn restrict_mount_tree(tree: impl AsFd, attributes: u64) -> Result<(), Errno> {
    let attr = MountAttr { set: attributes, clear: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the empty string and `attr` live through the call; the size is that of `attr`.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            AT_EMPTY_PATH | AT_RECURSIVE,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })?;
    Ok(())
}
