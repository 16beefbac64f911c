//! Walking, attributes, links, listings, opening.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use abi::open::OpenFlags;
use abi::stat::{Attr, FileType};
use abi::{Errno, Result};
use gofer_protocol::wire::Put;
use gofer_protocol::{
    DirItem, FsFigures, MAX_MESSAGE, MAX_OPEN, MAX_WALK, OpenListing, OpenedFiles, Plus, TreePath,
    Walked,
};
use rustix::fs::{AtFlags, OFlags, RawDir, SeekFrom};

use crate::session::Session;
use crate::tree::{Dir, ServedTree, attr_in, attr_of, errno, resolve};

/// Bytes of raw entries taken from the host at a time.
pub const RAW_BYTES: usize = 32 * 1024;
/// Longest link text Linux stores.
const LINK_BYTES: usize = 4096;

pub fn walk(
    session: &mut Session,
    tree: &ServedTree,
    from: TreePath<'_>,
    (names, open): (TreePath<'_>, bool),
    out: &mut Vec<u8>,
    fds: &mut Vec<OwnedFd>,
) -> Result<()> {
    let mut dir = session.dir(tree, from)?;
    let mut walked = Walked::default();
    let mut names = names.names().take(MAX_WALK).peekable();
    while let Some(name) = names.next() {
        let attr = match attr_in(&dir, name.bytes()) {
            Ok(attr) => attr,
            Err(reason) => {
                walked.stopped = Some(reason);
                break;
            }
        };
        walked.found.push(attr);
        match attr.file_type() {
            FileType::Symlink => {
                walked.link = link_text(&dir, name.bytes()).ok();
                break;
            }
            FileType::Directory if names.peek().is_some() => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match resolve(&dir, name.bytes(), flags) {
                    Ok(next) => dir = Dir::Opened(next),
                    Err(reason) => {
                        walked.stopped = Some(reason);
                        break;
                    }
                }
            }
            FileType::Directory => {}
            FileType::Regular if open && names.peek().is_none() => {
                // What cannot be opened is told when the open is asked for.
                if let Ok((fd, attr)) = session.open_in(tree, &dir, name.bytes(), OFlags::RDONLY)
                    && attr.file_type() == FileType::Regular
                {
                    if let Some(last) = walked.found.last_mut() {
                        *last = attr;
                    }
                    fds.push(fd);
                }
                break;
            }
            _ => break,
        }
    }
    walked.encode(out);
    Ok(())
}

pub fn put_attr(attr: &Attr, out: &mut Vec<u8>) {
    gofer_protocol::attr::put_attr(out, attr);
}

pub fn attr(
    session: &mut Session,
    tree: &ServedTree,
    path: TreePath<'_>,
    out: &mut Vec<u8>,
) -> Result<()> {
    let (dir, name) = session.place(tree, path)?;
    put_attr(&attr_in(dir, name)?, out);
    Ok(())
}

/// Only regular files: a directory's descriptor would let a broken sentry walk on its own.
pub fn open(
    session: &mut Session,
    tree: &ServedTree,
    path: TreePath<'_>,
    flags: OpenFlags,
    out: &mut Vec<u8>,
) -> Result<OwnedFd> {
    let mut access = match flags.bits() & OpenFlags::ACCMODE {
        0 => OFlags::RDONLY,
        1 => OFlags::WRONLY,
        2 => OFlags::RDWR,
        _ => return Err(Errno::EINVAL),
    };
    if flags.contains(OpenFlags::TRUNC) {
        // With O_RDONLY it truncates too, on Linux; see open(2).
        access |= OFlags::TRUNC;
    }
    let (fd, attr) = session.open_object(tree, path, access)?;
    if attr.is_dir() {
        return Err(Errno::EISDIR);
    }
    put_attr(&attr, out);
    Ok(fd)
}

/// As [`open`], for several files of one directory and for reading only.
pub fn open_files(
    session: &mut Session,
    tree: &ServedTree,
    path: TreePath<'_>,
    names: TreePath<'_>,
    out: &mut Vec<u8>,
    fds: &mut Vec<OwnedFd>,
) -> Result<()> {
    let dir = session.dir(tree, path)?;
    let mut opened = OpenedFiles::default();
    for name in names.names() {
        if opened.0.len() >= MAX_OPEN {
            return Err(Errno::EINVAL);
        }
        opened.0.push(match session.open_in(tree, &dir, name.bytes(), OFlags::RDONLY) {
            Ok((_, attr)) if attr.is_dir() => Err(Errno::EISDIR),
            Ok((fd, attr)) => {
                fds.push(fd);
                Ok(attr)
            }
            Err(reason) => Err(reason),
        });
    }
    opened.encode(out);
    Ok(())
}

pub fn link_text(dir: impl AsFd, name: &[u8]) -> Result<Vec<u8>> {
    let mut text = [0; LINK_BYTES];
    let length = rustix::fs::readlinkat_raw(dir.as_fd(), name, &mut text).map_err(errno)?;
    // A text that fills the buffer may have been cut.
    text.get(..length).filter(|text| text.len() < LINK_BYTES).map(<[u8]>::to_vec).ok_or(Errno::EIO)
}

pub fn read_link(
    session: &mut Session,
    tree: &ServedTree,
    path: TreePath<'_>,
    out: &mut Vec<u8>,
) -> Result<()> {
    let (dir, name) = session.place(tree, path)?;
    out.put_blob(&link_text(dir, name)?);
    Ok(())
}

pub fn read_dir(
    session: &mut Session,
    tree: &ServedTree,
    path: TreePath<'_>,
    (cursor, plus): (u64, Plus),
    out: &mut Vec<u8>,
) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let (from, name) = tree.locate(path)?;
    let dir = resolve(from, name, flags)?;
    if cursor != 0 {
        rustix::fs::seek(&dir, SeekFrom::Start(cursor)).map_err(errno)?;
    }
    list(&dir, plus, out)?;
    // What is listed tends to be looked into next.
    session.keep(tree, path, dir);
    Ok(())
}

fn list(dir: &OwnedFd, plus: Plus, out: &mut Vec<u8>) -> Result<()> {
    let mut listing = OpenListing::default();
    listing.begin(out);
    let mut raw = [MaybeUninit::uninit(); RAW_BYTES];
    let plus = match plus {
        Plus::Few => few(dir, &mut raw)?,
        plus => plus,
    };
    let mut entries = RawDir::new(dir.as_fd(), &mut raw);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(errno)?;
        let name = entry.file_name().to_bytes();
        if listing.reply_len(out) + DirItem::encoded_bound(name) > MAX_MESSAGE {
            listing.end(false, out);
            return Ok(());
        }
        let told = told_kind(name, entry.file_type());
        let attr = if wants_attr(name, told, plus) { attr_in(dir, name).ok() } else { None };
        let kind = attr.map(|attr| attr.file_type()).or(told);
        let (ino, next) = (entry.ino(), entry.next_entry_cookie());
        listing.push(&DirItem { ino, next, kind, name, attr, is_open: false }, out);
    }
    listing.end(true, out);
    Ok(())
}

/// Everything, if there are only few entries from here on; the directory is then where it was.
fn few(dir: &OwnedFd, raw: &mut [MaybeUninit<u8>]) -> Result<Plus> {
    let start = rustix::fs::seek(dir, SeekFrom::Current(0)).map_err(errno)?;
    let mut entries = RawDir::new(dir.as_fd(), raw);
    let mut count = 0;
    while count <= Plus::FEW
        && let Some(entry) = entries.next()
    {
        entry.map_err(errno)?;
        count += 1;
    }
    rustix::fs::seek(dir, SeekFrom::Start(start)).map_err(errno)?;
    Ok(if count <= Plus::FEW { Plus::Everything } else { Plus::Nothing })
}

/// Type of an entry, when the host told it along with the name: not every filesystem does.
pub fn told_kind(name: &[u8], kind: rustix::fs::FileType) -> Option<FileType> {
    known_kind(kind).or(matches!(name, b"." | b"..").then_some(FileType::Directory))
}

/// Whether an entry of a listing comes with its attributes.
pub fn wants_attr(name: &[u8], told: Option<FileType>, plus: Plus) -> bool {
    let wants = match plus {
        Plus::Nothing | Plus::Few => told.is_none(),
        Plus::Directories => told.is_none_or(|kind| kind == FileType::Directory),
        Plus::Everything => true,
    };
    // Who lists a directory knows its own, and asks for its parent's elsewhere.
    wants && !matches!(name, b"." | b"..")
}

fn known_kind(kind: rustix::fs::FileType) -> Option<FileType> {
    use rustix::fs::FileType as Host;
    Some(match kind {
        Host::RegularFile => FileType::Regular,
        Host::Directory => FileType::Directory,
        Host::Symlink => FileType::Symlink,
        Host::Fifo => FileType::Fifo,
        Host::Socket => FileType::Socket,
        Host::CharacterDevice => FileType::Character,
        Host::BlockDevice => FileType::Block,
        Host::Unknown => return None,
    })
}

pub fn stat_fs(tree: &ServedTree, path: TreePath<'_>, out: &mut Vec<u8>) -> Result<()> {
    let raw = rustix::fs::fstatfs(tree.object(path)?).map_err(errno)?;
    let unsigned = |value: i64| u64::try_from(value).unwrap_or(0);
    let figures = FsFigures {
        magic: unsigned(raw.f_type),
        block_size: unsigned(raw.f_bsize),
        blocks: raw.f_blocks,
        blocks_free: raw.f_bfree,
        blocks_available: raw.f_bavail,
        files: raw.f_files,
        files_free: raw.f_ffree,
        name_max: unsigned(raw.f_namelen),
    };
    gofer_protocol::attr::put_figures(out, &figures);
    Ok(())
}

pub fn access(tree: &ServedTree, path: TreePath<'_>, mode: u32) -> Result<()> {
    let access = rustix::fs::Access::from_bits(mode).ok_or(Errno::EINVAL)?;
    let (dir, name) = tree.place(path)?;
    rustix::fs::accessat(dir, name, access, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EACCESS)
        .map_err(errno)
}

/// Attributes of a new or changed object, for the reply.
pub fn put_attr_of(fd: impl AsFd, out: &mut Vec<u8>) -> Result<()> {
    put_attr(&attr_of(fd)?, out);
    Ok(())
}
