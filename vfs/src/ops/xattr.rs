//! Extended attributes. See xattr(7) for who may touch which namespace.

use abi::stat::{FileType, S_ISVTX};
use abi::xattr::{XATTR_NAME_MAX, XATTR_SIZE_MAX};
use abi::{Errno, Result};
use base::cred::{Access, Caps};

use crate::context::VfsCx;
use crate::dentry::Path;
use crate::names;
use crate::notify::{self, Events};
use crate::path::want_write;

fn check_name(name: &[u8]) -> Result<()> {
    if name.is_empty() || name.len() > XATTR_NAME_MAX { Err(Errno::ERANGE) } else { Ok(()) }
}

fn check(cx: &VfsCx<'_>, path: &Path, name: &[u8], access: Access) -> Result<()> {
    let is_write = access == Access::WRITE;
    if is_write {
        want_write(path)?;
    }
    let refused = if is_write { Errno::EPERM } else { Errno::ENODATA };
    if name.starts_with(b"security.") {
        let needed = if name == b"security.capability" { Caps::SETFCAP } else { Caps::SYS_ADMIN };
        return if is_write && !cx.cred.has(needed) { Err(Errno::EPERM) } else { Ok(()) };
    }
    if name.starts_with(b"system.") {
        return Ok(());
    }
    if name.starts_with(b"trusted.") {
        return if cx.cred.has(Caps::SYS_ADMIN) { Ok(()) } else { Err(refused) };
    }
    if !name.starts_with(b"user.") {
        return Err(Errno::EOPNOTSUPP);
    }
    let attr = path.inode().attr()?;
    match attr.file_type() {
        FileType::Regular => {}
        FileType::Directory => {
            if is_write && attr.mode & S_ISVTX != 0 && !cx.cred.owns(&attr) {
                return Err(Errno::EPERM);
            }
        }
        _ => return Err(refused),
    }
    path.inode().permission(cx.cred, access)
}

/// getxattr(2).
///
/// # Errors
/// Those of getxattr(2) but `ERANGE` for the buffer.
pub fn get_xattr(cx: &VfsCx<'_>, path: &Path, name: &[u8]) -> Result<Vec<u8>> {
    check_name(name)?;
    check(cx, path, name, Access::READ)?;
    path.inode().get_xattr(name)
}

/// setxattr(2).
///
/// # Errors
/// Those of setxattr(2).
pub fn set_xattr(cx: &VfsCx<'_>, path: &Path, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
    if flags & !3 != 0 {
        return Err(Errno::EINVAL);
    }
    check_name(name)?;
    if value.len() > XATTR_SIZE_MAX {
        return Err(Errno::E2BIG);
    }
    check(cx, path, name, Access::WRITE)?;
    path.inode().set_xattr(name, value, flags)?;
    // Perhaps an access control list of a directory.
    names::changed();
    notify::object(path, Events::ATTRIB);
    Ok(())
}

/// listxattr(2): names, each with its NUL.
///
/// # Errors
/// Those of the filesystem.
pub fn list_xattr(cx: &VfsCx<'_>, path: &Path) -> Result<Vec<u8>> {
    let mut names = path.inode().list_xattr()?;
    if !cx.cred.has(Caps::SYS_ADMIN) {
        let all = std::mem::take(&mut names);
        let kept = all.split_inclusive(|byte| *byte == 0);
        names = kept.filter(|name| !name.starts_with(b"trusted.")).flatten().copied().collect();
    }
    Ok(names)
}

/// removexattr(2).
///
/// # Errors
/// Those of removexattr(2).
pub fn remove_xattr(cx: &VfsCx<'_>, path: &Path, name: &[u8]) -> Result<()> {
    check_name(name)?;
    check(cx, path, name, Access::WRITE)?;
    path.inode().remove_xattr(name)?;
    // Perhaps an access control list of a directory.
    names::changed();
    notify::object(path, Events::ATTRIB);
    Ok(())
}
