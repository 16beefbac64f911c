//! What this crate's tests share: a clock, a caller, a tree.

use std::sync::Arc;

use abi::Result;
use abi::open::OpenFlags;
use base::clock::{Clock, Nanos};
use base::cred::Credentials;

use crate::context::{Caller, FsContext, VfsCx};
use crate::dentry::Path;
use crate::file::File;
use crate::filesystem::FileSystem;
use crate::mount::MountFlags;
use crate::mount_namespace::MountNamespace;
use crate::ops::{self, OpenHow};
use crate::path::{LookupFlags, resolve};

/// The host's clock.
pub struct HostClock;

impl Clock for HostClock {
    fn realtime(&self) -> Nanos {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        u64::try_from(since.unwrap().as_nanos()).unwrap()
    }

    fn monotonic(&self) -> Nanos {
        self.realtime()
    }
}

/// A tree and somebody in it.
pub struct World {
    pub ns: Arc<MountNamespace>,
    pub fs: Arc<FsContext>,
    pub cred: Credentials,
}

impl World {
    pub fn new(fs: Arc<dyn FileSystem>) -> Self {
        let ns = MountNamespace::new(fs, b"none", MountFlags::empty());
        let root = ns.root();
        Self { fs: FsContext::new(root.clone(), root, 0o022), ns, cred: Credentials::root() }
    }

    pub fn tmpfs() -> Self {
        let options = crate::fs::tmpfs::Options { mode: 0o755, ..Default::default() };
        Self::new(crate::fs::tmpfs::TmpFs::new(Arc::new(HostClock), options))
    }

    pub fn cx(&self) -> VfsCx<'_> {
        VfsCx {
            cred: &self.cred,
            fs: &self.fs,
            caller: Caller::default(),
            file_size_limit: u64::MAX,
            will_open: false,
        }
    }

    pub fn path(&self, path: &str) -> Result<Path> {
        resolve(&self.cx(), None, path.as_bytes(), LookupFlags::FOLLOW)
    }

    pub fn lpath(&self, path: &str) -> Result<Path> {
        resolve(&self.cx(), None, path.as_bytes(), LookupFlags::empty())
    }

    pub fn open(&self, path: &str, flags: OpenFlags) -> Result<Arc<File>> {
        let how = OpenHow { flags, mode: 0o666, resolve: LookupFlags::empty() };
        ops::open(&self.cx(), None, path.as_bytes(), how)?.now()
    }

    pub fn write(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let flags = OpenFlags::WRONLY | OpenFlags::CREAT | OpenFlags::TRUNC;
        let file = self.open(path, flags)?;
        let mut done = 0;
        while done < bytes.len() {
            done += file.write(&self.cx(), &mut &bytes[done..])?;
        }
        Ok(())
    }

    pub fn read_file(&self, file: &File) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut buffer = vec![0; 100_000];
        loop {
            let mut sink = &mut buffer[..];
            let count = file.read(&self.cx(), &mut sink)?;
            if count == 0 {
                return Ok(all);
            }
            all.extend_from_slice(&buffer[..count]);
        }
    }

    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.read_file(&*self.open(path, OpenFlags::empty())?)
    }

    pub fn mkdir(&self, path: &str) -> Result<Path> {
        ops::mkdir(&self.cx(), None, path.as_bytes(), 0o777)
    }

    pub fn unlink(&self, path: &str) -> Result<()> {
        ops::unlink(&self.cx(), None, path.as_bytes())
    }

    pub fn rmdir(&self, path: &str) -> Result<()> {
        ops::rmdir(&self.cx(), None, path.as_bytes())
    }

    pub fn symlink(&self, target: &str, path: &str) -> Result<()> {
        ops::symlink(&self.cx(), target.as_bytes(), None, path.as_bytes())
    }

    pub fn link(&self, old: &str, new: &str) -> Result<()> {
        let none = LookupFlags::empty();
        ops::link(&self.cx(), None, old.as_bytes(), None, new.as_bytes(), none)
    }

    pub fn rename(&self, old: &str, new: &str) -> Result<()> {
        self.rename_flags(old, new, crate::inode::RenameFlags::empty())
    }

    pub fn rename_flags(
        &self,
        old: &str,
        new: &str,
        flags: crate::inode::RenameFlags,
    ) -> Result<()> {
        ops::rename(&self.cx(), None, old.as_bytes(), None, new.as_bytes(), flags)
    }

    /// Sorted names without "." and "..".
    pub fn list(&self, path: &str) -> Result<Vec<String>> {
        let file = self.open(path, OpenFlags::DIRECTORY)?;
        let mut names = Vec::new();
        file.readdir(&self.cx(), &mut |entry| {
            names.push(String::from_utf8(entry.name.to_vec()).unwrap());
            true
        })?;
        names.retain(|name| name != "." && name != "..");
        names.sort();
        Ok(names)
    }

    pub fn text(&self, path: &Path) -> String {
        let root = self.fs.state.lock().root.clone();
        String::from_utf8(crate::dentry::path_string(&root, path)).unwrap()
    }
}
