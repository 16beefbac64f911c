//! Safe wrappers of host calls that rustix lacks; with `platform`, the only crate that makes raw calls.
//!
//! | module | what |
//! | --- | --- |
//! | `scm_rights` | messages with a descriptor |
//! | `namespace` | detached, restricted copies of mount trees |
//! | `chmod` | mode changes through `O_PATH` descriptors |

#![deny(unsafe_code)]

pub mod chmod;
pub mod namespace;
pub mod scm_rights;
