//! fcntl(2), flock(2), lseek(2) and memfd_create(2): commands, lock structs and flags.

pub const F_DUPFD: u32 = 0;
pub const F_GETFD: u32 = 1;
pub const F_SETFD: u32 = 2;
pub const F_GETFL: u32 = 3;
pub const F_SETFL: u32 = 4;
pub const F_GETLK: u32 = 5;
pub const F_SETLK: u32 = 6;
pub const F_SETLKW: u32 = 7;
pub const F_SETOWN: u32 = 8;
pub const F_GETOWN: u32 = 9;
pub const F_SETSIG: u32 = 10;
pub const F_GETSIG: u32 = 11;
pub const F_SETOWN_EX: u32 = 15;
pub const F_GETOWN_EX: u32 = 16;
pub const F_OFD_GETLK: u32 = 36;
pub const F_OFD_SETLK: u32 = 37;
pub const F_OFD_SETLKW: u32 = 38;
pub const F_SETLEASE: u32 = 1024;
pub const F_GETLEASE: u32 = 1025;
pub const F_NOTIFY: u32 = 1026;
pub const F_DUPFD_QUERY: u32 = 1027;
pub const F_CREATED_QUERY: u32 = 1028;
pub const F_DUPFD_CLOEXEC: u32 = 1030;
pub const F_SETPIPE_SZ: u32 = 1031;
pub const F_GETPIPE_SZ: u32 = 1032;
pub const F_ADD_SEALS: u32 = 1033;
pub const F_GET_SEALS: u32 = 1034;
pub const F_GET_RW_HINT: u32 = 1035;
pub const F_SET_RW_HINT: u32 = 1036;

/// The only descriptor flag.
pub const FD_CLOEXEC: u32 = 1;

pub const F_RDLCK: i16 = 0;
pub const F_WRLCK: i16 = 1;
pub const F_UNLCK: i16 = 2;

pub const F_OWNER_TID: i32 = 0;
pub const F_OWNER_PID: i32 = 1;
pub const F_OWNER_PGRP: i32 = 2;

pub const SEEK_SET: u32 = 0;
pub const SEEK_CUR: u32 = 1;
pub const SEEK_END: u32 = 2;
pub const SEEK_DATA: u32 = 3;
pub const SEEK_HOLE: u32 = 4;

pub const LOCK_SH: u32 = 1;
pub const LOCK_EX: u32 = 2;
pub const LOCK_NB: u32 = 4;
pub const LOCK_UN: u32 = 8;

crate::abi_struct! {
    /// `struct flock` of x86-64.
    pub struct Flock {
        /// `F_RDLCK`, `F_WRLCK` or `F_UNLCK`.
        pub kind: i16,
        /// `SEEK_SET`, `SEEK_CUR` or `SEEK_END`.
        pub whence: i16,
        pub pad0: u32,
        pub start: i64,
        /// 0 is "to the end, however far that grows"; negative reaches backwards.
        pub len: i64,
        pub pid: i32,
        pub pad1: u32,
    }

    /// `struct f_owner_ex`.
    pub struct OwnerEx {
        /// `F_OWNER_TID`, `F_OWNER_PID` or `F_OWNER_PGRP`.
        pub kind: i32,
        pub pid: i32,
    }
}

bitflags::bitflags! {
    /// Flags of memfd_create(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MemfdFlags: u32 {
        const CLOEXEC = 1;
        const ALLOW_SEALING = 2;
        const NOEXEC_SEAL = 8;
        const EXEC = 0x10;
    }

    /// Seals of fcntl(2), "File Sealing".
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Seals: u32 {
        const SEAL = 1;
        const SHRINK = 2;
        const GROW = 4;
        const WRITE = 8;
        const FUTURE_WRITE = 0x10;
        const EXEC = 0x20;
    }

    /// Flags of fallocate(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct FallocateMode: u32 {
        const KEEP_SIZE = 1;
        const PUNCH_HOLE = 2;
        const COLLAPSE_RANGE = 8;
        const ZERO_RANGE = 0x10;
        const INSERT_RANGE = 0x20;
        const UNSHARE_RANGE = 0x40;
    }

    /// Flags of splice(2), tee(2) and vmsplice(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct SpliceFlags: u32 {
        const MOVE = 1;
        const NONBLOCK = 2;
        const MORE = 4;
        const GIFT = 8;
    }

    /// Flags of close_range(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct CloseRangeFlags: u32 {
        const UNSHARE = 2;
        const CLOEXEC = 4;
    }

    /// Flags of sync_file_range(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct SyncRangeFlags: u32 {
        const WAIT_BEFORE = 1;
        const WRITE = 2;
        const WAIT_AFTER = 4;
    }
}
