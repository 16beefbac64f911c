//! Capability sets. See capabilities(7).

use abi::ids::Tid;
use abi::{Errno, Result};
use base::cred::Caps;

use crate::cx::Cx;
use crate::error::SysResult;
use crate::mm::UserRef;

const VERSION_1: u32 = 0x1998_0330;
const VERSION_2: u32 = 0x2007_1026;
const VERSION_3: u32 = 0x2008_0522;

/// How many 32-bit halves the data of a header's version has. An unknown one is told ours.
fn halves(cx: &Cx<'_>, header: UserRef<u32>) -> Result<Option<usize>> {
    match header.read(&cx.mm())? {
        VERSION_1 => Ok(Some(1)),
        VERSION_2 | VERSION_3 => Ok(Some(2)),
        _ => {
            header.write(&cx.mm(), &VERSION_3)?;
            Ok(None)
        }
    }
}

/// capget: sets of a thread. See [capget(2)](https://man7.org/linux/man-pages/man2/capget.2.html).
pub fn capget(cx: &mut Cx<'_>, header: UserRef<u32>, data: UserRef<u32>) -> SysResult {
    let Some(halves) = halves(cx, header)? else {
        return if data.is_null() { Ok(0) } else { Err(Errno::EINVAL.into()) };
    };
    let pid = header.at(1)?.read(&cx.mm())?.cast_signed();
    let thread = super::usage::thread_by_id(cx, Tid(pid))?;
    if data.is_null() {
        return Ok(0);
    }
    let cred = thread.cred();
    let sets = [cred.effective, cred.permitted, cred.inheritable];
    let mut words = Vec::with_capacity(6);
    for half in 0..halves {
        words.extend(sets.iter().map(|set| (set.bits() >> (32 * half)) as u32));
    }
    data.write_array(&cx.mm(), &words)?;
    Ok(0)
}

/// capset: replaces the caller's sets. See [capget(2)](https://man7.org/linux/man-pages/man2/capget.2.html).
pub fn capset(cx: &mut Cx<'_>, header: UserRef<u32>, data: UserRef<u32>) -> SysResult {
    let halves = halves(cx, header)?.ok_or(Errno::EINVAL)?;
    let pid = header.at(1)?.read(&cx.mm())?.cast_signed();
    if pid != 0 && pid != cx.thread.tid().0 {
        return Err(Errno::EPERM.into());
    }
    let words = data.read_array(&cx.mm(), 3 * halves)?;
    let set = |index: usize| {
        let bits = (0..halves)
            .fold(0u64, |bits, half| bits | u64::from(words[3 * half + index]) << (32 * half));
        // Bits beyond the last capability are dropped, as Linux does.
        Caps::from_bits_truncate(bits)
    };
    let (effective, permitted, inheritable) = (set(0), set(1), set(2));
    let old = cx.cred();
    let inherits_more = old.inheritable | old.permitted;
    let is_too_much = !old.permitted.contains(permitted)
        || !permitted.contains(effective)
        || !(old.inheritable | old.bounding).contains(inheritable)
        || (!old.has(Caps::SETPCAP) && !inherits_more.contains(inheritable));
    if is_too_much {
        return Err(Errno::EPERM.into());
    }
    let mut new = (*old).clone();
    (new.effective, new.permitted, new.inheritable) = (effective, permitted, inheritable);
    new.ambient &= permitted & inheritable;
    cx.thread.set_cred(new);
    Ok(0)
}
