//! Errnos of the mmap family as the host answers them (Linux 6.18), and what plans do to the tree.

use abi::addr::PAGE_SIZE;
use abi::mman::{MapFlags, MclFlags, MremapFlags, MsyncFlags, advice};
use abi::{Errno, Result};
use platform::{HostOp, Prot};

use super::*;
use crate::rewrite::{AREA_LEN, area_vma};

mod heap;
mod hostile;

const P: u64 = PAGE_SIZE;
const TASK_SIZE: u64 = 0x7e00_0000_0000;
const HOLE: u64 = 0x1000_0000;
const RW: u32 = 3;
const PRIVATE: MapFlags = MapFlags::PRIVATE.union(MapFlags::ANONYMOUS);

fn state() -> MmState {
    MmState::new(Bounds { min_addr: 0x1_0000, task_size: TASK_SIZE, mmap_base: 0x7000_0000_0000 })
}

fn request(addr: u64, len: u64, flags: MapFlags) -> MapRequest {
    MapRequest {
        addr,
        len,
        prot: RW,
        flags,
        file: None,
        offset: 0,
        noexec: false,
        shared_text: None,
    }
}

fn map(state: &mut MmState, addr: u64, len: u64, flags: MapFlags) -> Result<u64> {
    map_within(state, addr, len, flags, &Limits::NONE)
}

fn map_within(
    state: &mut MmState,
    addr: u64,
    len: u64,
    flags: MapFlags,
    limits: &Limits,
) -> Result<u64> {
    let request = request(addr, len, flags);
    let source = request.source()?;
    state.plan_map(&request, source, limits)?.value
}

/// A state with 16 pages at the returned address.
fn mapped() -> (MmState, u64) {
    let mut state = state();
    let addr = map(&mut state, 0, 16 * P, PRIVATE).unwrap();
    (state, addr)
}

/// A state with a file's text of 4 pages at the returned address, and trampolines in use below it.
fn rewritten() -> (MmState, u64) {
    let mut state = state();
    let text = state.free_range_below_area(4 * P).unwrap();
    let area = text - AREA_LEN;
    state.tree.remove(area..text);
    state.tree.insert(area, area_vma(text));
    let request = MapRequest { prot: 5, ..request(text, 4 * P, PRIVATE | MapFlags::FIXED) };
    let source = request.source().unwrap();
    state.plan_map(&request, source, &Limits::NONE).unwrap().value.unwrap();
    (state, text)
}

#[test]
fn munmap_takes_the_trampolines_with_the_last_of_the_text() {
    let (mut state, text) = rewritten();
    let plan = state.plan_unmap(text, 4 * P).unwrap();
    assert_eq!((plan.ops.len(), state.tree.len()), (2, 0));
}

#[test]
fn munmap_leaves_the_trampolines_to_text_that_stays() {
    let (mut state, text) = rewritten();
    let plan = state.plan_unmap(text, P).unwrap();
    assert_eq!((plan.ops.len(), state.tree.len()), (1, 2));
}

#[test]
fn munmap_has_no_host_unmap_a_reserved_area() {
    let mut state = state();
    let addr = state.free_range_below_area(P).unwrap();
    map(&mut state, addr, P, PRIVATE | MapFlags::FIXED).unwrap();
    let plan = state.plan_unmap(addr, P).unwrap();
    assert_eq!((plan.ops.len(), state.tree.len()), (1, 0));
}

#[test]
fn mmap_refuses_as_the_host_does() {
    let (mut state, a) = mapped();
    let fixed = PRIVATE | MapFlags::FIXED;
    let shared = MapFlags::SHARED | MapFlags::ANONYMOUS;
    let cases = [
        (0, 0, PRIVATE, Errno::EINVAL),
        (0, u64::MAX, PRIVATE, Errno::ENOMEM),
        (0, 1 << 47, PRIVATE, Errno::ENOMEM),
        (0, P, MapFlags::ANONYMOUS, Errno::EINVAL),
        (0, P, shared | MapFlags::PRIVATE, Errno::EINVAL),
        (a + 1, P, fixed, Errno::EINVAL),
        (1 << 47, P, fixed, Errno::ENOMEM),
        (0x1_0000, 1 << 47, fixed, Errno::ENOMEM),
        (0x1000, P, fixed, Errno::EPERM),
        (a, P, PRIVATE | MapFlags::FIXED_NOREPLACE, Errno::EEXIST),
        (0, P, shared | MapFlags::GROWSDOWN, Errno::EINVAL),
    ];
    for (addr, len, flags, errno) in cases {
        let got = map(&mut state, addr, len, flags);
        assert_eq!(got, Err(errno), "mmap({addr:#x}, {len:#x}, {flags:?})");
    }
    assert_eq!(state.tree.totals().mapped, 16 * P);
}

#[test]
fn munmap_and_mprotect_refuse_as_the_host_does() {
    let (mut state, a) = mapped();
    let value = |plan: Result<Plan>| plan.and_then(|plan| plan.value);
    for (addr, len, expected) in [
        (a + 1, P, Err(Errno::EINVAL)),
        (a, 0, Err(Errno::EINVAL)),
        (1 << 47, P, Err(Errno::EINVAL)),
        (HOLE, P, Ok(0)),
    ] {
        assert_eq!(value(state.plan_unmap(addr, len)), expected, "munmap({addr:#x}, {len:#x})");
    }
    for (addr, len, prot, expected) in [
        (a + 1, P, 1, Err(Errno::EINVAL)),
        (a, 0, 1, Ok(0)),
        (a, P, 0x40, Err(Errno::EINVAL)),
        (HOLE, P, 1, Err(Errno::ENOMEM)),
        (a, P, 0x0300_0000, Err(Errno::EINVAL)),
        (a, P, 0x0100_0001, Err(Errno::EINVAL)),
        (a, u64::MAX - P, 1, Err(Errno::ENOMEM)),
    ] {
        let got = value(state.plan_protect(addr, len, prot, &Limits::NONE));
        assert_eq!(got, expected, "mprotect({addr:#x}, {len:#x}, {prot:#x})");
    }
}

#[test]
fn mremap_refuses_as_the_host_does() {
    let (mut state, a) = mapped();
    let (may_move, fixed) = (MremapFlags::MAYMOVE, MremapFlags::FIXED);
    let keep = may_move | MremapFlags::DONTUNMAP;
    for (addr, old, new, flags, to, errno) in [
        (a, P, P, fixed, a, Errno::EINVAL),
        (a + 1, P, P, may_move, 0, Errno::EINVAL),
        (a, P, 0, may_move, 0, Errno::EINVAL),
        (HOLE, P, 2 * P, may_move, 0, Errno::EFAULT),
        (a, 0, P, may_move, 0, Errno::EINVAL),
        (a, 64 * P, 128 * P, may_move, 0, Errno::EFAULT),
        (a, 4 * P, 4 * P, may_move | fixed, a + P, Errno::EINVAL),
        (a, P, 2 * P, keep, 0, Errno::EINVAL),
        (a, P, 2 * P, MremapFlags::empty(), 0, Errno::ENOMEM),
    ] {
        let got = state.plan_remap(addr, old, new, flags, to, &Limits::NONE).map(|plan| plan.value);
        assert_eq!(got, Err(errno), "mremap({addr:#x}, {old:#x}, {new:#x}, {flags:?}, {to:#x})");
    }
}

#[test]
fn advice_queries_and_locks_refuse_as_the_host_does() {
    let (mut state, a) = mapped();
    let dontneed = advice::DONTNEED;
    for (addr, len, advice, expected) in [
        (a, P, 77, Err(Errno::EINVAL)),
        (a + 1, P, dontneed, Err(Errno::EINVAL)),
        (HOLE, P, dontneed, Err(Errno::ENOMEM)),
        (a, 0, dontneed, Ok(0)),
        (a, u64::MAX, dontneed, Err(Errno::EINVAL)),
    ] {
        let got = state.plan_advise(addr, len, advice).and_then(|plan| plan.value);
        assert_eq!(got, expected, "madvise({addr:#x}, {len:#x}, {advice})");
    }
    assert_eq!(state.incore_pages(a + 1, P), Err(Errno::EINVAL));
    assert_eq!(state.incore_pages(HOLE, P), Err(Errno::ENOMEM));
    assert_eq!(state.incore_pages(1 << 47, P), Err(Errno::ENOMEM));
    assert_eq!(state.incore_pages(a, 2 * P + 1), Ok(3));
    let sync = |addr, len, flags| state.plan_sync(addr, len, flags).and_then(|(_, value)| value);
    assert_eq!(sync(a + 1, P, MsyncFlags::SYNC), Err(Errno::EINVAL));
    assert_eq!(sync(a, P, MsyncFlags::SYNC | MsyncFlags::ASYNC), Err(Errno::EINVAL));
    assert_eq!(sync(HOLE, P, MsyncFlags::SYNC), Err(Errno::ENOMEM));
    assert_eq!(sync(HOLE, 0, MsyncFlags::SYNC), Ok(0));
    let lock = |state: &mut MmState, addr, len| {
        state.lock_range(addr, len, VmaFlags::LOCKED, &Limits::NONE)
    };
    assert_eq!(lock(&mut state, HOLE, P), Err(Errno::ENOMEM));
    assert_eq!(lock(&mut state, a, u64::MAX), Ok(()));
    assert_eq!(state.lock_all(MclFlags::empty(), &Limits::NONE), Err(Errno::EINVAL));
    assert_eq!(state.lock_all(MclFlags::ONFAULT, &Limits::NONE), Err(Errno::EINVAL));
    assert_eq!(state.unlock_range(HOLE, P), Err(Errno::ENOMEM));
}

#[test]
fn limits_hold() {
    let mut state = state();
    let limits = Limits { address_space: 10 * P, data: 8 * P, ..Limits::NONE };
    let mut try_map = |len| map_within(&mut state, 0, len, PRIVATE, &limits).map(|_| ());
    assert_eq!(try_map(11 * P), Err(Errno::ENOMEM));
    assert_eq!(try_map(9 * P), Err(Errno::ENOMEM));
    assert_eq!(try_map(8 * P), Ok(()));
    assert_eq!(try_map(P), Err(Errno::ENOMEM));
    let locks = Limits { memlock: 2 * P, may_lock: false, ..Limits::NONE };
    let (mut state, a) = mapped();
    assert_eq!(state.lock_range(a, 3 * P, VmaFlags::LOCKED, &locks), Err(Errno::ENOMEM));
    assert_eq!(state.lock_range(a, 2 * P, VmaFlags::LOCKED, &locks), Ok(()));
    assert_eq!(state.lock_range(a, 2 * P, VmaFlags::LOCKED, &locks), Ok(()));
    let locked = PRIVATE | MapFlags::LOCKED;
    assert_eq!(map_within(&mut state, 0, P, locked, &locks), Err(Errno::EAGAIN));
}

#[test]
fn hints_are_taken_when_free() {
    let (mut state, a) = mapped();
    assert_eq!(map(&mut state, 0x5000_0123, P, PRIVATE), Ok(0x5000_0000));
    let other = map(&mut state, a, P, PRIVATE).unwrap();
    assert_eq!(other, a - P);
    let low = map(&mut state, 0, P, PRIVATE | MapFlags::MAP_32BIT).unwrap();
    assert!(low < 1 << 31);
    let huge = map(&mut state, 0, 4 << 20, PRIVATE).unwrap();
    assert_eq!(huge % (2 << 20), 0);
}

#[test]
fn growing_moves_only_when_it_must() {
    let (mut state, a) = mapped();
    let b = map(&mut state, a + 32 * P, 4 * P, PRIVATE).unwrap();
    let plan = state.plan_remap(a, 16 * P, 20 * P, MremapFlags::empty(), 0, &Limits::NONE).unwrap();
    assert_eq!(plan.value, Ok(a));
    assert!(matches!(plan.ops[..], [HostOp::Map { len, .. }] if len == 4 * P));
    let plan = state.plan_remap(a, 20 * P, 64 * P, MremapFlags::MAYMOVE, 0, &Limits::NONE).unwrap();
    let moved = plan.value.unwrap();
    assert!(moved != a && state.tree.find(a).is_none() && state.tree.find(b).is_some());
    assert_eq!(state.tree.mapped_in(&(moved..moved + 64 * P)), 64 * P);
}

#[test]
fn refused_changes_are_taken_back() {
    let (mut state, a) = mapped();
    let before: Vec<_> = state.tree.iter().map(|(start, vma)| (start, vma.end, vma.prot)).collect();
    let plans: [fn(&mut MmState, u64) -> Plan; 4] = [
        |state, a| state.plan_unmap(a + P, 2 * P).unwrap(),
        |state, a| state.plan_protect(a + P, 2 * P, 1, &Limits::NONE).unwrap(),
        |state, a| {
            let request = request(a + P, P, PRIVATE | MapFlags::FIXED);
            state.plan_map(&request, None, &Limits::NONE).unwrap()
        },
        |state, a| {
            let flags = MremapFlags::MAYMOVE;
            state.plan_remap(a, 16 * P, 99 * P, flags, 0, &Limits::NONE).unwrap()
        },
    ];
    for plan in plans {
        let plan = plan(&mut state, a);
        let outcome = state.undo(plan.undo, 0, Errno::ENOMEM);
        assert_eq!(outcome, Some(Err(Errno::ENOMEM)));
        let after: Vec<_> =
            state.tree.iter().map(|(start, vma)| (start, vma.end, vma.prot)).collect();
        assert_eq!(before, after);
    }
}

#[test]
fn brk_moves_and_stays_where_it_cannot() {
    let mut state = state();
    (state.brk_start, state.brk) = (0x100_0000, 0x100_0000);
    let brk = |state: &mut MmState, to| state.plan_brk(to, &Limits::NONE).value.unwrap();
    assert_eq!(brk(&mut state, 0), 0x100_0000);
    assert_eq!(brk(&mut state, 0x100_0001), 0x100_0001);
    assert_eq!(brk(&mut state, 0x100_3000), 0x100_3000);
    assert_eq!(
        state.tree.find(0x100_2fff).map(|(_, vma)| vma.prot),
        Some(Prot::READ | Prot::WRITE)
    );
    assert_eq!(brk(&mut state, 0x100_1000), 0x100_1000);
    assert_eq!(state.tree.totals().mapped, P);
    let _ = map(&mut state, 0x200_0000, P, PRIVATE | MapFlags::FIXED);
    assert_eq!(brk(&mut state, 0x300_0000), 0x100_1000);
    assert_eq!(brk(&mut state, u64::MAX), 0x100_1000);
}

#[test]
fn a_page_stays_free_behind_the_heap() {
    const HEAP: u64 = 0x100_0000;
    let mut state = state();
    (state.brk_start, state.brk) = (HEAP, HEAP);
    let brk = |state: &mut MmState, to| state.plan_brk(to, &Limits::NONE).value.unwrap();
    let _ = map(&mut state, HEAP + 9 * P, P, PRIVATE | MapFlags::FIXED);
    assert_eq!(brk(&mut state, HEAP + 8 * P + 1), HEAP);
    assert_eq!(brk(&mut state, HEAP + 8 * P), HEAP + 8 * P);
    let _ = state.plan_unmap(HEAP + 4 * P, 4 * P);
    assert_eq!(brk(&mut state, HEAP + 5 * P), HEAP + 8 * P, "nothing would be unmapped");
    assert_eq!(brk(&mut state, HEAP + 3 * P), HEAP + 3 * P);
}
