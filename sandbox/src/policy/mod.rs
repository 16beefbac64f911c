//! Which host calls the sentry may make: data with a reason per row, turned into a seccomp filter.
//!
//! The filter is the last wall: whoever breaks the sentry finds no way to open a file, make a connection, start a
//! program or gain rights. What is not listed kills the sentry, and the sandbox with it.

mod sentry_calls;

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// A host call, the arguments it may have, and why the sentry needs it.
pub struct Row {
    pub number: i64,
    /// Alternatives; empty allows the call with any arguments.
    pub when: &'static [&'static [Test]],
    #[cfg_attr(not(test), expect(dead_code, reason = "for readers and for the test below"))]
    pub reason: &'static str,
}

/// A test of one argument.
pub enum Test {
    /// Argument (by index) equals the value, as 32 bits.
    Is(u8, u64),
    /// Argument has none of these bits, as 64 bits.
    Lacks(u8, u64),
}

/// Installs the sentry's filters on all of its threads: one that kills for what is in neither list, and one that
/// refuses what is only tried. (Of two filters' answers the host takes the stricter.)
pub fn install_sentry_filter() -> Result<(), String> {
    let kill = compile(
        sentry_calls::ROWS.iter().chain(sentry_calls::REFUSED),
        SeccompAction::KillProcess,
        SeccompAction::Allow,
    );
    let refusal = SeccompAction::Errno(libc::EACCES.unsigned_abs());
    let refuse = compile(sentry_calls::REFUSED, SeccompAction::Allow, refusal);
    for program in [refuse, kill] {
        let program = program.map_err(|e| format!("bad filter: {e}"))?;
        seccompiler::apply_filter_all_threads(&program)
            .map_err(|e| format!("the sentry's filter of host calls was refused: {e}"))?;
    }
    Ok(())
}

fn compile<'a>(
    rows: impl IntoIterator<Item = &'a Row>,
    mismatch: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for row in rows {
        let chain = rules.entry(row.number).or_default();
        for alternative in row.when {
            let conditions = alternative.iter().map(condition).collect::<Result<_, _>>()?;
            chain.push(SeccompRule::new(conditions)?);
        }
    }
    SeccompFilter::new(rules, mismatch, matched, TargetArch::x86_64)?.try_into()
}

fn condition(test: &Test) -> Result<SeccompCondition, seccompiler::BackendError> {
    match *test {
        Test::Is(index, value) => {
            SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
        }
        Test::Lacks(index, bits) => {
            let masked = SeccompCmpOp::MaskedEq(bits);
            SeccompCondition::new(index, SeccompCmpArgLen::Qword, masked, 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_reason_and_no_call_stands_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for row in sentry_calls::ROWS.iter().chain(sentry_calls::REFUSED) {
            assert!(!row.reason.is_empty(), "call {}", row.number);
            assert!(seen.insert(row.number), "call {} stands twice", row.number);
        }
        let kill = SeccompAction::KillProcess;
        assert!(compile(sentry_calls::ROWS, kill, SeccompAction::Allow).is_ok());
    }

    #[test]
    fn nothing_opens_connects_executes_or_traces() {
        let forbidden = [
            libc::SYS_open,
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_mount,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
        ];
        for row in sentry_calls::ROWS {
            assert!(!forbidden.contains(&row.number), "call {}", row.number);
        }
    }
}
