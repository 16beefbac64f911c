//! Waiting for a word of memory to change.

use std::sync::Arc;

use abi::futex::{self, FutexWaitv};
use abi::time::{CLOCK_MONOTONIC, CLOCK_REALTIME, Timespec};
use abi::{Errno, Result, UserAddr};
use base::clock::Nanos;

use crate::cx::Cx;
use crate::error::{Restart, SysError, SysResult};
use crate::futex::{Key, WakeOp, pi};
use crate::mm::{Mm, UserRef};
use crate::syscalls::args::{FromArg, Hex, Render};
use crate::syscalls::table::Attempt;
use crate::task::Blocked;

/// Operation and flags, as futex(2) takes them in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FutexOp(u32);

impl FutexOp {
    const fn command(self) -> u32 {
        self.0 & futex::FUTEX_CMD_MASK
    }

    const fn is_private(self) -> bool {
        self.0 & futex::FUTEX_PRIVATE_FLAG != 0
    }

    const fn is_realtime(self) -> bool {
        self.0 & futex::FUTEX_CLOCK_REALTIME != 0
    }
}

impl FromArg for FutexOp {
    fn from_arg(word: u64) -> Result<Self> {
        Ok(Self(word as u32))
    }
}

impl Render for FutexOp {
    fn render(&self, out: &mut String, _mm: &Mm) {
        const NAMES: [&str; 14] = [
            "WAIT",
            "WAKE",
            "FD",
            "REQUEUE",
            "CMP_REQUEUE",
            "WAKE_OP",
            "LOCK_PI",
            "UNLOCK_PI",
            "TRYLOCK_PI",
            "WAIT_BITSET",
            "WAKE_BITSET",
            "WAIT_REQUEUE_PI",
            "CMP_REQUEUE_PI",
            "LOCK_PI2",
        ];
        out.push_str("FUTEX_");
        match NAMES.get(self.command() as usize) {
            Some(name) => out.push_str(name),
            None => out.push_str(&format!("{:#x}", self.command())),
        }
        if self.is_private() {
            out.push_str("_PRIVATE");
        }
        if self.is_realtime() {
            out.push_str("|FUTEX_CLOCK_REALTIME");
        }
    }
}

/// The arguments of one futex(2).
#[derive(Debug, Clone, Copy)]
struct Request {
    uaddr: UserAddr,
    op: FutexOp,
    val: u32,
    /// A pointer to a timeout, or a second count.
    timeout: u64,
    uaddr2: UserAddr,
    val3: u32,
}

impl Request {
    /// The bitset of the bitset operations; all bits for the others.
    fn bitset(&self) -> Result<u32> {
        match self.op.command() {
            futex::FUTEX_WAIT_BITSET | futex::FUTEX_WAKE_BITSET if self.val3 == 0 => {
                Err(Errno::EINVAL)
            }
            futex::FUTEX_WAIT_BITSET | futex::FUTEX_WAKE_BITSET => Ok(self.val3),
            _ => Ok(futex::FUTEX_BITSET_MATCH_ANY),
        }
    }

    /// How many to wake.
    fn wake_count(&self) -> usize {
        count(self.val.cast_signed())
    }

    /// The second count of the requeue operations and WAKE_OP.
    fn second_count(&self) -> usize {
        count(self.timeout as i32)
    }
}

/// A count; a negative one is none (and where Linux counts after it woke one, that is still one).
fn count(val: i32) -> usize {
    usize::try_from(val).unwrap_or(0)
}

/// futex, the operations that never wait, and waits that need not.
/// See [futex(2)](https://man7.org/linux/man-pages/man2/futex.2.html).
pub fn try_futex(
    cx: &mut Cx<'_>,
    uaddr: UserAddr,
    op: FutexOp,
    val: u32,
    timeout: Hex,
    uaddr2: UserAddr,
    val3: u32,
) -> Attempt {
    let request = Request { uaddr, op, val, timeout: timeout.0, uaddr2, val3 };
    match at_once(cx, &request) {
        Ok(Some(value)) => Attempt::Done(Ok(value)),
        Ok(None) => Attempt::WouldBlock { begun: 0 },
        Err(errno) => Attempt::Done(Err(errno.into())),
    }
}

fn at_once(cx: &Cx<'_>, request: &Request) -> Result<Option<u64>> {
    let mm = cx.mm();
    let key = |addr| key_of(&mm, addr, request.op.is_private());
    let value = match request.op.command() {
        futex::FUTEX_WAKE..=futex::FUTEX_WAKE_OP | futex::FUTEX_WAKE_BITSET
            if request.op.is_realtime() =>
        {
            return Err(Errno::ENOSYS);
        }
        futex::FUTEX_WAIT | futex::FUTEX_WAIT_BITSET => {
            request.bitset()?;
            deadline(cx, request)?;
            check_aligned(request.uaddr)?;
            let now = read_word(&mm, request.uaddr)?;
            return if now == request.val { Ok(None) } else { Err(Errno::EAGAIN) };
        }
        futex::FUTEX_WAKE | futex::FUTEX_WAKE_BITSET => {
            let bitset = request.bitset()?;
            let key = key(request.uaddr)?;
            if request.op.is_private() && mm.space().futexes().has_outside(request.uaddr) {
                return Ok(None);
            }
            cx.kernel.futexes.wake(&key, request.wake_count().max(1), bitset)
        }
        futex::FUTEX_REQUEUE | futex::FUTEX_CMP_REQUEUE
            if request.op.is_private() && !mm.space().futexes().end_outside() =>
        {
            return Ok(None);
        }
        futex::FUTEX_REQUEUE => requeue(cx, &mm, request, None)?,
        futex::FUTEX_CMP_REQUEUE => requeue(cx, &mm, request, Some(request.val3))?,
        futex::FUTEX_WAKE_OP
        | futex::FUTEX_LOCK_PI
        | futex::FUTEX_LOCK_PI2
        | futex::FUTEX_TRYLOCK_PI
        | futex::FUTEX_UNLOCK_PI => return Ok(None),
        _ => return Err(Errno::ENOSYS),
    };
    Ok(Some(value as u64))
}

/// futex, the operations that may wait or that change the word.
pub async fn futex(
    cx: &mut Cx<'_>,
    uaddr: UserAddr,
    op: FutexOp,
    val: u32,
    timeout: Hex,
    uaddr2: UserAddr,
    val3: u32,
) -> SysResult {
    let request = Request { uaddr, op, val, timeout: timeout.0, uaddr2, val3 };
    let key = key_of(&cx.mm(), uaddr, op.is_private())?;
    match op.command() {
        futex::FUTEX_WAIT | futex::FUTEX_WAIT_BITSET => {
            let (bitset, deadline) = (request.bitset()?, deadline(cx, &request)?);
            wait(cx, key, uaddr, val, bitset, deadline).await
        }
        futex::FUTEX_WAKE | futex::FUTEX_WAKE_BITSET => wake_everywhere(cx, key, &request).await,
        futex::FUTEX_REQUEUE | futex::FUTEX_CMP_REQUEUE => {
            bring_in(cx).await;
            let expected = (op.command() == futex::FUTEX_CMP_REQUEUE).then_some(val3);
            let mm = cx.mm();
            Ok(requeue(cx, &mm, &request, expected)? as u64)
        }
        futex::FUTEX_WAKE_OP => {
            if op.is_private() {
                bring_in(cx).await;
            }
            wake_op(cx, key, &request).await
        }
        futex::FUTEX_LOCK_PI | futex::FUTEX_LOCK_PI2 => {
            let deadline = deadline(cx, &request)?;
            pi::lock(cx, key, uaddr, deadline).await
        }
        futex::FUTEX_TRYLOCK_PI => pi::try_lock(cx, uaddr).await,
        futex::FUTEX_UNLOCK_PI => pi::unlock(cx, key, uaddr).await,
        _ => Err(Errno::ENOSYS.into()),
    }
}

/// Wakes those who wait here, then those who wait without us.
async fn wake_everywhere(cx: &mut Cx<'_>, key: Key, request: &Request) -> SysResult {
    let (count, bitset) = (request.wake_count().max(1), request.bitset()?);
    let mut woken = cx.kernel.futexes.wake(&key, count, bitset);
    let left = u32::try_from(count - woken).unwrap_or(u32::MAX);
    if left > 0 && request.op.is_private() {
        // When the guest is dead, the next resume says so.
        woken += cx.context.wake_outside(request.uaddr, left, bitset).await.unwrap_or(0);
    }
    Ok(woken as u64)
}

/// From now on all who wait for private futexes of the caller's memory wait here: what is to be done next is done to all
/// of them at once.
async fn bring_in(cx: &mut Cx<'_>) {
    /// Between two looks at how many are still to come.
    const PAUSE: Nanos = 50_000;
    let mm = cx.mm();
    while !mm.space().futexes().end_outside() {
        let pause = cx.kernel.timers.sleep_until(cx.kernel.now().saturating_add(PAUSE));
        let thread = Arc::clone(cx.thread);
        if thread.block_killable(pause).await.is_err() {
            return;
        }
    }
}

/// A wait in the sentry for a private futex is known to who wakes it.
struct Announced {
    mm: Arc<Mm>,
    addr: UserAddr,
}

impl Announced {
    /// To be called before the word is looked at.
    fn new(mm: &Arc<Mm>, addr: UserAddr) -> Self {
        mm.space().futexes().add_waiter(addr);
        Self { mm: Arc::clone(mm), addr }
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.mm.space().futexes().remove_waiter(self.addr);
    }
}

fn check_aligned(addr: UserAddr) -> Result<()> {
    if addr.0.is_multiple_of(4) { Ok(()) } else { Err(Errno::EINVAL) }
}

fn key_of(mm: &Mm, addr: UserAddr, is_private: bool) -> Result<Key> {
    check_aligned(addr)?;
    if is_private {
        return Ok(Key::Private { space: mm.space().id(), addr: addr.0 });
    }
    mm.shared_key(addr)
}

/// Reads a futex word; takes no lock, so that it may be called under a bucket's.
pub(crate) fn read_word(mm: &Mm, addr: UserAddr) -> Result<u32> {
    let mut bytes = [0; 4];
    if mm.space().read(addr, &mut bytes) == bytes.len() {
        Ok(u32::from_ne_bytes(bytes))
    } else {
        Err(Errno::EFAULT)
    }
}

/// Until when to wait, on `CLOCK_MONOTONIC`: WAIT has a relative timeout, the others an absolute one.
fn deadline(cx: &Cx<'_>, request: &Request) -> Result<Option<Nanos>> {
    let command = request.op.command();
    let may_be_realtime =
        matches!(command, futex::FUTEX_WAIT | futex::FUTEX_WAIT_BITSET | futex::FUTEX_LOCK_PI2);
    if request.op.is_realtime() && !may_be_realtime {
        return Err(Errno::ENOSYS);
    }
    if request.timeout == 0 {
        return Ok(None);
    }
    let timeout = UserRef::<Timespec>::new(UserAddr(request.timeout)).read(&cx.mm())?;
    if !timeout.is_valid() {
        return Err(Errno::EINVAL);
    }
    let ns = timeout.to_nanos();
    Ok(Some(match command {
        futex::FUTEX_WAIT => cx.deadline_after(ns),
        _ if request.op.is_realtime() || command == futex::FUTEX_LOCK_PI => from_realtime(cx, ns),
        _ => ns,
    }))
}

/// An instant of `CLOCK_REALTIME` on `CLOCK_MONOTONIC`.
fn from_realtime(cx: &Cx<'_>, ns: Nanos) -> Nanos {
    let ahead = ns.saturating_sub(cx.kernel.clock.realtime());
    cx.kernel.now().saturating_add(ahead)
}

/// Waits until the word is woken, if it still holds `val`.
async fn wait(
    cx: &mut Cx<'_>,
    key: Key,
    addr: UserAddr,
    val: u32,
    bitset: u32,
    deadline: Option<Nanos>,
) -> SysResult {
    let (kernel, mm) = (Arc::clone(cx.kernel), cx.mm());
    let is_private = matches!(key, Key::Private { .. });
    let _announced = is_private.then(|| Announced::new(&mm, addr));
    let mut wait = kernel.futexes.wait();
    wait.enqueue(key, bitset, None, || match read_word(&mm, addr)? {
        now if now == val => Ok(()),
        _ => Err(Errno::EAGAIN),
    })?;
    cx.context.end_outside_wait();
    let Err(blocked) = cx.block_on(&mut wait, deadline).await else { return Ok(0) };
    if wait.leave().is_some() {
        return Ok(0);
    }
    Err(how_it_ended(cx, blocked, deadline))
}

/// A wait that ended without a wake-up.
fn how_it_ended(cx: &Cx<'_>, blocked: Blocked, deadline: Option<Nanos>) -> SysError {
    match (blocked, deadline) {
        (Blocked::TimedOut, _) => Errno::ETIMEDOUT.into(),
        (Blocked::Interrupted, None) => SysError::Restart(Restart::IfAsked),
        (Blocked::Interrupted, Some(deadline)) => cx.restart_until(deadline),
    }
}

fn requeue(cx: &Cx<'_>, mm: &Mm, request: &Request, expected: Option<u32>) -> Result<usize> {
    let (wake, move_) = (request.val.cast_signed(), request.timeout as i32);
    if wake < 0 || move_ < 0 {
        return Err(Errno::EINVAL);
    }
    let from = key_of(mm, request.uaddr, request.op.is_private())?;
    let to = key_of(mm, request.uaddr2, request.op.is_private())?;
    let check = || match expected {
        Some(expected) if read_word(mm, request.uaddr)? != expected => Err(Errno::EAGAIN),
        _ => Ok(()),
    };
    let (woken, moved) = cx.kernel.futexes.requeue(&from, &to, count(wake), count(move_), check)?;
    Ok(woken + moved)
}

/// FUTEX_WAKE_OP: changes the second word, wakes the first, and the second if its old value compares.
async fn wake_op(cx: &mut Cx<'_>, key: Key, request: &Request) -> SysResult {
    let op = WakeOp::decode(request.val3)?;
    let mm = cx.mm();
    let second = key_of(&mm, request.uaddr2, request.op.is_private())?;
    let old = update(cx, request.uaddr2, |old| Ok(op.apply(old))).await?;
    let mut woken = cx.kernel.futexes.wake(&key, request.wake_count().max(1), u32::MAX);
    if op.matches(old) {
        woken += cx.kernel.futexes.wake(&second, request.second_count().max(1), u32::MAX);
    }
    Ok(woken as u64)
}

/// Changes a word atomically; returns what it held before. `change` may refuse.
///
/// # Errors
/// `EFAULT`; what `change` says.
pub(crate) async fn update(
    cx: &mut Cx<'_>,
    addr: UserAddr,
    mut change: impl FnMut(u32) -> Result<u32>,
) -> Result<u32> {
    let mut old = read_word(&cx.mm(), addr)?;
    loop {
        let new = change(old)?;
        if new == old {
            return Ok(old);
        }
        // A platform that failed says so again when the thread goes on.
        let seen =
            cx.context.compare_exchange(addr, old, new).await.map_err(|_| Errno::EFAULT)??;
        if seen == old {
            return Ok(old);
        }
        old = seen;
    }
}

/// futex_waitv. See [futex_waitv(2)](https://man7.org/linux/man-pages/man2/futex.2.html) and the kernel's
/// `Documentation/userspace-api/futex2.rst`.
pub async fn futex_waitv(
    cx: &mut Cx<'_>,
    waiters: UserRef<FutexWaitv>,
    count: u32,
    flags: u32,
    timeout: UserRef<Timespec>,
    clock: i32,
) -> SysResult {
    if flags != 0 || count == 0 || count > futex::FUTEX_WAITV_MAX || waiters.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let deadline = absolute_deadline(cx, timeout, clock)?;
    let mm = cx.mm();
    let words = waiters.read_array(&mm, count as usize)?;
    let kernel = Arc::clone(cx.kernel);
    let mut announced = Vec::new();
    let mut wait = kernel.futexes.wait();
    for word in &words {
        let (addr, expected) = (UserAddr(word.uaddr), u32::try_from(word.val));
        let expected = expected.map_err(|_| Errno::EINVAL)?;
        if word.reserved != 0 {
            return Err(Errno::EINVAL.into());
        }
        let is_private = is_private2(word.flags)?;
        let key = key_of(&mm, addr, is_private)?;
        if is_private {
            announced.push(Announced::new(&mm, addr));
        }
        wait.enqueue(key, futex::FUTEX_BITSET_MATCH_ANY, None, || match read_word(&mm, addr)? {
            now if now == expected => Ok(()),
            _ => Err(Errno::EAGAIN),
        })?;
    }
    match cx.block_on(&mut wait, deadline).await {
        Ok(woken) => Ok(woken.0 as u64),
        Err(blocked) => match wait.leave() {
            Some(woken) => Ok(woken.0 as u64),
            None if blocked == Blocked::TimedOut => Err(Errno::ETIMEDOUT.into()),
            None => Err(SysError::Restart(Restart::IfAsked)),
        },
    }
}

/// Flags of the futex2 calls: only 32-bit words, no NUMA nodes.
fn is_private2(flags: u32) -> Result<bool> {
    let known = futex::FUTEX2_SIZE_MASK | futex::FUTEX2_PRIVATE;
    if flags & !known != 0 || flags & futex::FUTEX2_SIZE_MASK != futex::FUTEX2_SIZE_U32 {
        return Err(Errno::EINVAL);
    }
    Ok(flags & futex::FUTEX2_PRIVATE != 0)
}

fn absolute_deadline(cx: &Cx<'_>, timeout: UserRef<Timespec>, clock: i32) -> Result<Option<Nanos>> {
    let Some(timeout) = timeout.optional() else { return Ok(None) };
    let timeout = timeout.read(&cx.mm())?;
    if !timeout.is_valid() {
        return Err(Errno::EINVAL);
    }
    match clock {
        CLOCK_MONOTONIC => Ok(Some(timeout.to_nanos())),
        CLOCK_REALTIME => Ok(Some(from_realtime(cx, timeout.to_nanos()))),
        _ => Err(Errno::EINVAL),
    }
}

/// futex_wake (futex2). See the kernel's `kernel/futex/syscalls.c`.
pub async fn futex_wake(
    cx: &mut Cx<'_>,
    uaddr: UserAddr,
    mask: u64,
    count: i32,
    flags: u32,
) -> SysResult {
    let is_private = is_private2(flags)?;
    let bitset = u32::try_from(mask).map_err(|_| Errno::EINVAL)?;
    if bitset == 0 {
        return Err(Errno::EINVAL.into());
    }
    let key = key_of(&cx.mm(), uaddr, is_private)?;
    if is_private {
        bring_in(cx).await;
    }
    let count = usize::try_from(count).unwrap_or(0);
    Ok(cx.kernel.futexes.wake(&key, count, bitset) as u64)
}

/// futex_wait (futex2). See the kernel's `kernel/futex/syscalls.c`.
pub async fn futex_wait(
    cx: &mut Cx<'_>,
    uaddr: UserAddr,
    val: u64,
    mask: u64,
    flags: u32,
    timeout: UserRef<Timespec>,
    clock: i32,
) -> SysResult {
    let is_private = is_private2(flags)?;
    let val = u32::try_from(val).map_err(|_| Errno::EINVAL)?;
    let bitset = u32::try_from(mask).map_err(|_| Errno::EINVAL)?;
    if bitset == 0 {
        return Err(Errno::EINVAL.into());
    }
    let deadline = absolute_deadline(cx, timeout, clock)?;
    let key = key_of(&cx.mm(), uaddr, is_private)?;
    wait(cx, key, uaddr, val, bitset, deadline).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_names() {
        let mut out = String::new();
        // No memory is looked at for a word.
        let render = |op: u32, out: &mut String| {
            let op = FutexOp(op);
            assert_eq!(op.command(), op.0 & 0x7f);
            out.push_str(if op.is_private() { "p" } else { "s" });
        };
        render(129, &mut out);
        render(0, &mut out);
        assert_eq!(out, "ps");
    }

    #[test]
    fn futex2_flags() {
        assert_eq!(is_private2(2 | 128), Ok(true));
        assert_eq!(is_private2(2), Ok(false));
        assert_eq!(is_private2(1), Err(Errno::EINVAL));
        assert_eq!(is_private2(2 | 4), Err(Errno::EINVAL));
    }

    #[test]
    fn bitsets_must_not_be_empty() {
        let request = |op, val3| Request {
            uaddr: UserAddr(0),
            op: FutexOp(op),
            val: 0,
            timeout: 0,
            uaddr2: UserAddr(0),
            val3,
        };
        assert_eq!(request(9, 0).bitset(), Err(Errno::EINVAL));
        assert_eq!(request(9, 6).bitset(), Ok(6));
        assert_eq!(request(0, 0).bitset(), Ok(u32::MAX));
    }
}
