//! Host operations as orders for the shim, in parts that fit into one reply.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use shim_abi::{MAX_OPS, op};

use crate::{Backing, HostOp, Loan};

/// Operations per reply that the sentry fills: room is left for closing descriptors.
const BATCH: usize = MAX_OPS - MAX_FILES;
const MAX_FILES: usize = 8;

/// An order for the shim, with the descriptor it maps.
#[derive(Debug, Clone)]
pub struct RawOp {
    pub nr: u64,
    pub args: [u64; 6],
    pub file: Option<Arc<OwnedFd>>,
    /// The file is for this loan.
    pub loan: Option<Arc<dyn Loan>>,
}

impl RawOp {
    pub fn new(nr: u64, args: [u64; 6]) -> Self {
        Self { nr, args, file: None, loan: None }
    }
}

/// Takes operations for one reply off the queue: as many as fit, with at most a few descriptors.
pub fn split_batch(queue: &mut VecDeque<HostOp>) -> Vec<RawOp> {
    let mut batch: Vec<RawOp> = Vec::with_capacity(queue.len().min(BATCH));
    let mut files: Vec<*const OwnedFd> = Vec::new();
    while batch.len() < BATCH
        && let Some(next) = queue.front()
    {
        if let HostOp::Map { backing: Backing::File { fd, .. }, .. }
        | HostOp::Hold { fd }
        | HostOp::MapRing { fd, .. }
        | HostOp::Lend { fd, .. } = next
            && !files.contains(&Arc::as_ptr(fd))
        {
            if files.len() == MAX_FILES {
                break;
            }
            files.push(Arc::as_ptr(fd));
        }
        batch.push(encode(next));
        queue.pop_front();
    }
    batch
}

/// An operation as the shim's call.
fn encode(op: &HostOp) -> RawOp {
    let call = |nr: i64, args: [u64; 6]| RawOp::new(nr.cast_unsigned(), args);
    match op {
        HostOp::Map { addr, len, prot, shared, noreserve, backing } => {
            let mut flags = libc::MAP_FIXED;
            flags |= if *shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
            if *noreserve {
                flags |= libc::MAP_NORESERVE;
            }
            let (file, offset) = match backing {
                Backing::Anonymous => {
                    flags |= libc::MAP_ANONYMOUS;
                    (None, 0)
                }
                Backing::File { fd, offset } => (Some(Arc::clone(fd)), *offset),
            };
            let flags = u64::from(flags.cast_unsigned());
            let args = [addr.0, *len, u64::from(prot.bits()), flags, u64::MAX, offset];
            RawOp { file, ..call(libc::SYS_mmap, args) }
        }
        HostOp::Unmap { addr, len } => call(libc::SYS_munmap, [addr.0, *len, 0, 0, 0, 0]),
        HostOp::Protect { addr, len, prot } => {
            call(libc::SYS_mprotect, [addr.0, *len, u64::from(prot.bits()), 0, 0, 0])
        }
        HostOp::Remap { addr, len, new_addr, new_len, keep_old } => {
            let mut flags = 0;
            if new_addr != addr {
                flags |= libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            }
            if *keep_old {
                flags |= libc::MREMAP_DONTUNMAP | libc::MREMAP_MAYMOVE;
            }
            let flags = u64::from(flags.cast_unsigned());
            call(libc::SYS_mremap, [addr.0, *len, *new_len, flags, new_addr.0, 0])
        }
        HostOp::Advise { addr, len, advice } => {
            let advice = u64::from(advice.cast_unsigned());
            call(libc::SYS_madvise, [addr.0, *len, advice, 0, 0, 0])
        }
        HostOp::Sync { addr, len, flags } => {
            let flags = u64::from(flags.cast_unsigned());
            call(libc::SYS_msync, [addr.0, *len, flags, 0, 0, 0])
        }
        HostOp::Hold { fd } => {
            RawOp { file: Some(Arc::clone(fd)), ..RawOp::new(op::NOTHING, [0; 6]) }
        }
        HostOp::Lend { fd, loan } => RawOp {
            file: Some(Arc::clone(fd)),
            loan: Some(Arc::clone(loan)),
            ..RawOp::new(op::NOTHING, [0; 6])
        },
        HostOp::MapRing { fd, place, len, writes } => {
            let prot = libc::PROT_READ | if *writes { libc::PROT_WRITE } else { 0 };
            let flags = libc::MAP_FIXED | libc::MAP_SHARED;
            let addr = shim_abi::STREAMS_ADDR + *place as u64 * shim_abi::STREAM_STRIDE;
            let (prot, flags) = (u64::from(prot.cast_unsigned()), u64::from(flags.cast_unsigned()));
            let args = [addr, *len, prot, flags, u64::MAX, 0];
            RawOp { file: Some(Arc::clone(fd)), ..RawOp::new(op::MAP_STREAM, args) }
        }
        HostOp::ResetVectors => RawOp::new(op::RESET_VECTORS, [0; 6]),
        HostOp::LoadVectors => RawOp::new(op::LOAD_STATE, [0; 6]),
        HostOp::SetFsBase(base) => RawOp::new(op::SET_FS, [*base, 0, 0, 0, 0, 0]),
        HostOp::SetGsBase(base) => RawOp::new(op::SET_GS, [*base, 0, 0, 0, 0, 0]),
    }
}
