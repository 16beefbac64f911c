//! The filesystems.
//!
//! | module | what |
//! | --- | --- |
//! | `pipefs` | pipes and FIFOs |

pub mod pipefs;
