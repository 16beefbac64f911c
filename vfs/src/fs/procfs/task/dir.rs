//! The directory of a task, and task/ with its threads.

use std::sync::Arc;

use abi::ids::Tid;
use abi::stat::FileType;
use abi::{Errno, Result};

use super::table::{self, ENTRIES};
use super::{TaskRef, inode_number};
use crate::context::VfsCx;
use crate::file::DirEntry;
use crate::fs::kernfs::{Children, DirInode};
use crate::fs::procfs::root::parse_number;
use crate::fs::procfs::view::Scope;
use crate::inode::Inode;

/// /proc/PID or /proc/PID/task/TID.
pub fn directory(task: TaskRef) -> Arc<dyn Inode> {
    DirInode::new(task.node(0, FileType::Directory, 0o555), TaskDir { task })
}

struct TaskDir {
    task: TaskRef,
}

/// Inode index of an entry: 0 is the directory.
fn index(at: usize) -> u64 {
    at as u64 + 1
}

impl Children for TaskDir {
    fn lookup(&self, _: &VfsCx<'_>, name: &[u8]) -> Result<Arc<dyn Inode>> {
        self.task.get().map_err(|_| Errno::ENOENT)?;
        let at = ENTRIES.iter().position(|entry| entry.name.as_bytes() == name);
        let (at, entry) = at.and_then(|at| Some((at, ENTRIES.get(at)?))).ok_or(Errno::ENOENT)?;
        if !table::is_in(entry, self.task.scope) {
            return Err(Errno::ENOENT);
        }
        Ok(table::make(entry, index(at), &self.task))
    }

    fn list(
        &self,
        _: &VfsCx<'_>,
        from: u64,
        emit: &mut dyn FnMut(u64, DirEntry<'_>) -> bool,
    ) -> Result<()> {
        self.task.get().map_err(|_| Errno::ENOENT)?;
        let skipped = usize::try_from(from).unwrap_or(usize::MAX);
        for (at, entry) in ENTRIES.iter().enumerate().skip(skipped) {
            let ino = inode_number(self.task.tid, index(at));
            let kind = table::kind(entry);
            let listed = DirEntry { ino, next: 0, kind, name: entry.name.as_bytes() };
            if table::is_in(entry, self.task.scope) && !emit(at as u64, listed) {
                break;
            }
        }
        Ok(())
    }

    fn subdirectories(&self) -> u32 {
        let dirs = ENTRIES.iter().filter(|entry| table::kind(entry) == FileType::Directory);
        dirs.filter(|entry| table::is_in(entry, self.task.scope)).count() as u32
    }
}

/// /proc/PID/task.
pub fn task_dir(task: &TaskRef, index: u64) -> Arc<dyn Inode> {
    let node = task.node(index, FileType::Directory, 0o555);
    DirInode::new(node, ThreadsDir { task: task.clone() })
}

struct ThreadsDir {
    task: TaskRef,
}

impl Children for ThreadsDir {
    fn lookup(&self, _: &VfsCx<'_>, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let tid = Tid(parse_number(name).ok_or(Errno::ENOENT)?);
        let thread = TaskRef::new(&self.task.shared, tid, Scope::Thread);
        let found = thread.get().map_err(|_| Errno::ENOENT)?;
        let ids = found.ids();
        if ids.tgid != self.task.tid || ids.tid != tid {
            return Err(Errno::ENOENT);
        }
        Ok(directory(thread))
    }

    fn list(
        &self,
        _: &VfsCx<'_>,
        from: u64,
        emit: &mut dyn FnMut(u64, DirEntry<'_>) -> bool,
    ) -> Result<()> {
        for tid in self.task.get().map_err(|_| Errno::ENOENT)?.threads() {
            let key = u64::try_from(tid.0).unwrap_or(0);
            let name = tid.to_string();
            let ino = inode_number(tid, 0);
            let entry = DirEntry { ino, next: 0, kind: FileType::Directory, name: name.as_bytes() };
            if key >= from && !emit(key, entry) {
                break;
            }
        }
        Ok(())
    }

    fn subdirectories(&self) -> u32 {
        self.task.get().map_or(0, |task| task.threads().len() as u32)
    }
}
