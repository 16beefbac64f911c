//! Access to guest memory that may not be there: a fault inside is an answer, see `signals`.

use core::arch::naked_asm;

pub const PAGE: u64 = 4096;

/// Compare-and-exchange of a guest word; the previous value, or `-EFAULT`.
pub fn compare_exchange(addr: u64, expected: u32, new: u32) -> i64 {
    // SAFETY: a fault is fixed up.
    unsafe { guest_cmpxchg(addr, expected, new) }
}

/// Copies bytes from or to guest memory; how many could not be.
pub fn copy(to: u64, from: u64, len: u64) -> u64 {
    // SAFETY: a fault is fixed up; the callers' own side lies in the slot, beyond what compiled code uses.
    unsafe { guest_copy(to, from, len) }
}

/// Copies a string of at most `most` bytes; false when its end is not among them, or not there.
pub fn copy_string(to: u64, from: u64, most: u64) -> bool {
    // SAFETY: as above.
    unsafe { guest_copy_string(to, from, most) == 0 }
}

/// Whether a byte can be written; it stays what it is.
pub fn is_writable(addr: u64) -> bool {
    // SAFETY: a fault is fixed up; the exchange is atomic, so that no other thread's write is lost.
    unsafe { guest_probe(addr) == 0 }
}

/// Where to go on after a fault at `rip`, if one was expected there.
pub fn fixup(rip: u64) -> Option<u64> {
    let is_in = |start: u64, end: u64| (start..end).contains(&rip);
    if is_in(label!("shim_cmpxchg"), label!("shim_cmpxchg_end")) {
        return Some(label!("shim_cmpxchg_fault"));
    }
    if is_in(label!("shim_copy"), label!("shim_copy_end")) {
        return Some(label!("shim_copy_end"));
    }
    if is_in(label!("shim_string"), label!("shim_string_end")) {
        return Some(label!("shim_string_end"));
    }
    is_in(label!("shim_probe"), label!("shim_probe_end")).then(|| label!("shim_probe_fault"))
}

#[unsafe(naked)]
unsafe extern "C" fn guest_cmpxchg(addr: u64, expected: u32, new: u32) -> i64 {
    naked_asm!(
        "mov eax, esi",
        ".globl shim_cmpxchg",
        "shim_cmpxchg:",
        "lock cmpxchg [rdi], edx",
        ".globl shim_cmpxchg_end",
        "shim_cmpxchg_end:",
        "mov eax, eax",
        "ret",
        ".globl shim_cmpxchg_fault",
        "shim_cmpxchg_fault:",
        "mov rax, -14",
        "ret",
    )
}

/// Words first, then bytes. Wherever it faults, rdx is what is left.
#[unsafe(naked)]
unsafe extern "C" fn guest_copy(to: u64, from: u64, len: u64) -> u64 {
    naked_asm!(
        ".globl shim_copy",
        "shim_copy:",
        "cmp rdx, 256",
        "jae 5f",
        "2:",
        "cmp rdx, 8",
        "jb 3f",
        "mov rax, [rsi]",
        "mov [rdi], rax",
        "add rsi, 8",
        "add rdi, 8",
        "sub rdx, 8",
        "jmp 2b",
        "3:",
        "test rdx, rdx",
        "jz 4f",
        "mov al, [rsi]",
        "mov [rdi], al",
        "inc rsi",
        "inc rdi",
        "dec rdx",
        "jmp 3b",
        "5:",
        "mov rcx, rdx",
        "shr rcx, 3",
        "and edx, 7",
        // For the time of the next instruction rdx is less than what is left, but not zero.
        "lea rdx, [rdx + 8]",
        "rep movsq",
        "sub rdx, 8",
        "jmp 3b",
        "4:",
        ".globl shim_copy_end",
        "shim_copy_end:",
        "mov rax, rdx",
        "ret",
    )
}

/// Zero when the string was copied with its end.
#[unsafe(naked)]
unsafe extern "C" fn guest_copy_string(to: u64, from: u64, most: u64) -> u64 {
    naked_asm!(
        ".globl shim_string",
        "shim_string:",
        "2:",
        "test rdx, rdx",
        "jz 3f",
        "mov al, [rsi]",
        "mov [rdi], al",
        "inc rsi",
        "inc rdi",
        "dec rdx",
        "test al, al",
        "jnz 2b",
        "xor eax, eax",
        "ret",
        "3:",
        ".globl shim_string_end",
        "shim_string_end:",
        "mov eax, 1",
        "ret",
    )
}

#[unsafe(naked)]
unsafe extern "C" fn guest_probe(addr: u64) -> u64 {
    naked_asm!(
        ".globl shim_probe",
        "shim_probe:",
        "lock or byte ptr [rdi], 0",
        ".globl shim_probe_end",
        "shim_probe_end:",
        "xor eax, eax",
        "ret",
        ".globl shim_probe_fault",
        "shim_probe_fault:",
        "mov eax, 1",
        "ret",
    )
}
