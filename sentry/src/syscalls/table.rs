//! One row per system call: number, handler with its argument names, state of support.
//!
//! Rows are sorted by number; a number without a row is absent and answers `ENOSYS`. `docs/SYSCALLS.md` is
//! generated from here.

use std::future::Future;
use std::pin::Pin;

use crate::cx::Cx;
use crate::error::SysResult;
#[expect(unused_imports, reason = "rows with arguments come next")]
use crate::syscalls::args::FromArg;
use crate::syscalls::identity;

/// Argument words of one call.
pub type Words = [u64; 6];

/// A running call that may block.
pub type CallFuture<'a> = Pin<Box<dyn Future<Output = SysResult> + Send + 'a>>;

/// How a call is entered.
#[derive(Clone, Copy)]
pub enum Call {
    /// Never blocks.
    Sync(fn(&mut Cx<'_>, Words) -> SysResult),
    /// May block.
    Async(for<'a, 'b> fn(&'a mut Cx<'b>, Words) -> CallFuture<'a>),
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
    ($($number:literal => $(@$kind:ident)? $module:ident::$name:ident($($arg:ident),*), $support:expr;)*) => {
        /// All calls, sorted by number.
        pub static ROWS: &[Row] = &[$(Row {
            number: $number,
            name: stringify!($name),
            call: rows!(@call $($kind)? $module::$name($($arg),*)),
            support: $support,
        },)*];
    };
    (@call $module:ident::$name:ident($($arg:ident),*)) => {
        Call::Sync(|cx, words| {
            let mut words = words.into_iter();
            $(let $arg = FromArg::from_arg(words.next().unwrap_or(0))?;)*
            let _ = &mut words;
            if cx.trace.is_some() {
                $(cx.trace_arg(stringify!($arg), &$arg);)*
            }
            $module::$name(cx $(, $arg)*)
        })
    };
    (@call wait $module:ident::$name:ident($($arg:ident),*)) => {
        Call::Async(|cx, words| Box::pin(async move {
            let mut words = words.into_iter();
            $(let $arg = FromArg::from_arg(words.next().unwrap_or(0))?;)*
            let _ = &mut words;
            if cx.trace.is_some() {
                $(cx.trace_arg(stringify!($arg), &$arg);)*
            }
            $module::$name(cx $(, $arg)*).await
        }))
    };
}

/// The row of a call number.
#[must_use]
pub fn row(number: u64) -> Option<&'static Row> {
    let index = ROWS.binary_search_by_key(&number, |row| u64::from(row.number)).ok()?;
    ROWS.get(index)
}

use Support::Full;

// `@wait` marks calls that may block (async handlers).
rows! {
    39 => identity::getpid(), Full;
    186 => identity::gettid(), Full;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_unique() {
        assert!(ROWS.is_sorted_by(|a, b| a.number < b.number));
    }
}
