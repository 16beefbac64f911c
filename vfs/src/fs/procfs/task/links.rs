//! exe, cwd, root and ns/.

use std::sync::Arc;

use abi::stat::FileType;
use abi::{Errno, Result};

use super::TaskRef;
use super::fd::path_text;
use crate::context::VfsCx;
use crate::dentry::Path;
use crate::fs::kernfs::{DirInode, FixedDir, LinkInode};
use crate::fs::procfs::view::TaskView;
use crate::inode::{Inode, LinkTarget};

type Find = fn(&dyn TaskView) -> Option<Path>;

fn magic(task: &TaskRef, index: u64, find: Find) -> Arc<dyn Inode> {
    let look = move |task: &TaskRef, cx: &VfsCx<'_>| -> Result<Path> {
        find(&*task.inspect(cx)?).ok_or(Errno::ENOENT)
    };
    let (text_task, target_task) = (task.clone(), task.clone());
    LinkInode::magic(
        task.node(index, FileType::Symlink, 0o777),
        move |cx| look(&text_task, cx).map(|path| path_text(cx, &path)),
        move |cx| look(&target_task, cx).map(LinkTarget::Jump),
    )
}

pub fn exe(task: &TaskRef, index: u64) -> Arc<dyn Inode> {
    magic(task, index, |task| task.exe())
}

pub fn cwd(task: &TaskRef, index: u64) -> Arc<dyn Inode> {
    magic(task, index, |task| task.cwd())
}

pub fn root(task: &TaskRef, index: u64) -> Arc<dyn Inode> {
    magic(task, index, |task| task.root())
}

/// Namespaces and the numbers that Linux gives the first of each; there is one of each here.
const NAMESPACES: &[(&str, &str, u32)] = &[
    ("cgroup", "cgroup", 4_026_531_835),
    ("ipc", "ipc", 4_026_531_839),
    ("mnt", "mnt", 4_026_531_841),
    ("net", "net", 4_026_531_840),
    ("pid", "pid", 4_026_531_836),
    ("pid_for_children", "pid", 4_026_531_836),
    ("time", "time", 4_026_531_834),
    ("time_for_children", "time", 4_026_531_834),
    ("user", "user", 4_026_531_837),
    ("uts", "uts", 4_026_531_838),
];

pub fn ns_dir(task: &TaskRef, index: u64) -> Arc<dyn Inode> {
    let mut dir = FixedDir::new();
    for (at, (name, kind, number)) in NAMESPACES.iter().enumerate() {
        let node = task.node((index << 4) + 512 + at as u64, FileType::Symlink, 0o777);
        // Opening one would need a namespace object; nothing here can enter another.
        let link = LinkInode::magic(
            node,
            move |_| Ok(format!("{kind}:[{number}]").into_bytes()),
            |_| Err(Errno::EACCES),
        );
        dir = dir.with(*name, link);
    }
    DirInode::new(task.node(index, FileType::Directory, 0o511), dir)
}
