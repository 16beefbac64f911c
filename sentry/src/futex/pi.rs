//! Futexes whose word names their owner: FUTEX_LOCK_PI and its kin. See futex(2), "Priority-inheritance futexes".
//!
//! The word holds the owner's tid, and `FUTEX_WAITERS` when the kernel must be asked at unlock. Priorities are not
//! boosted (guest threads have no real-time priorities here); ownership is handed over exactly as Linux does: the
//! unlocker writes the next owner's tid into the word before that one runs.
//!
//! 1. A locker sets `FUTEX_WAITERS` and enters the queue only if the word still says so under the bucket's lock.
//! 2. The unlocker takes the next owner out of the queue, then writes its tid, then looks once more whether others
//!    came meanwhile (they saw `FUTEX_WAITERS` before) and sets the bit for them, then lets it go.
//! 3. A waiter that was taken out owns the lock, whatever else ends its wait.
//! 4. Unless it was taken out by a plain wake: the owner died (robust futexes), and the lock is to be tried again.

use std::sync::Arc;

use abi::futex::{FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS};
use abi::ids::Tid;
use abi::{Errno, Result, UserAddr};
use base::clock::Nanos;

use crate::cx::Cx;
use crate::error::{Restart, SysError, SysResult};
use crate::futex::Key;
use crate::syscalls::futex::{read_word, update};
use crate::task::Blocked;

/// What a locker finds.
enum Found {
    /// The lock is the caller's now.
    Taken,
    /// Somebody holds it; the word has `FUTEX_WAITERS` and is this.
    Held(u32),
}

/// Takes the lock or marks it as waited for.
async fn take_or_mark(cx: &mut Cx<'_>, addr: UserAddr) -> Result<Found> {
    let me = cx.thread.tid().0.cast_unsigned();
    let kernel = Arc::clone(cx.kernel);
    let old = update(cx, addr, |old| {
        let owner = old & FUTEX_TID_MASK;
        if owner == me {
            return Err(Errno::EDEADLK);
        }
        if owner == 0 {
            return Ok(me | (old & (FUTEX_WAITERS | FUTEX_OWNER_DIED)));
        }
        if kernel.tasks.thread(Tid(owner.cast_signed())).is_none() {
            return Err(Errno::ESRCH);
        }
        Ok(old | FUTEX_WAITERS)
    })
    .await?;
    if old & FUTEX_TID_MASK == 0 { Ok(Found::Taken) } else { Ok(Found::Held(old | FUTEX_WAITERS)) }
}

/// FUTEX_LOCK_PI.
///
/// # Errors
/// `EDEADLK` for the owner itself, `ESRCH` when the owner does not exist, `ETIMEDOUT`, `EFAULT`.
pub async fn lock(cx: &mut Cx<'_>, key: Key, addr: UserAddr, deadline: Option<Nanos>) -> SysResult {
    let (kernel, mm) = (Arc::clone(cx.kernel), cx.mm());
    let me = cx.thread.tid().0;
    loop {
        let Found::Held(word) = take_or_mark(cx, addr).await? else { return Ok(0) };
        let mut wait = kernel.futexes.wait();
        let queued = wait.enqueue(key, u32::MAX, Some(me), || match read_word(&mm, addr)? {
            now if now == word => Ok(()),
            _ => Err(Errno::EAGAIN),
        });
        match queued {
            Ok(()) => {}
            Err(Errno::EAGAIN) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let ended = cx.block_on(&mut wait, deadline).await;
        if wait.is_chosen() {
            // Rule 3; the unlocker is about to write the word.
            (&mut wait).await;
            if wait.is_granted() {
                return Ok(0);
            }
            // Rule 4.
            continue;
        }
        let Err(blocked) = ended else { continue };
        return Err(match blocked {
            Blocked::TimedOut => Errno::ETIMEDOUT.into(),
            Blocked::Interrupted => SysError::Restart(Restart::Always),
        });
    }
}

/// FUTEX_TRYLOCK_PI.
///
/// # Errors
/// `EAGAIN` when somebody holds it; `EDEADLK`, `ESRCH`, `EFAULT`.
pub async fn try_lock(cx: &mut Cx<'_>, addr: UserAddr) -> SysResult {
    let me = cx.thread.tid().0.cast_unsigned();
    update(cx, addr, |old| match old & FUTEX_TID_MASK {
        0 => Ok(me | (old & (FUTEX_WAITERS | FUTEX_OWNER_DIED))),
        owner if owner == me => Err(Errno::EDEADLK),
        _ => Err(Errno::EAGAIN),
    })
    .await?;
    Ok(0)
}

/// FUTEX_UNLOCK_PI.
///
/// # Errors
/// `EPERM` when the caller does not own it; `EFAULT`.
pub async fn unlock(cx: &mut Cx<'_>, key: Key, addr: UserAddr) -> SysResult {
    let me = cx.thread.tid().0.cast_unsigned();
    let word = read_word(&cx.mm(), addr)?;
    if word & FUTEX_TID_MASK != me {
        return Err(Errno::EPERM.into());
    }
    let kernel = Arc::clone(cx.kernel);
    let Some((chosen, _)) = kernel.futexes.choose_pi(&key) else {
        update(cx, addr, |_| Ok(0)).await?;
        // Somebody who marked the word before may have entered the queue since: it must not sleep on a free lock.
        return hand_over_free(cx, key, addr).await;
    };
    let next = chosen.tid().cast_unsigned();
    let handed = hand_over(cx, &key, addr, next).await;
    if let Err(errno) = handed {
        kernel.futexes.put_back(chosen);
        return Err(errno.into());
    }
    chosen.grant();
    Ok(0)
}

/// Writes the next owner's tid; rule 2.
async fn hand_over(cx: &mut Cx<'_>, key: &Key, addr: UserAddr, next: u32) -> Result<()> {
    let kernel = Arc::clone(cx.kernel);
    update(cx, addr, |_| {
        let others = if kernel.futexes.has_pi_waiter(key) { FUTEX_WAITERS } else { 0 };
        Ok(next | others)
    })
    .await?;
    if kernel.futexes.has_pi_waiter(key) {
        update(cx, addr, |old| Ok(old | FUTEX_WAITERS)).await?;
    }
    Ok(())
}

/// The word was set free; gives it to a waiter that came in between, unless somebody else was faster.
async fn hand_over_free(cx: &mut Cx<'_>, key: Key, addr: UserAddr) -> SysResult {
    let kernel = Arc::clone(cx.kernel);
    let Some((chosen, _)) = kernel.futexes.choose_pi(&key) else { return Ok(0) };
    let next = chosen.tid().cast_unsigned();
    let taken = update(cx, addr, |old| match old & FUTEX_TID_MASK {
        0 => Ok(next | FUTEX_WAITERS),
        _ => Ok(old | FUTEX_WAITERS),
    })
    .await;
    match taken {
        Ok(old) if old & FUTEX_TID_MASK == 0 => chosen.grant(),
        _ => kernel.futexes.put_back(chosen),
    }
    Ok(0)
}
