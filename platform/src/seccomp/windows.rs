//! A call's small inputs and outputs, which go with it in its slot (`shim/src/marshal.rs`).
//!
//! While a handler is polled, its thread's windows are *current* on the worker: reads and writes of that process's
//! memory look here first. Inputs are a snapshot of the call's start. What is written into an output waits in the slot
//! until the shim copies it out, right before guest code goes on; whoever reads such memory earlier, or writes it by
//! another way, has it written at once (a *flush*).

use std::cell::RefCell;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use abi::arch::Call;
use abi::{Errno, UserAddr};
use parking_lot::Mutex;
use shim_abi::pointers::{Kind, MOST_POINTERS, Places, inline_place, pointers};
use shim_abi::{MAX_COPIES, MOST_INLINE, task};

use super::process::Process;
use super::region::SlotRef;
use super::thread::Thread;
use crate::CallMemory;

thread_local! {
    static CURRENT: RefCell<Option<Arc<Thread>>> = const { RefCell::new(None) };
}

/// A range of guest memory and its place in the slot. Checked: the place lies in the bounce buffer.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    addr: u64,
    len: u64,
    place: u64,
}

impl Window {
    /// Where `addr` is in the slot, when all of `addr..addr + len` is in the window.
    fn place_of(&self, addr: u64, len: u64) -> Option<u64> {
        let inside = addr.checked_sub(self.addr)?;
        let end = inside.checked_add(len)?;
        (end <= self.len).then_some(self.place + inside)
    }

    fn is_front_of(&self, other: &Self) -> bool {
        self.addr == other.addr && self.place == other.place
    }

    fn overlaps(&self, addr: u64, len: u64) -> bool {
        addr < self.addr.saturating_add(self.len) && self.addr < addr.saturating_add(len)
    }
}

/// A list without allocation.
#[derive(Debug, Clone, Copy)]
struct List<const N: usize> {
    windows: [Window; N],
    len: usize,
}

impl<const N: usize> Default for List<N> {
    fn default() -> Self {
        Self { windows: [Window::default(); N], len: 0 }
    }
}

impl<const N: usize> List<N> {
    fn as_slice(&self) -> &[Window] {
        self.windows.get(..self.len).unwrap_or_default()
    }

    fn iter(&self) -> impl Iterator<Item = &Window> {
        self.as_slice().iter()
    }

    fn push(&mut self, window: Window) -> bool {
        let Some(place) = self.windows.get_mut(self.len) else { return false };
        *place = window;
        self.len += 1;
        true
    }

    fn last_mut(&mut self) -> Option<&mut Window> {
        self.windows.get_mut(self.len.checked_sub(1)?)
    }
}

/// The windows of a thread's current call.
#[derive(Debug, Default)]
pub struct Windows(Mutex<State>);

#[derive(Debug)]
struct State {
    inputs: List<MOST_POINTERS>,
    outputs: List<MOST_POINTERS>,
    /// Written, not yet copied out.
    copies: List<MAX_COPIES>,
    /// Front of the first output, as far as it is not in the slot but here: it goes with the reply when that is all there is.
    small: [u8; MOST_INLINE],
    small_len: usize,
}

/// Small outputs on their way into [`shim_abi::Slot::call`].
pub type Inline = [u64; MOST_INLINE / 8];

impl Windows {
    /// Takes over the pointers that the shim `offered` with a call, one bit each; true when they are any.
    pub fn open(&self, slot: &SlotRef, call: &Call, offered: u32) -> bool {
        if offered == 0 {
            return false;
        }
        let mut state = self.0.lock();
        state.clear();
        let mut places = Places::first();
        for (index, pointer) in pointers(call.number).into_iter().enumerate() {
            let argument = |index: u8| call.args.get(usize::from(index)).copied().unwrap_or(0);
            let Some((kind, addr, most)) = pointer.resolve(argument) else { break };
            let is_offered = offered & 1 << index != 0;
            let Some(mut place) = places.place(addr, most).filter(|_| is_offered) else { continue };
            match inline_place(call.number, kind, most) {
                Some(inline) => place = inline,
                None => places.take(most),
            }
            let len = if kind == Kind::String { slot.string_len(place, most) } else { most };
            let window = Window { addr, len, place };
            if kind == Kind::Output {
                slot.prefetch_for_writing(place, len);
                state.outputs.push(window);
            } else {
                slot.prefetch_all(place, len);
                state.inputs.push(window);
            }
        }
        true
    }

    /// The call is answered: what the shim is to copy out, as bits of a reply's word ([`task`]), and what goes with it.
    pub fn close(&self, slot: &SlotRef) -> (u32, Inline) {
        let mut state = self.0.lock();
        if let Some(inline) = state.inline() {
            let bits = (state.small_len as u32) << task::OUTPUT_SHIFT | task::INLINE;
            state.clear();
            return (bits, inline);
        }
        state.spill(slot);
        let bits = match (state.copies.as_slice(), state.outputs.as_slice()) {
            ([], _) => 0,
            // What the shim knows itself needs not be told by a line of its own.
            ([copy], [output, ..]) if copy.is_front_of(output) && copy.len <= task::MOST_OUTPUT => {
                (copy.len as u32) << task::OUTPUT_SHIFT
            }
            (copies, _) => {
                for (copy, place) in copies.iter().zip(&slot.fast().copies) {
                    place.addr.store(copy.addr, Relaxed);
                    place.len.store(copy.len as u32, Relaxed);
                    place.place.store(copy.place as u32, Relaxed);
                }
                (copies.len() as u32) << task::COPIES_SHIFT
            }
        };
        state.clear();
        (bits, Inline::default())
    }

    /// The call's answer will not go by this way: writes what waits.
    pub fn flush(&self, process: &Process, slot: &SlotRef) {
        let copies = self.0.lock().take_copies(slot);
        write_all(process, slot, &copies);
    }

    fn read(&self, process: &Process, slot: &SlotRef, addr: u64, into: &mut [u8]) -> bool {
        let len = into.len() as u64;
        let mut state = self.0.lock();
        if state.copies.iter().any(|copy| copy.overlaps(addr, len)) {
            let copies = state.take_copies(slot);
            drop(state);
            write_all(process, slot, &copies);
            return false;
        }
        let place = state.inputs.iter().find_map(|input| input.place_of(addr, len));
        place.is_some_and(|place| slot.copy_out(place, into).is_some())
    }

    fn peek(&self, slot: &SlotRef, addr: u64, into: &mut [u8]) -> usize {
        let state = self.0.lock();
        let input = state.inputs.iter().find(|input| input.place_of(addr, 1).is_some());
        let Some(input) = input else { return 0 };
        let inside = addr - input.addr;
        let len = into.len().min((input.len - inside) as usize);
        let Some(part) = into.get_mut(..len) else { return 0 };
        slot.copy_out(input.place + inside, part).map_or(0, |()| len)
    }

    /// See [`crate::AddressSpace::write_from`].
    fn write_from(
        &self,
        slot: &SlotRef,
        addr: u64,
        most: usize,
        file: BorrowedFd<'_>,
        pos: u64,
    ) -> Option<Result<(usize, usize), Errno>> {
        let mut state = self.0.lock();
        let output = state.outputs.iter().find(|output| output.place_of(addr, 1).is_some())?;
        let inside = addr - output.addr;
        let place = output.place + inside;
        let asked = most.min((output.len - inside) as usize);
        // Before something was read that would have no way out; what is small goes with the reply.
        if !state.has_room_for_copy() || asked <= MOST_INLINE {
            return None;
        }
        state.spill(slot);
        let read = slot.fill(place, asked, file, pos)?;
        if let Ok(count @ 1..) = read {
            state.note_copy(Window { addr, len: count as u64, place });
        }
        Some(read.map(|count| (count, asked)))
    }

    fn write(&self, process: &Process, slot: &SlotRef, addr: u64, bytes: &[u8]) -> bool {
        let len = bytes.len() as u64;
        let mut state = self.0.lock();
        let place = state.outputs.iter().find_map(|output| output.place_of(addr, len));
        if let Some(place) = place
            && state.note_copy(Window { addr, len, place })
        {
            return state.put_small(place, bytes) || {
                state.spill(slot);
                slot.copy_in(place, bytes).is_some()
            };
        }
        if state.copies.iter().any(|copy| copy.overlaps(addr, len)) {
            let copies = state.take_copies(slot);
            drop(state);
            write_all(process, slot, &copies);
        }
        false
    }
}

impl Default for State {
    fn default() -> Self {
        let (inputs, outputs, copies) = (List::default(), List::default(), List::default());
        Self { inputs, outputs, copies, small: [0; MOST_INLINE], small_len: 0 }
    }
}

impl State {
    fn clear(&mut self) {
        self.inputs.len = 0;
        self.outputs.len = 0;
        self.copies.len = 0;
        self.small_len = 0;
    }

    /// Keeps what is written here, if it goes on at the front of the first output and is small; `note_copy` has noted it.
    fn put_small(&mut self, place: u64, bytes: &[u8]) -> bool {
        let Some(output) = self.outputs.as_slice().first() else { return false };
        let is_first = self.copies.len == 1;
        if !is_first || place != output.place + self.small_len as u64 {
            return false;
        }
        let end = self.small_len + bytes.len();
        let Some(room) = self.small.get_mut(self.small_len..end) else { return false };
        room.copy_from_slice(bytes);
        self.small_len = end;
        true
    }

    /// What is kept here, when that is all that is to be copied out.
    fn inline(&self) -> Option<Inline> {
        let [copy] = self.copies.as_slice() else { return None };
        if self.small_len == 0 || copy.len != self.small_len as u64 {
            return None;
        }
        let mut words = Inline::default();
        for (word, bytes) in words.iter_mut().zip(self.small.chunks_exact(8)) {
            *word = bytes.try_into().map_or(0, u64::from_le_bytes);
        }
        Some(words)
    }

    /// Puts what is kept here into the slot, where more of it is.
    fn spill(&mut self, slot: &SlotRef) {
        let len = std::mem::take(&mut self.small_len);
        if let (Some(output), Some(bytes)) =
            (self.outputs.as_slice().first(), self.small.get(..len))
        {
            // A window lies in the slot.
            let _ = slot.copy_in(output.place, bytes);
        }
    }

    fn take_copies(&mut self, slot: &SlotRef) -> List<MAX_COPIES> {
        self.spill(slot);
        std::mem::take(&mut self.copies)
    }

    fn has_room_for_copy(&self) -> bool {
        self.copies.len < MAX_COPIES
    }

    fn note_copy(&mut self, copy: Window) -> bool {
        if let Some(last) = self.copies.last_mut()
            && last.addr.wrapping_add(last.len) == copy.addr
            && last.place + last.len == copy.place
        {
            last.len += copy.len;
            return true;
        }
        self.copies.push(copy)
    }
}

/// Guest memory that is not there any more keeps what it has.
fn write_all(process: &Process, slot: &SlotRef, copies: &List<MAX_COPIES>) {
    for copy in copies.iter() {
        let mut bytes = vec![0; copy.len as usize];
        if slot.copy_out(copy.place, &mut bytes).is_some() {
            process.write_directly(UserAddr(copy.addr), &bytes);
        }
    }
}

/// Runs `f` with the windows that are current on this worker, if they are of `process`.
fn with_current<R>(process: &Process, f: impl FnOnce(&Windows, &SlotRef) -> R) -> Option<R> {
    CURRENT.with_borrow(|current| {
        let thread = current.as_ref()?;
        let is_of = std::ptr::eq(Arc::as_ptr(thread.process()), process);
        is_of.then(|| f(&thread.windows, thread.slot()))
    })
}

/// Reads from the current call's inputs; false: not to be found there.
pub fn read(process: &Process, addr: u64, into: &mut [u8]) -> bool {
    with_current(process, |windows, slot| windows.read(process, slot, addr, into)).unwrap_or(false)
}

/// As much as there is from `addr` on; see [`crate::AddressSpace::peek`].
pub fn peek(process: &Process, addr: u64, into: &mut [u8]) -> usize {
    with_current(process, |windows, slot| windows.peek(slot, addr, into)).unwrap_or(0)
}

/// Writes to the current call's outputs; false: they do not reach so far.
pub fn write(process: &Process, addr: u64, bytes: &[u8]) -> bool {
    with_current(process, |windows, slot| windows.write(process, slot, addr, bytes))
        .unwrap_or(false)
}

/// See [`crate::AddressSpace::write_from`].
pub fn write_from(
    process: &Process,
    addr: u64,
    most: usize,
    file: BorrowedFd<'_>,
    pos: u64,
) -> Option<Result<(usize, usize), Errno>> {
    with_current(process, |windows, slot| windows.write_from(slot, addr, most, file, pos)).flatten()
}

impl CallMemory for Thread {
    fn enter(self: Arc<Self>) {
        CURRENT.set(Some(self));
    }

    fn leave(&self) {
        CURRENT.set(None);
    }
}
