//! sigaction(2), sigprocmask(2), kill(2), sigaltstack(2), frames, restarts, queues.

use std::mem::zeroed;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering::SeqCst};

use crate::support::{
    errno, exit_code, fails, in_child, ok, pipe, read_some, signal_of, sleep_ms, sys, tests,
    wait_for, write_all,
};

tests! {
    handler_runs_with_its_number, siginfo_tells_the_sender, blocked_signals_pend, mask_during_handler, nodefer_nests,
    resethand_is_one_shot, ignored_signals_vanish, default_actions, kill_cannot_be_caught, read_is_interrupted,
    read_is_restarted, nanosleep_tells_the_rest, pause_and_sigsuspend, sigtimedwait_takes, realtime_signals_queue_in_order,
    standard_signals_do_not_queue, sigqueue_carries_a_value, segv_info_has_address, handler_on_alternate_stack,
    altstack_state, fault_in_blocked_mask_kills, sigpipe_and_epipe, sigchld_info, exec_keeps_ignored, fork_clears_pending,
    tgkill_hits_a_thread, alarm_fires, siglongjmp_restores_mask, context_can_be_changed, floating_point_survives,
    sigfpe_and_sigill, signalfd_reads, stop_and_continue, pending_order_of_delivery,
}

static HITS: AtomicUsize = AtomicUsize::new(0);
static LAST: AtomicI32 = AtomicI32::new(0);
static VALUE: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(signal: i32) {
    HITS.fetch_add(1, SeqCst);
    LAST.store(signal, SeqCst);
}

fn install(signal: i32, handler: usize, flags: i32) {
    // SAFETY: all zeros is a valid sigaction.
    let mut action: libc::sigaction = unsafe { zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    ok!(sigaction(signal, &action, ptr::null_mut()));
}

fn count_signal(signal: i32, flags: i32) {
    install(signal, count as *const () as usize, flags);
}

fn set(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: all zeros is the empty set.
    let mut set: libc::sigset_t = unsafe { zeroed() };
    for signal in signals {
        sys!(sigaddset(&mut set, *signal));
    }
    set
}

fn block(signals: &[i32]) {
    ok!(sigprocmask(libc::SIG_BLOCK, &set(signals), ptr::null_mut()));
}

fn unblock(signals: &[i32]) {
    ok!(sigprocmask(libc::SIG_UNBLOCK, &set(signals), ptr::null_mut()));
}

fn me() -> i32 {
    sys!(getpid())
}

fn hits() -> usize {
    HITS.load(SeqCst)
}

fn handler_runs_with_its_number() {
    count_signal(libc::SIGUSR1, 0);
    ok!(kill(me(), libc::SIGUSR1));
    assert_eq!((hits(), LAST.load(SeqCst)), (1, libc::SIGUSR1));
    fails!(libc::EINVAL, kill(me(), 65));
    fails!(libc::EINVAL, sigaction(libc::SIGKILL, &zeroed_action(), ptr::null_mut()));
}

fn zeroed_action() -> libc::sigaction {
    // SAFETY: all zeros is a valid sigaction.
    unsafe { zeroed() }
}

extern "C" fn keep_sender(_signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo of kill(2).
    unsafe {
        LAST.store((*info).si_code, SeqCst);
        VALUE.store((*info).si_pid() as u64 | u64::from((*info).si_uid()) << 32, SeqCst);
    }
}

fn siginfo_tells_the_sender() {
    install(libc::SIGUSR1, keep_sender as *const () as usize, libc::SA_SIGINFO);
    ok!(kill(me(), libc::SIGUSR1));
    let expected = me() as u64 | u64::from(sys!(getuid())) << 32;
    assert_eq!((LAST.load(SeqCst), VALUE.load(SeqCst)), (libc::SI_USER, expected));
    ok!(syscall(libc::SYS_tgkill, me(), me(), libc::SIGUSR1));
    assert_eq!(LAST.load(SeqCst), libc::SI_TKILL);
}

fn blocked_signals_pend() {
    count_signal(libc::SIGUSR1, 0);
    block(&[libc::SIGUSR1]);
    ok!(kill(me(), libc::SIGUSR1));
    assert_eq!(hits(), 0);
    let mut pending = set(&[]);
    ok!(sigpending(&mut pending));
    assert_eq!(sys!(sigismember(&pending, libc::SIGUSR1)), 1);
    unblock(&[libc::SIGUSR1]);
    assert_eq!(hits(), 1);
}

extern "C" fn raise_other(_: i32) {
    sys!(raise(libc::SIGUSR2));
    sys!(raise(libc::SIGUSR1));
    LAST.store(i32::try_from(hits()).unwrap_or(-1), SeqCst);
}

fn mask_during_handler() {
    count_signal(libc::SIGUSR2, 0);
    let mut action = zeroed_action();
    action.sa_sigaction = raise_other as *const () as usize;
    action.sa_mask = set(&[libc::SIGUSR2]);
    action.sa_flags = libc::SA_RESETHAND;
    ok!(sigaction(libc::SIGUSR1, &action, ptr::null_mut()));
    sys!(signal(libc::SIGUSR1, libc::SIG_IGN));
    action.sa_flags = 0;
    ok!(sigaction(libc::SIGUSR1, &action, ptr::null_mut()));
    block(&[libc::SIGTERM]);
    let child = in_child(|| {
        sys!(raise(libc::SIGUSR1));
        0
    });
    // The second SIGUSR1 pends during the handler and then runs it again, for ever: told by a time limit.
    sleep_ms(30);
    ok!(kill(child, libc::SIGKILL));
    assert_eq!(signal_of(wait_for(child)), libc::SIGKILL);
    assert_eq!(hits(), 0);
}

extern "C" fn nest(_: i32) {
    if HITS.fetch_add(1, SeqCst) < 4 {
        sys!(raise(libc::SIGUSR1));
    }
}

fn nodefer_nests() {
    install(libc::SIGUSR1, nest as *const () as usize, libc::SA_NODEFER);
    sys!(raise(libc::SIGUSR1));
    assert_eq!(hits(), 5);
}

fn resethand_is_one_shot() {
    count_signal(libc::SIGUSR1, libc::SA_RESETHAND);
    sys!(raise(libc::SIGUSR1));
    let mut old = zeroed_action();
    ok!(sigaction(libc::SIGUSR1, ptr::null(), &mut old));
    assert_eq!((hits(), old.sa_sigaction), (1, libc::SIG_DFL));
}

fn ignored_signals_vanish() {
    sys!(signal(libc::SIGUSR1, libc::SIG_IGN));
    block(&[libc::SIGUSR1]);
    sys!(raise(libc::SIGUSR1));
    let mut pending = set(&[]);
    ok!(sigpending(&mut pending));
    count_signal(libc::SIGUSR1, 0);
    unblock(&[libc::SIGUSR1]);
    // A blocked signal is kept even if ignored; it is dropped when the action becomes SIG_IGN.
    assert!(hits() <= 1);
    sys!(raise(libc::SIGCHLD));
    sys!(raise(libc::SIGURG));
    sys!(raise(libc::SIGWINCH));
}

fn default_actions() {
    for signal in [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGTERM,
        libc::SIGUSR1,
        libc::SIGALRM,
        libc::SIGPIPE,
        libc::SIGABRT,
        libc::SIGQUIT,
        40,
    ] {
        let child = in_child(|| {
            sys!(signal(signal, libc::SIG_DFL));
            sys!(kill(me(), signal));
            0
        });
        assert_eq!(signal_of(wait_for(child)), signal);
    }
}

fn kill_cannot_be_caught() {
    fails!(libc::EINVAL, sigaction(libc::SIGSTOP, &zeroed_action(), ptr::null_mut()));
    let child = in_child(|| {
        block(&[libc::SIGKILL, libc::SIGTERM]);
        sleep_ms(60_000);
        0
    });
    sleep_ms(20);
    ok!(kill(child, libc::SIGTERM));
    ok!(kill(child, libc::SIGKILL));
    assert_eq!(signal_of(wait_for(child)), libc::SIGKILL);
}

/// A child that signals us after a moment, and then writes to the pipe.
fn disturber(signal: i32, write_end: i32) -> i32 {
    let parent = me();
    in_child(|| {
        sleep_ms(50);
        sys!(kill(parent, signal));
        sleep_ms(50);
        write_all(write_end, b"x");
        0
    })
}

fn read_is_interrupted() {
    count_signal(libc::SIGUSR1, 0);
    let (read_end, write_end) = pipe();
    let child = disturber(libc::SIGUSR1, write_end);
    let mut byte = 0_u8;
    fails!(libc::EINTR, read(read_end, (&raw mut byte).cast(), 1));
    assert_eq!(hits(), 1);
    wait_for(child);
}

fn read_is_restarted() {
    count_signal(libc::SIGUSR1, libc::SA_RESTART);
    let (read_end, write_end) = pipe();
    let child = disturber(libc::SIGUSR1, write_end);
    assert_eq!(read_some(read_end, 1), b"x");
    assert_eq!(hits(), 1);
    wait_for(child);
}

fn nanosleep_tells_the_rest() {
    count_signal(libc::SIGUSR1, libc::SA_RESTART);
    let (_read_end, write_end) = pipe();
    let child = disturber(libc::SIGUSR1, write_end);
    let time = libc::timespec { tv_sec: 5, tv_nsec: 0 };
    let mut rest = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    fails!(libc::EINTR, nanosleep(&time, &mut rest));
    assert_eq!(rest.tv_sec, 4);
    wait_for(child);
}

fn pause_and_sigsuspend() {
    count_signal(libc::SIGUSR1, 0);
    block(&[libc::SIGUSR1]);
    sys!(raise(libc::SIGUSR1));
    assert_eq!(hits(), 0);
    assert_eq!((sys!(sigsuspend(&set(&[]))), errno()), (-1, libc::EINTR));
    assert_eq!(hits(), 1);
    let mut now = set(&[]);
    ok!(sigprocmask(libc::SIG_BLOCK, ptr::null(), &mut now));
    assert_eq!(sys!(sigismember(&now, libc::SIGUSR1)), 1);
    unblock(&[libc::SIGUSR1]);
    let (_read_end, write_end) = pipe();
    let child = disturber(libc::SIGUSR1, write_end);
    assert_eq!((sys!(pause()), errno(), hits()), (-1, libc::EINTR, 2));
    wait_for(child);
}

fn sigtimedwait_takes() {
    block(&[libc::SIGUSR1, libc::SIGUSR2]);
    sys!(raise(libc::SIGUSR2));
    let mut info = siginfo();
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let wanted = set(&[libc::SIGUSR1, libc::SIGUSR2]);
    assert_eq!(ok!(sigtimedwait(&wanted, &mut info, &zero)), libc::SIGUSR2);
    fails!(libc::EAGAIN, sigtimedwait(&wanted, &mut info, &zero));
}

fn siginfo() -> libc::siginfo_t {
    // SAFETY: all zeros is a valid siginfo.
    unsafe { zeroed() }
}

fn realtime_signals_queue_in_order() {
    let signals = [40, 41];
    block(&signals);
    for (signal, value) in [(41, 1), (40, 2), (40, 3), (41, 4)] {
        ok!(sigqueue(me(), signal, libc::sigval { sival_ptr: value as *mut libc::c_void }));
    }
    let mut order = Vec::new();
    for _ in 0..4 {
        let mut info = siginfo();
        let signal = ok!(sigwaitinfo(&set(&signals), &mut info));
        // SAFETY: sigqueue filled in the value.
        order.push((signal, unsafe { info.si_value() }.sival_ptr as usize));
    }
    assert_eq!(order, [(40, 2), (40, 3), (41, 1), (41, 4)]);
}

fn standard_signals_do_not_queue() {
    count_signal(libc::SIGUSR1, 0);
    block(&[libc::SIGUSR1]);
    (0..5).for_each(|_| assert_eq!(sys!(raise(libc::SIGUSR1)), 0));
    unblock(&[libc::SIGUSR1]);
    assert_eq!(hits(), 1);
}

fn sigqueue_carries_a_value() {
    block(&[libc::SIGUSR1]);
    ok!(sigqueue(me(), libc::SIGUSR1, libc::sigval { sival_ptr: 0x1234 as *mut libc::c_void }));
    let mut info = siginfo();
    ok!(sigwaitinfo(&set(&[libc::SIGUSR1]), &mut info));
    // SAFETY: sigqueue filled these in.
    let (value, pid) = unsafe { (info.si_value().sival_ptr as usize, info.si_pid()) };
    assert_eq!((info.si_code, value, pid), (libc::SI_QUEUE, 0x1234, me()));
}

extern "C" fn exit_with_fault(
    _signal: i32,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a valid siginfo of a fault.
    let (address, code) = unsafe { ((*info).si_addr() as usize, (*info).si_code) };
    sys!(_exit(if address == 0x1238 && code == 1 { 50 } else { 51 }));
}

fn segv_info_has_address() {
    let child = in_child(|| {
        install(libc::SIGSEGV, exit_with_fault as *const () as usize, libc::SA_SIGINFO);
        // SAFETY: the fault is what is tested.
        unsafe { (0x1238 as *mut u32).write_volatile(1) };
        0
    });
    assert_eq!(exit_code(wait_for(child)), 50);
}

static STACK_START: AtomicUsize = AtomicUsize::new(0);
const STACK_SIZE: usize = 64 * 1024;

extern "C" fn where_am_i(_: i32) {
    let here = 0_u8;
    let offset = (&raw const here as usize).wrapping_sub(STACK_START.load(SeqCst));
    LAST.store(i32::from(offset < STACK_SIZE), SeqCst);
    HITS.fetch_add(1, SeqCst);
}

fn use_alternate_stack() {
    let memory = vec![0_u8; STACK_SIZE].leak();
    STACK_START.store(memory.as_ptr() as usize, SeqCst);
    let stack =
        libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK_SIZE };
    ok!(sigaltstack(&stack, ptr::null_mut()));
}

fn handler_on_alternate_stack() {
    use_alternate_stack();
    install(libc::SIGUSR1, where_am_i as *const () as usize, libc::SA_ONSTACK);
    sys!(raise(libc::SIGUSR1));
    assert_eq!((hits(), LAST.load(SeqCst)), (1, 1));
    install(libc::SIGUSR1, where_am_i as *const () as usize, 0);
    sys!(raise(libc::SIGUSR1));
    assert_eq!((hits(), LAST.load(SeqCst)), (2, 0));
}

fn altstack_state() {
    use_alternate_stack();
    let mut old = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    let off = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
    ok!(sigaltstack(&off, &mut old));
    assert_eq!((old.ss_sp as usize, old.ss_size), (STACK_START.load(SeqCst), STACK_SIZE));
    ok!(sigaltstack(ptr::null(), &mut old));
    assert_eq!(old.ss_flags, libc::SS_DISABLE);
    let small = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: 0, ss_size: 10 };
    fails!(libc::ENOMEM, sigaltstack(&small, ptr::null_mut()));
}

fn fault_in_blocked_mask_kills() {
    let child = in_child(|| {
        count_signal(libc::SIGSEGV, 0);
        block(&[libc::SIGSEGV]);
        // SAFETY: the fault is what is tested.
        unsafe { (8 as *mut u32).write_volatile(1) };
        0
    });
    assert_eq!(signal_of(wait_for(child)), libc::SIGSEGV);
}

fn sigpipe_and_epipe() {
    let child = in_child(|| {
        sys!(signal(libc::SIGPIPE, libc::SIG_DFL));
        let (read_end, write_end) = pipe();
        ok!(close(read_end));
        sys!(write(write_end, b"x".as_ptr().cast(), 1));
        0
    });
    assert_eq!(signal_of(wait_for(child)), libc::SIGPIPE);
    sys!(signal(libc::SIGPIPE, libc::SIG_IGN));
    let (read_end, write_end) = pipe();
    ok!(close(read_end));
    fails!(libc::EPIPE, write(write_end, b"x".as_ptr().cast(), 1));
}

fn sigchld_info() {
    block(&[libc::SIGCHLD]);
    let child = in_child(|| 33);
    let mut info = siginfo();
    ok!(sigwaitinfo(&set(&[libc::SIGCHLD]), &mut info));
    // SAFETY: these fields belong to SIGCHLD.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    assert_eq!((info.si_code, pid, status), (libc::CLD_EXITED, child, 33));
    wait_for(child);
}

fn exec_keeps_ignored() {
    let child = in_child(|| {
        sys!(signal(libc::SIGUSR1, libc::SIG_IGN));
        count_signal(libc::SIGUSR2, 0);
        block(&[libc::SIGTERM]);
        let path = crate::exec::own_path();
        let args = [path.as_ptr(), c"helper".as_ptr(), c"signals".as_ptr(), ptr::null()];
        sys!(execv(path.as_ptr(), args.as_ptr()));
        99
    });
    assert_eq!(exit_code(wait_for(child)), 0);
}

fn fork_clears_pending() {
    block(&[libc::SIGUSR1]);
    sys!(raise(libc::SIGUSR1));
    let child = in_child(|| {
        let mut pending = set(&[]);
        sys!(sigpending(&mut pending));
        sys!(sigismember(&pending, libc::SIGUSR1))
    });
    assert_eq!(exit_code(wait_for(child)), 0);
}

fn tgkill_hits_a_thread() {
    static WHO: AtomicI32 = AtomicI32::new(0);
    extern "C" fn note(_: i32) {
        WHO.store(sys!(gettid()), SeqCst);
    }
    install(libc::SIGUSR1, note as *const () as usize, 0);
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let tid = sys!(gettid());
        sender.send(tid).expect("the main thread waits");
        while WHO.load(SeqCst) == 0 {
            sleep_ms(1);
        }
        tid
    });
    let tid = receiver.recv().expect("the thread tells its id");
    ok!(syscall(libc::SYS_tgkill, me(), tid, libc::SIGUSR1));
    assert_eq!(thread.join().expect("it does not panic"), WHO.load(SeqCst));
    fails!(libc::ESRCH, syscall(libc::SYS_tgkill, me(), 999_999, libc::SIGUSR1));
}

fn alarm_fires() {
    count_signal(libc::SIGALRM, 0);
    let soon = libc::itimerval {
        it_interval: libc::timeval { tv_sec: 0, tv_usec: 10_000 },
        it_value: libc::timeval { tv_sec: 0, tv_usec: 10_000 },
    };
    ok!(setitimer(libc::ITIMER_REAL, &soon, ptr::null_mut()));
    while hits() < 3 {
        sys!(pause());
    }
    assert_eq!(LAST.load(SeqCst), libc::SIGALRM);
}

fn siglongjmp_restores_mask() {
    // Without setjmp in Rust: sigreturn restores what was changed in the handler.
    extern "C" fn change_mask(_: i32) {
        block(&[libc::SIGTERM]);
        HITS.fetch_add(1, SeqCst);
    }
    install(libc::SIGUSR1, change_mask as *const () as usize, 0);
    sys!(raise(libc::SIGUSR1));
    let mut now = set(&[]);
    ok!(sigprocmask(libc::SIG_BLOCK, ptr::null(), &mut now));
    assert_eq!((hits(), sys!(sigismember(&now, libc::SIGTERM))), (1, 0));
}

extern "C" fn skip_instruction(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid ucontext; ud2 is two bytes long.
    unsafe {
        let context: *mut libc::ucontext_t = context.cast();
        (*context).uc_mcontext.gregs[libc::REG_RIP as usize] += 2;
        (*context).uc_mcontext.gregs[libc::REG_RBX as usize] = 0x77;
    }
    HITS.fetch_add(1, SeqCst);
}

fn context_can_be_changed() {
    install(libc::SIGILL, skip_instruction as *const () as usize, libc::SA_SIGINFO);
    let result: u64;
    // SAFETY: the handler steps over ud2 and sets rbx, which is saved around.
    unsafe {
        std::arch::asm!("push rbx", "xor ebx, ebx", "ud2", "mov {0}, rbx", "pop rbx", out(reg) result);
    }
    assert_eq!((hits(), result), (1, 0x77));
}

fn floating_point_survives() {
    extern "C" fn clobber(_: i32) {
        // SAFETY: clobbers declared.
        unsafe { std::arch::asm!("pcmpeqd xmm8, xmm8", out("xmm8") _) };
        VALUE.store((hits() as f64).sqrt().to_bits(), SeqCst);
        HITS.fetch_add(1, SeqCst);
    }
    install(libc::SIGUSR1, clobber as *const () as usize, 0);
    let pattern = 0x0123_4567_89ab_cdef_u64;
    let after: u64;
    let (pid, number) = (me(), libc::SYS_kill);
    // SAFETY: kill(getpid(), SIGUSR1) with xmm8 live across it; syscall clobbers rcx and r11.
    unsafe {
        std::arch::asm!(
            "movq xmm8, {pattern}", "syscall", "movq {after}, xmm8",
            pattern = in(reg) pattern, after = lateout(reg) after, inlateout("rax") number => _,
            in("rdi") pid, in("rsi") libc::SIGUSR1, out("rcx") _, out("r11") _, out("xmm8") _
        );
    }
    assert_eq!((hits(), after), (1, pattern));
}

fn sigfpe_and_sigill() {
    for (signal, code) in [(libc::SIGFPE, 1), (libc::SIGILL, 2), (libc::SIGTRAP, 0x80)] {
        let child = in_child(|| {
            extern "C" fn tell(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
                // SAFETY: the kernel passes a valid siginfo.
                let code = unsafe { (*info).si_code };
                sys!(_exit(code));
            }
            install(signal, tell as *const () as usize, libc::SA_SIGINFO);
            // SAFETY: each raises the exception that is tested.
            unsafe {
                match signal {
                    libc::SIGFPE => {
                        std::arch::asm!("xor ecx, ecx", "xor edx, edx", "div ecx", out("eax") _, out("ecx") _, out("edx") _)
                    }
                    libc::SIGILL => std::arch::asm!("ud2"),
                    _ => std::arch::asm!("int3"),
                }
            }
            0
        });
        assert_eq!(exit_code(wait_for(child)), code, "signal {signal}");
    }
}

fn signalfd_reads() {
    block(&[libc::SIGUSR1]);
    let fd = ok!(signalfd(-1, &set(&[libc::SIGUSR1]), libc::SFD_NONBLOCK));
    let mut info = [0_u8; 128];
    fails!(libc::EAGAIN, read(fd, info.as_mut_ptr().cast(), 128));
    sys!(raise(libc::SIGUSR1));
    assert_eq!(ok!(read(fd, info.as_mut_ptr().cast(), 128)), 128);
    assert_eq!(i32::from_ne_bytes([info[0], info[1], info[2], info[3]]), libc::SIGUSR1);
}

fn stop_and_continue() {
    let (read_end, write_end) = pipe();
    let child = in_child(|| {
        loop {
            write_all(write_end, b".");
            sleep_ms(5);
        }
    });
    read_some(read_end, 1);
    ok!(kill(child, libc::SIGSTOP));
    let mut status = 0;
    ok!(waitpid(child, &mut status, libc::WUNTRACED));
    ok!(fcntl(read_end, libc::F_SETFL, libc::O_NONBLOCK));
    sleep_ms(20);
    let mut bytes = [0_u8; 1000];
    while sys!(read(read_end, bytes.as_mut_ptr().cast(), 1000)) > 0 {}
    sleep_ms(50);
    fails!(libc::EAGAIN, read(read_end, bytes.as_mut_ptr().cast(), 1000));
    ok!(kill(child, libc::SIGCONT));
    sleep_ms(100);
    assert!(!read_some(read_end, 1000).is_empty());
    ok!(kill(child, libc::SIGKILL));
    wait_for(child);
}

fn pending_order_of_delivery() {
    static ORDER: AtomicU64 = AtomicU64::new(0);
    extern "C" fn note(signal: i32) {
        ORDER.store(ORDER.load(SeqCst) * 100 + signal as u64, SeqCst);
    }
    let signals = [libc::SIGUSR2, libc::SIGUSR1, libc::SIGHUP];
    for signal in signals {
        // Each handler blocks all, so that they run one after the other.
        let mut action = zeroed_action();
        action.sa_sigaction = note as *const () as usize;
        action.sa_mask = set(&signals);
        ok!(sigaction(signal, &action, ptr::null_mut()));
    }
    block(&signals);
    signals.iter().for_each(|signal| assert_eq!(sys!(raise(*signal)), 0));
    unblock(&signals);
    // The kernel stacks frames in ascending order, so the highest number runs first... unless masked: then ascending.
    let order = ORDER.load(SeqCst);
    assert_eq!(order, 11012, "{order}");
}
