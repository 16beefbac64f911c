//! The seccomp platform: user notification, a shim in every guest process.

mod blob;
mod bpf;
mod context;
mod filter;
mod frame;
mod listener;
mod orders;
mod pool;
mod process;
mod region;
mod shared;
mod spin;
mod sys;
mod thread;
mod zygote;

use std::future::poll_fn;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use abi::Errno;

use self::context::SeccompContext;
use self::listener::Wait;
use self::shared::Shared;
use crate::{BoxFuture, Context, Layout, Platform, PlatformError};

/// Choices at start-up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Stubs kept ready for `spawn`.
    pub pool: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { pool: 2 }
    }
}

/// Why the platform cannot start here.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum SetupError {
    #[error("cannot set up guest processes: {0}: {text}", text = .1.text())]
    Host(&'static str, Errno),
    #[error(
        "the host refuses a seccomp filter with a listener ({error}): Linux 5.9 or later is needed, and an outer \
         sandbox that allows seccomp(2)",
        error = std::io::Error::from_raw_os_error(*.0)
    )]
    Filter(i32),
    #[error("the first guest process failed at step {0} of its start")]
    Zygote(i32),
    #[error("the embedded shim is damaged")]
    Blob,
    #[error("this host's signal frames are of an unknown form")]
    Frame,
}

impl SetupError {
    /// A host call failed just now.
    fn host(call: &'static str) -> Self {
        let raw = std::io::Error::last_os_error().raw_os_error();
        Self::Host(call, Errno::from_raw(raw.unwrap_or(libc::EIO)))
    }
}

impl From<SetupError> for PlatformError {
    fn from(error: SetupError) -> Self {
        Self::Broken(error.to_string())
    }
}

/// Guest processes under seccomp user notification.
pub struct SeccompPlatform {
    shared: Arc<Shared>,
    layout: Layout,
}

impl SeccompPlatform {
    /// Starts the zygote. To be called by the thread that lives as long as the sentry does (guest processes die
    /// with it), while it is the only one, with the credentials it will keep and before it gives up its
    /// filesystem.
    ///
    /// # Errors
    /// `Broken`, with what the host lacks.
    #[expect(clippy::new_ret_no_self, reason = "callers see the trait only")]
    pub fn new(config: Config) -> Result<Arc<dyn Platform>, PlatformError> {
        Ok(Arc::new(Self::start(&config)?))
    }

    fn start(config: &Config) -> Result<Self, SetupError> {
        let template = frame::Template::capture()?;
        let global = region::GlobalPage::new().map_err(|e| SetupError::Host("memfd_create", e))?;
        zygote::prepare(&global, spin::shim_spins())?;
        let zygote = zygote::start(&global)?;
        let (hwcap, hwcap2) = rustix::param::linux_hwcap();
        let mut layout = Layout {
            min_addr: shim_abi::MIN_ADDR,
            task_size: shim_abi::TASK_SIZE,
            vdso: None,
            vvar: None,
            hwcap: hwcap as u64,
            hwcap2: hwcap2 as u64,
            minsigstksz: rustix::param::linux_minsigstksz() as u64,
            xstate_size: template.xstate_size(),
        };
        let pool = pool::Pool::new(zygote.pid, zygote.pidfd, config.pool);
        let shared = Shared::new(zygote.listener, template, global, pool)
            .map_err(|e| SetupError::Host("epoll_create1", e))?;
        shared
            .watch(shared.pool.zygote().as_fd(), shared::ZYGOTE_ID)
            .map_err(|e| SetupError::Host("epoll_ctl", e))?;
        // Its first ring asks whether the listener was taken; the second waits for orders.
        let host = |e| SetupError::Host("notification", e);
        let first = shared.listener.receive().map_err(host)?;
        let [_, _, vvar, vdso, end, _] = first.data.args;
        if vdso != 0 {
            layout.vdso = Some(vdso..end);
            layout.vvar = (vvar < vdso).then_some(vvar..vdso);
        }
        shared.listener.send(first.id, 0);
        let second = shared.listener.receive().map_err(host)?;
        shared.on_notification(&second);
        shared.pool.refill(&shared);
        Ok(Self { shared, layout })
    }

    async fn take_stub(&self) -> Result<Box<dyn Context>, PlatformError> {
        let shared = &self.shared;
        let thread = poll_fn(|cx| shared.pool.poll_take(shared, cx)).await?;
        let xstate = shared.template.initial_xstate();
        let regs = frame::initial_registers();
        let context = SeccompContext::new(shared, thread, regs, xstate)
            .ok_or_else(|| PlatformError::Broken("no room for a signal frame".to_owned()))?;
        Ok(Box::new(context))
    }
}

impl Platform for SeccompPlatform {
    fn name(&self) -> &'static str {
        "seccomp"
    }

    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn spawn(&self) -> BoxFuture<'_, Result<Box<dyn Context>, PlatformError>> {
        Box::pin(self.take_stub())
    }

    fn poll(&self) -> bool {
        self.shared.scan()
    }

    fn park(&self) -> Result<(), PlatformError> {
        loop {
            if self.shared.is_broken.load(SeqCst) {
                return Err(PlatformError::Broken("the zygote died".to_owned()));
            }
            if self.shared.look() {
                return Ok(());
            }
            match self.shared.listener.wait() {
                Ok(Wait::Rang(notification)) => {
                    let has_woken = self.shared.on_notification(&notification);
                    if self.shared.awaited_count.load(SeqCst) > 0 {
                        self.shared.listener.hand_over();
                    }
                    if has_woken {
                        return Ok(());
                    }
                }
                Ok(Wait::Unparked) => return Ok(()),
                Err(errno) => {
                    return Err(PlatformError::Broken(format!("listener: {}", errno.text())));
                }
            }
        }
    }

    fn unpark(&self) {
        self.shared.listener.unpark();
    }

    fn death_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.shared.deaths())
    }

    fn reap(&self) {
        self.shared.reap();
    }
}

impl Drop for SeccompPlatform {
    fn drop(&mut self) {
        self.shared.end_all();
        let _ = sys::kill(self.shared.pool.zygote_pid(), libc::SIGKILL);
        let _ = sys::wait_pid(self.shared.pool.zygote_pid());
    }
}
