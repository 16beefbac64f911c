//! What guest code does on its own to files that it was entrusted with.

/// Bytes of a `struct stat`.
pub const STAT_BYTES: usize = 144;

/// The book in which the guest code of one process enters its acts, one after the other. Whoever has it says what may be entered, and
/// takes what was. Never waits for anybody.
pub trait Ledger: Send + Sync {
    /// Guest code may do this with a descriptor, and nothing else. While it stands still.
    fn trust(&self, descriptor: u32, rights: Rights);

    /// It may do nothing any more with the descriptor: what it enters after this does not count. At any time, under any lock.
    fn distrust(&self, descriptor: u32);

    /// Tells guest code what fstat(2) says of a descriptor with rights (a `struct stat`), but for what it has entered and nobody has
    /// taken yet.
    fn tell(&self, descriptor: u32, stat: &[u8; STAT_BYTES]);

    /// That is not so any more. At any time, under any lock.
    fn untell(&self, descriptor: u32);

    /// Gives all that was entered since this was last done, in order. Until it returns guest code enters nothing; one at a time.
    fn take(&self, each: &mut dyn FnMut(Entry<'_>));

    /// Whether nothing was entered, and nobody is [taking](Ledger::take) it.
    fn is_empty(&self) -> bool;

    /// So many descriptors, from 0 on, can have rights.
    fn descriptors(&self) -> u32;

    /// So many pages at most are written by all that can be entered.
    fn most_pages(&self) -> u64;
}

/// What guest code may do with a descriptor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rights {
    /// Lock ranges of its file,
    pub locks: bool,
    /// shared, or only unlock them,
    pub reads: bool,
    /// exclusively.
    pub writes: bool,
    /// Write to its file.
    pub stores: bool,
}

/// What guest code has done, or so it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    pub descriptor: u32,
    pub act: Act<'a>,
}

/// See [`Entry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act<'a> {
    /// fcntl(2) with F_SETLK: from this byte on, so many (0: all).
    Locked { kind: Lock, start: u64, len: u64 },
    /// pwrite(2), so many nanoseconds ago.
    Stored { pos: u64, bytes: &'a [u8], age_ns: u64 },
}

/// What a range is from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    None,
    Shared,
    Exclusive,
}
