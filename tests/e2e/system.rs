//! What programs learn about the system and about themselves.

use sandbox_tests::{Case, Who, same_as_native, sh};

same_as_native! {
    id_tells_the_caller => sh("id -u; id -g; id -G; whoami");
    nproc_counts_cpus => sh("nproc; getconf _NPROCESSORS_ONLN; grep -c ^processor /proc/cpuinfo");
    date_agrees => sh("date -u +%F-%H; date -d @0 -u; TZ=Asia/Tokyo date -d '2020-01-01 00:00 UTC' +%H");
    uname_is_linux => sh("uname -s -m -o");
    hostname_is_the_hosts => sh("hostname; uname -n");
    pwd_and_cd => sh("pwd | sed s,.*/sandbox-test.*,here,; cd /usr/share && pwd; cd .. && pwd -P; cd /proc/self && pwd");
    proc_self_describes_the_program => sh("cat /proc/self/comm; tr '\\0' ' ' < /proc/self/cmdline; readlink /proc/self/exe; [ -e /proc/self/fd/2 ] && echo fds; readlink /proc/$$/cwd | sed s,.*/sandbox-test.*,here,");
    proc_self_status => sh("grep -E '^(Name|State|Uid|Gid|Threads):' /proc/self/status");
    proc_self_maps_has_stack_and_heap => sh("grep -c -F -e '[stack]' /proc/self/maps; grep -c -F '[vdso]' /proc/self/maps; cut -d' ' -f2 /proc/self/maps | sort -u | grep -c r-xp");
    proc_files_exist => sh("for f in meminfo cpuinfo stat uptime loadavg version mounts filesystems self/stat self/statm self/environ self/limits self/mountinfo self/auxv sys/kernel/ostype sys/kernel/pid_max sys/kernel/random/uuid sys/vm/overcommit_memory; do [ -s /proc/$f ] || cat /proc/$f | grep -q . || echo missing $f; done");
    proc_sys_values => sh("cat /proc/sys/kernel/ostype; cat /proc/sys/kernel/hostname");
    dev_has_the_usual => sh("for f in null zero full random urandom tty ptmx; do [ -c /dev/$f ] && echo $f; done; readlink /dev/fd /dev/stdin /dev/stdout; [ -d /dev/shm -a -d /dev/pts ]; echo $?");
    dev_shm_is_writable => sh("echo x > /dev/shm/sandbox-test-$$; cat /dev/shm/sandbox-test-$$; rm /dev/shm/sandbox-test-$$; stat -c %a /dev/shm");
    dev_stdin_reopens => sh("echo x > f; (cat /dev/stdin; echo y | cat /dev/fd/0; echo z > /dev/stdout) < f | cat");
    tmp_is_there_and_writable => sh("f=$(mktemp) && echo t > $f && cat $f && rm $f; stat -c %a /tmp");
    getconf_values => sh("getconf PAGESIZE; getconf ARG_MAX | awk '{ print ($1 > 100000) }'; getconf CLK_TCK; getconf LONG_BIT");
    sysinfo_matches_meminfo => sh("awk '/MemTotal/ { print ($2 > 100000) }' /proc/meminfo; free -b >/dev/null && echo free works");
    locale_and_getent => sh("getent passwd root | cut -d: -f1,3; getent group 0 | cut -d: -f1; locale | head -1");
    ldd_and_dynamic_loader => sh("ldd /bin/ls | grep -c libc; /lib64/ld-linux-x86-64.so.2 /bin/echo by loader; LD_DEBUG=statistics /bin/true 2>&1 | grep -c relocations");
    // A loader asks the processor all that it can do, and prints it. (Left out: ebx of leaf 1 has the number of the processor.)
    processor_is_the_hosts => sh("for i in 1 2; do /lib64/ld-linux-x86-64.so.2 --list-diagnostics | grep ^x86 | grep -v -F 'features[0x0].cpuid[0x1]'; done; /lib64/ld-linux-x86-64.so.2 --help | grep -A9 supported");
    kill_zero_and_missing => sh("kill -0 $$; echo $?; kill -0 999999; echo $?");
    limits_of_files => sh("ulimit -f 1; dd if=/dev/zero of=f bs=1024 count=10 2>/dev/null; echo $?; stat -c %s f");
}

fn in_sandbox(script: &str) -> String {
    let output = sh(script).run_in_sandbox();
    assert_eq!(output.code, 0, "{script}\n{output}");
    output.stdout()
}

/// A view of its own: not the same as the host's, by design.
#[test]
fn ps_shows_only_the_guests_processes() {
    let text = in_sandbox("ps aux");
    assert!(text.contains("ps aux"), "{text}");
    assert!(text.lines().count() <= 4, "{text}");
}

#[test]
fn top_runs_in_batch_mode() {
    let text = in_sandbox("TERM=dumb top -bn1");
    assert!(text.contains("Tasks:") && text.contains("load average"), "{text}");
}

#[test]
fn df_and_mount_show_the_guests_mounts() {
    let text = in_sandbox("df; cat /proc/mounts; df / | tail -1");
    assert!(text.contains(" /dev/shm") && text.contains(" /proc proc "), "{text}");
}

#[test]
fn the_first_process_is_the_program() {
    assert_eq!(in_sandbox("echo $$"), "1\n");
    assert_eq!(in_sandbox("ls -d /proc/[0-9]* | wc -l | awk '{ print ($1 < 5) }'"), "1\n");
}

#[test]
fn only_loopback_is_there() {
    let text =
        in_sandbox("cat /proc/net/dev 2>/dev/null | grep -v -e lo: -e Inter -e face; exit 0");
    assert_eq!(text, "");
    let output = sh("exec 3<>/dev/tcp/1.1.1.1/53").limit(20).run_in_sandbox();
    assert_ne!(output.code, 0, "{output}");
}

#[test]
fn an_ordinary_user_stays_one() {
    let case: Case = sh("id -u; cat /etc/shadow").by(Who::OrdinaryUser);
    let output = case.run_in_sandbox();
    assert_ne!(output.code, 0, "{output}");
    assert!(output.stderr().contains("Permission denied"), "{output}");
}
