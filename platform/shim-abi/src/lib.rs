//! Layout and state words of the channel between sentry and shim; the shim includes `layout.rs` as a module.

#![no_std]

mod layout;

pub use layout::*;
