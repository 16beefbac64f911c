//! Mode changes through `O_PATH` descriptors. See fchmodat2(2) (Linux 6.6).
//!
//! # Safety
//! The one call passes a live, NUL-terminated empty string.

#![expect(unsafe_code, reason = "a call that rustix lacks")]

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// Changes the mode of the very object that `fd` stands for, following nothing.
///
/// # Errors
/// What fchmodat2(2) says; `ENOSYS` on older kernels, `EOPNOTSUPP` for a symbolic link.
pub fn chmod_object(fd: impl AsFd, mode: u32) -> Result<(), Errno> {
    // SAFETY: the empty string is static; the other arguments are plain numbers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_fchmodat2,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            mode,
            libc::AT_EMPTY_PATH,
        )
    };
    if result == 0 {
        return Ok(());
    }
    let raw = std::io::Error::last_os_error().raw_os_error();
    Err(Errno::from_raw_os_error(raw.unwrap_or(libc::EIO)))
}
