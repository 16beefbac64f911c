//! Files and directories that guest code may open without a call, because it is likely to do so next.
//!
//! Who opens names of a directory, in the order of its listing, goes on so, and down into directories and up again. After such a call,
//! while guest code runs on already, what comes next is opened, and read, or listed: the platform lays it ready, and guest code finds
//! it by its name and its directory's descriptor (`platform::Ready`). Only what nobody but us changes, which everybody may read, and
//! only for a thread that is alone with its descriptors. What was opened so is told by a note, and is an open file then as any other.
//!
//! A *refill* runs on a thread beside the workers when there is a CPU for it (`executor::aside`): the guest's calls are answered
//! meanwhile. Both find the state under its lock; a place that is being filled is marked, and whoever takes the state away has the
//! refill end before ([`ReadyFiles::settle`]).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use abi::ids::Fd;
use abi::open::OpenFlags;
use abi::stat::FileType;
use base::Lent;
use base::lock::Mutex;
use platform::{
    MOST_DIR, MOST_READY_BYTES, MOST_READY_BYTES_OF_TWO, MOST_READY_NAME, READY_FILES, ReadyLoan,
};
use vfs::ops::OpenedAhead;
use vfs::{File, Loan, Path};

use self::refill::Refill;
use self::turn::Turn;
use crate::cx::Cx;
use crate::executor::aside::Work;
use crate::kernel::Kernel;
use crate::lock_order;
use crate::syscalls::args::DirFd;
use crate::syscalls::descriptor::PathAt;
use crate::task::Thread;

mod refill;
mod turn;

/// Opens in directories that must have been calls before anything is laid ready.
const SURE_AFTER: u32 = 4;
/// So many are laid ready at first, and at most, of directories or of files, too: then there is room for those that are open.
const FIRST_REACH: usize = 4;
const MOST_DIRS_AHEAD: usize = 24;
const MOST_FILES_AHEAD: usize = 48;
/// Directories that have a number.
const MOST_DIRS: usize = 512;
/// So many get one at most between two opens that are calls, or nearly.
const ROOM_FOR_DIRS: u32 = 1 << 14;
/// The guest is to say when so many are left of what lies ready, a share of it: when it waits for what is laid, and when it does not.
const LOW_SHARE: usize = 4;
const LOW_SHARE_ASIDE: usize = 2;
/// So many opens by calls while a refill is aside say that it was late. Then so many are not aside.
const LATE: u32 = 8;
const LEAST_PENALTY: u32 = 8;
const MOST_PENALTY: u32 = 128;

/// What lies ready for a thread. Its own affair.
#[derive(Default)]
pub struct ReadyFiles {
    state: Mutex<Option<Box<State>>, lock_order::Leaf>,
    /// There is something to do after the answer.
    is_wanted: AtomicBool,
    /// A refill is underway, or not.
    turn: Turn,
}

#[derive(Default)]
struct State {
    places: Places,
    dirs: HashMap<(usize, usize), Dir>,
    last_dir: u32,
    /// What was opened last: in which directory, by which name, and itself if it is a directory.
    wanted: Option<(Path, Arc<[u8]>, Option<Path>)>,
    /// How many to have ready; 0: it did not pay.
    reach: usize,
    /// Opens by calls since then.
    calls: u32,
    /// Not opened yet, as far as was told; and with how few more are to come.
    left: usize,
    low: usize,
    /// Laid ready, and opened of these, since the last refill.
    laid: usize,
    opened: usize,
    /// Regular files are opened, too, not only directories.
    opens_files: bool,
    /// Refills that are not to be aside yet, and how many it will be the next time.
    not_aside: u32,
    penalty: u32,
}

/// A directory that has a number; held, for the address of nothing else to become that of its dentry.
struct Dir {
    number: u32,
    _path: Path,
}

/// A place that is being filled, the number of the directory that it is found in, and its own if it is one.
struct Claim {
    place: usize,
    dir: u32,
    own: u32,
    /// Bytes that there is room for.
    most: usize,
}

/// See [`State::tidy`].
#[derive(Default)]
struct Garbage(Vec<Place>, HashMap<(usize, usize), Dir>);

struct Places([Place; READY_FILES]);

impl Default for Places {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Place::Free))
    }
}

#[derive(Default)]
enum Place {
    #[default]
    Free,
    /// A refill fills it now.
    Laying,
    Ready(Box<Prepared>),
    /// The one before it has its bytes.
    Lent,
    /// It is an open file.
    Open(Weak<dyn ReadyLoan>),
}

struct Prepared {
    opened: OpenedAhead,
    loan: Loan,
    ready: Arc<dyn ReadyLoan>,
    names: u64,
    dir: u32,
    /// Its directory.
    above: Path,
    name: Arc<[u8]>,
}

/// To be called when a call has opened `file` for reading, as `at` says: considers what comes next.
pub fn after_open(cx: &Cx<'_>, dir: DirFd, at: &PathAt, file: &File) {
    let Some(start) = at.start.as_ref().filter(|_| is_name(&at.text)) else { return };
    let kind = file.inode().file_type();
    let is_thing = matches!(kind, FileType::Regular | FileType::Directory);
    let is_plain = is_thing && !file.flags().writes() && !file.flags().contains(OpenFlags::PATH);
    if !is_plain || cx.context.has_trapped() || !cx.context.knows_descriptors() {
        return;
    }
    // What can be unmounted must not be held.
    let is_fixed = start.mount.mount_point().is_none();
    if !is_fixed || !start.inode().is_settled() || !file.inode().is_settled() {
        return;
    }
    let files = cx.files();
    let mm = cx.mm();
    if !mm.is_alone() || !mm.borrows_from(files.id()) {
        return;
    }
    let mut held = cx.thread.ready.state.lock();
    if held.as_ref().is_some_and(|state| state.last_dir > MOST_DIR - ROOM_FOR_DIRS) {
        // Numbers begin anew: guest code is told of all its descriptors with the answer.
        drop(held);
        cx.thread.ready.forget();
        files.look_again();
        held = cx.thread.ready.state.lock();
    }
    let state = held.get_or_insert_default();
    state.calls = state.calls.saturating_add(1);
    if state.reach == 0 {
        if state.calls < SURE_AFTER {
            return;
        }
        state.reach = FIRST_REACH;
    }
    state.opens_files |= kind == FileType::Regular;
    let child = (kind == FileType::Directory).then(|| file.path().clone());
    // Both get their numbers now, for guest code to be told of them with the answer.
    state.number(start);
    if let Some(child) = &child {
        state.number(child);
    }
    state.wanted = Some((start.clone(), at.text.as_slice().into(), child));
    drop(held);
    cx.thread.ready.is_wanted.store(true, Ordering::Relaxed);
    cx.thread.run.set_lends(true);
    files.look_again_at(dir.0);
}

/// One component of a path, short enough.
fn is_name(text: &[u8]) -> bool {
    let is_short = (1..MOST_READY_NAME).contains(&text.len());
    is_short && !text.contains(&b'/') && !matches!(text, b"." | b"..")
}

/// To be called while guest code goes on after its call, when something [is wanted](ReadyFiles::is_wanted).
pub fn after_answer(kernel: &Kernel, thread: &Arc<Thread>) {
    let Some(mm) = thread.mm_if_alive() else { return };
    let Some((number, may_be_aside)) = thread.ready.begin() else { return };
    let is_aside = may_be_aside && kernel.platform.has_cpu_aside();
    // A copy: who counts the references of its own shall not find ours.
    let (cred, fs) = (thread.cred(), thread.fs().duplicate());
    let (of, platform) = (Arc::clone(thread), Arc::clone(&kernel.platform));
    let work: Work = Box::new(move || {
        let ready = &of.ready;
        if !ready.turn.start(number) {
            return;
        }
        loop {
            let names = vfs::names::generation();
            // Again: the first changes came before there was anybody to tell.
            platform.forget_names(names);
            of.with_parts(&cred, &fs, |vfs| {
                let (space, brings) = (&**mm.space(), of.brings());
                Refill { ready, space, vfs, names, brings, is_aside }.run();
            });
            if !ready.has_more() {
                break;
            }
        }
        // Before it is quiet, for who waits for that gives them up.
        drop((cred, fs, mm));
        ready.end();
    });
    if !is_aside {
        work();
    } else if let Err(work) = kernel.executor.aside().run(&kernel.platform, work) {
        work();
    }
}

/// Guest code has opened what lay ready at `place`, or says so.
pub fn opened(thread: &Thread, place: usize, fd: Fd, flags: OpenFlags) {
    let mut held = thread.ready.settled(place);
    let Some(state) = held.as_mut() else { return };
    let Some(at) = state.places.0.get_mut(place) else { return };
    let Place::Ready(prepared) = at else { return };
    let is_open = Place::Open(Arc::downgrade(&prepared.ready));
    let Place::Ready(prepared) = std::mem::replace(at, is_open) else { return };
    state.opened += 1;
    state.left = state.left.saturating_sub(1);
    if state.left <= state.low {
        let path = prepared.opened.path();
        let child = (path.inode().file_type() == FileType::Directory).then(|| path.clone());
        state.wanted = Some((prepared.above.clone(), Arc::clone(&prepared.name), child));
        thread.ready.is_wanted.store(true, Ordering::Relaxed);
    }
    drop(held);
    let Prepared { opened, loan, ready, .. } = *prepared;
    ready.opened(fd.0.cast_unsigned());
    let file = opened.finish(flags | OpenFlags::LARGEFILE);
    let cloexec = flags.contains(OpenFlags::CLOEXEC);
    let lent: Arc<dyn Lent> = ready;
    let _ = thread.files().adopt(&file, cloexec, fd, (loan, lent));
}

impl ReadyFiles {
    /// The number by which guest code knows a directory, 0 if it does not.
    pub fn number_of(&self, key: (usize, usize)) -> u32 {
        let held = self.state.lock();
        held.as_ref().and_then(|state| state.dirs.get(&key)).map_or(0, |dir| dir.number)
    }

    /// There is something to do after the next answer.
    pub fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed)
    }

    /// Nothing that lies there holds any more. For the thread itself, as all that ends a refill.
    pub fn forget(&self) {
        self.settle();
        let former = self.state.lock().take();
        let Some(former) = former else { return };
        // An open file needs its place as long as it is lent, and there may be a next time for the others.
        let Places(former) = former.places;
        let mut is_kept = false;
        let kept = former.map(|place| match place {
            Place::Open(ready) if ready.upgrade().is_some_and(|ready| !ready.is_over()) => {
                is_kept = true;
                Place::Open(ready)
            }
            Place::Lent if is_kept => Place::Lent,
            _ => {
                is_kept = false;
                Place::Free
            }
        });
        if kept.iter().any(|place| matches!(place, Place::Open(_))) {
            let next = State { places: Places(kept), ..State::default() };
            *self.state.lock() = Some(Box::new(next));
        }
    }

    /// A refill that is underway ends first.
    pub fn settle(&self) {
        self.turn.settle();
    }

    /// The state, when this place is not being filled.
    fn settled(&self, place: usize) -> Held<'_> {
        loop {
            let held = self.state.lock();
            let is_laying = held
                .as_ref()
                .and_then(|state| state.places.0.get(place))
                .is_some_and(|place| matches!(place, Place::Laying));
            if !is_laying || !self.turn.is_running() {
                return held;
            }
            // Guest code was very quick, or lies: it takes some microseconds.
            drop(held);
            std::thread::yield_now();
        }
    }

    /// A refill is to begin: its number, and whether it may be aside. `None`: there is one, which will see what is wanted, or nothing
    /// to do.
    fn begin(&self) -> Option<(u64, bool)> {
        self.is_wanted.store(false, Ordering::Relaxed);
        let mut held = self.state.lock();
        let state = held.as_mut()?;
        // The thread aside does not come to it: it may lack a CPU.
        let is_late = state.calls >= LATE;
        let is_very_late = state.calls >= 2 * LATE;
        let Some(number) = self.turn.queue(is_late) else {
            drop(held);
            if is_very_late {
                // It has lost its CPU in the midst of it, perhaps to us.
                self.turn.wait();
            }
            return None;
        };
        if is_late {
            state.judge_aside();
        }
        Some((number, state.may_refill_aside()))
    }

    /// Whether something is wanted again.
    fn has_more(&self) -> bool {
        let held = self.state.lock();
        held.as_ref().is_some_and(|state| state.wanted.is_some()) && !self.turn.must_stop()
    }

    /// The refill is through.
    fn end(&self) {
        let held = self.state.lock();
        if held.as_ref().is_some_and(|state| state.wanted.is_some()) {
            self.is_wanted.store(true, Ordering::Relaxed);
        }
        self.turn.end();
    }

    /// For a moment, and without what takes further locks.
    fn with_state<R>(&self, f: impl FnOnce(&mut State) -> R) -> Option<R> {
        self.state.lock().as_mut().map(|state| f(state))
    }
}

type Held<'h> = base::lock::MutexGuard<'h, Option<Box<State>>>;

impl State {
    /// The directory's number, a new one if need be; 0 when there is none left.
    fn number(&mut self, path: &Path) -> u32 {
        if let Some(dir) = self.dirs.get(&path.key()) {
            return dir.number;
        }
        if self.last_dir >= MOST_DIR || self.dirs.len() >= MOST_DIRS {
            return 0;
        }
        self.last_dir += 1;
        let dir = Dir { number: self.last_dir, _path: path.clone() };
        self.dirs.insert(path.key(), dir);
        self.last_dir
    }

    /// Makes room: what does not hold any more goes, and what is not open any more. Answers what is to be dropped without the lock.
    fn tidy(&mut self, names: u64) -> Garbage {
        let mut garbage = Garbage::default();
        let mut is_free = false;
        for place in &mut self.places.0 {
            let is_over = match place {
                Place::Free | Place::Laying => false,
                Place::Lent => is_free,
                Place::Ready(prepared) => {
                    if prepared.names != names && !prepared.ready.was_opened() {
                        prepared.ready.end();
                    }
                    prepared.ready.is_gone()
                }
                Place::Open(ready) => ready.upgrade().is_none_or(|ready| ready.is_over()),
            };
            if is_over {
                garbage.0.push(std::mem::take(place));
            }
            is_free = matches!(place, Place::Free);
        }
        // Those that lie ready keep theirs by being found nowhere: numbers are not used twice.
        if self.dirs.len() >= MOST_DIRS {
            garbage.1 = std::mem::take(&mut self.dirs);
        }
        garbage
    }

    /// What lies ready under that name already, and its place.
    fn find(&self, dir: &Path, name: &[u8]) -> Option<(usize, Path)> {
        let number = self.dirs.get(&dir.key())?.number;
        let mut there = self.ready();
        let (place, known) =
            there.find(|(_, ready)| ready.dir == number && *ready.name == *name)?;
        Some((place, known.opened.path().clone()))
    }

    fn has_place(&self) -> bool {
        self.places.0.iter().any(|place| matches!(place, Place::Free))
    }

    /// A place for a file of `dir`, or for the directory `own` in it, and their numbers; if possible one with the bytes of two.
    fn begin_place(&mut self, dir: &Path, own: Option<&Path>, wants_two: bool) -> Option<Claim> {
        let is_free = |place: &Place| matches!(place, Place::Free);
        let mut pairs = self.places.0.as_chunks::<2>().0.iter();
        let pair = if wants_two { pairs.position(|pair| pair.iter().all(is_free)) } else { None };
        let place = match pair {
            Some(pair) => 2 * pair,
            None => self.places.0.iter().position(is_free)?,
        };
        let dir = Some(self.number(dir)).filter(|number| *number != 0)?;
        let own = own.map_or(0, |own| self.number(own));
        *self.places.0.get_mut(place)? = Place::Laying;
        let most = if pair.is_some() { MOST_READY_BYTES_OF_TWO } else { MOST_READY_BYTES };
        if pair.is_some() {
            *self.places.0.get_mut(place + 1)? = Place::Lent;
        }
        Some(Claim { place, dir, own, most })
    }

    /// It is filled, or was not.
    fn end_place(&mut self, place: usize, prepared: Option<Box<Prepared>>) {
        let is_laid = prepared.is_some();
        self.laid += usize::from(is_laid);
        if let Some(at) = self.places.0.get_mut(place) {
            *at = prepared.map_or(Place::Free, Place::Ready);
        }
        if let Some(next @ Place::Lent) = self.places.0.get_mut(place + 1)
            && !is_laid
        {
            *next = Place::Free;
        }
    }

    /// What lies ready and was not opened, with its place.
    fn ready(&self) -> impl Iterator<Item = (usize, &Prepared)> {
        self.places.0.iter().enumerate().filter_map(|(at, place)| match place {
            Place::Ready(prepared) if !prepared.ready.was_opened() => Some((at, &**prepared)),
            _ => None,
        })
    }

    /// What is not `near` will not be opened soon.
    fn end_others(&mut self, near: u64) {
        for (_, prepared) in self.ready().filter(|(place, _)| near & 1u64 << place == 0) {
            prepared.ready.end();
        }
    }

    /// Whether a refill may be aside. Listings take that thread several times as long as the guest, which would be there first.
    fn may_refill_aside(&mut self) -> bool {
        let is_early = self.not_aside > 0;
        self.not_aside = self.not_aside.saturating_sub(1);
        self.opens_files && !is_early
    }

    /// A refill aside has ended: the guest had to wait for what it was to bring, or not. That thread may lack a CPU.
    fn judge_aside(&mut self) {
        if self.calls < LATE {
            self.penalty = LEAST_PENALTY;
        } else {
            self.penalty = self.penalty.clamp(LEAST_PENALTY, MOST_PENALTY);
            self.not_aside = self.penalty;
            self.penalty *= 2;
        }
    }

    /// How many to lay ready from now on: more when most were opened, none when hardly any.
    fn adapt(&mut self) {
        let (laid, opened) = (std::mem::take(&mut self.laid), std::mem::take(&mut self.opened));
        let most = if self.opens_files { MOST_FILES_AHEAD } else { MOST_DIRS_AHEAD };
        if laid > 0 {
            self.reach = match opened {
                _ if opened * 2 >= laid => (self.reach * 2).min(most),
                _ if opened * 8 >= laid => self.reach,
                _ => self.reach / 2,
            };
        }
        self.calls = 0;
    }
}
