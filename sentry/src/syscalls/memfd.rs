//! Files in memory without a name.

use abi::Errno;
use abi::fcntl::{MemfdFlags, Seals};
use abi::open::OpenFlags;
use vfs::fs::tmpfs;
use vfs::inode::Ownership;

use crate::cx::Cx;
use crate::error::SysResult;
use crate::mm::UserCStr;
use crate::strict_flags_arg;

strict_flags_arg!(MemfdFlags as "MFD_");

/// Longest name: what is left of NAME_MAX behind "memfd:".
const NAME_MAX: usize = 249;

/// memfd_create. See [memfd_create(2)](https://man7.org/linux/man-pages/man2/memfd_create.2.html).
pub fn memfd_create(cx: &mut Cx<'_>, name: UserCStr, flags: MemfdFlags) -> SysResult {
    if flags.contains(MemfdFlags::EXEC | MemfdFlags::NOEXEC_SEAL) {
        return Err(Errno::EINVAL.into());
    }
    let name = name.read(&cx.mm(), NAME_MAX, Errno::EINVAL)?;
    let no_exec = flags.contains(MemfdFlags::NOEXEC_SEAL);
    let cred = cx.cred();
    let mode = if no_exec { 0o666 } else { 0o777 };
    let own = Ownership { uid: cred.fsuid, gid: cred.fsgid, mode };
    let may_seal = no_exec || flags.contains(MemfdFlags::ALLOW_SEALING);
    let file = cx.kernel.memfds.memfd(own, &name, may_seal)?;
    if no_exec {
        tmpfs::add_seals(&file, Seals::EXEC)?;
    }
    let cloexec = flags.contains(MemfdFlags::CLOEXEC);
    cx.return_fd(file, if cloexec { OpenFlags::CLOEXEC } else { OpenFlags::empty() })
}
