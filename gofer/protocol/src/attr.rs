//! Attributes, attribute changes and filesystem figures as fields.

use abi::ids::{Gid, Uid};
use abi::stat::{Attr, makedev};
use abi::time::Timespec;

use rustix::fs::{Stat, Statx, StatxFlags};

use crate::wire::{DecodeError, Decoded, Put, Reader};

/// Bytes of an encoded [`Attr`].
pub const ATTR_BYTES: usize = 8 + 8 + 4 * 4 + 8 + 8 + 4 + 8 + 4 * TIME_BYTES;
const TIME_BYTES: usize = 12;

/// Owner and permission bits of a new object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Owner {
    pub uid: Uid,
    pub gid: Gid,
    /// Permission bits only (07777).
    pub mode: u32,
}

/// A new value of a timestamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeChange {
    Now,
    At(Timespec),
}

/// Attribute changes; `None` leaves a field alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AttrChange {
    pub mode: Option<u32>,
    pub uid: Option<Uid>,
    pub gid: Option<Gid>,
    pub size: Option<u64>,
    pub atime: Option<TimeChange>,
    pub mtime: Option<TimeChange>,
}

/// What statfs(2) tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FsFigures {
    pub magic: u64,
    /// Bytes; the unit of the three fields below it.
    pub block_size: u64,
    pub blocks: u64,
    pub blocks_free: u64,
    pub blocks_available: u64,
    pub files: u64,
    pub files_free: u64,
    pub name_max: u64,
}

fn put_time(out: &mut Vec<u8>, time: Timespec) {
    out.put_i64(time.sec);
    // In range for every valid time; an invalid one becomes invalid for the receiver too.
    out.put_u32(u32::try_from(time.nsec).unwrap_or(u32::MAX));
}

fn time(input: &mut Reader<'_>) -> Decoded<Timespec> {
    let (sec, nsec) = (input.i64()?, input.u32()?);
    if nsec >= 1_000_000_000 {
        return Err(DecodeError::BadValue);
    }
    Ok(Timespec { sec, nsec: nsec.into() })
}

pub fn put_attr(out: &mut Vec<u8>, attr: &Attr) {
    out.put_u64(attr.dev);
    out.put_u64(attr.ino);
    out.put_u32(attr.mode);
    out.put_u32(attr.nlink);
    out.put_u32(attr.uid.0);
    out.put_u32(attr.gid.0);
    out.put_u64(attr.rdev);
    out.put_u64(attr.size);
    out.put_u32(attr.blksize);
    out.put_u64(attr.blocks);
    for stamp in [attr.atime, attr.mtime, attr.ctime, attr.btime] {
        put_time(out, stamp);
    }
}

pub fn attr(input: &mut Reader<'_>) -> Decoded<Attr> {
    let attr = Attr {
        dev: input.u64()?,
        ino: input.u64()?,
        mode: input.u32()?,
        nlink: input.u32()?,
        uid: Uid(input.u32()?),
        gid: Gid(input.u32()?),
        rdev: input.u64()?,
        size: input.u64()?,
        blksize: input.u32()?,
        blocks: input.u64()?,
        atime: time(input)?,
        mtime: time(input)?,
        ctime: time(input)?,
        btime: time(input)?,
    };
    // A type nobody knows, or a size beyond loff_t, would only surprise the kernel further up.
    if abi::stat::FileType::from_mode(attr.mode).is_none() || i64::try_from(attr.size).is_err() {
        return Err(DecodeError::BadValue);
    }
    Ok(attr)
}

pub fn put_owner(out: &mut Vec<u8>, owner: Owner) {
    out.put_u32(owner.uid.0);
    out.put_u32(owner.gid.0);
    out.put_u32(owner.mode);
}

pub fn owner(input: &mut Reader<'_>) -> Decoded<Owner> {
    let owner = Owner { uid: Uid(input.u32()?), gid: Gid(input.u32()?), mode: input.u32()? };
    if owner.mode & !0o7777 == 0 { Ok(owner) } else { Err(DecodeError::BadValue) }
}

const HAS_MODE: u8 = 1;
const HAS_UID: u8 = 2;
const HAS_GID: u8 = 4;
const HAS_SIZE: u8 = 8;
const HAS_ATIME: u8 = 16;
const HAS_MTIME: u8 = 32;

fn put_time_change(out: &mut Vec<u8>, change: TimeChange) {
    match change {
        TimeChange::Now => out.put_u8(0),
        TimeChange::At(at) => {
            out.put_u8(1);
            put_time(out, at);
        }
    }
}

fn time_change(input: &mut Reader<'_>) -> Decoded<TimeChange> {
    if input.flag()? { Ok(TimeChange::At(time(input)?)) } else { Ok(TimeChange::Now) }
}

pub fn put_change(out: &mut Vec<u8>, change: &AttrChange) {
    let AttrChange { mode, uid, gid, size, atime, mtime } = *change;
    let has = |present: bool, bit: u8| if present { bit } else { 0 };
    out.put_u8(
        has(mode.is_some(), HAS_MODE)
            | has(uid.is_some(), HAS_UID)
            | has(gid.is_some(), HAS_GID)
            | has(size.is_some(), HAS_SIZE)
            | has(atime.is_some(), HAS_ATIME)
            | has(mtime.is_some(), HAS_MTIME),
    );
    mode.into_iter().for_each(|mode| out.put_u32(mode));
    uid.into_iter().for_each(|uid| out.put_u32(uid.0));
    gid.into_iter().for_each(|gid| out.put_u32(gid.0));
    size.into_iter().for_each(|size| out.put_u64(size));
    atime.into_iter().chain(mtime).for_each(|time| put_time_change(out, time));
}

pub fn change(input: &mut Reader<'_>) -> Decoded<AttrChange> {
    let mask = input.u8()?;
    if mask >= 64 {
        return Err(DecodeError::BadValue);
    }
    let has = |bit: u8| (mask & bit != 0).then_some(());
    let mode = has(HAS_MODE).map(|()| input.u32()).transpose()?;
    if mode.is_some_and(|mode| mode & !0o7777 != 0) {
        return Err(DecodeError::BadValue);
    }
    Ok(AttrChange {
        mode,
        uid: has(HAS_UID).map(|()| input.u32().map(Uid)).transpose()?,
        gid: has(HAS_GID).map(|()| input.u32().map(Gid)).transpose()?,
        size: has(HAS_SIZE).map(|()| input.u64()).transpose()?,
        atime: has(HAS_ATIME).map(|()| time_change(input)).transpose()?,
        mtime: has(HAS_MTIME).map(|()| time_change(input)).transpose()?,
    })
}

pub fn put_figures(out: &mut Vec<u8>, figures: &FsFigures) {
    let FsFigures {
        magic,
        block_size,
        blocks,
        blocks_free,
        blocks_available,
        files,
        files_free,
        name_max,
    } = *figures;
    for value in
        [magic, block_size, blocks, blocks_free, blocks_available, files, files_free, name_max]
    {
        out.put_u64(value);
    }
}

pub fn figures(input: &mut Reader<'_>) -> Decoded<FsFigures> {
    Ok(FsFigures {
        magic: input.u64()?,
        block_size: input.u64()?,
        blocks: input.u64()?,
        blocks_free: input.u64()?,
        blocks_available: input.u64()?,
        files: input.u64()?,
        files_free: input.u64()?,
        name_max: input.u64()?,
    })
}

/// The host's answer in kernel form.
#[must_use]
pub fn from_statx(raw: &Statx) -> Attr {
    let time =
        |at: rustix::fs::StatxTimestamp| Timespec { sec: at.tv_sec, nsec: at.tv_nsec.into() };
    let has_btime = raw.stx_mask & StatxFlags::BTIME.bits() != 0;
    Attr {
        dev: makedev(raw.stx_dev_major, raw.stx_dev_minor),
        ino: raw.stx_ino,
        mode: raw.stx_mode.into(),
        nlink: raw.stx_nlink,
        uid: Uid(raw.stx_uid),
        gid: Gid(raw.stx_gid),
        rdev: makedev(raw.stx_rdev_major, raw.stx_rdev_minor),
        size: raw.stx_size,
        blksize: raw.stx_blksize,
        blocks: raw.stx_blocks,
        atime: time(raw.stx_atime),
        mtime: time(raw.stx_mtime),
        ctime: time(raw.stx_ctime),
        btime: if has_btime { time(raw.stx_btime) } else { Timespec::default() },
    }
}

/// What fstat(2) on a donated descriptor says; it knows no creation time.
#[must_use]
pub fn from_stat(raw: &Stat, btime: Timespec) -> Attr {
    let time = |sec: i64, nsec: u64| Timespec { sec, nsec: i64::try_from(nsec).unwrap_or(0) };
    Attr {
        dev: raw.st_dev,
        ino: raw.st_ino,
        mode: raw.st_mode,
        nlink: u32::try_from(raw.st_nlink).unwrap_or(u32::MAX),
        uid: Uid(raw.st_uid),
        gid: Gid(raw.st_gid),
        rdev: raw.st_rdev,
        size: u64::try_from(raw.st_size).unwrap_or(0),
        blksize: u32::try_from(raw.st_blksize).unwrap_or(4096),
        blocks: u64::try_from(raw.st_blocks).unwrap_or(0),
        atime: time(raw.st_atime, raw.st_atime_nsec),
        mtime: time(raw.st_mtime, raw.st_mtime_nsec),
        ctime: time(raw.st_ctime, raw.st_ctime_nsec),
        btime,
    }
}
