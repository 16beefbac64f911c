//! Files whose text is made when it is read, as Linux's seq_file does.

use std::any::Any;
use std::sync::Arc;

use abi::open::OpenFlags;
use abi::stat::{Attr, FileType};
use abi::{Errno, Result};
use base::lock::Mutex;
use base::{Sink, Source};

use super::node::Node;
use crate::context::VfsCx;
use crate::file::{CURRENT_POSITION, File, FileOps, Whence};
use crate::inode::{Inode, SetAttr};
use crate::lock_order;

/// Longest text that one write may hand in.
const WRITE_LIMIT: usize = 64 * 1024;

/// Where a text file's content comes from and goes to.
pub trait TextSource: Send + Sync + 'static {
    fn text(&self, cx: &VfsCx<'_>) -> Result<Vec<u8>>;

    /// One write(2), as a whole.
    fn store(&self, _cx: &VfsCx<'_>, _text: &[u8]) -> Result<()> {
        Err(Errno::EINVAL)
    }
}

impl<F: Fn(&VfsCx<'_>) -> Result<Vec<u8>> + Send + Sync + 'static> TextSource for F {
    fn text(&self, cx: &VfsCx<'_>) -> Result<Vec<u8>> {
        self(cx)
    }
}

/// A text file.
pub struct TextInode<S> {
    node: Node,
    /// What stat(2) reports: 0 in procfs, a page in sysfs.
    size: u64,
    source: S,
}

impl<S: TextSource> TextInode<S> {
    #[must_use]
    pub fn new(node: Node, source: S) -> Arc<Self> {
        Self::with_size(node, 0, source)
    }

    #[must_use]
    pub fn with_size(node: Node, size: u64, source: S) -> Arc<Self> {
        Arc::new(Self { node, size, source })
    }
}

impl<S: TextSource> Inode for TextInode<S> {
    fn attr(&self) -> Result<Attr> {
        Ok(self.node.attr(1, self.size))
    }

    fn file_type(&self) -> FileType {
        FileType::Regular
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        self.node.set_attr(change)
    }

    fn open(self: Arc<Self>, _: &VfsCx<'_>, _: OpenFlags) -> Result<Arc<dyn FileOps>> {
        Ok(Arc::new(OpenText { inode: self, state: Mutex::default() }))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct OpenText<S> {
    inode: Arc<TextInode<S>>,
    state: Mutex<State, lock_order::FileState>,
}

#[derive(Default)]
struct State {
    pos: u64,
    /// Made by the last read from position 0; later reads go on in it, so that they fit together.
    snapshot: Option<Arc<[u8]>>,
}

impl<S: TextSource> OpenText<S> {
    fn snapshot_for(&self, cx: &VfsCx<'_>, pos: u64) -> Result<Arc<[u8]>> {
        if pos > 0
            && let Some(snapshot) = &self.state.lock().snapshot
        {
            return Ok(Arc::clone(snapshot));
        }
        let snapshot: Arc<[u8]> = self.inode.source.text(cx)?.into();
        self.state.lock().snapshot = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }
}

impl<S: TextSource> FileOps for OpenText<S> {
    fn read(&self, cx: &VfsCx<'_>, _: &File, sink: &mut dyn Sink, pos: u64) -> Result<usize> {
        let is_stream = pos == CURRENT_POSITION;
        let pos = if is_stream { self.state.lock().pos } else { pos };
        let snapshot = self.snapshot_for(cx, pos)?;
        let from = usize::try_from(pos).unwrap_or(usize::MAX).min(snapshot.len());
        let count = base::io_buf::put_all(sink, &snapshot[from..])?;
        if is_stream {
            self.state.lock().pos = pos + count as u64;
        }
        Ok(count)
    }

    fn write(&self, cx: &VfsCx<'_>, _: &File, src: &mut dyn Source, pos: u64) -> Result<usize> {
        let text = base::io_buf::take_all(src, WRITE_LIMIT).map_err(|errno| match errno {
            Errno::E2BIG => Errno::EINVAL,
            errno => errno,
        })?;
        self.inode.source.store(cx, &text)?;
        if pos == CURRENT_POSITION {
            self.state.lock().pos += text.len() as u64;
        }
        Ok(text.len())
    }

    fn keeps_position(&self) -> bool {
        true
    }

    fn seek(&self, _: &File, offset: i64, whence: Whence) -> Result<u64> {
        let mut state = self.state.lock();
        let base = match whence {
            Whence::Set => 0,
            Whence::Current => state.pos,
            Whence::End => self.inode.size,
            Whence::Data | Whence::Hole => return Err(Errno::EINVAL),
        };
        let pos = base.checked_add_signed(offset).filter(|pos| *pos <= i64::MAX as u64);
        state.pos = pos.ok_or(Errno::EINVAL)?;
        Ok(state.pos)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
