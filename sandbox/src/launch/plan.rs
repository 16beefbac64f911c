//! From the command line to a plan: pure decisions plus a few looks at the host.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use base::cred::Credentials;
use rustix::fs::Access;
use sentry::config::{MountSource, MountSpec};

use super::users;
use crate::cmd::run::{Args, PlatformChoice};
use crate::failure::Failure;

/// Where a program without a PATH is looked for.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Everything about a sandbox that is decided before the first process is made.
pub struct Plan {
    pub args: Vec<Vec<u8>>,
    pub env: Vec<Vec<u8>>,
    pub cwd: Vec<u8>,
    pub cred: Credentials,
    pub umask: u32,
    pub mounts: Vec<MountSpec>,
    /// Host trees for the gofer; a mount names one by its index.
    pub trees: Vec<Tree>,
    pub memory: Option<u64>,
    pub pids: Option<u32>,
    pub timeout: Option<Duration>,
    pub hostname: Vec<u8>,
    pub strace: Strace,
    pub stats: bool,
    pub platform: PlatformChoice,
}

/// A host directory or file that the gofer serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    pub path: PathBuf,
    pub writable: bool,
}

/// What `--strace` asked for.
pub enum Strace {
    Off,
    Stderr,
    File(PathBuf),
}

impl Plan {
    pub fn new(args: Args) -> Result<Self, Failure> {
        let root = match &args.rootfs {
            Some(dir) => directory(dir, "--rootfs")?,
            None => PathBuf::from("/"),
        };
        let mut layout = Layout::new(root.clone());
        for path in &args.write {
            layout.add_write(path)?;
        }
        for text in &args.mount {
            layout.add_mount(text)?;
        }
        let cred = match &args.user {
            Some(text) => users::parse(text, &root)?,
            None => users::caller()?,
        };
        let (trees, mounts) = layout.finish();
        Ok(Self {
            args: args.command.into_iter().map(OsString::into_vec).collect(),
            env: environment(&args.env, std::env::vars_os()),
            cwd: working_directory(args.workdir, args.rootfs.is_some()),
            cred,
            umask: current_umask(),
            mounts,
            trees,
            memory: args.memory,
            pids: args.pids,
            timeout: args.timeout,
            hostname: args.hostname.map_or_else(
                || rustix::system::uname().nodename().to_bytes().to_vec(),
                String::into_bytes,
            ),
            stats: args.stats,
            platform: args.platform,
            strace: match args.strace {
                None => Strace::Off,
                Some(None) => Strace::Stderr,
                Some(Some(file)) => Strace::File(file),
            },
        })
    }
}

/// Trees and mounts, growing together.
struct Layout {
    root: PathBuf,
    trees: Vec<Tree>,
    mounts: Vec<MountSpec>,
    extra: Vec<MountSpec>,
}

impl Layout {
    /// The host's (or the given) root under an in-memory overlay, with the kernel's own filesystems on it.
    fn new(root: PathBuf) -> Self {
        let own =
            |target: &str, source| MountSpec { target: target.into(), source, read_only: false };
        let mounts = vec![
            own("/", MountSource::Gofer { tree: 0, overlay: true }),
            own("/proc", MountSource::Proc),
            own("/dev", MountSource::Dev),
            own("/dev/pts", MountSource::DevPts),
            own("/dev/shm", MountSource::Tmpfs { size_limit: None }),
            own("/sys", MountSource::Sys),
        ];
        let trees = vec![Tree { path: root.clone(), writable: false }];
        Self { root, trees, mounts, extra: Vec::new() }
    }

    fn add_write(&mut self, path: &Path) -> Result<(), Failure> {
        let source = existing(path, "--write")?;
        let target = source.strip_prefix(&self.root).unwrap_or(&source);
        let target = Path::new("/").join(target);
        self.add(source.clone(), &target, false, "--write")
    }

    fn add_mount(&mut self, text: &OsStr) -> Result<(), Failure> {
        let mut parts = text.as_bytes().split(|byte| *byte == b':').map(OsStr::from_bytes);
        let (source, target, mode, rest) = (parts.next(), parts.next(), parts.next(), parts.next());
        let shape = || {
            let text = text.to_string_lossy();
            Failure::new(format!("--mount {text}: expected SRC:DST or SRC:DST:ro"))
        };
        let (Some(source), Some(target), None) = (source, target, rest) else {
            return Err(shape());
        };
        let read_only = match mode.map(OsStr::as_bytes) {
            None | Some(b"rw") => false,
            Some(b"ro") => true,
            Some(_) => return Err(shape()),
        };
        let target = Path::new(target);
        if !target.is_absolute() {
            let target = target.display();
            return Err(Failure::new(format!("--mount: {target} is not an absolute path")));
        }
        let source = existing(Path::new(source), "--mount")?;
        self.add(source, &normalized(target), read_only, "--mount")
    }

    fn add(
        &mut self,
        source: PathBuf,
        target: &Path,
        read_only: bool,
        option: &str,
    ) -> Result<(), Failure> {
        if !read_only && let Err(error) = rustix::fs::access(&source, Access::WRITE_OK) {
            let path = source.display();
            let remedy = if option == "--mount" { "; append :ro to show it read-only" } else { "" };
            let what = format!("{option} {path}: you may not write there{remedy}");
            return Err(Failure::host(&what, error));
        }
        let too_many = |_| Failure::new(format!("{option}: too many paths"));
        let tree = u16::try_from(self.trees.len()).map_err(too_many)?;
        self.trees.push(Tree { path: source, writable: !read_only });
        self.extra.push(MountSpec {
            target: target.as_os_str().as_bytes().to_vec(),
            source: MountSource::Gofer { tree, overlay: false },
            read_only,
        });
        Ok(())
    }

    /// Parents are mounted before what lies in them, whatever the order on the command line.
    fn finish(mut self) -> (Vec<Tree>, Vec<MountSpec>) {
        self.extra.sort_by_key(|mount| mount.target.iter().filter(|b| **b == b'/').count());
        self.mounts.append(&mut self.extra);
        (self.trees, self.mounts)
    }
}

fn existing(path: &Path, option: &str) -> Result<PathBuf, Failure> {
    std::fs::canonicalize(path).map_err(|e| {
        Failure::host(&format!("{option} {}: cannot use this path", path.display()), e)
    })
}

fn directory(path: &Path, option: &str) -> Result<PathBuf, Failure> {
    let path = existing(path, option)?;
    if !path.is_dir() {
        return Err(Failure::new(format!("{option} {}: not a directory", path.display())));
    }
    Ok(path)
}

/// Without `.` and `..`: mount points are named, not walked to.
fn normalized(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// `K=V` sets; as soon as a bare `K` occurs, only the named variables are passed on.
fn environment(
    options: &[OsString],
    caller: impl Iterator<Item = (OsString, OsString)>,
) -> Vec<Vec<u8>> {
    let named: Vec<&OsString> = options.iter().filter(|o| !o.as_bytes().contains(&b'=')).collect();
    let mut env: Vec<Vec<u8>> = caller
        .filter(|(key, _)| named.is_empty() || named.contains(&key))
        .map(|(key, value)| [key.as_bytes(), b"=", value.as_bytes()].concat())
        .collect();
    for option in options {
        let option = option.as_bytes();
        let Some(equals) = option.iter().position(|byte| *byte == b'=') else { continue };
        let key = option.get(..=equals).unwrap_or(option);
        env.retain(|entry| !entry.starts_with(key));
        env.push(option.to_vec());
    }
    if !env.iter().any(|entry| entry.starts_with(b"PATH=")) {
        env.push(DEFAULT_PATH.into());
    }
    env
}

fn working_directory(option: Option<PathBuf>, has_rootfs: bool) -> Vec<u8> {
    let here = std::env::current_dir().ok().filter(|_| !has_rootfs);
    let here = here.unwrap_or_else(|| PathBuf::from("/"));
    let dir = option.map_or_else(|| here.clone(), |dir| normalized(&here.join(dir)));
    dir.into_os_string().into_vec()
}

/// The umask can only be read by setting it; nobody else runs yet.
fn current_umask() -> u32 {
    let umask = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(umask);
    umask.bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(texts: &[&str]) -> Vec<OsString> {
        texts.iter().map(OsString::from).collect()
    }

    fn caller() -> impl Iterator<Item = (OsString, OsString)> {
        [("PATH", "/bin"), ("A", "1"), ("B", "2")].into_iter().map(|(k, v)| (k.into(), v.into()))
    }

    #[test]
    fn environment_is_carried_over_and_options_win() {
        let env = environment(&os(&["A=9"]), caller());
        assert_eq!(env, [&b"PATH=/bin"[..], b"B=2", b"A=9"]);
    }

    #[test]
    fn a_bare_name_limits_the_environment_to_the_named() {
        let env = environment(&os(&["B", "C=3"]), caller());
        assert_eq!(env, [&b"B=2"[..], b"C=3", DEFAULT_PATH.as_bytes()]);
    }

    #[test]
    fn mount_options_are_checked_and_ordered_by_depth() {
        let mut layout = Layout::new("/".into());
        layout.add_mount(OsStr::new("/tmp:/a/b/../c:ro")).expect("well formed");
        layout.add_mount(OsStr::new("/tmp:/x")).expect("well formed");
        for bad in ["/tmp", "/tmp:rel", "/tmp:/x:zz", "/tmp:/x:ro:y", "/no/such/dir:/x"] {
            assert!(layout.add_mount(OsStr::new(bad)).is_err(), "{bad}");
        }
        let (trees, mounts) = layout.finish();
        assert_eq!(trees.len(), 3);
        let targets: Vec<_> = mounts.iter().skip(6).map(|m| m.target.clone()).collect();
        assert_eq!(targets, [b"/x".to_vec(), b"/a/c".to_vec()]);
    }
}
