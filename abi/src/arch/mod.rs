//! What differs between architectures.
//!
//! | module | what |
//! | --- | --- |
//! | `x86_64` | registers |

pub mod x86_64;

pub use x86_64::Registers;
