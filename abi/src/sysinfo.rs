//! uname(2) and sysinfo(2).

/// Bytes of each field of `struct utsname`, with its NUL.
pub const UTS_FIELD: usize = 65;

/// `struct new_utsname`.
#[derive(
    Clone,
    Copy,
    Debug,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
#[repr(C)]
pub struct Utsname {
    pub sysname: [u8; UTS_FIELD],
    pub nodename: [u8; UTS_FIELD],
    pub release: [u8; UTS_FIELD],
    pub version: [u8; UTS_FIELD],
    pub machine: [u8; UTS_FIELD],
    pub domainname: [u8; UTS_FIELD],
}

/// A field of [`Utsname`]: cut to 64 bytes, padded with NULs.
#[must_use]
pub fn uts_field(text: &[u8]) -> [u8; UTS_FIELD] {
    let mut field = [0; UTS_FIELD];
    for (to, from) in field.iter_mut().take(UTS_FIELD - 1).zip(text) {
        *to = *from;
    }
    field
}

crate::abi_struct! {
    /// `struct sysinfo` of x86-64. Loads are fixed point with 16 bits of fraction.
    pub struct Sysinfo {
        pub uptime: i64,
        pub loads: [u64; 3],
        pub totalram: u64,
        pub freeram: u64,
        pub sharedram: u64,
        pub bufferram: u64,
        pub totalswap: u64,
        pub freeswap: u64,
        pub procs: u16,
        pub pad: u16,
        pub pad2: u32,
        pub totalhigh: u64,
        pub freehigh: u64,
        pub mem_unit: u32,
        pub pad3: u32,
    }
}

bitflags::bitflags! {
    /// Flags of getrandom(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct RandomFlags: u32 {
        const NONBLOCK = 1;
        const RANDOM = 2;
        const INSECURE = 4;
    }
}
