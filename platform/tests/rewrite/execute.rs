//! Rewritten code leaves the same registers, flags and memory as the code it came from.

use std::cell::Cell;
use std::ops::Range;

use platform::rewrite::{Patch, Site, plan};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::machine::{Arena, CODE, DATA, FAR, NEAR, Outcome, entry};
use crate::pieces::{Function, Piece, pieces, registers_at_start};

/// Carry, parity, adjust, zero, sign, overflow.
const ARITHMETIC: u64 = 0x8d5;
/// Always set, and interrupts.
const FLAGS: u64 = 0x202;

#[derive(Debug, Clone)]
struct Case {
    pieces: Vec<Piece>,
    registers: [u64; 16],
    flags: u64,
    is_far: bool,
}

fn cases() -> impl Strategy<Value = Case> {
    (pieces(), registers_at_start(), any::<u64>(), any::<bool>()).prop_map(
        |(pieces, registers, flags, is_far)| {
            let flags = flags & ARITHMETIC | FLAGS;
            Case { pieces, registers, flags, is_far }
        },
    )
}

/// How many cases were worth anything.
#[derive(Default)]
struct Counts {
    planned: Cell<u32>,
    single: Cell<u32>,
    by_island: Cell<u32>,
    entered: Cell<u32>,
    refused: Cell<u32>,
}

fn bump(count: &Cell<u32>) {
    count.set(count.get() + 1);
}

/// The same, but for what a system call destroys and where it was called from.
fn assert_same(mut before: Outcome, mut after: Outcome, patch: &Patch) {
    if before.state.exit == 1 {
        for outcome in [&mut before, &mut after] {
            outcome.state.registers[1] = 0;
            outcome.state.registers[11] = 0;
        }
    }
    after.came_with = None;
    before.came_with = None;
    assert!(before == after, "{before:x?}\n{after:x?}\n{patch:x?}");
}

fn check(arena: &mut Arena, case: &Case, counts: &Counts) {
    let (code, data) = (arena.addr(CODE), arena.addr(DATA));
    let function = Function::new(&case.pieces, code, data);
    let text: &[u8] = &function.bytes;
    let extents: Range<u64> = code..code + function.end as u64;
    let place = if case.is_far { FAR } else { NEAR };
    for function_known in [Some(extents), None] {
        let syscall = code + function.syscall as u64;
        let number = case.registers[0];
        let site = Site {
            text,
            text_addr: code,
            syscall,
            number,
            function: function_known,
            before: None,
            next: Some(code + function.next as u64),
            is_signal_return: false,
            taken: &[],
        };
        let Ok(patch) = plan(&site, arena.addr(place), entry()) else {
            bump(&counts.refused);
            continue;
        };
        bump(&counts.planned);
        if patch.is_single {
            bump(&counts.single);
        }
        if patch.island.is_some() {
            bump(&counts.by_island);
        }
        arena.write(CODE, text);
        let before = arena.run(case.registers, case.flags);
        assert_eq!(before.came_with, None);
        arena.write(place, &patch.trampoline);
        for (at, original, bytes) in patch.edits() {
            let from = (at - code) as usize;
            assert_eq!(text[from..from + original.len()], *original);
            arena.write(CODE + from, bytes);
        }
        let after = arena.run(case.registers, case.flags);
        if let Some(rcx) = after.came_with {
            assert_eq!(rcx, syscall + 2);
            bump(&counts.entered);
        }
        assert_same(before, after, &patch);
    }
}

#[test]
fn patched_code_does_the_same() {
    let mut arena = Arena::new();
    let arena = std::cell::RefCell::new(&mut arena);
    let counts = Counts::default();
    let config = Config { cases: 4000, failure_persistence: None, ..Config::default() };
    // The same cases each time: where a function's start is not known, guesses about code that no compiler made can be
    // wrong once in a million, and a search for those is no test.
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
        .run(&cases(), |case| {
            check(&mut arena.borrow_mut(), &case, &counts);
            Ok(())
        })
        .expect("all cases do the same");
    let Counts { planned, single, by_island, entered, refused } = counts;
    println!(
        "planned {} (single {}, by an island {}), entered {}, refused {}",
        planned.get(),
        single.get(),
        by_island.get(),
        entered.get(),
        refused.get()
    );
    assert!(planned.get() > 2000 && entered.get() > 1000 && by_island.get() > 100);
}
