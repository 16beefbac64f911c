//! What the sentry has the host do inside an address space.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::UserAddr;
use base::Lent;

bitflags::bitflags! {
    /// Page protection; the values of mmap(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Prot: u32 {
        const READ = 1;
        const WRITE = 2;
        const EXEC = 4;
    }
}

/// Backing of a mapping.
#[derive(Debug, Clone)]
pub enum Backing {
    Anonymous,
    /// A descriptor of ours, installed in the guest only while it is mapped. `offset` in bytes, page aligned.
    File {
        fd: Arc<OwnedFd>,
        offset: u64,
    },
}

/// A file that is lent to an address space: guest code reads it without a call, from the position that it is given on. Once
/// it is begun ([`HostOp::Lend`]); until then whoever has the position keeps it.
pub trait Loan: Lent + std::fmt::Debug {
    /// The platform's number for it.
    fn descriptor(&self) -> u32;

    /// For the platform: the file is where guest code reads it.
    fn installed(&self);
}

/// A host call to be executed inside the address space, on the sentry's order. Addresses are page aligned and
/// were checked against the task's range by the caller.
#[derive(Debug, Clone)]
pub enum HostOp {
    /// mmap with MAP_FIXED. `shared` memory without a file is inherited by fork.
    Map {
        addr: UserAddr,
        len: u64,
        prot: Prot,
        shared: bool,
        noreserve: bool,
        backing: Backing,
    },
    Unmap {
        addr: UserAddr,
        len: u64,
    },
    Protect {
        addr: UserAddr,
        len: u64,
        prot: Prot,
    },
    /// mremap with MREMAP_FIXED when `new_addr` differs from `addr`; `keep_old` is MREMAP_DONTUNMAP.
    Remap {
        addr: UserAddr,
        len: u64,
        new_addr: UserAddr,
        new_len: u64,
        keep_old: bool,
    },
    /// madvise; the caller passes on only advice that is harmless on the host.
    Advise {
        addr: UserAddr,
        len: u64,
        advice: i32,
    },
    /// mincore-like and msync: `Sync` is msync(2) with these flags.
    Sync {
        addr: UserAddr,
        len: u64,
        flags: i32,
    },
    /// Leaves a descriptor in the guest, so that mapping it later costs less. Only a hint.
    Hold {
        fd: Arc<OwnedFd>,
    },
    /// Begins a loan (see [`AddressSpace::lend`]), for the file that it was made with.
    Lend {
        fd: Arc<OwnedFd>,
        loan: Arc<dyn Loan>,
    },
    /// Maps a pipe's ring, see [`AddressSpace::join_ring`](crate::AddressSpace::join_ring), which makes it. Never fails.
    MapRing {
        fd: Arc<OwnedFd>,
        place: usize,
        len: u64,
        writes: bool,
    },
    /// The vector state a program starts with. Use [`Context::reset_xstate`].
    ResetVectors,
    /// The vector state that the creator of a thread had when it called. The platform's own.
    LoadVectors,
    /// Loads the thread pointer.
    SetFsBase(u64),
    SetGsBase(u64),
}
