//! What the guest says: events and answers, out of its slot.

use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context as TaskContext, Poll, Waker};

use abi::Errno;
use abi::arch::Registers;
use shim_abi::{MAX_OPS, MAX_TRAPS, kind, sleep};

use super::super::descriptors::read_note;
use super::super::frame;
use super::{Dirty, FAST_CONTEXT, Post, SeccompContext};
use crate::{Context, Event, Fault, PlatformError, Trapped};

/// So many traps are remembered from one call to the next.
const MOST_TRAPS: usize = 4 * MAX_TRAPS;

impl SeccompContext {
    /// Waits until the slot is posted and takes what it says.
    pub(super) fn poll_post(
        &mut self,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<Post, PlatformError>> {
        if std::mem::take(&mut self.is_sent)
            && self.waker.as_ref().is_some_and(|known| known.will_wake(cx.waker()))
            && !self.process.is_dead()
            && !self.shared.linger(&self.thread)
        {
            // Whoever finds a post, or the process dead, wakes us from now on. Not looked at: the guest is about to write to
            // that line.
            return Poll::Pending;
        }
        if !self.thread.is_posted() {
            self.set_waker(cx.waker());
            // Again: it may have been posted, or died, before the waker was there.
            if !self.thread.is_posted() {
                if self.process.is_dead() {
                    self.shared.unawait(&self.thread);
                    return Poll::Ready(Err(self.process.death()));
                }
                return Poll::Pending;
            }
        }
        self.shared.note_taken(&self.thread);
        if self.process.is_dead() {
            self.shared.unawait(&self.thread);
            return Poll::Ready(Err(self.process.death()));
        }
        Poll::Ready(self.take_post())
    }

    /// From now on the thread wakes this one.
    fn set_waker(&mut self, waker: &Waker) {
        self.thread.set_waker(waker);
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            None => self.waker = Some(waker.clone()),
        }
    }

    /// Copies out once and checks.
    fn take_post(&mut self) -> Result<Post, PlatformError> {
        if self.closing != 0 {
            self.process.loans().closed(std::mem::take(&mut self.closing));
        }
        let head = self.head();
        let mut word = head.word.load(Relaxed);
        if word & kind::MARKS != 0 {
            let marks = word & kind::MARKS;
            word &= !kind::MARKS;
            self.thread.slot().fast().noted.store(0, Relaxed);
            if marks & kind::NOTED != 0 {
                self.read_notes()?;
            }
            if marks & kind::TRAPPED != 0 {
                self.read_traps()?;
            }
        }
        let head = self.head();
        let what = word & kind::MASK;
        if what == kind::CALL {
            // The rest of the slot is on other cache lines.
            return Ok(Post::Call { offered: word >> kind::POINTERS_SHIFT });
        }
        let (done, errno) = (head.ops_done.load(Relaxed), head.errno.load(Relaxed));
        let errno = match i32::try_from(errno) {
            Ok(0) => None,
            Ok(raw) => Some(Errno::from_raw(raw)),
            Err(_) => return Err(self.broken("impossible errno")),
        };
        let done = done as usize;
        if matches!(what, kind::OPS_DONE | kind::DEFER_FAILED) && done > MAX_OPS {
            return Err(self.broken("impossible count of operations"));
        }
        match (what, errno) {
            (kind::SIGNAL, _) => {
                let (signal, frame) = (head.signal.load(Relaxed), head.frame.load(Relaxed));
                Ok(Post::Signal { signal, frame: u64::from(frame) })
            }
            (kind::OPS_DONE, errno) => {
                Ok(Post::Done { done, errno, result: head.result.load(Relaxed) })
            }
            (kind::KICKED, _) => Ok(Post::Kicked),
            (kind::COPY_FAILED, _) => Ok(Post::CopyFailed),
            (kind::DEFER_FAILED, Some(errno)) => Ok(Post::DeferFailed { done, errno }),
            _ => Err(self.broken("unknown event")),
        }
    }

    /// What the shim did on its own before this event.
    fn read_notes(&mut self) -> Result<(), PlatformError> {
        let fast = self.thread.slot().fast();
        let count = fast.note_count.swap(0, Relaxed);
        let count = usize::try_from(count).ok().filter(|count| *count <= shim_abi::ALL_NOTES);
        let Some(count) = count else { return Err(self.broken("impossible count of notes")) };
        let more = self.process.loans().slot().map_or(&[][..], |slot| slot.more_notes());
        let written = fast.notes.iter().chain(more).take(count);
        let notes: Vec<_> =
            written.map(|note| note.0.each_ref().map(|word| word.load(Relaxed))).collect();
        for words in notes {
            let Some(note) = read_note(words) else { return Err(self.broken("unknown note")) };
            if let Some(told) = &mut self.told {
                told.follow(&note);
            }
            self.notes.push(note);
        }
        Ok(())
    }

    /// Which calls came by a signal before this event, and went on as if their sites were rewritten.
    fn read_traps(&mut self) -> Result<(), PlatformError> {
        let fast = self.thread.slot().fast();
        let count = fast.trap_count.swap(0, Relaxed);
        let count = usize::try_from(count).ok().filter(|count| *count <= MAX_TRAPS);
        let Some(count) = count else { return Err(self.broken("impossible count of traps")) };
        for words in fast.traps.iter().take(count) {
            let [behind, number] = words.each_ref().map(|word| word.load(Relaxed));
            // Nobody has taken the last ones: they are no matter.
            if self.traps.len() < MOST_TRAPS {
                self.traps.push(Trapped { behind, number });
            }
        }
        Ok(())
    }

    /// Registers and cause out of a signal's frame.
    pub(in super::super) fn take_signal(
        &mut self,
        signal: u32,
        at: u64,
    ) -> Result<Event, PlatformError> {
        let slot = self.thread.slot();
        let in_stack = (shim_abi::STACK_OFFSET..=frame::LAST).contains(&at);
        let Some(regs) = frame::read_registers(slot, at).filter(|_| in_stack) else {
            return Err(self.broken("frame outside of its slot"));
        };
        self.frame = at;
        self.regs = regs;
        self.lacks_rest = false;
        self.dirty = Dirty::No;
        self.is_fast = false;
        self.take_bases();
        match i32::try_from(signal).unwrap_or(0) {
            libc::SIGSYS => Ok(Event::Syscall),
            shim_abi::KICK_SIGNAL => Ok(Event::Interrupted),
            libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL | libc::SIGTRAP => {
                let Some(info) = frame::read_fault(self.thread.slot(), at) else {
                    return Err(self.broken("frame outside of its slot"));
                };
                Ok(Event::Fault(Fault {
                    signal: signal as u8,
                    code: info.code,
                    addr: info.addr,
                    trapno: info.trapno,
                    err: info.err,
                    cr2: info.cr2,
                }))
            }
            _ => Err(self.broken("unknown signal")),
        }
    }

    /// The bases of fs and gs as of a signal.
    pub(in super::super) fn take_bases(&mut self) {
        if self.shared.has_fsgsbase {
            self.fs_base = self.head().fs_base.load(Relaxed);
            self.gs_base = self.guest_gs(self.head().gs_base.load(Relaxed));
        }
    }

    /// Registers of an event without a signal.
    pub(in super::super) fn take_fast(&mut self) {
        let call = self.head().call.each_ref().map(|word| word.load(Relaxed));
        self.regs = frame::with_call(Registers::default(), call);
        self.lacks_rest = true;
        self.frame = FAST_CONTEXT;
        self.dirty = Dirty::No;
        self.is_fast = true;
    }

    /// Of a call that was a wait on the host: it stays counted until its thread is in the sentry's queue.
    fn note_ended_wait(&mut self) {
        let asleep = &self.head().asleep;
        if asleep.load(Relaxed) != sleep::AWAKE
            && asleep.swap(sleep::AWAKE, Relaxed) == sleep::INTERRUPTED
        {
            self.ended_wait = Some(self.regs.rdi);
        }
    }

    /// The answer to a `settle`: a signal of the shim's own, with the guest's registers but for `rip`.
    pub(in super::super) fn poll_settled(
        &mut self,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<(), PlatformError>> {
        self.poll_post(cx).map(|post| {
            self.is_settling = false;
            let Post::Signal { signal, frame } = post? else {
                return Err(self.broken("answer to no order"));
            };
            if i32::try_from(signal) != Ok(libc::SIGTRAP) {
                return Err(self.broken("another signal than ordered"));
            }
            let regs = *self.regs();
            self.take_signal(signal, frame)?;
            *self.regs_mut() = regs;
            Ok(())
        })
    }

    /// Waits for what a dropped future has left behind.
    pub(in super::super) fn poll_rest(
        &mut self,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<(), PlatformError>> {
        if self.is_settling {
            return self.poll_settled(cx);
        }
        if self.is_executing {
            return self.poll_done(cx).map(|done| done.map(|_| ()));
        }
        Poll::Ready(Ok(()))
    }

    /// The answer to an `execute`.
    pub(in super::super) fn poll_done(
        &mut self,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<(usize, Option<Errno>, u64), PlatformError>> {
        self.poll_post(cx).map(|post| {
            self.is_executing = false;
            match post? {
                Post::Done { done, errno, result } => Ok((done, errno, result)),
                _ => Err(self.broken("a signal while it executed operations")),
            }
        })
    }

    /// As `poll_event`, which also notes that the guest stands still.
    pub(in super::super) fn poll_any_event(
        &mut self,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<Event, PlatformError>> {
        if self.owes_resume {
            match self.poll_rest(cx) {
                Poll::Ready(Ok(())) => {
                    self.owes_resume = false;
                    self.resume();
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        loop {
            let post = match self.poll_post(cx) {
                Poll::Ready(Ok(post)) => post,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            };
            let failed = match post {
                Post::Signal { signal, frame } => {
                    return Poll::Ready(self.take_signal(signal, frame));
                }
                Post::Call { offered } => {
                    self.take_fast();
                    self.note_ended_wait();
                    let slot = self.thread.slot();
                    self.has_windows = self.thread.windows.open(slot, &self.call(), offered);
                    return Poll::Ready(Ok(Event::Syscall));
                }
                Post::CopyFailed => {
                    self.take_fast();
                    self.set_return(Errno::EFAULT.to_return());
                    self.resume();
                    continue;
                }
                Post::Kicked => {
                    self.take_fast();
                    return Poll::Ready(Ok(Event::Interrupted));
                }
                Post::Done { done, errno: None, .. } if self.is_partial => {
                    self.deferred_done += done;
                    let answer = std::mem::take(&mut self.answer);
                    self.send_deferred(answer);
                    continue;
                }
                Post::Done { done, errno: Some(errno), .. } if self.is_partial => (done, errno),
                Post::DeferFailed { done, errno } => (done, errno),
                Post::Done { .. } => return Poll::Ready(Err(self.broken("answer to no order"))),
            };
            self.deferred.clear();
            self.is_partial = false;
            if self.is_fast && self.dirty == Dirty::No {
                // The result perhaps was to go with what failed.
                self.dirty = Dirty::Return;
            }
            let index = self.deferred_done + failed.0;
            return Poll::Ready(Ok(Event::DeferredFailed { index, errno: failed.1 }));
        }
    }
}
