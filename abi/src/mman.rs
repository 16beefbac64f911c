//! Memory mapping: flags and advice of mmap(2) and its kin.

bitflags::bitflags! {
    /// Flags of mmap(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MapFlags: u32 {
        const SHARED = 0x01;
        const PRIVATE = 0x02;
        const DROPPABLE = 0x08;
        const FIXED = 0x10;
        const ANONYMOUS = 0x20;
        const MAP_32BIT = 0x40;
        const GROWSDOWN = 0x100;
        const DENYWRITE = 0x800;
        const EXECUTABLE = 0x1000;
        const LOCKED = 0x2000;
        const NORESERVE = 0x4000;
        const POPULATE = 0x8000;
        const NONBLOCK = 0x1_0000;
        const STACK = 0x2_0000;
        const HUGETLB = 0x4_0000;
        const SYNC = 0x8_0000;
        const FIXED_NOREPLACE = 0x10_0000;
        // Bits without a name travel too: only MAP_SHARED_VALIDATE refuses them.
        const _ = !0;
    }
}

impl MapFlags {
    /// The bits that say shared, private or MAP_SHARED_VALIDATE (3).
    pub const TYPE_MASK: u32 = 0x0f;
    pub const TYPE_SHARED: u32 = 1;
    pub const TYPE_PRIVATE: u32 = 2;
    pub const TYPE_SHARED_VALIDATE: u32 = 3;
    /// What MAP_SHARED_VALIDATE accepts (the kernel's `LEGACY_MAP_MASK`).
    pub const LEGACY: u32 = Self::SHARED.bits()
        | Self::PRIVATE.bits()
        | Self::FIXED.bits()
        | Self::ANONYMOUS.bits()
        | Self::DENYWRITE.bits()
        | Self::EXECUTABLE.bits()
        | Self::GROWSDOWN.bits()
        | Self::LOCKED.bits()
        | Self::NORESERVE.bits()
        | Self::POPULATE.bits()
        | Self::NONBLOCK.bits()
        | Self::STACK.bits()
        | Self::HUGETLB.bits()
        | Self::MAP_32BIT.bits()
        | (0x3f << 26);

    #[must_use]
    pub const fn map_type(self) -> u32 {
        self.bits() & Self::TYPE_MASK
    }
}

/// Extra bits of mprotect(2)'s protection.
pub const PROT_SEM: u32 = 0x8;
pub const PROT_GROWSDOWN: u32 = 0x0100_0000;
pub const PROT_GROWSUP: u32 = 0x0200_0000;

bitflags::bitflags! {
    /// Flags of mremap(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MremapFlags: u32 {
        const MAYMOVE = 1;
        const FIXED = 2;
        const DONTUNMAP = 4;
    }
}

bitflags::bitflags! {
    /// Flags of msync(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MsyncFlags: u32 {
        const ASYNC = 1;
        const INVALIDATE = 2;
        const SYNC = 4;
    }
}

bitflags::bitflags! {
    /// Flags of mlock2(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MlockFlags: u32 {
        const ONFAULT = 1;
    }
}

bitflags::bitflags! {
    /// Flags of mlockall(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MclFlags: u32 {
        const CURRENT = 1;
        const FUTURE = 2;
        const ONFAULT = 4;
    }
}

/// Advice of madvise(2).
pub mod advice {
    pub const NORMAL: i32 = 0;
    pub const RANDOM: i32 = 1;
    pub const SEQUENTIAL: i32 = 2;
    pub const WILLNEED: i32 = 3;
    pub const DONTNEED: i32 = 4;
    pub const FREE: i32 = 8;
    pub const REMOVE: i32 = 9;
    pub const DONTFORK: i32 = 10;
    pub const DOFORK: i32 = 11;
    pub const HUGEPAGE: i32 = 14;
    pub const NOHUGEPAGE: i32 = 15;
    pub const DONTDUMP: i32 = 16;
    pub const DODUMP: i32 = 17;
    pub const WIPEONFORK: i32 = 18;
    pub const KEEPONFORK: i32 = 19;
    pub const COLD: i32 = 20;
    pub const PAGEOUT: i32 = 21;
    pub const POPULATE_READ: i32 = 22;
    pub const POPULATE_WRITE: i32 = 23;
    pub const DONTNEED_LOCKED: i32 = 24;
    pub const COLLAPSE: i32 = 25;
}
