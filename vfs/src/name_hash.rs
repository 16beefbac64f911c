//! A fast seeded hash for names. Names are short and hashed on every step of a path walk.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0u8));

/// Builds [`NameState`]s; all of a process share one random seed.
#[derive(Clone, Copy)]
pub(crate) struct NameHasher(u64);

impl Default for NameHasher {
    fn default() -> Self {
        Self(*SEED)
    }
}

impl BuildHasher for NameHasher {
    type Hasher = NameState;
    fn build_hasher(&self) -> NameState {
        NameState(self.0)
    }
}

/// Multiply-fold over words of eight bytes.
pub(crate) struct NameState(u64);

impl NameState {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(0x9e37_79b9_7f4a_7c15_u64);
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
}

impl Hasher for NameState {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let mut tail = [0; 8];
        tail[..rest.len()].copy_from_slice(rest);
        self.mix(u64::from_le_bytes(tail).wrapping_add(bytes.len() as u64));
    }

    fn write_usize(&mut self, value: usize) {
        self.0 = self.0.wrapping_add(value as u64);
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
