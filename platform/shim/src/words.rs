//! A few words from or to guest memory, for calls that are answered here.

use core::sync::atomic::Ordering::Relaxed;

use crate::abi::{Fast, TASK_SIZE};
use crate::guest_memory;

/// Words of guest memory; `None` when they are not there.
pub fn read<const N: usize>(fast: &Fast, addr: u64) -> Option<[u64; N]> {
    let (place, len) = place::<N>(fast, addr)?;
    if guest_memory::copy(place, addr, len) != 0 {
        return None;
    }
    let mut words = [0; N];
    for (to, from) in words.iter_mut().zip(&fast.words) {
        *to = from.load(Relaxed);
    }
    Some(words)
}

/// Writes words to guest memory; `None` when that is not there.
pub fn write<const N: usize>(fast: &Fast, addr: u64, words: [u64; N]) -> Option<()> {
    let (place, len) = place::<N>(fast, addr)?;
    for (from, to) in words.iter().zip(&fast.words) {
        to.store(*from, Relaxed);
    }
    (guest_memory::copy(addr, place, len) == 0).then_some(())
}

/// Where `N` words for or from `addr` are kept, and their length.
fn place<const N: usize>(fast: &Fast, addr: u64) -> Option<(u64, u64)> {
    const { assert!(N <= 4) };
    let len = 8 * N as u64;
    (addr <= TASK_SIZE - len).then_some((&raw const fast.words as u64, len))
}
