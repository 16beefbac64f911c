//! The loop of one socket: receive, decode, answer.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use abi::{Errno, Result};
use gofer_protocol::{MAX_MESSAGE, NO_CPU, Op, ReplyHead, Request, TreeInfo, VERSION, Welcome};
use host::scm_rights::{receive, send};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::ops;
use crate::session::Session;
use crate::tree::{ServedTree, attr_of};

/// Requests in a row that must come from one processor before the thread moves there: moving takes longer than
/// waking across processors does, much longer when that processor is busy.
const SETTLED: u32 = 8;

/// Keeps the thread on the processor of whom it answers.
///
/// Both sides take turns, so one processor is enough for them, and a wake-up on the same one costs a third of one that
/// must rouse another (measured: 14 µs against 23-64 µs a round trip on a 2-processor VM).
#[derive(Default)]
struct Follower {
    at: Option<u16>,
    seen: u16,
    times: u32,
}

impl Follower {
    fn follow(&mut self, cpu: u16) {
        if cpu == NO_CPU || self.at == Some(cpu) || usize::from(cpu) >= CpuSet::MAX_CPU {
            self.times = 0;
            return;
        }
        self.times = if self.seen == cpu { self.times.saturating_add(1) } else { 1 };
        self.seen = cpu;
        if self.times < SETTLED {
            return;
        }
        self.at = Some(cpu);
        let mut one = CpuSet::new();
        one.set(cpu.into());
        // A processor we may not use changes nothing.
        if let Err(reason) = sched_setaffinity(None, &one) {
            tracing::trace!(cpu, %reason, "cannot follow");
        }
    }
}

/// Answers requests until the peer closes, or sends what is no message at all.
pub fn serve(socket: &OwnedFd, trees: &[ServedTree]) {
    let mut room = gofer_protocol::room();
    let mut out = Vec::with_capacity(MAX_MESSAGE);
    let mut fds = Vec::new();
    let mut state = State::default();
    loop {
        let message = room.get_mut(..MAX_MESSAGE).unwrap_or_default();
        let length = match receive(socket, message) {
            Ok((0, _)) => return,
            Ok((length, _)) => length,
            Err(reason) => {
                tracing::debug!(%reason, "connection ends");
                return;
            }
        };
        let message = message.get(..length).unwrap_or_default();
        answer(message, trees, &mut state, &mut out, &mut fds);
        let sent = {
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            send(socket, &out, &fds)
        };
        fds.clear();
        if let Err(reason) = sent {
            tracing::debug!(%reason, "connection ends");
            return;
        }
    }
}

/// What a connection keeps from one request to the next.
#[derive(Default)]
struct State {
    follower: Follower,
    session: Session,
}

/// Puts the answer into `out`, and the descriptors to donate into `fds`.
fn answer(
    message: &[u8],
    trees: &[ServedTree],
    state: &mut State,
    out: &mut Vec<u8>,
    fds: &mut Vec<OwnedFd>,
) {
    let request = match Request::decode(message) {
        Ok(request) => request,
        Err(reason) => {
            tracing::debug!(%reason, "malformed request");
            let head = ReplyHead { error: Some(Errno::EPROTO), seq: Request::peek_seq(message) };
            return head.encode(out);
        }
    };
    state.follower.follow(request.cpu);
    ReplyHead { error: None, seq: request.seq }.encode(out);
    if let Err(error) = dispatch(&request, trees, &mut state.session, out, fds) {
        fds.clear();
        ReplyHead { error: Some(error), seq: request.seq }.encode(out);
    }
}

fn dispatch(
    request: &Request<'_>,
    trees: &[ServedTree],
    session: &mut Session,
    out: &mut Vec<u8>,
    fds: &mut Vec<OwnedFd>,
) -> Result<()> {
    if let Op::Hello { version } = request.op {
        return welcome(version, trees, out);
    }
    let tree = trees.get(usize::from(request.tree)).ok_or(Errno::ENODEV)?;
    if request.op.writes() && !tree.is_writable() {
        return Err(Errno::EROFS);
    }
    ops::perform(session, tree, request, out, fds)
}

fn welcome(version: u32, trees: &[ServedTree], out: &mut Vec<u8>) -> Result<()> {
    if version != VERSION {
        return Err(Errno::EPROTONOSUPPORT);
    }
    let trees = trees
        .iter()
        .map(|tree| Ok(TreeInfo { writable: tree.is_writable(), root: attr_of(tree.root())? }))
        .collect::<Result<_>>()?;
    let max_message = u32::try_from(MAX_MESSAGE).unwrap_or(u32::MAX);
    Welcome { version: VERSION, max_message, trees }.encode(out);
    Ok(())
}
