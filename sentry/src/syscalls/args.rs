//! From argument words to types, and back to text for `--strace`.

use std::fmt::Write as _;

use abi::ids::{Fd, Gid, Tid, Uid};
use abi::open::{AT_FDCWD, AtFlags, OpenFlags};
use abi::{Errno, Result, UserAddr};

use crate::mm::{Mm, UserCStr, UserRef, UserSlice};
use crate::syscalls::strace::LateArg;
pub use crate::syscalls::struct_args::{In, Out};

/// The words that are left.
pub type Left = std::array::IntoIter<u64, 6>;

/// A type that one argument word can be turned into.
pub trait FromArg: Sized {
    /// # Errors
    /// What Linux returns for a word that is no such value, mostly `EINVAL`.
    fn from_arg(word: u64) -> Result<Self>;
}

/// A type that one or more argument words can be turned into.
pub trait FromArgs: Sized {
    /// # Errors
    /// As [`FromArg::from_arg`].
    fn from_args(words: &mut Left) -> Result<Self>;
}

impl<T: FromArg> FromArgs for T {
    fn from_args(words: &mut Left) -> Result<Self> {
        T::from_arg(words.next().unwrap_or(0))
    }
}

/// How `--strace` shows an argument.
pub trait Render {
    fn render(&self, out: &mut String, mm: &Mm);

    /// An argument that the call fills in is rendered afterwards.
    fn late(&self) -> Option<Box<dyn LateArg>> {
        None
    }
}

macro_rules! plain_words {
    ($($type:ty),*) => {
        $(impl FromArg for $type {
            #[expect(clippy::allow_attributes, reason = "some of these casts are the identity")]
            #[allow(clippy::cast_lossless, trivial_numeric_casts, reason = "the identity for some")]
            fn from_arg(word: u64) -> Result<Self> {
                // Linux looks at the low bits only, whatever the high ones hold.
                Ok(word as $type)
            }
        }
        impl Render for $type {
            fn render(&self, out: &mut String, _mm: &Mm) {
                let _ = write!(out, "{self}");
            }
        })*
    };
}

plain_words!(i32, u32, i64, u64, usize);

macro_rules! id_words {
    ($($type:ident: $inner:ty),*) => {
        $(impl FromArg for $type {
            fn from_arg(word: u64) -> Result<Self> {
                Ok(Self(word as $inner))
            }
        }
        impl Render for $type {
            fn render(&self, out: &mut String, _mm: &Mm) {
                let _ = write!(out, "{self}");
            }
        })*
    };
}

id_words!(Fd: i32, Tid: i32, Uid: u32, Gid: u32);

/// A flag or command word that is shown in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hex(pub u64);

impl FromArg for Hex {
    fn from_arg(word: u64) -> Result<Self> {
        Ok(Self(word))
    }
}

impl Render for Hex {
    fn render(&self, out: &mut String, _mm: &Mm) {
        let _ = write!(out, "{:#x}", self.0);
    }
}

/// A mode, shown in octal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode(pub u32);

impl FromArg for Mode {
    fn from_arg(word: u64) -> Result<Self> {
        Ok(Self(word as u32))
    }
}

impl Render for Mode {
    fn render(&self, out: &mut String, _mm: &Mm) {
        let _ = write!(out, "0{:o}", self.0);
    }
}

/// The directory of an `*at` call: a descriptor or `AT_FDCWD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirFd(pub Fd);

impl DirFd {
    pub const CWD: Self = Self(Fd(AT_FDCWD));

    #[must_use]
    pub fn is_cwd(self) -> bool {
        self == Self::CWD
    }
}

impl FromArg for DirFd {
    fn from_arg(word: u64) -> Result<Self> {
        Fd::from_arg(word).map(Self)
    }
}

impl Render for DirFd {
    fn render(&self, out: &mut String, mm: &Mm) {
        if self.is_cwd() { out.push_str("AT_FDCWD") } else { self.0.render(out, mm) }
    }
}

impl FromArg for UserAddr {
    fn from_arg(word: u64) -> Result<Self> {
        Ok(Self(word))
    }
}

impl Render for UserAddr {
    fn render(&self, out: &mut String, _mm: &Mm) {
        if self.is_null() {
            out.push_str("NULL");
        } else {
            let _ = write!(out, "{self}");
        }
    }
}

impl<T> FromArg for UserRef<T> {
    fn from_arg(word: u64) -> Result<Self> {
        Ok(Self::new(UserAddr(word)))
    }
}

impl<T> Render for UserRef<T> {
    fn render(&self, out: &mut String, mm: &Mm) {
        self.addr.render(out, mm);
    }
}

impl FromArg for UserCStr {
    fn from_arg(word: u64) -> Result<Self> {
        Ok(Self { addr: UserAddr(word) })
    }
}

impl Render for UserCStr {
    fn render(&self, out: &mut String, mm: &Mm) {
        match self.read(mm, 4095, Errno::ENAMETOOLONG) {
            Ok(bytes) => push_string(out, &bytes, 256, bytes.len()),
            Err(_) => self.addr.render(out, mm),
        }
    }
}

/// Longest part of a buffer that is shown.
const SHOWN_BYTES: usize = 48;

/// Appends `bytes` quoted, as C would; `...` when `whole` is more than is shown.
pub fn push_string(out: &mut String, bytes: &[u8], most: usize, whole: usize) {
    let shown = &bytes[..bytes.len().min(most)];
    let _ = write!(out, "\"{}\"", shown.escape_ascii());
    if shown.len() < whole {
        out.push_str("...");
    }
}

fn push_buffer(out: &mut String, mm: &Mm, addr: UserAddr, len: usize) {
    let mut head = [0; SHOWN_BYTES];
    let head = &mut head[..len.min(SHOWN_BYTES)];
    match mm.read(addr, head) {
        Ok(()) => push_string(out, head, SHOWN_BYTES, len),
        Err(_) => addr.render(out, mm),
    }
}

/// Two words, address and length, of a buffer that the call reads.
impl FromArgs for UserSlice {
    fn from_args(words: &mut Left) -> Result<Self> {
        let addr = UserAddr(words.next().unwrap_or(0));
        let len = usize::from_args(words)?;
        Ok(Self { addr, len })
    }
}

impl Render for UserSlice {
    fn render(&self, out: &mut String, mm: &Mm) {
        push_buffer(out, mm, self.addr, self.len);
        let _ = write!(out, ", {}", self.len);
    }
}

/// Two words, address and length, of a buffer that the call fills; the return value tells how far.
#[derive(Debug, Clone, Copy)]
pub struct OutSlice(pub UserSlice);

impl FromArgs for OutSlice {
    fn from_args(words: &mut Left) -> Result<Self> {
        UserSlice::from_args(words).map(Self)
    }
}

impl Render for OutSlice {
    fn render(&self, out: &mut String, mm: &Mm) {
        self.0.addr.render(out, mm);
        let _ = write!(out, ", {}", self.0.len);
    }

    fn late(&self) -> Option<Box<dyn LateArg>> {
        Some(Box::new(*self))
    }
}

impl LateArg for OutSlice {
    fn render_late(&self, out: &mut String, mm: &Mm, result: u64) {
        let filled = usize::try_from(result).unwrap_or(usize::MAX).min(self.0.len);
        push_buffer(out, mm, self.0.addr, filled);
        let _ = write!(out, ", {}", self.0.len);
    }

    fn render_failed(&self, out: &mut String) {
        let _ = write!(out, "{}, {}", self.0.addr, self.0.len);
    }
}

/// Appends flags as strace(1) does: `O_RDWR|O_CLOEXEC|0x800`.
pub fn push_flags<T: bitflags::Flags<Bits: std::fmt::LowerHex + PartialEq + Copy>>(
    out: &mut String,
    prefix: &str,
    flags: &T,
) {
    let start = out.len();
    let mut names = flags.iter_names();
    for (name, _) in names.by_ref() {
        if out.len() > start {
            out.push('|');
        }
        out.push_str(prefix);
        out.push_str(name);
    }
    let rest = names.remaining().bits();
    if rest != T::empty().bits() || out.len() == start {
        if out.len() > start {
            out.push('|');
        }
        if rest == T::empty().bits() {
            out.push('0');
        } else {
            let _ = write!(out, "{rest:#x}");
        }
    }
}

/// A flag word of the ABI: unknown bits are `EINVAL`.
#[macro_export]
macro_rules! strict_flags_arg {
    ($($type:ty),* $(,)?) => {
        $($crate::strict_flags_arg!($type as "");)*
    };
    ($type:ty as $prefix:literal) => {
        impl $crate::syscalls::args::FromArg for $type {
            fn from_arg(word: u64) -> abi::Result<Self> {
                Self::from_bits(word as _).ok_or(abi::Errno::EINVAL)
            }
        }
        $crate::render_flags!($type as $prefix);
    };
}

/// A flag word whose unknown bits travel to the handler.
#[macro_export]
macro_rules! loose_flags_arg {
    ($type:ty as $prefix:literal) => {
        impl $crate::syscalls::args::FromArg for $type {
            fn from_arg(word: u64) -> abi::Result<Self> {
                Ok(Self::from_bits_retain(word as _))
            }
        }
        $crate::render_flags!($type as $prefix);
    };
}

/// Rendering of a flag word by names.
#[macro_export]
macro_rules! render_flags {
    ($type:ty as $prefix:literal) => {
        impl $crate::syscalls::args::Render for $type {
            fn render(&self, out: &mut String, _mm: &$crate::mm::Mm) {
                $crate::syscalls::args::push_flags(out, $prefix, self);
            }
        }
    };
}

loose_flags_arg!(AtFlags as "AT_");

impl FromArg for OpenFlags {
    fn from_arg(word: u64) -> Result<Self> {
        Ok(Self::from_bits_retain(word as u32))
    }
}

impl Render for OpenFlags {
    fn render(&self, out: &mut String, _mm: &Mm) {
        out.push_str(match self.bits() & Self::ACCMODE {
            0 => "O_RDONLY",
            1 => "O_WRONLY",
            2 => "O_RDWR",
            _ => "O_ACCMODE",
        });
        let rest = Self::from_bits_retain(self.bits() & !Self::ACCMODE);
        if !rest.is_empty() {
            out.push('|');
            push_flags(out, "O_", &rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags<T: bitflags::Flags<Bits: std::fmt::LowerHex + PartialEq + Copy>>(value: T) -> String {
        let mut out = String::new();
        push_flags(&mut out, "O_", &value);
        out
    }

    #[test]
    fn flags_are_named_and_strangers_numbered() {
        assert_eq!(flags(OpenFlags::CLOEXEC | OpenFlags::APPEND), "O_APPEND|O_CLOEXEC");
        assert_eq!(flags(OpenFlags::empty()), "0");
        assert_eq!(flags(OpenFlags::from_bits_retain(0x4000_0000 | 0o2000)), "O_APPEND|0x40000000");
    }

    #[test]
    fn low_bits_count() {
        assert_eq!(i32::from_arg(0xffff_ffff_0000_0003), Ok(3));
        assert_eq!(DirFd::from_arg(0x0000_0000_ffff_ff9c), Ok(DirFd::CWD));
    }

    #[test]
    fn slices_take_two_words() {
        let mut words = [3, 0x1000, 17, 0, 0, 0].into_iter();
        assert_eq!(Fd::from_args(&mut words), Ok(Fd(3)));
        let slice = UserSlice::from_args(&mut words).map(|slice| (slice.addr, slice.len));
        assert_eq!(slice, Ok((UserAddr(0x1000), 17)));
    }

    #[test]
    fn long_strings_are_cut() {
        let mut out = String::new();
        push_string(&mut out, b"a\"\n", 8, 3);
        push_string(&mut out, b"abcdef", 4, 6);
        assert_eq!(out, r#""a\"\n""abcd"..."#);
    }
}
