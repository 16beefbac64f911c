//! What a processor exception means by our tree.

use std::sync::Arc;

use abi::UserAddr;
use abi::signal::Signal;
use platform::{Backing, Context, Fault, HostOp};

use crate::mm::Mm;
use crate::mm::state::{MmState, Plan, STACK_GUARD_GAP, Undo};
use crate::mm::vma::VmaFlags;
use crate::task::Thread;

/// `si_code` of SIGSEGV for an address where nothing is mapped.
pub const SEGV_MAPERR: i32 = 1;
/// `si_code` of SIGSEGV for a mapping that forbids the access.
pub const SEGV_ACCERR: i32 = 2;
/// `si_code` for faults without a usable address (general protection).
const SI_KERNEL: i32 = 0x80;

/// What to do about a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultVerdict {
    /// The guest's own doing: a signal with this `si_code` and address.
    Signal { code: i32, addr: u64 },
    /// A mapping grew to hold the address: run on.
    Retry,
}

impl Mm {
    /// Judges a fault; a VMA with MAP_GROWSDOWN may grow.
    pub async fn judge_fault(
        &self,
        thread: &Arc<Thread>,
        context: &mut dyn Context,
        fault: &Fault,
    ) -> FaultVerdict {
        let as_is = FaultVerdict::Signal { code: fault.code, addr: fault.addr };
        if fault.signal != Signal::SIGSEGV.number() || fault.code == SI_KERNEL {
            return as_is;
        }
        let (mapped, grows) = self.with_state(|state| {
            (state.tree.find(fault.addr).is_some(), state.growing_above(fault.addr).is_some())
        });
        if mapped {
            return FaultVerdict::Signal { code: SEGV_ACCERR, addr: fault.addr };
        }
        if grows {
            let grown =
                self.change(thread, context, |state| state.plan_stack_growth(fault.addr)).await;
            if grown.is_ok() {
                return FaultVerdict::Retry;
            }
        }
        FaultVerdict::Signal { code: SEGV_MAPERR, addr: fault.addr }
    }
}

impl MmState {
    /// The start of the VMA above `addr`, when that one may grow down to it.
    fn growing_above(&self, addr: u64) -> Option<u64> {
        let (start, vma) = self.tree.next_from(addr)?;
        let bottom = UserAddr(addr).page_down().0;
        let guard = bottom.checked_sub(STACK_GUARD_GAP)?;
        let grows = vma.flags.contains(VmaFlags::GROWSDOWN)
            && start != self.image_stack_start()
            && bottom >= self.bounds.min_addr
            // Linux bounds it by RLIMIT_STACK only; a wild pointer must not map gigabytes.
            && start - bottom <= 64 << 20
            && self.tree.is_free(guard..start);
        grows.then_some(start)
    }

    /// The main stack is mapped whole by execve and never grows.
    fn image_stack_start(&self) -> u64 {
        self.tree.find(self.image.start_stack).map_or(0, |(start, _)| start)
    }

    fn plan_stack_growth(&mut self, addr: u64) -> abi::Result<Plan> {
        let start = self.growing_above(addr).ok_or(abi::Errno::ENOMEM)?;
        let bottom = UserAddr(addr).page_down().0;
        let (_, vma) = self.tree.find(start).ok_or(abi::Errno::ENOMEM)?;
        let mut grown = vma.clone();
        grown.end = start;
        let op = HostOp::Map {
            addr: UserAddr(bottom),
            len: start - bottom,
            prot: grown.prot,
            shared: false,
            noreserve: false,
            backing: Backing::Anonymous,
        };
        let mut undo = Undo::default();
        self.save(&mut undo, bottom..start);
        self.tree.insert(bottom, grown);
        self.note_peak();
        Ok(Plan::one(0, op, undo))
    }
}
