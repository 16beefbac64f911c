//! The line discipline: what input becomes. A pure state machine after Linux's n_tty; see termios(3).

use std::collections::VecDeque;

use abi::Result;
use abi::signal::Signal;
use abi::termios::{InputFlags, LocalFlags, OutputFlags, Termios, cc};
use base::Sink;

use super::output::{Column, is_continuation};

/// Bytes that a terminal keeps for its reader.
const BUFFER_SIZE: usize = 4096;

/// One byte of input.
#[derive(Debug, Clone, Copy)]
struct Cell {
    byte: u8,
    end: End,
}

/// Whether a line ends here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    No,
    Line,
    /// The EOF character: ends a line and is not delivered.
    File,
}

/// What input does besides being kept.
#[derive(Debug, Default)]
pub struct Effects {
    /// Echo, processed for output.
    pub echo: Vec<u8>,
    /// For the foreground process group.
    pub signal: Option<Signal>,
    /// Output not read yet is dropped.
    pub flushes_output: bool,
    /// XON or XOFF was typed: output goes on, or stops.
    pub stops: Option<bool>,
}

/// How much of a read can be satisfied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readable {
    /// A line (perhaps an empty one: end of file), or this many bytes.
    Line(usize),
    Bytes(usize),
    Nothing,
}

/// Input side of a terminal, and the settings of both sides.
#[derive(Debug, Default)]
pub struct Discipline {
    termios: Termios,
    cells: VecDeque<Cell>,
    /// Cells at the front that belong to finished lines.
    finished: usize,
    column: Column,
    /// Column where the unfinished line began.
    line_column: Column,
    /// VLNEXT was typed.
    takes_literally: bool,
}

impl Discipline {
    pub fn termios(&self) -> &Termios {
        &self.termios
    }

    /// New settings; what is buffered becomes readable under them, as in Linux.
    pub fn set_termios(&mut self, new: Termios) {
        let was_canonical = self.is_canonical();
        self.termios = new;
        if was_canonical == self.is_canonical() {
            return;
        }
        for cell in &mut self.cells {
            cell.end = End::No;
        }
        self.finished = 0;
        if self.is_canonical()
            && let Some(last) = self.cells.back_mut()
        {
            last.end = End::Line;
            self.finished = self.cells.len();
        }
    }

    fn local(&self) -> LocalFlags {
        LocalFlags::from_bits_retain(self.termios.lflag)
    }

    fn input(&self) -> InputFlags {
        InputFlags::from_bits_retain(self.termios.iflag)
    }

    fn has(&self, flag: LocalFlags) -> bool {
        self.local().contains(flag)
    }

    fn is_utf8(&self) -> bool {
        self.input().contains(InputFlags::IUTF8)
    }

    pub fn is_canonical(&self) -> bool {
        self.has(LocalFlags::ICANON)
    }

    /// True for the control character at `index`; 0 (`_POSIX_VDISABLE`) is none.
    fn is(&self, byte: u8, index: usize) -> bool {
        let special = self.termios.cc[index];
        special != 0 && special == byte
    }

    /// Output of the slave, processed.
    pub fn put_output(&mut self, byte: u8, out: &mut Vec<u8>) {
        let flags = OutputFlags::from_bits_retain(self.termios.oflag);
        self.column.put(byte, flags, self.is_utf8(), out);
        if self.cells.len() == self.finished {
            self.line_column = self.column;
        }
    }

    /// How many more bytes may be received now. An overlong unfinished line takes more, and loses them, for else it
    /// could never be ended.
    pub fn room(&self) -> usize {
        let left = (BUFFER_SIZE - 1).saturating_sub(self.cells.len());
        if left == 0 && self.is_canonical() && self.finished == 0 { 1 } else { left }
    }

    /// Takes one byte of input.
    pub fn receive(&mut self, byte: u8, effects: &mut Effects) {
        let (input, local) = (self.input(), self.local());
        let mut byte = if input.contains(InputFlags::ISTRIP) { byte & 0x7f } else { byte };
        if input.contains(InputFlags::IUCLC) && local.contains(LocalFlags::IEXTEN) {
            byte = byte.to_ascii_lowercase();
        }
        if local.contains(LocalFlags::EXTPROC) {
            self.keep(byte, End::No);
            return;
        }
        if std::mem::take(&mut self.takes_literally) {
            self.receive_plain(byte, effects);
            return;
        }
        if self.receive_flow(byte, effects) || self.receive_signal(byte, effects) {
            return;
        }
        match byte {
            b'\r' if input.contains(InputFlags::IGNCR) => return,
            b'\r' if input.contains(InputFlags::ICRNL) => byte = b'\n',
            b'\n' if input.contains(InputFlags::INLCR) => byte = b'\r',
            _ => {}
        }
        if !self.is_canonical() || !self.receive_editing(byte, effects) {
            self.receive_plain(byte, effects);
        }
    }

    /// XON and XOFF; true when the byte was one.
    fn receive_flow(&mut self, byte: u8, effects: &mut Effects) -> bool {
        if !self.input().contains(InputFlags::IXON) {
            return false;
        }
        if self.is(byte, cc::VSTART) {
            effects.stops = Some(false);
        } else if self.is(byte, cc::VSTOP) {
            effects.stops = Some(true);
        } else {
            if self.input().contains(InputFlags::IXANY) {
                effects.stops = Some(false);
            }
            return false;
        }
        true
    }

    /// Characters that signal; true when the byte was one.
    fn receive_signal(&mut self, byte: u8, effects: &mut Effects) -> bool {
        if !self.has(LocalFlags::ISIG) {
            return false;
        }
        let signals = [
            (cc::VINTR, Signal::SIGINT),
            (cc::VQUIT, Signal::SIGQUIT),
            (cc::VSUSP, Signal::SIGTSTP),
        ];
        let Some((_, signal)) = signals.into_iter().find(|(index, _)| self.is(byte, *index)) else {
            return false;
        };
        if !self.has(LocalFlags::NOFLSH) {
            self.flush_input();
            effects.flushes_output = true;
            effects.echo.clear();
        }
        if self.input().contains(InputFlags::IXON) {
            effects.stops = Some(false);
        }
        if self.has(LocalFlags::ECHO) {
            self.echo(byte, &mut effects.echo);
        }
        effects.signal = Some(signal);
        true
    }

    /// Editing and line ends of canonical mode; true when the byte was such.
    fn receive_editing(&mut self, byte: u8, effects: &mut Effects) -> bool {
        let extended = self.has(LocalFlags::IEXTEN);
        let out = &mut effects.echo;
        if self.is(byte, cc::VERASE) {
            self.erase_character(byte, out);
        } else if self.is(byte, cc::VKILL) {
            self.kill_line(byte, out);
        } else if extended && self.is(byte, cc::VWERASE) {
            self.erase_word(out);
        } else if extended && self.is(byte, cc::VLNEXT) {
            self.takes_literally = true;
            if self.has(LocalFlags::ECHO | LocalFlags::ECHOCTL) {
                self.emit(b"^\x08", out);
            }
        } else if extended && self.is(byte, cc::VREPRINT) && self.has(LocalFlags::ECHO) {
            self.reprint(byte, out);
        } else if byte == b'\n' {
            if self.local().intersects(LocalFlags::ECHO | LocalFlags::ECHONL) {
                self.emit(b"\n", out);
            }
            self.finish(byte, End::Line);
        } else if self.is(byte, cc::VEOF) {
            self.finish(0, End::File);
        } else if self.is(byte, cc::VEOL) || (extended && self.is(byte, cc::VEOL2)) {
            if self.has(LocalFlags::ECHO) {
                self.echo(byte, out);
            }
            self.finish(byte, End::Line);
        } else {
            return false;
        }
        true
    }

    fn receive_plain(&mut self, byte: u8, effects: &mut Effects) {
        if self.is_canonical() && self.cells.len() >= BUFFER_SIZE - 1 {
            if self.input().contains(InputFlags::IMAXBEL) {
                effects.echo.push(0x07);
            }
            return;
        }
        if self.cells.len() == self.finished {
            self.line_column = self.column;
        }
        if self.has(LocalFlags::ECHO) {
            match byte {
                b'\n' => self.emit(b"\n", &mut effects.echo),
                byte => self.echo(byte, &mut effects.echo),
            }
        }
        self.keep(byte, End::No);
    }

    fn keep(&mut self, byte: u8, end: End) {
        if self.cells.len() < BUFFER_SIZE {
            self.cells.push_back(Cell { byte, end });
        }
    }

    fn finish(&mut self, byte: u8, end: End) {
        self.keep(byte, end);
        self.finished = self.cells.len();
        self.line_column = self.column;
    }

    fn emit(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let (flags, is_utf8) = (OutputFlags::from_bits_retain(self.termios.oflag), self.is_utf8());
        for byte in bytes {
            self.column.put(*byte, flags, is_utf8, out);
        }
    }

    /// Control characters show as ^X with `ECHOCTL`.
    fn echo(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.has(LocalFlags::ECHOCTL) && byte.is_ascii_control() && byte != b'\t' {
            self.emit(&[b'^', byte ^ 0x40], out);
        } else {
            self.emit(&[byte], out);
        }
    }

    /// Drops the last character of the unfinished line, continuation bytes and all; returns its first byte.
    fn pop_character(&mut self) -> Option<u8> {
        let is_utf8 = self.is_utf8();
        while self.cells.len() > self.finished {
            let cell = self.cells.pop_back()?;
            if !is_continuation(cell.byte, is_utf8) || self.cells.len() == self.finished {
                return Some(cell.byte);
            }
        }
        None
    }

    /// Takes the last character away, on the screen too.
    fn rub_out(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(byte) = self.pop_character() else { return false };
        let shows_control = self.has(LocalFlags::ECHOCTL);
        let is_utf8 = self.is_utf8();
        let mut at = self.line_column;
        for cell in self.cells.range(self.finished..) {
            at.0 = at.0.saturating_add(at.width(cell.byte, shows_control, is_utf8));
        }
        let width = at.width(byte, shows_control, is_utf8);
        for _ in 0..width {
            let erasing: &[u8] = if byte == b'\t' { b"\x08" } else { b"\x08 \x08" };
            self.emit(erasing, out);
        }
        true
    }

    fn erase_character(&mut self, erase: u8, out: &mut Vec<u8>) {
        if self.cells.len() == self.finished {
            return;
        }
        match (self.has(LocalFlags::ECHO), self.has(LocalFlags::ECHOE)) {
            (false, _) => {
                self.pop_character();
            }
            (true, false) => {
                self.pop_character();
                self.echo(erase, out);
            }
            (true, true) => {
                self.rub_out(out);
            }
        }
    }

    fn kill_line(&mut self, kill: u8, out: &mut Vec<u8>) {
        if self.cells.len() == self.finished {
            return;
        }
        let visibly = LocalFlags::ECHOK | LocalFlags::ECHOKE | LocalFlags::ECHOE;
        if self.has(LocalFlags::ECHO) && self.has(visibly) {
            while self.rub_out(out) {}
            return;
        }
        self.cells.truncate(self.finished);
        if self.has(LocalFlags::ECHO) {
            self.echo(kill, out);
            if self.has(LocalFlags::ECHOK) {
                self.emit(b"\n", out);
            }
        }
    }

    /// Back over what is no word, then over the word.
    fn erase_word(&mut self, out: &mut Vec<u8>) {
        let mut in_word = false;
        while let Some(last) = self.cells.range(self.finished..).next_back() {
            let is_word =
                last.byte.is_ascii_alphanumeric() || last.byte == b'_' || last.byte >= 0x80;
            if in_word && !is_word {
                break;
            }
            in_word |= is_word;
            if self.has(LocalFlags::ECHO) {
                self.rub_out(out);
            } else {
                self.pop_character();
            }
        }
    }

    fn reprint(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.echo(byte, out);
        self.emit(b"\n", out);
        let line: Vec<u8> = self.cells.range(self.finished..).map(|cell| cell.byte).collect();
        self.line_column = self.column;
        for byte in line {
            self.echo(byte, out);
        }
    }

    /// Forgets everything typed and not read.
    pub fn flush_input(&mut self) {
        self.cells.clear();
        self.finished = 0;
        self.takes_literally = false;
    }

    /// What a read finds.
    pub fn readable(&self) -> Readable {
        if !self.is_canonical() {
            return match self.cells.len() {
                0 => Readable::Nothing,
                count => Readable::Bytes(count),
            };
        }
        if self.finished == 0 {
            return Readable::Nothing;
        }
        let end = self.cells.iter().position(|cell| cell.end != End::No);
        Readable::Line(end.map_or(self.finished, |end| end + 1))
    }

    /// Bytes that FIONREAD counts.
    pub fn pending(&self) -> usize {
        let readable = if self.is_canonical() { self.finished } else { self.cells.len() };
        self.cells.iter().take(readable).filter(|cell| cell.end != End::File).count()
    }

    /// Moves bytes to `sink`: in canonical mode of one line at most. The caller saw that there is something.
    pub fn read(&mut self, sink: &mut dyn Sink) -> Result<usize> {
        let room = sink.remaining();
        let (limit, is_line) = match self.readable() {
            Readable::Line(len) => (len, true),
            Readable::Bytes(len) => (len, false),
            Readable::Nothing => return Ok(0),
        };
        let mut bytes = Vec::with_capacity(room.min(limit));
        let mut used = 0;
        for cell in self.cells.iter().take(limit) {
            if is_line && cell.end == End::File {
                // The mark goes with the bytes before it, however exactly they filled the reader's buffer.
                used += 1;
                break;
            }
            if bytes.len() == room {
                break;
            }
            bytes.push(cell.byte);
            used += 1;
        }
        let count = base::io_buf::put_all(sink, &bytes)?;
        if count < bytes.len() {
            used = count;
        }
        self.cells.drain(..used);
        self.finished = self.finished.saturating_sub(used);
        Ok(count)
    }
}
