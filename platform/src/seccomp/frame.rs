//! Signal frames: the saved context of a stopped guest thread, read and rewritten in its slot.
//!
//! The kernel leaves, upwards: return address, `struct ucontext`, `siginfo`, then, 64-byte aligned, the xsave
//! area whose address is in the ucontext. See sigreturn(2) and arch/x86/include/uapi/asm/sigcontext.h.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use abi::Errno;
use abi::arch::Registers;
use shim_abi::{STACK_END, STACK_OFFSET};

use super::SetupError;
use super::region::SlotRef;

/// Offsets in `struct ucontext`.
const UC_FLAGS: u64 = 0;
const UC_STACK: u64 = 16;
const GREGS: u64 = 40;
const SEGMENTS: u64 = GREGS + 18 * 8;
const ERR: u64 = GREGS + 19 * 8;
const FPSTATE: u64 = GREGS + 23 * 8;
const SIGMASK: u64 = 296;
const UCONTEXT_SIZE: u64 = 304;
const SIGINFO: u64 = UCONTEXT_SIZE;
/// Where at most a frame's `ucontext` may lie in a slot, `siginfo` behind it.
pub const LAST: u64 = STACK_END - UCONTEXT_SIZE - 128;

/// UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS.
const UC_FLAGS_VALUE: u64 = 7;
/// cs 0x33, gs 0, fs 0, ss 0x2b.
const USER_SEGMENTS: u64 = 0x002b_0000_0000_0033;
/// Interrupts enabled, and the bit that always is.
const INITIAL_FLAGS: u64 = 0x202;

/// Guest code runs with all signals blocked but those that the shim handles: SIGILL, SIGTRAP, SIGBUS, SIGFPE,
/// SIGSEGV, SIGSYS and the kick. Whatever else the host sends is not for guests.
const REPORTED_SIGNALS: u64 =
    1 << 3 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 10 | 1 << 30 | 1 << (shim_abi::KICK_SIGNAL - 1);

/// Offsets in the xsave area.
const MXCSR: usize = 24;
const SW_RESERVED: usize = 464;
const XSTATE_HEADER: usize = 512;
const LEGACY_SIZE: usize = 512;
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;

/// How this host's frames look; the same for every thread.
#[derive(Debug, Clone)]
pub struct Template {
    /// An xsave area in its initial state, with the software-reserved bytes and the trailing magic.
    initial: Vec<u8>,
}

/// A fault's siginfo and what the processor said.
#[derive(Debug, Clone, Copy)]
pub struct FaultInfo {
    pub code: i32,
    pub addr: u64,
    pub err: u64,
    pub trapno: u64,
    pub cr2: u64,
}

impl Template {
    /// From a signal of our own.
    pub fn capture() -> Result<Self, SetupError> {
        let mut initial = captured_xstate().ok_or(SetupError::Frame)?;
        // Keep what describes the format, clear the state: xstate_bv = 0 means all in initial state.
        let keep = SW_RESERVED..SW_RESERVED + 48;
        for (at, byte) in initial.iter_mut().enumerate() {
            if !keep.contains(&at) && !(MXCSR + 4..MXCSR + 8).contains(&at) {
                *byte = 0;
            }
        }
        let mut template = Self { initial };
        template.put(0, &0x37f_u16.to_le_bytes());
        template.put(MXCSR, &0x1f80_u32.to_le_bytes());
        if template.initial.len() > LEGACY_SIZE {
            template.put(template.initial.len() - 4, &MAGIC2.to_le_bytes());
        }
        Ok(template)
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.initial.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// Bytes of an xsave area in a frame.
    pub fn xstate_size(&self) -> usize {
        self.initial.len()
    }

    pub fn initial_xstate(&self) -> &[u8] {
        &self.initial
    }

    /// Whether bytes that a guest put together are an xsave area as the kernel takes it: size, magics, no
    /// unknown components, reserved bytes of the header clear.
    pub fn accepts(&self, bytes: &[u8]) -> bool {
        let number = |bytes: &[u8], at: usize| -> Option<u32> {
            Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
        };
        let same =
            |range: std::ops::Range<usize>| bytes.get(range.clone()) == self.initial.get(range);
        let mxcsr_mask = match number(&self.initial, MXCSR + 4) {
            None | Some(0) => 0xffbf,
            Some(mask) => mask,
        };
        if bytes.len() != self.initial.len()
            || number(bytes, MXCSR).is_none_or(|mxcsr| mxcsr & !mxcsr_mask != 0)
        {
            return false;
        }
        if bytes.len() == LEGACY_SIZE {
            return true;
        }
        let features = number(&self.initial, SW_RESERVED + 8).unwrap_or(0);
        let used = number(bytes, XSTATE_HEADER).unwrap_or(!0);
        let header_rest = bytes.get(XSTATE_HEADER + 8..XSTATE_HEADER + 64);
        same(SW_RESERVED..SW_RESERVED + 24)
            && number(bytes, bytes.len() - 4) == Some(MAGIC2)
            && used & !features == 0
            && number(bytes, XSTATE_HEADER + 4) == Some(0)
            && header_rest.is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
    }

    /// Makes what xsave has stored an area as frames have it; `None` when it is none.
    pub fn framed(&self, mut bytes: Vec<u8>) -> Option<Vec<u8>> {
        let reserved = SW_RESERVED..LEGACY_SIZE;
        bytes.get_mut(reserved.clone())?.copy_from_slice(self.initial.get(reserved)?);
        if self.initial.len() > LEGACY_SIZE {
            let features = self.initial.get(SW_RESERVED + 8..SW_RESERVED + 12)?;
            for (used, known) in bytes.get_mut(XSTATE_HEADER..)?.iter_mut().zip(features) {
                *used &= known;
            }
            let end = self.initial.len() - 4;
            bytes.get_mut(end..)?.copy_from_slice(&MAGIC2.to_le_bytes());
        }
        self.accepts(&bytes).then_some(bytes)
    }

    /// Builds a frame at the top of a slot's stack, for a context that has never run; returns the offset of its
    /// `ucontext`. `None` when it does not fit.
    pub fn build(&self, slot: &SlotRef, xstate: &[u8]) -> Option<u64> {
        let room = u64::try_from(xstate.len()).ok()?.checked_add(63)? & !63;
        let fpstate = STACK_END.checked_sub(room)?;
        let context = fpstate.checked_sub(UCONTEXT_SIZE + 128)?;
        let zeroes = [0; (UCONTEXT_SIZE / 8) as usize];
        slot.write(context, &zeroes)?;
        slot.write(context + UC_FLAGS, &[UC_FLAGS_VALUE])?;
        // rt_sigreturn also does what sigaltstack(2) would.
        let stack = slot.guest_address() + STACK_OFFSET;
        slot.write(context + UC_STACK, &[stack, 0, STACK_END - STACK_OFFSET])?;
        slot.write(context + SEGMENTS, &[USER_SEGMENTS])?;
        slot.write(context + FPSTATE, &[slot.guest_address() + fpstate])?;
        slot.write(context + SIGMASK, &[!REPORTED_SIGNALS])?;
        slot.write_bytes(fpstate, xstate)?;
        Some(context)
    }

    /// Offset of the xsave area of the frame at `context`.
    fn xstate_offset(&self, slot: &SlotRef, context: u64) -> Option<u64> {
        let [address] = slot.read(context.checked_add(FPSTATE)?)?;
        let offset = address.checked_sub(slot.guest_address())?;
        let end = offset.checked_add(self.initial.len() as u64)?;
        (end <= STACK_END && offset >= STACK_OFFSET).then_some(offset)
    }

    pub fn read_xstate(&self, slot: &SlotRef, context: u64) -> Option<Vec<u8>> {
        slot.read_bytes(self.xstate_offset(slot, context)?, self.initial.len())
    }

    pub fn write_xstate(&self, slot: &SlotRef, context: u64, bytes: &[u8]) -> Option<()> {
        slot.write_bytes(self.xstate_offset(slot, context)?, bytes)
    }
}

/// Registers of the frame at `context`.
#[inline]
pub fn read_registers(slot: &SlotRef, context: u64) -> Option<Registers> {
    let words: [u64; 18] = slot.read(context.checked_add(GREGS)?)?;
    Some(zerocopy::transmute!(words))
}

/// Replaces them. Flags the kernel does not take from a frame are its own affair.
#[inline]
pub fn write_registers(slot: &SlotRef, context: u64, regs: &Registers) -> Option<()> {
    let words: [u64; 18] = zerocopy::transmute!(*regs);
    slot.write(context.checked_add(GREGS)?, &words)
}

/// What [`shim_abi::Slot::call`] holds of them.
pub fn call_of(regs: &Registers) -> [u64; 7] {
    let [a, b, c, d, e, f] = regs.syscall_args();
    [regs.syscall_number(), a, b, c, d, e, f]
}

/// The registers of a call without a signal, which are in two places.
pub fn with_call(saved: Registers, call: [u64; 7]) -> Registers {
    let [rax, rdi, rsi, rdx, r10, r8, r9] = call;
    Registers { rax, rdi, rsi, rdx, r10, r8, r9, ..saved }
}

/// The rest of a fault's frame.
pub fn read_fault(slot: &SlotRef, context: u64) -> Option<FaultInfo> {
    let [err, trapno, _oldmask, cr2] = slot.read(context.checked_add(ERR)?)?;
    let [_signo_errno, code, addr] = slot.read(context.checked_add(SIGINFO)?)?;
    Some(FaultInfo { code: (code as u32).cast_signed(), addr, err, trapno, cr2 })
}

/// What a new program's registers start from.
pub fn initial_registers() -> Registers {
    Registers { rflags: INITIAL_FLAGS, ..Registers::default() }
}

const CAPTURE_SIZE: usize = 32 << 10;
/// Filled by the handler below: length and bytes.
static CAPTURED: OnceLock<Option<Vec<u8>>> = OnceLock::new();
static CAPTURE_LEN: AtomicUsize = AtomicUsize::new(0);
static CAPTURE: [std::sync::atomic::AtomicU8; CAPTURE_SIZE] =
    [const { std::sync::atomic::AtomicU8::new(0) }; CAPTURE_SIZE];

/// The xsave area of a signal frame of this thread, once per process.
fn captured_xstate() -> Option<Vec<u8>> {
    CAPTURED.get_or_init(capture).clone()
}

fn capture() -> Option<Vec<u8>> {
    const SIGNAL: i32 = libc::SIGUSR2;
    // SAFETY: all-zero is a valid sigaction; the handler is async-signal-safe; the old action is put back.
    let caught = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let mut old: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_capture as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        if libc::sigaction(SIGNAL, &raw const action, &raw mut old) != 0 {
            return None;
        }
        let raised = libc::raise(SIGNAL);
        libc::sigaction(SIGNAL, &raw const old, std::ptr::null_mut());
        raised == 0
    };
    let len = CAPTURE_LEN.load(Relaxed);
    (caught && len != 0)
        .then(|| CAPTURE.get(..len).map(|bytes| bytes.iter().map(|b| b.load(Relaxed)).collect()))?
}

extern "C" fn on_capture(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let context = context.cast::<u8>();
    // SAFETY: the kernel's frame on our stack: it says itself where the xsave area is and how long.
    unsafe {
        let area = context.add(FPSTATE as usize).cast::<*const u8>().read();
        if area.is_null() {
            return;
        }
        let magic = area.add(SW_RESERVED).cast::<u32>().read_unaligned();
        let extended = area.add(SW_RESERVED + 4).cast::<u32>().read_unaligned() as usize;
        let len = if magic == MAGIC1 { extended } else { LEGACY_SIZE };
        if len > CAPTURE_SIZE {
            return;
        }
        for (at, byte) in CAPTURE.iter().enumerate().take(len) {
            byte.store(area.add(at).read(), Relaxed);
        }
        CAPTURE_LEN.store(len, Relaxed);
    }
}

/// For a replacement of the floating point state.
pub const MALFORMED: Errno = Errno::EINVAL;
