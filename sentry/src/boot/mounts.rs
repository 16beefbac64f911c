//! The guest's tree: the mounts that the launcher asks for, in their order.

use std::sync::Arc;

use abi::Errno;
use abi::ids::{Gid, Uid};
use abi::stat::makedev;
use abi::time::Timespec;
use base::cred::Credentials;
use vfs::fs::devfs::{DevFs, ExtraDevice};
use vfs::fs::gofer::{Client, GoferFs};
use vfs::fs::overlay::OverlayFs;
use vfs::fs::procfs::ProcFs;
use vfs::fs::sysfs::{Machine, SysFs};
use vfs::fs::tmpfs::{Options, TmpFs};
use vfs::tty::ControllingTerminal;
use vfs::{
    Caller, FileSystem, FsContext, LookupFlags, MountFlags, MountNamespace, Path, VfsCx, ops, path,
};

use super::{BootError, Mounts, clock};
use crate::config::{MountSource, MountSpec};
use crate::kernel::Kernel;
use crate::proc_view::ProcView;

/// Mounts everything.
pub(super) fn build(
    kernel: &Arc<Kernel>,
    gofer: &Arc<Client>,
    specs: Vec<MountSpec>,
) -> Result<Mounts, BootError> {
    let mut specs = specs.into_iter();
    let root = specs.next().filter(|spec| spec.target == b"/");
    let root = root.ok_or_else(|| BootError::new("there is no root filesystem"))?;
    let refused = |spec: &MountSpec, errno| {
        let target = String::from_utf8_lossy(&spec.target).into_owned();
        BootError::of(&format!("cannot mount {target}"), errno)
    };
    let fs =
        filesystem(kernel, gofer, None, &root.source).map_err(|errno| refused(&root, errno))?;
    let (name, flags) = (source_name(&root), flags(&root));
    let mounts = MountNamespace::new(fs, name, flags);
    // Boot runs once.
    let _ = kernel.mounts.set(Arc::clone(&mounts));
    for spec in specs {
        add(kernel, gofer, &mounts, &spec).map_err(|errno| refused(&spec, errno))?;
    }
    Ok(mounts)
}

fn add(
    kernel: &Arc<Kernel>,
    gofer: &Arc<Client>,
    mounts: &Mounts,
    spec: &MountSpec,
) -> abi::Result<()> {
    let root = mounts.root();
    let cred = Credentials::root();
    let fs = FsContext::new(root.clone(), root, 0o022);
    let cx = VfsCx {
        cred: &cred,
        fs: &fs,
        caller: Caller::default(),
        file_size_limit: u64::MAX,
        will_open: false,
    };
    let at = mount_point(&cx, &spec.target)?;
    let fs = filesystem(kernel, gofer, Some(mounts), &spec.source)?;
    mounts.mount(&at, fs, source_name(spec), flags(spec))?;
    Ok(())
}

/// The place to mount on; a root tree that lacks it gets it, where it can be written.
fn mount_point(cx: &VfsCx<'_>, target: &[u8]) -> abi::Result<Path> {
    match path::resolve(cx, None, target, LookupFlags::FOLLOW) {
        Err(Errno::ENOENT) => {
            for (end, byte) in target.iter().enumerate().skip(1) {
                if *byte == b'/' {
                    make_dir(cx, target.get(..end).unwrap_or_default())?;
                }
            }
            make_dir(cx, target)?;
            path::resolve(cx, None, target, LookupFlags::FOLLOW)
        }
        other => other,
    }
}

fn make_dir(cx: &VfsCx<'_>, path: &[u8]) -> abi::Result<()> {
    match ops::mkdir(cx, None, path, 0o755) {
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn filesystem(
    kernel: &Arc<Kernel>,
    gofer: &Arc<Client>,
    mounts: Option<&Mounts>,
    source: &MountSource,
) -> abi::Result<Arc<dyn FileSystem>> {
    Ok(match *source {
        MountSource::Gofer { tree, overlay: false } => GoferFs::new(Arc::clone(gofer), tree)?,
        MountSource::Gofer { tree, overlay: true } => {
            let lower = GoferFs::new(Arc::clone(gofer), tree)?;
            OverlayFs::new(lower, clock(kernel), Some(memory_share(kernel)))?
        }
        MountSource::Tmpfs { size_limit } => {
            let size = size_limit.unwrap_or_else(|| memory_share(kernel));
            TmpFs::new(clock(kernel), Options { size: Some(size), ..Options::default() })
        }
        MountSource::Dev => {
            DevFs::new(devices(kernel), Timespec::from_nanos(kernel.boot_realtime_ns))
        }
        MountSource::DevPts => kernel.devpts.clone(),
        MountSource::Proc => ProcFs::new(ProcView::new(kernel, mounts.ok_or(Errno::EINVAL)?)),
        MountSource::Sys => SysFs::new(&Machine {
            cpus: kernel.host.cpus,
            memory: kernel.memory_limit.unwrap_or(kernel.host.mem_total),
            memory_limit: kernel.memory_limit,
            pids_limit: kernel.tasks.limit(),
        }),
    })
}

/// A filesystem that a guest mounts itself: those that are made of memory or of what the kernel knows anyway.
///
/// # Errors
/// `ENODEV` for every other type; `EINVAL` for options.
pub fn guest_filesystem(
    kernel: &Arc<Kernel>,
    kind: &[u8],
    options: &[u8],
) -> abi::Result<Arc<dyn FileSystem>> {
    match kind {
        b"tmpfs" => Ok(TmpFs::new(clock(kernel), tmpfs_options(kernel, options)?)),
        b"ramfs" => Ok(TmpFs::new(clock(kernel), tmpfs_options(kernel, b"")?)),
        b"proc" => {
            let mounts = kernel.mounts.get().ok_or(Errno::EINVAL)?;
            Ok(ProcFs::new(ProcView::new(kernel, mounts)))
        }
        _ => Err(Errno::ENODEV),
    }
}

/// Options of tmpfs(5).
fn tmpfs_options(kernel: &Kernel, text: &[u8]) -> abi::Result<Options> {
    let mut options = Options { size: Some(memory_share(kernel)), ..Options::default() };
    let text = std::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
    for option in text.split(',').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let number = |radix| u32::from_str_radix(value, radix).map_err(|_| Errno::EINVAL);
        match name {
            "size" => options.size = Some(size_value(kernel, value)?),
            "mode" => options.mode = number(8)? & 0o7777,
            "uid" => options.uid = Uid(number(10)?),
            "gid" => options.gid = Gid(number(10)?),
            "nr_inodes" | "nr_blocks" | "huge" | "inode64" | "inode32" | "noswap" => {}
            _ => return Err(Errno::EINVAL),
        }
    }
    Ok(options)
}

/// A size with a suffix, or a share of memory.
fn size_value(kernel: &Kernel, text: &str) -> abi::Result<u64> {
    let digits = text.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G', '%']);
    let number: u64 = digits.parse().map_err(|_| Errno::EINVAL)?;
    let factor = match text.get(digits.len()..).unwrap_or_default() {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        "%" => memory_share(kernel) * 2 / 100,
        _ => return Err(Errno::EINVAL),
    };
    number.checked_mul(factor).ok_or(Errno::EINVAL)
}

/// What files in memory may take: half of it, as Linux' tmpfs.
fn memory_share(kernel: &Kernel) -> u64 {
    kernel.memory_limit.unwrap_or(kernel.host.mem_total) / 2
}

/// Devices that only the sentry can drive. /dev/console is whatever terminal the caller has, as it is in containers.
fn devices(kernel: &Arc<Kernel>) -> Vec<ExtraDevice> {
    let terminal = || Arc::new(ControllingTerminal::new(Arc::clone(&kernel.terminals)));
    vec![
        ExtraDevice { name: "tty", rdev: makedev(5, 0), mode: 0o666, device: terminal() },
        ExtraDevice { name: "console", rdev: makedev(5, 1), mode: 0o600, device: terminal() },
    ]
}

fn source_name(spec: &MountSpec) -> &'static [u8] {
    match spec.source {
        MountSource::Gofer { overlay: true, .. } => b"overlay",
        MountSource::Gofer { overlay: false, .. } => b"gofer",
        MountSource::Tmpfs { .. } => b"tmpfs",
        MountSource::Proc => b"proc",
        MountSource::Dev => b"devtmpfs",
        MountSource::DevPts => b"devpts",
        MountSource::Sys => b"sysfs",
    }
}

fn flags(spec: &MountSpec) -> MountFlags {
    let mut flags = MountFlags::RELATIME;
    flags.set(MountFlags::RDONLY, spec.read_only);
    match spec.source {
        MountSource::Gofer { .. } => flags |= MountFlags::NODEV,
        MountSource::Tmpfs { .. } => flags |= MountFlags::NOSUID | MountFlags::NODEV,
        MountSource::Proc | MountSource::Sys => {
            flags |= MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        }
        MountSource::Dev | MountSource::DevPts => {
            flags |= MountFlags::NOSUID | MountFlags::NOEXEC;
        }
    }
    flags
}
