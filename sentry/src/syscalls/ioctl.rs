//! ioctl: the commands that every file knows; the rest is the file's own.

use std::sync::Arc;

use abi::ids::Fd;
use abi::ioctl as command;
use abi::open::OpenFlags;
use abi::stat::FileType;
use abi::{Errno, Result, UserAddr};
use vfs::file::UserMemory;
use vfs::ops::{self, OpenHow};
use vfs::tty::{Master, Slave};
use vfs::{File, LookupFlags, Path};

use crate::cx::Cx;
use crate::error::SysResult;
use crate::mm::Mm;
use crate::syscalls::args::Hex;
use crate::syscalls::names::IoctlRequest;

/// ioctl. See [ioctl(2)](https://man7.org/linux/man-pages/man2/ioctl.2.html).
pub fn ioctl(cx: &mut Cx<'_>, fd: Fd, request: IoctlRequest, arg: Hex) -> SysResult {
    let file = cx.file(fd)?;
    let (request, arg) = (request.0, arg.0);
    match request {
        command::FIOCLEX => cx.files().set_cloexec(fd, true)?,
        command::FIONCLEX => cx.files().set_cloexec(fd, false)?,
        command::FIONBIO => {
            let on = read_int(cx, arg)? != 0;
            let mut flags = file.flags();
            flags.set(OpenFlags::NONBLOCK, on);
            file.set_status_flags(flags);
            cx.files().look_again();
        }
        command::FIOASYNC => {
            let on = read_int(cx, arg)? != 0;
            if file.ops().wait_queue().is_none() {
                return Err(Errno::ENOTTY.into());
            }
            let mut flags = file.flags();
            flags.set(OpenFlags::ASYNC, on);
            file.set_status_flags(flags);
            cx.files().look_again();
        }
        command::FIGETBSZ => {
            let size = file.path().mount.fs().statfs()?.block_size;
            write_int(cx, arg, size as u32)?;
        }
        command::FIONREAD if file.inode().file_type() == FileType::Regular => {
            return own_or(cx, &file, request, arg, unread_bytes);
        }
        command::FIOQSIZE => {
            let attr = file.inode().attr()?;
            match attr.file_type() {
                FileType::Regular | FileType::Directory | FileType::Symlink => {
                    cx.mm().write(UserAddr(arg), &attr.size.to_ne_bytes())?;
                }
                _ => return Err(Errno::ENOTTY.into()),
            }
        }
        command::TIOCGPTPEER => return open_peer(cx, &file, arg),
        _ => return own(cx, &file, request, arg),
    }
    Ok(0)
}

/// TIOCGPTPEER of a terminal's master: opens the slave beside it, whatever is mounted over its path.
fn open_peer(cx: &mut Cx<'_>, file: &File, flags: u64) -> SysResult {
    let ops = file.ops().as_any();
    let no_master = if ops.is::<Slave>() { Errno::EIO } else { Errno::ENOTTY };
    let master = ops.downcast_ref::<Master>().ok_or(no_master)?;
    let dir = file.path().dentry.parent().ok_or(Errno::EIO)?;
    let dir = Path::new(Arc::clone(&file.path().mount), dir);
    let flags = OpenFlags::from_bits_retain(flags as u32);
    let how = OpenHow { flags, mode: 0, resolve: LookupFlags::empty() };
    let name = master.tty().index().to_string();
    let opened = cx.with_vfs(|vfs| ops::open(vfs, Some(&dir), name.as_bytes(), how)?.now())?;
    cx.return_fd(opened, flags)
}

fn own(cx: &Cx<'_>, file: &File, request: u32, arg: u64) -> SysResult {
    let mm = cx.mm();
    let memory = GuestMemory(&mm);
    Ok(cx.with_vfs(|vfs| file.ops().ioctl(vfs, file, request, arg, &memory))?)
}

/// The file's own answer, or else a generic one. (inotify, timerfd and the like have no type bits.)
fn own_or(
    cx: &Cx<'_>,
    file: &File,
    request: u32,
    arg: u64,
    generic: impl FnOnce(&File) -> Result<u32>,
) -> SysResult {
    match own(cx, file, request, arg) {
        Err(error) if error == Errno::ENOTTY.into() => {
            write_int(cx, arg, generic(file)?)?;
            Ok(0)
        }
        other => other,
    }
}

/// FIONREAD of a regular file: what lies behind the position, as an int.
fn unread_bytes(file: &File) -> Result<u32> {
    if !file.ops().is_seekable() {
        return Err(Errno::ENOTTY);
    }
    let size = file.inode().attr()?.size;
    let pos = *file.position();
    Ok(size.wrapping_sub(pos) as u32)
}

fn read_int(cx: &Cx<'_>, arg: u64) -> Result<u32> {
    let mut bytes = [0; 4];
    cx.mm().read(UserAddr(arg), &mut bytes)?;
    Ok(u32::from_ne_bytes(bytes))
}

fn write_int(cx: &Cx<'_>, arg: u64, value: u32) -> Result<()> {
    cx.mm().write(UserAddr(arg), &value.to_ne_bytes())
}

/// Guest memory as a file's ioctl may touch it.
struct GuestMemory<'a>(&'a Mm);

impl UserMemory for GuestMemory<'_> {
    fn read(&self, addr: UserAddr, into: &mut [u8]) -> Result<()> {
        self.0.read(addr, into)
    }

    fn write(&self, addr: UserAddr, bytes: &[u8]) -> Result<()> {
        self.0.write(addr, bytes)
    }
}
