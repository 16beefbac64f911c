//! Handler frames on x86-64, as Linux's `arch/x86/kernel/signal_64.c` builds them.
//!
//! From the interrupted stack pointer (below the red zone) or the top of the alternate stack downwards: the xsave
//! area, 64-byte aligned; `struct rt_sigframe`, so that the handler starts with a stack pointer that is 8 below a
//! multiple of 16, as after a call. The handler's return address is `sa_restorer`.

use abi::sigframe::{
    FLAG_DF, FLAG_RF, FLAG_TF, RESTORABLE_FLAGS, RtSigFrame, SigContext, UC_FP_XSTATE,
    UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS, UContext, USER_CS, USER_SS,
};
use abi::siginfo::SigInfo;
use abi::signal::{
    SS_AUTODISARM, SS_DISABLE, SS_ONSTACK, SaFlags, SigAction, SigSet, SigStack, Signal,
};
use abi::{Errno, Result, UserAddr};
use platform::Context;
use zerocopy::{FromBytes, IntoBytes};

use crate::mm::Mm;

const RED_ZONE: u64 = 128;
/// Privilege level of user mode, which the kernel forces into selectors.
const USER_RPL: u16 = 3;
const FRAME_SIZE: u64 = size_of::<RtSigFrame>() as u64;

/// `uc_mcontext.trapno`, `err` and `cr2`: of the thread's last processor exception.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trap {
    pub trapno: u64,
    pub err: u64,
    pub cr2: u64,
}

/// What a handler is to be entered with.
pub struct Delivery<'a> {
    pub signal: Signal,
    pub info: &'a SigInfo,
    pub action: &'a SigAction,
    /// The mask that sigreturn goes back to.
    pub mask: SigSet,
    pub stack: SigStack,
    pub trap: Trap,
}

/// True when `sp` lies on that alternate stack. As Linux, an auto-disarmed stack never counts.
#[must_use]
pub const fn is_on_stack(stack: &SigStack, sp: u64) -> bool {
    stack.flags & SS_AUTODISARM == 0 && sp > stack.sp && sp - stack.sp <= stack.size
}

/// `ss_flags` as sigaltstack(2) and the frame tell them.
#[must_use]
pub const fn stack_flags(stack: &SigStack, sp: u64) -> i32 {
    if stack.size == 0 {
        SS_DISABLE
    } else if is_on_stack(stack, sp) {
        SS_ONSTACK
    } else {
        stack.flags & SS_AUTODISARM
    }
}

/// Writes the frame and sets the registers to the handler's start.
///
/// # Errors
/// `EFAULT` when the stack cannot take the frame: the thread then gets SIGSEGV.
pub fn enter_handler(mm: &Mm, context: &mut dyn Context, delivery: &Delivery<'_>) -> Result<()> {
    let regs = *context.regs();
    let xstate = context.xstate();
    let place = place(&regs.rsp, xstate.len() as u64, delivery).ok_or(Errno::EFAULT)?;
    if delivery.action.flags & SaFlags::RESTORER.bits() == 0 {
        // There is no return trampoline in the vDSO on x86-64: Linux refuses such a handler too.
        return Err(Errno::EFAULT);
    }
    let Trap { trapno, err, cr2 } = delivery.trap;
    let mcontext = SigContext {
        regs,
        cs: USER_CS,
        gs: 0,
        fs: 0,
        ss: USER_SS,
        err,
        trapno,
        oldmask: delivery.mask.0,
        cr2,
        fpstate: place.xstate,
        reserved: [0; 8],
    };
    let stack = SigStack {
        sp: delivery.stack.sp,
        flags: stack_flags(&delivery.stack, regs.rsp),
        pad: 0,
        size: delivery.stack.size,
    };
    let frame = RtSigFrame {
        pretcode: delivery.action.restorer,
        uc: UContext {
            flags: UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS,
            link: 0,
            stack,
            mcontext,
            sigmask: delivery.mask.0,
        },
        info: *delivery.info,
    };
    // One write for all of it: frame, gap, xsave area.
    let gap = (place.xstate - place.frame) as usize;
    let mut bytes = vec![0; gap + xstate.len()];
    bytes[..FRAME_SIZE as usize].copy_from_slice(frame.as_bytes());
    bytes[gap..].copy_from_slice(&xstate);
    mm.write(UserAddr(place.frame), &bytes)?;
    let regs = context.regs_mut();
    regs.rdi = u64::from(delivery.signal.number());
    regs.rsi = place.frame + std::mem::offset_of!(RtSigFrame, info) as u64;
    regs.rdx = place.frame + std::mem::offset_of!(RtSigFrame, uc) as u64;
    regs.rax = 0;
    regs.rip = delivery.action.handler;
    regs.rsp = place.frame;
    regs.rflags &= !(FLAG_DF | FLAG_TF | FLAG_RF);
    context.reset_xstate();
    Ok(())
}

/// Addresses of the parts of a frame.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    frame: u64,
    xstate: u64,
}

fn place(rsp: &u64, xstate_len: u64, delivery: &Delivery<'_>) -> Option<Place> {
    let stack = &delivery.stack;
    let wants_alternate = delivery.action.flags & SaFlags::ONSTACK.bits() != 0;
    let was_on = is_on_stack(stack, *rsp);
    let enters = wants_alternate && stack_flags(stack, *rsp) & (SS_ONSTACK | SS_DISABLE) == 0;
    let top = if enters { stack.sp.checked_add(stack.size)? } else { rsp.checked_sub(RED_ZONE)? };
    let xstate = top.checked_sub(xstate_len)? & !63;
    let frame = (xstate.checked_sub(FRAME_SIZE)? & !15).checked_sub(8)?;
    // An overflowing alternate stack must not be left through its bottom.
    if (enters || was_on) && frame < stack.sp {
        return None;
    }
    Some(Place { frame, xstate })
}

/// What rt_sigreturn(2) found.
pub struct Restored {
    pub mask: SigSet,
    pub stack: SigStack,
}

/// Takes registers and floating point state back from the frame that the handler leaves.
///
/// # Errors
/// `EFAULT` when the frame is unreadable or malformed: the thread then gets SIGSEGV.
pub fn leave_handler(mm: &Mm, context: &mut dyn Context, xstate_len: usize) -> Result<Restored> {
    let at = context.regs().rsp.checked_sub(8).ok_or(Errno::EFAULT)?;
    let mut bytes = [0; size_of::<RtSigFrame>()];
    mm.read(UserAddr(at), &mut bytes)?;
    let frame = RtSigFrame::read_from_bytes(&bytes).map_err(|_| Errno::EFAULT)?;
    let mcontext = &frame.uc.mcontext;
    if mcontext.cs | USER_RPL != USER_CS {
        // Linux returns through it and faults; 32-bit code is not run here.
        return Err(Errno::EFAULT);
    }
    if mcontext.fpstate == 0 {
        context.reset_xstate();
    } else {
        let mut xstate = vec![0; xstate_len];
        mm.read(UserAddr(mcontext.fpstate), &mut xstate)?;
        context.set_xstate(&xstate).map_err(|_| Errno::EFAULT)?;
    }
    let regs = context.regs_mut();
    let kept_flags = regs.rflags & !RESTORABLE_FLAGS;
    *regs = mcontext.regs;
    regs.rflags = kept_flags | (mcontext.regs.rflags & RESTORABLE_FLAGS);
    Ok(Restored { mask: SigSet(frame.uc.sigmask), stack: frame.uc.stack })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery<'a>(info: &'a SigInfo, action: &'a SigAction, stack: SigStack) -> Delivery<'a> {
        let (signal, mask) = (Signal::SIGUSR1, SigSet::EMPTY);
        Delivery { signal, info, action, mask, stack, trap: Trap::default() }
    }

    #[test]
    fn frame_is_aligned_and_leaves_the_red_zone() {
        let info = SigInfo::kernel(Signal::SIGUSR1);
        let action = SigAction::default();
        for rsp in 0x7fff_0000..0x7fff_0040 {
            let place = place(&rsp, 2696, &delivery(&info, &action, SigStack::default())).unwrap();
            assert_eq!(place.xstate % 64, 0);
            assert_eq!(place.frame % 16, 8);
            assert!(place.xstate + 2696 <= rsp - RED_ZONE);
            assert!(place.frame + FRAME_SIZE <= place.xstate);
        }
    }

    #[test]
    fn alternate_stack_is_entered_once_and_never_overflowed() {
        let info = SigInfo::kernel(Signal::SIGSEGV);
        let action = SigAction { flags: SaFlags::ONSTACK.bits(), ..SigAction::default() };
        let stack = SigStack { sp: 0x10_0000, flags: 0, pad: 0, size: 8192 };
        let entered = place(&0x7fff_0000, 2696, &delivery(&info, &action, stack)).unwrap();
        assert!(entered.frame >= stack.sp && entered.xstate < stack.sp + stack.size);
        let nested = place(&entered.frame, 2696, &delivery(&info, &action, stack)).unwrap();
        assert!(nested.frame < entered.frame);
        assert_eq!(place(&(stack.sp + 1000), 2696, &delivery(&info, &action, stack)), None);
    }
}
