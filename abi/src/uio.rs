//! Vectors of buffers. See readv(2).

crate::abi_struct! {
    /// `struct iovec`.
    pub struct Iovec {
        pub base: u64,
        pub len: u64,
    }
}

/// `IOV_MAX`: more elements are `EINVAL`.
pub const IOV_MAX: usize = 1024;

/// Most bytes that one read or write moves (`MAX_RW_COUNT`).
pub const MAX_RW_COUNT: usize = 0x7fff_f000;

bitflags::bitflags! {
    /// Flags of preadv2(2) and pwritev2(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct RwFlags: u32 {
        const HIPRI = 0x1;
        const DSYNC = 0x2;
        const SYNC = 0x4;
        const NOWAIT = 0x8;
        const APPEND = 0x10;
        const NOAPPEND = 0x20;
    }
}
