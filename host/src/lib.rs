//! Safe wrappers of host calls that rustix lacks; with `platform`, the only crate that makes raw calls.
//!
//! | module | what |
//! | --- | --- |
//! | `allocator` | how the C library's allocator takes memory |
//! | `bpf`, `seccomp` | filters of host calls, written as tables |
//! | `cpu` | which processor this is |
//! | `chmod` | mode changes through `O_PATH` descriptors |
//! | `clone` | fork into new namespaces, without exec |
//! | `namespace` | detached, restricted copies of mount trees |
//! | `scm_rights` | messages with a descriptor |
//! | `signal` | block signals and read them from a descriptor |

#![deny(unsafe_code)]

pub mod allocator;
pub mod bpf;
pub mod chmod;
pub mod clone;
pub mod cpu;
pub mod namespace;
pub mod scm_rights;
pub mod seccomp;
pub mod signal;
