//! What is read from a task's own memory: cmdline, environ, auxv, mem.

use std::any::Any;
use std::sync::Arc;

use abi::open::OpenFlags;
use abi::stat::{Attr, FileType};
use abi::{Errno, Result};
use base::{Sink, Source};

use super::TaskRef;
use super::table::Asked;
use crate::context::VfsCx;
use crate::file::{File, FileOps, Whence};
use crate::fs::kernfs::Node;
use crate::inode::Inode;

pub fn cmdline(asked: &Asked<'_>) -> Result<Vec<u8>> {
    asked.task.cmdline()
}

pub fn environ(asked: &Asked<'_>) -> Result<Vec<u8>> {
    asked.task.environ()
}

pub fn auxv(asked: &Asked<'_>) -> Result<Vec<u8>> {
    asked.task.auxv()
}

/// /proc/PID/mem: the task's memory, at its addresses.
pub fn mem(task: &TaskRef, index: u64) -> Arc<dyn Inode> {
    let node = task.node(index, FileType::Regular, 0o600);
    Arc::new(MemInode { node, task: task.clone() })
}

struct MemInode {
    node: Node,
    task: TaskRef,
}

impl Inode for MemInode {
    fn attr(&self) -> Result<Attr> {
        Ok(self.node.attr(1, 0))
    }

    fn file_type(&self) -> FileType {
        FileType::Regular
    }

    fn open(self: Arc<Self>, cx: &VfsCx<'_>, _: OpenFlags) -> Result<Arc<dyn FileOps>> {
        self.task.inspect(cx)?;
        Ok(Arc::new(MemFile { task: self.task.clone() }))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct MemFile {
    task: TaskRef,
}

const CHUNK: usize = 64 * 1024;

impl FileOps for MemFile {
    fn read(&self, cx: &VfsCx<'_>, _: &File, sink: &mut dyn Sink, pos: u64) -> Result<usize> {
        let mut buffer = vec![0; sink.remaining().min(CHUNK)];
        if buffer.is_empty() {
            return Ok(0);
        }
        match self.task.inspect(cx)?.read_memory(pos, &mut buffer) {
            0 => Err(Errno::EIO),
            got => base::io_buf::put_all(sink, buffer.get(..got).unwrap_or(&[])),
        }
    }

    fn write(&self, cx: &VfsCx<'_>, _: &File, src: &mut dyn Source, pos: u64) -> Result<usize> {
        let mut buffer = vec![0; src.remaining().min(CHUNK)];
        let len = src.take(&mut buffer)?;
        match self.task.inspect(cx)?.write_memory(pos, buffer.get(..len).unwrap_or(&[])) {
            0 if len > 0 => Err(Errno::EIO),
            got => Ok(got),
        }
    }

    fn seek(&self, _: &File, _: i64, _: Whence) -> Result<u64> {
        Err(Errno::EINVAL)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
