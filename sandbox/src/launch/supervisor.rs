//! The wait: forward signals and window sizes, notice deaths, keep the time, tell the end.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use host::signal::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{Signal, WaitStatus};
use sentry::config::Outcome;
use sentry::control::{self, Order};

use super::Process;
use super::terminal::Terminal;
use crate::failure::Failure;

const SIGWINCH: i32 = Signal::WINCH.as_raw();

/// Signals that are the program's business when they reach us.
pub const FORWARDED: &[i32] = &[
    Signal::TERM.as_raw(),
    Signal::INT.as_raw(),
    Signal::HUP.as_raw(),
    Signal::QUIT.as_raw(),
    Signal::USR1.as_raw(),
    Signal::USR2.as_raw(),
    SIGWINCH,
];

/// Until then all processors are needed by the others. Many programs have not ended, and not started another one.
const START: Duration = Duration::from_millis(2);

/// How long a sentry may take to say why it ends after its gofer died.
const LAST_WORDS: Duration = Duration::from_millis(200);

pub struct Supervisor {
    pub signals: SignalFd,
    pub control: OwnedFd,
    pub sentry: Process,
    pub gofer: Process,
    pub gofer_may_write: bool,
    pub terminal: Option<Terminal>,
    pub timeout: Option<Duration>,
    /// The sentry is to know what programs ask the processor.
    pub tells_processor: bool,
}

/// Why the wait is over.
enum End {
    Outcome(Outcome),
    SentryDied,
    GoferDied,
    TimedOut(Duration),
}

/// What a look at all descriptors found.
#[derive(Default)]
struct Ready {
    control: bool,
    signals: bool,
    sentry: bool,
    gofer: bool,
}

impl Supervisor {
    /// Waits for the program's end, cleans up, and gives the command's exit code.
    pub fn run(&mut self) -> Result<u8, Failure> {
        let end = self.wait_for_end();
        // Everything is dead and the terminal restored before the last line is printed.
        if !matches!(end, Ok(End::GoferDied)) {
            self.sentry.kill();
            // Its end takes as long as the sentry's, and can be had at the same time. One that may be in the midst of
            // changing something for another process of the sandbox ends when the sentry has hung up.
            if !self.gofer_may_write {
                self.gofer.kill_here();
            }
        }
        let end = match end? {
            End::GoferDied => self.hear_last_words(),
            end => end,
        };
        self.sentry.kill();
        self.sentry.wait();
        if matches!(end, End::GoferDied) {
            self.gofer.wait();
        }
        self.gofer.kill();
        self.gofer.wait();
        kill_orphans();
        self.terminal = None;
        match end {
            End::Outcome(Outcome::Exited(code)) => Ok(code),
            End::Outcome(Outcome::Signaled(signal)) => Ok(signal.saturating_add(128)),
            End::Outcome(Outcome::Failed { code, message }) => {
                Err(Failure::of_sentry(code, message))
            }
            End::SentryDied => Err(Failure::new(sentry_epitaph(&self.sentry))),
            End::GoferDied => Err(Failure::new(gofer_epitaph(&self.gofer))),
            End::TimedOut(after) => Err(Failure::timed_out(after.as_secs_f64())),
        }
    }

    /// Tells the sentry what programs are going to ask the processor, once there is time for it.
    fn tell_processor(&self) -> Result<(), Failure> {
        let Ready { control, sentry, gofer, .. } = self.look(Some(START))?;
        if control || sentry || gofer {
            return Ok(());
        }
        let answers = platform::processor::answers();
        if !answers.is_empty() {
            // A sentry that is gone is about to be noticed as dead.
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let datagram = Order::Processor(answers).encode();
            let _ = rustix::net::send(self.control.as_fd(), &datagram, flags);
        }
        Ok(())
    }

    fn wait_for_end(&mut self) -> Result<End, Failure> {
        let deadline = self.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        if self.tells_processor {
            self.tell_processor()?;
        }
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let ready = self.look(left)?;
            // The outcome first: it explains every death that follows it.
            if ready.control
                && let Some(outcome) = self.receive()
            {
                return Ok(End::Outcome(outcome));
            }
            if ready.sentry {
                self.sentry.wait();
                return Ok(self.receive().map_or(End::SentryDied, End::Outcome));
            }
            if ready.gofer && !self.gofer_left_in_peace() {
                return Ok(End::GoferDied);
            }
            if ready.signals {
                self.forward_signals()?;
            }
            if let (Some(timeout), Some(Duration::ZERO)) = (self.timeout, left) {
                return Ok(End::TimedOut(timeout));
            }
        }
    }

    /// Waits until something happens, at most `timeout`.
    fn look(&self, timeout: Option<Duration>) -> Result<Ready, Failure> {
        let mut fds = [
            PollFd::new(&self.control, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.sentry.child.pidfd, PollFlags::IN),
            PollFd::new(&self.gofer.child.pidfd, PollFlags::IN),
        ];
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        // A gofer that was collected already is no news; its pidfd would stay readable.
        let watched = if self.gofer.status.is_none() { 4 } else { 3 };
        match poll(&mut fds[..watched], timeout.as_ref()) {
            Ok(_) => {
                let [control, signals, sentry, gofer] = fds.map(|fd| !fd.revents().is_empty());
                Ok(Ready { control, signals, sentry, gofer })
            }
            Err(rustix::io::Errno::INTR) => Ok(Ready::default()),
            Err(error) => Err(Failure::host("cannot wait for the sandbox", error)),
        }
    }

    /// A gofer ends by itself when its sentry has hung up, which a dying sentry does before it is quite dead.
    fn gofer_left_in_peace(&mut self) -> bool {
        self.gofer.wait().and_then(WaitStatus::exit_status) == Some(0)
    }

    fn receive(&self) -> Option<Outcome> {
        let mut datagram = [0_u8; control::MAX_LEN];
        let received = rustix::net::recv(&self.control, &mut datagram[..], RecvFlags::DONTWAIT);
        let length = received.map_or(0, |(length, _)| length);
        control::decode_outcome(datagram.get(..length)?)
    }

    fn forward_signals(&self) -> Result<(), Failure> {
        while let Some(signal) =
            self.signals.next().map_err(|e| Failure::host("cannot read signals", e))?
        {
            let size = self.terminal.as_ref().and_then(Terminal::size);
            let order = match (signal, size) {
                (SIGWINCH, None) => continue,
                (SIGWINCH, Some((rows, cols))) => Order::Resize { rows, cols },
                (signal, _) => Order::Signal(u8::try_from(signal).unwrap_or(0)),
            };
            tracing::debug!(?order, "forwarded");
            // A sentry that does not listen any more is about to be noticed as dead.
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let _ = rustix::net::send(self.control.as_fd(), &order.encode(), flags);
        }
        Ok(())
    }

    /// After the gofer's death: the sentry may know better what happened, but only for a moment.
    fn hear_last_words(&self) -> End {
        let deadline = Instant::now() + LAST_WORDS;
        loop {
            if let Some(outcome @ Outcome::Failed { .. }) = self.receive() {
                return End::Outcome(outcome);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.control, PollFlags::IN)];
            let timeout = Timespec::try_from(left).ok();
            let heard = poll(&mut fds, timeout.as_ref()).unwrap_or(0);
            let hung_up = fds[0].revents().contains(PollFlags::HUP);
            if left.is_zero() || heard == 0 || hung_up {
                return End::GoferDied;
            }
        }
    }
}

fn sentry_epitaph(sentry: &Process) -> String {
    let signal = sentry.status.and_then(WaitStatus::terminating_signal);
    let why = match signal {
        Some(signal) if signal == Signal::SYS.as_raw() => {
            "it made a host call that its filter forbids; see the host's audit log and report it"
        }
        Some(signal) if signal == Signal::KILL.as_raw() => {
            "somebody killed it, or the host ran out of memory"
        }
        _ => "a defect of the sandbox's kernel; run again with -v and report it",
    };
    format!("{}: {why}; everything in the sandbox was ended", sentry.epitaph())
}

fn gofer_epitaph(gofer: &Process) -> String {
    let code = gofer.status.and_then(WaitStatus::exit_status);
    let why = if code == Some(super::gofer::COULD_NOT_START) {
        "it said why above"
    } else {
        "without it no file can be opened"
    };
    format!("{}: {why}; everything in the sandbox was ended", gofer.epitaph())
}

/// Without a pid namespace, guests of a killed sentry become our children: end them too.
fn kill_orphans() {
    use rustix::process::{WaitOptions, waitpid};
    // Mostly there is nobody, which is quicker to hear than to read.
    if matches!(waitpid(None, WaitOptions::NOHANG), Err(rustix::io::Errno::CHILD)) {
        return;
    }
    let me = rustix::process::getpid().as_raw_nonzero();
    let list = format!("/proc/self/task/{me}/children");
    // Each round ends one generation; a kernel without this file has none to show.
    for _ in 0..64 {
        let children = std::fs::read_to_string(&list).unwrap_or_default();
        let mut found = false;
        for pid in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            let Some(pid) = rustix::process::Pid::from_raw(pid) else { continue };
            found = true;
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
        }
        if !found {
            return;
        }
    }
}
