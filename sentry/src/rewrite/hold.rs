//! Stopping all other threads of an address space for the time of a change to its text.
//!
//! `held` of a thread's [`RunState`](crate::task::run_state) is set before it is interrupted once; on its way back to
//! guest code it sees that and waits here. The protocol is that of `attention`: the thread says `in_guest`, then looks;
//! the holder says `held`, then looks whether guest code runs.

use std::sync::Arc;

use abi::poll::PollEvents;
use platform::Context;

use crate::executor::notify::wait_until;
use crate::kernel::Kernel;
use crate::mm::Mm;
use crate::task::Thread;

/// Threads that stand still until this is dropped.
pub struct Held(Vec<Arc<Thread>>);

/// Stops everybody in `mm` but `caller`; `None` when there were more than could be found: one is just being made.
/// The caller holds the layout, so that nobody else does the same.
pub async fn hold_others(kernel: &Kernel, mm: &Arc<Mm>, caller: &Arc<Thread>) -> Option<Held> {
    if mm.is_alone() {
        return Some(Held(Vec::new()));
    }
    let users = mm.users();
    let mut held = Held(Vec::new());
    for group in kernel.tasks.all_groups() {
        for thread in group.threads() {
            let is_here = thread.mm_if_alive().is_some_and(|other| Arc::ptr_eq(&other, mm));
            if is_here && !Arc::ptr_eq(&thread, caller) {
                thread.run.set_held(true);
                held.0.push(thread);
            }
        }
    }
    for thread in &held.0 {
        if let Some(exits) = thread.run.begin_pass() {
            thread.run.finish_pass(exits).await;
        }
    }
    (mm.users() == users && held.0.len() as u64 + 1 == u64::from(users)).then_some(held)
}

impl Drop for Held {
    fn drop(&mut self) {
        for thread in &self.0 {
            thread.run.set_held(false);
        }
    }
}

/// Waits until nobody holds the thread; then it goes on where its text was moved to.
pub async fn wait_while_held(thread: &Thread, context: &mut dyn Context) {
    wait_until(thread.run.released(), PollEvents::IN, || (!thread.run.is_held()).then_some(()))
        .await;
    let rip = context.regs().rip;
    let moved = thread.mm().with_state(|state| state.rewritten(rip));
    if moved != rip {
        context.regs_mut().rip = moved;
    }
}
