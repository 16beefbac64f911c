//! /proc/PID/fd and /proc/PID/fdinfo.

use std::sync::Arc;

use abi::ids::Fd;
use abi::open::OpenFlags;
use abi::stat::FileType;
use abi::{Errno, Result};

use super::TaskRef;
use crate::context::VfsCx;
use crate::dentry::path_string;
use crate::file::{DirEntry, File, Whence};
use crate::fs::kernfs::{Children, DirInode, LinkInode, TextInode};
use crate::fs::procfs::root::parse_number;
use crate::inode::{Inode, LinkTarget};

/// Inode indices of descriptors start here.
const FIRST_INDEX: u64 = 1 << 10;

/// What lstat(2) says of every descriptor's link.
const LINK_SIZE: u64 = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Links,
    Info,
}

struct FdDir {
    task: TaskRef,
    what: What,
}

pub fn fd_dir(task: &TaskRef, index: u64) -> Arc<dyn Inode> {
    let node = task.node(index, FileType::Directory, 0o500);
    DirInode::new(node, FdDir { task: task.clone(), what: What::Links })
}

pub fn fdinfo_dir(task: &TaskRef, index: u64) -> Arc<dyn Inode> {
    let node = task.node(index, FileType::Directory, 0o555);
    DirInode::new(node, FdDir { task: task.clone(), what: What::Info })
}

fn open_file(task: &TaskRef, cx: &VfsCx<'_>, fd: Fd) -> Result<(Arc<File>, bool)> {
    task.inspect(cx)?.file(fd).ok_or(Errno::ENOENT)
}

/// How /proc names an open file for the caller.
pub fn path_text(cx: &VfsCx<'_>, path: &crate::dentry::Path) -> Vec<u8> {
    let root = cx.fs.state.lock().root.clone();
    path_string(&root, path)
}

impl FdDir {
    fn link(&self, fd: Fd, file: &File) -> Arc<dyn Inode> {
        let flags = file.flags();
        let mode =
            0o100 | if flags.reads() { 0o400 } else { 0 } | if flags.writes() { 0o200 } else { 0 };
        let index = FIRST_INDEX + 2 * u64::try_from(fd.0).unwrap_or(0);
        let node = self.task.node(index, FileType::Symlink, mode).sized(LINK_SIZE);
        let (text_task, target_task) = (self.task.clone(), self.task.clone());
        LinkInode::magic(
            node,
            move |cx| open_file(&text_task, cx, fd).map(|(file, _)| path_text(cx, file.path())),
            move |cx| {
                open_file(&target_task, cx, fd)
                    .map(|(file, _)| LinkTarget::Jump(file.path().clone()))
            },
        )
    }

    fn info(&self, fd: Fd) -> Arc<dyn Inode> {
        let index = FIRST_INDEX + 2 * u64::try_from(fd.0).unwrap_or(0) + 1;
        let node = self.task.node(index, FileType::Regular, 0o444);
        let task = self.task.clone();
        TextInode::new(node, move |cx: &VfsCx<'_>| {
            let (file, is_cloexec) = open_file(&task, cx, fd)?;
            Ok(info_text(&file, is_cloexec).into_bytes())
        })
    }
}

fn info_text(file: &File, is_cloexec: bool) -> String {
    let mut flags = file.flags().bits() | OpenFlags::LARGEFILE.bits();
    if is_cloexec {
        flags |= OpenFlags::CLOEXEC.bits();
    }
    let path = file.path();
    let ino = path.inode().attr().map_or(0, |attr| attr.ino);
    let pos = if file.ops().keeps_position() {
        file.ops().seek(file, 0, Whence::Current).unwrap_or(0)
    } else {
        *file.position()
    };
    let mount = path.mount.id();
    let extra = file.ops().fdinfo();
    format!("pos:\t{pos}\nflags:\t0{flags:o}\nmnt_id:\t{mount}\nino:\t{ino}\n{extra}")
}

impl Children for FdDir {
    fn lookup(&self, cx: &VfsCx<'_>, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let fd = Fd(parse_number(name).ok_or(Errno::ENOENT)?);
        let (file, _) = open_file(&self.task, cx, fd)?;
        Ok(match self.what {
            What::Links => self.link(fd, &file),
            What::Info => self.info(fd),
        })
    }

    fn list(
        &self,
        cx: &VfsCx<'_>,
        from: u64,
        emit: &mut dyn FnMut(u64, DirEntry<'_>) -> bool,
    ) -> Result<()> {
        let kind = match self.what {
            What::Links => FileType::Symlink,
            What::Info => FileType::Regular,
        };
        for fd in self.task.inspect(cx)?.fds() {
            let key = u64::try_from(fd.0).unwrap_or(0);
            let name = fd.to_string();
            let ino = super::inode_number(self.task.tid, FIRST_INDEX + 2 * key);
            let entry = DirEntry { ino, next: 0, kind, name: name.as_bytes() };
            if key >= from && !emit(key, entry) {
                break;
            }
        }
        Ok(())
    }
}
