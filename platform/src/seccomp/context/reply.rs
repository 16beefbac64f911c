//! What the guest is told: registers, operations, the order to go on.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use abi::Errno;
use abi::arch::Registers;
use shim_abi::{op, state};

use super::super::frame;
use super::super::loans::Lending;
use super::super::ops::{RawOp, split_batch};
use super::super::thread::{Donation, Reply};
use super::super::windows::Inline;
use super::{Dirty, NewVectors, SeccompContext};
use crate::{Context, HostOp, Library, LibraryText, PlatformError};

/// First address beyond what user code can have.
const CANONICAL: u64 = 1 << 47;

/// What goes with the reply to a call.
#[derive(Debug, Clone, Copy, Default)]
pub struct Answer {
    /// Bits of [`shim_abi::task`]: what is to be copied out.
    word: u32,
    /// The call's result, when no other register is new.
    returned: Option<u64>,
    /// What is behind it in the slot, with [`shim_abi::task::INLINE`].
    inline: Inline,
}

/// See [`Context::lend_library`].
#[derive(Debug)]
pub enum Lent {
    None,
    Untold(Library),
    Told,
}

impl SeccompContext {
    /// What the guest believes to be the base of gs: the slot's address is our own affair.
    pub(in super::super) fn guest_gs(&self, base: u64) -> u64 {
        if base == self.thread.slot().guest_address() { 0 } else { base }
    }

    /// The other way round.
    pub(in super::super) fn host_op(&self, op: HostOp) -> HostOp {
        match op {
            HostOp::SetGsBase(0) if self.shared.has_fast_entry() => {
                HostOp::SetGsBase(self.thread.slot().guest_address())
            }
            op => op,
        }
    }

    /// Whether registers were set that only a frame can load: a step flag is to count from the first instruction of guest code,
    /// and a jump to where no code can be would fault in the shim.
    pub(in super::super) fn needs_frame(&mut self) -> bool {
        const TRAP_FLAG: u64 = 1 << 8;
        if !self.is_fast || self.dirty != Dirty::All {
            return false;
        }
        let Registers { rip, rflags, .. } = *self.regs();
        rip >= CANONICAL || rflags & TRAP_FLAG != 0
    }

    /// Lets the thread go on once its state is in a frame.
    pub(in super::super) fn settle_first(&mut self) {
        self.flush_windows();
        self.is_settling = true;
        self.owes_resume = true;
        self.send(&[], state::SETTLE, Answer::default());
        // Its answer is to be looked for.
        self.is_sent = false;
    }

    /// Puts new vector state where the guest will load it from.
    pub(in super::super) fn give_vectors(&mut self) {
        let new = std::mem::replace(&mut self.new_vectors, NewVectors::None);
        let slot = self.thread.slot();
        let template = &self.shared.template;
        let is_given = match (new, self.is_fast) {
            (NewVectors::None, _) => return,
            (NewVectors::Initial, true) => {
                self.deferred.push_front(HostOp::ResetVectors);
                return;
            }
            (NewVectors::These(bytes), true) => {
                self.deferred.push_front(HostOp::LoadVectors);
                slot.copy_in(shim_abi::STATE_OFFSET, &bytes)
            }
            (NewVectors::Initial, false) => {
                template.write_xstate(slot, self.frame, template.initial_xstate())
            }
            (NewVectors::These(bytes), false) => template.write_xstate(slot, self.frame, &bytes),
        };
        if is_given.is_none() {
            self.process.fail("broke its channel: vector state outside of its slot");
        }
    }

    /// Puts the registers where the guest will load them from, but for what goes with the reply.
    pub(in super::super) fn give_registers(&mut self) -> Answer {
        let mut answer = Answer::default();
        if std::mem::take(&mut self.has_windows) {
            (answer.word, answer.inline) = self.thread.windows.close(self.thread.slot());
        }
        let (dirty, frame) = (std::mem::replace(&mut self.dirty, Dirty::No), self.frame);
        if dirty == Dirty::No {
            return answer;
        }
        if dirty == Dirty::Return && self.is_fast {
            answer.returned = Some(self.regs.rax);
            return answer;
        }
        let regs = *self.regs();
        let slot = self.thread.slot();
        if self.is_fast {
            for (to, from) in slot.head().call.iter().zip(frame::call_of(&regs)) {
                to.store(from, Relaxed);
            }
        }
        if frame::write_registers(slot, frame, &regs).is_none() {
            self.process.fail("broke its channel: frame outside of its slot");
        }
        answer
    }

    /// Writes operations into the slot and gives it to the guest.
    pub(in super::super) fn send(&mut self, ops: &[RawOp], order: u32, answer: Answer) {
        let head = self.thread.slot().head();
        let mut files: Vec<Donation> = Vec::new();
        let mut loans: Vec<Lending> = Vec::new();
        for (at, (raw, place)) in ops.iter().zip(&head.ops).enumerate() {
            place.nr.store(raw.nr, Relaxed);
            for (from, to) in raw.args.iter().zip(&place.args) {
                to.store(*from, Relaxed);
            }
            let Some(file) = &raw.file else { continue };
            if let Some(loan) = &raw.loan {
                loans.push(Lending { file: Arc::clone(file), loan: Arc::clone(loan) });
                continue;
            }
            if let Some(number) = self.process.held(file) {
                place.args[4].store(u64::from(number), Relaxed);
                continue;
            }
            if raw.nr == op::NOTHING && !self.process.may_hold(file) {
                continue;
            }
            match files.iter_mut().find(|known| Arc::ptr_eq(&known.file, file)) {
                Some(donation) => donation.users.push(at),
                None => files.push(Donation {
                    file: Arc::clone(file),
                    users: vec![at],
                    keep: self.process.may_hold(file),
                }),
            }
        }
        let mut count = ops.len();
        // The last descriptor is the doorbell's return value and closed by the shim unasked.
        let closed = files.len().saturating_sub(1);
        for donation in files.iter_mut().take(closed).filter(|donation| !donation.keep) {
            if let Some(place) = head.ops.get(count) {
                place.nr.store(libc::SYS_close.cast_unsigned(), Relaxed);
                donation.users.push(count);
                count += 1;
            }
        }
        if !files.is_empty() || !loans.is_empty() {
            self.shared.cool_down();
        } else if order == state::RESUME {
            self.shared.heat_up();
        }
        if order == state::RESUME && count != 0 {
            self.thread.expect_ops(count as u32);
        }
        if order == state::RESUME {
            self.tell_library(files.last());
        }
        self.shared.keep_away(&self.thread);
        self.shared.await_thread(&self.thread);
        self.is_sent = true;
        let Answer { word, returned, inline } = answer;
        let reply =
            Reply { state: order, word: word | count as u32, returned, inline, files, loans };
        self.thread.reply(&self.shared.listener, reply);
    }

    /// Takes back what was lent before. The new one is told with the next resume.
    pub(in super::super) fn prepare_library(&mut self, library: Option<Library>) {
        if matches!(self.library, Lent::Told) {
            self.thread.slot().fast().library.end.store(0, Relaxed);
        }
        let library = library.filter(|_| self.process.may_answer());
        self.library = library.map_or(Lent::None, Lent::Untold);
    }

    /// Tells guest code of which file it may map parts, if that is new. `coming`: the file that comes with the doorbell's answer.
    fn tell_library(&mut self, coming: Option<&Donation>) {
        let Lent::Untold(library) = &self.library else { return };
        let is_coming =
            coming.is_some_and(|coming| coming.keep && Arc::ptr_eq(&coming.file, &library.file));
        let file = match self.process.held(&library.file) {
            Some(number) => u64::from(number),
            None if is_coming => shim_abi::FD_OF_RING,
            None => return self.library = Lent::None,
        };
        let words = &self.thread.slot().fast().library;
        let range = match &library.text {
            LibraryText::Plain => 0..0,
            LibraryText::Copy { range, file, area_offset, area, distance } => {
                // It is not there: a call, for no part ends in the midst of a page.
                self.process.held(file).map_or(0..1, |number| {
                    words.text_file.store(u64::from(number), Relaxed);
                    words.area_offset.store(*area_offset, Relaxed);
                    words.area.store(*area, Relaxed);
                    words.distance.store(*distance, Relaxed);
                    range.clone()
                })
            }
            LibraryText::Ask => 0..1,
        };
        let [start, end] = &words.text;
        start.store(range.start, Relaxed);
        end.store(range.end, Relaxed);
        words.file.store(file, Relaxed);
        words.number.store(u64::from(library.number), Relaxed);
        words.start.store(library.range.start, Relaxed);
        words.end.store(library.range.end, Relaxed);
        self.library = Lent::Told;
    }

    /// Sends the next part of the deferred operations, the last one with the order to run.
    pub(in super::super) fn send_deferred(&mut self, answer: Answer) {
        let mut part = split_batch(&mut self.deferred);
        self.is_partial = !self.deferred.is_empty();
        if self.is_partial {
            self.answer = answer;
            self.send(&part, state::EXECUTE, Answer::default());
        } else {
            self.closing = self.process.loans().take_stale();
            if self.closing != 0 {
                let args = [u64::from(self.closing), 0, 0, 0, 0, 0];
                part.push(RawOp::new(op::CLOSE_LOANS, args));
            }
            self.send(&part, state::RESUME, answer);
        }
    }

    /// Executes one batch; how many took effect, why the next did not, the last one's result.
    pub(in super::super) async fn run(
        &mut self,
        ops: &[RawOp],
    ) -> Result<(usize, Option<Errno>, u64), PlatformError> {
        poll_fn(|cx| self.poll_rest(cx)).await?;
        if self.process.is_dead() {
            return Err(self.process.death());
        }
        self.is_executing = true;
        self.send(ops, state::EXECUTE, Answer::default());
        let (done, errno, result) = poll_fn(|cx| self.poll_done(cx)).await?;
        // A close that failed is nothing that the caller asked for.
        if errno.is_some() && done < ops.len() {
            return Ok((done, errno, result));
        }
        Ok((ops.len(), None, result))
    }

    /// Executes operations in order; how many took effect before one failed, and why.
    pub(in super::super) async fn execute_queue(
        &mut self,
        mut queue: VecDeque<HostOp>,
    ) -> Result<Result<(), (usize, Errno)>, PlatformError> {
        let mut total = 0;
        while !queue.is_empty() {
            let part = split_batch(&mut queue);
            self.note_bases(&part);
            let (done, errno, _) = self.run(&part).await?;
            total += done;
            if let Some(errno) = errno {
                return Ok(Err((total, errno)));
            }
        }
        Ok(Ok(()))
    }

    /// Gives one operation to a thread that stands still; its answer is to be polled for.
    pub(in super::super) fn order(&mut self, raw: RawOp) -> Result<(), PlatformError> {
        if self.process.is_dead() {
            return Err(self.process.death());
        }
        self.is_executing = true;
        self.send(&[raw], state::EXECUTE, Answer::default());
        // Its answer is to be looked for: nobody rings for it (rule 8).
        self.is_sent = false;
        Ok(())
    }

    /// One operation that yields a value.
    pub(in super::super) async fn run_one(
        &mut self,
        raw: RawOp,
    ) -> Result<Result<u64, Errno>, PlatformError> {
        let (_, errno, result) = self.run(&[raw]).await?;
        Ok(errno.map_or(Ok(result), Err))
    }

    pub(in super::super) async fn do_settle(&mut self) -> Result<(), PlatformError> {
        poll_fn(|cx| self.poll_rest(cx)).await?;
        if !self.is_fast {
            return Ok(());
        }
        if self.process.is_dead() {
            return Err(self.process.death());
        }
        self.flush_windows();
        self.is_settling = true;
        self.send(&[], state::SETTLE, Answer::default());
        poll_fn(|cx| self.poll_settled(cx)).await
    }

    pub(in super::super) fn note_bases(&mut self, ops: &[RawOp]) {
        for raw in ops {
            match raw.nr {
                op::SET_FS => self.fs_base = raw.args[0],
                op::SET_GS => self.gs_base = self.guest_gs(raw.args[0]),
                _ => {}
            }
        }
    }

    /// Puts what a call's handler wrote where the guest finds it, whatever way its answer goes.
    pub(in super::super) fn flush_windows(&mut self) {
        if std::mem::take(&mut self.has_windows) {
            self.thread.windows.flush(&self.process, self.thread.slot());
        }
    }
}
