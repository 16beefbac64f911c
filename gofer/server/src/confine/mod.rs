//! What the process gives up before it reads the first request.
//!
//! The walls, each further behind the one before it:
//!
//! 1. Requests are resolved below their tree's root (`tree`); the server refuses writes to read-only trees.
//! 2. Detached copies of the mounts, read-only where the tree is, without devices and set-uid bits (`tree`; needs
//!    `CAP_SYS_ADMIN`, so only root's gofer has them). A user namespace would give the same to ordinary users but
//!    show every foreign owner as nobody, so it is not used.
//! 3. Landlock: reading below the trees, writing below the writable ones, nothing else.
//! 4. Capabilities: those that open files for root, none for others.
//! 5. seccomp: an allow-list, each row with its reason. It has no call that makes sockets or processes, so fresh
//!    network, IPC and pid namespaces (0.3-0.5 ms each) would add nothing.

mod capabilities;
mod landlock;
mod seccomp;

use rustix::process::Signal;

use crate::tree::ServedTree;

/// Which walls to build. Landlock and detached mounts are left out where the host lacks them; the others fail closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfineOptions {
    /// Die when the launching thread does.
    pub die_with_parent: bool,
    pub detach_mounts: bool,
    pub landlock: bool,
    pub drop_capabilities: bool,
    pub seccomp: bool,
}

impl Default for ConfineOptions {
    fn default() -> Self {
        Self {
            die_with_parent: true,
            detach_mounts: true,
            landlock: true,
            drop_capabilities: true,
            seccomp: true,
        }
    }
}

impl ConfineOptions {
    /// No wall at all, for tests that serve from a thread of their own process.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            die_with_parent: false,
            detach_mounts: false,
            landlock: false,
            drop_capabilities: false,
            seccomp: false,
        }
    }
}

/// Why a wall could not be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the gofer cannot {what}: {source}")]
    Host { what: &'static str, source: rustix::io::Errno },
    #[error("the gofer cannot restrict itself by Landlock: {0}")]
    Landlock(#[from] ::landlock::RulesetError),
    #[error("the gofer's system-call filter is malformed")]
    Filter,
    #[error(
        "the gofer's system-call filter cannot be installed: {0}; the host needs CONFIG_SECCOMP_FILTER"
    )]
    Install(std::io::Error),
}

/// The walls that threads inherit.
pub fn before_threads(options: ConfineOptions, trees: &[ServedTree]) -> Result<(), Error> {
    let host = |what| move |source| Error::Host { what, source };
    if options.die_with_parent {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(host("ask to die with its parent"))?;
    }
    if options.landlock || options.seccomp {
        rustix::thread::set_no_new_privs(true).map_err(host("renounce new privileges"))?;
    }
    if options.landlock {
        landlock::restrict(trees)?;
    }
    if options.drop_capabilities {
        let can_write = trees.iter().any(ServedTree::is_writable);
        capabilities::drop(can_write).map_err(host("drop capabilities"))?;
    }
    Ok(())
}

/// The filter, on all threads at once.
pub fn after_threads(options: ConfineOptions, can_write: bool) -> Result<(), Error> {
    if options.seccomp {
        let filter = seccomp::filter(can_write).ok_or(Error::Filter)?;
        filter.install().map_err(Error::Install)?;
    }
    Ok(())
}
