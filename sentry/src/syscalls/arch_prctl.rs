//! Thread pointers of x86-64.

use abi::Errno;
use platform::HostOp;

use crate::cx::Cx;
use crate::error::SysResult;
use crate::mm::UserRef;
use crate::syscalls::args::Hex;

const ARCH_SET_GS: i32 = 0x1001;
const ARCH_SET_FS: i32 = 0x1002;
const ARCH_GET_FS: i32 = 0x1003;
const ARCH_GET_GS: i32 = 0x1004;
const ARCH_GET_CPUID: i32 = 0x1011;

/// Whether arch_prctl(2) with this code looks at a thread pointer, which the guest may have changed itself, or sets the one
/// by which a thread that came without a signal finds its way back.
#[must_use]
pub fn needs_settling(code: u64) -> bool {
    matches!(code as i32, ARCH_GET_FS | ARCH_GET_GS | ARCH_SET_GS)
}

/// arch_prctl: thread pointers. See [arch_prctl(2)](https://man7.org/linux/man-pages/man2/arch_prctl.2.html).
pub fn arch_prctl(cx: &mut Cx<'_>, code: i32, addr: Hex) -> SysResult {
    let at: UserRef<u64> = UserRef::new(abi::UserAddr(addr.0));
    match code {
        ARCH_SET_FS | ARCH_SET_GS => {
            if addr.0 >= cx.kernel.platform.layout().task_size {
                return Err(Errno::EPERM.into());
            }
            let is_fs = code == ARCH_SET_FS;
            let op = if is_fs { HostOp::SetFsBase(addr.0) } else { HostOp::SetGsBase(addr.0) };
            cx.context.defer(op);
            Ok(0)
        }
        ARCH_GET_FS => {
            at.write(&cx.mm(), &cx.context.fs_base())?;
            Ok(0)
        }
        ARCH_GET_GS => {
            at.write(&cx.mm(), &cx.context.gs_base())?;
            Ok(0)
        }
        // The instruction works and faulting it is not offered.
        ARCH_GET_CPUID => Ok(1),
        _ => Err(Errno::EINVAL.into()),
    }
}
