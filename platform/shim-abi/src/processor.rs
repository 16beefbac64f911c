//! What programs ask the processor, and how they ask the shim instead.

use core::sync::atomic::AtomicU64;

/// Of [`ProcessorAnswer`]s.
pub const MOST_ANSWERS: usize = 40;

/// What cpuid leaves in eax, ebx, ecx and edx when asked for a leaf and its part (see [`leaf_part`]). A virtual machine stops at
/// each of these questions for its host to answer, which takes longer than a signal.
#[repr(C)]
#[derive(Debug)]
pub struct ProcessorAnswer {
    /// Leaf, part in the upper half.
    pub question: AtomicU64,
    pub registers: [AtomicU64; 2],
}

/// In place of a program's cpuid: int $3 in two bytes, which no assembler makes of the instruction that debuggers use.
/// Undefined instructions would not do: virtual machines stop at these, too.
pub const ASKS_PROCESSOR: [u8; 2] = [0xcd, 0x03];

/// What ecx means to cpuid's leaf `leaf`: a part of it, or nothing (0). `None` where the answer is of the processor that is asked, not
/// the same for all, or not known to be.
pub const fn leaf_part(leaf: u32, ecx: u32) -> Option<u32> {
    match leaf {
        0 | 2 | 0x19 | 0x8000_0000 | 0x8000_0001..=0x8000_0007 | 0x8000_0008 => Some(0),
        4 | 7 | 0xd | 0x14 | 0x24 | 0x8000_001d => Some(ecx),
        _ => None,
    }
}
