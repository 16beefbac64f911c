//! What the launcher hands to the sentry.

use std::os::fd::OwnedFd;

use base::cred::Credentials;

/// Everything about one sandbox. Descriptors are owned; nothing else of the host is touched.
pub struct Config {
    /// argv[0]..; the first is also what is looked up (a path, or a name in the guest's PATH).
    pub args: Vec<Vec<u8>>,
    /// `KEY=VALUE` strings.
    pub env: Vec<Vec<u8>>,
    /// Absolute path in the guest's tree.
    pub cwd: Vec<u8>,
    pub cred: Credentials,
    pub umask: u32,
    /// The first is "/"; in mount order.
    pub mounts: Vec<MountSpec>,
    /// SOCK_SEQPACKET connections to the gofer.
    pub gofer: Vec<OwnedFd>,
    /// The guest's descriptors 0..3; `None` when closed. A descriptor that is the host's terminal is `Stdio::Console`.
    pub stdio: [Stdio; 3],
    /// The host's terminal, in raw mode already; the guest gets a pty of ours as its controlling terminal.
    pub console: Option<Console>,
    /// SOCK_SEQPACKET to the supervisor; see `control`.
    pub control: OwnedFd,
    /// Bytes of guest memory allowed in all; `None` is what the host has.
    pub memory_limit: Option<u64>,
    /// Threads allowed at once.
    pub pids_limit: Option<u32>,
    pub hostname: Vec<u8>,
    /// Where --strace lines go.
    pub strace: Option<OwnedFd>,
    /// Where --stats goes.
    pub stats: Option<OwnedFd>,
    /// Whether call sites may be rewritten, where the platform can.
    pub may_rewrite: bool,
    /// Facts of the host that the guest may see, read before confinement.
    pub host: HostFacts,
    /// Locks the sentry in (namespaces, filesystem, seccomp); called once everything is set up and before the
    /// first guest instruction. An error ends the sandbox.
    pub confine: Box<dyn FnOnce() -> Result<(), String> + Send>,
}

/// One of the guest's first descriptors.
pub enum Stdio {
    Closed,
    Console,
    Host(OwnedFd),
}

/// See [`Config::console`].
pub struct Console {
    pub input: OwnedFd,
    pub output: OwnedFd,
    pub rows: u16,
    pub cols: u16,
    /// Termios of the host's terminal before raw mode (`struct termios` of the kernel), for the guest's pty.
    pub termios: Vec<u8>,
}

/// A mount to make at boot.
pub struct MountSpec {
    pub target: Vec<u8>,
    pub source: MountSource,
    pub read_only: bool,
}

/// What is mounted.
pub enum MountSource {
    /// Tree number `tree` of the gofer; `overlay`: an in-memory upper layer takes the writes.
    Gofer {
        tree: u16,
        overlay: bool,
    },
    Tmpfs {
        size_limit: Option<u64>,
    },
    Proc,
    Dev,
    DevPts,
    Sys,
}

/// See [`Config::host`].
#[derive(Debug, Default)]
pub struct HostFacts {
    /// Host's /proc/cpuinfo, as it is; read when the guest asks for it, which few programs do.
    pub cpuinfo: Option<OwnedFd>,
    pub cpus: u32,
    /// In bytes.
    pub mem_total: u64,
    pub swap_total: u64,
    /// uname -r of the ABI that we offer.
    pub kernel_release: String,
}

/// How the sandbox's first process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Exited(u8),
    Signaled(u8),
    /// Our own failure: exit code (125, 126, 127) and one line for the user.
    Failed {
        code: u8,
        message: String,
    },
}
