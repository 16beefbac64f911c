//! The sentry's process: fork into namespaces, give up what is not needed, boot the kernel.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use host::clone::{Child, Namespaces, fork};
use rustix::fs::{Mode, OFlags};
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{Resource, Rlimit};
use sentry::config::{Config, Console, Outcome, Stdio};
use sentry::control::{self, Order};

use super::confine::{self, Identity};
use super::facts;
use super::plan::{Plan, Strace};
use crate::cmd::run::PlatformChoice;
use crate::failure::Failure;

/// What the sentry's process is made from.
pub struct Wiring<'a> {
    pub plan: Plan,
    pub gofer: Vec<OwnedFd>,
    pub control: OwnedFd,
    pub stdio: [Stdio; 3],
    pub console: Option<Console>,
    pub supervisor_end: &'a OwnedFd,
}

/// Namespaces that a process enters itself, once it owns the user namespace (or is root): making them takes the host
/// longer than all else in a fork, time that the supervisor has better use for.
const ENTERED: Namespaces =
    Namespaces::NET.union(Namespaces::IPC).union(Namespaces::UTS).union(Namespaces::MOUNT);

/// Forks the sentry with as many namespaces as the host allows.
pub fn start(wiring: Wiring<'_>) -> Result<Child, Failure> {
    let supervisor_end = wiring.supervisor_end;
    let strace = open_strace(&wiring.plan.strace)?;
    let reply = rustix::io::fcntl_dupfd_cloexec(&wiring.control, 3)
        .map_err(|e| Failure::host("cannot copy a descriptor", e))?;
    let stats = wiring.plan.stats.then(|| rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 3));
    let stats = stats.transpose().map_err(|e| Failure::host("--stats: cannot write", e))?;
    let platform = wiring.plan.platform;
    let config = config_of(wiring, platform, strace, stats);
    let mut keep = descriptors(&config);
    keep.push(reply.as_raw_fd());
    let identity = Identity::of_sentry();
    let mut body = Some(Body { config, platform, reply, identity });
    let mut attempts = vec![Namespaces::PID | Namespaces::USER];
    if rustix::process::geteuid().is_root() {
        attempts.push(Namespaces::PID);
    }
    attempts.push(Namespaces::empty());
    for namespaces in attempts {
        let run = || body.take().map_or(1, |body| body.run(namespaces));
        match fork(namespaces, &keep, run) {
            Ok(child) => {
                host::cpu::start_elsewhere(child.pid);
                finish_namespaces(&child, namespaces, identity)?;
                send(supervisor_end.as_fd(), &Order::Go.encode())
                    .map_err(|e| Failure::host("cannot reach the sentry", e))?;
                return Ok(child);
            }
            Err(error) if namespaces.is_empty() => {
                return Err(Failure::host("cannot start the sentry", error));
            }
            Err(error) => tracing::debug!(?namespaces, %error, "namespaces refused, trying less"),
        }
    }
    Err(Failure::new("cannot start the sentry"))
}

/// What only the parent may do for a new user namespace. On failure the child is collected by its pid.
fn finish_namespaces(
    child: &Child,
    namespaces: Namespaces,
    identity: Identity,
) -> Result<(), Failure> {
    if !namespaces.contains(Namespaces::USER) {
        return Ok(());
    }
    confine::write_id_maps(child.pid, identity).map_err(|error| {
        let _ = rustix::process::pidfd_send_signal(&child.pidfd, rustix::process::Signal::KILL);
        let _ = rustix::process::waitpid(Some(child.pid), rustix::process::WaitOptions::empty());
        Failure::host("cannot map the sentry's user", error)
    })
}

/// The child's side.
struct Body {
    config: Config,
    platform: PlatformChoice,
    reply: OwnedFd,
    identity: Identity,
}

impl Body {
    fn run(self, namespaces: Namespaces) -> i32 {
        super::terminal::disown();
        host::signal::unblock_all();
        let greeted = sentry::greet(&self.config);
        let namespaces =
            if namespaces.is_empty() { namespaces } else { namespaces | ENTERED.enter() };
        // Out of the terminal's reach: its signals are for the supervisor to forward.
        let _ = rustix::process::setsid();
        silence_standard_streams();
        raise_descriptor_limit();
        let Self { config, platform, reply, identity } = self;
        let PlatformChoice { rewrite, answer, spin } = platform;
        // Who traces sees every call.
        let answer = answer && config.strace.is_none();
        let options = platform::seccomp::Config { rewrite, answer, spin, ..Default::default() };
        let outcome = if !received_go(&reply) {
            return 1;
        } else if let Err(error) = greeted {
            let message = format!("cannot reach the gofer: {error}");
            Outcome::Failed { code: 125, message }
        } else if let Err(message) = confine::enter(namespaces, identity) {
            Outcome::Failed { code: 125, message }
        } else {
            match platform::seccomp::SeccompPlatform::begin(options) {
                Ok(platform) => sentry::boot(config, platform),
                Err(error) => Outcome::Failed { code: 125, message: error.to_string() },
            }
        };
        // A supervisor that is gone needs no answer.
        let _ = send(reply.as_fd(), &control::encode_outcome(&outcome));
        0
    }
}

/// Waits until the supervisor has set the namespaces up; false when it died instead.
fn received_go(control: &OwnedFd) -> bool {
    let mut datagram = [0_u8; 16];
    let received = rustix::net::recv(control, &mut datagram[..], RecvFlags::empty());
    let length = received.map_or(0, |(length, _)| length);
    datagram.get(..length).and_then(Order::decode) == Some(Order::Go)
}

fn send(socket: BorrowedFd<'_>, datagram: &[u8]) -> rustix::io::Result<()> {
    rustix::net::send(socket, datagram, SendFlags::NOSIGNAL).map(drop)
}

fn config_of(
    wiring: Wiring<'_>,
    platform: PlatformChoice,
    strace: Option<OwnedFd>,
    stats: Option<OwnedFd>,
) -> Config {
    let Wiring { plan, gofer, control, stdio, console, .. } = wiring;
    Config {
        args: plan.args,
        env: plan.env,
        cwd: plan.cwd,
        cred: plan.cred,
        umask: plan.umask,
        mounts: plan.mounts,
        gofer,
        stdio,
        console,
        control,
        memory_limit: plan.memory,
        pids_limit: plan.pids,
        hostname: plan.hostname,
        strace,
        stats,
        may_rewrite: platform.rewrite,
        host: facts::read(),
        confine: Box::new(crate::policy::install_sentry_filter),
    }
}

fn open_strace(strace: &Strace) -> Result<Option<OwnedFd>, Failure> {
    let opened = match strace {
        Strace::Off => return Ok(None),
        Strace::Stderr => rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3),
        Strace::File(path) => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::from_raw_mode(0o666))
        }
    };
    let name = match strace {
        Strace::File(path) => path.display().to_string(),
        Strace::Off | Strace::Stderr => "standard error".into(),
    };
    opened.map(Some).map_err(|e| Failure::host(&format!("--strace: cannot write {name}"), e))
}

/// Every descriptor the sentry was given.
fn descriptors(config: &Config) -> Vec<RawFd> {
    let stdio = config.stdio.iter().filter_map(|stream| match stream {
        Stdio::Host(fd) => Some(fd),
        Stdio::Closed | Stdio::Console => None,
    });
    let console = config.console.iter().flat_map(|console| [&console.input, &console.output]);
    let own =
        config.gofer.iter().chain(&config.strace).chain(&config.stats).chain([&config.control]);
    let own = own.chain(&config.host.cpuinfo);
    own.chain(stdio).chain(console).map(AsRawFd::as_raw_fd).collect()
}

/// Takes 0 and 1 away from a child that has no business with them; 2 stays, for its last words.
pub fn silence_standard_streams() {
    let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
    else {
        return;
    };
    let _ = rustix::stdio::dup2_stdin(&null);
    let _ = rustix::stdio::dup2_stdout(&null);
}

/// Donated descriptors are many; the guest's own limit is the sentry's to keep.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
}
