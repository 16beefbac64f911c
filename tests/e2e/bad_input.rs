//! What cannot be run: a clear line, the right exit code, nothing left.

use sandbox_tests::{Case, Who, program, same_as_native, sh};

fn elf() -> Vec<u8> {
    std::fs::read("/bin/true").expect("there is a /bin/true")
}

fn runs(name: &str, content: impl AsRef<[u8]>) -> Case {
    program(&[&format!("./{name}")]).executable(name, content)
}

#[test]
fn missing_program_is_127() {
    program(&["/no/such/program"])
        .assert_fails(127, &["sandbox:", "/no/such/program", "not found"]);
    program(&["no-such-program-in-path"])
        .assert_fails(127, &["sandbox:", "no-such-program-in-path"]);
}

#[test]
fn directory_is_126() {
    program(&["/usr"]).assert_fails(126, &["sandbox:", "/usr"]);
}

#[test]
fn file_without_execute_permission_is_126() {
    program(&["./f"]).file("f", "#!/bin/sh\n").assert_fails(126, &["sandbox:", "./f"]);
}

#[test]
fn unreadable_program_is_126() {
    let case = program(&["./f"]).file_with_mode("f", "#!/bin/sh\n", 0o000);
    case.by(Who::OrdinaryUser).assert_fails(126, &["sandbox:", "./f"]);
}

#[test]
fn missing_interpreter_is_told() {
    let case = runs("f", "#!/no/such/interpreter\n");
    case.assert_fails(127, &["sandbox:", "./f", "interpreter"]);
}

#[test]
fn empty_file_is_126() {
    runs("f", "").assert_fails(126, &["sandbox:", "./f"]);
}

#[test]
fn truncated_elf_is_refused() {
    let elf = elf();
    for length in [4, 20, 63, 64, 100, 500] {
        runs("f", &elf[..length]).assert_fails(126, &["sandbox:", "./f"]);
    }
}

#[test]
fn random_bytes_are_refused() {
    let mut state = 0x1234_5678_u32;
    let mut noise = b"\x7fELF\x02\x01\x01".to_vec();
    noise.extend((0..8192).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    }));
    runs("f", noise).assert_fails(126, &["sandbox:", "./f"]);
}

#[test]
fn elf_of_32_bits_is_refused() {
    let mut elf = elf();
    elf[4] = 1; // ELFCLASS32
    elf[18] = 3; // EM_386
    runs("f", &elf).assert_fails(126, &["sandbox:", "./f"]);
    elf[4] = 2;
    elf[18] = 0xb7; // EM_AARCH64
    runs("f", &elf).assert_fails(126, &["sandbox:", "./f"]);
}

/// Whatever a header says, the sandbox ends in time, says something and is not blamed for the program's crash.
#[test]
fn mutated_elf_headers_never_break_the_sandbox() {
    let elf = elf();
    let mut state = 42_u64;
    for round in 0..60 {
        let mut mutant = elf.clone();
        for _ in 0..=round % 4 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let offset = (state >> 33) as usize % 900;
            mutant[offset] = (state >> 56) as u8;
        }
        let output = runs("f", &mutant).limit(20).run_in_sandbox();
        assert!(!output.timed_out, "round {round}: {output}");
        assert!(!output.stderr().contains("the sentry died"), "round {round}: {output}");
        assert!(!output.stderr().contains("panicked"), "round {round}: {output}");
    }
}

#[test]
fn unwritable_write_is_125() {
    let case = sh("true").by(Who::OrdinaryUser).option("--write=/etc");
    case.assert_fails(125, &["sandbox:", "--write", "/etc"]);
}

#[test]
fn unknown_option_is_125() {
    sh("true").option("--no-such-option").assert_fails(125, &["sandbox:", "--no-such-option"]);
}

same_as_native! {
    elf_with_missing_segments => sh("for n in 900 3000 9000; do head -c $n /bin/true > f$n; chmod +x f$n; ./f$n; echo $?; done").ignore_stderr();
    exec_failures_inside_a_shell => sh("/no/such; echo $?; ./f; echo $?; /usr; echo $?; ./g; echo $?")
        .executable("f", "#!/no/such/interpreter\n").file("g", "x");
    wild_jumps_and_pointers => sh("gcc -w -o f f.c && for i in 1 2 3 4 5 6; do ./f $i; echo $?; done").limit(90).ignore_stderr()
        .file("f.c", "#include <stdlib.h>\n#include <sys/syscall.h>\n#include <unistd.h>\n#include <stdio.h>\n#include <errno.h>
int main(int c, char **v) { switch (atoi(v[1])) {
case 1: *(int *)0 = 1; case 2: ((void (*)(void))0x10)(); case 3: return *(volatile int *)0xffffffffff600000;
case 4: __builtin_trap(); case 5: printf(\"%ld %d\\n\", syscall(9999), errno); return 0;
case 6: printf(\"%ld %d\\n\", syscall(SYS_write, 1, 0x10, 5), errno); return 0; } }\n");
}
