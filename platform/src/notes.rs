//! What guest code may do without a call, as far as the sentry hears of it later.

use std::ops::{Range, RangeInclusive};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Something that the platform did for the guest before an event: the sentry is to do the same. What a hostile guest says may be
/// wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// mprotect(2) to `PROT_READ`.
    ProtectedForReading { addr: u64, len: u64 },
    /// munmap(2).
    Unmapped { addr: u64, len: u64 },
    /// mmap(2) of a part of a [`Library`], in whole pages; `offset` is `None` without a file.
    Mapped { addr: u64, len: u64, prot: u32, offset: Option<u64> },
    /// brk(2), within what was lent ([`Heap`]): perhaps several, in one direction.
    MovedBrk { end: u64 },
    /// close(2). Of a file that was brought along (`AddressSpace::bring`): `read` is how far guest code had read, else 0.
    Closed { fd: u32, read: u64 },
    /// fcntl(2) with F_DUPFD or F_DUPFD_CLOEXEC, which gave `new`.
    Duplicated { fd: u32, new: u32, cloexec: bool },
    /// fcntl(2) with F_SETFD.
    SetCloexec { fd: u32, cloexec: bool },
    /// openat(2) of what lay ready at `place`, which gave `fd`.
    Opened { fd: u32, place: usize, flags: u32 },
    /// Something was entered in the ledger (`AddressSpace::ledger`).
    Entered,
    /// epoll_ctl(2), whose operation is `EPOLL_CTL_ADD`, `_DEL` or `_MOD`.
    Watched { epoll: u32, fd: u32, operation: u32, events: u32, data: u64 },
}

/// The heap, as guest code is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heap {
    /// Where it ends.
    pub end: u64,
    /// Where guest code may have it end without a call: [`Note::MovedBrk`] tells. All memory between `end` and the last of these
    /// is free and stays so, all of that below `end` is the heap's.
    pub range: RangeInclusive<u64>,
    /// Free memory, where guest code may have memory without a file mapped without a call, from the end on: [`Note::Mapped`] tells.
    pub room: Range<u64>,
}

/// A file that is mapped whole: guest code may map parts of it in its place, privately, and memory without a file.
/// [`Note::Mapped`] tells.
#[derive(Debug, Clone)]
pub struct Library {
    /// Where it is mapped, or will be before guest code goes on.
    pub range: Range<u64>,
    /// The guest's descriptor of it.
    pub number: u32,
    /// Offset 0 of this is offset 0 of the guest's file.
    pub file: Arc<OwnedFd>,
    pub text: LibraryText,
}

/// How the executable part of a library, which is not writable, is to be mapped.
#[derive(Debug, Clone)]
pub enum LibraryText {
    /// As any other.
    Plain,
    /// By a call.
    Ask,
    /// From a copy with rewritten call sites; other executable parts by a call.
    Copy {
        /// File offsets.
        range: Range<u64>,
        /// The copy, and where its trampolines begin in that.
        file: Arc<OwnedFd>,
        area_offset: u64,
        /// Where these go: memory that is kept for them.
        area: u64,
        /// That minus the address of the file's first byte (wrapping), when the part is mapped where it fits.
        distance: u64,
    },
}

/// So many notes come with one event at most.
pub const MOST_NOTES: usize = shim_abi::ALL_NOTES;

/// So many of the lowest descriptors guest code may know.
pub const KNOWN_DESCRIPTORS: usize = shim_abi::Descriptors::COUNT;

/// Bytes of a `struct stat`.
pub const STAT_BYTES: usize = 144;

/// An open descriptor, as guest code is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// What F_GETFL says, as long as `is_own`.
    pub flags: u32,
    /// FD_CLOEXEC.
    pub cloexec: bool,
    /// No other process refers to the file description, nor does anybody notice when it is closed later: guest code may close and
    /// duplicate it on its own.
    pub is_own: bool,
    /// What is read and written there, when nobody else could know.
    pub device: Option<Device>,
    /// The directory that it is, if files of it lie [ready](Ready), else 0.
    pub dir: u32,
    /// It is an epoll of which only its own process's calls know: guest code may change on its own what it watches.
    pub is_epoll: bool,
    pub watched: Watched,
}

/// Whether an epoll of the process watches a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    /// Or what epoll_ctl(2) says of it depends on more than that.
    Unknown,
    Nowhere,
    /// By that one only.
    By(u32),
}

/// A regular file or directory that guest code may open for reading without a call, as `name` in a directory.
#[derive(Debug)]
pub struct Ready<'a> {
    /// Which of [`READY_FILES`]; nothing that was there before is in use.
    pub place: usize,
    /// The number of the directory, see [`Descriptor::dir`].
    pub dir: u32,
    /// Shorter than [`MOST_READY_NAME`].
    pub name: &'a [u8],
    /// As of when it was looked for, see `Platform::forget_names`.
    pub names: u64,
    /// A `struct stat`.
    pub attr: &'a [u8; STAT_BYTES],
    /// What F_GETFL says, without the flags of the open itself.
    pub flags: u32,
    /// Its own number, if it is a directory, else 0.
    pub own: u32,
    pub contents: Contents<'a>,
}

/// What an absolute path is to everybody.
#[derive(Debug, Clone, Copy)]
pub enum PathFact<'a> {
    /// There is no such file: every call that walks there says `ENOENT`.
    Absent,
    /// It is there, and no symbolic link.
    Plain,
    /// And this is known of it.
    Attributes(PathAttributes<'a>),
}

/// Of a path that is there.
#[derive(Debug, Clone, Copy)]
pub struct PathAttributes<'a> {
    /// A `struct stat`.
    pub stat: &'a [u8; STAT_BYTES],
    /// The path is a symbolic link, and these are of what it leads to.
    pub is_linked: bool,
    /// Everybody may read it,
    pub is_readable: bool,
    /// and run it, or go through it.
    pub is_runnable: bool,
}

/// Longest path that can be told.
pub const MOST_TOLD_PATH: usize = 8 * shim_abi::KnownPath::WORDS - 1;

/// What is in it.
#[derive(Debug)]
pub enum Contents<'a> {
    /// A host's file, of which the first bytes go along, so many at most: [`MOST_READY_BYTES`], or twice as many at an even place whose
    /// next one is not in use.
    File(BorrowedFd<'a>, usize),
    /// All that getdents64(2) says, at most [`MOST_READY_BYTES`].
    Listing(Box<[u8]>),
}

/// So many files may lie ready for a process.
pub const READY_FILES: usize = shim_abi::Ready::COUNT;
pub const MOST_READY_NAME: usize = 8 * shim_abi::Ready::WORDS;
pub const MOST_READY_BYTES: usize = shim_abi::Ready::BYTES as usize;
/// At an even place, with the bytes of the next one.
pub const MOST_READY_BYTES_OF_TWO: usize = shim_abi::Ready::MOST_BYTES as usize;
/// Numbers of directories are from 1 to this.
pub const MOST_DIR: u32 = shim_abi::Descriptors::MOST_DIR as u32;

/// A device that keeps nothing: guest code reads and writes it without a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// Gives nothing.
    Null,
    /// Gives zeros.
    Zero,
}

/// A call that cost a signal, although it then went on as if its site were rewritten. A claim of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trapped {
    /// Address behind the call's instruction.
    pub behind: u64,
    pub number: u64,
}
