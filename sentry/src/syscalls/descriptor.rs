//! The caller's descriptors: what almost every file call looks up first.

use std::sync::Arc;

use abi::Result;
use abi::ids::Fd;
use abi::open::OpenFlags;
use abi::rlimit::Resource;
use vfs::{File, Path};

use crate::cx::Cx;
use crate::error::SysResult;
use crate::mm::UserCStr;
use crate::syscalls::args::DirFd;

impl Cx<'_> {
    /// The open file of a descriptor.
    ///
    /// # Errors
    /// `EBADF`, also for an `O_PATH` descriptor.
    pub fn file(&self, fd: Fd) -> Result<Arc<File>> {
        self.files().get(fd)
    }

    /// The open file of a descriptor that may be `O_PATH`.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn path_file(&self, fd: Fd) -> Result<Arc<File>> {
        self.files().get_path_ok(fd)
    }

    /// Puts a new file at the lowest free descriptor; `O_CLOEXEC` in `flags` counts.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn install(&self, file: Arc<File>, flags: OpenFlags) -> Result<Fd> {
        self.files().install(file, flags.contains(OpenFlags::CLOEXEC), Fd(0), self.fd_limit())
    }

    /// [`Cx::install`] as the end of a call.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn return_fd(&self, file: Arc<File>, flags: OpenFlags) -> SysResult {
        Ok(self.install(file, flags)?.0.cast_unsigned().into())
    }

    /// RLIMIT_NOFILE.
    #[must_use]
    pub fn fd_limit(&self) -> u64 {
        self.thread.group.limit(Resource::Nofile)
    }

    /// A path argument and the directory where it starts; the descriptor is not looked at for an absolute path.
    ///
    /// # Errors
    /// `EFAULT`, `ENAMETOOLONG`, `EBADF`.
    pub fn path_at(&self, dir: DirFd, path: UserCStr) -> Result<PathAt> {
        let text = path.read_path(&self.mm())?;
        let start = match text.first() {
            Some(b'/') => None,
            _ => self.start_of(dir)?,
        };
        Ok(PathAt { start, text })
    }

    /// The directory where a relative path starts; `None` is the current directory.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn start_of(&self, dir: DirFd) -> Result<Option<Path>> {
        if dir.is_cwd() {
            return Ok(None);
        }
        self.path_file(dir.0).map(|file| Some(file.path().clone()))
    }
}

/// A path as a call names it.
pub struct PathAt {
    /// Directory of a relative path; `None`: the current directory, or the path is absolute.
    pub start: Option<Path>,
    pub text: Vec<u8>,
}

impl PathAt {
    #[must_use]
    pub const fn start(&self) -> Option<&Path> {
        self.start.as_ref()
    }
}
