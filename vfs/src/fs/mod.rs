//! The filesystems.
//!
//! | module | what |
//! | --- | --- |
//! | `kernfs` | building blocks of synthetic filesystems |
//! | `devfs` | /dev |
//! | `devpts` | /dev/pts |
//! | `nullfs` | an empty directory; home of anonymous paths |
//! | `gofer` | host files through the gofer |
//! | `tmpfs` | files in memory |
//! | `procfs` | /proc |
//! | `overlay` | a read-only filesystem under changes in memory |
//! | `sysfs` | /sys |
//! | `pipefs` | pipes and FIFOs |
//! | `anonfs` | inodes of files without a path |
//! | `sockfs` | inodes behind sockets |
//! | `hostfile` | donated host descriptors |

pub mod anonfs;
pub mod devfs;
pub mod devpts;
pub mod gofer;
pub mod hostfile;
pub mod kernfs;
pub mod nullfs;
pub mod overlay;
pub mod pipefs;
pub mod procfs;
pub mod sockfs;
pub mod sysfs;
pub mod tmpfs;
