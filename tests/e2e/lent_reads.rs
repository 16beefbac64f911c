//! Files that are read without a call: what is written to them meanwhile is seen, and it spares calls indeed.

use sandbox_tests::{Case, binaries, program, same_as_native};

/// A Python script beside a file `f` of 2 MiB, which it reads often first.
fn python(script: &str) -> Case {
    let before = "\
import os, signal, sys
f = os.open('f', os.O_RDONLY)
def often():
    for at in range(3000): os.pread(f, 4, 4 * at)
    for at in range(3000): os.read(f, 4)
    os.lseek(f, 0, 0)
often()
";
    let content: Vec<u8> = (0_u32..1 << 19).flat_map(u32::to_le_bytes).collect();
    program(&["/usr/bin/python3", "-c", &format!("{before}{script}")]).file("f", content)
}

const WRITE: &str = "\
w = os.open('f', os.O_RDWR)
for n in range(200):
    os.pwrite(w, b'%08d' % n, 100)
    print(os.pread(f, 8, 100), os.lseek(f, 96, 0), os.read(f, 12))
    if n % 50 == 0: often()
";

const WRITE_ELSEWHERE: &str = "\
r, w = os.pipe()
if os.fork() == 0:
    with open('f', 'r+b') as g: g.write(b'another')
    os.write(w, b'x')
    os._exit(0)
os.read(r, 1)
print(os.pread(f, 8, 0), os.read(f, 8), os.lseek(f, 0, 1))
os.wait()
";

const TRUNCATE: &str = "\
os.truncate('f', 10)
print(os.pread(f, 8, 4), os.pread(f, 8, 10), os.read(f, 80), os.read(f, 80))
os.truncate('f', 1 << 21)
print(os.pread(f, 8, 4), os.read(f, 8), os.lseek(f, 0, 1))
";

const REPLACE: &str = "\
open('g', 'w').write('something else')
os.rename('g', 'f')
print(os.pread(f, 8, 16), os.read(f, 8), open('f').read())
os.unlink('f')
print(os.pread(f, 8, 32), os.read(f, 8), os.path.exists('f'))
often()
print(os.fstat(f).st_nlink, os.lseek(f, 0, 2))
";

const MAP: &str = "\
import mmap
with open('f', 'r+b') as g: m = mmap.mmap(g.fileno(), 4096)
m[8:16] = b'from map'
print(os.pread(f, 8, 8))
often()
m[8:16] = b'once mor'
print(os.pread(f, 8, 8), os.read(f, 16))
";

const CHMOD: &str = "\
os.chmod('f', 0o600)
often()
print(os.pread(f, 8, 8), os.read(f, 8))
os.chmod('f', 0)
often()
print(os.pread(f, 8, 8), os.read(f, 8))
";

/// A tree of processes that read on at one position.
const FORK: &str = "\
sys.stdout.reconfigure(line_buffering=True)
for n in range(6):
    often()
    os.lseek(f, 64 * n, 0)
    pid = os.fork()
    if pid == 0:
        print('child', os.read(f, 8), os.lseek(f, 8, 1))
        os._exit(0)
    os.waitpid(pid, 0)
    print('parent', os.read(f, 8), os.lseek(f, 0, 1))
";

fn layers(family: &str, platform: &str) -> Case {
    let binary = binaries::conformance().to_str().expect("a plain path").to_owned();
    program(&[&binary, family]).option(&format!("--platform={platform}")).limit(120)
}

same_as_native! {
    writes_are_seen => python(WRITE);
    writes_are_seen_in_a_writable_tree => python(WRITE).writes_here();
    writes_of_another_process_are_seen => python(WRITE_ELSEWHERE);
    writes_of_another_process_are_seen_in_a_writable_tree => python(WRITE_ELSEWHERE).writes_here();
    truncation_is_seen => python(TRUNCATE);
    truncation_is_seen_in_a_writable_tree => python(TRUNCATE).writes_here();
    replaced_files_are_read_on => python(REPLACE);
    replaced_files_are_read_on_in_a_writable_tree => python(REPLACE).writes_here();
    writes_through_a_mapping_are_seen => python(MAP);
    writes_through_a_mapping_are_seen_in_a_writable_tree => python(MAP).writes_here();
    a_mode_of_later_is_no_matter => python(CHMOD);
    a_mode_of_later_is_no_matter_in_a_writable_tree => python(CHMOD).writes_here();
    copies_read_on_at_one_position => python(FORK);
    without_rewriting => layers("lent_reads", "seccomp,no-rewrite");
    without_answers => layers("lent_reads", "seccomp,no-answer");
    shared_without_answers => layers("lent_sharing", "seccomp,no-answer");
    shared_without_spinning => layers("lent_sharing", "seccomp,no-spin");
    own_acts_without_answers => layers("own_acts", "seccomp,no-answer");
    own_acts_without_spinning => layers("own_acts", "seccomp,no-spin");
}

/// How many calls the sentry answered.
fn calls(case: Case) -> u64 {
    let output = case.option("--stats").run_in_sandbox();
    assert_eq!(output.code, 0, "{output}");
    let text = output.stderr();
    let counts = text.lines().filter_map(|line| {
        let (name, count) = line.trim().split_once(": ")?;
        name.starts_with("calls ").then(|| count.split(' ').next()?.parse::<u64>().ok())?
    });
    counts.sum()
}

#[test]
fn reads_need_no_calls() {
    let many = "for at in range(50000): os.pread(f, 8, at); os.read(f, 8)\n";
    assert!(calls(python(many)) < 30_000);
    let answered = python(many).option("--platform=seccomp,no-answer");
    assert!(calls(answered) > 100_000);
}

/// Every read is a line.
#[test]
fn traces_show_all_reads() {
    let output = python("pass").option("--strace").run_in_sandbox();
    let preads = output.stderr().lines().filter(|line| line.contains("pread64(3, ")).count();
    assert!(preads >= 3000, "{preads}");
}
