//! Directories built from the paths of their files.

use std::collections::BTreeMap;
use std::sync::Arc;

use abi::stat::FileType;

use super::DEV;
use crate::context::VfsCx;
use crate::fs::kernfs::{DirInode, FixedDir, LinkInode, Node, TextInode};
use crate::inode::Inode;

/// What stat(2) says of every file's size in sysfs.
const FILE_SIZE: u64 = 4096;

/// A directory under construction.
#[derive(Default)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
}

enum Entry {
    Dir(Tree),
    File(String),
    Link(String),
}

impl Tree {
    /// A file with fixed text; the newline is added.
    pub fn file(&mut self, path: &str, text: impl std::fmt::Display) {
        self.put(path, Entry::File(format!("{text}\n")));
    }

    pub fn link(&mut self, path: &str, target: &str) {
        self.put(path, Entry::Link(target.to_owned()));
    }

    pub fn dir(&mut self, path: &str) {
        self.put(path, Entry::Dir(Self::default()));
    }

    fn put(&mut self, path: &str, entry: Entry) {
        let Some((first, rest)) = path.split_once('/') else {
            self.entries.entry(path.to_owned()).or_insert(entry);
            return;
        };
        let dir =
            self.entries.entry(first.to_owned()).or_insert_with(|| Entry::Dir(Self::default()));
        if let Entry::Dir(dir) = dir {
            dir.put(rest, entry);
        }
    }

    fn finish(self) -> Arc<dyn Inode> {
        DirInode::new(Node::numbered(DEV, FileType::Directory, 0o755), self.children())
    }

    /// What is in the directory.
    pub fn children(self) -> FixedDir {
        let mut dir = FixedDir::new();
        for (name, entry) in self.entries {
            let inode: Arc<dyn Inode> = match entry {
                Entry::Dir(tree) => tree.finish(),
                Entry::File(text) => {
                    let node = Node::numbered(DEV, FileType::Regular, 0o444);
                    let show = move |_: &VfsCx<'_>| Ok(text.clone().into_bytes());
                    TextInode::with_size(node, FILE_SIZE, show)
                }
                Entry::Link(target) => {
                    LinkInode::to(Node::numbered(DEV, FileType::Symlink, 0o777), target)
                }
            };
            dir = dir.with(name, inode);
        }
        dir
    }
}
