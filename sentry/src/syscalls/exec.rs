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
    let [args, env] = strings.read_lists([args, env])?;
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

/// Reads lists of strings: pages that are wanted together at once.
struct Strings<'a> {
    pages: Pages<'a>,
    /// Bytes that may still be read, pointers included.
    left: u64,
}

impl<'a> Strings<'a> {
    fn new(mm: &'a Mm, limit: u64) -> Self {
        Self { pages: Pages { mm, known: Vec::new(), last: 0 }, left: limit }
    }

    /// Arguments and environment.
    fn read_lists(&mut self, lists: [UserAddr; 2]) -> Result<[Vec<Vec<u8>>; 2]> {
        self.pages.bring(lists.iter().filter(|list| !list.is_null()).copied());
        let pointers = [self.read_pointers(lists[0])?, self.read_pointers(lists[1])?];
        self.pages.bring(pointers.iter().flatten().copied());
        let [args, env] = &pointers;
        Ok([self.read_strings(args)?, self.read_strings(env)?])
    }

    fn read_pointers(&mut self, list: UserAddr) -> Result<Vec<UserAddr>> {
        let mut all = Vec::new();
        if list.is_null() {
            return Ok(all);
        }
        let pointers: UserRef<u64> = UserRef::new(list);
        loop {
            let at = pointers.at(all.len())?.addr;
            let mut word = [0; 8];
            for (index, byte) in word.iter_mut().enumerate() {
                let at = at.checked_add(index as u64).ok_or(Errno::EFAULT)?;
                *byte = self.pages.rest(at)?.first().copied().ok_or(Errno::EFAULT)?;
            }
            let string = u64::from_le_bytes(word);
            if string == 0 {
                return Ok(all);
            }
            self.take(8)?;
            all.push(UserAddr(string));
        }
    }

    fn read_strings(&mut self, pointers: &[UserAddr]) -> Result<Vec<Vec<u8>>> {
        pointers.iter().map(|pointer| self.read_string(*pointer)).collect()
    }

    fn read_string(&mut self, mut at: UserAddr) -> Result<Vec<u8>> {
        let mut string = Vec::new();
        loop {
            let rest = self.pages.rest(at)?;
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

/// So many pages are brought at once, and remembered.
const MOST_PAGES: usize = 16;
const PAGE: usize = abi::addr::PAGE_SIZE as usize;

/// Pages of guest memory that were read.
struct Pages<'a> {
    mm: &'a Mm,
    known: Vec<(u64, Vec<u8>)>,
    /// Which of them was looked at last.
    last: usize,
}

impl Pages<'_> {
    /// Reads the pages of some addresses, all at once. Who needs one that cannot be read finds out then.
    fn bring(&mut self, addrs: impl Iterator<Item = UserAddr>) {
        let mut wanted: Vec<u64> = Vec::new();
        for addr in addrs {
            let page = addr.page_down().0;
            let is_known = |page| self.known.iter().any(|(known, _)| *known == page);
            if wanted.last() != Some(&page) && !wanted.contains(&page) && !is_known(page) {
                wanted.push(page);
            }
            if self.known.len() + wanted.len() >= MOST_PAGES {
                break;
            }
        }
        let ranges: Vec<_> = wanted.iter().map(|page| (UserAddr(*page), PAGE)).collect();
        let mut bytes = vec![0; wanted.len() * PAGE];
        let done = self.mm.space().read_vectored(&ranges, &mut bytes);
        let whole = bytes.chunks_exact(PAGE).take(done / PAGE);
        self.known.extend(wanted.into_iter().zip(whole.map(<[u8]>::to_vec)));
    }

    /// What can be read of the page from `at` on; never empty.
    fn rest(&mut self, at: UserAddr) -> Result<&[u8]> {
        let page = at.page_down();
        let is_it = |(known, _): &(u64, Vec<u8>)| *known == page.0;
        if !self.known.get(self.last).is_some_and(is_it) {
            self.last = match self.known.iter().position(is_it) {
                Some(place) => place,
                None => self.read(page),
            };
        }
        let (_, bytes) = self.known.get(self.last).ok_or(Errno::EFAULT)?;
        let rest = bytes.get((at.0 - page.0) as usize..);
        rest.filter(|rest| !rest.is_empty()).ok_or(Errno::EFAULT)
    }

    /// Reads a page; its place.
    fn read(&mut self, page: UserAddr) -> usize {
        if self.known.len() >= 2 * MOST_PAGES {
            self.known.clear();
        }
        let mut bytes = vec![0; PAGE];
        let got = self.mm.space().read(page, &mut bytes);
        bytes.truncate(got);
        self.known.push((page.0, bytes));
        self.known.len() - 1
    }
}
