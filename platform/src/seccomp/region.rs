//! The sentry's view of a channel region, and of the page all shims read.
//!
//! # Safety
//! 1. A mapping lives as long as its owner here, and is never moved.
//! 2. Guests write it at any time: only atomics are handed out, all of whose bit patterns are valid.
//! 3. Offsets are checked against the mapping's size before a pointer is made.

use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::sys;
use crate::STAT_BYTES;
use crate::processor::Answer;
use abi::Errno;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use shim_abi::{
    CHANNEL_SIZE, FAST_OFFSET, FAST_STACK_TOP, Fast, GLOBAL_SIZE, Global, KnownPath, Ledger,
    MAX_SLOTS, Note, PathStat, Ready, ReadyIndex, SLOT_SIZE, Slot, Streams,
};

/// A shared mapping of a memfd.
#[derive(Debug)]
struct Mapping {
    base: *mut u8,
    len: usize,
    /// Where it begins in the memfd.
    offset: u64,
    fd: Arc<OwnedFd>,
    /// Unmaps it with others; `None`: it does so itself.
    arena: Option<Arc<Arena>>,
}

/// Address space for several regions, unmapped when the last of them is gone: each munmap(2) interrupts all CPUs that
/// the sentry runs on.
#[derive(Debug)]
struct Arena {
    base: *mut u8,
    len: usize,
}

// SAFETY: only an address.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: rule 1: the regions in it are gone.
        let _ = unsafe { rustix::mm::munmap(self.base.cast(), self.len) };
    }
}

/// Makes regions, each at a fresh place of the current arena.
#[derive(Debug, Default)]
pub struct RegionMaker {
    current: Option<(Arc<Arena>, usize)>,
}

/// Regions of one arena. Those that are gone keep their few pages until all are.
const ARENA_REGIONS: usize = 16;
const REGION_LEN: usize = CHANNEL_SIZE as usize;

impl RegionMaker {
    pub fn make(&mut self) -> Result<Arc<Region>, Errno> {
        let (arena, index) = match self.current.take() {
            Some((arena, next)) if next < ARENA_REGIONS => (arena, next),
            _ => (Arc::new(reserve(ARENA_REGIONS * REGION_LEN)?), 0),
        };
        let region = Mapping::new("channel", CHANNEL_SIZE, Some((&arena, index * REGION_LEN)));
        self.current = Some((arena, index + 1));
        let region = Arc::new(Region(region?));
        touch(&region);
        Ok(region)
    }
}

/// Makes regions for children of the zygote: several in one memory, which that has once and for all of them. No guest ever
/// has it: a child closes it before it runs guest code, and the zygote runs none.
#[derive(Debug, Default)]
pub struct StubRegionMaker {
    current: Option<(Arc<Arena>, Arc<OwnedFd>, usize)>,
}

impl StubRegionMaker {
    pub fn make(&mut self) -> Result<Arc<Region>, Errno> {
        let (arena, fd, index) = match self.current.take() {
            Some(current) if current.2 < ARENA_REGIONS => current,
            _ => {
                let len = ARENA_REGIONS * REGION_LEN;
                let fd = memory("channels", len as u64)?;
                let base = map(&fd, len, None)?;
                (Arc::new(Arena { base, len }), Arc::new(fd), 0)
            }
        };
        let offset = index * REGION_LEN;
        let region = Arc::new(Region(Mapping {
            base: arena.base.wrapping_add(offset),
            len: REGION_LEN,
            offset: offset as u64,
            fd: Arc::clone(&fd),
            arena: Some(Arc::clone(&arena)),
        }));
        self.current = Some((arena, fd, index + 1));
        touch(&region);
        Ok(region)
    }
}

/// Makes the pages that a process's first thread will use first.
fn touch(region: &Arc<Region>) {
    const OFFSETS: [u64; 5] =
        [0, FAST_OFFSET, FAST_STACK_TOP - 8, shim_abi::STACK_END - 8, shim_abi::BOUNCE_OFFSET];
    let Some(slot) = SlotRef::new(region, 0) else { return };
    for word in OFFSETS.iter().filter_map(|offset| slot.word(*offset)) {
        word.store(0, Relaxed);
    }
}

fn reserve(len: usize) -> Result<Arena, Errno> {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: a fresh mapping where the kernel likes.
    let base =
        unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::empty(), flags) };
    Ok(Arena { base: base.map_err(errno)?.cast(), len })
}

// SAFETY: rule 2: all access is by atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `place`: an arena and an offset in it that nobody else has.
    fn new(name: &str, len: u64, place: Option<(&Arc<Arena>, usize)>) -> Result<Self, Errno> {
        let fd = memory(name, len)?;
        let len = usize::try_from(len).map_err(|_| Errno::ENOMEM)?;
        let at = place.map(|(arena, offset)| arena.base.wrapping_add(offset));
        let base = map(&fd, len, at)?;
        let arena = place.map(|(arena, _)| Arc::clone(arena));
        Ok(Self { base, len, offset: 0, fd: Arc::new(fd), arena })
    }
}

/// Memory with a descriptor.
pub(super) fn memory(name: &str, len: u64) -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create(name, flags).map_err(errno)?;
    rustix::fs::ftruncate(&fd, len).map_err(errno)?;
    // Nobody shrinks it under the sentry's feet.
    let seals = SealFlags::SHRINK | SealFlags::GROW;
    rustix::fs::fcntl_add_seals(&fd, seals).map_err(errno)?;
    Ok(fd)
}

/// Maps it, in a part of an arena that holds nothing, or where the kernel likes.
pub(super) fn map(fd: &OwnedFd, len: usize, at: Option<*mut u8>) -> Result<*mut u8, Errno> {
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    let mut flags = MapFlags::SHARED | MapFlags::NORESERVE;
    flags.set(MapFlags::FIXED, at.is_some());
    let at = at.unwrap_or(std::ptr::null_mut());
    // SAFETY: as said above.
    let base = unsafe { rustix::mm::mmap(at.cast(), len, prot, flags, fd, 0) };
    Ok(base.map_err(errno)?.cast())
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.arena.is_none() {
            // SAFETY: rule 1: nobody has a pointer into it any more.
            let _ = unsafe { rustix::mm::munmap(self.base.cast(), self.len) };
        }
    }
}

/// A host error as ours.
pub fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

/// The channels of one guest process.
#[derive(Debug)]
pub struct Region(Mapping);

impl Region {
    pub fn fd(&self) -> &Arc<OwnedFd> {
        &self.0.fd
    }

    /// Where it begins in the memory of that descriptor.
    pub fn offset(&self) -> u64 {
        self.0.offset
    }
}

/// One slot of a region.
#[derive(Debug, Clone)]
pub struct SlotRef {
    region: Arc<Region>,
    index: u32,
}

impl SlotRef {
    /// `None` when there is no such slot.
    pub fn new(region: &Arc<Region>, index: u32) -> Option<Self> {
        (index < MAX_SLOTS).then(|| Self { region: Arc::clone(region), index })
    }

    pub fn index(&self) -> u32 {
        self.index
    }

    /// Address of the slot in the guest.
    pub fn guest_address(&self) -> u64 {
        shim_abi::CHANNEL_ADDR + u64::from(self.index) * SLOT_SIZE
    }

    fn base(&self) -> *mut u8 {
        // SAFETY: rule 3: the index was checked when this was made.
        unsafe { self.region.0.base.add(self.index as usize * SLOT_SIZE as usize) }
    }

    /// The head.
    pub fn head(&self) -> &Slot {
        // SAFETY: rules 1 and 2; a slot is page aligned.
        unsafe { &*self.base().cast::<Slot>() }
    }

    /// What the entry without a signal saves.
    pub fn fast(&self) -> &Fast {
        // SAFETY: rules 1 and 2; aligned, and within a slot by `shim_abi`'s assertions.
        unsafe { &*self.base().add(FAST_OFFSET as usize).cast::<Fast>() }
    }

    /// Copies bytes out; `None` when the range is not inside.
    pub fn copy_out(&self, offset: u64, into: &mut [u8]) -> Option<()> {
        let end = offset.checked_add(into.len() as u64)?;
        // SAFETY: rule 3.
        (end <= SLOT_SIZE).then(|| unsafe {
            copy(into.as_mut_ptr(), self.base().add(offset as usize), into.len());
        })
    }

    /// Copies bytes in; `None` when the range is not inside.
    pub fn copy_in(&self, offset: u64, bytes: &[u8]) -> Option<()> {
        let end = offset.checked_add(bytes.len() as u64)?;
        // SAFETY: rule 3.
        (end <= SLOT_SIZE).then(|| unsafe {
            copy(self.base().add(offset as usize), bytes.as_ptr(), bytes.len());
        })
    }

    /// Reads from a file into the range; `None` when that is not inside.
    pub fn fill(
        &self,
        offset: u64,
        len: usize,
        file: BorrowedFd<'_>,
        pos: u64,
    ) -> Option<Result<usize, Errno>> {
        let end = offset.checked_add(len as u64)?;
        if end > SLOT_SIZE {
            return None;
        }
        let Ok(pos) = i64::try_from(pos) else { return Some(Err(Errno::EINVAL)) };
        loop {
            // SAFETY: rule 3; the kernel writes there, as the guest may at any time.
            let count = unsafe {
                libc::pread(file.as_raw_fd(), self.base().add(offset as usize).cast(), len, pos)
            };
            match usize::try_from(count) {
                Ok(count) => return Some(Ok(count)),
                Err(_) => match sys::last_errno() {
                    Errno::EINTR => {}
                    errno => return Some(Err(errno)),
                },
            }
        }
    }

    /// Bytes of the string at `offset` with its end, at most `most` (which is a multiple of 8, as is the offset): what lies
    /// behind is of no call.
    pub fn string_len(&self, offset: u64, most: u64) -> u64 {
        let mut len = 0;
        while len < most {
            let Some(word) = self.word(offset + len) else { break };
            let bytes = word.load(Relaxed).to_le_bytes();
            if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
                return len + end as u64 + 1;
            }
            len += 8;
        }
        len
    }

    /// Asks the processor for the lines of a range whose front is about to be written.
    pub fn prefetch_for_writing(&self, offset: u64, len: u64) {
        const LINE: u64 = 64;
        const MOST: u64 = 3 * LINE;
        for at in (offset..offset.saturating_add(len.min(MOST))).step_by(LINE as usize) {
            let address = self.base().wrapping_add(at as usize);
            // SAFETY: a hint, which may name any address.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(address.cast()) };
        }
    }

    /// What is about to be read, but for its first line: see `Thread::prefetch_post`.
    pub fn prefetch_all(&self, offset: u64, len: u64) {
        const LINE: u64 = 64;
        const MOST: u64 = 64 * LINE;
        for at in (offset..offset.saturating_add(len.min(MOST))).step_by(LINE as usize).skip(1) {
            let address = self.base().wrapping_add(at as usize);
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) };
        }
    }

    /// The same, of the line at the offset, which is about to be read.
    pub fn prefetch(&self, offset: u64) {
        let address = self.base().wrapping_add(offset as usize);
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }

    /// The word at an offset, or `None` when that is unaligned or outside.
    #[inline]
    fn word(&self, offset: u64) -> Option<&AtomicU64> {
        if !offset.is_multiple_of(8) || offset >= SLOT_SIZE {
            return None;
        }
        // SAFETY: rules 2 and 3.
        Some(unsafe { &*self.base().add(offset as usize).cast::<AtomicU64>() })
    }

    /// Of [`shim_abi::LOANS_SLOT`]: the word of a descriptor; `None` when it has none.
    pub fn loan(&self, descriptor: u32) -> Option<&AtomicU64> {
        let is_inside = (descriptor as usize) < shim_abi::Loans::DESCRIPTORS;
        is_inside.then(|| self.word(8 * u64::from(descriptor)))?
    }

    /// Of the same slot: an answer about a path.
    pub fn path_stat(&self, place: usize) -> Option<&PathStat> {
        let offset = shim_abi::PATH_STATS_OFFSET as usize + place * size_of::<PathStat>();
        // SAFETY: rules 1 and 2; aligned, and within a slot by `shim_abi`'s assertions.
        (place < PathStat::COUNT).then(|| unsafe { &*self.base().add(offset).cast::<PathStat>() })
    }

    /// Of the same slot: notes beyond those of [`Fast`].
    pub fn more_notes(&self) -> &[Note] {
        // SAFETY: as above.
        unsafe {
            &*self
                .base()
                .add(shim_abi::MORE_NOTES_OFFSET as usize)
                .cast::<[Note; shim_abi::MORE_NOTES]>()
        }
    }

    /// Of the same slot: the ends of pipes.
    pub fn streams(&self) -> &Streams {
        // SAFETY: as above.
        unsafe { &*self.base().add(shim_abi::STREAMS_OFFSET as usize).cast::<Streams>() }
    }

    /// Of the same slot: where to find what lies ready.
    pub fn ready_index(&self) -> &ReadyIndex {
        // SAFETY: as above.
        unsafe { &*self.base().add(shim_abi::READY_INDEX_OFFSET as usize).cast::<ReadyIndex>() }
    }

    /// Of [`shim_abi::LEDGER_SLOT`]: what guest code does to files on its own.
    pub fn ledger(&self) -> &Ledger {
        // SAFETY: as above.
        unsafe { &*self.base().cast::<Ledger>() }
    }

    /// What lies ready at a place of the same region, and its bytes.
    pub fn ready(&self, place: usize) -> Option<ReadyRef> {
        let (head, bytes) = Ready::offsets(place);
        let index = shim_abi::READY_SLOT + (head / SLOT_SIZE) as u32;
        let slot = (place < Ready::COUNT).then(|| Self::new(&self.region, index))??;
        let most = Ready::most_bytes(place) as usize;
        Some(ReadyRef { slot, head: head % SLOT_SIZE, bytes: bytes % SLOT_SIZE, most })
    }

    /// Of the same slot: attributes and first bytes (at most `most`) of a file, for [`shim_abi::Brought`] number `index`.
    pub fn write_brought(
        &self,
        index: usize,
        file: BorrowedFd<'_>,
        attr: &[u8; STAT_BYTES],
        most: usize,
    ) -> Option<()> {
        use shim_abi::{BROUGHT_BYTES, BROUGHT_BYTES_OFFSET, BROUGHT_OFFSET, Brought};
        let head = BROUGHT_OFFSET + index as u64 * size_of::<Brought>() as u64;
        let bytes = BROUGHT_BYTES_OFFSET + index as u64 * BROUGHT_BYTES;
        let most = most.min(BROUGHT_BYTES as usize);
        let len = if most == 0 { 0 } else { self.fill(bytes, most, file, 0)?.ok()? };
        self.write_bytes(head, attr)?;
        let is_whole = u64::from(len < most);
        self.write(head + STAT_BYTES as u64, &[len as u64, is_whole, 0, 0])
    }

    /// Copies words out; `None` when the range is not inside.
    #[inline]
    pub fn read<const N: usize>(&self, offset: u64) -> Option<[u64; N]> {
        let mut words = [0; N];
        self.word(offset.checked_add(8 * (N as u64).checked_sub(1)?)?)?;
        for (word, at) in words.iter_mut().zip((offset..).step_by(8)) {
            *word = self.word(at)?.load(Relaxed);
        }
        Some(words)
    }

    /// Copies words in.
    #[inline]
    pub fn write(&self, offset: u64, words: &[u64]) -> Option<()> {
        for (word, at) in words.iter().zip((offset..).step_by(8)) {
            self.word(at)?.store(*word, Relaxed);
        }
        Some(())
    }

    /// Copies bytes out; offset and length are multiples of 4.
    pub fn read_bytes(&self, offset: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len + 8);
        for at in (offset..offset.checked_add(len as u64)?).step_by(8) {
            bytes.extend_from_slice(&self.word(at)?.load(Relaxed).to_le_bytes());
        }
        bytes.truncate(len);
        Some(bytes)
    }

    /// Copies bytes in; the last word is filled up with zeroes.
    pub fn write_bytes(&self, offset: u64, bytes: &[u8]) -> Option<()> {
        for (chunk, at) in bytes.chunks(8).zip((offset..).step_by(8)) {
            let mut word = [0; 8];
            word.get_mut(..chunk.len())?.copy_from_slice(chunk);
            self.word(at)?.store(u64::from_le_bytes(word), Relaxed);
        }
        Some(())
    }
}

/// A file that lies ready, or its place.
#[derive(Debug)]
pub struct ReadyRef {
    slot: SlotRef,
    /// Where they are in it.
    head: u64,
    bytes: u64,
    /// How many bytes there are from there on.
    most: usize,
}

impl ReadyRef {
    pub fn get(&self) -> &Ready {
        // SAFETY: rules 1 and 2; aligned, and within a slot by `shim_abi`'s assertions.
        unsafe { &*self.slot.base().add(self.head as usize).cast::<Ready>() }
    }

    /// How many bytes there are, at most.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Reads from the front of a file into its bytes, at most `most`.
    pub fn fill(&self, most: usize, file: BorrowedFd<'_>) -> Option<usize> {
        let most = most.min(self.most);
        if most == 0 { Some(0) } else { self.slot.fill(self.bytes, most, file, 0)?.ok() }
    }

    /// Zeros in place of its first bytes.
    pub fn wipe(&self, len: usize) {
        const ZEROS: [u8; 4096] = [0; 4096];
        let len = len.min(self.most);
        for from in (0..len).step_by(ZEROS.len()) {
            let piece = ZEROS.get(..(len - from).min(ZEROS.len())).unwrap_or_default();
            let _ = self.slot.copy_in(self.bytes + from as u64, piece);
        }
    }

    /// Copies bytes in.
    pub fn copy_in(&self, bytes: &[u8]) -> Option<()> {
        (bytes.len() <= self.most).then(|| self.slot.copy_in(self.bytes, bytes))?
    }
}

/// Copies bytes of which one side is shared with a guest.
///
/// # Safety
/// Both sides are mapped for `len` bytes. That the guest may change one meanwhile is no matter: one instruction does
/// it, of which the compiler knows nothing but its effects.
pub(super) unsafe fn copy(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: the caller's promise; the direction flag is clear by the calling convention.
    unsafe {
        std::arch::asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") len => _,
            options(nostack, preserves_flags));
    }
}

/// The page that every shim reads.
#[derive(Debug)]
pub struct GlobalPage(Mapping);

impl GlobalPage {
    /// Writable by this mapping only, whoever gets the descriptor.
    pub fn new() -> Result<Self, Errno> {
        let mapping = Mapping::new("shim-global", GLOBAL_SIZE, None)?;
        rustix::fs::fcntl_add_seals(&mapping.fd, SealFlags::FUTURE_WRITE).map_err(errno)?;
        Ok(Self(mapping))
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }

    #[inline]
    pub fn get(&self) -> &Global {
        // SAFETY: rules 1 and 2; page aligned and large enough by `shim_abi`'s assertion.
        unsafe { &*self.0.base.cast::<Global>() }
    }

    /// What the processor says of itself; once.
    pub fn tell_processor(&self, answers: &[Answer]) {
        let pair = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        let page = self.get();
        // Who has read the count may be reading answers.
        if page.answer_count.load(Acquire) != 0 {
            return;
        }
        let mut count = 0;
        for (place, answer) in page.answers.iter().zip(answers) {
            let [eax, ebx, ecx, edx] = answer.registers;
            place.question.store(pair(answer.leaf, answer.part), Relaxed);
            place.registers[0].store(pair(eax, ebx), Relaxed);
            place.registers[1].store(pair(ecx, edx), Relaxed);
            count += 1;
        }
        // What is counted is there.
        page.answer_count.store(count, Release);
    }

    /// What a path is to everybody.
    pub fn known_path(&self, place: usize) -> Option<&KnownPath> {
        let offset = shim_abi::KNOWN_PATHS_OFFSET as usize + place * size_of::<KnownPath>();
        let at = || self.0.base.wrapping_add(offset).cast::<KnownPath>();
        // SAFETY: rules 1 and 2; aligned, and inside by `shim_abi`'s assertions.
        (place < KnownPath::COUNT).then(|| unsafe { &*at() })
    }
}
