//! The way in and out without a signal: where rewritten call sites jump to.
//!
//! A site's trampoline comes here with the address behind the call's instruction in rcx, as that instruction itself
//! would leave it; rcx and r11 are free, all else is the guest's: no stack may be touched, not even the flags changed
//! before they are saved. The thread finds its slot by the base of gs. Where that is not a slot (the guest uses gs
//! itself), the call's instruction is executed after all, and traps.
//!
//! Signals are not blocked here. The handler treats those that find the thread in this blob apart (`signals`): a kick
//! sets [`abi::Fast::kicked`]; in `out` (and its short form in `answer`), where that word is looked at for the last time,
//! the handler also moves the thread back to the start. From there on nothing is overwritten that is still to be loaded, so that the
//! section can begin again at any of its instructions.
//!
//! Only general registers are used; before compiled code runs the vector registers are put aside.

use core::arch::naked_asm;
use core::mem::offset_of;
use core::sync::atomic::Ordering::{Acquire, Relaxed};

use crate::abi::{self, Fast, Global, Slot, kind, state, task};
use crate::calls;
use crate::channel::{self, Outcome};
use crate::{
    descriptors, entries, epoll, futex, heap, known_paths, library, loans, marshal, memory_calls, path_stats, pipes, ready,
    signal_calls, start_calls, vectors,
};

/// Offset in a slot of register `index` of `gregs`: rax, which is the result in the end, is in [`Slot::call`], all others are in
/// [`Fast`], for what else is in the call's line may be inputs and outputs.
const fn saved(index: usize) -> usize {
    const RAX: usize = 13;
    if index == RAX {
        return offset_of!(Slot, call);
    }
    abi::FAST_OFFSET as usize + offset_of!(Fast, registers) + index * 8
}

const VECTORS: usize = abi::FAST_OFFSET as usize + offset_of!(Fast, vectors);
const KICKED: usize = abi::FAST_OFFSET as usize + offset_of!(Fast, kicked);
/// Looks before the first pause.
const EAGER_LOOKS: u32 = 64;
/// What [`offer`] says of a call that it has answered.
const ANSWERED: u32 = u32::MAX;
/// Bits of [`Slot::word`] that ask for more than to go on.
const TASKS: u32 = task::OPS | task::COPIES << task::COPIES_SHIFT | u32::MAX << task::OUTPUT_SHIFT;

/// Where trampolines jump to.
#[unsafe(naked)]
pub unsafe extern "C" fn enter() {
    naked_asm!(
        // Is gs a slot's address? Without touching the flags.
        "rdgsbase r11",
        "xchg rcx, r11",
        "rorx rcx, rcx, 29",
        "mov ecx, ecx",
        "lea rcx, [rcx - {channel}]",
        "jrcxz 2f",
        "lea rcx, [r11 - 2]",
        "jmp rcx",
        "2:",
        "mov gs:[{rsp}], rsp",
        "mov gs:[{rip}], r11",
        "rdgsbase rsp",
        "lea rsp, [rsp + {stack}]",
        "pushfq",
        "pop gs:[{eflags}]",
        "cmp rax, {numbers}",
        "jae 3f",
        "lea r11, [rip + {places}]",
        "movzx ecx, byte ptr [r11 + rax]",
        "mov r11, gs:[{answered}]",
        "bt r11, rcx",
        "jc {answer}",
        "3:",
        "mov ecx, {call}",
        "jmp {save}",
        channel = const (abi::CHANNEL_ADDR >> 29),
        stack = const abi::FAST_STACK_TOP,
        numbers = const marshal::NUMBERS,
        places = sym PLACES,
        answered = const abi::FAST_OFFSET as usize + offset_of!(Fast, answered),
        answer = sym answer,
        call = const kind::CALL,
        save = sym save,
        rsp = const saved(15), rip = const saved(16), eflags = const saved(17),
    )
}

/// Where the answer of each call is.
static PLACES: [u8; marshal::NUMBERS] = {
    let mut all = [0; marshal::NUMBERS];
    let mut number = 0;
    while number < marshal::NUMBERS {
        all[number] = abi::answer::of(number as u64);
        number += 1;
    }
    all
};

/// Answers a call whose place is in rcx, and goes back with all other registers as they are, if no kick has come. From
/// `shim_light` on it begins again there at any of its instructions.
#[unsafe(naked)]
unsafe extern "C" fn answer() {
    naked_asm!(
        "inc qword ptr gs:[{count}]",
        "cmp ecx, {yields}",
        "je 2f",
        "mov rax, gs:[{answers} + rcx * 8]",
        ".globl shim_light",
        "shim_light:",
        "rdgsbase rsp",
        "lea rsp, [rsp + {stack}]",
        "mov ecx, {kick}",
        "cmp dword ptr gs:[{kicked}], 0",
        "jne {save}",
        "push qword ptr gs:[{eflags}]",
        "popfq",
        "mov rsp, gs:[{rsp}]",
        "jmp qword ptr gs:[{rip}]",
        ".globl shim_light_end",
        "shim_light_end:",
        "2:",
        "syscall",
        "jmp shim_light",
        count = const abi::FAST_OFFSET as usize + offset_of!(Fast, answered_calls),
        yields = const abi::answer::YIELD,
        answers = const abi::FAST_OFFSET as usize + offset_of!(Fast, answers),
        stack = const abi::FAST_STACK_TOP,
        kick = const kind::KICKED,
        kicked = const KICKED,
        save = sym save,
        rsp = const saved(15), rip = const saved(16), eflags = const saved(17),
    )
}

/// Saves the registers that are not yet and posts what ecx says.
#[unsafe(naked)]
unsafe extern "C" fn save() {
    naked_asm!(
        "mov r11, gs:[{rip}]",
        "mov gs:[{rcx}], r11",
        "mov r11, gs:[{eflags}]",
        "mov gs:[{r11}], r11",
        "mov gs:[{r8}], r8",
        "mov gs:[{r9}], r9",
        "mov gs:[{r10}], r10",
        "mov gs:[{r12}], r12",
        "mov gs:[{r13}], r13",
        "mov gs:[{r14}], r14",
        "mov gs:[{r15}], r15",
        "mov gs:[{rdi}], rdi",
        "mov gs:[{rsi}], rsi",
        "mov gs:[{rbp}], rbp",
        "mov gs:[{rbx}], rbx",
        "mov gs:[{rdx}], rdx",
        "cld",
        "cmp ecx, {call}",
        "jne 2f",
        "cmp rax, {numbers}",
        "jae 2f",
        "lea r11, [rip + {wanted}]",
        "cmp byte ptr [r11 + rax], 0",
        "je 2f",
        // The line of the call is written in one go, for the sentry looks at it.
        "mov gs:[{given}], rax",
        "mov gs:[{given} + 8], rdi",
        "mov gs:[{given} + 16], rsi",
        "mov gs:[{given} + 24], rdx",
        "mov gs:[{given} + 32], r10",
        "mov gs:[{given} + 40], r8",
        "mov gs:[{given} + 48], r9",
        "lea r11, [rip + {offer}]",
        "call {with_vectors}",
        "cmp eax, {answered}",
        "je {out}",
        "shl eax, {pointers}",
        "lea ecx, [rax + {call}]",
        "mov rax, gs:[{given}]",
        "mov rdi, gs:[{given} + 8]",
        "mov rsi, gs:[{given} + 16]",
        "mov rdx, gs:[{given} + 24]",
        "mov r10, gs:[{given} + 32]",
        "mov r8, gs:[{given} + 40]",
        "mov r9, gs:[{given} + 48]",
        "2:",
        "mov gs:[{words}], rax",
        "mov gs:[{words} + 8], rdi",
        "mov gs:[{words} + 16], rsi",
        "mov gs:[{words} + 24], rdx",
        "mov gs:[{words} + 32], r10",
        "mov gs:[{words} + 40], r8",
        "mov gs:[{words} + 48], r9",
        "mov edx, ecx",
        "jmp {post}",
        answered = const ANSWERED.cast_signed(),
        pointers = const kind::POINTERS_SHIFT,
        numbers = const marshal::NUMBERS,
        wanted = sym marshal::IS_WANTED,
        given = const offset_of!(Slot, given),
        words = const offset_of!(Slot, call),
        offer = sym offer,
        with_vectors = sym with_vectors,
        call = const kind::CALL,
        post = sym post,
        out = sym out,
        r8 = const saved(0), r9 = const saved(1), r10 = const saved(2),
        r11 = const saved(3), r12 = const saved(4), r13 = const saved(5),
        r14 = const saved(6), r15 = const saved(7), rdi = const saved(8),
        rsi = const saved(9), rbp = const saved(10), rbx = const saved(11),
        rdx = const saved(12), rcx = const saved(14),
        rip = const saved(16), eflags = const saved(17),
    )
}

/// Posts what edx says (rule 4: `looking` is read after the post is visible), looks for the reply, obeys it.
#[unsafe(naked)]
unsafe extern "C" fn post() {
    naked_asm!(
        // What is posted is the consequence of a kick that came before.
        "mov dword ptr gs:[{kicked}], 0",
        "or edx, gs:[{noted}]",
        "mov gs:[{word}], edx",
        "mov eax, {posted}",
        "xchg gs:[{state}], eax",
        "movabs r11, {global}",
        "cmp dword ptr [r11 + {looking}], 0",
        "je 5f",
        "mov ecx, {eager}",
        "2:",
        "mov eax, gs:[{state}]",
        "cmp eax, {posted}",
        "jne 4f",
        "dec ecx",
        "jnz 2b",
        "mov ecx, [r11 + {spins}]",
        "3:",
        "mov eax, gs:[{state}]",
        "cmp eax, {posted}",
        "jne 4f",
        "pause",
        "dec ecx",
        "jns 3b",
        "jmp 5f",
        "4:",
        "cmp eax, {resume}",
        "jne 5f",
        "test dword ptr gs:[{word}], {tasks}",
        "jnz 5f",
        "jmp {out}",
        "5:",
        "lea r11, [rip + {serve}]",
        "call {with_vectors}",
        "test eax, eax",
        "jnz {settle}",
        "jmp {out}",
        kicked = const KICKED,
        noted = const abi::FAST_OFFSET as usize + offset_of!(Fast, noted),
        word = const offset_of!(Slot, word),
        state = const offset_of!(Slot, state),
        tasks = const TASKS.cast_signed(),
        global = const abi::GLOBAL_ADDR,
        looking = const offset_of!(Global, looking),
        spins = const offset_of!(Global, spins),
        posted = const state::POSTED,
        resume = const state::RESUME,
        eager = const EAGER_LOOKS,
        serve = sym serve,
        with_vectors = sym with_vectors,
        settle = sym settle,
        out = sym out,
    )
}

/// Back to guest code with the registers of [`Fast`], if no kick has come. Begins again at any of its instructions.
#[unsafe(naked)]
unsafe extern "C" fn out() {
    naked_asm!(
        "rdgsbase rsp",
        "lea rsp, [rsp + {stack}]",
        "mov edx, {kick}",
        "cmp dword ptr gs:[{kicked}], 0",
        "jne {post}",
        "push qword ptr gs:[{eflags}]",
        "popfq",
        "mov r8, gs:[{r8}]",
        "mov r9, gs:[{r9}]",
        "mov r10, gs:[{r10}]",
        "mov r11, gs:[{r11}]",
        "mov r12, gs:[{r12}]",
        "mov r13, gs:[{r13}]",
        "mov r14, gs:[{r14}]",
        "mov r15, gs:[{r15}]",
        "mov rdi, gs:[{rdi}]",
        "mov rsi, gs:[{rsi}]",
        "mov rbp, gs:[{rbp}]",
        "mov rbx, gs:[{rbx}]",
        "mov rdx, gs:[{rdx}]",
        "mov rax, gs:[{rax}]",
        "mov rcx, gs:[{rcx}]",
        "mov rsp, gs:[{rsp}]",
        "jmp qword ptr gs:[{rip}]",
        ".globl shim_out_end",
        "shim_out_end:",
        stack = const abi::FAST_STACK_TOP,
        kicked = const KICKED,
        kick = const kind::KICKED,
        post = sym post,
        r8 = const saved(0), r9 = const saved(1), r10 = const saved(2),
        r11 = const saved(3), r12 = const saved(4), r13 = const saved(5),
        r14 = const saved(6), r15 = const saved(7), rdi = const saved(8),
        rsi = const saved(9), rbp = const saved(10), rbx = const saved(11),
        rdx = const saved(12), rax = const saved(13), rcx = const saved(14),
        rsp = const saved(15), rip = const saved(16), eflags = const saved(17),
    )
}

/// The same registers, but into a signal whose frame then holds the whole state.
#[unsafe(naked)]
unsafe extern "C" fn settle() {
    naked_asm!(
        "push qword ptr gs:[{eflags}]",
        "popfq",
        "mov r8, gs:[{r8}]",
        "mov r9, gs:[{r9}]",
        "mov r10, gs:[{r10}]",
        "mov r11, gs:[{r11}]",
        "mov r12, gs:[{r12}]",
        "mov r13, gs:[{r13}]",
        "mov r14, gs:[{r14}]",
        "mov r15, gs:[{r15}]",
        "mov rdi, gs:[{rdi}]",
        "mov rsi, gs:[{rsi}]",
        "mov rbp, gs:[{rbp}]",
        "mov rbx, gs:[{rbx}]",
        "mov rdx, gs:[{rdx}]",
        "mov rax, gs:[{rax}]",
        "mov rcx, gs:[{rcx}]",
        "mov rsp, gs:[{rsp}]",
        // Not an undefined instruction: where there are virtual machines these take ten times as long.
        "int3",
        ".globl shim_settled",
        "shim_settled:",
        "ud2",
        r8 = const saved(0), r9 = const saved(1), r10 = const saved(2),
        r11 = const saved(3), r12 = const saved(4), r13 = const saved(5),
        r14 = const saved(6), r15 = const saved(7), rdi = const saved(8),
        rsi = const saved(9), rbp = const saved(10), rbx = const saved(11),
        rdx = const saved(12), rax = const saved(13), rcx = const saved(14),
        rsp = const saved(15), eflags = const saved(17),
    )
}

/// Calls the function in r11 with the slot's address and the guest's vector registers put aside. The upper halves of
/// wider registers stay: compiled code here uses the narrow instructions, which leave them alone.
#[unsafe(naked)]
unsafe extern "C" fn with_vectors() -> u32 {
    naked_asm!(
        "rdgsbase rdi",
        "push rdi",
        "movaps [rdi + {v}], xmm0",
        "movaps [rdi + {v} + 16], xmm1",
        "movaps [rdi + {v} + 32], xmm2",
        "movaps [rdi + {v} + 48], xmm3",
        "movaps [rdi + {v} + 64], xmm4",
        "movaps [rdi + {v} + 80], xmm5",
        "movaps [rdi + {v} + 96], xmm6",
        "movaps [rdi + {v} + 112], xmm7",
        "movaps [rdi + {v} + 128], xmm8",
        "movaps [rdi + {v} + 144], xmm9",
        "movaps [rdi + {v} + 160], xmm10",
        "movaps [rdi + {v} + 176], xmm11",
        "movaps [rdi + {v} + 192], xmm12",
        "movaps [rdi + {v} + 208], xmm13",
        "movaps [rdi + {v} + 224], xmm14",
        "movaps [rdi + {v} + 240], xmm15",
        "call r11",
        "pop rdi",
        "jmp {load}",
        v = const VECTORS,
        load = sym load_vectors,
    )
}

/// Loads the vector registers of the slot at rdi; keeps all others.
#[unsafe(naked)]
unsafe extern "C" fn load_vectors() {
    naked_asm!(
        "movaps xmm0, [rdi + {v}]",
        "movaps xmm1, [rdi + {v} + 16]",
        "movaps xmm2, [rdi + {v} + 32]",
        "movaps xmm3, [rdi + {v} + 48]",
        "movaps xmm4, [rdi + {v} + 64]",
        "movaps xmm5, [rdi + {v} + 80]",
        "movaps xmm6, [rdi + {v} + 96]",
        "movaps xmm7, [rdi + {v} + 112]",
        "movaps xmm8, [rdi + {v} + 128]",
        "movaps xmm9, [rdi + {v} + 144]",
        "movaps xmm10, [rdi + {v} + 160]",
        "movaps xmm11, [rdi + {v} + 176]",
        "movaps xmm12, [rdi + {v} + 192]",
        "movaps xmm13, [rdi + {v} + 208]",
        "movaps xmm14, [rdi + {v} + 224]",
        "movaps xmm15, [rdi + {v} + 240]",
        "ret",
        v = const VECTORS,
    )
}

/// Begins a thread or copy whose creator came without a signal, with the registers of [`Fast`].
#[unsafe(naked)]
pub unsafe extern "C" fn begin(slot: u64) -> ! {
    naked_asm!(
        "call {load}",
        "jmp {out}",
        load = sym load_vectors,
        out = sym out,
    )
}

/// Obeys the sentry until guest code may run; not zero when the state is to be settled first.
extern "C" fn serve(slot: u64) -> u32 {
    let slot = channel::slot_of(slot);
    match channel::obey(slot, 0) {
        Outcome::Resume => 0,
        Outcome::Settle => 1,
    }
}

/// Answers the call (then [`ANSWERED`]), or puts what it points to into the slot: which pointers.
extern "C" fn offer(slot: u64) -> u32 {
    let slot = channel::slot_of(slot);
    let result = match slot.number() {
        calls::FUTEX => futex::answer(slot, fast(slot)),
        calls::READ => loans::answer(slot, fast(slot))
            .or_else(|| pipes::answer(slot, fast(slot)))
            .or_else(|| descriptors::answer_transfer(slot, fast(slot))),
        calls::WRITE => pipes::answer(slot, fast(slot))
            .or_else(|| descriptors::answer_transfer(slot, fast(slot))),
        calls::PWRITE64 => entries::store(slot, fast(slot)),
        calls::PREAD64 => loans::answer(slot, fast(slot)),
        loans::FSTAT => loans::answer_about(slot, fast(slot))
            .or_else(|| entries::stat(fast(slot), slot.argument(0), slot.argument(1))),
        loans::LSEEK | loans::IOCTL => loans::answer_about(slot, fast(slot)),
        loans::NEWFSTATAT if loans::is_bare(slot) => loans::answer_about(slot, fast(slot))
            .or_else(|| entries::stat(fast(slot), slot.argument(0), slot.argument(2))),
        loans::NEWFSTATAT => loans::answer_about(slot, fast(slot))
            .or_else(|| path_stats::answer(slot, fast(slot))),
        path_stats::STAT | path_stats::LSTAT => path_stats::answer(slot, fast(slot)),
        ready::OPENAT => ready::open(slot, fast(slot)).or_else(|| known_paths::answer(slot, fast(slot))),
        known_paths::OPEN | known_paths::ACCESS | known_paths::READLINK | known_paths::READLINKAT
        | known_paths::FACCESSAT | known_paths::FACCESSAT2 => known_paths::answer(slot, fast(slot)),
        ready::GETDENTS64 => loans::list(slot, fast(slot)),
        calls::CLOSE | descriptors::DUP | descriptors::FCNTL => {
            descriptors::answer(slot, fast(slot))
        }
        epoll::EPOLL_CTL => epoll::answer(slot, fast(slot)),
        memory_calls::MPROTECT | calls::MUNMAP => memory_calls::answer(slot, fast(slot)),
        calls::MMAP => library::answer(slot, fast(slot)),
        calls::BRK => heap::answer(slot, fast(slot)),
        _ => signal_calls::answer(slot, fast(slot))
            .or_else(|| start_calls::answer(slot, fast(slot))),
    };
    if let Some(result) = result {
        slot.call[0].store(result, Relaxed);
        let count = &fast(slot).answered_calls;
        count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
        return ANSWERED;
    }
    if abi::keeps_state(slot.number()) {
        vectors::keep(slot);
    }
    marshal::offer(slot)
}

/// Copies a call's output to guest memory, as a reply's `word` says; false when that is not there.
pub fn copy_out(slot: &Slot, word: u32) -> bool {
    let count = word >> task::COPIES_SHIFT & task::COPIES;
    let front = word >> task::OUTPUT_SHIFT;
    (front == 0 || marshal::copy_front(slot, u64::from(front), word & task::INLINE != 0))
        && (count == 0 || marshal::copy_out(slot, fast(slot), count))
}

/// The slot's [`Fast`].
pub fn fast(slot: &Slot) -> &Fast {
    // SAFETY: within the slot, all fields atomic.
    unsafe { &*((slot as *const Slot as u64 + abi::FAST_OFFSET) as *const Fast) }
}

/// A kick came while this blob's code ran without signals blocked; returns where to go on.
pub fn on_kick(slot: &Slot, rip: u64) -> u64 {
    fast(slot).kicked.store(1, Relaxed);
    if let Some(at) = futex::on_kick(rip) {
        return at;
    }
    let long = (out as *const () as u64, label!("shim_out_end"));
    let short = (label!("shim_light"), label!("shim_light_end"));
    for (start, end) in [long, short] {
        if (start..end).contains(&rip) {
            return start;
        }
    }
    rip
}

/// Puts the slot's address into the base of gs, unless the guest uses that for itself.
pub fn claim_gs(slot: &Slot) {
    if channel::global().flags.load(Acquire) & abi::global_flag::SLOT_IN_GS == 0 {
        return;
    }
    let gs = channel::gs_base();
    let channel = abi::CHANNEL_ADDR..abi::CHANNEL_ADDR + abi::CHANNEL_SIZE;
    if gs == 0 || channel.contains(&gs) {
        let base = slot as *const Slot as u64;
        if calls::failed(channel::set_base(false, base)) {
            calls::die(110);
        }
    }
}
