//! Random bytes.

use abi::sysinfo::RandomFlags;
use abi::{Errno, UserAddr};
use rustix::rand::{GetRandomFlags, getrandom as host_random};

use crate::cx::Cx;
use crate::error::SysResult;
use crate::strict_flags_arg;
use crate::syscalls::args::OutSlice;

strict_flags_arg!(RandomFlags as "GRND_");

/// Bytes per host call.
const CHUNK: usize = 4096;

/// getrandom. See [getrandom(2)](https://man7.org/linux/man-pages/man2/getrandom.2.html).
pub fn getrandom(cx: &mut Cx<'_>, buf: OutSlice, flags: RandomFlags) -> SysResult {
    if flags.contains(RandomFlags::RANDOM | RandomFlags::INSECURE) {
        return Err(Errno::EINVAL.into());
    }
    let len = buf.0.len.min(i32::MAX as usize);
    let mm = cx.mm();
    let mut bytes = [0; CHUNK];
    let mut done = 0;
    while done < len {
        let chunk = &mut bytes[..CHUNK.min(len - done)];
        // The host was booted long ago: this never waits and gives all it is asked for.
        let got = host_random(&mut *chunk, GetRandomFlags::empty()).map_err(|_| Errno::EAGAIN)?;
        let at = UserAddr(buf.0.addr.0.wrapping_add(done as u64));
        match mm.write(at, &chunk[..got]) {
            Ok(()) => done += got,
            Err(errno) if done == 0 => return Err(errno.into()),
            Err(_) => break,
        }
    }
    Ok(done as u64)
}
