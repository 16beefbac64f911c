//! How readiness of a host descriptor reaches us.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::Result;
use base::WaitQueue;

/// Keeps a registration with the reactor; dropping it ends it.
pub trait ReactorRegistration: Send + Sync {}

/// The sentry's reactor, as far as files need it.
pub trait Reactor: Send + Sync {
    /// Notifies `queue` each time `fd` may have become readable, writable or hung up (edge-triggered; hints only)
    /// until the registration is dropped.
    ///
    /// # Errors
    /// `EPERM` when the host cannot poll this descriptor: it is always ready.
    fn register(&self, fd: Arc<OwnedFd>, queue: WaitQueue) -> Result<Box<dyn ReactorRegistration>>;
}
