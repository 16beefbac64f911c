//! The directory and its nodes.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use abi::ids::Gid;
use abi::open::OpenFlags;
use abi::stat::FileType;
use abi::{Errno, Result};
use base::cred::Credentials;
use base::lock::Mutex;

use super::DEV;
use crate::context::VfsCx;
use crate::file::{DirEntry, FileOps};
use crate::fs::devfs::{Device, DeviceInode};
use crate::fs::kernfs::{Children, Node, Owner};
use crate::inode::Inode;
use crate::lock_order;
use crate::tty::{Master, SlaveDevice, Terminals, Tty};

/// `/proc/sys/kernel/pty/max`.
const MAX_PAIRS: u32 = 4096;
/// Group that may write to terminals (write(1), wall(1)).
const TTY_GROUP: Gid = Gid(5);
const ROOT_KEY: u64 = 0;

/// The terminals that exist.
pub struct Nodes {
    terminals: Arc<Terminals>,
    map: Mutex<BTreeMap<u32, Arc<dyn Inode>>, lock_order::InodeState>,
}

impl Nodes {
    pub fn new(terminals: Arc<Terminals>) -> Arc<Self> {
        Arc::new(Self { terminals, map: Mutex::default() })
    }

    /// A locked pair with its node.
    pub fn new_pair(self: &Arc<Self>, cred: &Credentials) -> Result<Arc<Master>> {
        let tty = {
            let mut map = self.map.lock();
            let index =
                (0..MAX_PAIRS).find(|index| !map.contains_key(index)).ok_or(Errno::ENOSPC)?;
            let tty = Tty::new(index, Arc::clone(&self.terminals));
            let node = Node::new(DEV, u64::from(index) + 3, FileType::Character, 0o620)
                .device(tty.rdev())
                .owned_by(Owner::Is(cred.fsuid, TTY_GROUP));
            let device = Arc::new(SlaveDevice::new(Arc::clone(&tty)));
            map.insert(index, DeviceInode::new(node, device));
            tty
        };
        let nodes: Weak<Self> = Arc::downgrade(self);
        let forget = move |tty: &Tty| {
            let gone = nodes.upgrade().and_then(|nodes| nodes.map.lock().remove(&tty.index()));
            drop(gone);
        };
        Ok(Master::new(tty, Some(Box::new(forget))))
    }
}

/// What opening the multiplexer does: a new pair each time.
pub struct Multiplexer {
    pub nodes: Arc<Nodes>,
}

impl Device for Multiplexer {
    fn open(&self, cx: &VfsCx<'_>, _: OpenFlags) -> Result<Arc<dyn FileOps>> {
        Ok(self.nodes.new_pair(cx.cred)?)
    }
}

pub struct PtsDir {
    pub nodes: Arc<Nodes>,
    pub ptmx: Arc<dyn Inode>,
}

impl Children for PtsDir {
    fn lookup(&self, _: &VfsCx<'_>, name: &[u8]) -> Result<Arc<dyn Inode>> {
        if name == b"ptmx" {
            return Ok(Arc::clone(&self.ptmx));
        }
        let text = std::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
        let index: u32 = text.parse().map_err(|_| Errno::ENOENT)?;
        if index.to_string() != text {
            return Err(Errno::ENOENT);
        }
        self.nodes.map.lock().get(&index).cloned().ok_or(Errno::ENOENT)
    }

    fn list(
        &self,
        _: &VfsCx<'_>,
        from: u64,
        emit: &mut dyn FnMut(u64, DirEntry<'_>) -> bool,
    ) -> Result<()> {
        let (ino, kind) = (2, FileType::Character);
        let ptmx = DirEntry { ino, next: 0, kind, name: b"ptmx" };
        if from == ROOT_KEY && !emit(ROOT_KEY, ptmx) {
            return Ok(());
        }
        let indices: Vec<u32> = self.nodes.map.lock().keys().copied().collect();
        for index in indices {
            let (key, name) = (u64::from(index) + 1, index.to_string());
            let ino = u64::from(index) + 3;
            let entry = DirEntry { ino, next: 0, kind, name: name.as_bytes() };
            if key >= from && !emit(key, entry) {
                break;
            }
        }
        Ok(())
    }
}
