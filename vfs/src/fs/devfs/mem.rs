//! The devices that need no state: null, zero, full, random, urandom. See null(4), full(4), random(4).

use std::any::Any;
use std::sync::Arc;

use abi::ioctl::RNDGETENTCNT;
use abi::{Errno, Result, UserAddr};
use base::{Sink, Source};
use rustix::rand::GetRandomFlags;

use crate::context::VfsCx;
use crate::file::{File, FileOps, MapSource, UserMemory, Whence};

/// Which one; the number is the minor of major 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemDevice {
    Null = 3,
    Zero = 5,
    Full = 7,
    Random = 8,
    Urandom = 9,
}

impl MemDevice {
    /// The device with this number, for nodes that mknod(2) made too.
    #[must_use]
    pub fn from_rdev(rdev: u64) -> Option<Self> {
        let all = [Self::Null, Self::Zero, Self::Full, Self::Random, Self::Urandom];
        all.into_iter().find(|device| device.rdev() == rdev)
    }

    #[must_use]
    pub const fn rdev(self) -> u64 {
        abi::stat::makedev(1, self as u32)
    }

    #[must_use]
    pub fn open(self) -> Arc<dyn FileOps> {
        Arc::new(self)
    }
}

/// Size of the pieces in which zeros and random bytes are handed out.
const CHUNK: usize = 4096;

static ZEROS: [u8; CHUNK] = [0; CHUNK];

/// Puts `piece` until the sink is full, changed by `make` before each time.
fn put_pieces<P: AsRef<[u8]>>(
    sink: &mut dyn Sink,
    mut piece: P,
    mut make: impl FnMut(&mut P) -> Result<()>,
) -> Result<usize> {
    let mut done = 0;
    while sink.remaining() > 0 {
        make(&mut piece)?;
        let bytes = piece.as_ref();
        let want = sink.remaining().min(bytes.len());
        match sink.put(&bytes[..want]) {
            Ok(got) => {
                done += got;
                if got < want {
                    break;
                }
            }
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(done)
}

fn random(into: &mut [u8]) -> Result<()> {
    let mut done = 0;
    while done < into.len() {
        done += rustix::rand::getrandom(&mut into[done..], GetRandomFlags::empty())
            .map_err(|errno| Errno::from_raw(errno.raw_os_error()))?;
    }
    Ok(())
}

impl FileOps for MemDevice {
    fn read(&self, _: &VfsCx<'_>, _: &File, sink: &mut dyn Sink, _pos: u64) -> Result<usize> {
        match self {
            Self::Null => Ok(0),
            Self::Zero | Self::Full => put_pieces(sink, ZEROS.as_slice(), |_| Ok(())),
            Self::Random | Self::Urandom => {
                let piece = vec![0; sink.remaining().min(CHUNK)];
                put_pieces(sink, piece, |piece| random(piece))
            }
        }
    }

    fn write(&self, _: &VfsCx<'_>, _: &File, src: &mut dyn Source, _pos: u64) -> Result<usize> {
        match self {
            Self::Full => Err(Errno::ENOSPC),
            // What is mixed into the pool changes nothing: the host's generator feeds ours.
            _ => Ok(src.remaining()),
        }
    }

    fn seek(&self, _: &File, _offset: i64, _whence: Whence) -> Result<u64> {
        Ok(0)
    }

    /// Linux ignores where one seeks in these, and reports 0.
    fn keeps_position(&self) -> bool {
        true
    }

    fn ioctl(
        &self,
        _: &VfsCx<'_>,
        _: &File,
        command: u32,
        arg: u64,
        memory: &dyn UserMemory,
    ) -> Result<u64> {
        match (self, command) {
            (Self::Random | Self::Urandom, RNDGETENTCNT) => {
                memory.write(UserAddr(arg), &256u32.to_ne_bytes())?;
                Ok(0)
            }
            (Self::Random | Self::Urandom, _) => Err(Errno::EINVAL),
            _ => Err(Errno::ENOTTY),
        }
    }

    fn mappable(&self, _: &File, _writable_shared: bool) -> Result<MapSource> {
        match self {
            Self::Zero => Ok(MapSource::Anonymous),
            _ => Err(Errno::ENODEV),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
