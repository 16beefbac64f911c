//! The shim: the in-guest half of the seccomp platform. Zygote, signal handler, executor of the sentry's orders.
//!
//! It runs with the guest's privileges (none) and is not trusted by anybody. It has no writable data of its own:
//! its state is the slot that its stack lies in. `platform::seccomp` documents the protocol.

#![no_std]
#![no_main]

#[path = "../../shim-abi/src/files.rs"]
#[allow(dead_code, reason = "the sentry's side uses the rest")]
mod files;
#[path = "../../shim-abi/src/layout.rs"]
#[allow(dead_code, reason = "the sentry's side uses the rest")]
mod layout;
#[path = "../../shim-abi/src/ledger.rs"]
#[allow(dead_code, reason = "the sentry's side uses the rest")]
mod ledger;
#[path = "../../shim-abi/src/pointers.rs"]
mod pointers;
#[path = "../../shim-abi/src/processor.rs"]
#[allow(dead_code, reason = "the sentry's side uses the rest")]
mod processor;
#[path = "../../shim-abi/src/streams.rs"]
#[allow(dead_code, reason = "the sentry's side uses the rest")]
mod streams;

use layout as abi;

/// Address of a label in an assembly block. (As an external symbol it would need a table that the linker fills in: data.)
macro_rules! label {
    ($name:literal) => {{
        let address: u64;
        // SAFETY: only computes an address.
        unsafe {
            core::arch::asm!(concat!("lea {}, [rip + ", $name, "]"), out(reg) address,
                options(nostack, nomem, pure, preserves_flags));
        }
        address
    }};
}

mod calls;
mod channel;
mod clone;
mod descriptors;
mod entries;
mod epoll;
mod fast;
mod futex;
mod guest_memory;
mod heap;
mod known_paths;
mod library;
mod loans;
mod marshal;
mod memory_calls;
mod notes;
mod path_stats;
mod pipes;
mod questions;
mod ready;
mod signal_calls;
mod signals;
mod start_calls;
mod traps;
mod vectors;
mod words;
mod zygote;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    calls::die(101)
}
