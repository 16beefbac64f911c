//! Who am I: process, thread, user and group ids. See credentials(7).

use std::sync::Arc;

use abi::ids::{Gid, Uid};
use abi::{Errno, Result};
use base::cred::{Caps, Credentials};

use crate::cx::Cx;
use crate::error::SysResult;
use crate::mm::UserRef;
use crate::syscalls::args::Out;

/// `SECBIT_KEEP_CAPS` and `SECBIT_NO_SETUID_FIXUP` of capabilities(7).
pub const SECBIT_KEEP_CAPS: u32 = 1 << 4;
pub const SECBIT_NO_SETUID_FIXUP: u32 = 1 << 2;
/// "Leave this id alone."
const UNCHANGED: u32 = u32::MAX;
const NGROUPS_MAX: usize = 65536;

/// getpid: the caller's thread group. See [getpid(2)](https://man7.org/linux/man-pages/man2/getpid.2.html).
pub fn getpid(cx: &mut Cx<'_>) -> SysResult {
    Ok(u64::from(cx.thread.tgid().0.cast_unsigned()))
}

/// gettid: the caller's thread. See [gettid(2)](https://man7.org/linux/man-pages/man2/gettid.2.html).
pub fn gettid(cx: &mut Cx<'_>) -> SysResult {
    Ok(u64::from(cx.thread.tid().0.cast_unsigned()))
}

/// getppid: the parent process. See [getpid(2)](https://man7.org/linux/man-pages/man2/getpid.2.html).
pub fn getppid(cx: &mut Cx<'_>) -> SysResult {
    Ok(u64::from(cx.thread.group.parent().0.cast_unsigned()))
}

/// getuid: the real user. See [getuid(2)](https://man7.org/linux/man-pages/man2/getuid.2.html).
pub fn getuid(cx: &mut Cx<'_>) -> SysResult {
    Ok(u64::from(cx.cred().ruid.0))
}

/// geteuid: the effective user. See [getuid(2)](https://man7.org/linux/man-pages/man2/getuid.2.html).
pub fn geteuid(cx: &mut Cx<'_>) -> SysResult {
    Ok(u64::from(cx.cred().euid.0))
}

/// getgid: the real group. See [getgid(2)](https://man7.org/linux/man-pages/man2/getgid.2.html).
pub fn getgid(cx: &mut Cx<'_>) -> SysResult {
    Ok(u64::from(cx.cred().rgid.0))
}

/// getegid: the effective group. See [getgid(2)](https://man7.org/linux/man-pages/man2/getgid.2.html).
pub fn getegid(cx: &mut Cx<'_>) -> SysResult {
    Ok(u64::from(cx.cred().egid.0))
}

/// getresuid: all user ids. See [getresuid(2)](https://man7.org/linux/man-pages/man2/getresuid.2.html).
pub fn getresuid(cx: &mut Cx<'_>, ruid: Out<u32>, euid: Out<u32>, suid: Out<u32>) -> SysResult {
    let (cred, mm) = (cx.cred(), cx.mm());
    ruid.write(&mm, &cred.ruid.0)?;
    euid.write(&mm, &cred.euid.0)?;
    suid.write(&mm, &cred.suid.0)?;
    Ok(0)
}

/// getresgid: all group ids. See [getresuid(2)](https://man7.org/linux/man-pages/man2/getresuid.2.html).
pub fn getresgid(cx: &mut Cx<'_>, rgid: Out<u32>, egid: Out<u32>, sgid: Out<u32>) -> SysResult {
    let (cred, mm) = (cx.cred(), cx.mm());
    rgid.write(&mm, &cred.rgid.0)?;
    egid.write(&mm, &cred.egid.0)?;
    sgid.write(&mm, &cred.sgid.0)?;
    Ok(0)
}

/// setuid: becomes a user. See [setuid(2)](https://man7.org/linux/man-pages/man2/setuid.2.html).
pub fn setuid(cx: &mut Cx<'_>, uid: Uid) -> SysResult {
    change(cx, |old, new| {
        if uid.0 == UNCHANGED {
            return Err(Errno::EINVAL);
        }
        if old.has(Caps::SETUID) {
            (new.ruid, new.suid) = (uid, uid);
        } else if uid != old.ruid && uid != old.suid {
            return Err(Errno::EPERM);
        }
        (new.euid, new.fsuid) = (uid, uid);
        Ok(())
    })
}

/// setgid: becomes a group. See [setgid(2)](https://man7.org/linux/man-pages/man2/setgid.2.html).
pub fn setgid(cx: &mut Cx<'_>, gid: Gid) -> SysResult {
    change(cx, |old, new| {
        if gid.0 == UNCHANGED {
            return Err(Errno::EINVAL);
        }
        if old.has(Caps::SETGID) {
            (new.rgid, new.sgid) = (gid, gid);
        } else if gid != old.rgid && gid != old.sgid {
            return Err(Errno::EPERM);
        }
        (new.egid, new.fsgid) = (gid, gid);
        Ok(())
    })
}

/// setreuid: sets real and effective user. See [setreuid(2)](https://man7.org/linux/man-pages/man2/setreuid.2.html).
pub fn setreuid(cx: &mut Cx<'_>, ruid: Uid, euid: Uid) -> SysResult {
    change(cx, |old, new| {
        let free = old.has(Caps::SETUID);
        if let Some(ruid) = wanted(ruid.0) {
            if !free && ruid != old.ruid.0 && ruid != old.euid.0 {
                return Err(Errno::EPERM);
            }
            new.ruid = Uid(ruid);
        }
        if let Some(euid) = wanted(euid.0) {
            if !free && ![old.ruid.0, old.euid.0, old.suid.0].contains(&euid) {
                return Err(Errno::EPERM);
            }
            new.euid = Uid(euid);
        }
        if ruid.0 != UNCHANGED || (euid.0 != UNCHANGED && euid != old.ruid) {
            new.suid = new.euid;
        }
        new.fsuid = new.euid;
        Ok(())
    })
}

/// setregid: sets real and effective group. See [setreuid(2)](https://man7.org/linux/man-pages/man2/setreuid.2.html).
pub fn setregid(cx: &mut Cx<'_>, rgid: Gid, egid: Gid) -> SysResult {
    change(cx, |old, new| {
        let free = old.has(Caps::SETGID);
        if let Some(rgid) = wanted(rgid.0) {
            if !free && rgid != old.rgid.0 && rgid != old.egid.0 {
                return Err(Errno::EPERM);
            }
            new.rgid = Gid(rgid);
        }
        if let Some(egid) = wanted(egid.0) {
            if !free && ![old.rgid.0, old.egid.0, old.sgid.0].contains(&egid) {
                return Err(Errno::EPERM);
            }
            new.egid = Gid(egid);
        }
        if rgid.0 != UNCHANGED || (egid.0 != UNCHANGED && egid != old.rgid) {
            new.sgid = new.egid;
        }
        new.fsgid = new.egid;
        Ok(())
    })
}

/// setresuid: sets all user ids. See [setresuid(2)](https://man7.org/linux/man-pages/man2/setresuid.2.html).
pub fn setresuid(cx: &mut Cx<'_>, ruid: Uid, euid: Uid, suid: Uid) -> SysResult {
    change(cx, |old, new| {
        let held = [old.ruid.0, old.euid.0, old.suid.0];
        let may = |id: Uid| id.0 == UNCHANGED || old.has(Caps::SETUID) || held.contains(&id.0);
        if !may(ruid) || !may(euid) || !may(suid) {
            return Err(Errno::EPERM);
        }
        new.ruid = wanted(ruid.0).map_or(old.ruid, Uid);
        new.euid = wanted(euid.0).map_or(old.euid, Uid);
        new.suid = wanted(suid.0).map_or(old.suid, Uid);
        new.fsuid = new.euid;
        Ok(())
    })
}

/// setresgid: sets all group ids. See [setresuid(2)](https://man7.org/linux/man-pages/man2/setresuid.2.html).
pub fn setresgid(cx: &mut Cx<'_>, rgid: Gid, egid: Gid, sgid: Gid) -> SysResult {
    change(cx, |old, new| {
        let held = [old.rgid.0, old.egid.0, old.sgid.0];
        let may = |id: Gid| id.0 == UNCHANGED || old.has(Caps::SETGID) || held.contains(&id.0);
        if !may(rgid) || !may(egid) || !may(sgid) {
            return Err(Errno::EPERM);
        }
        new.rgid = wanted(rgid.0).map_or(old.rgid, Gid);
        new.egid = wanted(egid.0).map_or(old.egid, Gid);
        new.sgid = wanted(sgid.0).map_or(old.sgid, Gid);
        new.fsgid = new.egid;
        Ok(())
    })
}

/// setfsuid: the user for files; answers the previous one. See [setfsuid(2)](https://man7.org/linux/man-pages/man2/setfsuid.2.html).
pub fn setfsuid(cx: &mut Cx<'_>, uid: Uid) -> SysResult {
    let old = cx.cred();
    let held = [old.ruid, old.euid, old.suid, old.fsuid];
    if uid.0 != UNCHANGED && (held.contains(&uid) || old.has(Caps::SETUID)) {
        change(cx, |_, new| {
            new.fsuid = uid;
            Ok(())
        })?;
    }
    Ok(u64::from(old.fsuid.0))
}

/// setfsgid: the group for files; answers the previous one. See [setfsgid(2)](https://man7.org/linux/man-pages/man2/setfsgid.2.html).
pub fn setfsgid(cx: &mut Cx<'_>, gid: Gid) -> SysResult {
    let old = cx.cred();
    let held = [old.rgid, old.egid, old.sgid, old.fsgid];
    if gid.0 != UNCHANGED && (held.contains(&gid) || old.has(Caps::SETGID)) {
        change(cx, |_, new| {
            new.fsgid = gid;
            Ok(())
        })?;
    }
    Ok(u64::from(old.fsgid.0))
}

/// getgroups: supplementary groups. See [getgroups(2)](https://man7.org/linux/man-pages/man2/getgroups.2.html).
pub fn getgroups(cx: &mut Cx<'_>, size: i32, list: UserRef<u32>) -> SysResult {
    let groups: Vec<u32> = cx.cred().groups.iter().map(|gid| gid.0).collect();
    let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    if size != 0 {
        if size < groups.len() {
            return Err(Errno::EINVAL.into());
        }
        list.write_array(&cx.mm(), &groups)?;
    }
    Ok(groups.len() as u64)
}

/// setgroups: replaces the supplementary groups. See [getgroups(2)](https://man7.org/linux/man-pages/man2/getgroups.2.html).
pub fn setgroups(cx: &mut Cx<'_>, size: usize, list: UserRef<u32>) -> SysResult {
    if !cx.cred().has(Caps::SETGID) {
        return Err(Errno::EPERM.into());
    }
    if size > NGROUPS_MAX {
        return Err(Errno::EINVAL.into());
    }
    let groups: Arc<[Gid]> = list.read_array(&cx.mm(), size)?.into_iter().map(Gid).collect();
    change(cx, |_, new| {
        new.groups = Arc::clone(&groups);
        Ok(())
    })
}

const fn wanted(id: u32) -> Option<u32> {
    if id == UNCHANGED { None } else { Some(id) }
}

/// Replaces the caller's credentials; capabilities follow the user ids.
fn change(
    cx: &mut Cx<'_>,
    edit: impl FnOnce(&Credentials, &mut Credentials) -> Result<()>,
) -> SysResult {
    let old = cx.cred();
    let mut new = (*old).clone();
    edit(&old, &mut new)?;
    follow_user_ids(&old, &mut new);
    if old.euid != new.euid || old.egid != new.egid || old.fsuid != new.fsuid {
        cx.thread.group.image.lock().dumpable = 0;
        cx.thread.attrs.lock().pdeath_signal = 0;
    }
    if *old != new {
        cx.thread.set_cred(new);
    }
    Ok(0)
}

/// "Effect of user ID changes on capabilities" of capabilities(7).
fn follow_user_ids(old: &Credentials, new: &mut Credentials) {
    if new.securebits & SECBIT_NO_SETUID_FIXUP != 0 {
        return;
    }
    let is_root = |uid: Uid| uid == Uid::ROOT;
    let had_root = is_root(old.ruid) || is_root(old.euid) || is_root(old.suid);
    let has_root = is_root(new.ruid) || is_root(new.euid) || is_root(new.suid);
    if had_root && !has_root {
        if new.securebits & SECBIT_KEEP_CAPS == 0 {
            new.permitted = Caps::empty();
            new.effective = Caps::empty();
        }
        new.ambient = Caps::empty();
    }
    if is_root(old.euid) && !is_root(new.euid) {
        new.effective = Caps::empty();
    }
    if !is_root(old.euid) && is_root(new.euid) {
        new.effective = new.permitted;
    }
    let file_caps = Caps::CHOWN
        | Caps::DAC_OVERRIDE
        | Caps::DAC_READ_SEARCH
        | Caps::FOWNER
        | Caps::FSETID
        | Caps::LINUX_IMMUTABLE
        | Caps::MKNOD
        | Caps::MAC_OVERRIDE;
    if is_root(old.fsuid) && !is_root(new.fsuid) {
        new.effective -= file_caps;
    }
    if !is_root(old.fsuid) && is_root(new.fsuid) {
        new.effective |= new.permitted & file_caps;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn become_user(securebits: u32) -> Credentials {
        let old = Credentials { securebits, ..Credentials::root() };
        let uid = Uid(1000);
        let mut new = old.clone();
        (new.ruid, new.euid, new.suid, new.fsuid) = (uid, uid, uid, uid);
        follow_user_ids(&old, &mut new);
        new
    }

    #[test]
    fn root_that_becomes_a_user_loses_its_capabilities() {
        let cred = become_user(0);
        assert!(cred.permitted.is_empty() && cred.effective.is_empty());
    }

    #[test]
    fn keepcaps_keeps_the_permitted_ones() {
        let cred = become_user(SECBIT_KEEP_CAPS);
        assert_eq!(cred.permitted, Caps::all());
        assert!(cred.effective.is_empty());
    }
}
