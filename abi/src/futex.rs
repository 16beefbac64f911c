//! futex(2): operations, flags and `struct futex_waitv`.

pub const FUTEX_WAIT: u32 = 0;
pub const FUTEX_WAKE: u32 = 1;
pub const FUTEX_FD: u32 = 2;
pub const FUTEX_REQUEUE: u32 = 3;
pub const FUTEX_CMP_REQUEUE: u32 = 4;
pub const FUTEX_WAKE_OP: u32 = 5;
pub const FUTEX_LOCK_PI: u32 = 6;
pub const FUTEX_UNLOCK_PI: u32 = 7;
pub const FUTEX_TRYLOCK_PI: u32 = 8;
pub const FUTEX_WAIT_BITSET: u32 = 9;
pub const FUTEX_WAKE_BITSET: u32 = 10;
pub const FUTEX_WAIT_REQUEUE_PI: u32 = 11;
pub const FUTEX_CMP_REQUEUE_PI: u32 = 12;
pub const FUTEX_LOCK_PI2: u32 = 13;

pub const FUTEX_PRIVATE_FLAG: u32 = 128;
pub const FUTEX_CLOCK_REALTIME: u32 = 256;
/// The operation without its flags.
pub const FUTEX_CMD_MASK: u32 = !(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME);

pub const FUTEX_BITSET_MATCH_ANY: u32 = !0;

/// Bits of a PI or robust futex word.
pub const FUTEX_WAITERS: u32 = 0x8000_0000;
pub const FUTEX_OWNER_DIED: u32 = 0x4000_0000;
pub const FUTEX_TID_MASK: u32 = 0x3fff_ffff;

/// futex_waitv(2): size bits of an element's flags, and the only size implemented.
pub const FUTEX2_SIZE_MASK: u32 = 0x3;
pub const FUTEX2_SIZE_U32: u32 = 0x2;
pub const FUTEX2_NUMA: u32 = 0x4;
pub const FUTEX2_PRIVATE: u32 = 128;
/// Most elements of one futex_waitv(2).
pub const FUTEX_WAITV_MAX: u32 = 128;

crate::abi_struct! {
    /// `struct futex_waitv`.
    pub struct FutexWaitv {
        pub val: u64,
        pub uaddr: u64,
        pub flags: u32,
        pub reserved: u32,
    }
}
