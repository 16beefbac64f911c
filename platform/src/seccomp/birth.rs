//! Contexts that make contexts: fork and threads.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::task::Poll;

use shim_abi::{op, sleep, state};

use super::context::SeccompContext;
use super::ops::RawOp;
use super::orders::{Arrival, Order};
use super::thread::Thread;
use crate::{Context, HostOp, NewContext, PlatformError};

impl SeccompContext {
    /// Orders the creation of a thread or process and waits until it has said hello.
    async fn create(&mut self, order: &Order, raw: RawOp) -> Result<Arrival, PlatformError> {
        poll_fn(|cx| self.poll_rest(cx)).await?;
        self.shared.cool_down();
        let flags = match raw.nr {
            op::FORK => shim_abi::PROCESS_CLONE_FLAGS,
            _ => shim_abi::THREAD_CLONE_FLAGS,
        };
        self.thread.may_clone.store(flags, SeqCst);
        self.order(raw)?;
        let (mut is_done, mut arrival) = (false, None);
        poll_fn(|cx| {
            if arrival.is_none() {
                arrival = match order.poll(cx, &self.process) {
                    Poll::Ready(arrived) => Some(arrived?),
                    Poll::Pending => None,
                };
            }
            if !is_done && let Poll::Ready(done) = self.poll_done(cx) {
                let (_, errno, claimed) = done?;
                if let Some(errno) = errno {
                    return Poll::Ready(Err(PlatformError::Exhausted(errno)));
                }
                // Mostly the hello was heard before.
                if arrival.is_none() {
                    self.shared.watch_order(order, i32::try_from(claimed).unwrap_or(0));
                }
                is_done = true;
            }
            match arrival.take_if(|_| is_done) {
                Some(arrival) => Poll::Ready(Ok(arrival)),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// A context for a new thread or copy that has just arrived; its vector state is ours.
    fn newborn(&self, thread: Arc<Thread>, new: &NewContext) -> Result<Self, PlatformError> {
        if self.is_fast() {
            return Ok(Self::new_fast(&self.shared, thread, new.regs));
        }
        Self::new(&self.shared, thread, new.regs, &self.xstate_or_initial())
            .ok_or_else(|| PlatformError::Broken("no room for a frame".to_owned()))
    }

    /// Gives a new context what it inherits.
    fn adopt(&self, child: &mut Self, new: &NewContext) {
        child.fs_base = new.fs_base.unwrap_or(self.fs_base);
        child.gs_base = self.gs_base;
    }

    pub(super) async fn do_fork(
        &mut self,
        new: NewContext,
    ) -> Result<Box<dyn Context>, PlatformError> {
        // The child is to see what this call wrote so far.
        self.flush_windows();
        let region = self.shared.take_region().map_err(PlatformError::Exhausted)?;
        let order = self.shared.order_process(&self.thread);
        // The descriptor of the child's channel: it inherits it.
        let raw = RawOp {
            nr: op::FORK,
            args: [order.token(), 0, 0, 0, 0, 0],
            file: Some(Arc::clone(region.fd())),
            loan: None,
        };
        let arrival = self.create(&order, raw).await?;
        let thread = self.shared.adopt_process(arrival, region, order.token(), false)?;
        thread.process().inherit_held(&self.process);
        let mut child = self.newborn(thread, &new)?;
        self.adopt(&mut child, &new);
        if let Some(base) = new.fs_base.filter(|base| *base != self.fs_base) {
            child.deferred.push_back(HostOp::SetFsBase(base));
        }
        Ok(Box::new(child))
    }

    pub(super) async fn do_clone_thread(
        &mut self,
        new: NewContext,
    ) -> Result<Box<dyn Context>, PlatformError> {
        let (slot, predecessor) = self.process.take_slot().map_err(PlatformError::Exhausted)?;
        if let Some(predecessor) = predecessor {
            self.shared.forget_thread(&predecessor);
        }
        let head = slot.head();
        head.alive.store(1, Relaxed);
        head.asleep.store(sleep::AWAKE, Relaxed);
        // Of the slot's last thread.
        slot.fast().answered.store(0, Relaxed);
        slot.fast().has_mask.store(0, Relaxed);
        slot.fast().actions_version.store(0, Relaxed);
        slot.fast().lends.store(0, Relaxed);
        head.state.store(state::POSTED, SeqCst);
        let order = self.shared.order_thread(&self.thread);
        let fs_base = new.fs_base.unwrap_or(self.fs_base);
        let args = [u64::from(slot.index()), order.token(), fs_base, 0, 0, 0];
        let raw = RawOp::new(op::CLONE_THREAD, args);
        let arrival = match self.create(&order, raw).await {
            Ok(arrival) => arrival,
            Err(error) => {
                self.process.return_slot(slot);
                return Err(error);
            }
        };
        let thread = Thread::new(&self.process, arrival.tid, slot);
        thread.hold_hello(arrival.notification, false);
        let mut child = self.newborn(thread, &new)?;
        self.adopt(&mut child, &new);
        Ok(Box::new(child))
    }
}
