//! Interpreters, compilers, tools that developers use.

use std::path::PathBuf;
use std::process::Command;

use sandbox_tests::{Case, program, same_as_native, sh};

/// Debian's own interpreter, whatever the developer has in PATH.
fn python(script: &str) -> Case {
    program(&["/usr/bin/python3", "-c", script]).limit(90)
}

fn node(script: &str) -> Case {
    program(&["node", "-e", script]).limit(90)
}

const HELLO_C: &str = "#include <stdio.h>\nint main(void) { puts(\"hello from C\"); return 0; }\n";
const HELLO_RUST: &str = "fn main() { println!(\"hello from Rust\"); }\n";
const HELLO_JAVA: &str =
    "public class Hello { public static void main(String[] a) throws Exception {
  Thread t = new Thread(() -> System.out.println(\"hello from a thread\")); t.start(); t.join();
  System.out.println(\"hello from Java \" + a.length); } }\n";
const GIT_SETUP: &str = "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=c \
    GIT_COMMITTER_EMAIL=c@d GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' \
    GIT_COMMITTER_DATE='2020-01-01T00:00:00Z' GIT_CONFIG_NOSYSTEM=1; ";

fn git(script: &str) -> Case {
    sh(&format!("{GIT_SETUP}{script}")).file("a.txt", "one\ntwo\n").limit(90)
}

same_as_native! {
    python_prints => python("import sys; print('hello', sys.version_info[:2]); sys.exit(3)");
    python_json => python("import json; print(json.dumps({'a': [1, 2.5, None, 'é']}), json.loads('[1]'))");
    python_subprocess => python("import subprocess as s
print(s.run(['sh', '-c', 'cat; exit 5'], input=b'in', capture_output=True))
p = s.Popen('echo err >&2; echo out', shell=True, stdout=s.PIPE, stderr=s.PIPE); print(p.communicate())
try: s.run(['/no/such'])
except FileNotFoundError as e: print(e)
try: s.run(['sleep', '5'], timeout=0.2)
except s.TimeoutExpired: print('timeout')");
    python_threading => python("import threading as t
n = 0; lock = t.Lock()
def f():
    global n
    for _ in range(2000):
        with lock: n += 1
ts = [t.Thread(target=f) for _ in range(16)]
[x.start() for x in ts]; [x.join() for x in ts]; print(n)
e = t.Event(); t.Timer(0.05, e.set).start(); print(e.wait(5)); print(t.Event().wait(0.05))");
    python_multiprocessing => python("import multiprocessing as m
def f(x): return x * x
if __name__ == '__main__':
    m.set_start_method('fork')
    with m.Pool(4) as p: print(p.map(f, range(20)))
    q = m.Queue(); c = m.Process(target=q.put, args=('from child',)); c.start(); print(q.get()); c.join(); print(c.exitcode)
    v = m.Value('i', 0); l = [m.Process(target=f, args=(1,)) for _ in range(3)]; [x.start() for x in l]; [x.join() for x in l]; print([x.exitcode for x in l])");
    python_sqlite_on_a_file => python("import sqlite3, os
c = sqlite3.connect('t.db'); c.execute('create table t (a int, b text)')
with c: c.executemany('insert into t values (?, ?)', [(i, str(i)) for i in range(1000)])
print(c.execute('select count(*), sum(a) from t').fetchone()); c.execute('pragma journal_mode=wal'); c.execute('delete from t where a > 500'); c.commit(); c.close()
print(sqlite3.connect('t.db').execute('select max(a) from t').fetchone())");
    python_asyncio_pipes_and_signals => python("import asyncio, signal, os
async def main():
    got = asyncio.Event(); asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, got.set)
    p = await asyncio.create_subprocess_exec('cat', stdin=-1, stdout=-1); print(await p.communicate(b'via cat'))
    os.kill(os.getpid(), signal.SIGUSR1); await asyncio.wait_for(got.wait(), 5); print('signal')
    print(await asyncio.gather(*[asyncio.sleep(0.01, i) for i in range(5)]))
    s = await asyncio.create_subprocess_shell('exit 4'); print(await s.wait())
asyncio.run(main())");
    python_sockets_on_socketpair => python("import socket, select
a, b = socket.socketpair(); a.send(b'x' * 1000); print(len(b.recv(5000))); a.shutdown(socket.SHUT_WR); print(b.recv(1))
p = select.poll(); p.register(a, select.POLLIN | select.POLLOUT); print([e for _, e in p.poll(100)])");
    python_tempfile => python("import tempfile, os
with tempfile.TemporaryDirectory() as d:
    open(os.path.join(d, 'f'), 'w').write('x'); print(os.listdir(d))
with tempfile.NamedTemporaryFile() as f: f.write(b'abc'); f.flush(); print(os.path.getsize(f.name))
with tempfile.TemporaryFile() as f: f.write(b'1'); f.seek(0); print(f.read())");
    python_mmap => python("import mmap, os
m = mmap.mmap(-1, 8192); m[4096:4101] = b'hello'; print(m[4096:4101])
f = open('f', 'w+b'); f.truncate(10000); m = mmap.mmap(f.fileno(), 0); m[9000:9003] = b'abc'; m.flush(); f.seek(9000); print(f.read(3))
r = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY); r[0] = 65; f.seek(0); print(f.read(1), r[0])
m = mmap.mmap(-1, 4096)
if os.fork() == 0: m[0] = 7; os._exit(0)
os.wait(); print(m[0])");
    python_os_calls => python("import os, stat, fcntl, errno
os.mkdir('d'); os.symlink('d', 'l'); print(stat.filemode(os.lstat('l').st_mode), os.readlink('l'))
fd = os.open('d', os.O_RDONLY | os.O_DIRECTORY); os.mkdir('x', dir_fd=fd); print(os.listdir(fd))
f = open('f', 'w'); fcntl.flock(f, fcntl.LOCK_EX); fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB); print('locked')
try: os.rename('nope', 'z')
except OSError as e: print(errno.errorcode[e.errno])
print(os.path.samefile('d', 'l'), os.access('f', os.W_OK), os.cpu_count() > 0, os.getpriority(0, 0))
os.setxattr if 0 else None; print(sorted(os.scandir('.'), key=lambda e: e.name)[0].name, os.statvfs('/').f_bsize > 0)");
    python_signals_and_timers => python("import signal, time
hits = []; signal.signal(signal.SIGALRM, lambda *a: hits.append(1)); signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
t = time.monotonic(); time.sleep(0.2); print(len(hits) > 3, time.monotonic() - t >= 0.2); signal.setitimer(signal.ITIMER_REAL, 0)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]); signal.raise_signal(signal.SIGUSR2); print(signal.sigpending(), signal.sigtimedwait([signal.SIGUSR2], 1).si_signo)");
    python_large_allocation => python("x = bytearray(300_000_000); x[::4096] = b'1' * len(x[::4096]); print(sum(x[::4096]))");
    python_faulthandler_of_a_crash => python("import ctypes; ctypes.string_at(0)").ignore_stderr();
    perl_runs => program(&["/usr/bin/perl", "-e", "my %h = (a => 1); print join(',', map { $_ * 2 } 1..5), \"\\n\"; print `echo sub`; \
        my $pid = fork(); if (!$pid) { exit 3 } waitpid($pid, 0); print $? >> 8, \"\\n\"; local $SIG{ALRM} = sub { print \"alarm\\n\" }; alarm 1; sleep 3; die \"end\\n\""]);
    node_prints => node("console.log('hello', [1, 2].map(x => x * 2)); process.exitCode = 3");
    node_timers_promises_and_fs => node("const fs = require('fs');
setTimeout(() => console.log('later'), 20); setImmediate(() => console.log('immediate')); Promise.resolve().then(() => console.log('micro'));
(async () => { await fs.promises.writeFile('f', 'data'); console.log(await fs.promises.readFile('f', 'utf8'), fs.statSync('f').size);
for await (const d of await fs.promises.opendir('.')) console.log(d.name);
fs.createReadStream('f').on('data', d => console.log('read', String(d))); })();").normalize(sorted);
    node_child_process_and_workers => node("const { spawnSync, exec } = require('child_process'); const { Worker } = require('worker_threads');
console.log(spawnSync('sh', ['-c', 'cat; exit 2'], { input: 'x' }).status); exec('echo out', (e, o) => { console.log(o);
new Worker('require(\"worker_threads\").parentPort.postMessage(42)', { eval: true }).on('message', m => console.log('worker', m)); });");
    git_init_add_commit_log => git("git init -q -b main r && cd r && cp ../a.txt . && git add . && git commit -q -m first && git log --format='%H %an %s' && echo x >> a.txt && git diff && git status --short && git commit -qam second && git log --oneline | wc -l && git fsck");
    git_clone_of_a_local_repository => git("git init -q -b main r && cd r && cp ../a.txt . && git add . && git commit -q -m first && cd .. && git clone -q r s && cd s && git log --format=%s && git checkout -q -b other && echo y > b && git add b && git commit -q -m b && git push -q origin other && git -C ../r branch && git gc -q && git count-objects");
    gcc_compiles_and_runs => sh("gcc -O1 -o hello hello.c && ./hello && gcc -static -o static hello.c && ./static").file("hello.c", HELLO_C).limit(90);
    gcc_reports_errors => sh("echo 'int main(void) { return x; }' > bad.c; gcc -c bad.c; echo $?");
    make_builds_in_parallel => sh("make -j2 -s && ./prog && make -q; echo $?").limit(120)
        .file("Makefile", "OBJS = $(patsubst %.c,%.o,$(wildcard f*.c)) main.o\nprog: $(OBJS)\n\tgcc -o $@ $^\n%.o: %.c\n\tgcc -c -o $@ $<\n")
        .file("f1.c", "int f1(void) { return 1; }\n").file("f2.c", "int f2(void) { return 2; }\n").file("f3.c", "int f3(void) { return 3; }\n")
        .file("main.c", "#include <stdio.h>\nint f1(void), f2(void), f3(void);\nint main(void) { printf(\"%d\\n\", f1() + f2() + f3()); return 0; }\n");
    busybox_static => sh("busybox echo hi; busybox sh -c 'busybox ls / | busybox grep -c usr; busybox seq 3 | busybox xargs busybox echo'; busybox ls -la /etc/passwd; busybox md5sum /etc/passwd");
    java_tells_its_version => program(&["java", "-version"]).limit(120);
    java_runs_hello => sh("javac Hello.java && java -cp . Hello a b").file("Hello.java", HELLO_JAVA).limit(240);
    sqlite3_shell => sh("sqlite3 t.db 'create table t(a); insert into t values (1),(2); select sum(a) from t;'; sqlite3 t.db .dump");
    jq_filters => sh("echo '{\"a\":[1,2,3]}' | jq -c '.a | map(. * 2)'");
    file_tells_types => sh("file /bin/ls 2>/dev/null | cut -d, -f1; od -An -tx1 -N4 /bin/ls");
}

fn sorted(text: String) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// The compiler itself, past any wrapper that wants a home directory.
fn rustc() -> PathBuf {
    let output =
        Command::new("rustc").args(["--print", "sysroot"]).output().expect("rustc is installed");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).join("bin/rustc")
}

/// As the caller only: the toolchain lives in the caller's home.
#[test]
fn rustc_compiles_and_runs() {
    let rustc = rustc();
    sh(&format!("{} -o hello hello.rs && ./hello", rustc.display()))
        .file("hello.rs", HELLO_RUST)
        .limit(180)
        .assert_same();
}

#[test]
fn static_rust_binary_runs() {
    let rustc = rustc();
    sh(&format!("{} -C target-feature=+crt-static -o hello hello.rs && ./hello", rustc.display()))
        .file("hello.rs", HELLO_RUST)
        .limit(180)
        .assert_same();
}
