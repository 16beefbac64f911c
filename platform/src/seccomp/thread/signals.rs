//! Signal state that guest code reaches, in its thread's slot.

use std::sync::atomic::{AtomicU64, Ordering};

use abi::signal::{SigAction, SigStack, Signal};

use super::Thread;
use crate::SharedSignals;

impl Thread {
    /// Changes the dispositions that guest code sees, so that it never takes half of one for whole.
    fn write_actions(&self, write: impl FnOnce(&[[AtomicU64; 4]; 64])) {
        let fast = self.slot.fast();
        let version = self.actions_version.load(Ordering::Relaxed);
        fast.actions_version.store(version | 1, Ordering::SeqCst);
        write(&fast.actions);
        // Never 0 again.
        let next = version.checked_add(2).unwrap_or(2);
        self.actions_version.store(next, Ordering::Relaxed);
        fast.actions_version.store(next, Ordering::SeqCst);
    }
}

fn write_action(to: &[AtomicU64; 4], action: &SigAction) {
    for (to, word) in to.iter().zip([action.handler, action.flags, action.restorer, action.mask]) {
        to.store(word, Ordering::Release);
    }
}

impl SharedSignals for Thread {
    fn mask(&self) -> u64 {
        self.slot.fast().mask.load(Ordering::SeqCst)
    }

    fn set_mask(&self, mask: u64) {
        self.slot.fast().mask.store(mask, Ordering::SeqCst);
    }

    fn stack(&self) -> SigStack {
        let [sp, flags, size] =
            self.slot.fast().stack.each_ref().map(|word| word.load(Ordering::Relaxed));
        SigStack { sp, flags: flags as i32, pad: 0, size }
    }

    fn set_stack(&self, stack: &SigStack) {
        let words = [stack.sp, u64::from(stack.flags.cast_unsigned()), stack.size];
        for (to, from) in self.slot.fast().stack.iter().zip(words) {
            to.store(from, Ordering::Relaxed);
        }
    }

    fn robust_list(&self) -> u64 {
        self.slot.fast().robust_list.load(Ordering::Relaxed)
    }

    fn set_robust_list(&self, head: u64) {
        self.slot.fast().robust_list.store(head, Ordering::Relaxed);
    }

    fn tid_address(&self) -> u64 {
        self.slot.fast().tid_address.load(Ordering::Relaxed)
    }

    fn set_tid_address(&self, address: u64) {
        self.slot.fast().tid_address.store(address, Ordering::Relaxed);
    }

    fn set_pending(&self, signals: u64) {
        self.slot.fast().pending.store(signals, Ordering::SeqCst);
    }

    fn add_pending(&self, signals: u64) {
        self.slot.fast().pending.fetch_or(signals, Ordering::SeqCst);
    }

    fn tell_actions(&self, actions: &[SigAction; 64], may_change: u64) {
        self.write_actions(|words| {
            for (to, action) in words.iter().zip(actions) {
                write_action(to, action);
            }
        });
        let fast = self.slot.fast();
        fast.changed.store(0, Ordering::Relaxed);
        fast.may_change.store(may_change, Ordering::SeqCst);
    }

    fn take_changed_actions(&self, each: &mut dyn FnMut(Signal, SigAction)) {
        let fast = self.slot.fast();
        if self.actions_version.load(Ordering::Relaxed) == 0
            || fast.changed.load(Ordering::Relaxed) == 0
        {
            return;
        }
        let changed = fast.changed.swap(0, Ordering::SeqCst);
        for (number, words) in (1..).zip(&fast.actions) {
            let signal = Signal::new(number).filter(|_| changed & 1 << (number - 1) != 0);
            let Some(signal) = signal else { continue };
            let [handler, flags, restorer, mask] =
                words.each_ref().map(|word| word.load(Ordering::Relaxed));
            each(signal, SigAction { handler, flags, restorer, mask });
        }
    }

    fn forbid_changes(&self) {
        self.slot.fast().may_change.store(0, Ordering::SeqCst);
    }

    fn change_action(&self, signal: Signal, action: &SigAction) {
        if self.actions_version.load(Ordering::Relaxed) == 0 {
            return;
        }
        self.write_actions(|words| {
            if let Some(to) = words.get(usize::from(signal.number()) - 1) {
                write_action(to, action);
            }
        });
    }
}
