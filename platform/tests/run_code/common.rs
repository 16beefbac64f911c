//! What new guest processes have from the start.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::UserAddr;
use platform::{Backing, Context, HostOp, NewContext, Platform, Prot};

use crate::harness::{DATA, DATA_LEN, block_on, load, map, platform, step};

/// Numbers that the platform gives.
const ARENA: u32 = 79;
const FIRST: u32 = 80;

/// A file of its own that everybody may read, opened for reading.
fn file(name: &str) -> (std::path::PathBuf, Arc<OwnedFd>) {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::temp_dir().join(format!("common-{name}-{}", std::process::id()));
    std::fs::write(&path, name).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("ours");
    let file = std::fs::File::open(&path).expect("it is there");
    (path, Arc::new(file.into()))
}

/// What the guest process whose memory has this mark has under a number.
fn descriptor(mark: &[u8], number: u32) -> Option<String> {
    let own = std::process::id();
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path());
    let guest = entries.into_iter().find(|path| {
        let stat = std::fs::read_to_string(path.join("stat")).unwrap_or_default();
        let is_child = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(1))
            .is_some_and(|parent| parent == own.to_string());
        let mut found = vec![0; mark.len()];
        let memory = std::fs::File::open(path.join("mem"));
        is_child
            && memory.is_ok_and(|memory| {
                std::os::unix::fs::FileExt::read_exact_at(&memory, &mut found, DATA).is_ok()
            })
            && found == mark
    });
    let link = guest.expect("the guest").join(format!("fd/{number}"));
    std::fs::read_link(link).ok().map(|target| target.to_string_lossy().into_owned())
}

fn spawn(platform: &Arc<dyn Platform>, mark: &[u8]) -> Box<dyn Context> {
    let mut context = block_on(platform.spawn()).expect("a stub");
    let ops = vec![map(DATA, DATA_LEN, Prot::READ | Prot::WRITE)];
    block_on(context.execute(ops)).expect("alive").expect("mapped");
    assert_eq!(context.space().write(UserAddr(DATA), mark), mark.len());
    context
}

#[test]
fn what_many_map_is_there_from_the_start_and_others_channels_are_not() {
    let (platform, (path, fd)) = (platform(), file("shared"));
    for _ in 0..8 {
        platform.share(&fd);
    }
    // Those that were made before do not have it yet.
    let mut guests: Vec<_> = (0..6).map(|_| spawn(&platform, b"an earlier one")).collect();
    let mut guest = spawn(&platform, b"the last of seven");
    let mark = b"the last of seven";
    let name = path.to_string_lossy().into_owned();
    assert_eq!(descriptor(mark, FIRST).as_deref(), Some(name.as_str()));
    assert_eq!(descriptor(mark, ARENA), None, "every stub closes what the others' channels are in");

    let at = UserAddr(0x70_0000);
    let backing = Backing::File { fd: Arc::clone(&fd), offset: 0 };
    let op = HostOp::Map {
        addr: at,
        len: 4096,
        prot: Prot::READ,
        shared: false,
        noreserve: false,
        backing,
    };
    block_on(guest.execute(vec![op])).expect("alive").expect("mapped");
    let mut text = [0; 6];
    assert_eq!(guest.space().read(at, &mut text), 6);
    assert_eq!(&text, b"shared");
    guests.clear();
    std::fs::remove_file(path).expect("ours");
}

#[test]
fn channels_are_apart_however_many_there_are() {
    let platform = platform();
    // More than one memory has room for.
    let mut guests: Vec<_> =
        (0..40u64).map(|number| (number, spawn(&platform, &number.to_le_bytes()))).collect();
    for (number, guest) in &mut guests {
        let mut bytes = [0; 8];
        assert_eq!(guest.space().read(UserAddr(DATA), &mut bytes), 8);
        assert_eq!(u64::from_le_bytes(bytes), *number);
        let ops = vec![map(DATA + DATA_LEN, 4096, Prot::READ)];
        block_on(guest.execute(ops)).expect("alive").expect("mapped");
    }
}

#[test]
fn who_forks_is_given_what_many_map() {
    let (platform, (path, fd)) = (platform(), file("forked"));
    let code = snippet!("2:", "mov eax, 57", "syscall", "jmp 2b");
    let mut parent = load(&platform, code);
    step(&mut *parent);
    let fork = |parent: &mut dyn Context| {
        let new = NewContext { regs: *parent.regs(), fs_base: None };
        block_on(parent.fork(new)).expect("forked")
    };
    let marked = |context: &dyn Context, mark: &[u8]| {
        context.space().write(UserAddr(DATA), mark);
        let name = path.to_string_lossy().into_owned();
        (0..32).filter(|number| descriptor(mark, *number).as_ref() == Some(&name)).count()
    };
    let first = fork(&mut *parent);
    assert_eq!(marked(&*first, b"the first copy of it"), 0);
    for _ in 0..8 {
        platform.share(&fd);
    }
    let second = fork(&mut *parent);
    assert_eq!(marked(&*second, b"the second copy of it"), 1, "inherited");
    let third = fork(&mut *parent);
    assert_eq!(marked(&*third, b"the third copy of it"), 1, "once");
    std::fs::remove_file(&path).expect("ours");
}
