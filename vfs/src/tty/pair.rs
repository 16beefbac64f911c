//! A terminal: the state that master and slave share.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use abi::ids::Tid;
use abi::poll::PollEvents;
use abi::signal::Signal;
use abi::stat::makedev;
use abi::termios::{LocalFlags, Termios, WinSize, cc};
use abi::{Errno, Result};
use base::lock::Mutex;
use base::{Sink, Source, WaitQueue};

use super::discipline::{Discipline, Effects, Readable};
use super::sessions::Terminals;
use crate::anon::timers::{Expiry, TimerClock, TimerHandle};
use crate::lock_order;

/// Output that waits for the master's reader; a write may go a little beyond, by what its tabs and newlines become.
const OUTPUT_LIMIT: usize = 16 * 1024;
const CHUNK: usize = 1024;
/// `VTIME` counts these.
const TENTH_NS: u64 = 100_000_000;
/// Major number of /dev/pts/N.
const PTS_MAJOR: u32 = 136;

/// Bits of the status byte of packet mode; see ioctl_tty(2), TIOCPKT.
pub mod packet {
    pub const FLUSHREAD: u8 = 1;
    pub const FLUSHWRITE: u8 = 2;
    pub const STOP: u8 = 4;
    pub const START: u8 = 8;
    pub const NOSTOP: u8 = 16;
    pub const DOSTOP: u8 = 32;
}

/// A pseudo-terminal pair.
pub struct Tty {
    index: u32,
    terminals: Arc<Terminals>,
    state: Mutex<State, lock_order::FileState>,
    /// Who waits at the slave, and at the master.
    pub(super) slave_queue: WaitQueue,
    pub(super) master_queue: WaitQueue,
    myself: Weak<Self>,
}

#[derive(Default)]
pub(super) struct State {
    pub discipline: Discipline,
    pub output: VecDeque<u8>,
    /// XOFF was typed, or TCXONC asked for it.
    pub is_stopped: bool,
    pub size: WinSize,
    /// 0: none.
    pub session: Tid,
    pub foreground: Tid,
    /// TIOCSPTLCK: the slave cannot be opened.
    pub is_locked: bool,
    /// TIOCEXCL.
    pub is_exclusive: bool,
    pub packet_mode: bool,
    pub packet_status: u8,
    pub slaves: u32,
    /// A slave was open: without one now, the master reads EIO.
    pub had_slave: bool,
    /// The master is gone.
    pub is_hung_up: bool,
    timeout: Timeout,
}

/// The wait of a read with `VTIME`.
#[derive(Default)]
struct Timeout {
    handle: Option<Box<dyn TimerHandle>>,
    /// Bytes that were there when it began: it starts anew with each byte.
    seen: usize,
    is_over: bool,
}

/// What a read of the slave in non-canonical mode does.
enum Raw {
    Take,
    Wait,
    /// Until `VTIME` is over.
    WaitTimed(u8),
}

impl Tty {
    /// Locked, as /dev/ptmx makes it.
    #[must_use]
    pub fn new(index: u32, terminals: Arc<Terminals>) -> Arc<Self> {
        let state = State { is_locked: true, ..State::default() };
        Arc::new_cyclic(|myself| Self {
            index,
            terminals,
            state: Mutex::new(state),
            slave_queue: WaitQueue::new(),
            master_queue: WaitQueue::new(),
            myself: Weak::clone(myself),
        })
    }

    pub(super) fn terminals(&self) -> &Terminals {
        &self.terminals
    }

    /// N of /dev/pts/N.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Device number of the slave.
    #[must_use]
    pub fn rdev(&self) -> u64 {
        makedev(PTS_MAJOR + (self.index >> 8), self.index & 0xff)
    }

    /// The session that it controls; 0 is none.
    #[must_use]
    pub fn session(&self) -> Tid {
        self.state.lock().session
    }

    /// The foreground process group; 0 is none.
    #[must_use]
    pub fn foreground(&self) -> Tid {
        self.state.lock().foreground
    }

    pub(super) fn set_session(&self, sid: Tid, pgid: Tid) {
        let mut state = self.state.lock();
        state.session = sid;
        state.foreground = pgid;
    }

    pub(super) fn set_foreground(&self, pgid: Tid) {
        self.state.lock().foreground = pgid;
    }

    /// Looks at or changes the state; calls nobody.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.state.lock())
    }

    #[must_use]
    pub fn termios(&self) -> Termios {
        *self.state.lock().discipline.termios()
    }

    /// New settings; readers and writers look again.
    pub fn set_termios(&self, termios: Termios) {
        {
            let mut state = self.state.lock();
            let before = *state.discipline.termios();
            state.discipline.set_termios(termios);
            state.tell_flow_control(&before);
        }
        self.tell_all();
    }

    #[must_use]
    pub fn size(&self) -> WinSize {
        self.state.lock().size
    }

    /// A new window size: the foreground group hears of it.
    pub fn resize(&self, size: WinSize) {
        let told = {
            let mut state = self.state.lock();
            if state.size == size {
                return;
            }
            state.size = size;
            state.foreground
        };
        self.signal(told, Signal::SIGWINCH);
    }

    fn signal(&self, pgid: Tid, signal: Signal) {
        if pgid != Tid(0) {
            self.terminals.jobs().signal_group(pgid, signal);
        }
    }

    pub(super) fn tell_all(&self) {
        let events = PollEvents::all() - PollEvents::NVAL;
        self.slave_queue.notify(events);
        self.master_queue.notify(events);
    }

    /// Input: what the user types.
    pub fn write_master(&self, source: &mut dyn Source) -> Result<usize> {
        let mut total = 0;
        let mut signals = Vec::new();
        let outcome = loop {
            if source.remaining() == 0 {
                break Ok(());
            }
            let mut state = self.state.lock();
            let room = state.discipline.room();
            if room == 0 {
                break Err(Errno::EAGAIN);
            }
            let mut chunk = [0; CHUNK];
            let want = room.min(CHUNK).min(source.remaining());
            match source.take(&mut chunk[..want]) {
                Ok(0) => break Ok(()),
                Ok(got) => {
                    total += got;
                    for byte in &chunk[..got] {
                        signals.extend(state.receive(*byte));
                    }
                }
                Err(errno) => break Err(errno),
            }
        };
        for (pgid, signal) in signals {
            self.signal(pgid, signal);
        }
        if total > 0 {
            self.tell_all();
        }
        if total > 0 { Ok(total) } else { outcome.map(|()| 0) }
    }

    /// Output: what the user sees.
    pub fn read_master(&self, sink: &mut dyn Sink) -> Result<usize> {
        if sink.remaining() == 0 {
            return Ok(0);
        }
        let count = {
            let mut state = self.state.lock();
            if state.packet_mode && state.packet_status != 0 {
                let status = std::mem::take(&mut state.packet_status);
                return sink.put(&[status]);
            }
            if state.output.is_empty() {
                let is_closed = state.had_slave && state.slaves == 0;
                return Err(if is_closed { Errno::EIO } else { Errno::EAGAIN });
            }
            let prefix = if state.packet_mode { sink.put(&[0])? } else { 0 };
            let (head, _) = state.output.as_slices();
            let got = base::io_buf::put_all(sink, head)?;
            state.output.drain(..got);
            got + prefix
        };
        self.slave_queue.notify(PollEvents::OUT | PollEvents::WRNORM);
        Ok(count)
    }

    /// What a program prints.
    pub(super) fn write_slave(&self, source: &mut dyn Source) -> Result<usize> {
        let mut total = 0;
        let outcome = loop {
            if source.remaining() == 0 {
                break Ok(());
            }
            let mut state = self.state.lock();
            if state.is_hung_up {
                break Err(Errno::EIO);
            }
            let room = OUTPUT_LIMIT.saturating_sub(state.output.len());
            if room == 0 || state.is_stopped {
                break Err(Errno::EAGAIN);
            }
            let mut chunk = [0; CHUNK];
            let want = room.min(CHUNK).min(source.remaining());
            match source.take(&mut chunk[..want]) {
                Ok(0) => break Ok(()),
                Ok(got) => {
                    total += got;
                    let mut out = Vec::with_capacity(got * 2);
                    for byte in &chunk[..got] {
                        state.discipline.put_output(*byte, &mut out);
                    }
                    state.output.extend(out);
                }
                Err(errno) => break Err(errno),
            }
        };
        if total == 0 {
            return outcome.map(|()| 0);
        }
        self.master_queue.notify(PollEvents::IN | PollEvents::RDNORM);
        Ok(total)
    }

    /// What a program reads.
    pub(super) fn read_slave(&self, sink: &mut dyn Sink, is_nonblocking: bool) -> Result<usize> {
        if sink.remaining() == 0 {
            return Ok(0);
        }
        let (count, timer) = {
            let mut state = self.state.lock();
            if state.is_hung_up {
                return Ok(0);
            }
            let verdict = match state.discipline.readable() {
                Readable::Line(_) => Raw::Take,
                Readable::Nothing if state.discipline.is_canonical() => Raw::Wait,
                _ => state.raw_verdict(sink.remaining(), is_nonblocking),
            };
            match verdict {
                Raw::Take => {
                    state.timeout.is_over = false;
                    (state.discipline.read(sink)?, state.timeout.handle.take())
                }
                Raw::Wait => return Err(Errno::EAGAIN),
                Raw::WaitTimed(tenths) => {
                    drop(state);
                    self.start_timeout(tenths);
                    return Err(Errno::EAGAIN);
                }
            }
        };
        drop(timer);
        // There may be room again for what the user types.
        self.master_queue.notify(PollEvents::OUT | PollEvents::WRNORM);
        Ok(count)
    }

    /// Has a read with `VTIME` end; one that waits already goes on unless bytes came.
    fn start_timeout(&self, tenths: u8) {
        {
            let mut state = self.state.lock();
            let seen = state.discipline.pending();
            if state.timeout.handle.is_some() && state.timeout.seen == seen {
                return;
            }
            state.timeout.seen = seen;
        }
        let timers = self.terminals.timers();
        let clock = TimerClock::Monotonic;
        let deadline = timers.now(clock).saturating_add(u64::from(tenths) * TENTH_NS);
        let handle = timers.set(clock, deadline, Arc::new(ReadTimeout(Weak::clone(&self.myself))));
        let old = self.state.lock().timeout.handle.replace(handle);
        drop(old);
    }

    /// A slave is opened.
    pub(super) fn open_slave(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.is_hung_up || state.is_locked {
            return Err(Errno::EIO);
        }
        state.slaves += 1;
        state.had_slave = true;
        Ok(())
    }

    pub(super) fn close_slave(&self) {
        self.state.lock().slaves -= 1;
        self.master_queue.notify(PollEvents::IN | PollEvents::HUP);
    }

    /// The master is closed: the line is cut.
    pub(super) fn hang_up(&self) {
        let waiting = {
            let mut state = self.state.lock();
            state.is_hung_up = true;
            state.output.clear();
            state.discipline.flush_input();
            state.timeout.handle.take()
        };
        drop(waiting);
        if let Some(myself) = self.myself.upgrade() {
            self.terminals.hung_up(&myself);
        }
        self.tell_all();
    }

    pub(super) fn poll_slave(&self) -> PollEvents {
        let (readable, writable) =
            (PollEvents::IN | PollEvents::RDNORM, PollEvents::OUT | PollEvents::WRNORM);
        let state = self.state.lock();
        if state.is_hung_up {
            return readable | writable | PollEvents::ERR | PollEvents::HUP;
        }
        let mut events = PollEvents::empty();
        if state.is_readable() {
            events |= readable;
        }
        if !state.is_stopped && state.output.len() < OUTPUT_LIMIT {
            events |= writable;
        }
        events
    }

    pub(super) fn poll_master(&self) -> PollEvents {
        let state = self.state.lock();
        let mut events = PollEvents::empty();
        if !state.output.is_empty() {
            events |= PollEvents::IN | PollEvents::RDNORM;
        }
        if state.packet_mode && state.packet_status != 0 {
            events |= PollEvents::IN | PollEvents::RDNORM | PollEvents::PRI;
        }
        if state.discipline.room() > 0 {
            events |= PollEvents::OUT | PollEvents::WRNORM;
        }
        if state.had_slave && state.slaves == 0 {
            events |= PollEvents::HUP;
        }
        events
    }
}

struct ReadTimeout(Weak<Tty>);

impl Expiry for ReadTimeout {
    fn expired(self: Arc<Self>) {
        let Some(tty) = self.0.upgrade() else { return };
        let old = {
            let mut state = tty.state.lock();
            state.timeout.is_over = true;
            state.timeout.handle.take()
        };
        drop(old);
        tty.slave_queue.notify(PollEvents::IN | PollEvents::RDNORM);
    }
}

impl State {
    /// One byte of input; a signal it means, and for whom.
    fn receive(&mut self, byte: u8) -> Option<(Tid, Signal)> {
        let mut effects = Effects::default();
        self.discipline.receive(byte, &mut effects);
        if effects.flushes_output {
            self.output.clear();
            self.packet_status |= packet::FLUSHREAD | packet::FLUSHWRITE;
        }
        if let Some(stops) = effects.stops {
            self.stop(stops);
        }
        // Echo that nobody reads must not grow without end.
        if self.output.len() < 2 * OUTPUT_LIMIT {
            self.output.extend(effects.echo);
        }
        effects.signal.map(|signal| (self.foreground, signal))
    }

    pub fn stop(&mut self, stops: bool) {
        if self.is_stopped == stops {
            return;
        }
        self.is_stopped = stops;
        let (set, clear) =
            if stops { (packet::STOP, packet::START) } else { (packet::START, packet::STOP) };
        self.packet_status = self.packet_status & !clear | set;
    }

    /// Packet mode tells when ^S and ^Q begin or cease to work.
    fn tell_flow_control(&mut self, before: &Termios) {
        let works = |termios: &Termios| {
            termios.iflag & abi::termios::InputFlags::IXON.bits() != 0
                && termios.cc[cc::VSTOP] == 0x13
                && termios.cc[cc::VSTART] == 0x11
        };
        let (was, is) = (works(before), works(self.discipline.termios()));
        if was != is {
            self.packet_status &= !(packet::DOSTOP | packet::NOSTOP);
            self.packet_status |= if is { packet::DOSTOP } else { packet::NOSTOP };
        }
    }

    pub fn has_local(&self, flag: LocalFlags) -> bool {
        LocalFlags::from_bits_retain(self.discipline.termios().lflag).contains(flag)
    }

    /// `VMIN` and `VTIME`; see termios(3), "Canonical and noncanonical mode".
    fn raw_verdict(&self, room: usize, is_nonblocking: bool) -> Raw {
        let termios = self.discipline.termios();
        let (min, time) = (usize::from(termios.cc[cc::VMIN]), termios.cc[cc::VTIME]);
        let have = self.discipline.pending();
        let enough = have >= min.min(room) && (have > 0 || time == 0);
        if enough || (have > 0 && (is_nonblocking || self.timeout.is_over)) {
            return Raw::Take;
        }
        match (min, time) {
            (0, _) if self.timeout.is_over => Raw::Take,
            (_, 0) => Raw::Wait,
            (1.., _) if have == 0 => Raw::Wait,
            _ if is_nonblocking => Raw::Wait,
            (_, tenths) => Raw::WaitTimed(tenths),
        }
    }

    fn is_readable(&self) -> bool {
        match self.discipline.readable() {
            Readable::Line(_) => true,
            Readable::Nothing => self.timeout.is_over && !self.discipline.is_canonical(),
            Readable::Bytes(have) => {
                let termios = self.discipline.termios();
                let (min, time) = (usize::from(termios.cc[cc::VMIN]), termios.cc[cc::VTIME]);
                self.timeout.is_over || have >= if time == 0 { min.max(1) } else { 1 }
            }
        }
    }
}
