//! mmap(2): what may be mapped and where.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::addr::{PAGE_SIZE, page_up};
use abi::mman::{MapFlags, advice};
use abi::{Errno, Result, UserAddr};
use platform::{Backing, HostOp, Prot};
use vfs::File;
use vfs::file::MapSource;

use crate::mm::state::{Limits, MmState, Plan, STACK_GUARD_GAP, Undo, prot_of};
use crate::mm::vma::{Content, Vma, VmaFlags, is_data};
use crate::rewrite::{AREA_LEN, SharedText, area_vma};

/// Size and alignment of a transparent huge page: large anonymous ranges start at one, as Linux places them.
const HUGE_PAGE: u64 = 2 << 20;
/// Where MAP_32BIT ranges go.
const LOW_FLOOR: u64 = 0x4000_0000;
const LOW_LIMIT: u64 = 0x8000_0000;

/// Names shared anonymous memory, for merging and futex keys.
static NEXT_OBJECT: AtomicU64 = AtomicU64::new(1);

/// The arguments of mmap(2).
#[derive(Debug, Clone)]
pub struct MapRequest {
    pub addr: u64,
    pub len: u64,
    pub prot: u32,
    pub flags: MapFlags,
    pub file: Option<Arc<File>>,
    /// File offset in bytes, page aligned.
    pub offset: u64,
    /// The file's mount forbids execution.
    pub noexec: bool,
    /// What to map in the file's stead, see `rewrite`.
    pub shared_text: Option<Arc<SharedText>>,
}

impl MapRequest {
    fn is_shared(&self) -> bool {
        self.flags.map_type() != MapFlags::TYPE_PRIVATE
    }

    /// Checks that need no address space, and gets the file's memory.
    ///
    /// # Errors
    /// `EINVAL`, `ENOMEM`, `EOVERFLOW`, `EOPNOTSUPP`, `EACCES`, `EPERM`, `ENODEV` as mmap(2) says.
    pub fn source(&self) -> Result<Option<MapSource>> {
        if self.len == 0 {
            return Err(Errno::EINVAL);
        }
        let len = page_up(self.len).ok_or(Errno::ENOMEM)?;
        self.offset.checked_add(len).ok_or(Errno::EOVERFLOW)?;
        let Some(file) = &self.file else { return Ok(None) };
        match self.flags.map_type() {
            MapFlags::TYPE_SHARED | MapFlags::TYPE_PRIVATE => {}
            MapFlags::TYPE_SHARED_VALIDATE => {
                if self.flags.bits() & !(MapFlags::LEGACY | MapFlags::FIXED_NOREPLACE.bits()) != 0 {
                    return Err(Errno::EOPNOTSUPP);
                }
            }
            _ => return Err(Errno::EINVAL),
        }
        let flags = file.flags();
        let prot = prot_of(self.prot);
        if self.is_shared() && prot.contains(Prot::WRITE) && !flags.writes() {
            return Err(Errno::EACCES);
        }
        if !flags.reads() {
            return Err(Errno::EACCES);
        }
        if prot.contains(Prot::EXEC) && self.noexec {
            return Err(Errno::EPERM);
        }
        let source = file.ops().mappable(file, self.is_shared() && flags.writes())?;
        if self.flags.contains(MapFlags::GROWSDOWN) {
            return Err(Errno::EINVAL);
        }
        if let MapSource::Host { base, .. } = &source {
            let end = base.checked_add(self.offset).and_then(|at| at.checked_add(len));
            end.ok_or(Errno::EOVERFLOW)?;
        }
        Ok(Some(source))
    }

    fn max_prot(&self) -> Prot {
        let mut max = Prot::all();
        if let Some(file) = &self.file {
            if self.is_shared() && !file.flags().writes() {
                max -= Prot::WRITE;
            }
            if self.noexec {
                max -= Prot::EXEC;
            }
        }
        max
    }

    fn vma_flags(&self) -> VmaFlags {
        let mut flags = VmaFlags::empty();
        flags.set(VmaFlags::SHARED, self.is_shared());
        flags.set(VmaFlags::GROWSDOWN, self.flags.contains(MapFlags::GROWSDOWN));
        flags.set(VmaFlags::LOCKED, self.flags.contains(MapFlags::LOCKED));
        // Stacks of threads are mostly never touched.
        let reserves = self.flags.intersects(MapFlags::NORESERVE | MapFlags::STACK);
        flags.set(VmaFlags::NO_RESERVE, reserves);
        flags
    }

    fn content(&self, is_file: bool) -> Content {
        match &self.file {
            Some(file) if is_file => Content::File { file: Arc::clone(file), offset: self.offset },
            _ if self.is_shared() => Content::SharedAnonymous {
                object: NEXT_OBJECT.fetch_add(1, Ordering::Relaxed),
                offset: 0,
            },
            _ => Content::Anonymous,
        }
    }
}

impl MmState {
    /// Plans mmap(2). `source` is what [`MapRequest::source`] said.
    ///
    /// # Errors
    /// See mmap(2).
    pub fn plan_map(
        &mut self,
        request: &MapRequest,
        source: Option<MapSource>,
        limits: &Limits,
    ) -> Result<Plan> {
        let len = page_up(request.len).filter(|len| *len > 0).ok_or(Errno::ENOMEM)?;
        self.check_map_count()?;
        let addr = self.choose_address(request, len)?;
        let range = addr..addr + len;
        if request.flags.contains(MapFlags::FIXED_NOREPLACE) && !self.tree.is_free(range.clone()) {
            return Err(Errno::EEXIST);
        }
        let flags = request.vma_flags() | self.lock_future;
        if flags.contains(VmaFlags::LOCKED) {
            if request.flags.contains(MapFlags::LOCKED) && !limits.may_lock && limits.memlock == 0 {
                return Err(Errno::EPERM);
            }
            self.check_lock_growth(len, limits)?;
        }
        if request.file.is_none() {
            check_anonymous_type(request.flags)?;
        }
        let prot = prot_of(request.prot);
        let mut limits = *limits;
        if flags.contains(VmaFlags::NO_RESERVE) {
            limits.memory = u64::MAX;
        }
        self.check_growth(len, self.tree.mapped_in(&range), is_data(prot, flags), &limits)?;

        let mut undo = Undo::default();
        self.save(&mut undo, range.clone());
        self.tree.remove(range.clone());
        let vma = Vma {
            end: range.end,
            prot,
            max_prot: request.max_prot(),
            flags,
            content: request.content(matches!(source, Some(MapSource::Host { .. }))),
        };
        self.tree.insert(addr, vma);
        let area = request.shared_text.as_ref().and_then(|text| {
            let area = self.area_of(text, addr, request.offset)?;
            self.save(&mut undo, area.clone());
            self.tree.remove(area.clone());
            self.tree.insert(area.start, area_vma(area.end));
            Some((text, area))
        });
        self.note_peak();
        if let Some((text, area)) = area {
            return Ok(map_shared_text(text, addr, len, prot, area, undo));
        }
        let op = HostOp::Map {
            addr: UserAddr(addr),
            len,
            prot,
            shared: flags.contains(VmaFlags::SHARED),
            noreserve: flags.contains(VmaFlags::NO_RESERVE),
            backing: match source {
                Some(MapSource::Host { fd, base }) => {
                    Backing::File { fd, offset: base + request.offset }
                }
                Some(MapSource::Anonymous) | None => Backing::Anonymous,
            },
        };
        let plan = Plan::one(addr, op, undo);
        Ok(self.populated(plan, request, prot, len))
    }

    /// Where the trampolines of a text at `addr` would be; `None` when something else is there.
    fn area_of(&self, text: &SharedText, addr: u64, offset: u64) -> Option<Range<u64>> {
        let start = addr.wrapping_sub(offset).wrapping_add(text.distance);
        let end = start.checked_add(AREA_LEN)?;
        self.is_area_free(start..end).then_some(start..end)
    }

    /// Whether trampolines can be mapped at a range.
    pub fn is_area_free(&self, range: Range<u64>) -> bool {
        if range.start < self.bounds.min_addr || range.end > self.bounds.task_size {
            return false;
        }
        match self.tree.overlapping(range.clone()).next() {
            None => true,
            Some((start, vma)) => {
                vma.is_reserved_area() && start == range.start && vma.end == range.end
            }
        }
    }

    /// MAP_POPULATE and MAP_LOCKED fault pages in; that this fails is no error of mmap(2).
    fn populated(&self, plan: Plan, request: &MapRequest, prot: Prot, len: u64) -> Plan {
        let locked = request.flags.contains(MapFlags::LOCKED) || !self.lock_future.is_empty();
        let populate = request.flags.contains(MapFlags::POPULATE)
            && !request.flags.contains(MapFlags::NONBLOCK);
        if !(locked || populate) || !prot.intersects(Prot::READ | Prot::WRITE) {
            return plan;
        }
        let Ok(addr) = plan.value else { return plan };
        let writes = prot.contains(Prot::WRITE) && !request.is_shared();
        let advice = if writes { advice::POPULATE_WRITE } else { advice::POPULATE_READ };
        plan.and_try(HostOp::Advise { addr: UserAddr(addr), len, advice })
    }

    fn choose_address(&mut self, request: &MapRequest, len: u64) -> Result<u64> {
        if len > self.bounds.task_size {
            return Err(Errno::ENOMEM);
        }
        if request.flags.intersects(MapFlags::FIXED | MapFlags::FIXED_NOREPLACE) {
            if !self.is_guest_range(request.addr, len) {
                return Err(Errno::ENOMEM);
            }
            if !request.addr.is_multiple_of(PAGE_SIZE) {
                return Err(Errno::EINVAL);
            }
            if request.addr < self.bounds.min_addr {
                return Err(Errno::EPERM);
            }
            return Ok(request.addr);
        }
        let low = request.flags.contains(MapFlags::MAP_32BIT);
        // How loaders map a program or library as a whole, before its parts.
        let loads = MapFlags::DENYWRITE | MapFlags::EXECUTABLE;
        if request.file.is_some() && request.addr == 0 && !low && request.flags.intersects(loads) {
            return self.free_range_below_area(len);
        }
        self.free_range(request.addr, len, low, request.file.is_none())
    }

    /// A free range for a file with text, with a reserved area for trampolines below it.
    ///
    /// # Errors
    /// `ENOMEM` when there is none.
    pub fn free_range_below_area(&mut self, len: u64) -> Result<u64> {
        let room = len.checked_add(AREA_LEN).ok_or(Errno::ENOMEM)?;
        let area = self.free_range(0, room, false, false)?;
        let start = area + AREA_LEN;
        self.tree.insert(area, Vma { prot: Prot::empty(), ..area_vma(start) });
        Ok(start)
    }

    /// A free range of `len` bytes: at `hint` when that is free, else where Linux' top-down layout looks.
    ///
    /// # Errors
    /// `ENOMEM` when there is none.
    pub fn free_range(&mut self, hint: u64, len: u64, low: bool, huge: bool) -> Result<u64> {
        let limit = if low { LOW_LIMIT } else { self.bounds.task_size };
        if hint != 0 {
            let hint = hint.max(self.bounds.min_addr) & !(PAGE_SIZE - 1);
            let fits = len <= limit && hint <= limit - len;
            if fits && self.has_room(hint..hint + len) {
                return Ok(hint);
            }
        }
        if low {
            return self.tree.find_free_bottom_up(LOW_FLOOR, LOW_LIMIT, len).ok_or(Errno::ENOMEM);
        }
        let (floor, base) = (self.bounds.min_addr, self.bounds.mmap_base);
        if huge && len >= HUGE_PAGE && len.is_multiple_of(HUGE_PAGE) {
            let found = self.tree.find_free_aligned(floor, base, len, STACK_GUARD_GAP, HUGE_PAGE);
            if let Some(addr) = found {
                return Ok(addr);
            }
        }
        self.tree
            .find_free_top_down(floor, base, len, STACK_GUARD_GAP)
            .or_else(|| self.tree.find_free_bottom_up(base, self.bounds.task_size, len))
            .ok_or(Errno::ENOMEM)
    }

    /// Free, and not in the guard gap of a VMA that grows down.
    fn has_room(&self, range: Range<u64>) -> bool {
        let guarded = self.tree.next_from(range.end).is_some_and(|(start, vma)| {
            vma.flags.contains(VmaFlags::GROWSDOWN) && start - range.end < STACK_GUARD_GAP
        });
        !guarded && self.tree.is_free(range)
    }
}

/// The area first: without it the text would lead nowhere.
fn map_shared_text(
    text: &SharedText,
    addr: u64,
    len: u64,
    prot: Prot,
    area: Range<u64>,
    undo: Undo,
) -> Plan {
    let map = |addr, len, prot, offset| HostOp::Map {
        addr: UserAddr(addr),
        len,
        prot,
        shared: false,
        noreserve: true,
        backing: Backing::File { fd: Arc::clone(&text.fd), offset },
    };
    let area = map(area.start, AREA_LEN, Prot::all(), text.area);
    let mut plan = Plan::one(addr, area, undo);
    plan.ops.push(map(addr, len, prot, 0));
    plan
}

/// The flag checks of an anonymous mapping.
fn check_anonymous_type(flags: MapFlags) -> Result<()> {
    match flags.map_type() {
        MapFlags::TYPE_PRIVATE => Ok(()),
        MapFlags::TYPE_SHARED if !flags.contains(MapFlags::GROWSDOWN) => Ok(()),
        // MAP_DROPPABLE is not offered; MAP_SHARED_VALIDATE without a file is invalid on Linux, too.
        _ => Err(Errno::EINVAL),
    }
}
