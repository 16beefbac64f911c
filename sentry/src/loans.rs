//! Files that are lent to guest code, which then reads them without a call.
//!
//! Two kinds of loans there are. What a file says of itself, and its front, are *brought along* when it is opened: copies, while nobody
//! can change it. Its descriptor is lent to who reads on.
//!
//! The latter costs about as much as ten small reads: it is made for who reads the same description again and again, and has much
//! left to read. What keeps it true is in `vfs::loans`; how guest code reads is the platform's affair.

use std::os::fd::AsFd;
use std::sync::Arc;

use abi::ids::Fd;
use abi::open::OpenFlags;
use abi::stat::FileType;
use abi::statbuf::Stat;
use base::Lent;
use platform::{HostOp, Loan};
use vfs::File;
use zerocopy::IntoBytes;

use crate::cx::Cx;
use crate::task::Thread;

/// Reads of so many bytes gain more than small ones.
const LARGE: u64 = 32 << 10;
const MIDDLING: u64 = 4 << 10;
/// With so many points what is left to read is no matter: it is read over and over.
const PERSISTENT: u32 = 64;

/// Files of these flags are read by calls.
const ODD: OpenFlags =
    OpenFlags::APPEND.union(OpenFlags::DIRECT).union(OpenFlags::PATH).union(OpenFlags::ASYNC);
const READABLE_BY_ALL: u32 = 0o004;
/// So much of a file a process gets when it opens it, at first; and at most.
pub const FIRST_BROUGHT: u32 = 4 << 10;
const MOST_BROUGHT: u32 = 124 << 10;
/// Less is not worth a read of the host.
const LEAST_BROUGHT: u32 = 1 << 10;

/// To be called when a file was opened: what most programs do next is to ask for its size and to read it from the front.
pub fn after_open(cx: &mut Cx<'_>, fd: Fd, file: &Arc<File>) {
    let flags = file.flags();
    let is_plain = !flags.writes() && !flags.intersects(ODD | OpenFlags::DIRECTORY);
    if !is_plain || cx.context.has_trapped() || file.inode().file_type() != FileType::Regular {
        return;
    }
    let files = cx.files();
    let mm = cx.mm();
    // While guest code stands still: another thread would read what is written anew.
    if !mm.is_alone() || !file.inode().is_settled() || !mm.borrows_from(files.id()) {
        return;
    }
    let Some(host) = file.ops().lendable() else { return };
    let Ok(attr) = file.inode().attr() else { return };
    if attr.mode & READABLE_BY_ALL == 0 {
        return;
    }
    let wanted = cx.thread.brings();
    // One byte more than there are tells that these are all.
    let most = u64::from(wanted).min(attr.size.saturating_add(1)) as usize;
    let stat = Stat::from(&attr);
    let Ok(stat) = stat.as_bytes().try_into() else { return };
    let number = fd.0.cast_unsigned();
    let Some(lent) = mm.space().bring(number, host.as_fd(), stat, most) else { return };
    if files.bring(fd, file, &lent) {
        cx.thread.run.set_lends(true);
    }
}

/// A file that was brought along is closed again, read up to a place, or so guest code says: how much the next one gets.
pub fn after_close(thread: &Thread, read: u64) {
    let before = thread.brings();
    let after = match read {
        0 if before / 2 < LEAST_BROUGHT => 0,
        0 => before / 2,
        _ if read >= u64::from(before) => (before * 2).clamp(LEAST_BROUGHT, MOST_BROUGHT),
        _ => before,
    };
    thread.set_brings(after);
}

/// To be called when `count` bytes were read of `file`: considers lending it. `is_random`: at an offset of the caller's.
pub fn after_read(cx: &mut Cx<'_>, fd: Fd, file: &Arc<File>, count: usize, is_random: bool) {
    if count == 0 || !file.note_read(count) || cx.context.has_trapped() {
        return;
    }
    if file.is_brought() {
        // There is more of it than came along, or it was not wanted then.
        file.end_loan();
        let wanted = cx.thread.brings().saturating_mul(2);
        cx.thread.set_brings(wanted.clamp(FIRST_BROUGHT, MOST_BROUGHT));
        return;
    }
    let files = cx.files();
    let mm = cx.mm();
    if !mm.borrows_from(files.id()) {
        return;
    }
    if files.is_lent(fd) {
        // It came with a call nevertheless: perhaps its thread does not know yet.
        cx.thread.run.set_lends(true);
        return;
    }
    // Of a former loan.
    file.end_loan();
    // Looked at again when it is lent; now because all else costs more.
    if Arc::strong_count(file) != 2 || vfs::notify::is_watched() {
        return;
    }
    let flags = file.flags();
    let Some(host) = file.ops().lendable().filter(|_| !flags.writes() && !flags.intersects(ODD))
    else {
        return file.never_lend();
    };
    if !is_worth_it(file, count, is_random) {
        return;
    }
    let number = fd.0.cast_unsigned();
    let Some(loan) = mm.space().lend(number, host.as_fd()) else {
        return file.never_lend();
    };
    let same: Arc<dyn Loan> = Arc::clone(&loan);
    let lent: Arc<dyn Lent> = same;
    if files.lend(fd, file, &lent) {
        cx.context.defer(HostOp::Lend { fd: host, loan });
        cx.thread.run.set_lends(true);
    }
}

/// Whether so many reads are left that the loan pays.
fn is_worth_it(file: &File, count: usize, is_random: bool) -> bool {
    if file.reading_score() >= PERSISTENT {
        return true;
    }
    let count = count as u64;
    let size = file.inode().attr().map_or(0, |attr| attr.size);
    let left = if is_random { size } else { size.saturating_sub(*file.position()) };
    let wanted = match count {
        LARGE.. => 3,
        MIDDLING.. => 6,
        _ => 12,
    };
    left / count >= wanted
}
