//! What the sentry asks.

use abi::open::OpenFlags;

use crate::attr::{self, AttrChange, Owner};
use crate::path::{Paths, TreePath};
use crate::wire::{DecodeError, Decoded, Put, Reader};

/// A request: an operation on an object of a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request<'a> {
    /// Comes back with the reply.
    pub seq: u32,
    /// Where the caller runs and will wait for the reply; a gofer that answers there spares both a wake-up across
    /// processors. [`NO_CPU`] when unknown; only a hint.
    pub cpu: u16,
    /// Index of the tree, as in the welcome.
    pub tree: u16,
    pub path: TreePath<'a>,
    pub op: Op<'a>,
}

/// See [`Request::cpu`].
pub const NO_CPU: u16 = u16::MAX;

/// Types of object that `Mknod` makes. Devices are no business of a gofer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeKind {
    Regular,
    Fifo,
    Socket,
}

/// How much `Sync` brings to disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncScope {
    /// As fsync(2).
    Object,
    /// As fdatasync(2).
    Data,
    /// As syncfs(2).
    FileSystem,
}

/// Which entries of a listing come with their attributes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plus {
    Nothing,
    /// Where a walk of the tree goes on.
    Directories,
    Everything,
    /// All when there are at most [`Plus::FEW`], else none.
    Few,
}

impl Plus {
    /// Entries whose attributes cost about what one more request does.
    pub const FEW: usize = 24;

    const fn code(self) -> u8 {
        match self {
            Self::Nothing => 0,
            Self::Directories => 1,
            Self::Everything => 2,
            Self::Few => 3,
        }
    }

    const fn from_code(code: u8) -> Decoded<Self> {
        match code {
            0 => Ok(Self::Nothing),
            1 => Ok(Self::Directories),
            2 => Ok(Self::Everything),
            3 => Ok(Self::Few),
            _ => Err(DecodeError::BadValue),
        }
    }
}

/// An operation; `path` in the request is the object unless said otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op<'a> {
    /// First message of a connection; answered by a `Welcome`.
    Hello {
        version: u32,
    },
    /// Attributes of `names`, one after the other, from the directory `path` on. With `open`, the last one is opened for
    /// reading, if it is a regular file that can be.
    Walk {
        names: TreePath<'a>,
        open: bool,
    },
    Attr,
    /// Opens a regular file; only the access mode and `O_TRUNC` count.
    Open {
        flags: OpenFlags,
    },
    ReadLink,
    /// What lies on the way to each of `paths` (from the tree's root on, each ended by NUL), links followed within the
    /// tree; the regular files at their ends are opened for reading. Answered by `Sightings`, by none for a
    /// writable tree, of which nothing is believed for long.
    Explore {
        paths: &'a [u8],
    },
    /// Opens regular files of the directory `path` for reading: `names` are entries of it, one beside the other and
    /// not one below the other, at most [`MAX_OPEN`](crate::MAX_OPEN). Answered by `OpenedFiles`.
    OpenFiles {
        names: TreePath<'a>,
    },
    /// A piece of the listing from `cursor` (0: the start) on.
    ReadDir {
        cursor: u64,
        plus: Plus,
    },
    /// Listings of several directories, in the order in which a walk comes by them: of `names`, which are entries of the
    /// directory `path`, one beside the other; after each those of its own subdirectories, as deep as it goes. Then of `above`:
    /// entries of the directory that `path` is in, of the one above that, and so on. At most
    /// `dirs` of them, only whole ones but for the first, and as many as one reply takes. The first `open` regular
    /// files of these, at most [`MAX_OPEN`](crate::MAX_OPEN), are opened for reading. Answered by `Sections`; refused
    /// where a tree is writable.
    ReadTree {
        names: TreePath<'a>,
        above: Paths<'a>,
        plus: Plus,
        dirs: u16,
        open: u16,
    },
    /// What comes after the last answer to the `ReadTree` that had the number `walk` on this connection; it may be asked for before
    /// that answer was heard. The rest is as there. `ENOENT` when that walk has ended, or another one began since.
    ReadOn {
        walk: u32,
        plus: Plus,
        dirs: u16,
        open: u16,
    },
    /// A new regular file, opened for reading and writing. `EEXIST` when the name is taken.
    Create {
        owner: Owner,
    },
    Mkdir {
        owner: Owner,
    },
    Symlink {
        target: &'a [u8],
        owner: Owner,
    },
    /// A new name `path` for the object at `existing`.
    Link {
        existing: TreePath<'a>,
    },
    Unlink,
    Rmdir,
    /// Flags as in renameat2(2).
    Rename {
        to: TreePath<'a>,
        flags: u32,
    },
    Mknod {
        kind: NodeKind,
        owner: Owner,
    },
    SetAttr {
        change: AttrChange,
    },
    GetXattr {
        name: &'a [u8],
    },
    /// Flags as in setxattr(2).
    SetXattr {
        name: &'a [u8],
        value: &'a [u8],
        flags: u32,
    },
    ListXattr,
    RemoveXattr {
        name: &'a [u8],
    },
    StatFs,
    Sync {
        scope: SyncScope,
    },
    /// Mode bits as in access(2), with the gofer's own rights.
    Access {
        mode: u32,
    },
    /// A connection to a unix socket of the host; refused by this version's server.
    Connect,
}

macro_rules! codes {
    ($($name:ident = $value:literal),+ $(,)?) => { $(const $name: u16 = $value;)+ };
}

codes! {
    HELLO = 1, WALK = 2, ATTR = 3, OPEN = 4, READ_LINK = 5, READ_DIR = 6, CREATE = 7, MKDIR = 8, SYMLINK = 9,
    LINK = 10, UNLINK = 11, RMDIR = 12, RENAME = 13, MKNOD = 14, SET_ATTR = 15, GET_XATTR = 16,
    SET_XATTR = 17, LIST_XATTR = 18, REMOVE_XATTR = 19, STAT_FS = 20, SYNC = 21, ACCESS = 22, CONNECT = 23,
    OPEN_FILES = 24, EXPLORE = 25, READ_TREE = 26, READ_ON = 27,
}

impl Op<'_> {
    const fn code(&self) -> u16 {
        match self {
            Self::Hello { .. } => HELLO,
            Self::Walk { .. } => WALK,
            Self::Attr => ATTR,
            Self::Open { .. } => OPEN,
            Self::OpenFiles { .. } => OPEN_FILES,
            Self::ReadLink => READ_LINK,
            Self::Explore { .. } => EXPLORE,
            Self::ReadDir { .. } => READ_DIR,
            Self::ReadTree { .. } => READ_TREE,
            Self::ReadOn { .. } => READ_ON,
            Self::Create { .. } => CREATE,
            Self::Mkdir { .. } => MKDIR,
            Self::Symlink { .. } => SYMLINK,
            Self::Link { .. } => LINK,
            Self::Unlink => UNLINK,
            Self::Rmdir => RMDIR,
            Self::Rename { .. } => RENAME,
            Self::Mknod { .. } => MKNOD,
            Self::SetAttr { .. } => SET_ATTR,
            Self::GetXattr { .. } => GET_XATTR,
            Self::SetXattr { .. } => SET_XATTR,
            Self::ListXattr => LIST_XATTR,
            Self::RemoveXattr { .. } => REMOVE_XATTR,
            Self::StatFs => STAT_FS,
            Self::Sync { .. } => SYNC,
            Self::Access { .. } => ACCESS,
            Self::Connect => CONNECT,
        }
    }

    /// True for what may change the tree; such a request is refused with `EROFS` where the tree is read-only.
    #[must_use]
    pub fn writes(&self) -> bool {
        match self {
            Self::Create { .. }
            | Self::Mkdir { .. }
            | Self::Symlink { .. }
            | Self::Link { .. }
            | Self::Unlink
            | Self::Rmdir
            | Self::Rename { .. }
            | Self::Mknod { .. }
            | Self::SetAttr { .. }
            | Self::SetXattr { .. }
            | Self::RemoveXattr { .. } => true,
            Self::Open { flags } => flags.writes() || flags.contains(OpenFlags::TRUNC),
            Self::Access { mode } => mode & 2 != 0,
            Self::Hello { .. }
            | Self::Walk { .. }
            | Self::Attr
            | Self::ReadLink
            | Self::ReadDir { .. }
            | Self::ReadTree { .. }
            | Self::ReadOn { .. }
            | Self::GetXattr { .. }
            | Self::ListXattr
            | Self::StatFs
            | Self::Sync { .. }
            | Self::OpenFiles { .. }
            | Self::Explore { .. }
            | Self::Connect => false,
        }
    }

    fn encode_fields(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Hello { version } => out.put_u32(version),
            Self::Walk { names, open } => {
                out.put_blob(names.bytes());
                out.put_flag(open);
            }
            Self::OpenFiles { names } => out.put_blob(names.bytes()),
            Self::Explore { paths } => out.put_blob(paths),
            Self::Open { flags } => out.put_u32(flags.bits()),
            Self::ReadDir { cursor, plus } => {
                out.put_u64(cursor);
                out.put_u8(plus.code());
            }
            Self::ReadTree { names, above, plus, dirs, open } => {
                out.put_blob(names.bytes());
                out.put_blob(above.bytes());
                out.put_u8(plus.code());
                out.put_u16(dirs);
                out.put_u16(open);
            }
            Self::ReadOn { walk, plus, dirs, open } => {
                out.put_u32(walk);
                out.put_u8(plus.code());
                out.put_u16(dirs);
                out.put_u16(open);
            }
            Self::Create { owner } | Self::Mkdir { owner } => attr::put_owner(out, owner),
            Self::Symlink { target, owner } => {
                out.put_blob(target);
                attr::put_owner(out, owner);
            }
            Self::Link { existing } => out.put_blob(existing.bytes()),
            Self::Rename { to, flags } => {
                out.put_blob(to.bytes());
                out.put_u32(flags);
            }
            Self::Mknod { kind, owner } => {
                out.put_u8(match kind {
                    NodeKind::Regular => 0,
                    NodeKind::Fifo => 1,
                    NodeKind::Socket => 2,
                });
                attr::put_owner(out, owner);
            }
            Self::SetAttr { ref change } => attr::put_change(out, change),
            Self::GetXattr { name } | Self::RemoveXattr { name } => out.put_blob(name),
            Self::SetXattr { name, value, flags } => {
                out.put_blob(name);
                out.put_blob(value);
                out.put_u32(flags);
            }
            Self::Sync { scope } => out.put_u8(match scope {
                SyncScope::Object => 0,
                SyncScope::Data => 1,
                SyncScope::FileSystem => 2,
            }),
            Self::Access { mode } => out.put_u32(mode),
            Self::Attr
            | Self::ReadLink
            | Self::Unlink
            | Self::Rmdir
            | Self::ListXattr
            | Self::StatFs
            | Self::Connect => {}
        }
    }
}

/// An extended attribute's name: not empty, no NUL, at most 255 bytes.
fn xattr_name<'a>(input: &mut Reader<'a>) -> Decoded<&'a [u8]> {
    let name = input.blob()?;
    let valid = (1..=255).contains(&name.len()) && !name.contains(&0);
    if valid { Ok(name) } else { Err(DecodeError::BadValue) }
}

/// A symbolic link's text: not empty, no NUL, shorter than `PATH_MAX`.
fn link_text<'a>(input: &mut Reader<'a>) -> Decoded<&'a [u8]> {
    let text = input.blob()?;
    let valid = (1..4096).contains(&text.len()) && !text.contains(&0);
    if valid { Ok(text) } else { Err(DecodeError::BadValue) }
}

fn fields<'a>(code: u16, input: &mut Reader<'a>) -> Decoded<Op<'a>> {
    Ok(match code {
        HELLO => Op::Hello { version: input.u32()? },
        WALK => Op::Walk { names: input.path()?, open: input.flag()? },
        ATTR => Op::Attr,
        OPEN => Op::Open { flags: OpenFlags::from_bits_retain(input.u32()?) },
        READ_LINK => Op::ReadLink,
        EXPLORE => Op::Explore { paths: input.blob()? },
        OPEN_FILES => Op::OpenFiles { names: input.path()? },
        READ_DIR => Op::ReadDir { cursor: input.u64()?, plus: Plus::from_code(input.u8()?)? },
        READ_TREE => Op::ReadTree {
            names: input.path()?,
            above: Paths::new(input.blob()?).map_err(|_| DecodeError::BadPath)?,
            plus: Plus::from_code(input.u8()?)?,
            dirs: input.u16()?,
            open: input.u16()?,
        },
        READ_ON => Op::ReadOn {
            walk: input.u32()?,
            plus: Plus::from_code(input.u8()?)?,
            dirs: input.u16()?,
            open: input.u16()?,
        },
        CREATE => Op::Create { owner: attr::owner(input)? },
        MKDIR => Op::Mkdir { owner: attr::owner(input)? },
        SYMLINK => Op::Symlink { target: link_text(input)?, owner: attr::owner(input)? },
        LINK => Op::Link { existing: input.path()? },
        UNLINK => Op::Unlink,
        RMDIR => Op::Rmdir,
        RENAME => Op::Rename { to: input.path()?, flags: input.u32()? },
        MKNOD => {
            let kind = match input.u8()? {
                0 => NodeKind::Regular,
                1 => NodeKind::Fifo,
                2 => NodeKind::Socket,
                _ => return Err(DecodeError::BadValue),
            };
            Op::Mknod { kind, owner: attr::owner(input)? }
        }
        SET_ATTR => Op::SetAttr { change: attr::change(input)? },
        GET_XATTR => Op::GetXattr { name: xattr_name(input)? },
        SET_XATTR => {
            Op::SetXattr { name: xattr_name(input)?, value: input.blob()?, flags: input.u32()? }
        }
        LIST_XATTR => Op::ListXattr,
        REMOVE_XATTR => Op::RemoveXattr { name: xattr_name(input)? },
        STAT_FS => Op::StatFs,
        SYNC => Op::Sync {
            scope: match input.u8()? {
                0 => SyncScope::Object,
                1 => SyncScope::Data,
                2 => SyncScope::FileSystem,
                _ => return Err(DecodeError::BadValue),
            },
        },
        ACCESS => Op::Access { mode: input.u32()? },
        CONNECT => Op::Connect,
        _ => return Err(DecodeError::BadValue),
    })
}

impl<'a> Request<'a> {
    /// Replaces `out` by the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        out.put_u16(self.op.code());
        out.put_u16(self.tree);
        out.put_u32(self.seq);
        out.put_u16(self.cpu);
        out.put_blob(self.path.bytes());
        self.op.encode_fields(out);
    }

    /// # Errors
    /// When the message is not exactly one well-formed request.
    pub fn decode(message: &'a [u8]) -> Decoded<Self> {
        let mut input = Reader::new(message);
        let code = input.u16()?;
        let (tree, seq, cpu) = (input.u16()?, input.u32()?, input.u16()?);
        let path = input.path()?;
        let op = fields(code, &mut input)?;
        input.finish()?;
        Ok(Self { seq, cpu, tree, path, op })
    }

    /// The number of a request that could not be decoded as a whole, so that its reply can be matched.
    #[must_use]
    pub fn peek_seq(message: &[u8]) -> u32 {
        let mut input = Reader::new(message);
        let head = input.u32().and_then(|_| input.u32());
        head.unwrap_or(0)
    }
}
