//! Layout and state words of the channel between sentry and shim, and what goes with which call; the shim includes the
//! files as modules.

#![no_std]

mod files;
mod layout;
mod ledger;
pub mod pointers;
mod processor;
mod streams;

pub use layout::*;
