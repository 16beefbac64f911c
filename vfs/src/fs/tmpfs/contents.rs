//! Bytes of a regular file: pages on the heap until somebody maps them, then a memfd.
//!
//! A page is a vector that may be shorter than a page; what is missing reads as zeros, as do missing pages. A memfd's
//! size is always the file's size, so that a mapping faults (SIGBUS) where it should.

use std::cmp::Ordering as CmpOrdering;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use abi::addr::PAGE_SIZE;
use abi::fcntl::Seals;
use abi::{Errno, Result};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, SeekFrom};

use super::quota::{Quota, Reserve};

const PAGE: usize = PAGE_SIZE as usize;

/// Descriptors that memfds may take: half of what this process may have, so that sockets and the gofer's files still
/// find room.
static MEMFD_LIMIT: LazyLock<usize> = LazyLock::new(|| {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    usize::try_from(limit.unwrap_or(1 << 20) / 2).unwrap_or(usize::MAX)
});
static MEMFDS: AtomicUsize = AtomicUsize::new(0);

/// One of the memfds that may be.
struct MemfdSlot;

impl MemfdSlot {
    fn take() -> Result<Self> {
        let taken = MEMFDS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            (count < *MEMFD_LIMIT).then_some(count + 1)
        });
        taken.map(|_| Self).map_err(|_| Errno::ENFILE)
    }
}

impl Drop for MemfdSlot {
    fn drop(&mut self) {
        MEMFDS.fetch_sub(1, Ordering::Relaxed);
    }
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

enum Store {
    Heap(BTreeMap<u64, Vec<u8>>),
    /// The descriptor, and the pages that the quota has counted for it.
    Memfd(Arc<OwnedFd>, u64, MemfdSlot),
}

/// See the module.
pub(super) struct Contents {
    quota: Arc<Quota>,
    size: u64,
    store: Store,
    pub(super) seals: Seals,
}

fn split(pos: u64) -> (u64, usize) {
    (pos / PAGE_SIZE, (pos % PAGE_SIZE) as usize)
}

impl Contents {
    pub(super) fn new(quota: Arc<Quota>) -> Self {
        // Only memfd_create(2) makes files that may be sealed.
        Self { quota, size: 0, store: Store::Heap(BTreeMap::new()), seals: Seals::SEAL }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Pages in use.
    pub(super) fn pages(&self) -> u64 {
        match &self.store {
            Store::Heap(pages) => pages.len() as u64,
            Store::Memfd(fd, counted, _) => host_pages(fd).unwrap_or(*counted),
        }
    }

    /// The descriptor when the bytes are in a memfd: reads can go there without the inode's lock.
    pub(super) fn memfd(&self) -> Option<Arc<OwnedFd>> {
        match &self.store {
            Store::Heap(_) => None,
            Store::Memfd(fd, ..) => Some(Arc::clone(fd)),
        }
    }

    /// Fills `into` from `pos` and returns how much lies before the end of the file. Only for bytes on the heap.
    pub(super) fn read(&self, pos: u64, into: &mut [u8]) -> usize {
        let left = usize::try_from(self.size.saturating_sub(pos)).unwrap_or(usize::MAX);
        let count = into.len().min(left);
        let Store::Heap(pages) = &self.store else { return 0 };
        if count == 0 {
            return 0;
        }
        let into = &mut into[..count];
        into.fill(0);
        let end = pos + count as u64;
        for (index, page) in pages.range(pos / PAGE_SIZE..end.div_ceil(PAGE_SIZE)) {
            let start = index * PAGE_SIZE;
            let skip = pos.saturating_sub(start) as usize;
            let at = start.saturating_sub(pos) as usize;
            let Some(bytes) = page.get(skip..) else { continue };
            let len = bytes.len().min(count - at);
            into[at..at + len].copy_from_slice(&bytes[..len]);
        }
        count
    }

    fn refuse_sealed(&self, pos: u64, len: u64) -> Result<()> {
        if self.seals.intersects(Seals::WRITE | Seals::FUTURE_WRITE) {
            return Err(Errno::EPERM);
        }
        let grows = pos.saturating_add(len) > self.size;
        if grows && self.seals.contains(Seals::GROW) { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// Writes as much of `bytes` as the quota allows.
    pub(super) fn write(&mut self, pos: u64, bytes: &[u8]) -> Result<usize> {
        self.refuse_sealed(pos, bytes.len() as u64)?;
        let done = match &mut self.store {
            Store::Memfd(fd, counted, _) => {
                let worst = bytes.len() as u64 / PAGE_SIZE + 2;
                self.quota.take_pages(worst)?;
                self.quota.give_pages(worst);
                let done = write_memfd(fd, pos, bytes)?;
                recount(&self.quota, fd, counted);
                done
            }
            Store::Heap(pages) => write_heap(pages, pos, bytes, || self.quota.take_pages(1))?,
        };
        self.size = self.size.max(pos + done as u64);
        Ok(done)
    }

    /// Keeps room for what guest code will have written; `None`: it has to ask, each time.
    pub(super) fn reserve_pages(&self, count: u64) -> Option<Reserve> {
        if self.is_plain() { self.quota.reserve(count) } else { None }
    }

    /// Whether nothing but the quota bounds what is written, and nobody has mapped it.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.store, Store::Heap(_)) && self.seals == Seals::SEAL
    }

    /// Writes what guest code has written already, into pages that are reserved.
    pub(super) fn follow_write(&mut self, pos: u64, bytes: &[u8]) -> Result<()> {
        let Store::Heap(pages) = &mut self.store else { return self.write(pos, bytes).map(drop) };
        let count = || {
            self.quota.force_pages(1);
            Ok(())
        };
        let done = write_heap(pages, pos, bytes, count)?;
        self.size = self.size.max(pos + done as u64);
        Ok(())
    }

    pub(super) fn truncate(&mut self, size: u64) -> Result<()> {
        let sealed = match size.cmp(&self.size) {
            CmpOrdering::Less => Seals::SHRINK,
            CmpOrdering::Equal => Seals::empty(),
            CmpOrdering::Greater => Seals::GROW,
        };
        if self.seals.intersects(sealed) {
            return Err(Errno::EPERM);
        }
        match &mut self.store {
            Store::Memfd(fd, counted, _) => {
                rustix::fs::ftruncate(&*fd, size).map_err(errno)?;
                recount(&self.quota, fd, counted);
            }
            Store::Heap(pages) if size < self.size => cut(pages, &self.quota, size),
            Store::Heap(_) => {}
        }
        self.size = size;
        Ok(())
    }

    /// FALLOC_FL_PUNCH_HOLE.
    pub(super) fn punch(&mut self, pos: u64, len: u64) -> Result<()> {
        if self.seals.intersects(Seals::WRITE | Seals::FUTURE_WRITE) {
            return Err(Errno::EPERM);
        }
        match &mut self.store {
            Store::Memfd(fd, counted, _) => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&*fd, flags, pos, len).map_err(errno)?;
                recount(&self.quota, fd, counted);
            }
            Store::Heap(pages) => punch_heap(pages, &self.quota, pos, pos.saturating_add(len)),
        }
        Ok(())
    }

    /// fallocate(2) without a mode, or with FALLOC_FL_KEEP_SIZE.
    pub(super) fn reserve(&mut self, pos: u64, len: u64, keeps_size: bool) -> Result<()> {
        let end = pos.checked_add(len).ok_or(Errno::EFBIG)?;
        if end > self.size && self.seals.contains(Seals::GROW) {
            return Err(Errno::EPERM);
        }
        let (first, last) = (pos / PAGE_SIZE, end.div_ceil(PAGE_SIZE));
        match &mut self.store {
            Store::Memfd(fd, counted, _) => {
                self.quota.take_pages(last - first)?;
                self.quota.give_pages(last - first);
                let keep = FallocateFlags::KEEP_SIZE;
                let flags = if keeps_size { keep } else { FallocateFlags::empty() };
                let done = rustix::fs::fallocate(&*fd, flags, pos, len).map_err(errno);
                recount(&self.quota, fd, counted);
                done?;
            }
            Store::Heap(pages) => {
                let present = pages.range(first..last).count() as u64;
                self.quota.take_pages(last - first - present)?;
                for index in first..last {
                    pages.entry(index).or_default();
                }
            }
        }
        if !keeps_size {
            self.size = self.size.max(end);
        }
        Ok(())
    }

    /// lseek(2) with SEEK_DATA (`wants_data`) or SEEK_HOLE.
    pub(super) fn seek(&self, pos: u64, wants_data: bool) -> Result<u64> {
        if pos >= self.size {
            return Err(Errno::ENXIO);
        }
        let found = match &self.store {
            Store::Memfd(fd, ..) => {
                let to = if wants_data { SeekFrom::Data(pos) } else { SeekFrom::Hole(pos) };
                return rustix::fs::seek(&**fd, to).map_err(errno);
            }
            Store::Heap(pages) if wants_data => {
                let next = pages.range(pos / PAGE_SIZE..).next();
                next.map(|(index, _)| index * PAGE_SIZE).ok_or(Errno::ENXIO)?
            }
            Store::Heap(pages) => {
                let mut index = pos / PAGE_SIZE;
                for (present, _) in pages.range(index..) {
                    if *present != index {
                        break;
                    }
                    index += 1;
                }
                index * PAGE_SIZE
            }
        };
        let at = found.max(pos);
        if wants_data && at >= self.size { Err(Errno::ENXIO) } else { Ok(at.min(self.size)) }
    }

    /// Moves the bytes into a memfd (once) and returns it.
    pub(super) fn share(&mut self) -> Result<Arc<OwnedFd>> {
        let pages = match &mut self.store {
            Store::Memfd(fd, ..) => return Ok(Arc::clone(fd)),
            Store::Heap(pages) => pages,
        };
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let slot = MemfdSlot::take()?;
        let fd = rustix::fs::memfd_create("tmpfs", flags).map_err(errno)?;
        rustix::fs::ftruncate(&fd, self.size).map_err(errno)?;
        for (index, page) in pages.iter() {
            let start = index * PAGE_SIZE;
            let left = usize::try_from(self.size.saturating_sub(start)).unwrap_or(PAGE);
            let len = page.len().min(left);
            let mut done = 0;
            while done < len {
                done += write_memfd(&fd, start + done as u64, &page[done..len])?;
            }
        }
        let fd = Arc::new(fd);
        let mut counted = pages.len() as u64;
        recount(&self.quota, &fd, &mut counted);
        self.store = Store::Memfd(Arc::clone(&fd), counted, slot);
        self.seal_host(self.seals)?;
        Ok(fd)
    }

    /// fcntl(F_ADD_SEALS).
    pub(super) fn add_seals(&mut self, seals: Seals) -> Result<()> {
        if self.seals.contains(Seals::SEAL) {
            return Err(Errno::EPERM);
        }
        // Once mapped, the host knows whether a writable mapping stands in the way (EBUSY).
        self.seal_host(seals)?;
        self.seals |= seals;
        Ok(())
    }

    fn seal_host(&self, seals: Seals) -> Result<()> {
        let seals = SealFlags::from_bits_retain((seals - Seals::SEAL - Seals::EXEC).bits());
        match &self.store {
            Store::Memfd(fd, ..) if !seals.is_empty() => {
                rustix::fs::fcntl_add_seals(&**fd, seals).map_err(errno)
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Contents {
    fn drop(&mut self) {
        let counted = match &self.store {
            Store::Heap(pages) => pages.len() as u64,
            Store::Memfd(_, counted, _) => *counted,
        };
        self.quota.give_pages(counted);
    }
}

fn cut(pages: &mut BTreeMap<u64, Vec<u8>>, quota: &Quota, size: u64) {
    let (index, rest) = split(size);
    let first_gone = if rest == 0 { index } else { index + 1 };
    let gone = pages.split_off(&first_gone);
    quota.give_pages(gone.len() as u64);
    if rest > 0
        && let Some(page) = pages.get_mut(&index)
    {
        page.truncate(rest);
    }
}

fn punch_heap(pages: &mut BTreeMap<u64, Vec<u8>>, quota: &Quota, pos: u64, end: u64) {
    let mut emptied = Vec::new();
    for (index, page) in pages.range_mut(pos / PAGE_SIZE..end.div_ceil(PAGE_SIZE)) {
        let start = index * PAGE_SIZE;
        if pos <= start && start + PAGE_SIZE <= end {
            emptied.push(*index);
            continue;
        }
        let from = (pos.saturating_sub(start) as usize).min(page.len());
        let to = usize::try_from(end - start).unwrap_or(PAGE).min(page.len());
        page[from..to.max(from)].fill(0);
    }
    quota.give_pages(emptied.len() as u64);
    for index in emptied {
        pages.remove(&index);
    }
}

fn write_heap(
    pages: &mut BTreeMap<u64, Vec<u8>>,
    pos: u64,
    bytes: &[u8],
    mut take_page: impl FnMut() -> Result<()>,
) -> Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        let (index, offset) = split(pos + done as u64);
        let len = (PAGE - offset).min(bytes.len() - done);
        let page = match pages.entry(index) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => match take_page() {
                Ok(()) => entry.insert(Vec::new()),
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            },
        };
        let end = offset + len;
        if page.len() < end {
            grow(page, end);
        }
        page[offset..end].copy_from_slice(&bytes[done..done + len]);
        done += len;
    }
    Ok(done)
}

/// Lengthens a page with zeros; past half a page it gets its whole room at once.
fn grow(page: &mut Vec<u8>, len: usize) {
    if page.capacity() < len {
        let wanted = if len > PAGE / 2 { PAGE } else { len.next_power_of_two().max(64) };
        page.reserve_exact(wanted - page.len());
    }
    page.resize(len, 0);
}

pub(super) fn read_memfd(fd: &OwnedFd, pos: u64, into: &mut [u8]) -> Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match rustix::io::pread(fd, &mut into[done..], pos + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(errno(error)),
        }
    }
    Ok(done)
}

fn write_memfd(fd: &OwnedFd, pos: u64, bytes: &[u8]) -> Result<usize> {
    loop {
        match rustix::io::pwrite(fd, bytes, pos) {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.map_err(errno),
        }
    }
}

fn host_pages(fd: &OwnedFd) -> Result<u64> {
    let stat = rustix::fs::fstat(fd).map_err(errno)?;
    Ok(u64::try_from(stat.st_blocks).unwrap_or(0) * 512 / PAGE_SIZE)
}

/// Brings the quota in line with what the memfd uses (a guest's stores into a mapping allocate too).
fn recount(quota: &Quota, fd: &OwnedFd, counted: &mut u64) {
    let Ok(now) = host_pages(fd) else { return };
    if now > *counted {
        quota.force_pages(now - *counted);
    } else {
        quota.give_pages(*counted - now);
    }
    *counted = now;
}
