//! Files that are lent to guest code, which then reads them without a call.
//!
//! A loan costs about as much as ten small reads: it is made for who reads the same description again and again, and has much
//! left to read. What keeps it true is in `vfs::loans`; how guest code reads is the platform's affair.

use std::os::fd::AsFd;
use std::sync::Arc;

use abi::ids::Fd;
use abi::open::OpenFlags;
use base::Lent;
use platform::{HostOp, Loan};
use vfs::File;

use crate::cx::Cx;

/// Reads of so many bytes gain more than small ones.
const LARGE: u64 = 32 << 10;
const MIDDLING: u64 = 4 << 10;
/// With so many points what is left to read is no matter: it is read over and over.
const PERSISTENT: u32 = 64;

/// To be called when `count` bytes were read of `file`: considers lending it. `is_random`: at an offset of the caller's.
pub fn after_read(cx: &mut Cx<'_>, fd: Fd, file: &Arc<File>, count: usize, is_random: bool) {
    if count == 0 || !file.note_read(count) || cx.context.has_trapped() {
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
    let odd = OpenFlags::APPEND | OpenFlags::DIRECT | OpenFlags::PATH | OpenFlags::ASYNC;
    let flags = file.flags();
    let Some(host) = file.ops().lendable().filter(|_| !flags.writes() && !flags.intersects(odd))
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
