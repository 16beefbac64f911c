//! Pointers to structs: which way they go, and how `--strace` shows them.

use std::fmt::{Debug, Write as _};
use std::ops::Deref;

use abi::Result;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::mm::{Mm, UserRef};
use crate::syscalls::args::{FromArg, Render};
use crate::syscalls::strace::LateArg;

/// A pointer to a struct that the call reads; may be null.
#[derive(Debug)]
pub struct In<T>(pub UserRef<T>);

/// A pointer to a struct that the call fills; may be null.
#[derive(Debug)]
pub struct Out<T>(pub UserRef<T>);

macro_rules! pointers {
    ($($name:ident),*) => {
        $(impl<T> Clone for $name<T> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<T> Copy for $name<T> {}

        impl<T> Deref for $name<T> {
            type Target = UserRef<T>;
            fn deref(&self) -> &UserRef<T> {
                &self.0
            }
        }

        impl<T> FromArg for $name<T> {
            fn from_arg(word: u64) -> Result<Self> {
                UserRef::from_arg(word).map(Self)
            }
        })*
    };
}

pointers!(In, Out);

/// What is shown of a struct behind a pointer.
pub trait Shown: FromBytes + IntoBytes + Immutable + Debug + Send + 'static {}

impl<T: FromBytes + IntoBytes + Immutable + Debug + Send + 'static> Shown for T {}

fn push_struct<T: Shown>(out: &mut String, mm: &Mm, at: UserRef<T>) {
    match at.read(mm) {
        Ok(value) => push_debug(out, &format!("{value:?}")),
        Err(_) => at.addr.render(out, mm),
    }
}

/// Appends `Name { field: 1, other: Inner { x: 2 } }` as strace(1) would spell it: `{field=1, other={x=2}}`. Padding is
/// left out.
fn push_debug(out: &mut String, text: &str) {
    let start = out.len();
    for piece in text.split_inclusive(['{', '}', ',', '[', ']']) {
        let piece = piece.trim_start();
        if let Some(name) = piece.strip_suffix('{') {
            let field = name.trim_end().rsplit_once(": ").map(|(field, _)| field);
            separate(out, start);
            if let Some(field) = field {
                out.push_str(field);
                out.push('=');
            }
            out.push('{');
            continue;
        }
        let is_padding = ["pad", "reserved", "spare"].iter().any(|name| piece.starts_with(name));
        let text = piece.trim_end_matches([' ', ',', '}']);
        if !text.is_empty() && !is_padding {
            separate(out, start);
            out.push_str(&text.replacen(": ", "=", 1));
        }
        if piece.ends_with('}') {
            out.push('}');
        }
    }
}

/// A comma, unless it is the first of its struct.
fn separate(out: &mut String, start: usize) {
    let is_first = out.len() == start || out.ends_with(['{', '[', '=']);
    if !is_first {
        out.push_str(", ");
    }
}

impl<T: Shown> Render for In<T> {
    fn render(&self, out: &mut String, mm: &Mm) {
        push_struct(out, mm, self.0);
    }
}

impl<T: Shown> Render for Out<T> {
    fn render(&self, out: &mut String, mm: &Mm) {
        self.addr.render(out, mm);
    }

    fn late(&self) -> Option<Box<dyn LateArg>> {
        (!self.is_null()).then(|| Box::new(*self) as Box<dyn LateArg>)
    }
}

impl<T: Shown> LateArg for Out<T> {
    fn render_late(&self, out: &mut String, mm: &Mm, _result: u64) {
        push_struct(out, mm, self.0);
    }

    fn render_failed(&self, out: &mut String) {
        let _ = write!(out, "{}", self.addr);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structs_are_spelled_as_strace_does() {
        let mut out = String::new();
        push_debug(&mut out, "A { sec: 1, pad0: 0, at: B { nsec: 2 }, end: 3 }");
        assert_eq!(out, "{sec=1, at={nsec=2}, end=3}");
        out.clear();
        push_debug(&mut out, "A { list: [1, 2], reserved: 0 }");
        assert_eq!(out, "{list=[1, 2]}");
        out.clear();
        push_debug(&mut out, "[3, 4]");
        assert_eq!(out, "[3, 4]");
    }
}
