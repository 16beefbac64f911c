//! The filesystems.
//!
//! | module | what |
//! | --- | --- |
//! | `pipefs` | pipes and FIFOs |
//! | `anonfs` | inodes of files without a path |
//! | `hostfile` | donated host descriptors |

pub mod anonfs;
pub mod hostfile;
pub mod pipefs;
