//! Pairs, job control and hang-up, against sessions made up here.

use std::sync::{Arc, Mutex};

use abi::ids::Tid;
use abi::open::OpenFlags;
use abi::poll::PollEvents;
use abi::signal::Signal;
use abi::termios::{LocalFlags, Termios, cc};
use abi::{Errno, Result, UserAddr, ioctl};
use base::clock::Nanos;

use super::DevPts;
use crate::anon::timers::{Expiry, TimerClock, TimerHandle, Timers};
use crate::context::{Caller, VfsCx};
use crate::file::{File, UserMemory};
use crate::test_support::World;
use crate::tty::{JobControl, Master, SIGNALLED, Terminals};

/// Session 10 with groups 10 and 11; group 12 is orphaned.
#[derive(Default)]
struct Jobs {
    sent: Mutex<Vec<(i32, Signal)>>,
}

impl JobControl for Jobs {
    fn signal_group(&self, pgid: Tid, signal: Signal) {
        self.sent.lock().unwrap().push((pgid.0, signal));
    }
    fn signal_process(&self, tgid: Tid, signal: Signal) {
        self.sent.lock().unwrap().push((-tgid.0, signal));
    }
    fn is_blocked_or_ignored(&self, _: Caller, _: Signal) -> bool {
        false
    }
    fn is_orphaned(&self, pgid: Tid) -> bool {
        pgid == Tid(12)
    }
    fn session_of_group(&self, pgid: Tid) -> Option<Tid> {
        (10..13).contains(&pgid.0).then_some(Tid(10))
    }
}

#[derive(Default)]
struct Clock {
    pending: Mutex<Vec<Arc<dyn Expiry>>>,
}

struct Handle;

impl TimerHandle for Handle {}

impl Timers for Clock {
    fn now(&self, _: TimerClock) -> Nanos {
        0
    }
    fn set(&self, _: TimerClock, _: Nanos, expiry: Arc<dyn Expiry>) -> Box<dyn TimerHandle> {
        self.pending.lock().unwrap().push(expiry);
        Box::new(Handle)
    }
}

struct Setup {
    world: World,
    jobs: Arc<Jobs>,
    clock: Arc<Clock>,
    terminals: Arc<Terminals>,
    master: Arc<Master>,
}

/// Whoever calls: a process that leads its group.
fn caller(pgid: i32) -> Caller {
    Caller { tid: Tid(pgid), tgid: Tid(pgid), pgid: Tid(pgid), sid: Tid(10) }
}

fn setup() -> Setup {
    let (jobs, clock) = (Arc::new(Jobs::default()), Arc::new(Clock::default()));
    let terminals = Terminals::new(jobs.clone(), clock.clone());
    let devpts = DevPts::new(Arc::clone(&terminals));
    let world = World::new(devpts.clone());
    let master = devpts.new_console(&world.cred).unwrap();
    Setup { world, jobs, clock, terminals, master }
}

impl Setup {
    fn cx(&self, pgid: i32) -> VfsCx<'_> {
        VfsCx { caller: caller(pgid), ..self.world.cx() }
    }

    /// The leader opens it and gets it as its controlling terminal.
    fn slave(&self) -> Arc<File> {
        let path = self.world.path("/0").unwrap();
        let ops = path.inode().clone().open(&self.cx(10), OpenFlags::RDWR).unwrap();
        File::new(ops, path.inode().clone(), path.clone(), OpenFlags::RDWR)
    }

    fn type_in(&self, bytes: &[u8]) {
        assert_eq!(self.master.tty().write_master(&mut &*bytes), Ok(bytes.len()));
    }

    fn screen(&self) -> String {
        let mut buffer = [0; 1000];
        let count = self.master.tty().read_master(&mut &mut buffer[..]).unwrap_or(0);
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    }

    fn read(&self, slave: &File, pgid: i32) -> Result<String> {
        let mut buffer = [0; 100];
        let count = slave.read(&self.cx(pgid), &mut &mut buffer[..])?;
        Ok(String::from_utf8(buffer[..count].to_vec()).unwrap())
    }

    fn sent(&self) -> Vec<(i32, Signal)> {
        std::mem::take(&mut self.jobs.sent.lock().unwrap())
    }
}

/// Four bytes of a guest.
struct Word(Mutex<[u8; 4]>);

impl UserMemory for Word {
    fn read(&self, _: UserAddr, into: &mut [u8]) -> Result<()> {
        into.copy_from_slice(&*self.0.lock().unwrap());
        Ok(())
    }
    fn write(&self, _: UserAddr, bytes: &[u8]) -> Result<()> {
        self.0.lock().unwrap().copy_from_slice(bytes);
        Ok(())
    }
}

fn int(value: i32) -> Word {
    Word(Mutex::new(value.to_ne_bytes()))
}

#[test]
fn lines_go_from_the_user_to_the_program_and_back() {
    let s = setup();
    let slave = s.slave();
    assert_eq!(s.read(&slave, 10), Err(Errno::EAGAIN));
    s.type_in(b"hello\r");
    assert_eq!(s.screen(), "hello\r\n");
    assert_eq!(s.read(&slave, 10), Ok("hello\n".into()));
    assert_eq!(slave.write(&s.cx(10), &mut &b"out\n"[..]), Ok(4));
    assert_eq!(s.screen(), "out\r\n");
}

#[test]
fn a_leader_that_opens_it_gets_it() {
    let s = setup();
    assert!(s.terminals.of_session(Tid(10)).is_none());
    let _slave = s.slave();
    assert!(s.terminals.of_session(Tid(10)).is_some());
    assert_eq!(s.master.tty().foreground(), Tid(10));
    s.type_in(b"\x03");
    assert_eq!(s.sent(), [(10, Signal::SIGINT)]);
}

#[test]
fn background_reads_stop_or_fail() {
    let s = setup();
    let slave = s.slave();
    assert_eq!(s.read(&slave, 11), Err(SIGNALLED));
    assert_eq!(s.sent(), [(11, Signal::SIGTTIN)]);
    assert_eq!(s.read(&slave, 12), Err(Errno::EIO));
    assert_eq!(slave.write(&s.cx(11), &mut &b"x"[..]), Ok(1));
    let stops = LocalFlags::from_bits_retain(Termios::default().lflag) | LocalFlags::TOSTOP;
    s.master.tty().set_termios(Termios { lflag: stops.bits(), ..Termios::default() });
    assert_eq!(slave.write(&s.cx(11), &mut &b"x"[..]), Err(SIGNALLED));
    assert_eq!(s.sent(), [(11, Signal::SIGTTOU)]);
}

#[test]
fn the_foreground_changes_within_the_session() {
    let s = setup();
    let slave = s.slave();
    let set = |pgid: i32, value: i32| {
        slave.ops().ioctl(&s.cx(pgid), &slave, ioctl::TIOCSPGRP, 0, &int(value))
    };
    assert_eq!(set(10, 99), Err(Errno::ESRCH));
    assert_eq!(set(10, 11), Ok(0));
    assert_eq!(s.master.tty().foreground(), Tid(11));
    assert_eq!(set(10, 10), Err(SIGNALLED));
    assert_eq!(set(11, 10), Ok(0));
}

#[test]
fn closing_the_master_hangs_up() {
    let mut s = setup();
    let slave = s.slave();
    let other = setup().master;
    drop(std::mem::replace(&mut s.master, other));
    assert_eq!(s.sent(), [(-10, Signal::SIGHUP), (-10, Signal::SIGCONT)]);
    assert_eq!(s.read(&slave, 10), Ok(String::new()));
    assert_eq!(slave.write(&s.cx(10), &mut &b"x"[..]), Err(Errno::EIO));
    assert!(slave.ops().poll(&s.cx(10), &slave).contains(PollEvents::HUP | PollEvents::IN));
    assert_eq!(s.world.path("/0").map(|_| ()), Err(Errno::ENOENT));
}

#[test]
fn closing_the_last_slave_is_seen_by_the_master() {
    let s = setup();
    let mut buffer = [0; 8];
    let mut read = || s.master.tty().read_master(&mut &mut buffer[..]);
    assert_eq!(read(), Err(Errno::EAGAIN));
    let slave = s.slave();
    slave.write(&s.cx(10), &mut &b"x"[..]).unwrap();
    drop(slave);
    assert_eq!(read(), Ok(1));
    assert_eq!(read(), Err(Errno::EIO));
}

#[test]
fn a_new_size_is_told() {
    let s = setup();
    let _slave = s.slave();
    let size = abi::termios::WinSize { rows: 24, cols: 80, ..Default::default() };
    s.master.tty().resize(size);
    s.master.tty().resize(size);
    assert_eq!(s.sent(), [(10, Signal::SIGWINCH)]);
}

#[test]
fn minimum_and_time_of_raw_reads() {
    let s = setup();
    let slave = s.slave();
    let set = |min: u8, time: u8| {
        let mut termios = Termios { lflag: 0, ..Termios::default() };
        termios.cc[cc::VMIN] = min;
        termios.cc[cc::VTIME] = time;
        s.master.tty().set_termios(termios);
    };
    let expire = || {
        for expiry in std::mem::take(&mut *s.clock.pending.lock().unwrap()) {
            expiry.expired();
        }
    };
    set(0, 0);
    assert_eq!(s.read(&slave, 10), Ok(String::new()));
    set(3, 0);
    s.type_in(b"ab");
    assert_eq!(s.read(&slave, 10), Err(Errno::EAGAIN));
    s.type_in(b"c");
    assert_eq!(s.read(&slave, 10), Ok("abc".into()));
    set(0, 5);
    assert_eq!(s.read(&slave, 10), Err(Errno::EAGAIN));
    expire();
    assert_eq!(s.read(&slave, 10), Ok(String::new()));
    set(3, 5);
    s.type_in(b"a");
    assert_eq!(s.read(&slave, 10), Err(Errno::EAGAIN));
    expire();
    assert_eq!(s.read(&slave, 10), Ok("a".into()));
}

#[test]
fn the_multiplexer_makes_locked_pairs() {
    let s = setup();
    let ptmx = s.world.open("/ptmx", OpenFlags::RDWR).unwrap();
    assert_eq!(s.world.list("/").unwrap(), ["0", "1", "ptmx"]);
    assert_eq!(s.world.open("/1", OpenFlags::RDWR).map(|_| ()), Err(Errno::EIO));
    let unlock = ptmx.ops().ioctl(&s.world.cx(), &ptmx, ioctl::TIOCSPTLCK, 0, &int(0));
    assert_eq!(unlock, Ok(0));
    assert!(s.world.open("/1", OpenFlags::RDWR).is_ok());
    drop(ptmx);
    assert_eq!(s.world.list("/").unwrap(), ["0", "ptmx"]);
}
