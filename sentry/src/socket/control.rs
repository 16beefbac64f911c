//! Control messages: descriptors and credentials in flight. See unix(7), cmsg(3).

use std::sync::Arc;

use abi::ids::{Fd, Gid, Uid};
use abi::open::OpenFlags;
use abi::socket::{
    CmsgHdr, MsgFlags, SCM_CREDENTIALS, SCM_MAX_FD, SCM_RIGHTS, SOL_SOCKET, Ucred, cmsg_align,
};
use abi::{Errno, Result, UserAddr};
use base::cred::Caps;
use netstack::unix::{Control, Right};
use vfs::File;
use zerocopy::{FromBytes, IntoBytes};

use super::sender_cred;
use crate::cx::Cx;

/// Bytes of control messages that one call may carry (net.core.optmem_max).
const MAX_CONTROL: u64 = 131_072;
const HEADER: usize = size_of::<CmsgHdr>();

/// Reads the control messages of a send.
///
/// # Errors
/// `ENOBUFS` when they are too long, `EINVAL` for malformed or unknown ones, `EBADF`, `EPERM` for credentials that
/// are not the caller's, `EFAULT`.
pub fn read_control(cx: &Cx<'_>, at: UserAddr, length: u64) -> Result<Control> {
    let mut control = Control { cred: sender_cred(cx), rights: Vec::new() };
    if length == 0 || at.is_null() {
        return Ok(control);
    }
    if length > MAX_CONTROL {
        return Err(Errno::ENOBUFS);
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| Errno::ENOBUFS)?];
    cx.mm().read(at, &mut bytes)?;
    let mut rest = &bytes[..];
    while rest.len() >= HEADER {
        let (header, _) = CmsgHdr::read_from_prefix(rest).map_err(|_| Errno::EINVAL)?;
        let length = usize::try_from(header.len).map_err(|_| Errno::EINVAL)?;
        let data = rest.get(HEADER..length).ok_or(Errno::EINVAL)?;
        if header.level == SOL_SOCKET {
            match header.kind {
                SCM_RIGHTS => take_rights(cx, data, &mut control.rights)?,
                SCM_CREDENTIALS => control.cred = claimed_cred(cx, data)?,
                _ => return Err(Errno::EINVAL),
            }
        }
        rest = rest.get(cmsg_align(length)..).unwrap_or_default();
    }
    Ok(control)
}

fn take_rights(cx: &Cx<'_>, data: &[u8], rights: &mut Vec<Right>) -> Result<()> {
    let fds = data.as_chunks::<4>().0;
    if rights.len() + fds.len() > SCM_MAX_FD {
        return Err(Errno::EINVAL);
    }
    for fd in fds {
        rights.push(cx.path_file(Fd(i32::from_ne_bytes(*fd)))?);
    }
    // Others are going to have them.
    cx.files().look_again();
    Ok(())
}

/// Credentials a sender names must be its own, unless it is privileged.
fn claimed_cred(cx: &Cx<'_>, data: &[u8]) -> Result<Ucred> {
    let claimed = Ucred::read_from_bytes(data).map_err(|_| Errno::EINVAL)?;
    let cred = cx.cred();
    let (uid, gid) = (Uid(claimed.uid), Gid(claimed.gid));
    let is_own_pid = claimed.pid == cx.thread.tgid().0 || cred.has(Caps::SYS_ADMIN);
    let is_own_uid = [cred.ruid, cred.euid, cred.suid].contains(&uid) || cred.has(Caps::SETUID);
    let is_own_gid = [cred.rgid, cred.egid, cred.sgid].contains(&gid) || cred.has(Caps::SETGID);
    if !(is_own_pid && is_own_uid && is_own_gid) {
        return Err(Errno::EPERM);
    }
    if cx.kernel.tasks.group(abi::ids::Tid(claimed.pid)).is_none() {
        return Err(Errno::ESRCH);
    }
    Ok(claimed)
}

/// Room for control messages in guest memory.
struct Room {
    at: UserAddr,
    left: usize,
    used: usize,
}

impl Room {
    /// Writes one message, cut off where the room ends; false when it was.
    fn put(&mut self, cx: &Cx<'_>, kind: i32, data: &[u8]) -> Result<bool> {
        if self.left < HEADER {
            return Ok(false);
        }
        let whole = HEADER + data.len();
        let length = whole.min(self.left);
        let header = CmsgHdr { len: length as u64, level: SOL_SOCKET, kind };
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(data.get(..length - HEADER).unwrap_or(data));
        let at = self.at.checked_add(self.used as u64).ok_or(Errno::EFAULT)?;
        cx.mm().write(at, &bytes)?;
        let step = cmsg_align(length).min(self.left);
        self.left -= step;
        self.used += step;
        Ok(length == whole)
    }

    /// Descriptors for which there is room.
    const fn fds(&self) -> usize {
        self.left.saturating_sub(HEADER) / 4
    }
}

/// Hands over what a message carried: installs descriptors, writes control messages. Returns the bytes used and
/// `MSG_CTRUNC` when not everything fitted.
///
/// # Errors
/// `EFAULT`.
pub fn write_control(
    cx: &Cx<'_>,
    control: &Control,
    passes_cred: bool,
    at: UserAddr,
    length: u64,
    flags: MsgFlags,
) -> Result<(usize, MsgFlags)> {
    let left = if at.is_null() { 0 } else { usize::try_from(length).unwrap_or(usize::MAX) };
    let mut room = Room { at, left: left.min(1 << 20), used: 0 };
    let mut outcome = MsgFlags::empty();
    if passes_cred && !room.put(cx, SCM_CREDENTIALS, control.cred.as_bytes())? {
        outcome |= MsgFlags::CTRUNC;
    }
    if !control.rights.is_empty() {
        let cloexec = if flags.contains(MsgFlags::CMSG_CLOEXEC) {
            OpenFlags::CLOEXEC
        } else {
            OpenFlags::empty()
        };
        let mut fds: Vec<u8> = Vec::new();
        for right in control.rights.iter().take(room.fds()) {
            let Ok(file) = Arc::clone(right).downcast::<File>() else { continue };
            // A full table cuts the rest off, as on Linux.
            let Ok(fd) = cx.install(file, cloexec) else { break };
            fds.extend_from_slice(&fd.0.to_ne_bytes());
        }
        if fds.len() / 4 < control.rights.len() {
            outcome |= MsgFlags::CTRUNC;
        }
        if !fds.is_empty() {
            room.put(cx, SCM_RIGHTS, &fds)?;
        }
    }
    Ok((room.used, outcome))
}
