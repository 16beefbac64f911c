//! mounts, mountinfo, mountstats. See proc_pid_mounts(5), proc_pid_mountinfo(5).

use abi::Result;

use super::table::Asked;
use crate::fs::procfs::system::major_minor;
use crate::mount::MountFlags;
use crate::mount_namespace::MountInfo;

/// The mounts below the task's root; those that it cannot reach are left out.
fn list(asked: &Asked<'_>) -> Vec<MountInfo> {
    match (asked.task.mounts(), asked.task.root()) {
        (Some(mounts), Some(root)) => mounts.list(&root),
        _ => Vec::new(),
    }
}

/// Blanks and backslashes as octal, as getmntent(3) undoes it.
fn escaped(out: &mut Vec<u8>, text: &[u8]) {
    for byte in text {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => {
                out.extend_from_slice(format!("\\{byte:03o}").as_bytes());
            }
            byte => out.push(*byte),
        }
    }
}

fn options(mount: &MountInfo) -> String {
    let read_only = mount.flags.contains(MountFlags::RDONLY);
    let mut text = String::from(if read_only { "ro" } else { "rw" });
    for (flag, name) in [
        (MountFlags::NOSUID, ",nosuid"),
        (MountFlags::NODEV, ",nodev"),
        (MountFlags::NOEXEC, ",noexec"),
        (MountFlags::NOATIME, ",noatime"),
        (MountFlags::NODIRATIME, ",nodiratime"),
        (MountFlags::RELATIME, ",relatime"),
    ] {
        if mount.flags.contains(flag) {
            text.push_str(name);
        }
    }
    text
}

fn with_fs_options(mut text: String, mount: &MountInfo) -> String {
    if !mount.options.is_empty() {
        text.push(',');
        text.push_str(&mount.options);
    }
    text
}

fn source(mount: &MountInfo) -> &[u8] {
    if mount.source.is_empty() { b"none" } else { &mount.source }
}

pub fn mounts(asked: &Asked<'_>) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for mount in list(asked) {
        escaped(&mut out, source(&mount));
        out.push(b' ');
        escaped(&mut out, &mount.point);
        let options = with_fs_options(options(&mount), &mount);
        out.extend_from_slice(format!(" {} {options} 0 0\n", mount.fs_type).as_bytes());
    }
    Ok(out)
}

pub fn mountinfo(asked: &Asked<'_>) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for mount in list(asked) {
        let (major, minor) = major_minor(mount.dev);
        let ids = format!("{} {} {major}:{minor} ", mount.id, mount.parent_id);
        out.extend_from_slice(ids.as_bytes());
        escaped(&mut out, &mount.root);
        out.push(b' ');
        escaped(&mut out, &mount.point);
        let middle = format!(" {} - {} ", options(&mount), mount.fs_type);
        out.extend_from_slice(middle.as_bytes());
        escaped(&mut out, source(&mount));
        let state = String::from(if mount.is_fs_read_only { "ro" } else { "rw" });
        let tail = with_fs_options(state, &mount);
        out.extend_from_slice(format!(" {tail}\n").as_bytes());
    }
    Ok(out)
}

pub fn mountstats(asked: &Asked<'_>) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for mount in list(asked) {
        out.extend_from_slice(b"device ");
        escaped(&mut out, source(&mount));
        out.extend_from_slice(b" mounted on ");
        escaped(&mut out, &mount.point);
        out.extend_from_slice(format!(" with fstype {}\n", mount.fs_type).as_bytes());
    }
    Ok(out)
}
