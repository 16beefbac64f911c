//! Mounting and unmounting.

use std::sync::Arc;

use abi::mount::{MS_MGC_MASK, MS_MGC_VAL, MountFlags as UserFlags, UmountFlags};
use abi::open::AtFlags;
use abi::{Errno, Result};
use base::cred::Caps;
use vfs::{FileSystem, MountFlags, MountNamespace, Path};

use crate::cx::Cx;
use crate::error::SysResult;
use crate::mm::UserCStr;
use crate::syscalls::args::DirFd;
use crate::syscalls::stat::lookup;
use crate::{loose_flags_arg, strict_flags_arg};

loose_flags_arg!(UserFlags as "MS_");
strict_flags_arg!(UmountFlags as "MNT_");

/// mount. See [mount(2)](https://man7.org/linux/man-pages/man2/mount.2.html).
pub fn mount(
    cx: &mut Cx<'_>,
    source: UserCStr,
    target: UserCStr,
    kind: UserCStr,
    flags: UserFlags,
    data: UserCStr,
) -> SysResult {
    let flags = without_magic(flags);
    let at = lookup(cx, DirFd::CWD, target, AtFlags::empty())?;
    if !cx.cred().has(Caps::SYS_ADMIN) {
        return Err(Errno::EPERM.into());
    }
    let propagation =
        UserFlags::SHARED | UserFlags::PRIVATE | UserFlags::SLAVE | UserFlags::UNBINDABLE;
    if flags.contains(UserFlags::REMOUNT) {
        return remount(&at, flags);
    }
    if flags.contains(UserFlags::BIND) {
        return bind(cx, source, &at, flags);
    }
    if flags.intersects(propagation) {
        return change_propagation(&at, flags);
    }
    if flags.contains(UserFlags::MOVE) {
        return Err(Errno::EINVAL.into());
    }
    let kind = read_text(cx, kind)?;
    let fs = new_filesystem(cx, &kind, data)?;
    let source = if source.addr.is_null() { kind } else { read_text(cx, source)? };
    namespace(cx)?.mount(&at, fs, &source, mount_flags(flags))?;
    Ok(0)
}

/// umount2. See [umount2(2)](https://man7.org/linux/man-pages/man2/umount2.2.html).
pub fn umount2(cx: &mut Cx<'_>, target: UserCStr, flags: UmountFlags) -> SysResult {
    let follow = if flags.contains(UmountFlags::NOFOLLOW) {
        AtFlags::SYMLINK_NOFOLLOW
    } else {
        AtFlags::empty()
    };
    let at = lookup(cx, DirFd::CWD, target, follow)?;
    if !cx.cred().has(Caps::SYS_ADMIN) {
        return Err(Errno::EPERM.into());
    }
    if flags.contains(UmountFlags::EXPIRE) {
        return Err(Errno::EINVAL.into());
    }
    namespace(cx)?.umount(&at, flags.contains(UmountFlags::DETACH))?;
    Ok(0)
}

fn namespace<'a>(cx: &'a Cx<'_>) -> Result<&'a MountNamespace> {
    cx.kernel.mounts.get().map(|mounts| &**mounts).ok_or(Errno::EINVAL)
}

fn without_magic(flags: UserFlags) -> UserFlags {
    let bits = flags.bits();
    let bits = if bits & MS_MGC_MASK == MS_MGC_VAL { bits & !MS_MGC_MASK } else { bits };
    UserFlags::from_bits_retain(bits)
}

fn read_text(cx: &Cx<'_>, text: UserCStr) -> Result<Vec<u8>> {
    if text.addr.is_null() {
        return Err(Errno::EINVAL);
    }
    text.read_path(&cx.mm())
}

fn mount_flags(flags: UserFlags) -> MountFlags {
    let mut kept = MountFlags::RELATIME;
    let pairs = [
        (UserFlags::RDONLY, MountFlags::RDONLY),
        (UserFlags::NOSUID, MountFlags::NOSUID),
        (UserFlags::NODEV, MountFlags::NODEV),
        (UserFlags::NOEXEC, MountFlags::NOEXEC),
        (UserFlags::NOATIME, MountFlags::NOATIME),
        (UserFlags::NODIRATIME, MountFlags::NODIRATIME),
    ];
    for (user, ours) in pairs {
        kept.set(ours, flags.contains(user));
    }
    if flags.intersects(UserFlags::NOATIME | UserFlags::STRICTATIME) {
        kept.remove(MountFlags::RELATIME);
    }
    kept
}

fn is_mount_root(at: &Path) -> bool {
    Arc::ptr_eq(&at.dentry, at.mount.root_dentry())
}

fn remount(at: &Path, flags: UserFlags) -> SysResult {
    if !is_mount_root(at) {
        return Err(Errno::EINVAL.into());
    }
    at.mount.set_flags(mount_flags(flags));
    Ok(0)
}

fn bind(cx: &Cx<'_>, source: UserCStr, at: &Path, flags: UserFlags) -> SysResult {
    if source.addr.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let source = lookup(cx, DirFd::CWD, source, AtFlags::empty())?;
    namespace(cx)?.bind(&source, at, flags.contains(UserFlags::REC))?;
    Ok(0)
}

/// There is one mount namespace and no peer groups: private is what every mount is.
fn change_propagation(at: &Path, flags: UserFlags) -> SysResult {
    if !is_mount_root(at) {
        return Err(Errno::EINVAL.into());
    }
    let shares = flags.contains(UserFlags::SHARED);
    if shares { Err(Errno::EINVAL.into()) } else { Ok(0) }
}

/// The types that a guest may mount: those that are made of memory.
fn new_filesystem(cx: &Cx<'_>, kind: &[u8], data: UserCStr) -> Result<Arc<dyn FileSystem>> {
    let options = match data.addr.is_null() {
        true => Vec::new(),
        false => data.read(&cx.mm(), 4095, Errno::EINVAL)?,
    };
    crate::boot::mounts::guest_filesystem(cx.kernel, kind, &options)
}
