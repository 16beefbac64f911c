//! Ids as types, so that a tid cannot be passed for a descriptor.

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident: $inner:ty;)*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
        #[repr(transparent)]
        pub struct $name(pub $inner);

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                self.0.fmt(f)
            }
        })*
    };
}

ids! {
    /// A thread's id; the leader's is also its thread group's.
    Tid: i32;
    /// A descriptor number as the guest passes it; negative values are invalid or `AT_FDCWD`.
    Fd: i32;
    /// A user id.
    Uid: u32;
    /// A group id.
    Gid: u32;
}

impl Uid {
    pub const ROOT: Self = Self(0);
}

impl Gid {
    pub const ROOT: Self = Self(0);
}
