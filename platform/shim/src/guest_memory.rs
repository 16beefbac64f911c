//! Access to guest memory that may not be there: a fault inside gives EFAULT, see `signals`.

use core::arch::naked_asm;

/// Compare-and-exchange of a guest word; the previous value, or `-EFAULT`.
pub fn compare_exchange(addr: u64, expected: u32, new: u32) -> i64 {
    // SAFETY: a fault is fixed up.
    unsafe { guest_cmpxchg(addr, expected, new) }
}

/// Instruction range in which a fault is expected, and where to go on after one.
pub fn fixup(rip: u64) -> Option<u64> {
    let start = guest_cmpxchg as *const () as u64;
    (start..start + FAULTING_BYTES).contains(&rip).then(|| guest_fault as *const () as u64)
}

/// Upper bound for the instructions before and including the access in `guest_cmpxchg`.
const FAULTING_BYTES: u64 = 8;

#[unsafe(naked)]
unsafe extern "C" fn guest_cmpxchg(addr: u64, expected: u32, new: u32) -> i64 {
    naked_asm!(
        "mov eax, esi",            // 2 bytes
        "lock cmpxchg [rdi], edx", // 4 bytes
        "mov eax, eax",
        "ret",
    )
}

/// Where a fault in `guest_cmpxchg` goes: the same stack, a return address on top.
#[unsafe(naked)]
unsafe extern "C" fn guest_fault() -> i64 {
    naked_asm!("mov rax, -14", "ret")
}
