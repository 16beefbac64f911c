//! What all guest code is told of absolute paths that are asked for again and again, by whomever: that there is no such file, that
//! it is no symbolic link, its attributes. Compilers, shells and interpreters ask the same few hundred questions in each process.
//!
//! Only what everybody could find out alike is told (`vfs::known_path`), seen from the first root, to those who have it for themselves. A
//! name that is remembered and goes, and a mount, end all of it (`vfs::names`), a change of a file its attributes (`vfs::Loan`).

use std::collections::VecDeque;
use std::sync::Arc;

use abi::stat::FileType;
use abi::statbuf::Stat;
use base::lock::Mutex;
use platform::{MOST_TOLD_PATH, PathAttributes, PathFact};
use vfs::known_path::{self, KnownPath};
use vfs::{Loan, MountFlags, Path};
use zerocopy::IntoBytes;

use crate::cx::Cx;
use crate::lock_order;
use crate::path_stats::{is_noted, was_asked};

/// As many attributes as are told at once.
const MOST: usize = 256;
const REMEMBERED: usize = 4096;
const UNTOLD: usize = 1024;

/// What was asked for, and told.
pub struct KnownPaths {
    /// Hashes of paths, each in its place.
    asked: Mutex<Box<[u32]>, lock_order::Leaf>,
    /// The same of what could not be told, with the names' number then.
    untold: Mutex<Box<[u32]>, lock_order::Leaf>,
    told: Mutex<VecDeque<Loan>, lock_order::Leaf>,
}

impl Default for KnownPaths {
    fn default() -> Self {
        let nothing = |places| Mutex::new(vec![0; places].into_boxed_slice());
        Self { asked: nothing(REMEMBERED), untold: nothing(UNTOLD), told: Mutex::default() }
    }
}

impl KnownPaths {
    /// Whether that was asked for before, and not much since.
    fn is_known(&self, text: &[u8]) -> bool {
        was_asked(&mut self.asked.lock(), text, 0)
    }

    fn keep(&self, loan: Loan) {
        let mut told = self.told.lock();
        told.push_back(loan);
        let former = if told.len() > MOST { told.pop_front() } else { None };
        drop(told);
        drop(former);
    }
}

/// What a call wanted to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Whether it is there, or a symbolic link.
    Kind,
    /// What it is, or what it leads to.
    Attributes { follows: bool },
}

impl Question {
    fn number(self) -> u32 {
        match self {
            Self::Kind => 0,
            Self::Attributes { follows } => 1 + u32::from(follows),
        }
    }
}

/// Whether the calling thread may be told what holds for everybody: its root is the first one, and nobody else changes it.
#[must_use]
pub fn are_for(cx: &Cx<'_>) -> bool {
    let fs = cx.fs();
    // One reference is the thread's, one its task's.
    let is_own = Arc::strong_count(&fs) == 2;
    is_own && first_root(cx).is_some_and(|first| fs.state.lock().root.is_same(&first))
}

fn first_root(cx: &Cx<'_>) -> Option<Path> {
    Some(cx.kernel.mounts.get()?.root())
}

/// To be called when a call has asked about `text`; `found`: it is there.
pub fn after_question(cx: &Cx<'_>, text: &[u8], question: Question, found: bool) {
    let is_candidate = text.first() == Some(&b'/')
        && text.len() <= MOST_TOLD_PATH
        && cx.context.knows_descriptors()
        && !cx.context.has_trapped();
    // Attributes of each file are asked for by who walks through a tree, and once.
    let is_cheap = question == Question::Kind || !found;
    let known = &cx.kernel.known_paths;
    if !is_candidate || !is_cheap && !known.is_known(text) {
        return;
    }
    // Where guests make files it is in vain each time, and costs as much as the call.
    let names = vfs::names::generation();
    let seed = (names as u32) << 2 | question.number();
    if is_noted(&mut known.untold.lock(), text, seed) || !are_for(cx) {
        return;
    }
    if tell(cx, names, text, question).is_none() {
        was_asked(&mut known.untold.lock(), text, seed);
    }
}

fn tell(cx: &Cx<'_>, names: u64, text: &[u8], question: Question) -> Option<()> {
    let platform = &cx.kernel.platform;
    let root = first_root(cx)?;
    // Again: the first changes came before there was anybody to tell.
    platform.forget_names(names);
    let what = (text, question == Question::Attributes { follows: true });
    let (at, is_linked) =
        match (cx.with_vfs(|vfs| known_path::look(vfs, &root, what, names))?, question) {
            (KnownPath::Absent, _) => {
                platform.tell_path(names, text, PathFact::Absent);
                return Some(());
            }
            (_, Question::Kind) => {
                platform.tell_path(names, text, PathFact::Plain);
                return Some(());
            }
            (KnownPath::Plain(at), _) => (at, false),
            (KnownPath::Linked(at), _) => (at, true),
        };
    let inode = at.inode();
    let attr = inode.attr().ok().filter(|_| inode.is_settled())?;
    let stat = Stat::from(&attr);
    let is_program = attr.file_type() == FileType::Regular;
    let fact = PathAttributes {
        stat: stat.as_bytes().try_into().ok()?,
        is_linked,
        is_readable: attr.mode & 0o444 == 0o444,
        is_runnable: attr.mode & 0o111 == 0o111
            && !(is_program && at.mount.flags().contains(MountFlags::NOEXEC)),
    };
    let told = platform.tell_path(names, text, PathFact::Attributes(fact))?;
    let loan = Loan::new(inode, told);
    // Now, for who changes it looks for loans then.
    if inode.is_settled() && inode.attr().is_ok_and(|now| now == attr) {
        cx.kernel.known_paths.keep(loan);
    }
    Some(())
}
