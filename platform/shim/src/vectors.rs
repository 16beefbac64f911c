//! Vector and floating point registers of guest threads that came without a signal: as a program finds them at its start, and
//! from thread to thread.

use core::arch::asm;
use core::mem::{MaybeUninit, offset_of};
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use crate::abi::{Fast, STATE_OFFSET, Slot, Vector};
use crate::{channel, fast, guest_memory};

/// An area from which xrstor loads the initial state: no component is in it.
#[repr(C, align(64))]
struct InitialState {
    legacy: [u32; 128],
    header: [u64; 8],
}

static INITIAL: InitialState = {
    let mut legacy = [0; 128];
    // MXCSR is loaded always.
    legacy[6] = 0x1f80;
    InitialState { legacy, header: [0; 8] }
};

/// Vector and floating point registers as a program finds them at its start.
pub fn reset_vectors(slot: &Slot) -> i64 {
    // On the stack, for the processor may look whether the components' places are there, too (11 KiB with AMX), although
    // it needs nothing of them: behind every stack here lies the rest of a slot.
    let mut area = MaybeUninit::<InitialState>::uninit();
    let (to, from) = (area.as_mut_ptr() as u64, &raw const INITIAL as u64);
    guest_memory::copy(to, from, size_of::<InitialState>() as u64);
    // SAFETY: resets registers, of which compiled code counts on none here but MXCSR's initial value.
    unsafe {
        asm!("xrstor [{}]", in(reg) to, in("eax") u32::MAX, in("edx") u32::MAX,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
            out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _, options(nostack, readonly));
    }
    // What is loaded on the way out.
    clear(&fast::fast(slot).vectors);
    0
}

/// Hands the vector registers of `from`'s guest thread on to `to`'s.
pub fn copy_vectors(from: &Fast, to: &Fast) {
    copy(&from.vectors, &to.vectors);
}

/// The front of an xsave area.
#[repr(C, align(64))]
struct State {
    _legacy: [u64; 20],
    xmm: [Vector; 16],
    _room: [u64; 12],
    /// A bit for each component that is there.
    present: AtomicU64,
    /// Zero.
    header: [AtomicU64; 7],
}

/// The bit of the xmm registers.
const SSE: u64 = 2;

/// The slot's area.
fn state(slot: &Slot) -> &State {
    // SAFETY: within the slot, aligned, all fields atomic.
    unsafe { &*((slot as *const Slot as u64 + STATE_OFFSET) as *const State) }
}

/// Leaves the registers where the sentry finds them for a new thread, and the bases of fs and gs. The narrow ones were put aside when this code began, the
/// rest is as the guest has it.
pub fn keep(slot: &Slot) {
    channel::publish_bases(slot);
    let area = state(slot);
    for word in &area.header {
        word.store(0, Relaxed);
    }
    // SAFETY: the rest of the slot is large enough for any processor's state.
    unsafe {
        asm!("xsave64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack));
    }
    copy(&fast::fast(slot).vectors, &area.xmm);
    area.present.store(area.present.load(Relaxed) | SSE, Relaxed);
}

/// Loads what the sentry has brought from another slot.
pub fn load(slot: &Slot) -> i64 {
    let area = state(slot);
    // SAFETY: resets registers, of which compiled code counts on none here. What is not well formed raises a signal, which is
    // the end.
    unsafe {
        asm!("xrstor64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
            out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _, options(nostack, readonly));
    }
    let vectors = &fast::fast(slot).vectors;
    if area.present.load(Relaxed) & SSE != 0 {
        copy(&area.xmm, vectors);
    } else {
        clear(vectors);
    }
    0
}

fn clear(vectors: &[Vector; 16]) {
    for vector in vectors {
        vector.0[0].store(0, Relaxed);
        vector.0[1].store(0, Relaxed);
    }
}

fn copy(from: &[Vector; 16], to: &[Vector; 16]) {
    for (from, to) in from.iter().zip(to) {
        to.0[0].store(from.0[0].load(Relaxed), Relaxed);
        to.0[1].store(from.0[1].load(Relaxed), Relaxed);
    }
}

const _: () = assert!(offset_of!(State, xmm) == 160 && offset_of!(State, present) == 512);
