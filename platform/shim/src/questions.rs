//! What programs ask the processor at their start, answered as it answered the sentry.
//!
//! C libraries ask some 70 questions before they run main(), of which two dozen are different ones. Where each takes the virtual
//! machine's host to answer, that is most of a short program's time. So the sentry has their instruction replaced by
//! [`ASKS_PROCESSOR`] in the texts of loaders, and puts the answers that are the same on all processors where all shims read them.

use core::arch::x86_64::__cpuid_count;
use core::sync::atomic::Ordering::{Acquire, Relaxed};

use crate::abi::{ASKS_PROCESSOR, Slot, answer, leaf_part};
use crate::{channel, fast, guest_memory};

const RBX: u64 = 11;
const RDX: u64 = 12;
const RAX: u64 = 13;
const RCX: u64 = 14;
const RIP: u64 = 16;

/// Answers in the registers at `gregs`, if the trap is such a question; false: it is the program's own.
///
/// # Safety
/// `gregs` is that of a frame on the slot's stack, for a trap in guest code.
pub unsafe fn answer(slot: &Slot, gregs: u64) -> bool {
    // SAFETY: by the contract.
    let read = |index: u64| unsafe { ((gregs + 8 * index) as *const u64).read() };
    let [leaf, ecx, rip] = [RAX, RCX, RIP].map(read);
    let at = rip.wrapping_sub(2);
    let [start, end] = [answer::QUESTIONS, answer::QUESTIONS_END]
        .map(|place| fast::fast(slot).answers[place as usize].load(Relaxed));
    // Elsewhere the program has written it itself.
    if !(start..end).contains(&at) || !is_question(at) {
        return false;
    }
    let count = channel::global().answer_count.load(Acquire);
    let (leaf, ecx) = (leaf as u32, ecx as u32);
    let [eax, ebx, ecx, edx] = known(count, leaf, ecx).unwrap_or_else(|| ask(leaf, ecx));
    for (index, value) in [(RAX, eax), (RBX, ebx), (RCX, ecx), (RDX, edx)] {
        // SAFETY: by the contract. The upper halves become zero, as those of the instruction's results.
        unsafe { ((gregs + 8 * index) as *mut u64).write(value.into()) };
    }
    true
}

/// Whether the instruction at `at`, which has just trapped, is one that was put in a question's place.
fn is_question(at: u64) -> bool {
    let mut bytes = [0_u8; 2];
    guest_memory::copy(bytes.as_mut_ptr() as u64, at, 2) == 0 && bytes == ASKS_PROCESSOR
}

/// What the sentry was told.
fn known(count: u32, leaf: u32, ecx: u32) -> Option<[u32; 4]> {
    let part = leaf_part(leaf, ecx)?;
    let question = u64::from(part) << 32 | u64::from(leaf);
    let mut answers = channel::global().answers.iter().take(count as usize);
    let answer = answers.find(|answer| answer.question.load(Relaxed) == question)?;
    let [low, high] = [&answer.registers[0], &answer.registers[1]].map(|word| word.load(Relaxed));
    Some([low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32])
}

fn ask(leaf: u32, ecx: u32) -> [u32; 4] {
    let answer = __cpuid_count(leaf, ecx);
    [answer.eax, answer.ebx, answer.ecx, answer.edx]
}
