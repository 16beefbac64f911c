//! The host's terminal: raw while the sandbox runs, restored on every way out.

use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use rustix::stdio;
use rustix::termios::{self, OptionalActions, Termios};
use sentry::config::{Console, Stdio};

use crate::failure::Failure;

/// What to restore, reachable from the panic hook too. Empty when nothing was changed.
static SAVED: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);

/// The terminal among the caller's standard streams.
pub struct Terminal {
    /// A descriptor of it, for its size.
    tty: OwnedFd,
    /// Keeps an input that never has anything to say open, when standard input is not the terminal.
    _silence: Option<OwnedFd>,
}

/// The guest's three streams and, when one of them is a terminal, the console behind it.
pub struct Streams {
    pub stdio: [Stdio; 3],
    pub console: Option<Console>,
    pub terminal: Option<Terminal>,
}

/// Looks at the caller's streams; puts the terminal in raw mode when we are in its foreground.
pub fn take() -> Result<Streams, Failure> {
    let streams = [stdio::stdin(), stdio::stdout(), stdio::stderr()];
    let Some(tty) = streams.iter().find(|fd| fd.is_terminal()) else {
        return Ok(Streams { stdio: streams.map(host_stream), console: None, terminal: None });
    };
    let cannot = |error| Failure::host("cannot use the terminal", error);
    let tty = duplicate(*tty).map_err(cannot)?;
    let before = termios::tcgetattr(&tty).map_err(cannot)?;
    let size = termios::tcgetwinsize(&tty).map_err(cannot)?;
    let reads_it = streams[0].is_terminal() && is_foreground(&tty);
    let (input, silence) = if reads_it {
        make_raw(&tty, &before, streams.iter().all(|fd| fd.is_terminal())).map_err(cannot)?;
        (duplicate(streams[0]).map_err(cannot)?, None)
    } else {
        let (input, silence) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| Failure::host("cannot make a pipe", error))?;
        (input, Some(silence))
    };
    let console = Console {
        input,
        output: duplicate(tty.as_fd()).map_err(cannot)?,
        rows: size.ws_row,
        cols: size.ws_col,
        termios: kernel_termios(&before),
    };
    let stdio = streams.map(|fd| if fd.is_terminal() { Stdio::Console } else { host_stream(fd) });
    let terminal = Terminal { tty, _silence: silence };
    Ok(Streams { stdio, console: Some(console), terminal: Some(terminal) })
}

impl Terminal {
    /// Rows and columns now.
    pub fn size(&self) -> Option<(u16, u16)> {
        let size = termios::tcgetwinsize(&self.tty).ok()?;
        Some((size.ws_row, size.ws_col))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back as it was found.
pub fn restore() {
    let saved = SAVED.lock().map(|mut saved| saved.take());
    if let Ok(Some((tty, before))) = saved {
        // A terminal that is gone needs no restoring.
        let _ = termios::tcsetattr(&tty, OptionalActions::Drain, &before);
    }
}

/// Forgets what to restore, in a child that shares the terminal with the supervisor.
pub fn disown() {
    if let Ok(mut saved) = SAVED.lock() {
        // The child's copy of the descriptor was closed with all others that it does not keep: its number is not ours.
        std::mem::forget(saved.take());
    }
}

fn make_raw(tty: &OwnedFd, before: &Termios, owns_all_streams: bool) -> rustix::io::Result<()> {
    let mut raw = before.clone();
    raw.make_raw();
    if !owns_all_streams {
        // Somebody else's lines go to this terminal too, as in `sandbox run x | head`.
        raw.output_modes = before.output_modes;
    }
    if let Ok(mut saved) = SAVED.lock() {
        *saved = Some((rustix::io::fcntl_dupfd_cloexec(tty, 3)?, before.clone()));
    }
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restore();
        hook(info);
    }));
    termios::tcsetattr(tty, OptionalActions::Now, &raw)
}

fn is_foreground(tty: &OwnedFd) -> bool {
    termios::tcgetpgrp(tty).is_ok_and(|group| group == rustix::process::getpgrp())
}

fn host_stream(fd: BorrowedFd<'_>) -> Stdio {
    duplicate(fd).map_or(Stdio::Closed, Stdio::Host)
}

/// A copy above the standard streams, so that it can be handed on without disturbing ours.
fn duplicate(fd: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3)
}

/// `struct termios` as TCGETS lays it out: four flag words, the line discipline, 19 control characters.
fn kernel_termios(termios: &Termios) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(36);
    let speed = 0o17_u32; // B38400: a pty has no speed, but programs expect one.
    bytes.extend_from_slice(&termios.input_modes.bits().to_ne_bytes());
    bytes.extend_from_slice(&termios.output_modes.bits().to_ne_bytes());
    bytes.extend_from_slice(&(termios.control_modes.bits() & !0o10017 | speed).to_ne_bytes());
    bytes.extend_from_slice(&termios.local_modes.bits().to_ne_bytes());
    bytes.push(0);
    for index in CONTROL_CHARACTERS {
        bytes.push(termios.special_codes[index]);
    }
    bytes.resize(36, 0);
    bytes
}

/// The kernel's order of control characters.
const CONTROL_CHARACTERS: [termios::SpecialCodeIndex; 17] = {
    use termios::SpecialCodeIndex as Code;
    [
        Code::VINTR,
        Code::VQUIT,
        Code::VERASE,
        Code::VKILL,
        Code::VEOF,
        Code::VTIME,
        Code::VMIN,
        Code::VSWTC,
        Code::VSTART,
        Code::VSTOP,
        Code::VSUSP,
        Code::VEOL,
        Code::VREPRINT,
        Code::VDISCARD,
        Code::VWERASE,
        Code::VLNEXT,
        Code::VEOL2,
    ]
};
