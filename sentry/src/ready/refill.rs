//! Lays ready what a thread is likely to open next, while its guest code runs.

use std::os::fd::AsFd;
use std::sync::Arc;

use abi::open::OpenFlags;
use abi::stat::{Attr, FileType};
use abi::statbuf::Stat;
use base::Lent;
use platform::{AddressSpace, Contents, MOST_READY_BYTES, Ready, ReadyLoan};
use vfs::ops::OpenedAhead;
use vfs::{Loan, Path, VfsCx};
use zerocopy::IntoBytes;

use super::{Claim, LOW_SHARE, LOW_SHARE_ASIDE, Prepared, ReadyFiles, is_name};

/// Names looked at for one refill.
const MOST_LOOKS: usize = 256;
const READABLE_BY_ALL: u32 = 0o004;

/// One refill. The thread's own events are handled meanwhile, perhaps: what it shares with them is locked for moments only.
pub struct Refill<'r> {
    pub ready: &'r ReadyFiles,
    pub space: &'r dyn AddressSpace,
    pub vfs: &'r VfsCx<'r>,
    /// As of before anything was looked up.
    pub names: u64,
    /// Bytes of a file.
    pub brings: u32,
    /// The guest goes on meanwhile.
    pub is_aside: bool,
}

/// Where a walk goes on: with names of that directory, after this one.
type Way = (Path, Option<Arc<[u8]>>);

/// What is looked for.
struct Wanted {
    ways: Vec<Way>,
    /// How many are to lie ready.
    reach: usize,
    opens_files: bool,
}

/// Opened, but nobody knows yet.
struct Candidate {
    opened: OpenedAhead,
    attr: Attr,
    /// Records of a directory.
    listing: Option<Box<[u8]>>,
}

impl Refill<'_> {
    pub fn run(self) {
        let near = self.begin().map_or(0, |wanted| self.walk(wanted));
        let low_share = if self.is_aside { LOW_SHARE_ASIDE } else { LOW_SHARE };
        let left = self.ready.with_state(|state| {
            if self.is_aside {
                state.judge_aside();
            }
            state.end_others(near);
            let left = state.ready().filter(|(_, prepared)| !prepared.ready.is_over()).count();
            (state.left, state.low) = (left, left / low_share);
            left
        });
        if let Some(left) = left {
            self.space.tell_ready(left, left / low_share);
        }
    }

    fn begin(&self) -> Option<Wanted> {
        let (garbage, wanted) = self.ready.with_state(|state| {
            let garbage = state.tidy(self.names);
            state.adapt();
            let wanted = state.wanted.take().map(|(dir, name, child)| {
                let mut ways = vec![(dir, Some(name))];
                ways.extend(child.map(|child| (child, None)));
                Wanted { ways, reach: state.reach, opens_files: state.opens_files }
            });
            (garbage, wanted)
        })?;
        drop(garbage);
        wanted
    }

    /// Lays ready what comes after a name: first in it, when it is a directory, then beside it, then beside its directory. Answers
    /// which places have what is to lie ready, a bit each.
    fn walk(&self, wanted: Wanted) -> u64 {
        let Wanted { mut ways, mut reach, opens_files } = wanted;
        let mut near = 0u64;
        for _ in 0..MOST_LOOKS {
            let Some((dir, after)) = ways.last_mut() else { break };
            if reach == 0 || self.ready.turn.must_stop() {
                break;
            }
            let next = dir.inode().following(after.as_deref(), !opens_files);
            let Some((name, kind)) = next else {
                if !dir.inode().is_listed() {
                    // What comes next is in there, and the guest about to list it.
                    break;
                }
                let (dir, _) = (dir.clone(), ways.pop());
                if ways.is_empty() {
                    ways.extend(self.beside(&dir));
                }
                continue;
            };
            *after = Some(Arc::clone(&name));
            let dir = dir.clone();
            reach -= 1;
            let found = self.ready.with_state(|state| state.find(&dir, &name)).flatten();
            let found = found.or_else(|| self.lay(&dir, &name));
            let Some((place, path)) = found else {
                if kind == FileType::Directory {
                    // The guest has to call for it, and goes on below it then.
                    break;
                }
                continue;
            };
            near |= 1u64 << place;
            if kind == FileType::Directory {
                ways.push((path, None));
            }
        }
        near
    }

    /// Where the walk goes on when it is through with `dir`, if guest code has been there.
    fn beside(&self, dir: &Path) -> Option<Way> {
        let above = Path::new(Arc::clone(&dir.mount), dir.dentry.parent()?);
        let is_known = self.ready.number_of(above.key()) != 0;
        is_known.then(|| (above, Some(Arc::from(&*dir.name()))))
    }

    /// Lays one ready; `None` when that cannot be.
    fn lay(&self, dir: &Path, name: &Arc<[u8]>) -> Option<(usize, Path)> {
        let Candidate { opened, attr, listing } = self.open(dir, name)?;
        let path = opened.path().clone();
        let own = listing.is_some().then_some(&path);
        let wants_two = listing.is_none()
            && attr.size >= MOST_READY_BYTES as u64
            && self.brings as usize > MOST_READY_BYTES;
        let claim = self.ready.with_state(|state| state.begin_place(dir, own, wants_two))??;
        let place = claim.place;
        let laid = self.offer(&opened, &attr, listing, (dir, name), claim);
        let prepared = laid.map(|(loan, ready, dir_number)| {
            let (names, name, above) = (self.names, Arc::clone(name), dir.clone());
            Box::new(Prepared { opened, loan, ready, names, dir: dir_number, above, name })
        });
        let is_laid = prepared.is_some();
        self.ready.with_state(|state| state.end_place(place, prepared));
        is_laid.then_some((place, path))
    }

    fn open(&self, dir: &Path, name: &Arc<[u8]>) -> Option<Candidate> {
        let has_room = self.ready.with_state(|state| state.has_place());
        if has_room != Some(true) || vfs::notify::is_watched() || !is_name(name) {
            return None;
        }
        let opened = OpenedAhead::new(self.vfs, dir, name).ok()?;
        let attr = opened.path().inode().attr().ok()?;
        if attr.mode & READABLE_BY_ALL == 0 {
            return None;
        }
        // Records take more than a filesystem's own, which as a rule fill half of a directory's blocks at least.
        if attr.is_dir() && attr.size > 2 * MOST_READY_BYTES as u64 {
            return None;
        }
        let listing = if attr.is_dir() { Some(self.list(&opened)?) } else { None };
        Some(Candidate { opened, attr, listing })
    }

    /// From now on guest code may open it.
    fn offer(
        &self,
        opened: &OpenedAhead,
        attr: &Attr,
        listing: Option<Box<[u8]>>,
        (above, name): (&Path, &[u8]),
        claim: Claim,
    ) -> Option<(Loan, Arc<dyn ReadyLoan>, u32)> {
        let Claim { place, dir, own, most } = claim;
        let host;
        let contents = if let Some(records) = listing {
            Contents::Listing(records)
        } else {
            host = opened.ops().lendable()?;
            // One byte more than there are tells that these are all.
            let most = most.min(u64::from(self.brings).min(attr.size.saturating_add(1)) as usize);
            Contents::File(host.as_fd(), most)
        };
        let stat = Stat::from(attr);
        let (names, flags) = (self.names, OpenFlags::LARGEFILE.bits());
        let attr_bytes = stat.as_bytes().try_into().ok()?;
        let ready = self.space.lay_ready(Ready {
            place,
            dir,
            name,
            names,
            attr: attr_bytes,
            flags,
            own,
            contents,
        })?;
        let lent: Arc<dyn Lent> = Arc::clone(&ready) as Arc<dyn ReadyLoan>;
        let inode = opened.path().inode();
        let loan = Loan::new(inode, lent);
        // Now, for who changes it looks for loans then.
        let holds = vfs::names::remember_child(above, name, opened.path(), names)
            && inode.is_settled()
            && inode.attr().is_ok_and(|now| now == *attr)
            && !vfs::notify::is_watched();
        if !holds {
            ready.end();
        }
        Some((loan, ready, dir))
    }

    /// A directory's records; `None` when they are too many.
    fn list(&self, opened: &OpenedAhead) -> Option<Box<[u8]>> {
        let mut records = Vec::new();
        opened.list(self.vfs, MOST_READY_BYTES, &mut records).ok()?;
        Some(records.into())
    }
}
