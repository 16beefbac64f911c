//! How a system call can end. Restart is not an errno: only this crate can spell it.

use abi::Errno;

/// What interrupted calls do after the signal was handled. See signal(7), "Interruption of system calls".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// ERESTARTSYS: restart when no handler ran or it has `SA_RESTART`, else `EINTR`.
    IfAsked,
    /// ERESTARTNOHAND: restart only when no handler ran, else `EINTR` (poll, pause, sigsuspend...).
    NoHandler,
    /// ERESTARTNOINTR: always restart.
    Always,
    /// ERESTART_RESTARTBLOCK: when no handler ran, go on through restart_syscall(2) with what the thread stored in
    /// `Thread::restart_block` (nanosleep, futex with timeout, poll with timeout); else `EINTR`.
    Block,
}

/// Why a handler did not return a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SysError {
    /// The guest asked wrongly.
    Errno(Errno),
    /// A signal interrupted the call.
    Restart(Restart),
    /// The registers already hold what the guest is to see (sigreturn, execve).
    RegsSet,
    /// The thread has ended (exit, exit_group, fatal signal) and must not return to the guest.
    Exited,
}

impl From<Errno> for SysError {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// What every handler returns: the value for the guest's return register.
pub type SysResult = Result<u64, SysError>;
