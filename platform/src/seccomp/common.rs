//! What the zygote has for all its children: the memory of their channels, and files that many programs map. Who inherits a
//! descriptor need not be given it.
//!
//! Every guest process may map these files, whoever it belongs to: see [`Platform::share`](crate::Platform::share) for which
//! they may be.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use shim_abi::{ARENA_FD, COMMON_FD};

use super::holdable::is_holdable;
use super::listener::Listener;
use super::region::Region;

/// Files at once.
const MOST: usize = 12;
/// Programs that use a file until it is worth it.
const ENOUGH: u32 = 3;
/// Files whose uses are counted.
const MOST_COUNTED: usize = 32;

/// A file in a guest process and its number there.
pub type Held = (Arc<OwnedFd>, u32);

/// See the module.
#[derive(Debug, Default)]
pub struct Common(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The memory in which the last channel was.
    arena: Option<Arc<OwnedFd>>,
    held: Vec<Held>,
    /// Which of them goes next.
    oldest: usize,
    /// Worth it, not there yet.
    wanted: VecDeque<Arc<OwnedFd>>,
    counted: Vec<(Weak<OwnedFd>, u32)>,
    /// Goes up with each file that is worth it.
    version: u64,
}

impl Common {
    /// A program uses this file.
    pub fn note_use(&self, file: &Arc<OwnedFd>) {
        let mut state = self.0.lock();
        let is_known = state.held.iter().any(|(held, _)| Arc::ptr_eq(held, file))
            || state.wanted.iter().any(|wanted| Arc::ptr_eq(wanted, file));
        if is_known {
            return;
        }
        let same = |known: &Weak<OwnedFd>| std::ptr::eq(known.as_ptr(), Arc::as_ptr(file));
        let Some(at) = state.counted.iter().position(|(known, _)| same(known)) else {
            if state.counted.len() >= MOST_COUNTED {
                state.counted.remove(0);
            }
            state.counted.push((Arc::downgrade(file), 1));
            return;
        };
        let Some((_, uses)) = state.counted.get_mut(at) else { return };
        *uses += 1;
        if *uses >= ENOUGH {
            state.counted.remove(at);
            if is_holdable(file) {
                state.wanted.push_back(Arc::clone(file));
                state.version += 1;
            }
        }
    }

    /// The files that its next child will have.
    pub fn held(&self) -> Vec<Held> {
        self.0.lock().held.clone()
    }

    /// The files that are worth it, there or not, for who makes copies of itself, and what number that knowledge has; `None`
    /// when it is that of `known`.
    pub fn news(&self, known: u64) -> Option<(u64, Vec<Arc<OwnedFd>>)> {
        let state = self.0.lock();
        let there = state.held.iter().map(|(file, _)| file);
        let all = there.chain(&state.wanted).map(Arc::clone);
        (state.version != known).then(|| (state.version, all.collect()))
    }

    /// Gives the zygote, which waits in this doorbell, what its next child needs. What fails is found out by that child, or by
    /// who gives it a file that it lacks.
    pub fn equip(&self, listener: &Listener, notification: u64, region: &Region) {
        let (has_arena, wanted) = {
            let mut state = self.0.lock();
            let arena = state.arena.as_ref();
            let has_arena = arena.is_some_and(|arena| Arc::ptr_eq(arena, region.fd()));
            (has_arena, std::mem::take(&mut state.wanted))
        };
        if has_arena && wanted.is_empty() {
            return;
        }
        // Not pulled to this CPU, where it would stay, and have all its children from then on: it is seldom.
        let install = |file: &Arc<OwnedFd>, number| {
            listener.add_fd_as(notification, file.as_raw_fd(), number).is_ok()
        };
        if !has_arena && install(region.fd(), ARENA_FD) {
            self.0.lock().arena = Some(Arc::clone(region.fd()));
        }
        for file in wanted {
            let at = self.0.lock().next_place();
            let number = COMMON_FD + at as u32;
            if install(&file, number) {
                self.0.lock().fill(at, (file, number));
            }
        }
    }
}

impl State {
    fn next_place(&self) -> usize {
        if self.held.len() < MOST { self.held.len() } else { self.oldest }
    }

    fn fill(&mut self, at: usize, held: Held) {
        match self.held.get_mut(at) {
            Some(place) => {
                *place = held;
                self.oldest = (at + 1) % MOST;
            }
            None => self.held.push(held),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Arc<OwnedFd> {
        Arc::new(std::fs::File::open("/proc/self/exe").unwrap().into())
    }

    #[test]
    fn a_file_is_wanted_once_after_some_uses() {
        let (common, used, other) = (Common::default(), file(), file());
        for _ in 0..ENOUGH - 1 {
            common.note_use(&used);
            common.note_use(&other);
        }
        assert!(common.0.lock().wanted.is_empty());
        for _ in 0..3 {
            common.note_use(&used);
        }
        let state = common.0.lock();
        assert_eq!(state.wanted.len(), 1);
        assert!(Arc::ptr_eq(&state.wanted[0], &used));
    }

    #[test]
    fn what_others_may_not_read_is_never_wanted() {
        let (common, writable) =
            (Common::default(), rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC));
        let writable = Arc::new(writable.unwrap());
        for _ in 0..2 * ENOUGH {
            common.note_use(&writable);
        }
        assert!(common.0.lock().wanted.is_empty());
    }

    #[test]
    fn uses_are_counted_of_so_many_files_only() {
        let common = Common::default();
        let files: Vec<_> = (0..2 * MOST_COUNTED).map(|_| file()).collect();
        for file in &files {
            common.note_use(file);
        }
        assert_eq!(common.0.lock().counted.len(), MOST_COUNTED);
    }
}
