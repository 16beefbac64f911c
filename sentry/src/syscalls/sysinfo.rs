//! About the system: uname, sysinfo, host name.

use abi::sysinfo::{Sysinfo, Utsname, uts_field};
use abi::{Errno, Result};
use base::cred::Caps;

use crate::cx::Cx;
use crate::error::SysResult;
use crate::mm::UserSlice;
use crate::syscalls::args::{Out, OutSlice};

/// What uname(2) gives as the version of the build.
const VERSION: &[u8] = b"#1 SMP PREEMPT_DYNAMIC";

/// uname. See [uname(2)](https://man7.org/linux/man-pages/man2/uname.2.html).
pub fn uname(cx: &mut Cx<'_>, out: Out<Utsname>) -> SysResult {
    let uts = cx.kernel.uts.lock().clone();
    let answer = Utsname {
        sysname: uts_field(b"Linux"),
        nodename: uts_field(&uts.hostname),
        release: uts_field(cx.kernel.host.kernel_release.as_bytes()),
        version: uts_field(VERSION),
        machine: uts_field(b"x86_64"),
        domainname: uts_field(&uts.domainname),
    };
    out.write(&cx.mm(), &answer)?;
    Ok(0)
}

/// sethostname. See [sethostname(2)](https://man7.org/linux/man-pages/man2/sethostname.2.html).
pub fn sethostname(cx: &mut Cx<'_>, name: UserSlice) -> SysResult {
    let name = new_name(cx, name)?;
    cx.kernel.uts.lock().hostname = name;
    Ok(0)
}

/// setdomainname. See [setdomainname(2)](https://man7.org/linux/man-pages/man2/setdomainname.2.html).
pub fn setdomainname(cx: &mut Cx<'_>, name: UserSlice) -> SysResult {
    let name = new_name(cx, name)?;
    cx.kernel.uts.lock().domainname = name;
    Ok(0)
}

fn new_name(cx: &Cx<'_>, name: UserSlice) -> Result<Vec<u8>> {
    if !cx.cred().has(Caps::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    // The length is an int.
    let len = i32::try_from(name.len as i64).map_err(|_| Errno::EINVAL)?;
    if !(0..=64).contains(&len) {
        return Err(Errno::EINVAL);
    }
    let mut bytes = vec![0; name.len];
    cx.mm().read(name.addr, &mut bytes)?;
    Ok(bytes)
}

/// sysinfo. See [sysinfo(2)](https://man7.org/linux/man-pages/man2/sysinfo.2.html).
pub fn sysinfo(cx: &mut Cx<'_>, out: Out<Sysinfo>) -> SysResult {
    let kernel = cx.kernel;
    let total =
        kernel.memory_limit.map_or(kernel.host.mem_total, |limit| limit.min(kernel.host.mem_total));
    let used: u64 = kernel
        .tasks
        .all_groups()
        .iter()
        .filter_map(|group| group.any_thread()?.mm_if_alive())
        .map(|mm| mm.resident())
        .sum();
    let up_ns = kernel.now().saturating_sub(kernel.boot_monotonic_ns);
    let answer = Sysinfo {
        uptime: (up_ns / 1_000_000_000).cast_signed(),
        totalram: total,
        freeram: total.saturating_sub(used),
        totalswap: kernel.host.swap_total,
        freeswap: kernel.host.swap_total,
        procs: u16::try_from(kernel.tasks.thread_count()).unwrap_or(u16::MAX),
        mem_unit: 1,
        ..Sysinfo::default()
    };
    out.write(&cx.mm(), &answer)?;
    Ok(0)
}

/// syslog: the guest's kernel log is empty and not to be cleared by guests.
/// See [syslog(2)](https://man7.org/linux/man-pages/man2/syslog.2.html).
pub fn syslog(cx: &mut Cx<'_>, action: i32, buf: OutSlice) -> SysResult {
    const READ_ALL: i32 = 3;
    const SIZE_UNREAD: i32 = 9;
    const SIZE_BUFFER: i32 = 10;
    if !(0..=10).contains(&action) {
        return Err(Errno::EINVAL.into());
    }
    if action == READ_ALL && (buf.0.addr.is_null() || (buf.0.len as i32) < 0) {
        return Err(Errno::EINVAL.into());
    }
    let may_read = matches!(action, READ_ALL | SIZE_BUFFER);
    if !may_read && !cx.cred().has(Caps::SYSLOG) {
        return Err(Errno::EPERM.into());
    }
    match action {
        READ_ALL | SIZE_UNREAD => Ok(0),
        SIZE_BUFFER => Ok(1 << 17),
        _ => Err(Errno::EPERM.into()),
    }
}
