//! maps, smaps and smaps_rollup. See proc_pid_maps(5), proc_pid_smaps(5).

use abi::Result;

use super::fd::path_text;
use super::table::Asked;
use crate::fs::procfs::system::major_minor;
use crate::fs::procfs::view::{MapName, MapView};

/// Column of the name.
const NAME_COLUMN: usize = 73;

/// One line, with its newline.
fn line(asked: &Asked<'_>, map: &MapView) -> Vec<u8> {
    let bit = |is: bool, letter| if is { letter } else { '-' };
    let (dev, ino) = match &map.name {
        MapName::File(path) => path.inode().attr().map_or((0, 0), |attr| (attr.dev, attr.ino)),
        _ => (0, 0),
    };
    let (major, minor) = major_minor(dev);
    let mut text = format!(
        "{:08x}-{:08x} {}{}{}{} {:08x} {major:02x}:{minor:02x} {ino} ",
        map.start,
        map.end,
        bit(map.is_readable, 'r'),
        bit(map.is_writable, 'w'),
        bit(map.is_executable, 'x'),
        if map.is_shared { 's' } else { 'p' },
        map.offset,
    )
    .into_bytes();
    let name = match &map.name {
        MapName::None => Vec::new(),
        MapName::Special(name) => name.clone().into_bytes(),
        MapName::File(path) => path_text(asked.cx, path),
    };
    if !name.is_empty() {
        text.resize(text.len().max(NAME_COLUMN), b' ');
        for byte in name {
            match byte {
                b'\n' => text.extend_from_slice(b"\\012"),
                byte => text.push(byte),
            }
        }
    }
    text.push(b'\n');
    text
}

pub fn maps(asked: &Asked<'_>) -> Result<Vec<u8>> {
    Ok(asked.task.maps().iter().flat_map(|map| line(asked, map)).collect())
}

/// The rows of smaps that can be told; pages are counted as private, for sharing is the host's affair.
fn figures(size: u64, resident: u64, anonymous: u64, locked: u64, is_rollup: bool) -> String {
    let kb = |bytes: u64| bytes / 1024;
    let (clean, dirty) = (kb(resident.saturating_sub(anonymous)), kb(anonymous));
    let mut text = String::new();
    let mut row = |name: &str, value: u64| text.push_str(&format!("{name:<16}{value:8} kB\n"));
    if !is_rollup {
        row("Size:", kb(size));
        row("KernelPageSize:", 4);
        row("MMUPageSize:", 4);
    }
    row("Rss:", kb(resident));
    row("Pss:", kb(resident));
    row("Pss_Dirty:", dirty);
    if is_rollup {
        row("Pss_Anon:", dirty);
        row("Pss_File:", clean);
        row("Pss_Shmem:", 0);
    }
    row("Shared_Clean:", 0);
    row("Shared_Dirty:", 0);
    row("Private_Clean:", clean);
    row("Private_Dirty:", dirty);
    row("Referenced:", kb(resident));
    row("Anonymous:", dirty);
    for name in [
        "KSM:",
        "LazyFree:",
        "AnonHugePages:",
        "ShmemPmdMapped:",
        "FilePmdMapped:",
        "Shared_Hugetlb:",
        "Private_Hugetlb:",
        "Swap:",
        "SwapPss:",
    ] {
        row(name, 0);
    }
    row("Locked:", kb(locked));
    text
}

fn vm_flags(map: &MapView) -> String {
    let mut text = String::from("VmFlags:");
    for (is, flag) in [
        (map.is_readable, " rd"),
        (map.is_writable, " wr"),
        (map.is_executable, " ex"),
        (map.is_shared, " sh"),
        (true, " mr"),
        (true, " mw"),
        (true, " me"),
        (map.is_locked, " lo"),
    ] {
        if is {
            text.push_str(flag);
        }
    }
    text.push_str(" \n");
    text
}

fn locked(map: &MapView) -> u64 {
    if map.is_locked { map.resident } else { 0 }
}

pub fn smaps(asked: &Asked<'_>) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for map in asked.task.maps() {
        text.extend_from_slice(&line(asked, &map));
        let size = map.end - map.start;
        let rows = figures(size, map.resident, map.anonymous, locked(&map), false);
        text.extend_from_slice(rows.as_bytes());
        text.extend_from_slice(b"THPeligible:           0\n");
        text.extend_from_slice(vm_flags(&map).as_bytes());
    }
    Ok(text)
}

pub fn smaps_rollup(asked: &Asked<'_>) -> Result<Vec<u8>> {
    let maps = asked.task.maps();
    let (Some(first), Some(last)) = (maps.first(), maps.last()) else { return Ok(Vec::new()) };
    let sum = |value: fn(&MapView) -> u64| maps.iter().map(value).sum::<u64>();
    let mut text =
        format!("{:08x}-{:08x} ---p 00000000 00:00 0 ", first.start, last.end).into_bytes();
    text.resize(text.len().max(NAME_COLUMN), b' ');
    text.extend_from_slice(b"[rollup]\n");
    let rows = figures(0, sum(|map| map.resident), sum(|map| map.anonymous), sum(locked), true);
    text.extend_from_slice(rows.as_bytes());
    Ok(text)
}
