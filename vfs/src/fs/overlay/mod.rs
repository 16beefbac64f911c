//! overlay: a filesystem that nobody changes (the lower layer) under changes in memory.
//!
//! Linux's overlayfs keeps its changes in a directory of another filesystem, with whiteouts and redirects spelled as
//! device nodes and attributes. Here they are a tree in memory. A directory knows its *changes*: names that are gone
//! (whiteouts) and names that stand for a node (new, renamed or linked); all other names are the lower directory's.
//! A node stands for an object; it has a lower inode, an upper one (a nameless tmpfs inode), or both after copy-up:
//!
//! * attributes are copied up by the first change of them, bytes by the first write (or writable shared mapping);
//!   an open file sees them at once, but a mapping that was made before keeps the lower bytes;
//! * nodes of lower objects are found by the lower identity, so hard links stay one object after copy-up, and a
//!   renamed directory keeps its lower half without any redirect;
//! * a node that has changed is pinned: it stays even when no dentry refers to it.
//!
//! | module | what |
//! | --- | --- |
//! | `fs` | the filesystem; which node stands for which lower inode |
//! | `inode` | nodes: attributes, opening |
//! | `dir` | entries: lookup, create, remove, rename |
//! | `copy_up` | from lower to upper |
//! | `file`, `dir_file` | open files and directories |

mod copy_up;
mod dir;
mod dir_file;
mod file;
mod fs;
mod inode;
#[cfg(test)]
mod tests;

pub use fs::OverlayFs;
pub use inode::OverlayInode;
