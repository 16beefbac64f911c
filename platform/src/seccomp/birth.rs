//! Contexts that make contexts: fork and threads.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::task::Poll;

use shim_abi::{op, sleep, state};

use super::chain::ROAMS;
use super::context::SeccompContext;
use super::ops::RawOp;
use super::orders::{Arrival, Order};
use super::region::SlotRef;
use super::thread::Thread;
use crate::{Context, HostOp, NewContext, PlatformError};

impl SeccompContext {
    /// Orders the creation of a thread or process and waits until it has said hello. Also tells which place (see `chain`) it
    /// has inherited.
    async fn create(&mut self, order: &Order, raw: RawOp) -> Result<(Arrival, u32), PlatformError> {
        poll_fn(|cx| self.poll_rest(cx)).await?;
        let is_helped = self.shared.begin_birth(&self.thread);
        let mut created = self.order_creation(order, raw).await;
        if is_helped {
            self.shared.end_birth(self.thread.tid());
            self.thread.place.store(ROAMS, Relaxed);
            if let Ok((arrival, place)) = &mut created {
                *place = ROAMS;
                self.shared.end_birth(arrival.tid);
            }
        }
        created
    }

    async fn order_creation(
        &mut self,
        order: &Order,
        raw: RawOp,
    ) -> Result<(Arrival, u32), PlatformError> {
        let flags = match raw.nr {
            op::FORK => shim_abi::PROCESS_CLONE_FLAGS,
            _ => shim_abi::THREAD_CLONE_FLAGS,
        };
        self.thread.may_clone.store(flags, SeqCst);
        self.order(raw)?;
        let place = self.thread.place.load(Relaxed);
        let (mut is_done, mut arrival) = (false, None);
        let arrived: Result<_, PlatformError> = poll_fn(|cx| {
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
        .await;
        Ok((arrived?, place))
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

    /// Takes what many programs map, for the copies, which mostly become such a program: given to each of them it would cost more.
    async fn equip(&mut self) -> Result<(), PlatformError> {
        let known = self.process.news.load(Relaxed);
        let Some((version, files)) = self.shared.pool.common().news(known) else { return Ok(()) };
        self.process.news.store(version, Relaxed);
        let is_new = |file: &Arc<OwnedFd>| self.process.held(file).is_none();
        let ops: VecDeque<_> =
            files.into_iter().filter(is_new).map(|fd| HostOp::Hold { fd }).collect();
        // What cannot be had is done without.
        self.execute_queue(ops).await.map(drop)
    }

    pub(super) async fn do_fork(
        &mut self,
        new: NewContext,
    ) -> Result<Box<dyn Context>, PlatformError> {
        // The child is to see what this call wrote so far.
        self.flush_windows();
        self.equip().await?;
        let region = self.shared.take_region().map_err(PlatformError::Exhausted)?;
        let order = self.shared.order_process(&self.thread);
        // The descriptor of the child's channel: it inherits it.
        let raw = RawOp {
            nr: op::FORK,
            args: [order.token(), 0, 0, 0, 0, 0],
            file: Some(Arc::clone(region.fd())),
            loan: None,
        };
        let (arrival, place) = self.create(&order, raw).await?;
        let thread = self.shared.adopt_process(arrival, region, order.token())?;
        thread.place.store(place, Relaxed);
        thread.process().inherit_held(&self.process);
        let mut child = self.newborn(thread, &new)?;
        self.adopt(&mut child, &new);
        if let Some(base) = new.fs_base {
            child.deferred.push_back(HostOp::SetFsBase(base));
        }
        Ok(Box::new(child))
    }

    pub(super) async fn do_clone_thread(
        &mut self,
        new: NewContext,
    ) -> Result<Box<dyn Context>, PlatformError> {
        if let Some(child) = self.rouse(&new) {
            return Ok(Box::new(child));
        }
        let (slot, predecessor) = self.process.take_slot().map_err(PlatformError::Exhausted)?;
        if let Some(predecessor) = predecessor {
            self.shared.forget_thread(&predecessor);
        }
        let head = slot.head();
        head.alive.store(1, Relaxed);
        forget_predecessor(&slot);
        head.state.store(state::POSTED, SeqCst);
        let order = self.shared.order_thread(&self.thread);
        // Guest code may have changed its own meanwhile.
        let own = if self.shared.has_fsgsbase { shim_abi::INHERIT_FS } else { self.fs_base };
        let fs_base = new.fs_base.unwrap_or(own);
        let args = [u64::from(slot.index()), order.token(), fs_base, 0, 0, 0];
        let raw = RawOp::new(op::CLONE_THREAD, args);
        let (arrival, place) = match self.create(&order, raw).await {
            Ok(arrived) => arrived,
            Err(error) => {
                self.process.return_slot(slot);
                return Err(error);
            }
        };
        let thread = Thread::new(&self.process, arrival.tid, slot);
        thread.hold_hello(arrival.notification);
        thread.place.store(place, Relaxed);
        let mut child = self.newborn(thread, &new)?;
        self.adopt(&mut child, &new);
        Ok(Box::new(child))
    }

    /// A new context for a host thread that rests, if there is one.
    fn rouse(&mut self, new: &NewContext) -> Option<Self> {
        let xstate = self.kept_xstate()?;
        let resting = self.process.take_resting()?;
        // Guest code may have changed its own meanwhile.
        self.take_bases();
        let thread = Arc::clone(&resting.thread);
        forget_predecessor(thread.slot());
        let Some(mut child) = Self::rouse_thread(&self.shared, resting, new.regs, &xstate) else {
            self.process.leave(&thread);
            return None;
        };
        self.adopt(&mut child, new);
        let bases = [HostOp::SetFsBase(child.fs_base), HostOp::SetGsBase(child.gs_base)];
        for op in bases {
            child.defer(op);
        }
        Some(child)
    }

    /// Our vector state, as in a frame; after a call without a signal only if that has left it in our slot.
    fn kept_xstate(&self) -> Option<Vec<u8>> {
        if !self.is_fast() {
            return Some(self.xstate_or_initial());
        }
        if !shim_abi::keeps_state(self.call().number) {
            return None;
        }
        let mut bytes = vec![0; self.shared.template.xstate_size()];
        self.thread.slot().copy_out(shim_abi::STATE_OFFSET, &mut bytes)?;
        self.shared.template.framed(bytes)
    }
}

/// Makes nothing hold for a new thread that held for its slot's last one.
fn forget_predecessor(slot: &SlotRef) {
    slot.head().asleep.store(sleep::AWAKE, Relaxed);
    slot.fast().answered.store(0, Relaxed);
    slot.fast().has_mask.store(0, Relaxed);
    slot.fast().actions_version.store(0, Relaxed);
    slot.fast().heap.end.store(0, Relaxed);
    slot.fast().heap.limit.store(0, Relaxed);
    slot.fast().is_alone.store(0, Relaxed);
    slot.fast().noted.store(0, Relaxed);
    slot.fast().note_count.store(0, Relaxed);
    slot.fast().trap_count.store(0, Relaxed);
    slot.fast().stack_limit[1].store(0, Relaxed);
    slot.fast().lends.store(0, Relaxed);
    slot.fast().knows.store(0, Relaxed);
}
