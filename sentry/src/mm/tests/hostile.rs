//! Any arguments: an errno or a plan that stays in the guest's range, never a panic.

use proptest::prelude::*;

use super::*;

/// Numbers that lie near something.
fn word() -> impl Strategy<Value = u64> {
    let near = prop_oneof![
        Just(0),
        Just(0x1_0000),
        Just(0x100_0000),
        Just(0x6fff_ffff_0000),
        Just(0x7000_0000_0000),
        Just(TASK_SIZE),
        Just(1 << 47),
        Just(1 << 63),
        Just(u64::MAX),
    ];
    prop_oneof![
        (near, -20i64..20, 0u64..3).prop_map(|(base, pages, odd)| {
            base.wrapping_add_signed(pages * P as i64).wrapping_add(odd)
        }),
        (0u64..64).prop_map(|pages| pages * P),
        any::<u64>(),
    ]
}

#[derive(Debug, Clone, Copy)]
struct Call {
    kind: u8,
    a: u64,
    b: u64,
    c: u64,
    d: u64,
    flags: u32,
}

fn call() -> impl Strategy<Value = Call> {
    (0u8..11, word(), word(), word(), word(), any::<u32>())
        .prop_map(|(kind, a, b, c, d, flags)| Call { kind, a, b, c, d, flags })
}

fn run(state: &mut MmState, call: Call) -> Option<Plan> {
    let Call { kind, a, b, c, d, flags } = call;
    let limits = &Limits::NONE;
    match kind {
        0 | 1 => {
            let kind =
                if flags & 1 == 0 { PRIVATE } else { MapFlags::SHARED | MapFlags::ANONYMOUS };
            let fixed = if flags & 2 == 0 { MapFlags::FIXED } else { MapFlags::empty() };
            let request = MapRequest { prot: flags >> 8, ..request(a, b, kind | fixed) };
            let source = request.source().ok()?;
            state.plan_map(&request, source, limits).ok()
        }
        2 => state.plan_unmap(a, b).ok(),
        3 => state.plan_protect(a, b, flags & 0x0300_000f, limits).ok(),
        4 => {
            let flags = MremapFlags::from_bits_truncate(flags);
            state.plan_remap(a, b, c, flags, d, limits).ok()
        }
        5 => state.plan_advise(a, b, (flags % 30).cast_signed()).ok(),
        6 => Some(state.plan_brk(a, limits)),
        7 => {
            let _ = state.lend_heap(true);
            None
        }
        8 => {
            let _ = state.follow_brk(a);
            None
        }
        9 => {
            let _ = state.lock_range(a, b, VmaFlags::LOCKED, limits);
            let _ = state.unlock_range(c, d);
            None
        }
        _ => {
            let _ = state.incore_pages(a, b);
            let _ = state.plan_sync(a, b, MsyncFlags::from_bits_truncate(flags));
            None
        }
    }
}

fn target(op: &HostOp) -> (u64, u64) {
    match *op {
        HostOp::Map { addr, len, .. }
        | HostOp::Unmap { addr, len }
        | HostOp::Protect { addr, len, .. }
        | HostOp::Advise { addr, len, .. } => (addr.0, len),
        HostOp::Remap { new_addr, new_len, .. } => (new_addr.0, new_len),
        _ => (0x1_0000, 0),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_arguments_stay_in_the_guests_range(calls in prop::collection::vec(call(), 1..40)) {
        let mut state = state();
        (state.brk_start, state.brk) = (0x100_0000, 0x100_0000);
        for call in calls {
            let Some(plan) = run(&mut state, call) else { continue };
            for op in &plan.ops {
                let (addr, len) = target(op);
                prop_assert!(addr % P == 0 && len % P == 0, "{call:?} gave {op:?}");
                prop_assert!(state.is_guest_range(addr, len), "{call:?} gave {op:?}");
            }
            if call.flags % 7 == 0 {
                let _ = state.undo(plan.undo, 0, Errno::ENOMEM);
            }
        }
        for (start, vma) in state.tree.iter() {
            prop_assert!(start >= 0x1_0000 && start < vma.end && vma.end <= TASK_SIZE);
        }
        let mapped: u64 = state.tree.iter().map(|(start, vma)| vma.end - start).sum();
        prop_assert_eq!(state.tree.totals().mapped, mapped);
    }
}

/// What mremap(2) cuts off must be the guest's, too: random arguments met this once in many runs.
#[test]
fn a_fixed_move_cuts_off_nothing_beyond_the_guests_range() {
    let mut state = state();
    let map = Call { kind: 0, a: 0x1_e000, b: P, c: 0, d: 0, flags: 0 };
    let _ = run(&mut state, map);
    let start = state.tree.iter().next().map(|(start, _)| start).expect("something is mapped");
    let flags = MremapFlags::MAYMOVE | MremapFlags::FIXED;
    let old_len = TASK_SIZE - start + P;
    let limits = &Limits::NONE;
    for (old_len, new_addr) in [(old_len, 0x1_0000), (!(P - 1), 0x1_0000)] {
        let plan = state.plan_remap(start, old_len, P, flags, new_addr, limits);
        assert_eq!(plan.err(), Some(Errno::EINVAL));
    }
}
