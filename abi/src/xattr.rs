//! Extended attributes. See xattr(7).

/// Longest name, without its NUL.
pub const XATTR_NAME_MAX: usize = 255;
/// Longest value.
pub const XATTR_SIZE_MAX: usize = 65536;
/// Longest list of names.
pub const XATTR_LIST_MAX: usize = 65536;

bitflags::bitflags! {
    /// Flags of setxattr(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct XattrFlags: u32 {
        const CREATE = 1;
        const REPLACE = 2;
    }
}
