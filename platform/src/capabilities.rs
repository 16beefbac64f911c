//! What this host offers to the platform, what is missing and how to get it; for `sandbox doctor`.

use std::os::fd::AsFd;

use rustix::fs::MemfdFlags;

/// How much depends on a capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// No guest runs without it.
    Required,
    /// A further wall around the sandbox.
    Wall,
    /// Without it things are slower.
    Speed,
}

/// One thing that a host has or lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capability {
    /// Short and stable, for machines: `seccomp-user-notify`.
    pub id: &'static str,
    /// What it is for, in a few words.
    pub purpose: &'static str,
    pub need: Need,
    pub is_present: bool,
    /// What was found: a version, a number, an error.
    pub found: String,
    /// How to get it.
    pub remedy: &'static str,
}

/// Looks at everything. Harmless, and needs no privilege; takes a few milliseconds.
#[must_use]
pub fn probe() -> Vec<Capability> {
    vec![
        kernel_version(),
        user_notify(),
        cross_memory(),
        pidfd_getfd(),
        memfd_exec(),
        sync_wake_up(),
        fsgsbase(),
        cpus(),
        user_namespaces(),
        landlock(),
    ]
}

/// Whether all that is required is there.
#[must_use]
pub fn can_run(capabilities: &[Capability]) -> bool {
    capabilities.iter().all(|c| c.is_present || c.need != Need::Required)
}

/// Numbers of the running kernel's version.
fn version() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn kernel_version() -> Capability {
    let (major, minor) = version();
    Capability {
        id: "kernel",
        purpose: "notifications with descriptors (5.14), without lost rings (5.19)",
        need: Need::Required,
        is_present: (major, minor) >= (5, 14),
        found: format!("Linux {major}.{minor}"),
        remedy: "use Linux 5.14 or later, better 6.6 or later",
    }
}

/// seccomp(2): SECCOMP_GET_ACTION_AVAIL of SECCOMP_RET_USER_NOTIF.
fn user_notify() -> Capability {
    const GET_ACTION_AVAIL: u32 = 2;
    const USER_NOTIF: u32 = 0x7fc0_0000;
    let action = USER_NOTIF;
    // SAFETY: the call reads one u32.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, GET_ACTION_AVAIL, 0, &raw const action) };
    Capability {
        id: "seccomp-user-notify",
        purpose: "how guests' system calls reach the sandbox's kernel",
        need: Need::Required,
        is_present: ret == 0,
        found: outcome(ret),
        remedy: "a kernel with CONFIG_SECCOMP_FILTER; inside a container, a profile that allows seccomp(2)",
    }
}

/// process_vm_readv(2) of ourselves; of a child it needs no more, given yama's scope 0 or 1.
fn cross_memory() -> Capability {
    let source = [0x5a_u8];
    let mut target = [0_u8];
    let local = libc::iovec { iov_base: target.as_mut_ptr().cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: source.as_ptr().cast_mut().cast(), iov_len: 1 };
    // SAFETY: both ranges are ours.
    let ret = unsafe {
        libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0)
    };
    let scope = yama_scope();
    let is_open = scope.is_none_or(|scope| scope <= 1);
    Capability {
        id: "process-vm",
        purpose: "how the sandbox's kernel reaches guests' memory",
        need: Need::Required,
        is_present: ret == 1 && is_open,
        found: match scope {
            Some(scope) if ret == 1 => format!("yes; kernel.yama.ptrace_scope = {scope}"),
            _ => outcome(ret as i64),
        },
        remedy: "a kernel with CONFIG_CROSS_MEMORY_ATTACH; sysctl kernel.yama.ptrace_scope=1; inside a container, a \
                 profile that allows process_vm_readv(2)",
    }
}

fn yama_scope() -> Option<u32> {
    let text = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok()?;
    text.trim().parse().ok()
}

fn pidfd_getfd() -> Capability {
    // SAFETY: plain values; the descriptors are closed below.
    let ret = unsafe {
        let pidfd = libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0);
        let copy = libc::syscall(libc::SYS_pidfd_getfd, pidfd, pidfd, 0);
        let error = std::io::Error::last_os_error().raw_os_error();
        for fd in [pidfd, copy] {
            if let Ok(fd) = i32::try_from(fd)
                && fd >= 0
            {
                libc::close(fd);
            }
        }
        if copy < 0 { -i64::from(error.unwrap_or(libc::EIO)) } else { 0 }
    };
    Capability {
        id: "pidfd-getfd",
        purpose: "how the listener gets from the first guest process to the sandbox's kernel",
        need: Need::Required,
        is_present: ret == 0,
        found: if ret == 0 { "yes".to_owned() } else { error_text(-ret) },
        remedy: "Linux 5.6 or later; inside a container, a profile that allows pidfd_getfd(2)",
    }
}

/// The shim is executed from a memfd; `vm.memfd_noexec = 2` forbids that.
fn memfd_exec() -> Capability {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::EXEC;
    let made = match rustix::fs::memfd_create("probe", flags) {
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create("probe", MemfdFlags::CLOEXEC),
        other => other,
    };
    let is_present = made.as_ref().is_ok_and(|fd| rustix::fs::fstat(fd.as_fd()).is_ok());
    Capability {
        id: "memfd-exec",
        purpose: "how the first guest process starts",
        need: Need::Required,
        is_present,
        found: match made {
            Ok(_) => "yes".to_owned(),
            Err(error) => error_text(i64::from(error.raw_os_error())),
        },
        remedy: "sysctl vm.memfd_noexec=0 (or 1)",
    }
}

fn sync_wake_up() -> Capability {
    let (major, minor) = version();
    Capability {
        id: "seccomp-sync-wake-up",
        purpose: "system calls switch straight to the sandbox's kernel on the same CPU",
        need: Need::Speed,
        is_present: (major, minor) >= (6, 6),
        found: format!("Linux {major}.{minor}"),
        remedy: "Linux 6.6 or later",
    }
}

fn fsgsbase() -> Capability {
    const HWCAP2_FSGSBASE: usize = 2;
    let is_present = rustix::param::linux_hwcap().1 & HWCAP2_FSGSBASE != 0;
    Capability {
        id: "fsgsbase",
        purpose: "thread pointers are read and set without a host call",
        need: Need::Speed,
        is_present,
        found: yes(is_present),
        remedy: "Linux 5.9 or later on a processor since 2012 (AMD: 2020), without nofsgsbase",
    }
}

fn cpus() -> Capability {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    Capability {
        id: "second-cpu",
        purpose: "frequent system calls are answered without a switch",
        need: Need::Speed,
        is_present: count > 1,
        found: format!("{count}"),
        remedy: "allow two or more CPUs",
    }
}

fn user_namespaces() -> Capability {
    // SAFETY: the child only tries and ends.
    let status = unsafe {
        let child = libc::fork();
        if child == 0 {
            let ret = libc::unshare(libc::CLONE_NEWUSER);
            libc::_exit(i32::from(ret != 0));
        }
        let mut status = -1;
        if child > 0 {
            libc::waitpid(child, &raw mut status, 0);
        }
        status
    };
    Capability {
        id: "user-namespaces",
        purpose: "takes the sandbox's processes out of the host's users",
        need: Need::Wall,
        is_present: status == 0,
        found: yes(status == 0),
        remedy: "sysctl user.max_user_namespaces=15000; Ubuntu: kernel.apparmor_restrict_unprivileged_userns=0; Debian: \
                 kernel.unprivileged_userns_clone=1",
    }
}

fn landlock() -> Capability {
    const CREATE_RULESET_VERSION: u32 = 1;
    const LANDLOCK_CREATE_RULESET: i64 = 444;
    // SAFETY: asks for the version only.
    let version = unsafe {
        libc::syscall(LANDLOCK_CREATE_RULESET, std::ptr::null::<u8>(), 0, CREATE_RULESET_VERSION)
    };
    Capability {
        id: "landlock",
        purpose: "shuts the file server and the kernel in even where namespaces are refused",
        need: Need::Wall,
        is_present: version > 0,
        found: if version > 0 { format!("ABI {version}") } else { outcome(version) },
        remedy: "Linux 5.13 or later with landlock in the lsm= list (CONFIG_LSM)",
    }
}

fn yes(is_present: bool) -> String {
    if is_present { "yes" } else { "no" }.to_owned()
}

/// For a call that has just returned.
fn outcome(ret: impl Into<i64>) -> String {
    if ret.into() >= 0 {
        return "yes".to_owned();
    }
    error_text(i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)))
}

fn error_text(raw: i64) -> String {
    std::io::Error::from_raw_os_error(i32::try_from(raw).unwrap_or(libc::EIO)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_runs_guests_has_all_that_is_required() {
        let found = probe();
        let missing: Vec<_> =
            found.iter().filter(|c| c.need == Need::Required && !c.is_present).collect();
        assert!(missing.is_empty(), "{missing:?}");
        assert!(can_run(&found));
    }

    #[test]
    fn ids_are_unique_and_remedies_said() {
        let found = probe();
        let ids: std::collections::BTreeSet<_> = found.iter().map(|c| c.id).collect();
        assert_eq!(ids.len(), found.len());
        assert!(found.iter().all(|c| !c.remedy.is_empty() && !c.found.is_empty()));
    }
}
