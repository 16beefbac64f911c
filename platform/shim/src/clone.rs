//! New threads and processes, and how they begin.

use core::arch::naked_asm;
use core::sync::atomic::Ordering::Relaxed;

use crate::abi::{self, Slot, ring};
use crate::calls::{self, die, failed, syscall};
use crate::{channel, fast, vectors};

/// A thread that will stand in slot `index`, with a base of fs of its own or its creator's ([`abi::INHERIT_FS`]).
pub fn thread(creator: &Slot, index: u64, token: u64, fs_base: u64) -> i64 {
    if index >= u64::from(abi::MAX_SLOTS) {
        die(104);
    }
    let slot = channel::slot(index);
    let fs_base = if fs_base == abi::INHERIT_FS {
        channel::fs_base().unwrap_or_default()
    } else {
        fs_base
    };
    // Meaningless where the creator is in a signal: then the newborn gets a frame.
    vectors::copy_vectors(fast::fast(creator), fast::fast(slot));
    let stack = slot as *const Slot as u64 + abi::START_STACK_OFFSET;
    let alive = &raw const slot.alive as u64;
    // SAFETY: the stack is the new thread's own, in a slot that nobody else uses.
    unsafe {
        raw_clone(
            abi::THREAD_CLONE_FLAGS,
            stack,
            alive,
            fs_base,
            thread_main as *const () as u64,
            token,
        )
    }
}

/// A copy of this process. The child stands on its private scratch stack: the channel is not inherited. `channel` is
/// the descriptor of its own, or where that is in what it inherits from the zygote ([`abi::IN_ARENA`]).
pub fn process(creator: Option<&Slot>, token: u64, channel: u64) -> i64 {
    if let Some(creator) = creator {
        vectors::copy_vectors(fast::fast(creator), scratch());
    }
    let stack = abi::SCRATCH_ADDR + abi::SCRATCH_SIZE;
    let main = process_main as *const () as u64;
    // SAFETY: nobody stands on the scratch stack of the child's own copy.
    unsafe { raw_clone(abi::PROCESS_CLONE_FLAGS, stack, 0, channel, main, token) }
}

/// Where a copy finds its creator's vector registers: in the lowest part of its scratch stack.
fn scratch() -> &'static abi::Fast {
    // SAFETY: mapped by the zygote; all fields atomic. The stack above is not used so far down.
    unsafe { &*(abi::SCRATCH_ADDR as *const abi::Fast) }
}

/// clone(2) on a stack of its own: the child calls `main(token, tls)`, which never returns.
#[unsafe(naked)]
unsafe extern "C" fn raw_clone(
    flags: u64,
    stack: u64,
    child_tid: u64,
    tls: u64,
    main: u64,
    token: u64,
) -> i64 {
    naked_asm!(
        // main and token survive in r8's and r9's stead: the call keeps all but rax, rcx, r11.
        "push r12",
        "push r13",
        "mov r12, r8",
        "mov r13, r9",
        "mov r10, rdx",
        "mov r8, rcx",
        "xor edx, edx",
        "xor r9d, r9d",
        "mov eax, 56",
        "syscall",
        "test rax, rax",
        "jz 2f",
        "pop r13",
        "pop r12",
        "ret",
        "2:",
        "xor ebp, ebp",
        "mov rdi, r13",
        "mov rsi, r8",
        "call r12",
        "ud2",
    )
}

/// A thread's first steps.
extern "C" fn thread_main(token: u64) -> ! {
    let here = 0u8;
    let slot = channel::slot_of(&raw const here as u64);
    take_signal_stack(slot);
    let answer = calls::ring(ring::HELLO, token);
    channel::serve(slot, answer);
    begin(slot)
}

/// A process's first steps: it gets a channel, then is as any other.
extern "C" fn process_main(token: u64, channel: u64) -> ! {
    const PR_SET_PDEATHSIG: u64 = 1;
    const SIGKILL: u64 = 9;
    const PROT_READ_WRITE: u64 = 3;
    const MAP_SHARED_FIXED: u64 = 0x11;
    const MADV_DONTFORK: u64 = 10;
    syscall(calls::PRCTL, [PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0, 0]);
    let (fd, offset) = match channel & abi::IN_ARENA {
        0 => (channel, 0),
        _ => (u64::from(abi::ARENA_FD), channel & !abi::IN_ARENA),
    };
    let (at, len) = (abi::CHANNEL_ADDR, abi::CHANNEL_SIZE);
    if failed(syscall(calls::MMAP, [at, len, PROT_READ_WRITE, MAP_SHARED_FIXED, fd, offset]))
        || failed(syscall(calls::MADVISE, [at, len, MADV_DONTFORK, 0, 0, 0]))
        || failed(syscall(calls::CLOSE, [fd, 0, 0, 0, 0, 0]))
    {
        die(105);
    }
    // A copy's creator waits for this; a stub has nothing better to do before.
    let is_copy = channel & abi::IN_ARENA == 0;
    let mut answer = if is_copy { calls::ring(ring::HELLO, token) } else { 0 };
    let slot = crate::channel::slot(0);
    // Read first: that maps what the sentry has made of the neighbourhood as well.
    slot.state.load(Relaxed);
    take_signal_stack(slot);
    vectors::copy_vectors(scratch(), fast::fast(slot));
    if !is_copy {
        answer = calls::ring(ring::HELLO, token);
    }
    channel::serve(slot, answer);
    begin(slot)
}

/// Signals come on the slot's stack.
fn take_signal_stack(slot: &Slot) {
    /// `stack_t`.
    #[repr(C)]
    struct Stack {
        start: u64,
        flags: u64,
        size: u64,
    }
    let start = slot as *const Slot as u64 + abi::STACK_OFFSET;
    let stack = Stack { start, flags: 0, size: abi::STACK_END - abi::STACK_OFFSET };
    if failed(syscall(calls::SIGALTSTACK, [&raw const stack as u64, 0, 0, 0, 0, 0])) {
        die(111);
    }
}

/// Becomes what the slot says.
fn begin(slot: &Slot) -> ! {
    fast::claim_gs(slot);
    if slot.start_frame.load(Relaxed) == abi::START_FAST {
        // SAFETY: gs is the slot's, and the sentry wrote the registers before it let us run.
        unsafe { fast::begin(slot as *const Slot as u64) }
    }
    let context = slot as *const Slot as u64 + u64::from(slot.start_frame.load(Relaxed));
    // SAFETY: the sentry wrote the frame before it let us run.
    unsafe { sigreturn(context) }
}

/// rt_sigreturn from the frame whose `ucontext` is at `context`.
#[unsafe(naked)]
unsafe extern "C" fn sigreturn(context: u64) -> ! {
    naked_asm!("mov rsp, rdi", "mov eax, 15", "syscall", "ud2")
}
