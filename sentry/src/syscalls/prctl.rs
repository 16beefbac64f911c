//! prctl: odds and ends of a process.

use abi::signal::Signal;
use abi::{Errno, UserAddr};
use base::cred::{Caps, Credentials};

use crate::cx::Cx;
use crate::error::SysResult;
use crate::mm::{UserCStr, UserRef};
use crate::syscalls::args::Hex;
use crate::syscalls::identity::SECBIT_KEEP_CAPS;

const CAP_LAST: u64 = 40;
/// The `SECBIT_*` that exist, with their locks.
const SECUREBITS_ALL: u32 = 0xff;
const DEFAULT_TIMER_SLACK_NS: u64 = 50_000;

/// prctl: by option. See [prctl(2)](https://man7.org/linux/man-pages/man2/prctl.2.html).
pub fn prctl(cx: &mut Cx<'_>, option: i32, a: Hex, b: Hex, c: Hex, d: Hex) -> SysResult {
    let [a, b, c, d] = [a.0, b.0, c.0, d.0];
    match option {
        1..=16 => process(cx, option, a),
        // PR_GET_SECCOMP: off. Filters are not there yet: the option does not exist.
        21 => Ok(0),
        23 | 24 | 27 | 28 | 47 => capabilities(cx, option, [a, b, c, d]),
        // PR_GET_TSC: enabled. PR_SET_TSC: enabling is all there is.
        25 => write_int(cx, a, 1),
        26 if a == 1 => Ok(0),
        29 | 30 => timer_slack(cx, option, a),
        // PR_MCE_KILL_GET: the default policy.
        34 if (a, b, c, d) == (0, 0, 0, 0) => Ok(2),
        36 => {
            cx.thread.group.set_subreaper(a != 0);
            Ok(0)
        }
        37 => write_int(cx, a, u32::from(cx.thread.group.is_subreaper())),
        38 | 39 => no_new_privs(cx, option, [a, b, c, d]),
        // PR_GET_TID_ADDRESS.
        40 => {
            let address = cx.thread.signals.lock().tid_address();
            UserRef::new(UserAddr(a)).write(&cx.mm(), &address.0)?;
            Ok(0)
        }
        // PR_SET_THP_DISABLE is advice to the host; PR_GET_THP_DISABLE: not disabled.
        41 if (b, c, d) == (0, 0, 0) => Ok(0),
        42 if (a, b, c, d) == (0, 0, 0, 0) => Ok(0),
        // PR_SET_VMA_ANON_NAME: names show nowhere yet, as on a kernel without CONFIG_ANON_VMA_NAME.
        _ => Err(Errno::EINVAL.into()),
    }
}

fn write_int(cx: &Cx<'_>, addr: u64, value: u32) -> SysResult {
    UserRef::new(UserAddr(addr)).write(&cx.mm(), &value)?;
    Ok(0)
}

/// Options 1 to 16.
fn process(cx: &mut Cx<'_>, option: i32, arg: u64) -> SysResult {
    match option {
        // PR_SET_PDEATHSIG, PR_GET_PDEATHSIG.
        1 => {
            let number = if arg == 0 { 0 } else { Signal::new(arg).ok_or(Errno::EINVAL)?.number() };
            cx.thread.attrs.lock().pdeath_signal = number;
            Ok(0)
        }
        2 => {
            let number = cx.thread.attrs.lock().pdeath_signal;
            write_int(cx, arg, u32::from(number))
        }
        // PR_GET_DUMPABLE, PR_SET_DUMPABLE.
        3 => Ok(u64::from(cx.thread.group.image.lock().dumpable)),
        4 if arg <= 1 => {
            cx.thread.group.image.lock().dumpable = u32::from(arg == 1);
            Ok(0)
        }
        // PR_GET_KEEPCAPS, PR_SET_KEEPCAPS.
        7 => Ok(u64::from(cx.cred().securebits & SECBIT_KEEP_CAPS != 0)),
        8 => set_keep_caps(cx, arg),
        // PR_GET_TIMING, PR_SET_TIMING: statistical is the only one.
        13 => Ok(0),
        14 if arg == 0 => Ok(0),
        // PR_SET_NAME, PR_GET_NAME.
        15 => {
            let name = read_name(cx, UserAddr(arg))?;
            cx.thread.attrs.lock().set_comm(&name);
            Ok(0)
        }
        16 => {
            let mut bytes = cx.thread.attrs.lock().comm.clone();
            bytes.resize(16, 0);
            cx.mm().write(UserAddr(arg), &bytes)?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

/// At most 15 bytes; what comes after is not looked at.
fn read_name(cx: &Cx<'_>, addr: UserAddr) -> abi::Result<Vec<u8>> {
    let mm = cx.mm();
    match (UserCStr { addr }).read(&mm, 15, Errno::ENAMETOOLONG) {
        Err(Errno::ENAMETOOLONG) => {
            let mut bytes = vec![0; 15];
            mm.read(addr, &mut bytes)?;
            Ok(bytes)
        }
        name => name,
    }
}

fn set_keep_caps(cx: &mut Cx<'_>, arg: u64) -> SysResult {
    if arg > 1 {
        return Err(Errno::EINVAL.into());
    }
    edit(cx, |cred| {
        cred.securebits &= !SECBIT_KEEP_CAPS;
        cred.securebits |= if arg == 1 { SECBIT_KEEP_CAPS } else { 0 };
    })
}

fn edit(cx: &mut Cx<'_>, change: impl FnOnce(&mut Credentials)) -> SysResult {
    let mut cred = (*cx.cred()).clone();
    change(&mut cred);
    cx.thread.set_cred(cred);
    Ok(0)
}

fn timer_slack(cx: &mut Cx<'_>, option: i32, arg: u64) -> SysResult {
    let mut attrs = cx.thread.attrs.lock();
    if option == 30 {
        return Ok(attrs.timer_slack_ns);
    }
    attrs.timer_slack_ns = if arg == 0 { DEFAULT_TIMER_SLACK_NS } else { arg };
    Ok(0)
}

fn no_new_privs(cx: &mut Cx<'_>, option: i32, args: [u64; 4]) -> SysResult {
    let [a, b, c, d] = args;
    match option {
        38 if (a, b, c, d) == (1, 0, 0, 0) => edit(cx, |cred| cred.no_new_privs = true),
        39 if (a, b, c, d) == (0, 0, 0, 0) => Ok(u64::from(cx.cred().no_new_privs)),
        _ => Err(Errno::EINVAL.into()),
    }
}

fn capability(number: u64) -> abi::Result<Caps> {
    if number > CAP_LAST {
        return Err(Errno::EINVAL);
    }
    Ok(Caps::from_bits_truncate(1 << number))
}

fn capabilities(cx: &mut Cx<'_>, option: i32, args: [u64; 4]) -> SysResult {
    let cred = cx.cred();
    match option {
        // PR_CAPBSET_READ, PR_CAPBSET_DROP.
        23 => Ok(u64::from(cred.bounding.contains(capability(args[0])?))),
        24 => {
            let cap = capability(args[0])?;
            if !cred.has(Caps::SETPCAP) {
                return Err(Errno::EPERM.into());
            }
            edit(cx, |cred| cred.bounding -= cap)
        }
        // PR_GET_SECUREBITS, PR_SET_SECUREBITS.
        27 => Ok(u64::from(cred.securebits)),
        28 => set_securebits(cx, args[0]),
        _ => ambient(cx, args),
    }
}

fn set_securebits(cx: &mut Cx<'_>, new: u64) -> SysResult {
    let old = cx.cred().securebits;
    let new = u32::try_from(new).map_err(|_| Errno::EPERM)?;
    // Every odd bit locks the even one below it.
    let locked = (old & 0xaa) >> 1;
    let breaks_lock = (old ^ new) & locked != 0 || old & 0xaa & !new != 0;
    let may = cx.cred().has(Caps::SETPCAP);
    if breaks_lock || new & !SECUREBITS_ALL != 0 || !may {
        return Err(Errno::EPERM.into());
    }
    edit(cx, |cred| cred.securebits = new)
}

/// PR_CAP_AMBIENT.
fn ambient(cx: &mut Cx<'_>, args: [u64; 4]) -> SysResult {
    /// `SECBIT_NO_CAP_AMBIENT_RAISE`.
    const NO_RAISE: u32 = 1 << 6;
    let [operation, number, c, d] = args;
    if (c, d) != (0, 0) {
        return Err(Errno::EINVAL.into());
    }
    if operation == 4 {
        if number != 0 {
            return Err(Errno::EINVAL.into());
        }
        return edit(cx, |cred| cred.ambient = Caps::empty());
    }
    let (cred, cap) = (cx.cred(), capability(number)?);
    match operation {
        1 => Ok(u64::from(cred.ambient.contains(cap))),
        2 => {
            let may = cred.permitted.contains(cap)
                && cred.inheritable.contains(cap)
                && cred.securebits & NO_RAISE == 0;
            if !may {
                return Err(Errno::EPERM.into());
            }
            edit(cx, |cred| cred.ambient |= cap)
        }
        3 => edit(cx, |cred| cred.ambient -= cap),
        _ => Err(Errno::EINVAL.into()),
    }
}
