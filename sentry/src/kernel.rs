//! The roots of one sandbox.

use std::sync::Arc;

use platform::Platform;

use crate::config::HostFacts;
use crate::syscalls::strace::Tracer;
use crate::task::PidTable;

/// One guest kernel.
pub struct Kernel {
    pub platform: Arc<dyn Platform>,
    pub tasks: PidTable,
    pub host: HostFacts,
    /// Where --strace lines go.
    pub strace: Option<Arc<Tracer>>,
}
