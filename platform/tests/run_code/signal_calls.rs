//! What the shim does with signal masks and dispositions on its own, and when it asks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use abi::UserAddr;
use abi::signal::{SigAction, Signal};
use platform::{Context, Event, Platform, SharedSignals};

use crate::fast::load_fast;
use crate::harness::{DATA, next, platform, step};

/// Where the snippets have the set, the old mask and what to do.
const SET: u64 = DATA + 0x200;
const OLD: u64 = DATA + 0x208;
const HOW: u64 = DATA + 0x210;
const SIG_BLOCK: u64 = 0;
const SIG_UNBLOCK: u64 = 1;
const SIG_SETMASK: u64 = 2;
const RT_SIGACTION: u64 = 13;
const RT_SIGPROCMASK: u64 = 14;
const GETPID: u64 = 39;
const KILL: u64 = 1 << 8;

/// Changes the mask as [`SET`] and [`HOW`] say, then asks for its id, over and over.
fn changer(platform: &Arc<dyn Platform>) -> Option<Box<dyn Context>> {
    let code = snippet!(
        "2:",
        "mov eax, 14",
        "mov rdi, [0x600210]",
        "mov esi, 0x600200",
        "mov edx, 0x600208",
        "mov r10d, 8",
        "lea rcx, [rip + 3f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "3:",
        "mov rbx, rax",
        "inc r12",
        "mov eax, 39",
        "syscall",
        "jmp 2b",
    );
    load_fast(platform, code)
}

fn say(context: &dyn Context, how: u64, set: u64) {
    context.space().write(UserAddr(HOW), &how.to_le_bytes());
    context.space().write(UserAddr(SET), &set.to_le_bytes());
}

fn old(context: &dyn Context) -> u64 {
    let mut bytes = [0; 8];
    context.space().read(UserAddr(OLD), &mut bytes);
    u64::from_le_bytes(bytes)
}

fn share(context: &dyn Context) -> Arc<dyn SharedSignals> {
    context.kicker().share_signals().expect("this platform can")
}

#[test]
fn the_mask_is_changed_without_an_event() {
    let platform = platform();
    let Some(mut context) = changer(&platform) else { return };
    say(&*context, SIG_SETMASK, 0);
    assert_eq!(step(&mut *context), Event::Syscall);
    assert_eq!(context.regs().rax, RT_SIGPROCMASK, "not shared yet");
    context.set_return(0);
    assert_eq!(step(&mut *context), Event::Syscall);
    let shared = share(&*context);
    shared.set_mask(0b1000);
    let steps = [
        (SIG_BLOCK, 0b0001, 0b1000, 0b1001),
        (SIG_UNBLOCK, 0b1001, 0b1001, 0),
        (SIG_SETMASK, !0, 0, !(KILL | 1 << 18)),
        (SIG_SETMASK, 0b0110, !(KILL | 1 << 18), 0b0110),
    ];
    for (how, set, before, after) in steps {
        say(&*context, how, set);
        assert_eq!(step(&mut *context), Event::Syscall);
        assert_eq!((context.regs().rax, context.regs().rbx), (GETPID, 0));
        assert_eq!((old(&*context), shared.mask()), (before, after));
    }
    // What it does not know is asked for; nothing has changed.
    say(&*context, 77, 1);
    assert_eq!(step(&mut *context), Event::Syscall);
    assert_eq!((context.regs().rax, shared.mask()), (RT_SIGPROCMASK, 0b0110));
}

#[test]
fn pending_signals_are_asked_for() {
    let platform = platform();
    let Some(mut context) = changer(&platform) else { return };
    let shared = share(&*context);
    let asks = |context: &mut dyn Context, how, set| {
        say(context, how, set);
        assert_eq!(step(context), Event::Syscall);
        let asks = context.regs().rax == RT_SIGPROCMASK;
        if asks {
            context.set_return(0);
            assert_eq!(step(context), Event::Syscall);
        }
        asks
    };
    shared.set_mask(0b0011);
    shared.set_pending(0b0001);
    shared.add_pending(0b0010);
    assert!(!asks(&mut *context, SIG_BLOCK, 0b1000), "they are blocked before and after");
    assert!(!asks(&mut *context, SIG_UNBLOCK, 0b1000));
    assert!(asks(&mut *context, SIG_UNBLOCK, 0b0001), "one would be let through");
    assert!(asks(&mut *context, SIG_SETMASK, 0b0001));
    assert_eq!(shared.mask(), 0b0011, "what it asked for is not done");
    shared.add_pending(0b0100);
    assert!(asks(&mut *context, SIG_BLOCK, 0b0100), "it is on its way");
    shared.set_pending(0);
    assert!(!asks(&mut *context, SIG_SETMASK, 0));
    assert_eq!(shared.mask(), 0);
}

#[test]
fn a_signal_is_seen_by_its_sender_or_by_the_shim() {
    const SIGNAL: u64 = 1 << 9;
    const ROUNDS: u64 = 4_000;
    let platform = platform();
    // Blocks and lets through the signal until it has to ask; counts in r12.
    let code = snippet!(
        "2:",
        "xor edi, edi",
        "call 4f",
        "mov edi, 1",
        "call 4f",
        "inc r12",
        "jmp 2b",
        "4:",
        "mov eax, 14",
        "mov esi, 0x600200",
        "xor edx, edx",
        "mov r10d, 8",
        "lea rcx, [rip + 3f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "3:",
        "ret",
    );
    let Some(mut context) = load_fast(&platform, code) else { return };
    context.space().write(UserAddr(SET), &SIGNAL.to_le_bytes());
    let shared = share(&*context);
    let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    // As the sentry's: between queueing and looking at the mask nobody takes the signal.
    let queue = Arc::new(Mutex::new(()));
    let sender = std::thread::spawn({
        let (shared, kicker) = (Arc::clone(&shared), context.kicker());
        let (sent, stop, queue) = (Arc::clone(&sent), Arc::clone(&stop), Arc::clone(&queue));
        let send = move || {
            let _guard = queue.lock();
            shared.add_pending(SIGNAL);
            if shared.mask() & SIGNAL == 0 {
                kicker.kick();
            }
        };
        move || {
            for handled in 1.. {
                send();
                while sent.load(Ordering::SeqCst) < handled {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    std::hint::spin_loop();
                }
            }
        }
    });
    let mut asked = 0;
    for _ in 0..ROUNDS {
        // Each has a consequence, or this waits in vain.
        context.resume();
        let event = next(&mut *context).expect("an event");
        let _guard = queue.lock();
        match event {
            Event::Syscall => {
                let regs = context.regs();
                assert_eq!(regs.rax, RT_SIGPROCMASK);
                assert_eq!(shared.mask(), if regs.rdi == SIG_BLOCK { 0 } else { SIGNAL });
                shared.set_mask(if regs.rdi == SIG_BLOCK { SIGNAL } else { 0 });
                shared.set_pending(0);
                context.set_return(0);
                asked += 1;
            }
            Event::Interrupted => shared.set_pending(0),
            other => panic!("{other:?}"),
        }
        sent.fetch_add(1, Ordering::SeqCst);
    }
    stop.store(true, Ordering::SeqCst);
    sender.join().expect("the sender ends");
    assert!(asked > 0);
}

/// Asks for the disposition of the signal in r13, then for its id; what it was told, unless it had to make a call for it.
fn ask(context: &mut dyn Context, signal: u64) -> Option<SigAction> {
    context.regs_mut().r13 = signal;
    assert_eq!(step(context), Event::Syscall);
    if context.regs().rax == RT_SIGACTION {
        context.set_return(0);
        assert_eq!(step(context), Event::Syscall);
        return None;
    }
    assert_eq!((context.regs().rax, context.regs().rbx), (GETPID, 0));
    let mut words = [[0; 8]; 4];
    context.space().read(UserAddr(SET), words.as_flattened_mut());
    let [handler, flags, restorer, mask] = words.map(u64::from_le_bytes);
    Some(SigAction { handler, flags, restorer, mask })
}

#[test]
fn dispositions_are_looked_up_once_they_are_told() {
    let platform = platform();
    let code = snippet!(
        "2:",
        "mov eax, 13",
        "mov rdi, r13",
        "xor esi, esi",
        "mov edx, 0x600200",
        "mov r10d, 8",
        "lea rcx, [rip + 3f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "3:",
        "mov rbx, rax",
        "mov eax, 39",
        "syscall",
        "jmp 2b",
    );
    let Some(mut context) = load_fast(&platform, code) else { return };
    let signal = |number| Signal::new(number).expect("there is such a signal");
    let of = |number| SigAction { handler: number, flags: 2, restorer: 3, mask: !number };
    let shared = share(&*context);
    shared.change_action(signal(1), &of(1));
    assert_eq!(ask(&mut *context, 1), None, "not told yet");
    let mut actions = [SigAction::default(); 64];
    for (number, action) in (1..).zip(&mut actions) {
        *action = of(number);
    }
    shared.tell_actions(&actions, 0);
    for number in [1, 9, 33, 64, 0xffff_0000_0000_0001] {
        assert_eq!(ask(&mut *context, number), Some(of(number & 0xff)), "{number}");
    }
    for number in [0, 65, 1 << 31, u64::MAX] {
        assert_eq!(ask(&mut *context, number), None, "{number}");
    }
    shared.change_action(signal(64), &of(7));
    assert_eq!(ask(&mut *context, 64), Some(of(7)));
    assert_eq!(ask(&mut *context, 63), Some(of(63)));
    // A new program.
    share(&*context);
    assert_eq!(ask(&mut *context, 1), None);
}

#[test]
fn defaults_are_replaced_by_defaults_where_that_was_allowed() {
    let platform = platform();
    // Sets the disposition of the signal in r13 to what is at SET, then asks for its id, over and over.
    let code = snippet!(
        "2:",
        "mov eax, 13",
        "mov rdi, r13",
        "mov esi, 0x600200",
        "mov edx, 0x600220",
        "mov r10d, 8",
        "lea rcx, [rip + 3f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "3:",
        "mov rbx, rax",
        "mov eax, 39",
        "syscall",
        "jmp 2b",
    );
    let Some(mut context) = load_fast(&platform, code) else { return };
    let shared = share(&*context);
    let mut set = |signal: u64, words: [u64; 4]| {
        let bytes = words.map(u64::to_le_bytes);
        context.space().write(UserAddr(SET), bytes.as_flattened());
        context.regs_mut().r13 = signal;
        assert_eq!(step(&mut *context), Event::Syscall);
        let is_done = context.regs().rax == GETPID;
        if !is_done {
            context.set_return(0);
            assert_eq!(step(&mut *context), Event::Syscall);
        }
        is_done
    };
    let changed = || {
        let mut all = Vec::new();
        shared.take_changed_actions(&mut |signal, action| all.push((signal.number(), action)));
        all
    };
    let mut actions = [SigAction::default(); 64];
    actions[4].handler = 1;
    assert!(!set(1, [0; 4]), "not told");
    shared.tell_actions(&actions, 0b11_0111);
    assert!(set(1, [0, !0, 3, !0]));
    assert!(!set(4, [0, 2, 3, 4]), "not allowed");
    assert!(!set(5, [0, 2, 3, 4]), "not the default one");
    assert!(!set(6, [1, 2, 3, 4]), "would not be the default one");
    assert!(!set(6, [0x1000, 2, 3, 4]));
    let mask = !(KILL | 1 << 18);
    let kept = SigAction { handler: 0, flags: 0xdc00_0807, restorer: 3, mask };
    assert_eq!((changed(), changed()), (vec![(1, kept)], vec![]));
    assert!(set(2, [0; 4]) && set(3, [0; 4]));
    shared.forbid_changes();
    assert!(!set(1, [0; 4]));
    assert_eq!(changed().len(), 2);
    // KILL and STOP are refused, whatever is asked for.
    assert!(set(9, [0; 4]) && set(19, [1; 4]));
    // What is ignored by default is discarded when it is pending; SIGCHLD has flags that others look at.
    shared.tell_actions(&actions, !0);
    assert!(set(17, [0, 4, 3, 4]) && !set(17, [0, 1, 3, 4]) && !set(17, [0, 2, 3, 4]));
    shared.set_pending(1 << 22 | 1 << 1);
    assert!(!set(23, [0; 4]) && set(28, [0; 4]) && set(2, [0; 4]));
    assert_eq!(changed().len(), 3);
}
