//! Host pipes and files as the guest's.

use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::open::OpenFlags;
use abi::poll::PollEvents;
use abi::{Errno, Result};
use base::WaitQueue;

use super::{Reactor, ReactorRegistration, adopt};
use crate::file::Whence;
use crate::test_support::World;

struct NoReactor;
struct NoRegistration;

impl ReactorRegistration for NoRegistration {}

impl Reactor for NoReactor {
    fn register(&self, _: Arc<OwnedFd>, _: WaitQueue) -> Result<Box<dyn ReactorRegistration>> {
        Ok(Box::new(NoRegistration))
    }
}

#[test]
fn pipe_never_blocks() {
    let world = World::tmpfs();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let file = adopt(reader.into(), Arc::new(NoReactor)).unwrap();
    let mut buffer = [0; 16];
    assert_eq!(file.read(&world.cx(), &mut &mut buffer[..]), Err(Errno::EAGAIN));
    writer.write_all(b"hello").unwrap();
    assert!(file.ops().poll(&world.cx(), &file).contains(PollEvents::IN));
    assert_eq!(file.read(&world.cx(), &mut &mut buffer[..]), Ok(5));
    drop(writer);
    assert_eq!(file.read(&world.cx(), &mut &mut buffer[..]), Ok(0));
}

#[test]
fn full_pipe_says_so() {
    let world = World::tmpfs();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let file = adopt(writer.into(), Arc::new(NoReactor)).unwrap();
    assert!(file.flags().writes());
    let block = vec![1; 100_000];
    let mut total = 0;
    let end = loop {
        match file.write(&world.cx(), &mut &block[..]) {
            Ok(count) => total += count,
            Err(errno) => break errno,
        }
    };
    assert_eq!((total, end), (65536, Errno::EAGAIN));
    let mut got = vec![0; 65536];
    reader.read_exact(&mut got).unwrap();
    drop(reader);
    assert_eq!(file.write(&world.cx(), &mut &block[..]), Err(Errno::EPIPE));
}

#[test]
fn file_position_is_the_hosts() {
    let world = World::tmpfs();
    let path = std::env::temp_dir().join(format!("hostfile-{}", std::process::id()));
    let options = || std::fs::File::options().read(true).write(true).create(true).to_owned();
    let mut host = options().truncate(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    host.write_all(b"ab").unwrap();
    let file = adopt(host.try_clone().unwrap().into(), Arc::new(NoReactor)).unwrap();
    assert_eq!(file.write(&world.cx(), &mut &b"cd"[..]), Ok(2));
    assert_eq!(host.stream_position().unwrap(), 4);
    assert_eq!(file.seek(1, Whence::Set), Ok(1));
    let mut buffer = [0; 8];
    assert_eq!(file.read(&world.cx(), &mut &mut buffer[..]), Ok(3));
    assert_eq!(&buffer[..3], b"bcd");
    assert_eq!(file.pread(&world.cx(), &mut &mut buffer[..], 3), Ok(1));
    assert!(file.ops().wait_queue().is_none());
}

#[test]
fn null_is_null() {
    let world = World::tmpfs();
    let host = std::fs::File::open("/dev/null").unwrap();
    let file = adopt(host.into(), Arc::new(NoReactor)).unwrap();
    assert_eq!(file.read(&world.cx(), &mut &mut [0u8; 4][..]), Ok(0));
    assert!(!file.flags().contains(OpenFlags::WRONLY));
}
