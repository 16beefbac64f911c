//! Files and directories that guest code may open without a call, because it is likely to do so next.
//!
//! Who opens names of a directory, in the order of its listing, goes on so, and down into directories and up again. After such a call,
//! while guest code runs on already, what comes next is opened, and read, or listed: the platform lays it ready, and guest code finds
//! it by its name and its directory's descriptor (`platform::Ready`). Only what nobody but us changes, which everybody may read, and
//! only for a thread that is alone with its descriptors. What was opened so is told by a note, and is an open file then as any other.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use abi::ids::Fd;
use abi::open::OpenFlags;
use abi::stat::FileType;
use abi::statbuf::Stat;
use base::Lent;
use base::lock::Mutex;
use platform::{
    AddressSpace, Contents, MOST_DIR, MOST_READY_BYTES, MOST_READY_NAME, READY_FILES, Ready,
    ReadyLoan,
};
use vfs::ops::OpenedAhead;
use vfs::{File, Loan, Path, VfsCx};
use zerocopy::IntoBytes;

use crate::cx::Cx;
use crate::kernel::Kernel;
use crate::lock_order;
use crate::syscalls::args::DirFd;
use crate::syscalls::descriptor::PathAt;
use crate::syscalls::dir::push_record;
use crate::task::Thread;

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
/// Names looked at for one refill.
const MOST_LOOKS: usize = 256;
const READABLE_BY_ALL: u32 = 0o004;

/// What lies ready for a thread. Its own affair.
#[derive(Default)]
pub struct ReadyFiles {
    state: Mutex<Option<Box<State>>, lock_order::Leaf>,
    /// There is something to do after the answer.
    is_wanted: AtomicBool,
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
}

/// A directory that has a number; held, for the address of nothing else to become that of its dentry.
struct Dir {
    number: u32,
    _path: Path,
}

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
    Ready(Box<Prepared>),
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
        let former = held.take();
        drop(held);
        drop(former);
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
pub fn after_answer(kernel: &Kernel, thread: &Thread) {
    let ready = &thread.ready;
    ready.is_wanted.store(false, Ordering::Relaxed);
    // Taken out, for files are opened without that lock.
    let Some(mut state) = ready.state.lock().take() else { return };
    let Some(mm) = thread.mm_if_alive() else { return };
    let names = vfs::names::generation();
    // Again: the first changes came before there was anybody to tell.
    kernel.platform.forget_names(names);
    thread.with_vfs(|vfs| {
        Refill { state: &mut state, space: &**mm.space(), vfs, names, brings: thread.brings() }
            .run();
    });
    let former = ready.state.lock().replace(state);
    drop(former);
}

/// Guest code has opened what lay ready at `place`, or says so.
pub fn opened(thread: &Thread, place: usize, fd: Fd, flags: OpenFlags) {
    let mut held = thread.ready.state.lock();
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

    /// Nothing that lies there holds any more.
    pub fn forget(&self) {
        let former = self.state.lock().take();
        drop(former);
    }
}

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

    /// Makes room: what does not hold any more goes, and what is not open any more.
    fn tidy(&mut self, names: u64) {
        for place in &mut self.places.0 {
            let is_free = match place {
                Place::Free => true,
                Place::Ready(prepared) => {
                    if prepared.names != names && !prepared.ready.was_opened() {
                        prepared.ready.end();
                    }
                    prepared.ready.is_gone()
                }
                Place::Open(ready) => ready.upgrade().is_none_or(|ready| ready.is_over()),
            };
            if is_free {
                *place = Place::Free;
            }
        }
        // Those that lie ready keep theirs by being found nowhere: numbers are not used twice.
        if self.dirs.len() >= MOST_DIRS {
            self.dirs.clear();
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

struct Refill<'r> {
    state: &'r mut State,
    space: &'r dyn AddressSpace,
    vfs: &'r VfsCx<'r>,
    names: u64,
    /// Bytes of a file.
    brings: u32,
}

impl Refill<'_> {
    fn run(mut self) {
        self.state.tidy(self.names);
        self.state.adapt();
        if let Some((dir, name, child)) = self.state.wanted.take() {
            let near = self.walk(dir, name, child);
            self.state.end_others(near);
        }
        let left = self.state.ready().filter(|(_, prepared)| !prepared.ready.is_over()).count();
        (self.state.left, self.state.low) = (left, left / 4);
        self.space.tell_ready(left, left / 4);
    }

    /// Lays ready what comes after `name` in `dir`: first in it, when it is a directory, then beside it, then beside `dir`. Answers which
    /// places have what is to lie ready, a bit each.
    fn walk(&mut self, dir: Path, name: Arc<[u8]>, child: Option<Path>) -> u64 {
        let mut ways = vec![(dir, Some(name))];
        ways.extend(child.map(|child| (child, None)));
        let (mut near, mut wanted) = (0u64, self.state.reach);
        for _ in 0..MOST_LOOKS {
            let Some((dir, after)) = ways.last_mut().filter(|_| wanted > 0) else { break };
            let next = dir.inode().following(after.as_deref(), !self.state.opens_files);
            let Some((name, kind)) = next else {
                let (dir, _) = (dir.clone(), ways.pop());
                if ways.is_empty() {
                    ways.extend(self.beside(&dir));
                }
                continue;
            };
            *after = Some(Arc::clone(&name));
            let dir = dir.clone();
            wanted -= 1;
            let found = self.find(&dir, &name).or_else(|| self.lay(&dir, &name));
            let Some((place, path)) = found else { continue };
            near |= 1u64 << place;
            if kind == FileType::Directory {
                ways.push((path, None));
            }
        }
        near
    }

    /// Where the walk goes on when it is through with `dir`, if guest code has been there.
    fn beside(&self, dir: &Path) -> Option<(Path, Option<Arc<[u8]>>)> {
        let above = Path::new(Arc::clone(&dir.mount), dir.dentry.parent()?);
        let is_known = self.state.dirs.contains_key(&above.key());
        is_known.then(|| (above, Some(Arc::from(&*dir.name()))))
    }

    /// What lies ready already, and its place.
    fn find(&self, dir: &Path, name: &[u8]) -> Option<(usize, Path)> {
        let number = self.state.dirs.get(&dir.key())?.number;
        let mut there = self.state.ready();
        let (place, known) =
            there.find(|(_, ready)| ready.dir == number && *ready.name == *name)?;
        Some((place, known.opened.path().clone()))
    }

    /// Lays one ready; `None` when that cannot be.
    fn lay(&mut self, dir: &Path, name: &Arc<[u8]>) -> Option<(usize, Path)> {
        let place = self.state.places.0.iter().position(|place| matches!(place, Place::Free))?;
        let number = Some(self.state.number(dir)).filter(|number| *number != 0)?;
        if vfs::notify::is_watched() || !is_name(name) {
            return None;
        }
        let opened = OpenedAhead::new(self.vfs, dir, name).ok()?;
        let path = opened.path().clone();
        let attr = path.inode().attr().ok()?;
        if attr.mode & READABLE_BY_ALL == 0 {
            return None;
        }
        let host;
        let records;
        let (contents, own) = if attr.is_dir() {
            let (listed, ends) = self.list(&opened)?;
            records = listed;
            (Contents::Listing { records: &records, ends }, self.state.number(&path))
        } else {
            host = opened.ops().lendable()?;
            // One byte more than there are tells that these are all.
            let most = u64::from(self.brings).min(attr.size.saturating_add(1)) as usize;
            (Contents::File(host.as_fd(), most), 0)
        };
        let stat = Stat::from(&attr);
        let ready = self.space.lay_ready(Ready {
            place,
            dir: number,
            name,
            names: self.names,
            attr: stat.as_bytes().try_into().ok()?,
            flags: OpenFlags::LARGEFILE.bits(),
            own,
            contents,
        })?;
        let lent: Arc<dyn Lent> = Arc::clone(&ready) as Arc<dyn ReadyLoan>;
        let loan = Loan::new(path.inode(), lent);
        // Now, for who changes it looks for loans then.
        let holds = vfs::names::remember_child(dir, name, &path, self.names)
            && path.inode().is_settled()
            && path.inode().attr().is_ok_and(|now| now == attr)
            && !vfs::notify::is_watched();
        if !holds {
            ready.end();
        }
        let (names, name) = (self.names, Arc::clone(name));
        let prepared =
            Prepared { opened, loan, ready, names, dir: number, above: dir.clone(), name };
        *self.state.places.0.get_mut(place)? = Place::Ready(Box::new(prepared));
        self.state.laid += 1;
        Some((place, path))
    }

    /// A directory's records, and the position after each; `None` when they are too many.
    fn list(&self, opened: &OpenedAhead) -> Option<(Vec<u8>, Box<[(u64, u64)]>)> {
        let mut records = Vec::with_capacity(2048);
        let mut ends = Vec::new();
        let mut is_full = false;
        let listed = opened.list(self.vfs, &mut |entry| {
            is_full = !push_record(&mut records, MOST_READY_BYTES, &entry);
            ends.push((records.len() as u64, entry.next));
            !is_full
        });
        (listed.is_ok() && !is_full).then(|| (records, ends.into()))
    }
}
