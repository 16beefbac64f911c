//! The sandbox's first process: pid 1, leader of its own session and process group.

use std::sync::Arc;

use abi::{Errno, Result};
use base::lock::Mutex;
use platform::Context;

use crate::kernel::Kernel;
use crate::signal::{Actions, ThreadSignals};
use crate::task::rlimits::Rlimits;
use crate::task::{Attrs, Image, Links, NewGroup, Parts, Thread, ThreadGroup};
use crate::thread_loop;

/// What the first process starts with.
pub struct FirstProcess {
    pub parts: Parts,
    pub limits: Rlimits,
    pub image: Image,
    pub comm: Vec<u8>,
}

/// Makes the first process and its thread, without running it (so that a terminal can be given to its session).
///
/// # Errors
/// `EAGAIN` when not even one thread is allowed.
pub fn make_first(kernel: &Arc<Kernel>, first: FirstProcess) -> Result<Arc<Thread>> {
    let tid = kernel.tasks.reserve()?;
    if tid != super::exit::INIT {
        return Err(Errno::EAGAIN);
    }
    let group = ThreadGroup::new(NewGroup {
        tgid: tid,
        links: Links { parent: abi::ids::Tid(0), pgid: tid, sid: tid },
        exit_signal: 0,
        creator: abi::ids::Tid(0),
        limits: first.limits,
        image: first.image,
        actions: Arc::new(Mutex::new(Actions::default())),
    });
    let mut attrs = Attrs::new(kernel.host.cpus);
    attrs.set_comm(&first.comm);
    let thread = Thread::new(tid, Arc::clone(&group), first.parts, attrs, ThreadSignals::default());
    let mut tables = kernel.tasks.lock();
    tables.insert_group(&group);
    group.signals.lock().threads.push(Arc::clone(&thread));
    tables.insert_thread(&thread);
    Ok(thread)
}

/// Makes the first process and lets it run in `context`.
///
/// # Errors
/// Of [`make_first`].
pub fn start_first(
    kernel: &Arc<Kernel>,
    first: FirstProcess,
    context: Box<dyn Context>,
) -> Result<Arc<Thread>> {
    let thread = make_first(kernel, first)?;
    thread.set_context(&*context);
    thread_loop::spawn(kernel, &thread, context);
    Ok(thread)
}
