//! The top directory of /proc.

use std::sync::Arc;

use abi::ids::Tid;
use abi::stat::FileType;
use abi::{Errno, Result};

use super::task::{self, TaskRef};
use super::view::Scope;
use super::{DEV, Shared, net, sys, system};
use crate::context::VfsCx;
use crate::file::DirEntry;
use crate::fs::kernfs::{Children, DirInode, FixedDir, LinkInode, Node};
use crate::inode::Inode;

/// Keys of processes in the listing start here.
const FIRST_PROCESS: u64 = 256;
const ROOT_INO: u64 = 1;

pub fn make(shared: &Arc<Shared>) -> Arc<dyn Inode> {
    let link = |text| LinkInode::to(shared.node(FileType::Symlink, 0o777), text);
    let own = LinkInode::new(shared.node(FileType::Symlink, 0o777), |cx| {
        Ok(cx.caller.tgid.to_string().into_bytes())
    });
    let own_thread = LinkInode::new(shared.node(FileType::Symlink, 0o777), |cx| {
        Ok(format!("{}/task/{}", cx.caller.tgid, cx.caller.tid).into_bytes())
    });
    let fixed = FixedDir::new().with("self", own).with("thread-self", own_thread);
    let fixed = fixed.with("mounts", link("self/mounts")).with("net", link("self/net"));
    let fixed = fixed.with("sys", sys::make(shared));
    let fixed = system::add_to(fixed, shared);
    let node = Node::new(DEV, ROOT_INO, FileType::Directory, 0o555).born_at(shared.boot);
    DirInode::new(node, Root { fixed, shared: Arc::clone(shared) })
}

struct Root {
    fixed: FixedDir,
    shared: Arc<Shared>,
}

/// A number as the names of processes and descriptors are written: decimal, no sign, no leading zero.
pub(super) fn parse_number(name: &[u8]) -> Option<i32> {
    let is_plain = name.first().is_some_and(|first| *first != b'0' || name.len() == 1)
        && name.iter().all(u8::is_ascii_digit);
    is_plain.then(|| std::str::from_utf8(name).ok()?.parse().ok()).flatten()
}

impl Children for Root {
    fn lookup(&self, cx: &VfsCx<'_>, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let Some(tid) = parse_number(name) else { return self.fixed.lookup(cx, name) };
        let task = TaskRef::new(&self.shared, Tid(tid), Scope::Process);
        task.get().map_err(|_| Errno::ENOENT)?;
        Ok(task::directory(task))
    }

    fn list(
        &self,
        cx: &VfsCx<'_>,
        from: u64,
        emit: &mut dyn FnMut(u64, DirEntry<'_>) -> bool,
    ) -> Result<()> {
        let mut goes_on = true;
        if from < FIRST_PROCESS {
            self.fixed.list(cx, from, &mut |key, entry| {
                goes_on = emit(key, entry);
                goes_on
            })?;
        }
        for tid in self.shared.view.processes() {
            let key = FIRST_PROCESS + u64::try_from(tid.0).unwrap_or(0);
            if !goes_on || key < from {
                continue;
            }
            let name = tid.to_string();
            let ino = task::inode_number(tid, 0);
            let entry = DirEntry { ino, next: 0, kind: FileType::Directory, name: name.as_bytes() };
            goes_on = emit(key, entry);
        }
        Ok(())
    }

    fn subdirectories(&self) -> u32 {
        self.fixed.subdirectories() + self.shared.view.processes().len() as u32
    }
}

/// /proc/PID/net lives in `net`, but every process shares it.
pub(super) fn net_dir(shared: &Arc<Shared>) -> Arc<dyn Inode> {
    net::make(shared)
}
