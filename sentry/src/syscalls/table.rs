//! One row per system call: number, handler with its argument names, state of support.
//!
//! Rows stand by family; a number without a row is absent and answers `ENOSYS`. Dispatch, `--strace` and
//! `docs/SYSCALLS.md` are derived from here.
//!
//! Kinds of handlers:
//! * plain: `fn(cx, args...) -> SysResult`, never blocks;
//! * `@wait`: `async fn(cx, args...) -> SysResult`, may block;
//! * `[module::first] @wait ...`: `first` is a plain function of the same arguments that answers
//!   [`Attempt::Done`] without allocating whenever the call need not block, and otherwise leaves no trace.

use std::future::Future;
use std::pin::Pin;

use crate::cx::Cx;
use crate::error::SysResult;
use crate::syscalls::args::FromArgs;
use crate::syscalls::{exec, identity, mmap};

/// Argument words of one call.
pub type Words = [u64; 6];

/// A running call that may block.
pub type CallFuture<'a> = Pin<Box<dyn Future<Output = SysResult> + Send + 'a>>;

/// What came of trying without blocking.
#[derive(Debug)]
pub enum Attempt {
    Done(SysResult),
    /// Nothing was done yet: enter the blocking handler.
    WouldBlock,
}

/// How a call is entered.
#[derive(Clone, Copy)]
pub enum Call {
    /// Never blocks.
    Sync(fn(&mut Cx<'_>, Words) -> SysResult),
    /// May block.
    Async(for<'a, 'b> fn(&'a mut Cx<'b>, Words) -> CallFuture<'a>),
    /// Mostly does not block: tried first, then entered as one that may.
    Try(fn(&mut Cx<'_>, Words) -> Attempt, for<'a, 'b> fn(&'a mut Cx<'b>, Words) -> CallFuture<'a>),
}

/// How much of a call is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    Full,
    /// With what is missing.
    Partial(&'static str),
}

/// One row.
#[derive(Clone, Copy)]
pub struct Row {
    pub number: u32,
    pub name: &'static str,
    pub call: Call,
    pub support: Support,
}

macro_rules! rows {
    ($($number:literal => $([$tmodule:ident::$tname:ident])? $(@$kind:ident)?
        $module:ident::$name:ident($($arg:ident),*), $support:expr;)*) => {
        /// All calls, by family.
        pub static ROWS: &[Row] = &[$(Row {
            number: $number,
            name: stringify!($name),
            call: rows!(@call [$($tmodule::$tname)?] $($kind)? $module::$name($($arg),*)),
            support: $support,
        },)*];
    };
    (@call [] $module:ident::$name:ident($($arg:ident),*)) => {
        Call::Sync(|cx, words| {
            rows!(@args cx, words, $($arg),*);
            $module::$name(cx $(, $arg)*)
        })
    };
    (@call [] wait $module:ident::$name:ident($($arg:ident),*)) => {
        Call::Async(|cx, words| Box::pin(async move {
            rows!(@args cx, words, $($arg),*);
            $module::$name(cx $(, $arg)*).await
        }))
    };
    (@call [$tmodule:ident::$tname:ident] wait $module:ident::$name:ident($($arg:ident),*)) => {
        Call::Try(
            |cx, words| {
                let attempt = |cx: &mut Cx<'_>| {
                    rows!(@args cx, words, $($arg),*);
                    Ok($tmodule::$tname(cx $(, $arg)*))
                };
                attempt(cx).unwrap_or_else(|error: crate::error::SysError| Attempt::Done(Err(error)))
            },
            |cx, words| Box::pin(async move {
                let mut words = words.into_iter();
                $(let $arg = FromArgs::from_args(&mut words)?;)*
                $module::$name(cx $(, $arg)*).await
            }),
        )
    };
    (@args $cx:ident, $words:ident, $($arg:ident),*) => {
        let mut words = $words.into_iter();
        $(let $arg = FromArgs::from_args(&mut words)?;)*
        let _ = &mut words;
        if $cx.trace.is_some() {
            $($cx.trace_arg(&$arg);)*
        }
    };
}

/// Rows by number, plus one; 0 is none.
static INDEX: [u16; 512] = index();

const fn index() -> [u16; 512] {
    let mut index = [0; 512];
    let mut at = 0;
    while at < ROWS.len() {
        let slot = &mut index[ROWS[at].number as usize];
        assert!(*slot == 0, "two rows have one number");
        at += 1;
        *slot = at as u16;
    }
    index
}

/// The row of a call number.
#[must_use]
pub fn row(number: u64) -> Option<&'static Row> {
    let place = *INDEX.get(usize::try_from(number).ok()?)?;
    ROWS.get(usize::from(place).checked_sub(1)?)
}

use Support::{Full, Partial};

rows! {
    // Identity.
    39 => identity::getpid(), Full;
    186 => identity::gettid(), Full;

    // Memory.
    9 => [mmap::try_mmap] @wait mmap::mmap(addr, len, prot, flags, fd, offset),
        Partial("no MAP_HUGETLB, MAP_DROPPABLE, MAP_SYNC");
    10 => [mmap::try_mprotect] @wait mmap::mprotect(addr, len, prot), Full;
    11 => [mmap::try_munmap] @wait mmap::munmap(addr, len), Full;
    12 => [mmap::try_brk] @wait mmap::brk(end), Full;
    25 => [mmap::try_mremap] @wait mmap::mremap(old, old_len, new_len, flags, new), Full;
    26 => mmap::msync(addr, len, flags), Full;
    27 => mmap::mincore(addr, len, vec), Partial("every mapped page counts as resident");
    28 => [mmap::try_madvise] @wait mmap::madvise(addr, len, advice),
        Partial("no MADV_REMOVE, MADV_MERGEABLE, MADV_HWPOISON, MADV_GUARD_INSTALL");
    149 => mmap::mlock(addr, len), Partial("counted, not pinned");
    150 => mmap::munlock(addr, len), Full;
    151 => mmap::mlockall(flags), Partial("counted, not pinned");
    152 => mmap::munlockall(), Full;
    325 => mmap::mlock2(addr, len, flags), Partial("counted, not pinned");

    // Programs.
    59 => @wait exec::execve(name, args, env), Full;
    322 => @wait exec::execveat(dir, name, args, env, flags), Full;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_linux_name_of_its_number() {
        for row in ROWS {
            let name = abi::arch::x86_64_calls::name(u64::from(row.number));
            let bare = row.name.trim_start_matches("r#");
            assert_eq!(name, Some(bare), "row {}", row.number);
        }
    }

    #[test]
    fn numbers_find_their_rows() {
        assert_eq!(row(39).map(|row| row.name), Some("getpid"));
        assert!(row(511).is_none() && row(512).is_none() && row(u64::MAX).is_none());
    }
}
