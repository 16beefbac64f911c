//! One direction of a connection: bytes or packets in order, each with the credentials and rights sent along.

use std::collections::VecDeque;

use abi::{Errno, Result};
use base::lock::Mutex;
use base::{Sink, Source};

use crate::lock_order;
use crate::message::{Control, Mode, Received};

/// Bytes a stream's write may add to the last segment instead of starting one.
const COALESCE: usize = 4096;
/// Most bytes of one stream segment, so that a huge write does not take memory at once.
const SEGMENT: usize = 64 * 1024;

/// What both ends share of one direction.
pub struct Channel(Mutex<State, lock_order::Channels>);

struct State {
    segments: VecDeque<Segment>,
    bytes: usize,
    /// Bytes that may be under way; the sender's SO_SNDBUF.
    capacity: usize,
    /// No more bytes will come and none are taken: either end shut this direction down or is gone.
    is_closed: bool,
    /// The sender went away without having read everything; told once, after the bytes.
    is_reset: bool,
}

struct Segment {
    data: Vec<u8>,
    /// Bytes already read.
    at: usize,
    control: Control,
}

/// What can be done with a channel now.
#[derive(Debug, Clone, Copy)]
pub struct Status {
    pub has_data: bool,
    /// Unread bytes, of the first packet when there are packets.
    pub bytes: usize,
    pub first: usize,
    pub has_room: bool,
    pub is_closed: bool,
    pub is_reset: bool,
}

impl Channel {
    pub fn new(capacity: usize) -> Self {
        Self(Mutex::new(State {
            segments: VecDeque::new(),
            bytes: 0,
            capacity,
            is_closed: false,
            is_reset: false,
        }))
    }

    pub fn status(&self) -> Status {
        let state = self.0.lock();
        Status {
            has_data: !state.segments.is_empty(),
            bytes: state.bytes,
            first: state.segments.front().map_or(0, |first| first.data.len() - first.at),
            has_room: state.has_room(),
            is_closed: state.is_closed,
            is_reset: state.is_reset,
        }
    }

    pub fn set_capacity(&self, capacity: usize) {
        self.0.lock().capacity = capacity;
    }

    /// Ends this direction; what is under way can still be read.
    pub fn close(&self) {
        self.0.lock().is_closed = true;
    }

    /// The receiving end is gone: drops what is under way; returns whether there was something.
    pub fn abandon(&self) -> bool {
        let dropped = {
            let mut state = self.0.lock();
            state.is_closed = true;
            state.bytes = 0;
            std::mem::take(&mut state.segments)
        };
        // Rights may be files, whose end may do anything: not under the lock.
        !dropped.is_empty()
    }

    /// The sending end is gone, and left bytes of ours unread.
    pub fn reset(&self) {
        self.0.lock().is_reset = true;
    }

    /// Takes the reset, as SO_ERROR and a read at the end do.
    pub fn take_reset(&self) -> bool {
        std::mem::take(&mut self.0.lock().is_reset)
    }

    /// Adds bytes of a stream, as many as there is room for.
    pub fn push_bytes(&self, source: &mut dyn Source, control: &mut Control) -> Result<usize> {
        let room = {
            let state = self.0.lock();
            if state.is_closed {
                return Err(Errno::EPIPE);
            }
            match state.capacity.saturating_sub(state.bytes) {
                0 => return Err(Errno::EAGAIN),
                room => room,
            }
        };
        // Another writer may come in between: both then go a little beyond the capacity, as on Linux.
        let mut data = vec![0; source.remaining().min(room).min(SEGMENT)];
        let count = source.take(&mut data)?;
        data.truncate(count);
        let mut state = self.0.lock();
        if state.is_closed {
            return Err(Errno::EPIPE);
        }
        state.bytes += count;
        let rights = std::mem::take(&mut control.rights);
        match state.segments.back_mut() {
            Some(last)
                if rights.is_empty()
                    && last.control.rights.is_empty()
                    && last.control.cred == control.cred
                    && last.data.len() + count <= COALESCE =>
            {
                last.data.extend_from_slice(&data);
            }
            _ => {
                let control = Control { cred: control.cred, rights };
                state.segments.push_back(Segment { data, at: 0, control });
            }
        }
        Ok(count)
    }

    /// Adds one packet.
    pub fn push_packet(&self, source: &mut dyn Source, control: Control) -> Result<usize> {
        let length = source.remaining();
        {
            let state = self.0.lock();
            if state.is_closed {
                return Err(Errno::EPIPE);
            }
            if length > state.capacity {
                return Err(Errno::EMSGSIZE);
            }
            if !state.segments.is_empty() && state.bytes + length > state.capacity {
                return Err(Errno::EAGAIN);
            }
        }
        let data = take_packet(source)?;
        let mut state = self.0.lock();
        if state.is_closed {
            return Err(Errno::EPIPE);
        }
        state.bytes += length;
        state.segments.push_back(Segment { data, at: 0, control });
        Ok(length)
    }

    /// Reads bytes of a stream: across segments of one sender, up to and with the first that carries rights.
    ///
    /// `EAGAIN` when there is nothing yet; nothing received and no control at the end; `ECONNRESET` once.
    pub fn pop_bytes<A>(&self, sink: &mut dyn Sink, mode: Mode) -> Result<Received<A>> {
        let mut state = self.0.lock();
        state.check_nonempty()?;
        if state.segments.is_empty() {
            return Ok(Received::default());
        }
        let mut received = Received::default();
        let mut index = 0;
        while let Some(segment) = state.segments.get_mut(index) {
            if received.control.as_ref().is_some_and(|seen| seen.cred != segment.control.cred) {
                break;
            }
            let left = &segment.data[segment.at..];
            let count = match put(sink, left) {
                Ok(count) => count,
                Err(_) if received.bytes > 0 => break,
                Err(errno) => return Err(errno),
            };
            let whole = count == left.len();
            let rights = match mode {
                Mode::Take => std::mem::take(&mut segment.control.rights),
                Mode::Peek => segment.control.rights.clone(),
            };
            let has_rights = !rights.is_empty();
            let cred = segment.control.cred;
            received
                .control
                .get_or_insert(Control { cred, rights: Vec::new() })
                .rights
                .extend(rights);
            received.bytes += count;
            match mode {
                Mode::Take => {
                    segment.at += count;
                    state.bytes -= count;
                    if whole {
                        state.segments.pop_front();
                    }
                }
                Mode::Peek => index += 1,
            }
            if !whole || has_rights || sink.remaining() == 0 {
                break;
            }
        }
        received.full = received.bytes;
        Ok(received)
    }

    /// Reads one packet, cutting off what does not fit. As [`Self::pop_bytes`] when there is none.
    pub fn pop_packet<A>(&self, sink: &mut dyn Sink, mode: Mode) -> Result<Received<A>> {
        let mut state = self.0.lock();
        state.check_nonempty()?;
        let Some(first) = state.segments.front_mut() else { return Ok(Received::default()) };
        let bytes = put(sink, &first.data)?;
        let full = first.data.len();
        let control = match mode {
            Mode::Take => std::mem::take(&mut first.control),
            Mode::Peek => first.control.clone(),
        };
        if mode == Mode::Take {
            state.segments.pop_front();
            state.bytes -= full;
        }
        Ok(Received { bytes, full, from: None, control: Some(control) })
    }
}

impl State {
    /// Half empty, so that a writer that was told has room for more than a byte.
    fn has_room(&self) -> bool {
        self.bytes * 2 <= self.capacity
    }

    fn check_nonempty(&mut self) -> Result<()> {
        if !self.segments.is_empty() {
            return Ok(());
        }
        if std::mem::take(&mut self.is_reset) {
            return Err(Errno::ECONNRESET);
        }
        if self.is_closed { Ok(()) } else { Err(Errno::EAGAIN) }
    }
}

/// Puts what fits; a sink that is full takes nothing.
pub fn put(sink: &mut dyn Sink, bytes: &[u8]) -> Result<usize> {
    if bytes.is_empty() || sink.remaining() == 0 {
        return Ok(0);
    }
    base::io_buf::put_all(sink, bytes)
}

/// All of the source as one packet; `EFAULT` when not all can be had.
pub fn take_packet(source: &mut dyn Source) -> Result<Vec<u8>> {
    let length = source.remaining();
    let data = base::io_buf::take_all(source, length)?;
    if data.len() == length { Ok(data) } else { Err(Errno::EFAULT) }
}
