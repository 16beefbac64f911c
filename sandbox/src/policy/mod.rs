//! Which host calls the sentry may make: data with a reason per row, turned into a seccomp filter.
//!
//! The filter is the last wall: whoever breaks the sentry finds no way to open a file, make a connection, start a
//! program or gain rights. What is not listed kills the sentry, and the sandbox with it.

mod sentry_calls;

use host::seccomp::{Filter, Rule, Test, Verdict};

/// A host call, the arguments it may have, and why the sentry needs it.
pub struct Row {
    pub number: i64,
    /// Alternatives; empty allows the call with any arguments.
    pub when: &'static [&'static [Test]],
    #[cfg_attr(not(test), expect(dead_code, reason = "for readers and for the test below"))]
    pub reason: &'static str,
}

/// Installs the sentry's filter on all of its threads: it kills for what is in neither list, and refuses what is only
/// tried.
pub fn install_sentry_filter() -> Result<(), String> {
    let filter = sentry_filter().ok_or("the sentry's filter of host calls is malformed")?;
    let refused = |error| format!("the sentry's filter of host calls was refused: {error}");
    filter.install().map_err(refused)
}

fn sentry_filter() -> Option<Filter> {
    let rule = |row: &Row, verdict| {
        let number = u32::try_from(row.number).ok()?;
        Some(Rule { number, when: row.when, verdict })
    };
    let refuse = Verdict::Refuse(libc::EACCES as u16);
    let allowed = sentry_calls::ROWS.iter().map(|row| rule(row, Verdict::Allow));
    let refused = sentry_calls::REFUSED.iter().map(|row| rule(row, refuse));
    Filter::new(allowed.chain(refused).collect::<Option<Vec<_>>>()?)
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
        assert!(sentry_filter().is_some());
    }

    #[test]
    fn what_is_not_listed_kills_and_what_is_only_tried_is_refused() {
        let filter = sentry_filter().expect("a valid table");
        let numbers = |rows: &[Row]| rows.iter().map(|row| row.number).collect::<Vec<_>>();
        let (listed, refused) = (numbers(sentry_calls::ROWS), numbers(sentry_calls::REFUSED));
        for number in 0..1024 {
            let verdict = filter.verdict(number, [0; 6]);
            let number = i64::from(number);
            if refused.contains(&number) {
                assert_eq!(verdict, Some(Verdict::Refuse(libc::EACCES as u16)), "{number}");
            } else if !listed.contains(&number) || number == libc::SYS_ioctl {
                assert_eq!(verdict, None, "{number}");
            } else {
                assert_eq!(verdict, Some(Verdict::Allow), "{number}");
            }
        }
        let ioctl = |request| filter.verdict(libc::SYS_ioctl as u32, [3, request, 0, 0, 0, 0]);
        assert_eq!(ioctl(0xc050_2100), Some(Verdict::Allow));
        // TIOCSTI.
        assert_eq!(ioctl(0x5412), None);
        let mmap = |prot| filter.verdict(libc::SYS_mmap as u32, [0, 0, prot, 0, 0, 0]);
        assert_eq!(mmap(3), Some(Verdict::Allow));
        assert_eq!(mmap(7), None);
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
