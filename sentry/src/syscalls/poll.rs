//! Waiting for several files: poll and select.

use std::sync::Arc;

use abi::ids::Fd;
use abi::poll::{PollEvents, PollFd};
use abi::rlimit::Resource;
use abi::signal::SigSet;
use abi::time::{Timespec, Timeval};
use abi::{Errno, Result, UserAddr};
use base::Observer;
use base::clock::Nanos;
use base::wait::Registration;
use smallvec::SmallVec;
use vfs::File;

use crate::cx::Cx;
use crate::error::{Restart, SysError, SysResult};
use crate::executor::notify::Notified;
use crate::mm::{Mm, UserRef};
use crate::syscalls::names::PollFds;
use crate::task::Blocked;

/// One file of a poll or select.
struct Entry {
    /// `None` for a negative descriptor, which poll(2) skips.
    file: Option<Arc<File>>,
    /// What ends the wait.
    asked: PollEvents,
    found: PollEvents,
}

type Entries = SmallVec<[Entry; 8]>;

/// What poll(2) tells without being asked.
const ALWAYS: PollEvents = PollEvents::ERR.union(PollEvents::HUP).union(PollEvents::NVAL);

/// poll. See [poll(2)](https://man7.org/linux/man-pages/man2/poll.2.html).
pub async fn poll(cx: &mut Cx<'_>, fds: PollFds, timeout_ms: i32) -> SysResult {
    let PollFds { at: fds, count } = fds;
    let deadline = match u64::try_from(timeout_ms) {
        Ok(ms) => Timeout::until(cx.deadline_after(ms.saturating_mul(1_000_000)), ms == 0),
        Err(_) => Timeout::Never,
    };
    match poll_user(cx, fds, count, deadline).await {
        // What has no end needs no memory of when it ends.
        Err(SysError::Restart(_)) if deadline != Timeout::Never => {
            Err(cx.restart_until(deadline.deadline().unwrap_or(0)))
        }
        other => other,
    }
}

/// ppoll. See [ppoll(2)](https://man7.org/linux/man-pages/man2/ppoll.2.html).
pub async fn ppoll(
    cx: &mut Cx<'_>,
    fds: PollFds,
    timeout: UserRef<Timespec>,
    mask: UserRef<u64>,
    mask_size: usize,
) -> SysResult {
    let PollFds { at: fds, count } = fds;
    let deadline = timespec_deadline(cx, timeout)?;
    let mask = read_mask(cx, mask, mask_size)?;
    begin_mask(cx, mask);
    let result = poll_user(cx, fds, count, deadline).await;
    end_mask(cx, mask, &result);
    if let Some(at) = timeout.optional() {
        give_back_timespec(cx, at, deadline);
    }
    result
}

/// select. See [select(2)](https://man7.org/linux/man-pages/man2/select.2.html).
pub async fn select(
    cx: &mut Cx<'_>,
    count: i32,
    read: UserAddr,
    write: UserAddr,
    except: UserAddr,
    timeout: UserRef<Timeval>,
) -> SysResult {
    let deadline = match timeout.optional() {
        None => Timeout::Never,
        Some(at) => {
            let time = at.read(&cx.mm())?;
            if time.sec < 0 || time.usec < 0 {
                return Err(Errno::EINVAL.into());
            }
            // Linux takes a million microseconds and more, too.
            let ns = (time.sec as u64)
                .saturating_mul(1_000_000_000)
                .saturating_add((time.usec as u64).saturating_mul(1000));
            Timeout::until(cx.kernel.now().saturating_add(ns), ns == 0)
        }
    };
    let result = select_user(cx, count, [read, write, except], deadline).await;
    if let Some(at) = timeout.optional()
        && let Some(left) = deadline.left(cx)
    {
        // A timeout that cannot be written back changes nothing, as on Linux.
        let _ = at.write(&cx.mm(), &Timeval::from_nanos(left));
    }
    result
}

/// What pselect6(2) finds behind its last argument.
type MaskArg = [u64; 2];

/// pselect6. See [pselect(2)](https://man7.org/linux/man-pages/man2/pselect.2.html).
pub async fn pselect6(
    cx: &mut Cx<'_>,
    count: i32,
    read: UserAddr,
    write: UserAddr,
    except: UserAddr,
    timeout: UserRef<Timespec>,
    mask: UserRef<MaskArg>,
) -> SysResult {
    let deadline = timespec_deadline(cx, timeout)?;
    let mask = match mask.optional() {
        None => None,
        Some(at) => {
            let [addr, size] = at.read(&cx.mm())?;
            let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
            read_mask(cx, UserRef::new(UserAddr(addr)), size)?
        }
    };
    begin_mask(cx, mask);
    let result = select_user(cx, count, [read, write, except], deadline).await;
    end_mask(cx, mask, &result);
    if let Some(at) = timeout.optional() {
        give_back_timespec(cx, at, deadline);
    }
    result
}

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeout {
    /// Only look.
    Now,
    /// Until then, on `CLOCK_MONOTONIC`.
    At(Nanos),
    Never,
}

impl Timeout {
    #[must_use]
    pub const fn until(deadline: Nanos, is_zero: bool) -> Self {
        if is_zero { Self::Now } else { Self::At(deadline) }
    }

    #[must_use]
    pub const fn deadline(self) -> Option<Nanos> {
        match self {
            Self::At(deadline) => Some(deadline),
            Self::Now | Self::Never => None,
        }
    }

    /// What is left of it; `None` without a limit.
    fn left(self, cx: &Cx<'_>) -> Option<Nanos> {
        match self {
            Self::Now => Some(0),
            Self::At(deadline) => Some(deadline.saturating_sub(cx.kernel.now())),
            Self::Never => None,
        }
    }
}

/// A timeout argument of the calls that take a `struct timespec`.
///
/// # Errors
/// `EFAULT`, `EINVAL`.
pub fn timespec_deadline(cx: &Cx<'_>, timeout: UserRef<Timespec>) -> Result<Timeout> {
    let Some(at) = timeout.optional() else { return Ok(Timeout::Never) };
    let time = at.read(&cx.mm())?;
    if !time.is_valid() {
        return Err(Errno::EINVAL);
    }
    let ns = time.to_nanos();
    Ok(Timeout::until(cx.kernel.now().saturating_add(ns), ns == 0))
}

fn give_back_timespec(cx: &Cx<'_>, at: UserRef<Timespec>, timeout: Timeout) {
    if let Some(left) = timeout.left(cx) {
        // A timeout that cannot be written back changes nothing, as on Linux.
        let _ = at.write(&cx.mm(), &Timespec::from_nanos(left));
    }
}

/// A signal mask argument; null is none.
///
/// # Errors
/// `EINVAL` for another size than 8, `EFAULT`.
pub fn read_mask(cx: &Cx<'_>, mask: UserRef<u64>, size: usize) -> Result<Option<SigSet>> {
    let Some(at) = mask.optional() else { return Ok(None) };
    if size != 8 {
        return Err(Errno::EINVAL);
    }
    at.read(&cx.mm()).map(|bits| Some(SigSet(bits)))
}

/// Sets the mask for the duration of a call.
pub fn begin_mask(cx: &Cx<'_>, mask: Option<SigSet>) {
    if let Some(mask) = mask {
        cx.thread.begin_temporary_mask(mask);
    }
}

/// Takes it back, unless a signal ended the call: then its delivery does.
pub fn end_mask(cx: &Cx<'_>, mask: Option<SigSet>, result: &SysResult) {
    if mask.is_some() && !matches!(result, Err(SysError::Restart(_))) {
        cx.thread.end_temporary_mask();
    }
}

async fn poll_user(
    cx: &mut Cx<'_>,
    fds: UserRef<PollFd>,
    count: u32,
    timeout: Timeout,
) -> SysResult {
    if u64::from(count) > cx.thread.group.limit(Resource::Nofile) {
        return Err(Errno::EINVAL.into());
    }
    let mm = cx.mm();
    let mut user = fds.read_array(&mm, count as usize)?;
    let files = cx.files();
    let mut entries: Entries = user
        .iter()
        .map(|fd| {
            let asked = PollEvents::from_bits_truncate(u32::from(fd.events)) | ALWAYS;
            match files.get(Fd(fd.fd)) {
                Ok(file) => Entry { file: Some(file), asked, found: PollEvents::empty() },
                Err(_) if fd.fd < 0 => Entry { file: None, asked, found: PollEvents::empty() },
                Err(_) => Entry { file: None, asked, found: PollEvents::NVAL },
            }
        })
        .collect();
    drop(files);
    let ready = wait_for_any(cx, &mut entries, timeout).await?;
    for (fd, entry) in user.iter_mut().zip(&entries) {
        fd.revents = entry.found.bits() as u16;
    }
    write_revents(&mm, fds, &user)?;
    Ok(ready as u64)
}

/// Only `revents` is the kernel's to write, but the rest is what was read just now.
fn write_revents(mm: &Mm, fds: UserRef<PollFd>, user: &[PollFd]) -> Result<()> {
    if user.is_empty() { Ok(()) } else { fds.write_array(mm, user) }
}

/// Waits until some entry is ready; returns how many are.
async fn wait_for_any(
    cx: &mut Cx<'_>,
    entries: &mut Entries,
    timeout: Timeout,
) -> std::result::Result<usize, SysError> {
    let ready = look(cx, entries);
    if ready > 0 || timeout == Timeout::Now {
        return Ok(ready);
    }
    let notified = Notified::new();
    let _registrations: SmallVec<[Registration; 8]> = entries
        .iter()
        .filter_map(|entry| {
            let queue = entry.file.as_ref()?.ops().wait_queue()?;
            Some(queue.register(entry.asked, Arc::clone(&notified) as Arc<dyn Observer>))
        })
        .collect();
    loop {
        let ready = look(cx, entries);
        if ready > 0 {
            return Ok(ready);
        }
        match cx.block_on(notified.wait(), timeout.deadline()).await {
            Ok(()) => {}
            Err(Blocked::TimedOut) => return Ok(look(cx, entries)),
            Err(Blocked::Interrupted) => return Err(SysError::Restart(Restart::NoHandler)),
        }
    }
}

/// Looks at every file once.
fn look(cx: &Cx<'_>, entries: &mut Entries) -> usize {
    cx.with_vfs(|vfs| {
        let mut ready = 0;
        for entry in entries.iter_mut() {
            if let Some(file) = &entry.file {
                entry.found = file.ops().poll(vfs, file) & entry.asked;
            }
            ready += usize::from(!entry.found.is_empty());
        }
        ready
    })
}

/// The three questions of select(2), in the order of its arguments.
const ASKED: [PollEvents; 3] = [
    PollEvents::IN
        .union(PollEvents::RDNORM)
        .union(PollEvents::RDBAND)
        .union(PollEvents::HUP)
        .union(PollEvents::ERR),
    PollEvents::OUT.union(PollEvents::WRNORM).union(PollEvents::WRBAND).union(PollEvents::ERR),
    PollEvents::PRI,
];

/// The sets of one select(2); each has a bit per descriptor.
type Sets = [Option<Vec<u64>>; 3];

async fn select_user(
    cx: &mut Cx<'_>,
    count: i32,
    addrs: [UserAddr; 3],
    timeout: Timeout,
) -> SysResult {
    let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
    // Linux looks no further than the descriptor table is large.
    let count = count.min(cx.files().capacity());
    let mm = cx.mm();
    let mut sets: Sets = [None, None, None];
    for (set, addr) in sets.iter_mut().zip(addrs) {
        if !addr.is_null() {
            let words = count.div_ceil(64);
            *set = Some(UserRef::<u64>::new(addr).read_array(&mm, words)?);
        }
    }
    let mut entries = Entries::new();
    let mut fds: SmallVec<[usize; 8]> = SmallVec::new();
    for fd in 0..count {
        let asked = asked_of(&sets, fd);
        if asked.is_empty() {
            continue;
        }
        let number = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
        let file = cx.files().get(Fd(number))?;
        entries.push(Entry { file: Some(file), asked, found: PollEvents::empty() });
        fds.push(fd);
    }
    wait_for_any(cx, &mut entries, timeout).await?;
    let mut total = 0;
    for (index, (set, addr)) in sets.iter_mut().zip(addrs).enumerate() {
        let Some(words) = set else { continue };
        let asked = std::mem::replace(words, vec![0; count.div_ceil(64)]);
        for (fd, entry) in fds.iter().zip(&entries) {
            let (word, bit) = (fd / 64, 1u64 << (fd % 64));
            let wanted = asked.get(word).is_some_and(|word| word & bit != 0);
            if wanted && entry.found.intersects(ASKED[index]) {
                if let Some(word) = words.get_mut(word) {
                    *word |= bit;
                }
                total += 1;
            }
        }
        UserRef::<u64>::new(addr).write_array(&mm, words)?;
    }
    Ok(total)
}

fn asked_of(sets: &Sets, fd: usize) -> PollEvents {
    let mut asked = PollEvents::empty();
    for (set, events) in sets.iter().zip(ASKED) {
        let word = set.as_ref().and_then(|words| words.get(fd / 64)).copied().unwrap_or(0);
        if word & (1 << (fd % 64)) != 0 {
            asked |= events;
        }
    }
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_ask_for_their_events() {
        let sets: Sets = [Some(vec![0b10]), None, Some(vec![0b11])];
        assert_eq!(asked_of(&sets, 0), PollEvents::PRI);
        assert_eq!(asked_of(&sets, 1), ASKED[0] | PollEvents::PRI);
        assert_eq!(asked_of(&sets, 2), PollEvents::empty());
        assert_eq!(asked_of(&sets, 64), PollEvents::empty());
    }

    #[test]
    fn zero_timeout_only_looks() {
        assert_eq!(Timeout::until(5, true), Timeout::Now);
        assert_eq!(Timeout::until(5, false).deadline(), Some(5));
    }
}
