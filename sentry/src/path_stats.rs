//! What guest code is told of paths that it asks for again and again: it answers stat(2) of them by itself, until something changes.
//!
//! Only of absolute paths that are what they say (no symbolic link, no dots) and lead to what nobody but us changes. A name or a mount
//! that goes ends all answers (`vfs::names`), a change of the file its own (`vfs::Loan`), other credentials or another root those of
//! their thread.

use std::collections::VecDeque;
use std::sync::Arc;

use abi::stat::{Attr, FileType};
use abi::statbuf::Stat;
use base::Lent;
use vfs::dentry::path_string;
use vfs::{Loan, Path};
use zerocopy::IntoBytes;

use crate::cx::Cx;

/// Longer ones are not told, nor looked at here.
const LONGEST: usize = 150;
/// As many as guest code can know.
const MOST: usize = 16;
const REMEMBERED: usize = 32;

/// What a thread has asked for, and was told.
#[derive(Default)]
pub struct PathHabit {
    /// Hashes of paths, each in its place.
    asked: [u32; REMEMBERED],
    told: VecDeque<Loan>,
}

impl PathHabit {
    /// Whether that was asked for before, and not much since.
    fn is_known(&mut self, text: &[u8], follows: bool) -> bool {
        was_asked(&mut self.asked, text, u32::from(follows))
    }

    /// Takes one up; who has to go for it, to be dropped without a lock.
    fn keep(&mut self, loan: Loan) -> Option<Loan> {
        self.told.push_back(loan);
        if self.told.len() > MOST { self.told.pop_front() } else { None }
    }

    /// All that was told, to be dropped without a lock.
    pub fn take_told(&mut self) -> VecDeque<Loan> {
        std::mem::take(&mut self.told)
    }
}

/// Whether that text (with that seed) was asked for before, and not much since: `asked` has hashes, each in its place.
pub fn was_asked(asked: &mut [u32], text: &[u8], seed: u32) -> bool {
    let (place, hash) = place_of(asked, text, seed);
    place.is_some_and(|place| std::mem::replace(place, hash) == hash)
}

/// The same without asking for it.
pub fn is_noted(asked: &mut [u32], text: &[u8], seed: u32) -> bool {
    let (place, hash) = place_of(asked, text, seed);
    place.is_some_and(|place| *place == hash)
}

fn place_of<'a>(asked: &'a mut [u32], text: &[u8], seed: u32) -> (Option<&'a mut u32>, u32) {
    let mix = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let hash = text.iter().fold(0x811c_9dc5 ^ seed, mix);
    let at = (hash as usize).checked_rem(asked.len());
    (at.and_then(|at| asked.get_mut(at)), hash)
}

/// To be called when `text` was found to be `at`; `names` as of before it was looked for.
pub fn after_stat(cx: &Cx<'_>, names: u64, text: &[u8], follows: bool, at: &Path, attr: &Attr) {
    let is_candidate = text.first() == Some(&b'/')
        && text.len() <= LONGEST
        && !cx.context.has_trapped()
        && cx.context.knows_descriptors()
        && at.inode().is_settled();
    if !is_candidate || !cx.thread.path_habit.lock().is_known(text, follows) {
        return;
    }
    let kind = attr.file_type();
    let is_plain = matches!(kind, FileType::Regular | FileType::Directory | FileType::Symlink);
    let fs = cx.fs();
    // One reference is the thread's, one its task's: nobody else changes the root.
    let is_own_root = Arc::strong_count(&fs) == 2;
    let root = fs.state.lock().root.clone();
    if !is_plain || !is_own_root {
        return;
    }
    // First the marks: who changes a name looks for them then.
    if !vfs::names::remember(at, names) || path_string(&root, at) != text {
        return;
    }
    let stat = Stat::from(attr);
    let Ok(stat) = stat.as_bytes().try_into() else { return };
    // Again: the first changes came before there was anybody to tell.
    cx.kernel.platform.forget_names(names);
    let Some(told) = cx.mm().space().tell_stat(names, (text, follows), stat) else { return };
    let lent: Arc<dyn Lent> = told;
    let loan = Loan::new(at.inode(), lent);
    // Now, for who changes it looks for loans then.
    if at.inode().is_settled() && at.inode().attr().is_ok_and(|now| now == *attr) {
        let former = cx.thread.path_habit.lock().keep(loan);
        drop(former);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_noted_with_their_seed_until_others_take_their_place() {
        let mut noted = [0; 8];
        assert!(!is_noted(&mut noted, b"/a", 1));
        assert!(!was_asked(&mut noted, b"/a", 1));
        assert!(is_noted(&mut noted, b"/a", 1) && was_asked(&mut noted, b"/a", 1));
        assert!(!is_noted(&mut noted, b"/a", 2) && !is_noted(&mut noted, b"/b", 1));
        for number in 0..100 {
            was_asked(&mut noted, format!("/{number}").as_bytes(), 1);
        }
        assert!(!is_noted(&mut noted, b"/a", 1));
        assert!(!was_asked(&mut [], b"/a", 1));
    }
}
