//! Call sites that are rewritten, so that a call needs no signal: when, where, and for whom.
//!
//! How a site's neighbourhood is changed is the platform's knowledge (`platform::rewrite`); here is decided which sites
//! are worth it, and address spaces are changed. Rules:
//!
//! 1. Only private file mappings that are executable and not writable are touched: what a program generates may change
//!    at any time.
//! 2. What is learned about a site of a file is kept with the file ([`FileText`]), for every process that maps it. The
//!    trampolines of a file lie in an *area* at a constant distance below its lowest mapping, for which mmap leaves room.
//! 3. A process whose site has trapped [`PATCH_AFTER`] times gets its own copy of the page rewritten, while all its other
//!    threads stand still ([`hold`]); who stands in the window goes on in the trampoline. So do, at the same time, all its sites
//!    that are known or trapped [`LEARN_HERE_AFTER`] times.
//! 4. A site that trapped in [`LEARN_AFTER`] processes is learned. From then on, who maps the file's text gets a copy
//!    of it with all that is learned in it, from a sealed memfd shared by all: rewriting costs them nothing. The copy
//!    is made anew once it spares traps enough for the text's size. What
//!    forked children met is rewritten in their parent when it forks again.
//! 5. Where the processor takes long to answer questions (cpuid, on virtual machines), who begins in a new program has them
//!    answered by the shim: pages with a trap in their place are mapped over those of the file.
//! 6. /proc and the file itself show none of this but the area; a guest that reads its own text sees the jumps.
//!
//! | module | what |
//! | --- | --- |
//! | `file_text` | what is known of a file's text, and the copy for later processes |
//! | `functions` | where functions begin and end, by a file's unwind table |
//! | `sites` | what is known in one address space |
//! | `questions` | what a text asks the processor |
//! | `patch` | changing an address space |
//! | `hold` | stopping its other threads |

mod file_text;
mod functions;
mod hold;
mod patch;
mod questions;
mod sites;

use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base::lock::Mutex;
use platform::{Context, Prot, Trapped};
use vfs::file::MapSource;

use crate::kernel::Kernel;
use crate::lock_order;
use crate::mm::MmState;
use crate::task::Thread;

pub use file_text::{FileText, Outlook, SharedText};
pub use hold::wait_while_held;
pub use patch::area_vma;
use questions::AskingPages;
use sites::Hit;
pub use sites::Sites;

/// Bytes of a file's area of trampolines.
pub const AREA_LEN: u64 = 0x4000;
/// Traps of one site in one process before it is rewritten there: below that it does not pay. What is known of others that
/// trapped more than once is then made use of at once, or when these together have trapped so often.
const PATCH_AFTER: u32 = 12;
/// Traps of one site in one process before it is looked into together with others that are due.
const LEARN_HERE_AFTER: u32 = 3;
/// Processes in which a site trapped before it is rewritten for those to come, by exec or by fork.
const LEARN_AFTER: u32 = 4;
/// Mode bits of a file that everybody may read.
const EVERYBODY: u32 = 0o444;
/// clone(2), fork(2), clone3(2).
const FORKS: [u64; 3] = [56, 57, 435];

/// What the sandbox knows about the sites of all files.
#[derive(Debug)]
pub struct Rewriter {
    /// Where trampolines go: see `platform::Layout::call_entry`.
    entry: u64,
    /// Whether questions to the processor are to be answered by the shim.
    answers_questions: bool,
    /// A program was started. The first one is, before anything is known, and what is done for it is not done sooner by that.
    has_begun: AtomicBool,
    files: Mutex<HashMap<FileKey, Arc<FileText>>, lock_order::Leaf>,
    pub stats: Stats,
}

/// For `--stats`.
#[derive(Debug, Default)]
pub struct Stats {
    /// Calls that came by a signal, those of them that the sentry has not seen, and what it has seen that came without.
    pub trapped: AtomicU64,
    pub trapped_only: AtomicU64,
    pub direct: AtomicU64,
    /// Sites that were learned, and those that are left alone.
    pub learned: AtomicU64,
    pub refused: AtomicU64,
    /// Changes of one address space.
    pub patches: AtomicU64,
    /// Mappings that were rewritten from the start.
    pub mappings: AtomicU64,
}

/// A file as the host names it, with what changes when its content does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct FileKey {
    device: u64,
    inode: u64,
    size: i64,
    modified: (i64, u64),
    /// Where the file begins in it.
    base: u64,
}

impl FileKey {
    /// `None` for a file without a name on the host, which may change without notice, and for one that not everybody may
    /// read: copies of its text go to every process that maps it.
    fn of(fd: &OwnedFd, base: u64) -> Option<Self> {
        let stat = rustix::fs::fstat(fd).ok()?;
        let is_public = stat.st_mode & EVERYBODY == EVERYBODY;
        (stat.st_nlink > 0 && is_public).then_some(Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            base,
        })
    }
}

impl Stats {
    /// A call came, which is the last of these if it has trapped itself.
    fn count(&self, traps: &[Trapped], call: Trapped) {
        let count = traps.len() as u64;
        self.trapped.fetch_add(count, Ordering::Relaxed);
        let unseen = if traps.last() == Some(&call) { count - 1 } else { count };
        self.trapped_only.fetch_add(unseen, Ordering::Relaxed);
        self.direct.fetch_add(1 - (count - unseen), Ordering::Relaxed);
    }
}

impl Rewriter {
    /// `None` where the platform has no entry for rewritten sites.
    #[must_use]
    pub fn new(entry: Option<u64>, answers_questions: bool) -> Option<Self> {
        let entry = entry?;
        let (files, stats) = (Mutex::default(), Stats::default());
        let has_begun = AtomicBool::new(false);
        Some(Self { entry, answers_questions, has_begun, files, stats })
    }

    /// For the text of who begins in a new program, the loader's or that of a program without one: what of it is to be mapped
    /// over it, because C libraries ask the processor there.
    pub fn asking_pages(&self, source: &MapSource, text: &Range<u64>) -> Option<Arc<AskingPages>> {
        if !self.answers_questions || !self.has_begun.swap(true, Ordering::Relaxed) {
            return None;
        }
        self.file(source)?.asking_pages(text)
    }

    fn file(&self, source: &MapSource) -> Option<Arc<FileText>> {
        let MapSource::Host { fd, base } = source else { return None };
        let key = FileKey::of(fd, *base)?;
        let mut files = self.files.lock();
        Some(Arc::clone(files.entry(key).or_insert_with(|| FileText::new(fd, *base))))
    }

    /// For a private mapping of a file's text: the copy with rewritten sites, if there is one. With `asks` for who begins in a new
    /// program, and has its questions to the processor answered.
    pub fn shared_text(
        &self,
        source: &MapSource,
        prot: Prot,
        (offset, len): (u64, u64),
        asks: bool,
    ) -> Option<Arc<SharedText>> {
        if !prot.contains(Prot::EXEC) || prot.contains(Prot::WRITE) {
            return None;
        }
        let MapSource::Host { fd, base } = source else { return None };
        let key = FileKey::of(fd, *base)?;
        let file = self.files.lock().get(&key).cloned()?;
        // A loader that is mapped as a library asks where the shim knows of no questions.
        if file.has_questions() && !asks {
            return None;
        }
        let shared = file.shared(offset, len);
        if shared.is_some() {
            self.stats.mappings.fetch_add(1, Ordering::Relaxed);
        }
        shared
    }

    /// What [`Rewriter::shared_text`] would say to who maps the text of the file that this is from its beginning on.
    pub fn outlook(&self, fd: &OwnedFd) -> Outlook {
        let Some(key) = FileKey::of(fd, 0) else { return Outlook::Plain };
        let file = self.files.lock().get(&key).cloned();
        let file = file.filter(|file| !file.has_questions());
        let outlook = file.map_or(Outlook::Plain, |file| file.outlook());
        if matches!(outlook, Outlook::Copy(_)) {
            self.stats.mappings.fetch_add(1, Ordering::Relaxed);
        }
        outlook
    }
}

/// A thread's call came: counts it, and sees to its site when that has trapped often enough.
pub async fn on_call(kernel: &Arc<Kernel>, thread: &Arc<Thread>, context: &mut dyn Context) {
    let Some(rewriter) = &kernel.rewriter else { return };
    let number = context.call().number;
    if FORKS.contains(&number) {
        let wishes = thread.mm().with_state(|state| state.sites.take_wishes(LEARN_AFTER));
        let wanted: Vec<_> =
            wishes.into_iter().map(|(site, number)| (site, number, true)).collect();
        patch::apply(kernel, rewriter, thread, context, &wanted).await;
    }
    let mut traps = context.take_traps();
    if context.has_trapped() {
        traps.push(Trapped { behind: context.regs().rip, number });
    }
    if traps.is_empty() {
        rewriter.stats.direct.fetch_add(1, Ordering::Relaxed);
        return;
    }
    rewriter.stats.count(&traps, Trapped { behind: context.regs().rip, number });
    let mm = thread.mm();
    let mut due = None;
    for Trapped { behind, number } in traps {
        let site = behind.wrapping_sub(SYSCALL_LEN);
        match mm.with_state(|state| state.sites.hit(site, number)) {
            Hit::First => {
                mm.with_state(|state| state.sites.wish(site, number));
                patch::note(rewriter, &mm, site, number);
            }
            Hit::Again => {}
            // Of several the last knows all.
            Hit::Due(wanted) => due = Some(wanted),
        }
    }
    if let Some(wanted) = due {
        patch::apply(kernel, rewriter, thread, context, &wanted).await;
    }
}

const SYSCALL_LEN: u64 = 2;

impl MmState {
    /// The address in guest text where a thread really goes on that stood at `rip` when that was rewritten.
    #[must_use]
    pub fn rewritten(&self, rip: u64) -> u64 {
        self.sites.moved(rip).unwrap_or(rip)
    }
}
