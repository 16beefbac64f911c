//! From argument words to types, and back to text for `--strace`.

use std::fmt::Write as _;

use abi::ids::{Fd, Gid, Tid, Uid};
use abi::{Errno, Result, UserAddr};

use crate::mm::{Mm, UserCStr, UserRef};

/// A type that an argument word can be turned into.
pub trait FromArg: Sized {
    /// # Errors
    /// What Linux returns for a word that is no such value, mostly `EINVAL`.
    fn from_arg(word: u64) -> Result<Self>;
}

/// How `--strace` shows an argument.
pub trait Render {
    fn render(&self, out: &mut String, mm: &Mm);
}

macro_rules! plain_words {
    ($($type:ty),*) => {
        $(impl FromArg for $type {
            #[expect(clippy::allow_attributes, reason = "expect would fail where it is not needed")]
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

impl FromArg for UserAddr {
    fn from_arg(word: u64) -> Result<Self> {
        Ok(Self(word))
    }
}

impl Render for UserAddr {
    fn render(&self, out: &mut String, _mm: &Mm) {
        let _ = write!(out, "{self}");
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
        match self.read(mm, 128, Errno::ENAMETOOLONG) {
            Ok(bytes) => {
                let _ = write!(out, "\"{}\"", bytes.escape_ascii());
            }
            Err(_) => self.addr.render(out, mm),
        }
    }
}

/// A flag word of the ABI: unknown bits are `EINVAL`.
#[macro_export]
macro_rules! strict_flags_arg {
    ($($type:ty),* $(,)?) => {
        $(impl $crate::syscalls::args::FromArg for $type {
            fn from_arg(word: u64) -> abi::Result<Self> {
                Self::from_bits(word as _).ok_or(abi::Errno::EINVAL)
            }
        }
        impl $crate::syscalls::args::Render for $type {
            fn render(&self, out: &mut String, _mm: &$crate::mm::Mm) {
                out.push_str(&format!("{self:?}"));
            }
        })*
    };
}
