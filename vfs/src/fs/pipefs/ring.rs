//! The bytes in a pipe: one ring, and page-sized slots that say where writes end.
//!
//! Linux keeps a pipe as at most N page buffers; what fits, what merges and when a pipe counts as full follow from
//! that. Here the bytes of all slots lie in one ring (no allocation per write) and a slot is only its two lengths.

use std::collections::VecDeque;

use abi::Result;
use base::{Sink, Source};

/// Bytes of a slot; also `PIPE_BUF`, the size up to which writes are atomic.
pub const SLOT_SIZE: usize = 4096;

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Bytes of the page that were read already; a later write may only use what lies behind `start + len`.
    start: u16,
    len: u16,
    /// Written with `O_DIRECT`: a read takes at most this slot and loses the rest of it.
    is_packet: bool,
}

/// First-in first-out bytes with the capacity rules of a Linux pipe.
#[derive(Debug)]
pub struct Ring {
    storage: Vec<u8>,
    /// Index in `storage` of the oldest byte.
    head: usize,
    len: usize,
    slots: VecDeque<Slot>,
    max_slots: usize,
}

impl Ring {
    /// An empty ring; storage grows as it is needed.
    #[must_use]
    pub fn new(max_slots: usize) -> Self {
        Self { storage: Vec::new(), head: 0, len: 0, slots: VecDeque::new(), max_slots }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// True when no slot is free, even if the last one has room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.slots.len() >= self.max_slots
    }

    #[must_use]
    pub fn used_slots(&self) -> usize {
        self.slots.len()
    }

    #[must_use]
    pub fn max_slots(&self) -> usize {
        self.max_slots
    }

    /// The caller made sure that `slots` is at least `used_slots`.
    pub fn set_max_slots(&mut self, slots: usize) {
        self.max_slots = slots;
        if slots * SLOT_SIZE < self.storage.len() {
            self.relocate((slots * SLOT_SIZE).max(self.len));
        }
    }

    /// Takes from `source` what fits; 0 when nothing does.
    pub fn push(&mut self, source: &mut dyn Source, as_packet: bool) -> Result<usize> {
        let total = source.remaining();
        let merged = self.mergeable(total, as_packet);
        let free = (self.max_slots - self.slots.len().min(self.max_slots)) * SLOT_SIZE;
        let got = self.fill(source, total.min(merged + free))?;
        let merged = merged.min(got);
        if merged > 0
            && let Some(last) = self.slots.back_mut()
        {
            last.len += merged as u16;
        }
        let mut left = got - merged;
        while left > 0 {
            let len = left.min(SLOT_SIZE);
            self.slots.push_back(Slot { start: 0, len: len as u16, is_packet: as_packet });
            left -= len;
        }
        Ok(got)
    }

    /// How many bytes of a write of `total` go behind the last slot's: its odd part, all or nothing.
    fn mergeable(&self, total: usize, as_packet: bool) -> usize {
        let odd = total % SLOT_SIZE;
        match self.slots.back() {
            Some(last) if odd > 0 && !last.is_packet && !as_packet => {
                let used = usize::from(last.start) + usize::from(last.len);
                if used + odd <= SLOT_SIZE { odd } else { 0 }
            }
            _ => 0,
        }
    }

    /// Moves bytes to `sink`; ends behind a packet.
    pub fn pop(&mut self, sink: &mut dyn Sink) -> Result<usize> {
        let (wanted, lost) = self.readable(sink.remaining());
        let got = self.drain(sink, wanted)?;
        let lost = if got == wanted { lost } else { 0 };
        self.drop_bytes(lost);
        self.shrink_slots(got + lost);
        Ok(got)
    }

    /// So many bytes are gone from the front.
    fn shrink_slots(&mut self, mut left: usize) {
        while left > 0
            && let Some(first) = self.slots.front_mut()
        {
            let count = left.min(usize::from(first.len));
            first.len -= count as u16;
            first.start += count as u16;
            left -= count;
            if first.len == 0 {
                self.slots.pop_front();
            }
        }
    }

    /// Loses the oldest bytes, of no packets.
    pub fn skip(&mut self, count: usize) {
        let count = count.min(self.len);
        self.drop_bytes(count);
        self.shrink_slots(count);
    }

    /// Whether somebody wrote with `O_DIRECT` what is in it.
    #[must_use]
    pub fn has_packets(&self) -> bool {
        self.slots.iter().any(|slot| slot.is_packet)
    }

    /// How many bytes a read of `room` takes, and how many of a packet it loses behind them.
    fn readable(&self, room: usize) -> (usize, usize) {
        let mut wanted = 0;
        for slot in &self.slots {
            let len = usize::from(slot.len);
            let count = len.min(room - wanted);
            wanted += count;
            if slot.is_packet {
                return (wanted, if count > 0 { len - count } else { 0 });
            }
            if wanted == room {
                break;
            }
        }
        (wanted, 0)
    }

    /// A copy of the oldest bytes, at most `max`.
    #[must_use]
    pub fn peek(&self, max: usize) -> Vec<u8> {
        let count = max.min(self.len);
        let first = count.min(self.storage.len() - self.head);
        let mut bytes = self.storage[self.head..self.head + first].to_vec();
        bytes.extend_from_slice(&self.storage[..count - first]);
        bytes
    }

    fn fill(&mut self, source: &mut dyn Source, count: usize) -> Result<usize> {
        self.reserve(count);
        let mut done = 0;
        while done < count {
            let size = self.storage.len();
            let at = (self.head + self.len) % size;
            let end = (at + count - done).min(size);
            match source.take(&mut self.storage[at..end]) {
                Ok(0) => break,
                Ok(got) => {
                    self.len += got;
                    done += got;
                }
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn drain(&mut self, sink: &mut dyn Sink, count: usize) -> Result<usize> {
        let mut done = 0;
        while done < count {
            let end = (self.head + count - done).min(self.storage.len());
            match sink.put(&self.storage[self.head..end]) {
                Ok(0) => break,
                Ok(got) => {
                    self.drop_bytes(got);
                    done += got;
                }
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn drop_bytes(&mut self, count: usize) {
        self.len -= count;
        self.head = if self.len == 0 { 0 } else { (self.head + count) % self.storage.len() };
    }

    fn reserve(&mut self, more: usize) {
        let needed = self.len + more;
        if needed > self.storage.len() {
            self.relocate(needed.next_power_of_two().max(SLOT_SIZE));
        }
    }

    fn relocate(&mut self, size: usize) {
        let mut storage = vec![0; size];
        let first = self.len.min(self.storage.len() - self.head);
        storage[..first].copy_from_slice(&self.storage[self.head..self.head + first]);
        storage[first..self.len].copy_from_slice(&self.storage[..self.len - first]);
        self.storage = storage;
        self.head = 0;
    }
}
