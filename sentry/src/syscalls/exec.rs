//! execve, execveat.

use abi::ids::Fd;
use abi::open::AtFlags;
use abi::rlimit::Resource;
use abi::stat::FileType;
use abi::{Errno, Result, UserAddr};
use vfs::{LookupFlags, Path, path};

use crate::cx::Cx;
use crate::error::SysResult;
use crate::loader::stack::{MAX_STRING, total_limit};
use crate::mm::{Mm, UserCStr, UserRef};
use crate::syscalls::args::DirFd;
use crate::task::exec::{self, Program};

/// execve: runs another program. See [execve(2)](https://man7.org/linux/man-pages/man2/execve.2.html).
pub async fn execve(cx: &mut Cx<'_>, name: UserCStr, args: UserAddr, env: UserAddr) -> SysResult {
    run(cx, DirFd::CWD, name, args, env, AtFlags::empty()).await
}

/// execveat: execve relative to a descriptor. See [execveat(2)](https://man7.org/linux/man-pages/man2/execveat.2.html).
pub async fn execveat(
    cx: &mut Cx<'_>,
    dir: DirFd,
    name: UserCStr,
    args: UserAddr,
    env: UserAddr,
    flags: AtFlags,
) -> SysResult {
    if !(AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW).contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    run(cx, dir, name, args, env, flags).await
}

async fn run(
    cx: &mut Cx<'_>,
    dir: DirFd,
    name: UserCStr,
    args: UserAddr,
    env: UserAddr,
    flags: AtFlags,
) -> SysResult {
    let mm = cx.mm();
    let text = name.read_path(&mm)?;
    let (program, name, is_unreachable) = find(cx, dir, text, flags)?;
    let mut strings = Strings::new(&mm, total_limit(cx.thread.group.limit(Resource::Stack)));
    let args = strings.read_list(args)?;
    let env = strings.read_list(env)?;
    exec::exec(cx, Program { path: program, name, args, env, is_unreachable }).await
}

/// The program, the name that it runs under, and whether that name leads nowhere once descriptors are closed.
fn find(cx: &Cx<'_>, dir: DirFd, text: Vec<u8>, flags: AtFlags) -> Result<(Path, Vec<u8>, bool)> {
    let by_descriptor = !dir.is_cwd() && !text.starts_with(b"/");
    let start = if by_descriptor { Some(cx.thread.files().get_path_ok(dir.0)?) } else { None };
    let mut lookup = LookupFlags::empty();
    if text.is_empty() && flags.contains(AtFlags::EMPTY_PATH) {
        lookup |= LookupFlags::EMPTY_PATH;
    }
    if !flags.contains(AtFlags::SYMLINK_NOFOLLOW) {
        lookup |= LookupFlags::FOLLOW;
    }
    let start_path = start.as_ref().map(|file| file.path());
    let program = cx.with_vfs(|vfs| path::resolve(vfs, start_path, &text, lookup))?;
    if program.inode().file_type() == FileType::Symlink {
        return Err(Errno::ELOOP);
    }
    if !by_descriptor {
        return Ok((program, text, false));
    }
    let Fd(number) = dir.0;
    let mut name = format!("/dev/fd/{number}").into_bytes();
    if !text.is_empty() {
        name.push(b'/');
        name.extend_from_slice(&text);
    }
    let is_unreachable = cx.thread.files().is_cloexec(dir.0)?;
    Ok((program, name, is_unreachable))
}

/// Reads lists of strings, a page at a time: pointers lie next to each other, and mostly strings, too.
struct Strings<'a> {
    pointers: PageReader<'a>,
    strings: PageReader<'a>,
    /// Bytes that may still be read, pointers included.
    left: u64,
}

/// Remembers the page it read last.
struct PageReader<'a> {
    mm: &'a Mm,
    page: u64,
    bytes: Vec<u8>,
}

impl<'a> Strings<'a> {
    fn new(mm: &'a Mm, limit: u64) -> Self {
        let reader = || PageReader { mm, page: u64::MAX, bytes: Vec::new() };
        Self { pointers: reader(), strings: reader(), left: limit }
    }

    fn read_list(&mut self, list: UserAddr) -> Result<Vec<Vec<u8>>> {
        let mut strings = Vec::new();
        if list.is_null() {
            return Ok(strings);
        }
        let pointers: UserRef<u64> = UserRef::new(list);
        loop {
            let at = pointers.at(strings.len())?.addr;
            let mut word = [0; 8];
            for (index, byte) in word.iter_mut().enumerate() {
                let at = at.checked_add(index as u64).ok_or(Errno::EFAULT)?;
                *byte = self.pointers.rest(at)?.first().copied().ok_or(Errno::EFAULT)?;
            }
            let string = u64::from_le_bytes(word);
            if string == 0 {
                return Ok(strings);
            }
            self.take(8)?;
            strings.push(self.read_string(UserAddr(string))?);
        }
    }

    fn read_string(&mut self, mut at: UserAddr) -> Result<Vec<u8>> {
        let mut string = Vec::new();
        loop {
            let rest = self.strings.rest(at)?;
            let end = rest.iter().position(|byte| *byte == 0);
            let piece = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
            string.extend_from_slice(piece);
            let len = piece.len() as u64;
            if string.len() >= MAX_STRING {
                return Err(Errno::E2BIG);
            }
            if end.is_some() {
                self.take(string.len() as u64 + 1)?;
                return Ok(string);
            }
            at = at.checked_add(len).ok_or(Errno::EFAULT)?;
        }
    }

    fn take(&mut self, bytes: u64) -> Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or(Errno::E2BIG)?;
        Ok(())
    }
}

impl PageReader<'_> {
    /// What can be read of the page from `at` on; never empty.
    fn rest(&mut self, at: UserAddr) -> Result<&[u8]> {
        let page = at.page_down();
        if page.0 != self.page {
            self.bytes.resize(abi::addr::PAGE_SIZE as usize, 0);
            let got = self.mm.space().read(page, &mut self.bytes);
            self.bytes.truncate(got);
            self.page = page.0;
        }
        let rest = self.bytes.get((at.0 - page.0) as usize..);
        rest.filter(|rest| !rest.is_empty()).ok_or(Errno::EFAULT)
    }
}
