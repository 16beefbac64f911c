//! Waits for private futexes that the shim makes on the host.

use abi::UserAddr;
use platform::Event;

use crate::fast::load_fast;
use crate::harness::{DATA, block_on, next, platform, step};

const WORD: UserAddr = UserAddr(DATA + 0x200);

#[test]
fn a_kick_always_ends_a_wait_and_it_is_counted_until_it_is_taken() {
    let platform = platform();
    // Waits while the word at 0x600200 is 0, counting returns in r12.
    let code = snippet!(
        "2:",
        "mov eax, 202",
        "mov edi, 0x600200",
        "mov esi, 0x80",
        "xor edx, edx",
        "xor r10d, r10d",
        "lea rcx, [rip + 3f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "3:",
        "inc r12",
        "jmp 2b",
    );
    let Some(mut context) = load_fast(&platform, code) else { return };
    let space = std::sync::Arc::clone(context.space());
    for round in 0..2_000 {
        context.resume();
        // Sometimes before the host call, sometimes during it.
        for _ in 0..round % 100 * 50 {
            std::hint::spin_loop();
        }
        context.kicker().kick();
        match next(&mut *context).expect("an event") {
            Event::Syscall => {
                assert_eq!(context.regs().rax, 202);
                assert!(space.futexes().has_outside(WORD));
                context.end_outside_wait();
                assert!(!space.futexes().has_outside(WORD));
                context.set_return(0);
            }
            Event::Interrupted => {}
            other => panic!("{other:?}"),
        }
    }
    // Not allowed any more: each wait is a call.
    space.futexes().end_outside();
    assert_eq!(step(&mut *context), Event::Syscall);
    context.end_outside_wait();
    assert!(space.futexes().end_outside());
    assert_eq!(block_on(context.wake_outside(WORD, 1, !0)).expect("alive"), 0);
}
