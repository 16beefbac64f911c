//! Files that guest code is entrusted with: it locks and writes them without a call, and what it did is carried out before anybody looks
//! (`vfs::ledger`). That is for the only thread of a process with a descriptor table of its own.

use std::sync::Arc;

use abi::ids::Fd;
use vfs::{File, Ledger, OwnFile};

use crate::cx::Cx;

/// To be called when a process has taken or released a record lock.
pub fn after_lock(cx: &Cx<'_>, fd: Fd, file: &Arc<File>) {
    with_ledger(cx, fd, file, Ledger::entrust_locks);
}

/// To be called when a file was opened.
pub fn after_open(cx: &Cx<'_>, fd: Fd, file: &Arc<File>) {
    if file.flags().writes() && cx.mm().ledger_so_far().is_some() {
        entrust_unlimited(cx, fd, file, Ledger::entrust_opened);
    }
}

/// To be called when the attributes of an open file were asked for, or are others because it was read.
pub fn after_look(cx: &Cx<'_>, fd: Fd, file: &Arc<File>) {
    if file.flags().writes() && cx.mm().ledger_so_far().is_some() {
        with_ledger(cx, fd, file, |ledger, own| ledger.tell_again(own));
    }
}

/// To be called when it has written to a place of its own choice.
pub fn after_write(cx: &Cx<'_>, fd: Fd, file: &Arc<File>) {
    entrust_unlimited(cx, fd, file, Ledger::entrust_stores);
}

fn entrust_unlimited(
    cx: &Cx<'_>,
    fd: Fd,
    file: &Arc<File>,
    entrust: impl FnOnce(&Arc<Ledger>, OwnFile<'_>),
) {
    let is_limited = || cx.with_vfs(|vfs| vfs.file_size_limit) != u64::MAX;
    if is_limited() || vfs::notify::is_watched() {
        return;
    }
    with_ledger(cx, fd, file, entrust);
    // Somebody may have set a limit meanwhile, and found nothing to end.
    if is_limited() {
        cx.files().end_loans();
    }
}

fn with_ledger(
    cx: &Cx<'_>,
    fd: Fd,
    file: &Arc<File>,
    entrust: impl FnOnce(&Arc<Ledger>, OwnFile<'_>),
) {
    if !cx.context.knows_descriptors() || cx.context.has_trapped() {
        return;
    }
    let (files, mm) = (cx.files(), cx.mm());
    if mm.borrows_from(files.id())
        && let Some(ledger) = mm.ledger()
    {
        entrust(ledger, OwnFile { files: &files, fd, file, process: cx.thread.tgid() });
    }
}
