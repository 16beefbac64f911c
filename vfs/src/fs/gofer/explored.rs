//! What the gofer found on the ways that it was asked to look along, before anybody wants it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::stat::{Attr, FileType};
use gofer_protocol::Sightings;
use gofer_protocol::wire::{Decoded, Reader};

use super::inode::GoferInode;

/// A name in a directory, and what has it.
pub struct Explored {
    /// 0: the root; n: the n-th of all.
    dir: usize,
    name: Box<[u8]>,
    attr: Option<Attr>,
    link: Option<Box<[u8]>>,
    opened: Option<OwnedFd>,
}

pub fn decode(fields: Reader<'_>, fds: Vec<OwnedFd>) -> Decoded<Vec<Explored>> {
    let mut fds = fds.into_iter();
    Sightings::decode(fields)
        .map(|sighting| {
            let sighting = sighting?;
            Ok(Explored {
                dir: sighting.dir.into(),
                name: sighting.name.into(),
                attr: sighting.attr,
                link: sighting.link.map(Into::into),
                // There may have been no place for it.
                opened: if sighting.is_open { fds.next() } else { None },
            })
        })
        .collect()
}

/// Has the directories know it; only in a read-only tree. Answers the inodes, which keep what was learnt as long as
/// they live.
pub fn learn(root: &Arc<GoferInode>, explored: Vec<Explored>) -> Vec<Arc<GoferInode>> {
    let mut inodes: Vec<Option<Arc<GoferInode>>> = vec![Some(Arc::clone(root))];
    for Explored { dir, name, attr, link, opened } in explored {
        let dir = inodes.get(dir).cloned().flatten();
        let dir = dir.filter(|dir| dir.is(FileType::Directory));
        let inode = dir.and_then(|dir| match attr {
            Some(attr) => Some(dir.sighted(&name, attr, link, opened)),
            None => {
                dir.not_sighted(&name);
                None
            }
        });
        inodes.push(inode);
    }
    inodes.into_iter().flatten().collect()
}
