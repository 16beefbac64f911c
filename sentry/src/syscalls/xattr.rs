//! Extended attributes.

use abi::ids::Fd;
use abi::open::AtFlags;
use abi::xattr::{XATTR_LIST_MAX, XATTR_NAME_MAX, XATTR_SIZE_MAX, XattrFlags};
use abi::{Errno, Result};
use vfs::{Path, ops};

use crate::cx::Cx;
use crate::error::SysResult;
use crate::mm::{UserCStr, UserSlice};
use crate::strict_flags_arg;
use crate::syscalls::args::{DirFd, OutSlice};
use crate::syscalls::stat::lookup;

strict_flags_arg!(XattrFlags as "XATTR_");

/// setxattr. See [setxattr(2)](https://man7.org/linux/man-pages/man2/setxattr.2.html).
pub fn setxattr(
    cx: &mut Cx<'_>,
    path: UserCStr,
    name: UserCStr,
    value: UserSlice,
    flags: XattrFlags,
) -> SysResult {
    let at = followed(cx, path)?;
    set(cx, &at, name, value, flags)
}

/// lsetxattr. See [lsetxattr(2)](https://man7.org/linux/man-pages/man2/lsetxattr.2.html).
pub fn lsetxattr(
    cx: &mut Cx<'_>,
    path: UserCStr,
    name: UserCStr,
    value: UserSlice,
    flags: XattrFlags,
) -> SysResult {
    let at = not_followed(cx, path)?;
    set(cx, &at, name, value, flags)
}

/// fsetxattr. See [fsetxattr(2)](https://man7.org/linux/man-pages/man2/fsetxattr.2.html).
pub fn fsetxattr(
    cx: &mut Cx<'_>,
    fd: Fd,
    name: UserCStr,
    value: UserSlice,
    flags: XattrFlags,
) -> SysResult {
    let file = cx.file(fd)?;
    set(cx, file.path(), name, value, flags)
}

/// getxattr. See [getxattr(2)](https://man7.org/linux/man-pages/man2/getxattr.2.html).
pub fn getxattr(cx: &mut Cx<'_>, path: UserCStr, name: UserCStr, value: OutSlice) -> SysResult {
    let at = followed(cx, path)?;
    get(cx, &at, name, value)
}

/// lgetxattr. See [lgetxattr(2)](https://man7.org/linux/man-pages/man2/lgetxattr.2.html).
pub fn lgetxattr(cx: &mut Cx<'_>, path: UserCStr, name: UserCStr, value: OutSlice) -> SysResult {
    let at = not_followed(cx, path)?;
    get(cx, &at, name, value)
}

/// fgetxattr. See [fgetxattr(2)](https://man7.org/linux/man-pages/man2/fgetxattr.2.html).
pub fn fgetxattr(cx: &mut Cx<'_>, fd: Fd, name: UserCStr, value: OutSlice) -> SysResult {
    let file = cx.file(fd)?;
    get(cx, file.path(), name, value)
}

/// listxattr. See [listxattr(2)](https://man7.org/linux/man-pages/man2/listxattr.2.html).
pub fn listxattr(cx: &mut Cx<'_>, path: UserCStr, list: OutSlice) -> SysResult {
    let at = followed(cx, path)?;
    list_names(cx, &at, list)
}

/// llistxattr. See [llistxattr(2)](https://man7.org/linux/man-pages/man2/llistxattr.2.html).
pub fn llistxattr(cx: &mut Cx<'_>, path: UserCStr, list: OutSlice) -> SysResult {
    let at = not_followed(cx, path)?;
    list_names(cx, &at, list)
}

/// flistxattr. See [flistxattr(2)](https://man7.org/linux/man-pages/man2/flistxattr.2.html).
pub fn flistxattr(cx: &mut Cx<'_>, fd: Fd, list: OutSlice) -> SysResult {
    let file = cx.file(fd)?;
    list_names(cx, file.path(), list)
}

/// removexattr. See [removexattr(2)](https://man7.org/linux/man-pages/man2/removexattr.2.html).
pub fn removexattr(cx: &mut Cx<'_>, path: UserCStr, name: UserCStr) -> SysResult {
    let at = followed(cx, path)?;
    remove(cx, &at, name)
}

/// lremovexattr. See [lremovexattr(2)](https://man7.org/linux/man-pages/man2/lremovexattr.2.html).
pub fn lremovexattr(cx: &mut Cx<'_>, path: UserCStr, name: UserCStr) -> SysResult {
    let at = not_followed(cx, path)?;
    remove(cx, &at, name)
}

/// fremovexattr. See [fremovexattr(2)](https://man7.org/linux/man-pages/man2/fremovexattr.2.html).
pub fn fremovexattr(cx: &mut Cx<'_>, fd: Fd, name: UserCStr) -> SysResult {
    let file = cx.file(fd)?;
    remove(cx, file.path(), name)
}

fn followed(cx: &Cx<'_>, path: UserCStr) -> Result<Path> {
    lookup(cx, DirFd::CWD, path, AtFlags::empty())
}

fn not_followed(cx: &Cx<'_>, path: UserCStr) -> Result<Path> {
    lookup(cx, DirFd::CWD, path, AtFlags::SYMLINK_NOFOLLOW)
}

fn read_name(cx: &Cx<'_>, name: UserCStr) -> Result<Vec<u8>> {
    let name = name.read(&cx.mm(), XATTR_NAME_MAX, Errno::ERANGE)?;
    if name.is_empty() { Err(Errno::ERANGE) } else { Ok(name) }
}

fn set(cx: &Cx<'_>, at: &Path, name: UserCStr, value: UserSlice, flags: XattrFlags) -> SysResult {
    let name = read_name(cx, name)?;
    if value.len > XATTR_SIZE_MAX {
        return Err(Errno::E2BIG.into());
    }
    let mut bytes = vec![0; value.len];
    cx.mm().read(value.addr, &mut bytes)?;
    cx.with_vfs(|vfs| ops::set_xattr(vfs, at, &name, &bytes, flags.bits()))?;
    Ok(0)
}

fn get(cx: &Cx<'_>, at: &Path, name: UserCStr, out: OutSlice) -> SysResult {
    let name = read_name(cx, name)?;
    let value = cx.with_vfs(|vfs| ops::get_xattr(vfs, at, &name))?;
    give(cx, &value, out, XATTR_SIZE_MAX)
}

fn list_names(cx: &Cx<'_>, at: &Path, out: OutSlice) -> SysResult {
    let names = cx.with_vfs(|vfs| ops::list_xattr(vfs, at))?;
    give(cx, &names, out, XATTR_LIST_MAX)
}

/// A buffer of length 0 asks for the size.
fn give(cx: &Cx<'_>, bytes: &[u8], out: OutSlice, most: usize) -> SysResult {
    if out.0.len == 0 {
        return Ok(bytes.len() as u64);
    }
    if bytes.len() > out.0.len {
        return Err(if out.0.len >= most { Errno::E2BIG } else { Errno::ERANGE }.into());
    }
    cx.mm().write(out.0.addr, bytes)?;
    Ok(bytes.len() as u64)
}

fn remove(cx: &Cx<'_>, at: &Path, name: UserCStr) -> SysResult {
    let name = read_name(cx, name)?;
    cx.with_vfs(|vfs| ops::remove_xattr(vfs, at, &name))?;
    Ok(0)
}
