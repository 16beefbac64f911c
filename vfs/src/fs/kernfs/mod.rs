//! Building blocks of synthetic filesystems: directories, text files and links whose content is made when asked.
//!
//! Content may come from the sentry, whose locks rank above ours: nothing here calls a source under a lock, and text
//! files keep their own position so that the file description's position lock is not held either.
//!
//! | module | what |
//! | --- | --- |
//! | `node` | attributes that every synthetic inode has |
//! | `dir` | directories: fixed, made late, or computed |
//! | `text` | files with generated text, some of them writable |
//! | `link` | symbolic links, plain and magic |

mod dir;
mod link;
mod node;
mod text;

pub use dir::{Children, DirInode, FixedDir, LateDir};
pub use link::LinkInode;
pub use node::{Node, Owner, OwnerSource};
pub use text::{TextInode, TextSource};
