//! The host's part of loading: a fresh address space, its mappings in one batch, the bytes that go into it.

use std::sync::Arc;

use abi::UserAddr;
use abi::arch::Registers;
use platform::{Context, HostOp, Layout, PlatformError};

use crate::kernel::Kernel;
use crate::loader::{LoadError, Prepared};
use crate::mm::{Mm, MmState};

/// Interrupts enabled, as every user program starts with.
const INITIAL_FLAGS: u64 = 0x202;

/// A program in its own address space, standing before its first instruction.
pub struct Loaded {
    pub context: Box<dyn Context>,
    pub mm: Arc<Mm>,
}

impl Prepared {
    /// Makes an address space of its own. The caller's is untouched.
    ///
    /// # Errors
    /// `Fatal` when the host refuses a mapping, `Platform` when it cannot make an address space.
    pub async fn spawn(&mut self, kernel: &Kernel) -> Result<Loaded, LoadError> {
        let mut context = kernel.platform.spawn().await.map_err(spawn_error)?;
        let mm = self.load(kernel, &mut *context, Vec::new()).await?;
        Ok(Loaded { context, mm })
    }

    /// Loads into the address space of `context`, whose only one it is, in the stead of what is there.
    ///
    /// # Errors
    /// As [`Prepared::spawn`]; what was there is gone then as well.
    pub async fn replace(
        &mut self,
        kernel: &Kernel,
        context: &mut dyn Context,
    ) -> Result<Arc<Mm>, LoadError> {
        let Layout { min_addr, task_size, .. } = *kernel.platform.layout();
        let all = HostOp::Unmap { addr: UserAddr(min_addr), len: task_size - min_addr };
        let mm = self.load(kernel, context, vec![all]).await?;
        context.reset_xstate();
        context.defer(HostOp::SetFsBase(0));
        context.defer(HostOp::SetGsBase(0));
        Ok(mm)
    }

    async fn load(
        &mut self,
        kernel: &Kernel,
        context: &mut dyn Context,
        mut ops: Vec<HostOp>,
    ) -> Result<Arc<Mm>, LoadError> {
        ops.append(&mut self.image.ops);
        if let Some(program) = &self.program {
            let profile = kernel.profiles.of(program);
            ops.extend(profile.files().into_iter().map(|fd| HostOp::Hold { fd }));
            self.image.state.image.profile = Some(profile);
        }
        if let Err((index, errno)) = context.execute(ops).await.map_err(spawn_error)? {
            tracing::debug!(index, %errno, "host refused a segment");
            return Err(LoadError::Fatal);
        }
        let space = Arc::clone(context.space());
        for zero in &self.image.zeroes {
            let bytes = vec![0; usize::try_from(zero.len).unwrap_or(0)];
            if space.write(UserAddr(zero.addr), &bytes) != bytes.len() && zero.must {
                return Err(LoadError::Fatal);
            }
        }
        let stack = &self.stack;
        if space.write(UserAddr(stack.pointer), &stack.bytes) != stack.bytes.len() {
            return Err(LoadError::Fatal);
        }
        *context.regs_mut() = Registers {
            rip: self.image.entry,
            rsp: stack.pointer,
            rflags: INITIAL_FLAGS,
            ..Registers::default()
        };
        let bounds = self.image.state.bounds;
        let state = std::mem::replace(&mut self.image.state, MmState::new(bounds));
        Ok(Mm::new(space, state, kernel.memory.clone()))
    }
}

fn spawn_error(error: PlatformError) -> LoadError {
    match error {
        PlatformError::Exhausted(errno) => LoadError::Errno(errno),
        other => LoadError::Platform(other),
    }
}
